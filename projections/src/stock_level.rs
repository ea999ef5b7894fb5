//! Read model: what is on hand and reserved of each SKU. Its row, its fold, its queries.

use crate::{Comparison, Recorded};
use chrono::{DateTime, Utc};
use domain::Event;
use domain::id::Sku;
use domain::stock::{self, LineQuantity};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use std::collections::HashMap;
use std::sync::Arc;

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

/// Writes what `events` change: the rows they touch are read, folded in memory, and written by one statement.
pub(crate) async fn write(
    transaction: &mut PgConnection,
    generation: i32,
    events: &[Arc<Recorded>],
) -> Result<(), sqlx::Error> {
    let mut skus: Vec<String> = events.iter().filter_map(|e| sku_of(&e.event)).map(Sku::to_string).collect();
    skus.sort_unstable();
    skus.dedup();
    if skus.is_empty() {
        return Ok(());
    }
    let stored = sqlx::query_as!(
        StockLevel,
        "SELECT sku, on_hand, reserved, changed_at, version FROM daybook.stock_level
         WHERE generation = $1 AND sku = ANY($2)",
        generation,
        &skus
    );
    let stored = stored.fetch_all(&mut *transaction).await?;
    let mut rows: HashMap<String, StockLevel> = stored.into_iter().map(|row| (row.sku.clone(), row)).collect();
    events.iter().for_each(|event| fold(&mut rows, event));
    upsert(transaction, generation, &rows.into_values().collect::<Vec<_>>()).await
}

fn sku_of(event: &Event) -> Option<&Sku> {
    match event {
        Event::Stock(_, event) => Some(event.sku()),
        Event::Order(..) | Event::Payment(..) | Event::Shipment(..) => None,
    }
}

fn fold(rows: &mut HashMap<String, StockLevel>, recorded: &Recorded) {
    let (Some(sku), Event::Stock(_, event)) = (sku_of(&recorded.event), &recorded.event) else { return };
    let row = rows.entry(sku.to_string()).or_insert_with(|| StockLevel {
        sku: sku.to_string(),
        on_hand: 0,
        reserved: 0,
        changed_at: recorded.record.recorded_at,
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
        stock::Event::StockBackordered(_) | stock::Event::BackorderNeedless(_) | stock::Event::BackorderDropped(_) => {}
    }
    row.changed_at = recorded.record.recorded_at;
    row.version = recorded.record.version;
}

fn pieces(lines: &[LineQuantity]) -> i64 {
    lines.iter().map(|l| i64::from(l.quantity)).sum()
}

async fn upsert(transaction: &mut PgConnection, generation: i32, rows: &[StockLevel]) -> Result<(), sqlx::Error> {
    let skus: Vec<String> = rows.iter().map(|r| r.sku.clone()).collect();
    let on_hand: Vec<i64> = rows.iter().map(|r| r.on_hand).collect();
    let reserved: Vec<i64> = rows.iter().map(|r| r.reserved).collect();
    let changed_at: Vec<DateTime<Utc>> = rows.iter().map(|r| r.changed_at).collect();
    let versions: Vec<i64> = rows.iter().map(|r| r.version).collect();
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
    .execute(transaction)
    .await?;
    Ok(())
}

/// Compares the rows of two generations, all columns of them.
pub(crate) async fn compare(transaction: &mut PgConnection, old: i32, new: i32) -> Result<Comparison, sqlx::Error> {
    sqlx::query_as!(
        Comparison,
        r#"WITH a AS (
               SELECT sku, on_hand, reserved, changed_at, version
               FROM daybook.stock_level WHERE generation = $1),
           b AS (
               SELECT sku, on_hand, reserved, changed_at, version
               FROM daybook.stock_level WHERE generation = $2)
           SELECT (SELECT count(*) FROM b) AS "rows!",
                  (SELECT count(*) FROM ((TABLE a EXCEPT TABLE b) UNION ALL (TABLE b EXCEPT TABLE a)) AS d)
                      AS "differences!""#,
        old,
        new
    )
    .fetch_one(transaction)
    .await
}

/// Removes the rows of all generations but these.
pub(crate) async fn keep_only(transaction: &mut PgConnection, generations: &[i32]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM daybook.stock_level WHERE generation <> ALL($1)", generations)
        .execute(transaction)
        .await?;
    Ok(())
}

/// The level of a SKU, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn get(pool: &PgPool, sku: &str) -> Result<Option<StockLevel>, sqlx::Error> {
    sqlx::query_as!(
        StockLevel,
        "SELECT sku, on_hand, reserved, changed_at, version FROM daybook.stock_level
         WHERE sku = $1
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
    sqlx::query_as!(
        StockLevel,
        "SELECT sku, on_hand, reserved, changed_at, version FROM daybook.stock_level
         WHERE ($1::text IS NULL OR sku > $1)
           AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'stock_level' AND live)
         ORDER BY sku LIMIT $2",
        after,
        limit
    )
    .fetch_all(pool)
    .await
}
