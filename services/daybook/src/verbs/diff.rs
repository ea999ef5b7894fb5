//! `daybook order diff`: what is different between an order at one moment and at another, field by field.

use chrono::{DateTime, Utc};
use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::time_travel::{At, Difference, StateAt, differences, state_at};
use order_views::CATEGORIES;
use orders::order::Order;
use serde_json::{Value, json};
use store::Log;
use store::connect::{self, Role};
use uuid::Uuid;

/// A version of the order's stream, or a time.
pub(super) fn moment(text: &str) -> Result<At, &'static str> {
    match (text.parse(), text.parse()) {
        (Ok(version), _) if version >= 1 => Ok(At::Version(version)),
        (_, Ok(time)) => Ok(At::Time(time)),
        _ => Err("a version from 1, or a time such as 2026-11-22T08:39:56Z"),
    }
}

pub(super) async fn run(id: Uuid, from: At, to: Option<At>, servers: &Servers, json: bool) -> Result<(), Failure> {
    let database_url = target::database_url(servers)?;
    let log = Log::new(connect::checked_pool(&database_url, Role::Read, 1).await?, CATEGORIES);
    let newest = At::Time(DateTime::<Utc>::MAX_UTC);
    let before = state_at::<Order>(&log, id, from).await?;
    let after = state_at::<Order>(&log, id, to.unwrap_or(newest)).await?;
    let changes = differences(&before, &after)?;
    if json {
        let end = |state: &StateAt<Order>| json!({ "version": state.version, "recorded_at": state.recorded_at });
        let whole = json!({ "stream": after.stream, "from": end(&before), "to": end(&after), "changes": changes });
        output::line(&whole.to_string());
        return Ok(());
    }
    let end = |state: &StateAt<Order>| format!("version {} ({})", state.version, state.recorded_at);
    output::line(&format!("{}: {} → {}", after.stream, end(&before), end(&after)));
    if changes.is_empty() {
        output::line("no differences");
    } else {
        let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
        output::line(&output::table(&["field", "before", "", "after"], &rows));
    }
    Ok(())
}

fn row(change: &Difference) -> Vec<String> {
    let shown = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    vec![change.field.clone(), shown(&change.before), "→".to_owned(), shown(&change.after)]
}
