//! Read model: what orders wait for, and since when. Its row, its fold, its query.

use crate::{Delivered, ORDER, Orders, Recorded};
use chrono::{DateTime, Utc};
use engine::parked::KeyedBy;
use engine::row::Row;
use orders::Event;
use orders::id::LineNo;
use orders::order::{self, HoldReason};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use store::Category;
use uuid::Uuid;

/// What an order waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum What {
    /// That its payments are authorised.
    Payment,
    /// That its stock is reserved.
    Stock,
    /// That stock comes in.
    Backorder { lines: Vec<LineNo> },
    /// That somebody approves it.
    Approval { approval: u32 },
    /// That somebody releases it.
    Hold { reason: HoldReason },
    /// That a proposed edit is confirmed or discarded.
    Edit { edit: u32 },
    /// That all its lines arrive.
    Delivery,
    /// That somebody approves a return of so many pieces.
    ReturnApproval { return_no: u32, pieces: u32 },
    /// That so many pieces of a return come in.
    Return { return_no: u32, pieces: u32 },
}

orders::words! {
    /// What an order can wait for, without the details: the tags of [`What`].
    WaitedFor {
        Payment = "payment",
        Stock = "stock",
        Backorder = "backorder",
        Approval = "approval",
        Hold = "hold",
        Edit = "edit",
        Delivery = "delivery",
        ReturnApproval = "return_approval",
        Return = "return",
    }
}

/// Something that an order waits for, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    #[serde(flatten)]
    pub what: What,
    pub since: DateTime<Utc>,
}

/// All that one order waits for, the longest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits(Vec<Wait>);

impl Row for Waits {
    type Domain = Orders;
    const NAME: &'static str = "waiting";
    const VERSION: i16 = 1;
    const KEYED_BY: KeyedBy = KeyedBy::Correlation;
    const CATEGORIES: &'static [Category] = &[ORDER];
    type Key = Uuid;

    fn keys(delivered: &Delivered) -> impl IntoIterator<Item = Uuid> {
        delivered.event().map(|recorded| recorded.event.stream_id())
    }

    fn fold(row: &mut Option<Self>, _: &Uuid, delivered: &Delivered) {
        let Some(Recorded { record, event: Event::Order(_, event) }) = delivered.event() else { return };
        let mut waits = row.take().map_or_else(Vec::new, |waits| waits.0);
        after(&mut waits, event, record.recorded_at);
        *row = (!waits.is_empty()).then_some(Self(waits));
    }

    async fn load(
        connection: &mut PgConnection,
        generation: i32,
        keys: Vec<Uuid>,
    ) -> Result<Vec<(Uuid, Self)>, sqlx::Error> {
        let stored = sqlx::query!(
            r#"SELECT order_id, waits AS "waits: Json<Vec<Wait>>" FROM daybook.waiting
               WHERE generation = $1 AND order_id = ANY($2)"#,
            generation,
            &keys
        );
        Ok(stored.fetch_all(connection).await?.into_iter().map(|row| (row.order_id, Self(row.waits.0))).collect())
    }

    async fn store(connection: &mut PgConnection, generation: i32, rows: &[(&Uuid, &Self)]) -> Result<(), sqlx::Error> {
        let orders: Vec<Uuid> = rows.iter().map(|(order, _)| **order).collect();
        let waits: Vec<Json<&Vec<Wait>>> = rows.iter().map(|(_, waits)| Json(&waits.0)).collect();
        // None is empty.
        let since: Vec<Option<DateTime<Utc>>> = rows.iter().map(|(_, waits)| Some(waits.0.first()?.since)).collect();
        sqlx::query!(
            "INSERT INTO daybook.waiting (generation, order_id, waits, since)
             SELECT $1, * FROM unnest($2::uuid[], $3::jsonb[], $4::timestamptz[])
             ON CONFLICT ON CONSTRAINT waiting_order DO UPDATE SET waits = excluded.waits, since = excluded.since",
            generation,
            &orders,
            &waits as &[Json<&Vec<Wait>>],
            &since as &[Option<DateTime<Utc>>]
        )
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn remove(connection: &mut PgConnection, generation: i32, keys: Vec<Uuid>) -> Result<(), sqlx::Error> {
        sqlx::query!("DELETE FROM daybook.waiting WHERE generation = $1 AND order_id = ANY($2)", generation, &keys)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// What is waited for after an event.
fn after(waits: &mut Vec<Wait>, event: &order::Event, since: DateTime<Utc>) {
    use order::Event as E;
    let mut begin = |what| waits.push(Wait { what, since });
    match event {
        E::OrderPlaced(e) if !e.payments.is_empty() => begin(What::Payment),
        E::PaymentsSecured(_) => {
            begin(What::Stock);
            end(waits, |what| *what == What::Payment);
        }
        E::LinesBackordered(e) => begin(What::Backorder { lines: e.short.iter().map(|l| l.line).collect() }),
        E::BackorderFilled(e) => wait_no_more(waits, &e.lines),
        E::LinesCancelled(e) => wait_no_more(waits, &e.lines),
        E::StockSecured(_) => end(waits, |what| matches!(what, What::Stock | What::Backorder { .. })),
        E::OrderConfirmed(_) => {
            begin(What::Delivery);
            end(waits, |what| matches!(what, What::Stock | What::Backorder { .. }));
        }
        E::ApprovalRequested(e) => begin(What::Approval { approval: e.approval }),
        E::ApprovalGranted(_) | E::ApprovalDenied(_) | E::ApprovalTimedOut(_) => {
            end(waits, |what| matches!(what, What::Approval { .. }));
        }
        E::HoldPlaced(e) => begin(What::Hold { reason: e.reason }),
        E::HoldReleased(e) => end(waits, |what| *what == What::Hold { reason: e.reason }),
        E::EditProposed(e) => begin(What::Edit { edit: e.edit }),
        E::EditConfirmed(_) | E::EditDiscarded(_) => end(waits, |what| matches!(what, What::Edit { .. })),
        E::ReturnRequested(e) => {
            let pieces = e.lines.iter().map(|l| l.quantity).fold(0, u32::saturating_add);
            begin(What::ReturnApproval { return_no: e.return_no, pieces });
        }
        E::ReturnApproved(e) => {
            let asked = waits.iter().position(
                |wait| matches!(wait.what, What::ReturnApproval { return_no, .. } if return_no == e.return_no),
            );
            if let Some(What::ReturnApproval { return_no, pieces }) = asked.map(|at| waits.remove(at).what) {
                waits.push(Wait { what: What::Return { return_no, pieces }, since });
            }
        }
        E::ReturnReceived(e) => {
            let came = e.lines.iter().map(|l| l.quantity).fold(0, u32::saturating_add);
            for wait in waits.iter_mut() {
                if let What::Return { return_no, pieces } = &mut wait.what
                    && *return_no == e.return_no
                {
                    *pieces = pieces.saturating_sub(came);
                }
            }
            end(waits, |what| matches!(what, What::Return { pieces: 0, .. }));
        }
        E::OrderCompleted(_) => end(waits, |what| *what == What::Delivery),
        E::OrderCancelled(_) | E::OrderRejected(_) | E::OrderExpired(_) => waits.clear(),
        E::OrderPlaced(_)
        | E::PaymentAuthorisedRecorded(_)
        | E::PaymentRefused(_)
        | E::LinesShort(_)
        | E::RestReserved(_)
        | E::ReservationReturned(_)
        | E::AddressChanged(_)
        | E::EditStockSecured(_)
        | E::LinesDelivered(_)
        | E::LinesLost(_)
        | E::LinesReturnedToSender(_)
        | E::HistoryRecorded(_) => {}
    }
}

fn end(waits: &mut Vec<Wait>, is_over: impl Fn(&What) -> bool) {
    waits.retain(|wait| !is_over(&wait.what));
}

/// These lines do not wait for stock any more.
fn wait_no_more(waits: &mut Vec<Wait>, gone: &[LineNo]) {
    for wait in waits.iter_mut() {
        if let What::Backorder { lines } = &mut wait.what {
            lines.retain(|line| !gone.contains(line));
        }
    }
    end(waits, |what| matches!(what, What::Backorder { lines } if lines.is_empty()));
}

/// An order that waits, with what of its follow-ups could not be done at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitingOrder {
    pub order_id: Uuid,
    pub waits: Json<Vec<Wait>>,
    pub since: DateTime<Utc>,
    pub follow_ups: Json<Vec<Troubled>>,
}

/// A follow-up that is tried again, or parked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Troubled {
    pub id: Uuid,
    pub reaction: String,
    pub state: String,
    pub attempts: i32,
    pub reason: Option<String>,
}

/// Which orders that wait to list, the longest first. The last row of a page is where the next one goes on.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub what: Option<WaitedFor>,
    /// Only who has waited for so many seconds.
    pub longer_than_seconds: Option<i64>,
    /// `(since, order_id)`.
    pub after: Option<(DateTime<Utc>, Uuid)>,
    pub limit: i64,
}

/// A page of orders that wait, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<WaitingOrder>, sqlx::Error> {
    sqlx::query_as!(
        WaitingOrder,
        r#"SELECT w.order_id, w.waits AS "waits: Json<Vec<Wait>>", w.since,
                  (SELECT coalesce(json_agg(json_build_object(
                              'id', f.id, 'reaction', f.reaction, 'state', f.state, 'attempts', f.attempts,
                              'reason', f.reason) ORDER BY f.position, f.id), '[]')
                   FROM daybook.follow_ups AS f
                   WHERE f.correlation_id = w.order_id AND (f.state = 'parked' OR f.state = 'due' AND f.attempts > 0))
                      AS "follow_ups!: Json<Vec<Troubled>>"
           FROM daybook.waiting AS w
           WHERE w.generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'waiting' AND live)
             AND ($1::text IS NULL OR w.waits @> jsonb_build_array(jsonb_build_object('for', $1)))
             AND ($2::bigint IS NULL OR w.since <= clock_timestamp() - make_interval(secs => $2::bigint))
             AND ($3::timestamptz IS NULL OR (w.since, w.order_id) > ($3, $4))
           ORDER BY w.since, w.order_id LIMIT $5"#,
        filter.what.map(WaitedFor::as_str),
        filter.longer_than_seconds,
        filter.after.map(|(since, _)| since),
        filter.after.map(|(_, order_id)| order_id),
        filter.limit
    )
    .fetch_all(pool)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A new one of either has to be listed here to compile.
    #[test]
    fn what_is_asked_for_has_the_word_that_is_stored() {
        for word in WaitedFor::ALL {
            let what = match word {
                WaitedFor::Payment => What::Payment,
                WaitedFor::Stock => What::Stock,
                WaitedFor::Backorder => What::Backorder { lines: vec![1] },
                WaitedFor::Approval => What::Approval { approval: 1 },
                WaitedFor::Hold => What::Hold { reason: HoldReason::Fraud },
                WaitedFor::Edit => What::Edit { edit: 1 },
                WaitedFor::Delivery => What::Delivery,
                WaitedFor::ReturnApproval => What::ReturnApproval { return_no: 1, pieces: 1 },
                WaitedFor::Return => What::Return { return_no: 1, pieces: 1 },
            };
            assert_eq!(json!(what)["for"], word.as_str());
            let asked_for = match what {
                What::Payment => WaitedFor::Payment,
                What::Stock => WaitedFor::Stock,
                What::Backorder { .. } => WaitedFor::Backorder,
                What::Approval { .. } => WaitedFor::Approval,
                What::Hold { .. } => WaitedFor::Hold,
                What::Edit { .. } => WaitedFor::Edit,
                What::Delivery => WaitedFor::Delivery,
                What::ReturnApproval { .. } => WaitedFor::ReturnApproval,
                What::Return { .. } => WaitedFor::Return,
            };
            assert_eq!(asked_for, *word);
        }
    }
}
