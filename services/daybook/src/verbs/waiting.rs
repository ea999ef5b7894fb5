//! `daybook waiting`: which orders wait, for what, since when, and what of them could not be done at once.

use super::order::one_of;
use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::queries::ListWaiting;
use order_views::waiting::{Wait, WaitedFor, WaitingOrder};
use serde_json::Value;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only orders that wait for this.
    #[arg(long = "for", value_name = "WHAT", value_parser = one_of(WaitedFor::ALL, WaitedFor::as_str))]
    what: Option<WaitedFor>,
    /// Only orders that have waited for at least this long, in seconds.
    #[arg(long, value_name = "SECONDS")]
    longer_than: Option<u32>,
    /// The maximum number of orders, 500 at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    limit: u64,
}

pub(super) async fn run(args: Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let query = ListWaiting { r#for: args.what, longer_than_seconds: args.longer_than, ..ListWaiting::default() };
    let found = client.list(query, args.limit)?.all().await?;
    if json {
        for order in &found {
            output::line(&serde_json::to_string(order)?);
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    output::line(&output::table(&["order", "waits for", "since", "trouble"], &rows));
    Ok(())
}

fn row(order: &WaitingOrder) -> Vec<String> {
    let trouble = order.follow_ups.iter().map(|f| {
        let reason = f.reason.as_deref().unwrap_or_default();
        format!("{} {} after {} attempts: {reason}", f.reaction, f.state, f.attempts)
    });
    vec![
        order.order_id.to_string(),
        order.waits.iter().map(told).collect::<Vec<_>>().join("; "),
        order.since.format("%Y-%m-%d %H:%M:%S").to_string(),
        trouble.collect::<Vec<_>>().join("; "),
    ]
}

/// As the query has it: `approval 1`, `hold fraud`, `return 1, 2 pieces`.
fn told(wait: &Wait) -> String {
    let Ok(Value::Object(mut wait)) = serde_json::to_value(wait) else { return String::new() };
    let word = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let what = wait.remove("for").map(word).unwrap_or_default();
    let number = ["approval", "edit", "reason", "return_no"].into_iter().find_map(|name| wait.remove(name)).map(word);
    let lines = wait.remove("lines").map(|lines| format!("lines {lines}"));
    let pieces = wait.remove("pieces").map(|pieces| format!("of {pieces} pieces"));
    [Some(what.replace('_', " ")), number, lines, pieces].into_iter().flatten().collect::<Vec<_>>().join(" ")
}
