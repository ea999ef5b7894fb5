//! `daybook shipment dispatch|deliver`: what a warehouse and a carrier say.

use super::{Failure, output, target};
use crate::command_api::{ConfirmDelivery, Dispatch};
use crate::config::Servers;
use domain::id::ShipmentId;
use uuid::Uuid;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Hand a shipment to the carrier.
    Dispatch {
        /// The shipment: its stream, in `daybook events read`, is called shipment-ID.
        id: Uuid,
        /// The carrier's tracking number.
        #[arg(long)]
        tracking: String,
    },
    /// Say that a shipment has arrived.
    Deliver {
        /// The shipment: its stream, in `daybook events read`, is called shipment-ID.
        id: Uuid,
    },
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let (id, reply) = match verb {
        Verb::Dispatch { id, tracking } => {
            let dispatch = Dispatch { shipment_id: ShipmentId(id), tracking };
            (id, client.command(dispatch, target::PATIENCE).await?)
        }
        Verb::Deliver { id } => {
            (id, client.command(ConfirmDelivery { shipment_id: ShipmentId(id) }, target::PATIENCE).await?)
        }
    };
    output::reply("shipment_id", &id.to_string(), &reply, json)
}
