//! Some orders instead of all: their rows against the naive fold of their events alone, which the event index finds. It
//! takes as long as there are orders to look at, however long the log is.

use super::business::Business;
use super::fulfilment::Shipment;
use super::order_history::Entry;
use super::order_summary::Order;
use super::read_models::{Fold, ReadModel, StoredRow};
use super::waiting::Waiting;
use super::{Report, VerifyError, imported_to, live, log, snapshot};
use futures_util::StreamExt;
use rand::RngExt;
use runtime::search::{Query, Search};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row as _};
use store::{Filter, Log, Position};
use uuid::Uuid;

/// How many events of an order are read at a time.
const PAGE: i64 = 500;
/// How many positions are drawn for each order: some are events of something else, or of the same order.
const DRAWN: usize = 8;

/// Compares the rows of up to `orders` orders, drawn at random, with what the log says of these: summary, history, what they
/// wait for and their shipments; and holds the promises of the business against their events. (How much of a SKU is on hand is
/// no matter of some orders.) `pool` is in the role that reads.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn verify_sample(pool: &PgPool, log: &Log, orders: u32) -> Result<Report, VerifyError> {
    let mut snapshot = snapshot(pool).await?;
    let mut summaries = Fold::<Order>::new(live(&mut snapshot, Order::TABLE).await?);
    let mut waiting = Fold::<Waiting>::new(live(&mut snapshot, Waiting::TABLE).await?);
    let mut history = Fold::<Entry>::new(live(&mut snapshot, Entry::TABLE).await?);
    let mut shipments = Fold::<Shipment>::new(live(&mut snapshot, Shipment::TABLE).await?);
    let imported_to = imported_to(&mut snapshot).await?;
    let (acts, timed) = (live(&mut snapshot, "follow_ups").await?, live(&mut snapshot, "timers").await?);
    let mut business = Business::of_orders(&mut snapshot, acts.as_ref(), timed.as_ref(), imported_to).await?;
    let (drawn, head) = drawn(&mut snapshot, orders).await?;
    let mut events = 0;
    for order in &drawn {
        for event in of_order(pool, log, *order, head).await? {
            events += 1;
            let payload = serde_json::from_str(&event.payload).unwrap_or(Value::Null);
            business.take(&event, &payload);
            summaries.take(&event, &payload);
            waiting.take(&event, &payload);
            history.take(&event, &payload);
            shipments.take(&event, &payload);
        }
    }
    let mut checks = business.finish(&mut snapshot).await?;
    checks.extend([
        compare(summaries, &mut snapshot, "order_id::text", &drawn, head).await?,
        compare(waiting, &mut snapshot, "order_id::text", &drawn, head).await?,
        compare(history, &mut snapshot, "order_id || ' at ' || position", &drawn, head).await?,
        compare(shipments, &mut snapshot, "shipment_id::text", &drawn, head).await?,
    ]);
    Ok(Report { events, checks })
}

/// Orders that have events at random positions, and where the log ends.
async fn drawn(snapshot: &mut PgConnection, orders: u32) -> Result<(Vec<Uuid>, Position), sqlx::Error> {
    let head = sqlx::query_scalar!(r#"SELECT coalesce(max(position), 0) AS "head!" FROM daybook.events"#);
    let head = head.fetch_one(&mut *snapshot).await?;
    if head == 0 {
        return Ok((vec![], 0));
    }
    let mut numbers = rand::rng();
    let positions: Vec<Position> = (0..orders as usize * DRAWN).map(|_| numbers.random_range(1..=head)).collect();
    let orders = sqlx::query_scalar!(
        "SELECT stream_id FROM daybook.events
         WHERE position = ANY($1) AND category = (SELECT id FROM daybook.categories WHERE name = 'order')
         GROUP BY stream_id ORDER BY min(array_position($1, position)) LIMIT $2",
        &positions,
        i64::from(orders)
    );
    Ok((orders.fetch_all(snapshot).await?, head))
}

/// The events that belong to an order, in order of position.
async fn of_order(pool: &PgPool, log: &Log, order: Uuid, head: Position) -> Result<Vec<log::Row>, VerifyError> {
    let filter = Filter { correlation_id: Some(order), ..Filter::default() };
    let query = Query { filter, own: true, ..Query::default() };
    let mut search = Search::begin(log.clone(), pool.clone(), query).await?;
    let mut positions = Vec::new();
    loop {
        let page = search.next(PAGE).await?;
        if page.is_empty() {
            break;
        }
        positions.extend(page.iter().map(|event| event.position).filter(|position| *position <= head));
    }
    let mut events = log::at(pool, &positions).await?;
    events.sort_unstable_by_key(|event| event.position);
    Ok(events)
}

/// Compares what was folded with the rows of these orders. `key` tells a row's, in SQL.
async fn compare<M: ReadModel>(
    fold: Fold<M>,
    snapshot: &mut PgConnection,
    key: &'static str,
    orders: &[Uuid],
    head: Position,
) -> Result<super::Check, sqlx::Error> {
    let rows = format!(
        "SELECT generation, {key}, to_jsonb(r) - 'generation' FROM daybook.{} r
         WHERE generation = $1 AND order_id = ANY($2)",
        M::TABLE
    );
    let generation = fold.live.as_ref().map(|live| live.generation);
    let rows = sqlx::query(AssertSqlSafe(rows)).bind(generation).bind(orders).fetch(snapshot);
    let rows = rows.map(|row| {
        let row = row?;
        Ok(StoredRow { generation: row.try_get(0)?, key: row.try_get(1)?, columns: row.try_get(2)? })
    });
    fold.compare_with(rows.boxed(), head).await
}
