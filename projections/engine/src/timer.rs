//! The rows that timers are until they are due, and then the follow-ups that they become.
//!
//! They are effects to come, like follow-ups, and no read model: nothing can replay them.

use crate::domain::{Timer, TimerChange};
use crate::{Delivered, Domain, Recorded};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use std::collections::HashMap;
use store::{Origin, derive_id};
use uuid::Uuid;

/// The id of a timer that an event has set, and of the follow-up that it becomes.
pub fn timer_id(event_id: Uuid, timer: &Timer) -> Uuid {
    derive_id(event_id, &[b"timer", timer.kind.as_bytes(), timer.target.as_bytes(), timer.key.as_bytes()])
}

/// When a timer is due that is counted from then: when its event was recorded, by Postgres' clock; or earlier, if that turned
/// out to be in the future.
pub fn fires_at(counted_from: DateTime<Utc>, after_seconds: u32) -> DateTime<Utc> {
    counted_from + TimeDelta::seconds(after_seconds.into())
}

/// The event that has set a timer, after how many seconds it is due, and what is then to be done.
type Set<'a, D> = (&'a Recorded<D>, u32, <D as Domain>::Effect);

/// Writes what `events` set, and removes what they clear. Imported history does neither.
pub(crate) async fn record<D: Domain>(
    transaction: &mut PgConnection,
    events: &[Delivered<D>],
) -> Result<(), sqlx::Error> {
    // What is both set and cleared by them is never written.
    let mut changes: HashMap<Timer, Option<Set<'_, D>>> = HashMap::new();
    for recorded in events.iter().filter_map(Delivered::event).filter(|e| e.record.metadata.origin != Origin::Import) {
        for change in D::timers(&recorded.event) {
            match change {
                TimerChange::Set { timer, after_seconds, effect } => {
                    changes.insert(timer, Some((recorded, after_seconds, effect)));
                }
                TimerChange::Clear(timer) => {
                    changes.insert(timer, None);
                }
            }
        }
    }
    let (mut cleared, mut set) = (Names::default(), Rows::<D>::default());
    for (timer, change) in changes {
        match change {
            Some((recorded, after_seconds, effect)) => set.push(timer, recorded, after_seconds, effect),
            None => cleared.push(timer),
        }
    }
    cleared.delete(D::NAME, transaction).await?;
    set.insert(transaction).await
}

/// What tells timers apart as columns, for one statement.
#[derive(Default)]
struct Names {
    kind: Vec<String>,
    target: Vec<Uuid>,
    key: Vec<String>,
}

impl Names {
    fn push(&mut self, timer: Timer) {
        self.kind.push(timer.kind.to_owned());
        self.target.push(timer.target);
        self.key.push(timer.key);
    }

    async fn delete(self, domain: &str, transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.kind.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "DELETE FROM daybook.timers AS t USING unnest($1::text[], $2::uuid[], $3::text[]) AS c (kind, target, key)
             WHERE t.domain = $4 AND (t.kind, t.target, t.key) = (c.kind, c.target, c.key)",
            &self.kind,
            &self.target,
            &self.key,
            domain
        )
        .execute(transaction)
        .await?;
        Ok(())
    }
}

/// Timers as columns, for one statement.
struct Rows<D: Domain> {
    names: Names,
    id: Vec<Uuid>,
    event_id: Vec<Uuid>,
    position: Vec<i64>,
    correlation_id: Vec<Uuid>,
    effect: Vec<Json<D::Effect>>,
    counted_from: Vec<DateTime<Utc>>,
    fires_at: Vec<DateTime<Utc>>,
}

impl<D: Domain> Default for Rows<D> {
    fn default() -> Self {
        Self {
            names: Names::default(),
            id: vec![],
            event_id: vec![],
            position: vec![],
            correlation_id: vec![],
            effect: vec![],
            counted_from: vec![],
            fires_at: vec![],
        }
    }
}

impl<D: Domain> Rows<D> {
    fn push(&mut self, timer: Timer, Recorded { record, event }: &Recorded<D>, after_seconds: u32, effect: D::Effect) {
        self.id.push(timer_id(record.event_id, &timer));
        self.names.push(timer);
        self.event_id.push(record.event_id);
        self.position.push(record.position);
        self.correlation_id.push(D::correlation_id(record.metadata.correlation_id, event));
        self.effect.push(Json(effect));
        self.counted_from.push(record.recorded_at);
        self.fires_at.push(fires_at(record.recorded_at, after_seconds));
    }

    async fn insert(self, transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.id.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO daybook.timers
                 (domain, kind, target, key, id, event_id, position, correlation_id, act, counted_from, fires_at)
             SELECT $11, t.*
             FROM unnest($1::text[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::bigint[], $7::uuid[],
                         $8::jsonb[], $9::timestamptz[], $10::timestamptz[]) AS t
             ON CONFLICT ON CONSTRAINT timers_name DO UPDATE
             SET id = excluded.id, event_id = excluded.event_id, position = excluded.position,
                 correlation_id = excluded.correlation_id, act = excluded.act,
                 counted_from = excluded.counted_from, fires_at = excluded.fires_at",
            &self.names.kind,
            &self.names.target,
            &self.names.key,
            &self.id,
            &self.event_id,
            &self.position,
            &self.correlation_id,
            &self.effect as &[Json<D::Effect>],
            &self.counted_from,
            &self.fires_at,
            D::NAME
        )
        .execute(transaction)
        .await?;
        Ok(())
    }
}

/// Counts timers anew, from now, that were counted from a time that is still to come: the clock has gone back since their event
/// was stamped. There are none unless the log's last stamp is ahead as well. Only who knows that the clock is right may do so: a
/// timer that was counted anew by a wrong clock fires early.
///
/// # Errors
/// When Postgres fails.
pub async fn recount<D: Domain>(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE daybook.timers
         SET fires_at = fires_at - make_interval(secs => extract(epoch FROM counted_from - statement_timestamp())::float8),
             counted_from = statement_timestamp()
         WHERE domain = $1 AND counted_from > statement_timestamp()
           AND (SELECT recorded_at FROM daybook.events ORDER BY position DESC LIMIT 1) > statement_timestamp()",
        D::NAME
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes follow-ups of up to `limit` timers that are due, the longest due first, and returns how many they were. One
/// statement, so that each is either or: whoever else does the same at the same time takes others.
///
/// # Errors
/// When Postgres fails: then nothing is changed.
pub async fn fire<D: Domain>(pool: &PgPool, limit: i64) -> Result<u64, sqlx::Error> {
    // `statement_timestamp`, for it is the same in the whole statement, so that the index finds what is due.
    let fired = sqlx::query!(
        "WITH due AS MATERIALIZED (
             SELECT domain, kind, target, key FROM daybook.timers
             WHERE domain = $2 AND fires_at <= statement_timestamp() ORDER BY fires_at LIMIT $1
             FOR UPDATE SKIP LOCKED),
         fired AS (
             DELETE FROM daybook.timers AS t USING due
             WHERE (t.domain, t.kind, t.target, t.key) = (due.domain, due.kind, due.target, due.key)
             RETURNING t.*)
         INSERT INTO daybook.follow_ups (id, domain, event_id, position, correlation_id, reaction, target, act)
         SELECT id, domain, event_id, position, correlation_id, kind, target, act FROM fired
         ON CONFLICT ON CONSTRAINT follow_ups_id DO NOTHING",
        limit,
        D::NAME
    );
    Ok(fired.execute(pool).await?.rows_affected())
}
