//! `daybook stock receive|adjust|show`: what the warehouse takes in and counts, and what there is.

use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::verbs::{Adjust, Receive};
use order_views::stock_level::StockLevel;
use orders::id::Sku;
use orders::stock::AdjustReason;
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
    /// Correct how many pieces of a SKU there are, after they were counted.
    Adjust {
        /// What was received.
        sku: String,
        /// How many more there are, such as 3; or fewer, such as -2.
        #[arg(allow_negative_numbers = true)]
        by: i64,
        /// count, damage, theft or other.
        #[arg(long, value_parser = super::order::word::<AdjustReason>)]
        reason: AdjustReason,
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
        Verb::Adjust { sku, by, reason } => {
            let sku = Sku::new(sku).map_err(|e| Failure::Usage(e.to_string()))?;
            let client = target::client(servers).await?;
            let reply = client.command(Adjust { sku: sku.clone(), by, reason }, target::PATIENCE).await?;
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
