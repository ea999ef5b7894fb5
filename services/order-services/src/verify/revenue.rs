//! The money by payment and day, told a second time: event by event, from the payloads alone.

use super::read_models::{ReadModel, StoredRow, text};
use chrono::NaiveDate;
use futures_util::stream::BoxStream;
use runtime::verify::log::Row;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;

/// A row; its fields are the columns.
#[derive(Serialize)]
pub(super) struct PaymentDay {
    payment_id: String,
    day: NaiveDate,
    currency: String,
    kind: Option<String>,
    captured: i64,
    captures: i64,
    refunded: i64,
    refunds: i64,
}

impl ReadModel for PaymentDay {
    const TABLE: &'static str = "revenue";
    const CATEGORIES: &'static [&'static str] = &["payment"];

    fn fold(rows: &mut HashMap<String, Self>, event: &Row, payload: &Value) -> Option<()> {
        let kind = match &*event.event_type {
            "PaymentRequested" => Some(text(payload.get("method")?, "kind")?),
            "PaymentCaptured" | "PaymentRefunded" => None,
            _ => return Some(()),
        };
        let (amount, currency) = (payload.get("amount")?.as_i64()?, text(payload, "currency")?);
        let imported = event.origin_name() == Some("import");
        let day = if imported { event.occurred_at } else { event.recorded_at }.date_naive();
        let payment_id = event.stream_id.to_string();
        let row = rows.entry(format!("{payment_id} on {day}")).or_insert(Self {
            payment_id,
            day,
            currency,
            kind: None,
            captured: 0,
            captures: 0,
            refunded: 0,
            refunds: 0,
        });
        match &*event.event_type {
            "PaymentCaptured" => {
                row.captured = row.captured.checked_add(amount)?;
                row.captures += 1;
            }
            "PaymentRefunded" => {
                row.refunded = row.refunded.checked_add(amount)?;
                row.refunds += 1;
            }
            _ => row.kind = kind,
        }
        Some(())
    }

    fn stored(snapshot: &mut PgConnection, generation: Option<i32>) -> BoxStream<'_, Result<StoredRow, sqlx::Error>> {
        sqlx::query_as!(
            StoredRow,
            r#"SELECT generation, payment_id || ' on ' || to_char(day, 'YYYY-MM-DD') AS "key!",
                      to_jsonb(r) - 'generation' AS "columns!"
               FROM daybook.revenue r
               WHERE generation = $1
                  OR generation NOT IN (SELECT generation FROM daybook.checkpoints WHERE projection = 'revenue')"#,
            generation
        )
        .fetch(snapshot)
    }
}
