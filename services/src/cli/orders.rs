//! `daybook orders`: a page of the order summaries.

use super::{Failure, output, target};
use crate::config::Servers;
use domain::money::{Amount, Currency};
use projections::order_summary::OrderSummary;
use serde_json::json;
use uuid::Uuid;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only orders in this status: placed, awaiting_approval, on_hold, confirmed, completed, cancelled, rejected, expired.
    #[arg(long)]
    status: Option<String>,
    /// Only this customer's orders.
    #[arg(long)]
    customer: Option<Uuid>,
    /// How many at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=500))]
    limit: i64,
}

pub(super) async fn run(args: Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let data = json!({ "status": args.status, "customer_id": args.customer, "limit": args.limit });
    let found = client.query::<Vec<OrderSummary>>("order_summary.list", data, None).await?;
    if json {
        for order in &found.data {
            output::line(&serde_json::to_string(order)?);
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found.data.iter().map(row).collect();
    output::line(&output::table(&["order", "status", "total", "", "lines", "placed"], &rows));
    Ok(())
}

fn row(order: &OrderSummary) -> Vec<String> {
    let total = match order.currency.parse::<Currency>() {
        Ok(currency) => Amount(order.total).display(currency),
        Err(_) => order.total.to_string(),
    };
    vec![
        order.order_id.to_string(),
        order.status.clone(),
        total,
        order.currency.clone(),
        order.lines.to_string(),
        order.placed_at.format("%Y-%m-%d %H:%M:%S").to_string(),
    ]
}
