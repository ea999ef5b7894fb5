//! Dead letters: follow-ups that are parked, and events that a projection cannot apply (`parked.rs`). Each waits for a
//! person, who has it done after all or gives it up.

use crate::Domain;
use crate::follow_up::storable;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use store::Position;
use uuid::Uuid;

/// Something that waits, or waited, for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub id: Uuid,
    /// `follow_up`, or `event`.
    pub kind: String,
    /// `parked` or `discarded`. Of one that was redriven, what has come of that: of a follow-up `due`, `accepted` or
    /// `refused`, of an event `redriven`, for then it is applied.
    pub state: String,
    /// Since when it is in its state.
    pub since: DateTime<Utc>,
    /// What it belongs to: the order.
    pub correlation_id: Uuid,
    /// The event that a follow-up follows from, or that cannot be applied.
    pub event_id: Uuid,
    pub position: Position,
    pub event_type: String,
    /// What a follow-up does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reaction: Option<String>,
    /// What cannot apply the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// Of a follow-up what it is aimed at: the id of a stream, of a refund, or of a customer. Of an event, whose rows it
    /// keeps from going on: the id of an order, or of a stream.
    pub target: Uuid,
    /// Why it could not be done or applied.
    pub reason: String,
    /// How often a follow-up was tried since it was written or redriven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// How many events wait behind an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<i64>,
}

/// A dead letter with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// What a follow-up is to do, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Value>,
    /// What was decided about it, oldest first.
    pub resolutions: Vec<Resolution>,
}

/// A decision about a dead letter.
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

/// A decision about dead letters, to be carried out.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'a> {
    /// To have it done after all, its cause being gone.
    Redrive { by: &'a str, why: Option<&'a str> },
    /// To go on without it.
    Discard { by: &'a str, why: &'a str },
}

impl Decision<'_> {
    /// The word that it is stored and told as.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Redrive { .. } => "redriven",
            Self::Discard { .. } => "discarded",
        }
    }

    pub(crate) fn by(&self) -> &str {
        match self {
            Self::Redrive { by, .. } | Self::Discard { by, .. } => by,
        }
    }

    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::Redrive { why, .. } => *why,
            Self::Discard { why, .. } => Some(why),
        }
    }
}

/// Which dead letters are meant: those that are all of this.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those that were given up, instead of those that wait.
    pub discarded: bool,
    /// One of these.
    pub ids: Option<Vec<Uuid>>,
    pub reaction: Option<String>,
    pub projection: Option<String>,
    pub correlation_id: Option<Uuid>,
    /// A part of the reason.
    pub matching: Option<String>,
    /// In their state since this time or later.
    pub since: Option<DateTime<Utc>>,
    /// In their state since this time or before.
    pub until: Option<DateTime<Utc>>,
}

/// Those of the view that are asked for. What is counted or looked up for each is so for these alone.
macro_rules! letters {
    ($which:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            DeadLetter,
            r#"SELECT id AS "id!", kind AS "kind!", state AS "state!",
                      coalesce(since, (SELECT max(resolved_at) FROM daybook.resolutions WHERE dead_letter = d.id))
                          AS "since!",
                      correlation_id AS "correlation_id!", event_id AS "event_id!", position AS "position!",
                      event_type AS "event_type!", reaction, projection, target AS "target!",
                      coalesce(reason, '') AS "reason!", attempts,
                      CASE WHEN kind = 'event' AND state = 'parked' THEN (
                          SELECT count(*) FROM daybook.parked_events AS w
                              JOIN daybook.checkpoints AS c USING (projection, generation)
                          WHERE c.live AND (w.projection, w.key) = (d.projection, d.target) AND w.cause IS NULL)
                      END AS waiting
               FROM (SELECT * FROM daybook.dead_letters "# + $which + r#") AS d ORDER BY d.since, d.id"#,
            $($argument),*
        )
    };
}

/// Up to `limit` dead letters, those first that wait longest. The last row of a page is where the next one goes on:
/// `(since, id)`.
///
/// # Errors
/// When Postgres fails.
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    letters!(
        "WHERE state = $1
           AND ($2::uuid[] IS NULL OR id = ANY($2))
           AND ($3::text IS NULL OR reaction = $3)
           AND ($4::text IS NULL OR projection = $4)
           AND ($5::uuid IS NULL OR correlation_id = $5)
           AND ($6::text IS NULL OR strpos(reason, $6) > 0)
           AND ($7::timestamptz IS NULL OR since >= $7)
           AND ($8::timestamptz IS NULL OR since <= $8)
           AND ($9::timestamptz IS NULL OR (since, id) > ($9, $10))
         ORDER BY since, id LIMIT $11",
        if filter.discarded { "discarded" } else { "parked" },
        filter.ids.as_deref() as Option<&[Uuid]>,
        filter.reaction.as_deref(),
        filter.projection.as_deref(),
        filter.correlation_id,
        filter.matching.as_deref(),
        filter.since,
        filter.until,
        after.map(|(since, _)| since),
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
pub async fn get<D: Domain>(pool: &PgPool, id: Uuid) -> Result<Option<Detail>, sqlx::Error> {
    let letter = letters!(
        "WHERE id = $1 AND (state IN ('parked', 'discarded')
                            OR EXISTS (SELECT FROM daybook.resolutions WHERE dead_letter = $1))",
        id
    );
    let Some(letter) = letter.fetch_optional(pool).await? else { return Ok(None) };
    let mut act =
        sqlx::query_scalar!("SELECT act FROM daybook.follow_ups WHERE id = $1", id).fetch_optional(pool).await?;
    act.iter_mut().for_each(D::redact);
    let resolutions = sqlx::query_as!(
        Resolution,
        "SELECT outcome, resolved_by, resolved_at, why, parked_at, reason
         FROM daybook.resolutions WHERE dead_letter = $1 ORDER BY resolved_at",
        id
    );
    Ok(Some(Detail { letter, act, resolutions: resolutions.fetch_all(pool).await? }))
}

/// Has follow-ups that are parked sent again, from their first attempt on, or gives them up: they are kept, and never sent;
/// returns which these are. What is not parked stays as it is, so that it makes no difference how often this is said.
///
/// A follow-up keeps its id, which is the command id or the notice id of its effect; the idempotency key of a call is in
/// the effect. So what was done in truth, and only not seen to be, is not done a second time.
///
/// One statement, so that of each it is decided and written down by whom, or neither.
///
/// # Errors
/// When Postgres fails: then nothing is changed.
pub async fn resolve_follow_ups(
    pool: &PgPool,
    ids: &[Uuid],
    decision: &Decision<'_>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "WITH resolved AS (
             UPDATE daybook.follow_ups
             SET state = CASE $2::text WHEN 'redriven' THEN 'due' ELSE $2 END,
                 attempts = CASE $2 WHEN 'redriven' THEN 0 ELSE attempts END,
                 due_at = CASE $2 WHEN 'redriven' THEN clock_timestamp() ELSE due_at END,
                 settled_at = CASE $2 WHEN 'redriven' THEN NULL ELSE clock_timestamp() END
             WHERE state = 'parked' AND id = ANY($1)
             RETURNING new.id, old.settled_at AS parked_at, new.reason)
         INSERT INTO daybook.resolutions (dead_letter, outcome, parked_at, reason, resolved_by, why)
         SELECT id, $2, parked_at, reason, $3, $4 FROM resolved
         RETURNING dead_letter",
        ids,
        decision.outcome(),
        storable(decision.by()),
        decision.why().map(storable)
    )
    .fetch_all(pool)
    .await
}
