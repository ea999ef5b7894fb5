//! `daybook shipment …`: what a warehouse and a carrier say.

use super::{Failure, output, target};
use crate::command_api::{ConfirmDelivery, Dispatch, MarkReady, ReportLost, ReportReturned};
use crate::config::Servers;
use domain::id::ShipmentId;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Say that a shipment is packed.
    Ready {
        /// The shipment: its stream, in `daybook events read`, is called shipment-ID.
        id: ShipmentId,
        /// Which of its plans it was packed by: a change of its order makes a new one.
        #[arg(long, default_value_t = 1)]
        revision: u32,
    },
    /// Hand a shipment to the carrier.
    Dispatch {
        /// The shipment: its stream, in `daybook events read`, is called shipment-ID.
        id: ShipmentId,
        /// Which of its plans it was packed by: a change of its order makes a new one.
        #[arg(long, default_value_t = 1)]
        revision: u32,
        /// The carrier's tracking number.
        #[arg(long)]
        tracking: String,
    },
    /// Say that a shipment has arrived.
    Deliver {
        /// The shipment: its stream, in `daybook events read`, is called shipment-ID.
        id: ShipmentId,
    },
    /// Say that a shipment was lost on its way: it is refunded.
    Lost {
        /// The shipment: its stream, in `daybook events read`, is called shipment-ID.
        id: ShipmentId,
    },
    /// Say that a shipment could not be delivered and has come back: it is refunded.
    Returned {
        /// The shipment: its stream, in `daybook events read`, is called shipment-ID.
        id: ShipmentId,
    },
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let (shipment_id, reply) = match verb {
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
