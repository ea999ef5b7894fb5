//! The simulated provider's books: a row for each call that it did or declined, under its idempotency key.

use super::rule::Rule;
use orders::id::CaptureId;
use orders::payment::Outcome;
use orders::reaction::{Operation, ProviderCall};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// What came of a call, and how it is answered.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) rule: Rule,
    /// It was not in the books before.
    pub(super) is_new: bool,
}

/// Does what is asked, unless that was done before; `None` if the provider is deaf to it this time.
pub(super) async fn perform(pool: &PgPool, call: &ProviderCall) -> Result<Option<Done>, sqlx::Error> {
    if let Some(account) = Account::opened_by(call) {
        // There is nothing to add up: each statement stands for itself, and mostly there is but one.
        return account.book(&mut *pool.acquire().await?, call).await;
    }
    let mut transaction = pool.begin().await?;
    // Calls for one payment come one after the other, so that what they move adds up.
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", call.payment_id.to_string())
        .execute(&mut *transaction)
        .await?;
    let Some(account) = Account::of(&mut transaction, call).await? else {
        let outcome = Outcome::Declined { reason: "there is no such authorisation".to_owned() };
        return Ok(Some(Done { outcome, rule: Rule::Approve, is_new: false }));
    };
    let done = account.book(&mut transaction, call).await?;
    transaction.commit().await?;
    Ok(done)
}

/// What the books say of a key; `None` if nothing was done under it.
pub(super) async fn look_up(pool: &PgPool, key: Uuid) -> Result<Option<Outcome>, sqlx::Error> {
    find(&mut *pool.acquire().await?, key).await
}

async fn find(connection: &mut PgConnection, key: Uuid) -> Result<Option<Outcome>, sqlx::Error> {
    let row = sqlx::query!("SELECT operation, declined FROM daybook.provider_ledger WHERE idempotency_key = $1", key);
    let row = row.fetch_optional(connection).await?;
    Ok(row.map(|row| outcome(&row.operation, key, row.declined)))
}

fn outcome(operation: &str, key: Uuid, declined: Option<String>) -> Outcome {
    match declined {
        Some(reason) => Outcome::Declined { reason },
        None => Outcome::Approved { reference: format!("sim-{operation}-{}", key.simple()) },
    }
}

/// Whether this is the first time that it comes.
async fn ignore_once(connection: &mut PgConnection, key: Uuid) -> Result<bool, sqlx::Error> {
    let ignored = sqlx::query!(
        "INSERT INTO daybook.provider_ignored (idempotency_key) VALUES ($1)
         ON CONFLICT ON CONSTRAINT provider_ignored_key DO NOTHING",
        key
    );
    Ok(ignored.execute(connection).await?.rows_affected() == 1)
}

/// What a payment has moved so far. Amounts are in minor units of `currency`.
struct Account {
    order_id: Uuid,
    currency: String,
    rule: Rule,
    held: i64,
    /// What is captured and not refunded, of the capture that the call is about.
    refundable: i64,
}

impl Account {
    /// That of a payment of which nothing was asked before: an authorisation opens one.
    fn opened_by(call: &ProviderCall) -> Option<Self> {
        let Operation::Authorise { order_id, currency, method, .. } = &call.operation else { return None };
        let (currency, rule) = (currency.to_string(), Rule::of_token(&method.token));
        Some(Self { order_id: order_id.0, currency, rule, held: 0, refundable: 0 })
    }

    /// That of the call's payment, if one was opened.
    async fn of(connection: &mut PgConnection, call: &ProviderCall) -> Result<Option<Self>, sqlx::Error> {
        let rows = sqlx::query!(
            "SELECT idempotency_key, order_id, operation, amount, currency, rule, capture_id FROM daybook.provider_ledger
             WHERE payment_id = $1 AND declined IS NULL",
            call.payment_id.0
        );
        let rows = rows.fetch_all(connection).await?;
        let moved = |operation| rows.iter().filter(|r| r.operation == operation).map(|r| r.amount).sum::<i64>();
        let Some(opened) = rows.iter().find(|r| r.operation == "authorise") else { return Ok(None) };
        let (order_id, currency) = (opened.order_id, opened.currency.clone());
        let rule = opened.rule.as_deref().map_or(Rule::Approve, Rule::of_word);
        let held = moved("authorise") - moved("capture") - moved("void");
        let capture = capture_of(call).map(|id| id.0);
        let captured = rows.iter().filter(|r| r.operation == "capture" && Some(r.idempotency_key) == capture);
        let refunded = rows.iter().filter(|r| r.operation == "refund" && r.capture_id == capture);
        let refundable = captured.map(|r| r.amount).sum::<i64>() - refunded.map(|r| r.amount).sum::<i64>();
        Ok(Some(Self { order_id, currency, rule, held, refundable }))
    }

    /// Writes down what is done or declined, unless that was done before; `None` if the provider is deaf to it this time.
    async fn book(&self, connection: &mut PgConnection, call: &ProviderCall) -> Result<Option<Done>, sqlx::Error> {
        let (key, rule) = (call.idempotency_key, self.rule);
        if rule == Rule::TimeoutBefore && find(connection, key).await?.is_none() && ignore_once(connection, key).await?
        {
            return Ok(None);
        }
        let entry = self.entry(call);
        if entry.insert(connection, call, self).await? {
            let outcome = outcome(entry.operation, key, entry.declined.map(str::to_owned));
            return Ok(Some(Done { outcome, rule, is_new: true }));
        }
        let outcome = find(connection, key).await?.ok_or(sqlx::Error::RowNotFound)?;
        Ok(Some(Done { outcome, rule, is_new: false }))
    }

    /// What is done, or declined. The provider trusts nobody's sums but its own.
    fn entry(&self, call: &ProviderCall) -> Entry {
        let fits = |amount: i64, within: i64| (amount <= 0 || amount > within).then_some("there is not so much");
        let (operation, amount, declined) = match call.operation {
            Operation::Authorise { amount, .. } => {
                ("authorise", amount.0, (self.rule == Rule::Decline).then_some("card declined"))
            }
            Operation::Capture { .. } if self.rule == Rule::DeclineCapture => {
                ("capture", self.held, Some("capture declined"))
            }
            Operation::Capture { amount, .. } => ("capture", amount.0, fits(amount.0, self.held)),
            Operation::Refund { amount, .. } => ("refund", amount.0, fits(amount.0, self.refundable)),
            Operation::Void | Operation::Lookup { .. } => ("void", self.held, fits(self.held, self.held)),
        };
        Entry { operation, amount, declined }
    }
}

/// The capture that is given back from.
fn capture_of(call: &ProviderCall) -> Option<CaptureId> {
    match call.operation {
        Operation::Refund { capture_id, .. } => Some(capture_id),
        Operation::Authorise { .. } | Operation::Capture { .. } | Operation::Void | Operation::Lookup { .. } => None,
    }
}

struct Entry {
    operation: &'static str,
    amount: i64,
    declined: Option<&'static str>,
}

impl Entry {
    /// `false`, if there is one under the key.
    async fn insert(
        &self,
        connection: &mut PgConnection,
        call: &ProviderCall,
        account: &Account,
    ) -> Result<bool, sqlx::Error> {
        let rule = (self.operation == "authorise").then(|| account.rule.word());
        let inserted = sqlx::query!(
            "INSERT INTO daybook.provider_ledger
                 (idempotency_key, payment_id, order_id, operation, amount, currency, declined, rule, capture_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT ON CONSTRAINT provider_ledger_key DO NOTHING",
            call.idempotency_key,
            call.payment_id.0,
            account.order_id,
            self.operation,
            self.amount,
            account.currency,
            self.declined,
            rule,
            capture_of(call).map(|id| id.0)
        );
        Ok(inserted.execute(connection).await?.rows_affected() == 1)
    }
}

/// What an order's payments have really moved at the provider, in minor units of one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub order_id: Uuid,
    pub currency: String,
    /// Authorised, and neither captured nor let go.
    pub held: i64,
    pub captured: i64,
    pub refunded: i64,
}

/// The books added up by order and currency, of these orders.
///
/// # Errors
/// When Postgres fails.
pub async fn moved(pool: &PgPool, orders: &[Uuid]) -> Result<Vec<Moved>, sqlx::Error> {
    sqlx::query_as!(
        Moved,
        r#"SELECT order_id, currency,
                  sum(CASE operation WHEN 'authorise' THEN amount WHEN 'capture' THEN -amount
                                     WHEN 'void' THEN -amount ELSE 0 END)::bigint AS "held!",
                  coalesce(sum(amount) FILTER (WHERE operation = 'capture'), 0)::bigint AS "captured!",
                  coalesce(sum(amount) FILTER (WHERE operation = 'refund'), 0)::bigint AS "refunded!"
           FROM daybook.provider_ledger WHERE order_id = ANY($1) AND declined IS NULL
           GROUP BY order_id, currency ORDER BY order_id, currency"#,
        orders
    )
    .fetch_all(pool)
    .await
}
