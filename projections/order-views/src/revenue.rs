//! Read model: the money that was captured and given back, by day. Its row, its fold, its queries.
//!
//! A row is of one payment on one day, and days and months are added up by the queries. What moves money does not say
//! how it was paid; that is in the row of the day on which the payment was asked for.

use crate::{Delivered, Orders, PAYMENT, Recorded};
use chrono::{DateTime, NaiveDate, Utc};
use engine::parked::KeyedBy;
use engine::row::Row;
use orders::Event;
use orders::money::{Amount, Currency};
use orders::payment::Event as E;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use store::{Category, Origin, RecordedEvent};
use uuid::Uuid;

/// A row of the table: what a payment moved on a day, in minor units of its currency.
#[derive(Debug, Clone, PartialEq)]
pub struct PaymentDay {
    payment_id: Uuid,
    day: NaiveDate,
    currency: String,
    kind: Option<String>,
    captured: i64,
    captures: i64,
    refunded: i64,
    refunds: i64,
}

impl Row for PaymentDay {
    type Domain = Orders;
    const NAME: &'static str = "revenue";
    const VERSION: i16 = 1;
    const KEYED_BY: KeyedBy = KeyedBy::Stream;
    const CATEGORIES: &'static [Category] = &[PAYMENT];
    /// The payment, and the day.
    type Key = (Uuid, NaiveDate);

    fn keys(delivered: &Delivered) -> impl IntoIterator<Item = (Uuid, NaiveDate)> {
        let Recorded { record, event: Event::Payment(id, event) } = delivered.event()? else { return None };
        currency(event).map(|_| (id.0, day(record)))
    }

    fn fold(row: &mut Option<Self>, (payment_id, day): &(Uuid, NaiveDate), delivered: &Delivered) {
        let Some(Recorded { event: Event::Payment(_, event), .. }) = delivered.event() else { return };
        let Some(currency) = currency(event) else { return };
        let row = row.get_or_insert_with(|| Self {
            payment_id: *payment_id,
            day: *day,
            currency: currency.to_string(),
            kind: None,
            captured: 0,
            captures: 0,
            refunded: 0,
            refunds: 0,
        });
        if let E::PaymentRequested(e) = event {
            row.kind = Some(e.method.kind.clone());
        } else if let E::PaymentCaptured(e) = event {
            let Amount(amount) = e.amount;
            row.captured = row.captured.saturating_add(amount);
            row.captures += 1;
        } else if let E::PaymentRefunded(e) = event {
            let Amount(amount) = e.amount;
            row.refunded = row.refunded.saturating_add(amount);
            row.refunds += 1;
        }
    }

    async fn load(
        connection: &mut PgConnection,
        generation: i32,
        keys: Vec<(Uuid, NaiveDate)>,
    ) -> Result<Vec<((Uuid, NaiveDate), Self)>, sqlx::Error> {
        let (payments, days): (Vec<Uuid>, Vec<NaiveDate>) = keys.into_iter().unzip();
        let stored = sqlx::query_as!(
            PaymentDay,
            "SELECT payment_id, day, currency, kind, captured, captures, refunded, refunds
             FROM daybook.revenue JOIN unnest($2::uuid[], $3::date[]) AS k (payment_id, day) USING (payment_id, day)
             WHERE generation = $1",
            generation,
            &payments,
            &days
        );
        Ok(stored.fetch_all(connection).await?.into_iter().map(|row| ((row.payment_id, row.day), row)).collect())
    }

    async fn store(
        connection: &mut PgConnection,
        generation: i32,
        rows: &[(&(Uuid, NaiveDate), &Self)],
    ) -> Result<(), sqlx::Error> {
        let numbers = |of: fn(&Self) -> i64| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let payments: Vec<Uuid> = rows.iter().map(|(_, r)| r.payment_id).collect();
        let days: Vec<NaiveDate> = rows.iter().map(|(_, r)| r.day).collect();
        let currencies: Vec<String> = rows.iter().map(|(_, r)| r.currency.clone()).collect();
        let kinds: Vec<Option<String>> = rows.iter().map(|(_, r)| r.kind.clone()).collect();
        sqlx::query!(
            "INSERT INTO daybook.revenue
                 (generation, payment_id, day, currency, kind, captured, captures, refunded, refunds)
             SELECT $1, * FROM unnest($2::uuid[], $3::date[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                                      $8::bigint[], $9::bigint[])
             ON CONFLICT ON CONSTRAINT revenue_payment DO UPDATE
             SET kind = excluded.kind, captured = excluded.captured, captures = excluded.captures,
                 refunded = excluded.refunded, refunds = excluded.refunds",
            generation,
            &payments,
            &days,
            &currencies,
            &kinds as &[Option<String>],
            &numbers(|r| r.captured),
            &numbers(|r| r.captures),
            &numbers(|r| r.refunded),
            &numbers(|r| r.refunds)
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The currency of an event that changes a row; none of one that changes none.
fn currency(event: &E) -> Option<Currency> {
    match event {
        E::PaymentRequested(e) => Some(e.currency),
        E::PaymentCaptured(e) => Some(e.currency),
        E::PaymentRefunded(e) => Some(e.currency),
        E::PaymentAuthorised(_)
        | E::PaymentDeclined(_)
        | E::CaptureRequested(_)
        | E::CaptureDeclined(_)
        | E::VoidDeferred(_)
        | E::VoidRequested(_)
        | E::VoidDeclined(_)
        | E::PaymentVoided(_)
        | E::ExpiryDeferred(_)
        | E::AuthorisationExpired(_)
        | E::RefundDeferred(_)
        | E::RefundRequested(_)
        | E::RefundDeclined(_)
        | E::RefundDropped(_)
        | E::OutcomeUnknown(_)
        | E::CallRetried(_) => None,
    }
}

/// In UTC. Imported history was recorded long after; when it was, only the source can say.
fn day(record: &RecordedEvent) -> NaiveDate {
    let at: DateTime<Utc> = match record.metadata.origin {
        Origin::Live => record.recorded_at,
        Origin::Import => record.metadata.occurred_at,
    };
    at.date_naive()
}

/// What a query replies: the money of a day or a month, in minor units of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revenue {
    /// `2026-11-22`, or `2026-11`.
    pub period: String,
    pub currency: String,
    /// How it was paid.
    pub kind: String,
    pub captured: i64,
    /// How often something was.
    pub captures: i64,
    pub refunded: i64,
    pub refunds: i64,
}

/// Which money to add up, in order of period, currency and kind. The last row of a page is where the next one goes on.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The first day, and the last.
    pub from: Option<NaiveDate>,
    pub to: Option<NaiveDate>,
    pub currency: Option<Currency>,
    /// A period, a currency and a kind.
    pub after: Option<(String, String, String)>,
    pub limit: i64,
}

/// A page of days on which money moved, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn by_day(pool: &PgPool, filter: &Filter) -> Result<Vec<Revenue>, sqlx::Error> {
    by(pool, "YYYY-MM-DD", filter).await
}

/// A page of months in which money moved, as far as their days are asked for, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn by_month(pool: &PgPool, filter: &Filter) -> Result<Vec<Revenue>, sqlx::Error> {
    by(pool, "YYYY-MM", filter).await
}

async fn by(pool: &PgPool, format: &str, filter: &Filter) -> Result<Vec<Revenue>, sqlx::Error> {
    let after = filter.after.as_ref();
    sqlx::query_as!(
        Revenue,
        r#"SELECT to_char(moved.day, $1) AS "period!", moved.currency, asked.kind AS "kind!",
                  sum(moved.captured)::bigint AS "captured!", sum(moved.captures)::bigint AS "captures!",
                  sum(moved.refunded)::bigint AS "refunded!", sum(moved.refunds)::bigint AS "refunds!"
           FROM daybook.revenue AS moved JOIN daybook.revenue AS asked USING (generation, payment_id)
           WHERE generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'revenue' AND live)
             AND asked.kind IS NOT NULL AND moved.captures + moved.refunds > 0
             AND ($2::date IS NULL OR moved.day >= $2) AND ($3::date IS NULL OR moved.day <= $3)
             AND ($4::text IS NULL OR moved.currency = $4)
             AND ($5::text IS NULL OR (to_char(moved.day, $1), moved.currency, asked.kind) > ($5, $6, $7))
           GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT $8"#,
        format,
        filter.from,
        filter.to,
        filter.currency.map(|currency| currency.to_string()),
        after.map(|(period, ..)| period),
        after.map(|(_, currency, _)| currency),
        after.map(|(.., kind)| kind),
        filter.limit
    )
    .fetch_all(pool)
    .await
}
