//! What orders wait for, told a second time: event by event, from the payloads alone.

use super::read_models::{ReadModel, StoredRow};
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use runtime::verify::log::Row;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::HashMap;

/// A row; its fields are the columns.
#[derive(Serialize)]
pub(super) struct Waiting {
    order_id: String,
    waits: Vec<Value>,
    since: DateTime<Utc>,
}

impl ReadModel for Waiting {
    const TABLE: &'static str = "waiting";
    const CATEGORIES: &'static [&'static str] = &["order"];
    const VERSIONS: &'static [(&'static str, i16)] =
        &[("OrderPlaced", 2), ("OrderCancelled", 2), ("HistoryRecorded", 2)];

    fn fold(rows: &mut HashMap<String, Self>, event: &Row, payload: &Value) -> Option<()> {
        let order_id = event.stream_id.to_string();
        let mut waits = rows.remove(&order_id).map_or_else(Vec::new, |row| row.waits);
        let field = |name: &str| payload.get(name).cloned();
        let numbers = |of: &str, name: &str| -> Option<Vec<u64>> {
            payload.get(of)?.as_array()?.iter().map(|l| l.get(name)?.as_u64()).collect()
        };
        let mut begin = |mut wait: Value| {
            wait["since"] = json!(event.recorded_at);
            waits.push(wait);
        };
        let mut over: Vec<&str> = Vec::new();
        match &*event.event_type {
            "OrderPlaced" if !payload.get("payments")?.as_array()?.is_empty() => begin(json!({ "for": "payment" })),
            "PaymentsSecured" => {
                begin(json!({ "for": "stock" }));
                over.push("payment");
            }
            "LinesBackordered" => begin(json!({ "for": "backorder", "lines": numbers("short", "line")? })),
            "BackorderFilled" | "LinesCancelled" => {
                let gone = payload.get("lines")?.as_array()?;
                for wait in waits.iter_mut().filter(|wait| wait["for"] == "backorder") {
                    wait["lines"].as_array_mut()?.retain(|line| !gone.contains(line));
                }
                waits.retain(|wait| wait["for"] != "backorder" || wait["lines"] != json!([]));
            }
            "StockSecured" => over.extend(["stock", "backorder"]),
            "OrderConfirmed" => {
                begin(json!({ "for": "delivery" }));
                over.extend(["stock", "backorder"]);
            }
            "ApprovalRequested" => begin(json!({ "for": "approval", "approval": field("approval")? })),
            "ApprovalGranted" | "ApprovalDenied" | "ApprovalTimedOut" => over.push("approval"),
            "HoldPlaced" => begin(json!({ "for": "hold", "reason": field("reason")? })),
            "HoldReleased" => {
                let reason = field("reason")?;
                waits.retain(|wait| wait["for"] != "hold" || wait["reason"] != reason);
            }
            "EditProposed" => begin(json!({ "for": "edit", "edit": field("edit")? })),
            "EditConfirmed" | "EditDiscarded" => over.push("edit"),
            "ReturnRequested" => {
                let pieces: u64 = numbers("lines", "quantity")?.iter().sum();
                begin(json!({ "for": "return_approval", "return_no": field("return_no")?, "pieces": pieces }));
            }
            "ReturnApproved" => {
                let no = field("return_no")?;
                // None, if the request was discarded.
                let asked = waits.iter().position(|wait| wait["for"] == "return_approval" && wait["return_no"] == no);
                if let Some(pieces) = asked.map(|asked| waits.remove(asked)["pieces"].clone()) {
                    let (at, what) = (event.recorded_at, "return");
                    waits.push(json!({ "for": what, "return_no": no, "pieces": pieces, "since": at }));
                }
            }
            "ReturnReceived" => {
                let (no, came) = (field("return_no")?, numbers("lines", "quantity")?.iter().sum::<u64>());
                for wait in waits.iter_mut().filter(|wait| wait["for"] == "return" && wait["return_no"] == no) {
                    wait["pieces"] = json!(wait["pieces"].as_u64()?.saturating_sub(came));
                }
                waits.retain(|wait| wait["for"] != "return" || wait["pieces"] != 0);
            }
            "OrderCompleted" => over.push("delivery"),
            "OrderCancelled" | "OrderRejected" | "OrderExpired" => waits.clear(),
            _ => {}
        }
        waits.retain(|wait| !over.iter().any(|over| wait["for"] == *over));
        if let Some(first) = waits.first() {
            let since = serde_json::from_value(first["since"].clone()).ok()?;
            rows.insert(order_id.clone(), Self { order_id, waits, since });
        }
        Some(())
    }

    fn stored(snapshot: &mut PgConnection, generation: Option<i32>) -> BoxStream<'_, Result<StoredRow, sqlx::Error>> {
        sqlx::query_as!(
            StoredRow,
            r#"SELECT generation, order_id::text AS "key!", to_jsonb(r) - 'generation' AS "columns!"
               FROM daybook.waiting r
               WHERE generation = $1
                  OR generation NOT IN (SELECT generation FROM daybook.checkpoints WHERE projection = 'waiting')"#,
            generation
        )
        .fetch(snapshot)
    }
}
