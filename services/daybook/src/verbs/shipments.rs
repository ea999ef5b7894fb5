//! `daybook shipments`: a page of what must be shipped.

use cli::config::Servers;
use cli::{Failure, output, target};
use order_views::fulfilment::Fulfilment;
use serde_json::json;
use uuid::Uuid;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only this seller's shipments.
    #[arg(long)]
    seller: Option<Uuid>,
    /// Only shipments with this status: planned, ready, held, dispatched, delivered, lost, returned_to_sender or
    /// cancelled. By default, planned, ready and held.
    #[arg(long)]
    status: Option<String>,
    /// The maximum number of shipments, 500 at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    limit: u64,
}

pub(super) async fn run(args: Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let data = json!({ "seller_id": args.seller, "status": args.status });
    let found: Vec<Fulfilment> = client.list("fulfilment.list", data, args.limit).all().await?;
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
