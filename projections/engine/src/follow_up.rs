//! Follow-ups: what is to be done because of an event, and what came of it.
//!
//! A follow-up is a row of an outbox table (transactional outbox): it is written in the transaction that moves the checkpoint,
//! carried out at least once, and has an idempotency key.

use crate::domain::FollowUp;
use crate::{Delivered, Domain, Recorded};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use store::lease::Lease;
use store::{Found, Link, Mark, Origin, Position, Seen, derive_id};
use uuid::Uuid;

/// A follow-up that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Due<E> {
    /// Also the command id, or the idempotency key, of the effect.
    pub id: Uuid,
    /// The event that it follows from.
    pub event_id: Uuid,
    pub position: Position,
    pub correlation_id: Uuid,
    pub reaction: String,
    pub attempts: i32,
    pub due_at: DateTime<Utc>,
    pub effect: E,
}

/// What came of a follow-up.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement<E> {
    /// It is done.
    Accepted,
    /// It was refused, and that is final; what follows from that is recorded with it.
    Refused { reason: String, next: Option<FollowUp<E>> },
    /// It could not be tried, or its outcome is unknown: again, after a while.
    Retry { reason: String, after: Duration },
    /// It will never work as it is: somebody has to look at it.
    Parked { reason: String },
}

/// A follow-up, and what came of it.
pub type Settled<E> = (Due<E>, Settlement<E>);

/// The id of a follow-up of `cause`: an event, or a follow-up that was refused.
pub fn follow_up_id(cause: Uuid, reaction: &str, target: Uuid) -> Uuid {
    derive_id(cause, &[b"follow-up", reaction.as_bytes(), target.as_bytes()])
}

/// Writes what follows from `events`. Nothing follows from imported history.
pub(crate) async fn record<D: Domain>(
    transaction: &mut PgConnection,
    events: &[Delivered<D>],
) -> Result<(), sqlx::Error> {
    let mut rows = Rows::<D>::default();
    for Recorded { record, event } in events.iter().filter_map(Delivered::event) {
        if record.metadata.origin == Origin::Import {
            continue;
        }
        for follow_up in D::react(event) {
            let correlation_id = D::correlation_id(record.metadata.correlation_id, event);
            let cause = (record.event_id, record.event_id, record.position, correlation_id);
            rows.push(cause, follow_up);
        }
    }
    rows.insert(transaction).await
}

/// Follow-ups as columns, for one statement.
struct Rows<D: Domain> {
    id: Vec<Uuid>,
    event_id: Vec<Uuid>,
    position: Vec<Position>,
    correlation_id: Vec<Uuid>,
    reaction: Vec<String>,
    target: Vec<Uuid>,
    effect: Vec<Json<D::Effect>>,
}

impl<D: Domain> Default for Rows<D> {
    fn default() -> Self {
        Self {
            id: vec![],
            event_id: vec![],
            position: vec![],
            correlation_id: vec![],
            reaction: vec![],
            target: vec![],
            effect: vec![],
        }
    }
}

impl<D: Domain> Rows<D> {
    fn push(&mut self, cause: (Uuid, Uuid, Position, Uuid), follow_up: FollowUp<D::Effect>) {
        let (cause, event_id, position, correlation_id) = cause;
        self.id.push(follow_up_id(cause, follow_up.reaction, follow_up.target));
        self.event_id.push(event_id);
        self.position.push(position);
        self.correlation_id.push(correlation_id);
        self.reaction.push(follow_up.reaction.to_owned());
        self.target.push(follow_up.target);
        self.effect.push(Json(follow_up.effect));
    }

    async fn insert(self, transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.id.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO daybook.follow_ups (domain, id, event_id, position, correlation_id, reaction, target, act)
             SELECT $8, f.*
             FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $6::uuid[], $7::jsonb[]) AS f
             ON CONFLICT ON CONSTRAINT follow_ups_id DO NOTHING",
            &self.id,
            &self.event_id,
            &self.position,
            &self.correlation_id,
            &self.reaction,
            &self.target,
            &self.effect as &[Json<D::Effect>],
            D::NAME
        )
        .execute(transaction)
        .await?;
        Ok(())
    }
}

/// Up to `limit` follow-ups that are due, the longest due first, without those `in_flight`; with `since`, only those due from
/// then on. At the same moment it looks whether the log has the marks of `seen`. A settled follow-up leaves its entry in the
/// index until Postgres vacuums it: a look that begins after such entries costs a fraction.
///
/// # Errors
/// When Postgres fails.
pub async fn due<D: Domain>(
    pool: &PgPool,
    seen: &Seen,
    in_flight: &[Uuid],
    since: Option<DateTime<Utc>>,
    limit: i64,
) -> Result<(Vec<Due<D::Effect>>, Found), sqlx::Error> {
    let (seen_positions, seen_links) = seen.columns();
    let rows = sqlx::query!(
        r#"SELECT log.end_position, log.end_link AS "end_link: Link", log.has_seen AS "has_seen!",
                  due.id AS "id?", due.event_id AS "event_id?", due.position AS "position?",
                  due.correlation_id AS "correlation_id?", due.reaction AS "reaction?", due.attempts AS "attempts?",
                  due.due_at AS "due_at?", due.act AS "act?: Json<Box<RawValue>>"
           FROM (SELECT (SELECT position FROM daybook.events ORDER BY position DESC LIMIT 1) AS end_position,
                        (SELECT link FROM daybook.events ORDER BY position DESC LIMIT 1) AS end_link,
                        (SELECT daybook.has_marks($4::bigint[], $5::bytea[])) AS has_seen) AS log
           LEFT JOIN LATERAL (
               SELECT id, event_id, position, correlation_id, reaction, attempts, greatest(f.due_at, 'epoch') AS due_at, act
               FROM daybook.follow_ups AS f
               WHERE state = 'due' AND f.domain = $6 AND f.due_at <= statement_timestamp()
                 AND f.due_at >= coalesce($2::timestamptz, '-infinity') AND id NOT IN (SELECT unnest($1::uuid[]))
               ORDER BY f.due_at LIMIT $3) AS due ON true
           ORDER BY due.due_at"#,
        in_flight,
        since,
        limit,
        &seen_positions,
        &seen_links as &[&[u8]],
        D::NAME
    )
    .fetch_all(pool)
    .await?;
    let end = rows.first().and_then(|row| row.end_position.zip(row.end_link));
    let found = Found {
        has_seen: rows.first().is_none_or(|row| row.has_seen),
        end: end.map(|(position, link)| Mark { position, link }),
    };
    let due = rows.into_iter().filter_map(|row| {
        let due = |effect| {
            Some(Due {
                id: row.id?,
                event_id: row.event_id?,
                position: row.position?,
                correlation_id: row.correlation_id?,
                reaction: row.reaction?,
                attempts: row.attempts?,
                due_at: row.due_at?,
                effect,
            })
        };
        match serde_json::from_str(row.act?.get()) {
            Ok(effect) => due(effect).map(Ok),
            Err(e) => Some(Err(sqlx::Error::ColumnDecode { index: "act".to_owned(), source: e.into() })),
        }
    });
    Ok((due.collect::<Result<_, _>>()?, found))
}

/// Makes due what would wait longer than any retry does: `longest`; what was not tried yet waits for nothing. The clock has gone
/// back since it was written.
///
/// # Errors
/// When Postgres fails.
pub async fn hasten<D: Domain>(pool: &PgPool, longest: Duration) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE daybook.follow_ups SET due_at = clock_timestamp()
         WHERE state = 'due' AND domain = $2 AND due_at > statement_timestamp()
           AND due_at > statement_timestamp() + make_interval(secs => CASE attempts WHEN 0 THEN 0 ELSE $1::float8 END)",
        longest.as_secs_f64(),
        D::NAME
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 500;

/// A text of somebody else's as it is kept.
pub fn storable(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}

/// Records what came of follow-ups, if the lease is still held and the log has the marks of `seen`; `false`, and nothing, if not.
/// An id is derived, so the follow-up of a lost event may be there again, of the same event in another history: what came of
/// the one does not settle the other.
///
/// # Errors
/// When Postgres fails.
pub async fn settle<D: Domain>(
    pool: &PgPool,
    lease: &Lease,
    seen: &Seen,
    settled: Vec<Settled<D::Effect>>,
) -> Result<bool, sqlx::Error> {
    let (mut ids, mut states, mut reasons, mut delays) = (vec![], vec![], vec![], vec![]);
    let mut next = Vec::new();
    for (due, settlement) in settled {
        let (state, reason, delay) = match settlement {
            Settlement::Accepted => ("accepted", None, 0.0),
            Settlement::Refused { reason, next: after } => {
                let cause = (due.id, due.event_id, due.position, due.correlation_id);
                next.extend(after.map(|follow_up| (cause, follow_up)));
                ("refused", Some(reason), 0.0)
            }
            Settlement::Retry { reason, after } => ("due", Some(reason), after.as_secs_f64()),
            Settlement::Parked { reason } => ("parked", Some(reason), 0.0),
        };
        ids.push(due.id);
        states.push(state.to_owned());
        reasons.push(reason.as_deref().map(storable));
        delays.push(delay);
    }
    let (seen_positions, seen_links) = seen.columns();
    let mut transaction = pool.begin().await?;
    // Locks the lease's row, so that it cannot change hands before this is committed.
    let held = sqlx::query_scalar!(
        "SELECT true FROM daybook.leases
         WHERE name = $1 AND owner = $2 AND fence = $3
           AND daybook.has_marks($4::bigint[], $5::bytea[])
         FOR SHARE",
        lease.name,
        lease.owner,
        lease.fence,
        &seen_positions,
        &seen_links as &[&[u8]]
    );
    if held.fetch_optional(&mut *transaction).await?.is_none() {
        return Ok(false);
    }
    let settled = sqlx::query_scalar!(
        "UPDATE daybook.follow_ups f
         SET state = s.state, reason = s.reason, attempts = f.attempts + 1,
             due_at = CASE s.state WHEN 'due' THEN clock_timestamp() + make_interval(secs => s.delay) ELSE due_at END,
             settled_at = CASE s.state WHEN 'due' THEN NULL ELSE clock_timestamp() END
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::float8[]) AS s (id, state, reason, delay)
         WHERE f.id = s.id AND f.state = 'due'
         RETURNING f.id",
        &ids,
        &states,
        &reasons as &[Option<String>],
        &delays
    )
    .fetch_all(&mut *transaction)
    .await?;
    // Of one that somebody else has settled meanwhile, nothing more follows.
    let mut rows = Rows::<D>::default();
    for (cause, follow_up) in next.into_iter().filter(|((id, ..), _)| settled.contains(id)) {
        rows.push(cause, follow_up);
    }
    rows.insert(&mut transaction).await?;
    transaction.commit().await?;
    Ok(true)
}
