//! The event index, told a second time: event by event.

use super::read_models::{ReadModel, StoredRow};
use futures_util::stream::BoxStream;
use runtime::verify::log::Row;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;

/// A row; its fields are the columns.
#[derive(Serialize)]
pub(super) struct Positions {
    key: String,
    base: i64,
    offsets: Vec<i64>,
}

impl ReadModel for Positions {
    const TABLE: &'static str = "event_index";
    const CATEGORIES: &'static [&'static str] = &["order", "payment", "stock", "shipment"];
    const VERSIONS: &'static [(&'static str, i16)] =
        &[("OrderPlaced", 2), ("OrderCancelled", 2), ("HistoryRecorded", 2), ("StockReserved", 2)];

    fn fold(rows: &mut HashMap<String, Self>, event: &Row, _: &Value) -> Option<()> {
        let category = event.category_name.clone()?;
        let of_type = format!("{category}/{}", event.event_type);
        for (key, block) in [(category, 1024), (of_type, 1024), (event.correlation_id.to_string(), 32_768)] {
            let base = event.position / block * block;
            let new = || Self { key: key.clone(), base, offsets: vec![] };
            rows.entry(format!("{key} from {base}")).or_insert_with(new).offsets.push(event.position % block);
        }
        Some(())
    }

    fn stored(snapshot: &mut PgConnection, generation: Option<i32>) -> BoxStream<'_, Result<StoredRow, sqlx::Error>> {
        sqlx::query_as!(
            StoredRow,
            r#"SELECT generation, key || ' from ' || base AS "key!", to_jsonb(r) - 'generation' AS "columns!"
               FROM daybook.event_index r
               WHERE generation = $1
                  OR generation NOT IN (SELECT generation FROM daybook.checkpoints WHERE projection = 'event_index')"#,
            generation
        )
        .fetch(snapshot)
    }
}
