//! `daybook verify`: the log's own promises, those of the business, and log = JetStream window = read models, through
//! folds of its own. The log is read once, page by page, in one snapshot with all that is folded from it.
//!
//! The folds work on the stored JSON, and share no code with the read models: a fault of a fold shows as a difference. Which
//! follow-ups and timers an event has is the exception. That is asked of the domain's own `react` and `timers`, which the
//! projectors call as well: a follow-up that was lost, doubled or changed is found, a wrong reaction is not. What reactions come
//! to is checked by the promises of the business (`business.rs`), which know neither. And [`verify_books`], which asks the provider,
//! folds a payment as the domain does.

mod books;
mod business;
mod event_index;
mod follow_ups;
mod fulfilment;
mod order_ends;
mod order_history;
mod order_summary;
mod order_totals;
mod payment_amounts;
mod read_models;
mod reserved_stock;
mod revenue;
mod sample;
mod shipped_pieces;
mod stock_level;
mod timers;
mod waiting;

pub use books::verify_books;
pub use runtime::verify::{Check, Report, VerifyError};
pub use sample::verify_sample;

use async_nats::jetstream;
use business::Business;
use engine::Domain;
use event_index::Positions;
use follow_ups::FollowUps;
use fulfilment::Shipment;
use order_history::Entry;
use order_summary::Order;
use order_views::Orders;
use read_models::Fold;
use revenue::PaymentDay;
use runtime::verify::log::{self, Promises};
use runtime::verify::{caught_up, snapshot, window};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::collections::HashSet;
use std::time::Duration;
use stock_level::Stock;
use store::Position;
use timers::Timers;
use waiting::Waiting;

/// Compares all that is kept with the log, and the log with its promises. `pool` is in the role that reads. A system in
/// motion is given `patience` to come to where the log is now. The provider's books are another question: [`verify_books`].
///
/// # Errors
/// When Postgres or NATS cannot be asked.
pub async fn verify(
    pool: &PgPool,
    jetstream: Option<&jetstream::Context>,
    patience: Duration,
) -> Result<Report, VerifyError> {
    let caught_up = caught_up::check::<Orders>(pool, jetstream, patience).await?;
    let (events, checks) = log_and_projections(pool).await?;
    let window = match jetstream {
        Some(jetstream) => window::check(pool, jetstream).await?,
        None => Check::not_asked(window::NAME),
    };
    let books = Check::not_asked(books::NAME);
    let checks = [caught_up].into_iter().chain(checks).chain([window, books]).collect();
    Ok(Report { events, checks })
}

async fn log_and_projections(pool: &PgPool) -> Result<(i64, Vec<Check>), VerifyError> {
    let mut snapshot = snapshot(pool).await?;
    let mut promises = Promises::default();
    let mut orders = Fold::<Order>::new(live(&mut snapshot, "order_summary").await?);
    let mut stock = Fold::<Stock>::new(live(&mut snapshot, "stock_level").await?);
    let mut waiting = Fold::<Waiting>::new(live(&mut snapshot, "waiting").await?);
    let mut index = Fold::<Positions>::new(live(&mut snapshot, "event_index").await?);
    let mut history = Fold::<Entry>::new(live(&mut snapshot, "order_history").await?);
    let mut fulfilment = Fold::<Shipment>::new(live(&mut snapshot, "fulfilment").await?);
    let mut revenue = Fold::<PaymentDay>::new(live(&mut snapshot, "revenue").await?);
    let imported_to = imported_to(&mut snapshot).await?;
    let (acts, timed) = (live(&mut snapshot, "follow_ups").await?, live(&mut snapshot, "timers").await?);
    let mut business = Business::new(&mut snapshot, acts.as_ref(), timed.as_ref(), imported_to).await?;
    let (mut follow_ups, mut timers) = (FollowUps::new(acts, timed.clone()), Timers::new(timed));
    let mut head = 0;
    loop {
        let page = log::page(&mut snapshot, head).await?;
        let Some(last) = page.last() else { break };
        head = last.position;
        for row in &page {
            let payload = serde_json::from_str(&row.payload).unwrap_or(Value::Null);
            promises.take(row, &payload);
            business.take(row, &payload);
            orders.take(row, &payload);
            stock.take(row, &payload);
            waiting.take(row, &payload);
            index.take(row, &payload);
            history.take(row, &payload);
            fulfilment.take(row, &payload);
            revenue.take(row, &payload);
        }
        // One for each event: all together, they would be as many as the log has.
        history.compare_page(&mut snapshot).await?;
        // Nothing follows from history, nor here from another domain's events.
        let is_ours = |row: &log::Row| row.domain.as_deref().is_none_or(|domain| domain == Orders::NAME);
        let page = page.into_iter().filter(is_ours);
        let page = page.filter(|e| e.position > imported_to && e.origin_name() != Some("import"));
        let decoded: Vec<_> = page.map(follow_ups::decoded).collect();
        decoded.iter().flatten().for_each(|recorded| timers.take(recorded));
        follow_ups.take(&mut snapshot, decoded).await?;
    }
    let events = promises.events();
    let mut checks = promises.finish();
    checks.extend(business.finish(&mut snapshot).await?);
    checks.push(orders.compare(&mut snapshot, head).await?);
    checks.push(stock.compare(&mut snapshot, head).await?);
    checks.push(waiting.compare(&mut snapshot, head).await?);
    checks.push(index.compare(&mut snapshot, head).await?);
    checks.push(history.compare(&mut snapshot, head).await?);
    checks.push(fulfilment.compare(&mut snapshot, head).await?);
    checks.push(revenue.compare(&mut snapshot, head).await?);
    checks.push(follow_ups.finish(&mut snapshot, head).await?);
    checks.push(timers.finish(&mut snapshot, head).await?);
    Ok((events, checks))
}

/// Up to where the log was imported as a whole; 0 if it was not.
async fn imported_to(snapshot: &mut PgConnection) -> Result<Position, sqlx::Error> {
    let imported_to = sqlx::query_scalar!("SELECT imported_to FROM daybook.log").fetch_optional(snapshot).await?;
    Ok(imported_to.unwrap_or(0))
}

/// A projection's live generation, how far that has come, and which events it goes on without, for somebody has said so.
#[derive(Debug, Clone)]
struct Live {
    generation: i32,
    /// Of the code that has folded its rows.
    version: i16,
    position: Position,
    discarded: HashSet<Position>,
}

impl Live {
    /// Whether it is to have taken in the event there.
    fn has(&self, position: Position) -> bool {
        position <= self.position && !self.discarded.contains(&position)
    }

    /// Whether it ends where the log does, at most; and what was given up of it.
    fn report(&self, head: Position, check: &mut Check) {
        check.discarded = self.discarded.len() as u64;
        if self.position > head {
            check.differs(|| format!("the checkpoint is at {}, but the log ends at {head}", self.position));
        }
    }
}

async fn live(snapshot: &mut PgConnection, projection: &str) -> Result<Option<Live>, sqlx::Error> {
    let live = sqlx::query!(
        r#"SELECT generation, version, position,
                  ARRAY(SELECT position FROM daybook.resolutions AS r
                        WHERE r.projection = c.projection AND outcome = 'discarded') AS "discarded!"
           FROM daybook.checkpoints AS c WHERE projection = $1 AND live"#,
        projection
    );
    let live = live.fetch_optional(snapshot).await?;
    Ok(live.map(|live| {
        let discarded = live.discarded.into_iter().collect();
        Live { generation: live.generation, version: live.version, position: live.position, discarded }
    }))
}
