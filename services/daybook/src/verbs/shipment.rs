//! `daybook shipment …`: what a warehouse and a carrier say, and how a shipment stands.

use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::queries::GetShipment;
use order_services::verbs::{ConfirmDelivery, Dispatch, MarkReady, ReportLost, ReportReturned};
use order_views::fulfilment::Fulfilment;
use orders::id::ShipmentId;
use store::Position;
use uuid::Uuid;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Show a shipment.
    Show {
        /// The shipment's id.
        id: Uuid,
        /// Wait until the read model has reached this position, such as that of a command's reply.
        #[arg(long)]
        at_least: Option<Position>,
    },
    /// Record that a shipment is packed.
    Ready {
        /// The shipment's id. `daybook shipments` lists it.
        id: ShipmentId,
        /// The revision of the plan that the parcel was packed by. `daybook shipment show` prints the newest.
        #[arg(long, default_value_t = 1)]
        revision: u32,
    },
    /// Record that a shipment was handed to the carrier. Its payments are captured.
    Dispatch {
        /// The shipment's id. `daybook shipments` lists it.
        id: ShipmentId,
        /// The revision of the plan that the parcel was packed by. `daybook shipment show` prints the newest.
        #[arg(long, default_value_t = 1)]
        revision: u32,
        /// The carrier's tracking number, 1 to 64 printable ASCII characters without blanks.
        #[arg(long)]
        tracking: String,
    },
    /// Record that a shipment has arrived.
    Deliver {
        /// The shipment's id. `daybook shipments` lists it.
        id: ShipmentId,
    },
    /// Record that a shipment was lost. It is refunded.
    Lost {
        /// The shipment's id. `daybook shipments` lists it.
        id: ShipmentId,
    },
    /// Record that a shipment could not be delivered and came back. It is refunded, and its pieces go back to stock.
    Returned {
        /// The shipment's id. `daybook shipments` lists it.
        id: ShipmentId,
    },
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let (shipment_id, reply) = match verb {
        Verb::Show { id, at_least } => {
            let found = client.get(GetShipment { shipment_id: id }, at_least).await?;
            match json {
                true => output::line(&serde_json::to_string(&found)?),
                false => print(&found.data),
            }
            return Ok(());
        }
        Verb::Ready { id, revision } => {
            (id, client.command(MarkReady { shipment_id: id, revision }, target::PATIENCE).await?)
        }
        Verb::Dispatch { id, revision, tracking } => {
            (id, client.command(Dispatch { shipment_id: id, revision, tracking }, target::PATIENCE).await?)
        }
        Verb::Deliver { id } => (id, client.command(ConfirmDelivery { shipment_id: id }, target::PATIENCE).await?),
        Verb::Lost { id } => (id, client.command(ReportLost { shipment_id: id }, target::PATIENCE).await?),
        Verb::Returned { id } => (id, client.command(ReportReturned { shipment_id: id }, target::PATIENCE).await?),
    };
    output::reply("shipment_id", &shipment_id.to_string(), &reply, json)
}

fn print(shipment: &Fulfilment) {
    let shown = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    let mut lines = vec![
        format!("shipment  {}", shipment.shipment_id),
        format!("status    {}", shipment.status),
        format!("order     {}", shown(shipment.order_id)),
        format!("seller    {}", shown(shipment.seller_id)),
        format!("customer  {}", shown(shipment.customer_id)),
        format!("address   {}", shown(shipment.address_id)),
        format!("revision  {}", shipment.revision),
    ];
    lines.extend(shipment.lines.iter().map(|l| format!("line      {}: {} {}", l.line, l.quantity, l.sku)));
    lines.extend(shipment.tracking.as_ref().map(|tracking| format!("tracking  {tracking}")));
    lines.extend(shipment.planned_at.map(|at| format!("planned   {at}")));
    lines.push(format!("changed   {}, version {}", shipment.changed_at, shipment.version));
    output::line(&lines.join("\n"));
}
