//! Dead letters: what could not be done, and waits for somebody to have it done after all, or to give it up. These are
//! follow-ups that are parked; events that could not be taken in are another matter (`parked.rs`).

use crate::follow_up::storable;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use store::Position;
use uuid::Uuid;

/// Something that waits for somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub id: Uuid,
    /// What it is: `follow_up`.
    pub source: String,
    /// What it belongs to: the order.
    pub correlation_id: Uuid,
    pub reaction: String,
    /// What it is aimed at: the id of a stream, of a refund, or of a customer.
    pub target: Uuid,
    /// Why it could not be done.
    pub reason: String,
    /// How often it was tried.
    pub attempts: i32,
    pub parked_at: DateTime<Utc>,
}

/// A dead letter with all that is known of it; also one that somebody has seen to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    pub id: Uuid,
    /// What it is: `follow_up`.
    pub source: String,
    /// `parked` or `discarded`; of one that was redriven, what has come of that: `due`, `accepted`, `refused`.
    pub state: String,
    pub correlation_id: Uuid,
    pub reaction: String,
    pub target: Uuid,
    /// The event that it follows from.
    pub event_id: Uuid,
    pub position: Position,
    /// Why the last attempt was not the end of it.
    pub reason: Option<String>,
    /// How often it was tried since it was written or redriven.
    pub attempts: i32,
    /// Since when it is in its state; `None` while it is due.
    pub settled_at: Option<DateTime<Utc>>,
    /// What it is to do, without payment tokens.
    pub act: Value,
    /// What was decided about it, oldest first.
    pub resolutions: Vec<Resolution>,
}

/// What somebody has decided about a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// `redriven` or `discarded`.
    pub outcome: String,
    pub resolved_by: String,
    pub resolved_at: DateTime<Utc>,
    /// In the words of who decided it.
    pub why: Option<String>,
    /// Since when it had waited until then.
    pub parked_at: Option<DateTime<Utc>>,
    /// What it had waited for.
    pub reason: Option<String>,
}

/// Which dead letters are meant: those that are all of this.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One of these.
    pub ids: Option<Vec<Uuid>>,
    pub reaction: Option<String>,
    pub correlation_id: Option<Uuid>,
    /// A part of the reason.
    pub matching: Option<String>,
    /// Parked at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Parked at this time or before.
    pub until: Option<DateTime<Utc>>,
}

/// Up to `limit` dead letters, those first that wait longest. The last row of a page is where the next one goes on:
/// `(parked_at, id)`.
///
/// # Errors
/// When Postgres fails.
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    sqlx::query_as!(
        DeadLetter,
        r#"SELECT id, 'follow_up' AS "source!", correlation_id, reaction, target, coalesce(reason, '') AS "reason!",
                  attempts, settled_at AS "parked_at!"
           FROM daybook.follow_ups
           WHERE state = 'parked'
             AND ($1::uuid[] IS NULL OR id = ANY($1))
             AND ($2::text IS NULL OR reaction = $2)
             AND ($3::uuid IS NULL OR correlation_id = $3)
             AND ($4::text IS NULL OR strpos(reason, $4) > 0)
             AND ($5::timestamptz IS NULL OR settled_at >= $5)
             AND ($6::timestamptz IS NULL OR settled_at <= $6)
             AND ($7::timestamptz IS NULL OR (settled_at, id) > ($7, $8))
           ORDER BY settled_at, id LIMIT $9"#,
        filter.ids.as_deref() as Option<&[Uuid]>,
        filter.reaction.as_deref(),
        filter.correlation_id,
        filter.matching.as_deref(),
        filter.since,
        filter.until,
        after.map(|(parked_at, _)| parked_at),
        after.map(|(_, id)| id),
        limit
    )
    .fetch_all(pool)
    .await
}

/// What is, or was, a dead letter.
///
/// # Errors
/// When Postgres fails.
pub async fn get(pool: &PgPool, id: Uuid) -> Result<Option<Detail>, sqlx::Error> {
    let resolutions = sqlx::query_as!(
        Resolution,
        "SELECT outcome, resolved_by, resolved_at, why, parked_at, reason
         FROM daybook.resolutions WHERE dead_letter = $1 ORDER BY resolved_at",
        id
    );
    let resolutions = resolutions.fetch_all(pool).await?;
    let row = sqlx::query!(
        "SELECT state, correlation_id, reaction, target, event_id, position, reason, attempts, settled_at, act
         FROM daybook.follow_ups WHERE id = $1 AND (state IN ('parked', 'discarded') OR $2)",
        id,
        !resolutions.is_empty()
    );
    let Some(row) = row.fetch_optional(pool).await? else { return Ok(None) };
    let mut act = row.act;
    hide_tokens(&mut act);
    Ok(Some(Detail {
        id,
        source: "follow_up".to_owned(),
        state: row.state,
        correlation_id: row.correlation_id,
        reaction: row.reaction,
        target: row.target,
        event_id: row.event_id,
        position: row.position,
        reason: row.reason,
        attempts: row.attempts,
        settled_at: row.settled_at,
        act,
        resolutions,
    }))
}

/// Puts `…` in place of payment tokens, which are secrets. One has this name wherever it is:
/// [`domain::order::PaymentMethod`].
pub fn hide_tokens(json: &mut Value) {
    match json {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match name.as_str() {
            "token" => *value = "…".into(),
            _ => hide_tokens(value),
        }),
        Value::Array(items) => items.iter_mut().for_each(hide_tokens),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Has what is parked sent again, from its first attempt on; returns which these are. What is not parked stays as it is,
/// so that it makes no difference how often this is said.
///
/// It keeps its id, which is the command id or the notice id of its act; the idempotency key of a call to the provider is
/// in the act. So what was done in truth, and only not seen to be, is not done a second time.
///
/// # Errors
/// When Postgres fails: then nothing is changed.
pub async fn redrive(pool: &PgPool, filter: &Filter, by: &str, why: Option<&str>) -> Result<Vec<Uuid>, sqlx::Error> {
    resolve(pool, filter, "redriven", by, why).await
}

/// Gives up what is parked: it is kept, and never sent; returns which these are. What is not parked stays as it is.
///
/// # Errors
/// When Postgres fails: then nothing is changed.
pub async fn discard(pool: &PgPool, filter: &Filter, by: &str, why: &str) -> Result<Vec<Uuid>, sqlx::Error> {
    resolve(pool, filter, "discarded", by, Some(why)).await
}

/// One statement, so that of each it is decided and written down by whom, or neither.
async fn resolve(
    pool: &PgPool,
    filter: &Filter,
    outcome: &str,
    by: &str,
    why: Option<&str>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "WITH resolved AS (
             UPDATE daybook.follow_ups
             SET state = CASE $7::text WHEN 'redriven' THEN 'due' ELSE $7 END,
                 attempts = CASE $7 WHEN 'redriven' THEN 0 ELSE attempts END,
                 due_at = CASE $7 WHEN 'redriven' THEN clock_timestamp() ELSE due_at END,
                 settled_at = CASE $7 WHEN 'redriven' THEN NULL ELSE clock_timestamp() END
             WHERE state = 'parked'
               AND ($1::uuid[] IS NULL OR id = ANY($1))
               AND ($2::text IS NULL OR reaction = $2)
               AND ($3::uuid IS NULL OR correlation_id = $3)
               AND ($4::text IS NULL OR strpos(reason, $4) > 0)
               AND ($5::timestamptz IS NULL OR settled_at >= $5)
               AND ($6::timestamptz IS NULL OR settled_at <= $6)
             RETURNING new.id, old.settled_at AS parked_at, new.reason)
         INSERT INTO daybook.resolutions (dead_letter, outcome, parked_at, reason, resolved_by, why)
         SELECT id, $7, parked_at, reason, $8, $9 FROM resolved
         RETURNING dead_letter",
        filter.ids.as_deref() as Option<&[Uuid]>,
        filter.reaction.as_deref(),
        filter.correlation_id,
        filter.matching.as_deref(),
        filter.since,
        filter.until,
        outcome,
        storable(by),
        why.map(storable)
    )
    .fetch_all(pool)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Command;
    use domain::id::{OrderId, PaymentId};
    use domain::money::Amount;
    use domain::order::PaymentMethod;
    use domain::payment;
    use domain::reaction::{Act, Operation, ProviderCall};
    use serde_json::json;

    /// What `act` says of the payment method, at `path`, once its token is hidden.
    fn shown(act: &Act, path: &str) -> Value {
        let mut act = serde_json::to_value(act).unwrap();
        assert_eq!(act.pointer(path).unwrap()["token"], "tok_secret");
        hide_tokens(&mut act);
        assert!(!act.to_string().contains("tok_secret"), "{act}");
        act.pointer(path).unwrap().clone()
    }

    #[test]
    fn no_act_shows_a_token() {
        let hidden = json!({ "kind": "credit_card", "token": "…" });
        let method = PaymentMethod { kind: "credit_card".into(), token: "tok_secret".into() };
        let (order_id, amount, currency) = (OrderId(Uuid::nil()), Amount(1), "EUR".parse().unwrap());
        let payment_id = PaymentId::of_order(order_id, 0);
        let operation = Operation::Authorise { order_id, amount, currency, method: method.clone() };
        let call = Act::Provider(ProviderCall { payment_id, idempotency_key: payment_id.0, operation });
        assert_eq!(shown(&call, "/provider/operation/authorise/method"), hidden);
        let command = payment::Command::Authorise { order_id, amount, currency, method };
        let command = Act::Command(Command::Payment { id: payment_id, command });
        assert_eq!(shown(&command, "/command/payment/command/authorise/method"), hidden);
        // Also where there are several.
        let mut several = json!({ "payments": [{ "token": "tok_1" }, { "method": { "token": { "v": "tok_2" } } }] });
        hide_tokens(&mut several);
        assert_eq!(several, json!({ "payments": [{ "token": "…" }, { "method": { "token": "…" } }] }));
    }
}
