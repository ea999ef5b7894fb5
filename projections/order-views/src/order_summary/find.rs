//! Orders are found by who ordered, what, when, for how much, and how that stands.

use super::{HAS_SKUS, OpenEdit, OrderSummary, PaymentSummary};
use chrono::{DateTime, Utc};
use engine::row::Row;
use orders::id::Sku;
use orders::money::Currency;
use orders::order::DisplayStatus;
use sqlx::PgPool;
use sqlx::types::Json;
use store::checkpoint;
use uuid::Uuid;

/// Which orders to list, newest first: those that are all of this. The last row of a page is where the next one goes on:
/// `(placed_at, order_id)`.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub customer_id: Option<Uuid>,
    pub status: Option<DisplayStatus>,
    /// One of the lines that it has now is of this SKU.
    pub sku: Option<Sku>,
    /// Placed at this time or later.
    pub placed_from: Option<DateTime<Utc>>,
    /// Placed before this time.
    pub placed_before: Option<DateTime<Utc>>,
    pub currency: Option<Currency>,
    /// In minor units; what it means depends on the currency.
    pub total_at_least: Option<i64>,
    pub total_at_most: Option<i64>,
    pub after: Option<(DateTime<Utc>, Uuid)>,
    pub limit: i64,
}

/// A page of orders, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<OrderSummary>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // Which index is the best depends on what is asked for, and how many orders have that: the plan is made each time.
    sqlx::query!("SET LOCAL plan_cache_mode = force_custom_plan").execute(&mut *transaction).await?;
    let page = select!(
        "WHERE generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_summary' AND live)
             AND ($1::uuid IS NULL OR customer_id = $1)
             AND ($2::text IS NULL OR status = $2)
             AND ($3::text IS NULL OR skus @> ARRAY[$3])
             AND ($4::timestamptz IS NULL OR placed_at >= $4)
             AND ($5::timestamptz IS NULL OR placed_at < $5)
             AND ($6::text IS NULL OR currency = $6)
             AND ($7::bigint IS NULL OR total >= $7)
             AND ($8::bigint IS NULL OR total <= $8)
             AND ($9::timestamptz IS NULL OR placed_at <= $9 AND (placed_at < $9 OR order_id > $10))
           ORDER BY placed_at DESC, order_id LIMIT $11",
        filter.customer_id,
        filter.status.map(DisplayStatus::as_str),
        filter.sku.as_ref().map(Sku::as_str),
        filter.placed_from,
        filter.placed_before,
        filter.currency.map(|currency| currency.to_string()),
        filter.total_at_least,
        filter.total_at_most,
        filter.after.map(|(placed_at, _)| placed_at),
        filter.after.map(|(_, order_id)| order_id),
        filter.limit
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(page)
}

/// Whether the live rows have SKUs; those of an earlier version wait for a replay.
///
/// # Errors
/// When Postgres fails.
pub async fn has_skus(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let live = checkpoint::live_rows(pool, OrderSummary::NAME).await?;
    Ok(live.is_some_and(|live| live.version >= HAS_SKUS))
}
