//! `daybook stock receive|show`: what the warehouse takes in, and what there is.

use super::{Failure, output, target};
use crate::command_api::Receive;
use crate::config::Servers;
use domain::id::Sku;
use projections::stock_level::StockLevel;
use serde_json::json;
use store::Position;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Take pieces of a SKU in.
    Receive {
        /// 1 to 64 printable characters without blanks.
        sku: String,
        /// How many pieces.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        quantity: u32,
    },
    /// Show how many pieces of a SKU are on hand and reserved.
    Show {
        /// What was received.
        sku: String,
        /// Wait for the read model to come to this position, that of a command's reply.
        #[arg(long)]
        at_least: Option<Position>,
    },
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    match verb {
        Verb::Receive { sku, quantity } => {
            let sku = Sku::new(sku).map_err(|e| Failure::Usage(e.to_string()))?;
            let client = target::client(servers).await?;
            let reply = client.command(Receive { sku: sku.clone(), quantity }, target::PATIENCE).await?;
            output::reply("sku", sku.as_str(), &reply, json)
        }
        Verb::Show { sku, at_least } => {
            let client = target::client(servers).await?;
            let found = client.query::<StockLevel>("stock_level.get", json!({ "sku": sku }), at_least).await?;
            match json {
                true => output::line(&serde_json::to_string(&found)?),
                false => {
                    let StockLevel { sku, on_hand, reserved, .. } = found.data;
                    output::line(&format!("{sku}: {on_hand} on hand, {reserved} of them reserved"));
                }
            }
            Ok(())
        }
    }
}
