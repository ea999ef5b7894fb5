//! `daybook order history`: what happened to an order, an event a line.

use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::queries::{GetOrder, ListHistory};
use order_views::order_history::Entry;
use orders::money::{Amount, Currency};
use serde_json::Value;
use store::Position;
use uuid::Uuid;

pub(super) async fn run(id: Uuid, after: Position, limit: u64, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    // An order that does not exist is not found; and not every event says its currency.
    let order = client.get(GetOrder { order_id: id }, None).await?.data;
    let query = ListHistory { order_id: id, after: Some(after), limit: None };
    let entries = client.list(query, limit)?.all().await?;
    for entry in &entries {
        output::line(&match json {
            true => serde_json::to_string(entry)?,
            false => shown(entry, &order.currency),
        });
    }
    Ok(())
}

/// `2026-11-22 08:39:56  order placed: lines 2 mug, total 21.90 EUR (shop)`
fn shown(entry: &Entry, currency: &str) -> String {
    let details: Vec<String> =
        entry.detail.as_object().into_iter().flatten().filter_map(|d| detail(d, currency)).collect();
    let details = if details.is_empty() { String::new() } else { format!(": {}", details.join(", ")) };
    let time = entry.occurred_at.format("%Y-%m-%d %H:%M:%S");
    format!("{:>8}  {time}  {}{details} ({})", entry.position, words(&entry.event_type), entry.actor)
}

/// `OrderPlaced`: order placed.
fn words(event_type: &str) -> String {
    let mut words = String::new();
    for c in event_type.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

fn detail((name, value): (&String, &Value), currency: &str) -> Option<String> {
    let value = match (&**name, value.as_i64(), currency.parse::<Currency>()) {
        // It stands with each amount.
        ("currency", ..) => return None,
        ("amount" | "total", Some(amount), Ok(currency)) => format!("{} {currency}", Amount(amount).display(currency)),
        _ => text(value),
    };
    Some(format!("{} {value}", name.trim_end_matches("_id").replace('_', " ")))
}

/// Of lines their numbers, or how many pieces of which SKU they are.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" and "),
        // An id that is derived from that of another system, by its name there.
        Value::Object(fields) if fields.contains_key("name") => text(&fields["name"]),
        Value::Object(fields) => match (fields.get("quantity"), fields.get("sku"), fields.get("line")) {
            (Some(quantity), Some(sku), _) => format!("{quantity} {}", text(sku)),
            (Some(quantity), None, Some(line)) => format!("{quantity} of line {line}"),
            // A call of the provider's, by its name.
            _ => fields.keys().cloned().collect::<Vec<_>>().join(" "),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use serde_json::json;

    #[test]
    fn an_event_is_told_in_a_line() {
        let entry = |event_type: &str, detail: Value| Entry {
            order_id: Uuid::nil(),
            position: 7,
            recorded_at: DateTime::default(),
            occurred_at: DateTime::default(),
            category: "order".into(),
            stream_id: Uuid::nil(),
            version: 1,
            event_type: event_type.into(),
            actor: "shop".into(),
            detail,
        };
        let line = |event_type, detail| shown(&entry(event_type, detail), "EUR");
        let lines = json!([{ "line": 1, "sku": "mug", "quantity": 2 }, { "line": 2, "sku": "hat", "quantity": 1 }]);
        assert_eq!(
            line("OrderPlaced", json!({ "currency": "EUR", "lines": lines, "total": 2190 })),
            "       7  1970-01-01 00:00:00  order placed: lines 2 mug and 1 hat, total 21.90 EUR (shop)"
        );
        assert_eq!(
            line("ReturnRequested", json!({ "lines": [{ "line": 1, "quantity": 1 }], "return_no": 1 })),
            "       7  1970-01-01 00:00:00  return requested: lines 1 of line 1, return no 1 (shop)"
        );
        assert_eq!(
            line("OutcomeUnknown", json!({ "call": { "capture": { "capture_id": "x" } } })),
            "       7  1970-01-01 00:00:00  outcome unknown: call capture (shop)"
        );
        assert_eq!(
            line("HistoryRecorded", json!({ "ids": [{ "id": "x", "name": "ORD_1" }, { "id": "y", "name": "S/7" }] })),
            "       7  1970-01-01 00:00:00  history recorded: ids ORD_1 and S/7 (shop)"
        );
        assert_eq!(line("OrderCompleted", json!({})), "       7  1970-01-01 00:00:00  order completed (shop)");
    }
}
