//! `daybook stock receive|adjust|show`: what the warehouse takes in and counts, and what there is.

use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::queries::GetStock;
use order_services::verbs::{Adjust, Receive};
use order_views::stock_level::StockLevel;
use orders::id::Sku;
use orders::stock::AdjustReason;
use store::Position;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Add received pieces to the stock of a SKU.
    Receive {
        /// The SKU: 1 to 64 printable ASCII characters without blanks.
        sku: String,
        /// The number of pieces.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        quantity: u32,
    },
    /// Correct the stock of a SKU, for example after a count.
    Adjust {
        /// The SKU.
        sku: String,
        /// The difference: 3 for three pieces more, -2 for two fewer.
        #[arg(allow_negative_numbers = true)]
        by: i64,
        /// The reason: count, damage, theft or other.
        #[arg(long, value_parser = super::order::word::<AdjustReason>)]
        reason: AdjustReason,
    },
    /// Show the pieces of a SKU that are on hand, and how many of them are reserved.
    Show {
        /// The SKU.
        sku: String,
        /// Wait until the read model has reached this position, such as that of a command's reply.
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
            let sku = Sku::new(sku).map_err(|e| Failure::Usage(e.to_string()))?;
            let client = target::client(servers).await?;
            let found = client.get(GetStock { sku }, at_least).await?;
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
