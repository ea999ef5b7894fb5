//! `daybook shipments`: a page of what must be shipped.

use super::order::one_of;
use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::queries::ListShipments;
use order_views::fulfilment::{Fulfilment, Status};
use uuid::Uuid;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only this seller's shipments.
    #[arg(long)]
    seller: Option<Uuid>,
    /// Only shipments with this status. By default, planned, ready and held.
    #[arg(long, value_parser = one_of(Status::ALL, Status::as_str))]
    status: Option<Status>,
    /// The maximum number of shipments, 500 at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    limit: u64,
}

pub(super) async fn run(args: Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let query = ListShipments { seller_id: args.seller, status: args.status, ..ListShipments::default() };
    let found = client.list(query, args.limit)?.all().await?;
    if json {
        for shipment in &found {
            output::line(&serde_json::to_string(shipment)?);
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    output::line(&output::table(&["shipment", "status", "revision", "pieces", "seller", "planned"], &rows));
    Ok(())
}

fn row(shipment: &Fulfilment) -> Vec<String> {
    let pieces: Vec<String> = shipment.lines.iter().map(|l| format!("{} {}", l.quantity, l.sku)).collect();
    vec![
        shipment.shipment_id.to_string(),
        shipment.status.clone(),
        shipment.revision.to_string(),
        pieces.join(", "),
        shipment.seller_id.map(|id| id.to_string()).unwrap_or_default(),
        shipment.planned_at.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default(),
    ]
}
