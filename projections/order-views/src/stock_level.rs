//! Read model: what is on hand and reserved of each SKU. Its row, its fold, its queries.

use crate::{Delivered, Orders, Recorded, STOCK};
use chrono::{DateTime, Utc};
use engine::parked::KeyedBy;
use engine::row::Row;
use orders::Event;
use orders::stock::{self, LineQuantity};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use store::Category;

/// A row of the table, and what a query replies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockLevel {
    pub sku: String,
    pub on_hand: i64,
    pub reserved: i64,
    pub changed_at: DateTime<Utc>,
    /// Of the SKU's stream.
    pub version: i64,
}

/// Selects rows of the table: its columns stand here once.
macro_rules! select {
    ($rest:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            StockLevel,
            "SELECT sku, on_hand, reserved, changed_at, version FROM daybook.stock_level
             " + $rest,
            $($argument),+
        )
    };
}

impl Row for StockLevel {
    type Domain = Orders;
    const NAME: &'static str = "stock_level";
    const VERSION: i16 = 1;
    const KEYED_BY: KeyedBy = KeyedBy::Stream;
    const CATEGORIES: &'static [Category] = &[STOCK];
    type Key = String;

    fn keys(delivered: &Delivered) -> impl IntoIterator<Item = String> {
        delivered.event().and_then(|recorded| match &recorded.event {
            Event::Stock(_, event) => Some(event.sku().to_string()),
            Event::Order(..) | Event::Payment(..) | Event::Shipment(..) => None,
        })
    }

    fn fold(row: &mut Option<Self>, sku: &String, delivered: &Delivered) {
        let Some(Recorded { record, event: Event::Stock(_, event) }) = delivered.event() else { return };
        let row = row.get_or_insert_with(|| Self {
            sku: sku.clone(),
            on_hand: 0,
            reserved: 0,
            changed_at: record.recorded_at,
            version: 0,
        });
        match event {
            stock::Event::StockReceived(e) => row.on_hand += i64::from(e.quantity),
            stock::Event::StockReserved(e) => row.reserved += pieces(&e.lines),
            stock::Event::StockCommitted(e) => {
                row.reserved -= pieces(&e.lines);
                row.on_hand -= pieces(&e.lines);
            }
            stock::Event::StockReleased(e) => row.reserved -= pieces(&e.lines),
            stock::Event::StockExpired(e) => row.reserved -= pieces(&e.lines),
            stock::Event::StockAdjusted(e) => row.on_hand += e.by,
            stock::Event::StockRestocked(e) => row.on_hand += pieces(&e.lines),
            stock::Event::StockBackordered(_)
            | stock::Event::BackorderNeedless(_)
            | stock::Event::BackorderDropped(_) => {}
        }
        row.changed_at = record.recorded_at;
        row.version = record.version;
    }

    async fn load(
        connection: &mut PgConnection,
        generation: i32,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Self)>, sqlx::Error> {
        let stored = select!("WHERE generation = $1 AND sku = ANY($2)", generation, &keys);
        Ok(stored.fetch_all(connection).await?.into_iter().map(|row| (row.sku.clone(), row)).collect())
    }

    async fn store(
        connection: &mut PgConnection,
        generation: i32,
        rows: &[(&String, &Self)],
    ) -> Result<(), sqlx::Error> {
        let skus: Vec<String> = rows.iter().map(|(sku, _)| (*sku).clone()).collect();
        let on_hand: Vec<i64> = rows.iter().map(|(_, r)| r.on_hand).collect();
        let reserved: Vec<i64> = rows.iter().map(|(_, r)| r.reserved).collect();
        let changed_at: Vec<DateTime<Utc>> = rows.iter().map(|(_, r)| r.changed_at).collect();
        let versions: Vec<i64> = rows.iter().map(|(_, r)| r.version).collect();
        sqlx::query!(
            "INSERT INTO daybook.stock_level (generation, sku, on_hand, reserved, changed_at, version)
             SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::bigint[])
             ON CONFLICT ON CONSTRAINT stock_level_sku DO UPDATE
             SET on_hand = excluded.on_hand, reserved = excluded.reserved, changed_at = excluded.changed_at,
                 version = excluded.version",
            generation,
            &skus,
            &on_hand,
            &reserved,
            &changed_at,
            &versions
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

fn pieces(lines: &[LineQuantity]) -> i64 {
    lines.iter().map(|l| i64::from(l.quantity)).sum()
}

/// The level of a SKU, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn get(pool: &PgPool, sku: &str) -> Result<Option<StockLevel>, sqlx::Error> {
    select!(
        "WHERE sku = $1
           AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'stock_level' AND live)",
        sku
    )
    .fetch_optional(pool)
    .await
}

/// Up to `limit` levels in order of SKU, from the one after `after`, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn list(pool: &PgPool, after: Option<&str>, limit: i64) -> Result<Vec<StockLevel>, sqlx::Error> {
    select!(
        "WHERE ($1::text IS NULL OR sku > $1)
           AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'stock_level' AND live)
         ORDER BY sku LIMIT $2",
        after,
        limit
    )
    .fetch_all(pool)
    .await
}
