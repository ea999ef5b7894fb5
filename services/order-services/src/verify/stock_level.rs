//! The stock level, told a second time: event by event, from the payloads alone.

use super::read_models::{ReadModel, StoredRow};
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use runtime::verify::log::Row;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;

/// A row; its fields are the columns.
#[derive(Serialize)]
pub(super) struct Stock {
    sku: String,
    on_hand: i64,
    reserved: i64,
    changed_at: DateTime<Utc>,
    version: i64,
}

impl ReadModel for Stock {
    const TABLE: &'static str = "stock_level";
    const CATEGORIES: &'static [&'static str] = &["stock"];
    const VERSIONS: &'static [(&'static str, i16)] = &[("StockReserved", 2)];

    fn fold(rows: &mut HashMap<String, Self>, event: &Row, payload: &Value) -> Option<()> {
        let sku = payload.get("sku")?.as_str()?.to_owned();
        let Row { recorded_at, version, .. } = *event;
        let new = Self { sku: sku.clone(), on_hand: 0, reserved: 0, changed_at: recorded_at, version };
        let row = rows.entry(sku).or_insert(new);
        row.changed_at = recorded_at;
        row.version = version;
        let (on_hand, reserved) = match &*event.event_type {
            "StockReceived" => (payload.get("quantity")?.as_i64()?, 0),
            "StockReserved" => (0, pieces(payload)?),
            "StockCommitted" => (-pieces(payload)?, -pieces(payload)?),
            "StockReleased" | "StockExpired" => (0, -pieces(payload)?),
            "StockAdjusted" => (payload.get("by")?.as_i64()?, 0),
            "StockRestocked" => (pieces(payload)?, 0),
            _ => (0, 0),
        };
        row.on_hand = row.on_hand.checked_add(on_hand)?;
        row.reserved = row.reserved.checked_add(reserved)?;
        Some(())
    }

    fn stored(snapshot: &mut PgConnection, generation: Option<i32>) -> BoxStream<'_, Result<StoredRow, sqlx::Error>> {
        sqlx::query_as!(
            StoredRow,
            r#"SELECT generation, sku AS key, to_jsonb(r) - 'generation' AS "columns!"
               FROM daybook.stock_level r
               WHERE generation = $1
                  OR generation NOT IN (SELECT generation FROM daybook.checkpoints WHERE projection = 'stock_level')"#,
            generation
        )
        .fetch(snapshot)
    }
}

/// How many pieces all lines of the event have. Each is at most `u32::MAX`, so that their sum can be negated.
fn pieces(payload: &Value) -> Option<i64> {
    let quantity = |line: &Value| u32::try_from(line.get("quantity")?.as_u64()?).ok().map(i64::from);
    payload.get("lines")?.as_array()?.iter().map(quantity).sum()
}
