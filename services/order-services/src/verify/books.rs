//! The provider's books against the log: of each call that the log has asked for, what the provider knows by its key.
//!
//! The contract's lookup tells what came of a call, but no amount, and nothing of calls that the log has never asked for.
//! The payments are read page by page, and not at one moment: a difference is looked at again before it is told, and what is
//! still due is none.

use super::follow_ups::decoded;
use super::{Check, VerifyError, log};
use crate::outside::{AT_ONCE, Provider};
use crate::policy::Timeouts;
use crate::provider::bounded;
use async_nats::Client;
use futures_util::{StreamExt, TryStreamExt, stream};
use order_views::{Recorded, stream as stream_of};
use orders::Event;
use orders::id::PaymentId;
use orders::payment::{self, Call, Outcome, Payment};
use orders::reaction::LookupAnswer;
use rand::RngExt;
use sqlx::PgPool;
use store::Position;
use uuid::Uuid;

pub(super) const NAME: &str = "provider's books";

/// How many payments are read at a time.
const PAGE: i64 = 500;
/// How many positions are drawn for each payment: most are events of something else.
const DRAWN: usize = 16;

/// A call that the log asks for, with what the log says came of it.
struct Asked {
    payment_id: PaymentId,
    call: Call,
    key: Uuid,
    position: Position,
    /// It was made elsewhere: the provider need not know it.
    is_imported: bool,
    outcome: Option<Told>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// With the provider's name for it. The log keeps none of a void.
    Approved(Option<String>),
    Declined,
}

/// Asks the provider for the calls of all payments, or of up to `payments` that are drawn at random. `pool` is in the role
/// that reads.
///
/// # Errors
/// When Postgres or the provider does not answer.
pub async fn verify_books(pool: &PgPool, client: &Client, payments: Option<u32>) -> Result<Check, VerifyError> {
    let mut books = Books {
        pool,
        provider: Provider::new(client.clone(), Timeouts::default().answer),
        imported_to: imported_to(pool).await?,
        check: Check::new(NAME),
    };
    if let Some(payments) = payments {
        for page in drawn(pool, payments).await?.chunks(PAGE as usize) {
            books.compare(page).await?;
        }
        return Ok(books.check);
    }
    let mut after = Uuid::nil();
    loop {
        let page = page(pool, after).await?;
        let Some(last) = page.last() else { return Ok(books.check) };
        after = *last;
        books.compare(&page).await?;
    }
}

struct Books<'a> {
    pool: &'a PgPool,
    provider: Provider,
    imported_to: Position,
    check: Check,
}

impl Books<'_> {
    async fn compare(&mut self, payments: &[Uuid]) -> Result<(), VerifyError> {
        let calls = self.calls(payments).await?;
        let books = &*self;
        let compared = stream::iter(calls).map(async |call| books.difference(call).await);
        let differences: Vec<Option<String>> = compared.buffered(AT_ONCE).try_collect().await?;
        for difference in differences {
            self.check.checked += 1;
            if let Some(difference) = difference {
                self.check.differs(|| difference);
            }
        }
        Ok(())
    }

    /// The calls of these payments. What cannot be read is left to the checks of the log.
    async fn calls(&self, payments: &[Uuid]) -> Result<Vec<Asked>, sqlx::Error> {
        let category = stream_of::<Payment>(Uuid::nil()).category.id;
        let mut calls = Vec::new();
        for row in log::of_streams(self.pool, category, payments).await? {
            let is_imported = row.origin_name() == Some("import") || row.position <= self.imported_to;
            if let Ok(Recorded { record, event: Event::Payment(id, event) }) = decoded(row) {
                take(&mut calls, id, record.position, is_imported, &event);
            }
        }
        Ok(calls)
    }

    /// What the log and the provider say otherwise of a call; `None` if they agree, or will.
    async fn difference(&self, asked: Asked) -> Result<Option<String>, VerifyError> {
        let answer = self.provider.look_up(asked.payment_id, asked.call, asked.key).await;
        let answer = match answer
            .map_err(|why| VerifyError::OfDomain(format!("the provider's books cannot be compared: {why}")))?
        {
            LookupAnswer::Found(outcome) => LookupAnswer::Found(bounded(outcome)),
            LookupAnswer::NotFound => LookupAnswer::NotFound,
        };
        if asked.disagrees(&answer).is_none() {
            return Ok(None);
        }
        // Whether something is due is asked first: an outcome is recorded before its follow-up is settled.
        let (is_due, reacted_to) = self.due(asked.payment_id).await?;
        let now = self.calls(&[asked.payment_id.0]).await?;
        let now = now.into_iter().find(|now| now.key == asked.key && now.call == asked.call).unwrap_or(asked);
        let waits = is_due || self.last_event(now.payment_id).await? > reacted_to;
        Ok(now.disagrees(&answer).filter(|_| !(waits && now.outcome.is_none())))
    }

    /// Whether a follow-up that is aimed at the payment is due, and how far events have been reacted to.
    async fn due(&self, payment: PaymentId) -> Result<(bool, Position), sqlx::Error> {
        let due = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM daybook.follow_ups WHERE state = 'due' AND target = $1) AS "is_due!",
                      coalesce((SELECT position FROM daybook.checkpoints WHERE projection = 'follow_ups' AND live), 0)
                          AS "reacted_to!""#,
            payment.0
        );
        let due = due.fetch_one(self.pool).await?;
        Ok((due.is_due, due.reacted_to))
    }

    async fn last_event(&self, payment: PaymentId) -> Result<Position, sqlx::Error> {
        let stream = stream_of::<Payment>(payment.0);
        let last = sqlx::query_scalar!(
            "SELECT position FROM daybook.events WHERE category = $1 AND stream_id = $2 ORDER BY version DESC LIMIT 1",
            stream.category.id,
            stream.id
        );
        Ok(last.fetch_optional(self.pool).await?.unwrap_or(0))
    }
}

impl Asked {
    /// In words for people.
    fn disagrees(&self, answer: &LookupAnswer) -> Option<String> {
        let Self { payment_id, call, key, position, .. } = self;
        let what = format!("{} of payment {payment_id} (key {key}, position {position})", crate::lost::word(*call));
        let found = match answer {
            LookupAnswer::Found(Outcome::Approved { reference }) => Some(Told::Approved(Some(reference.clone()))),
            LookupAnswer::Found(Outcome::Declined { .. }) => Some(Told::Declined),
            LookupAnswer::NotFound => None,
        };
        match (&self.outcome, found) {
            // A call that was declined has moved nothing: a provider need not keep it.
            (None | Some(Told::Declined), None) | (Some(Told::Declined), Some(Told::Declined)) => None,
            (Some(Told::Approved(_)), None) if self.is_imported => None,
            (Some(Told::Approved(_)), None) => Some(format!("{what}: done by the log, the provider does not know it")),
            (None, Some(Told::Approved(_))) => Some(format!("{what}: done at the provider, the log has no outcome")),
            (None, Some(Told::Declined)) => Some(format!("{what}: declined by the provider, the log has no outcome")),
            (Some(Told::Approved(_)), Some(Told::Declined)) => {
                Some(format!("{what}: done by the log, declined by the provider"))
            }
            (Some(Told::Declined), Some(Told::Approved(_))) => {
                Some(format!("{what}: declined by the log, done at the provider"))
            }
            (Some(Told::Approved(Some(log))), Some(Told::Approved(Some(provider)))) if *log != provider => {
                Some(format!("{what}: the log calls it {log}, the provider {provider}"))
            }
            (Some(Told::Approved(_)), Some(Told::Approved(_))) => None,
        }
    }
}

/// Takes a payment's next event.
fn take(calls: &mut Vec<Asked>, payment_id: PaymentId, position: Position, is_imported: bool, event: &payment::Event) {
    use payment::Event as E;
    let mut asks = |call: Call, key: Uuid| {
        calls.push(Asked { payment_id, call, key, position, is_imported, outcome: None });
    };
    let (call, outcome) = match event {
        E::PaymentRequested(e) => return asks(Call::Authorise, e.idempotency_key),
        E::CaptureRequested(e) => return asks(Call::Capture { capture_id: e.capture_id }, e.idempotency_key),
        E::VoidRequested(e) => return asks(Call::Void, e.idempotency_key),
        E::RefundRequested(e) => return asks(Call::Refund { refund_id: e.refund_id }, e.idempotency_key),
        E::PaymentAuthorised(e) => (Call::Authorise, Told::Approved(Some(e.reference.clone()))),
        E::PaymentDeclined(_) => (Call::Authorise, Told::Declined),
        E::PaymentCaptured(e) => {
            (Call::Capture { capture_id: e.capture_id }, Told::Approved(Some(e.reference.clone())))
        }
        E::CaptureDeclined(e) => (Call::Capture { capture_id: e.capture_id }, Told::Declined),
        E::PaymentVoided(_) => (Call::Void, Told::Approved(None)),
        E::VoidDeclined(_) => (Call::Void, Told::Declined),
        E::PaymentRefunded(e) => (Call::Refund { refund_id: e.refund_id }, Told::Approved(Some(e.reference.clone()))),
        E::RefundDeclined(e) => (Call::Refund { refund_id: e.refund_id }, Told::Declined),
        E::VoidDeferred(_)
        | E::ExpiryDeferred(_)
        | E::AuthorisationExpired(_)
        | E::RefundDeferred(_)
        | E::RefundDropped(_)
        | E::OutcomeUnknown(_)
        | E::CallRetried(_) => return,
    };
    // A payment that was let go before it was asked for has an outcome, and no call.
    if let Some(asked) = calls.iter_mut().rev().find(|asked| asked.payment_id == payment_id && asked.call == call) {
        asked.outcome = Some(outcome);
    }
}

async fn imported_to(pool: &PgPool) -> Result<Position, sqlx::Error> {
    let imported_to = sqlx::query_scalar!("SELECT imported_to FROM daybook.log").fetch_optional(pool).await?;
    Ok(imported_to.unwrap_or(0))
}

/// The next payments after the one with this id.
async fn page(pool: &PgPool, after: Uuid) -> Result<Vec<Uuid>, sqlx::Error> {
    let payments = sqlx::query_scalar!(
        "SELECT stream_id FROM daybook.events
         WHERE category = $1 AND stream_id > $2 AND version = 1 ORDER BY stream_id LIMIT $3",
        stream_of::<Payment>(after).category.id,
        after,
        PAGE
    );
    payments.fetch_all(pool).await
}

/// Payments that have events at random positions.
async fn drawn(pool: &PgPool, payments: u32) -> Result<Vec<Uuid>, sqlx::Error> {
    let head = sqlx::query_scalar!(r#"SELECT coalesce(max(position), 0) AS "head!" FROM daybook.events"#);
    let head = head.fetch_one(pool).await?;
    if head == 0 {
        return Ok(vec![]);
    }
    let positions: Vec<Position> = {
        let mut numbers = rand::rng();
        (0..payments as usize * DRAWN).map(|_| numbers.random_range(1..=head)).collect()
    };
    let drawn = sqlx::query_scalar!(
        "SELECT stream_id FROM daybook.events WHERE position = ANY($1) AND category = $2
         GROUP BY stream_id ORDER BY min(array_position($1, position)) LIMIT $3",
        &positions,
        stream_of::<Payment>(Uuid::nil()).category.id,
        i64::from(payments)
    );
    drawn.fetch_all(pool).await
}
