//! The timers' rows against what the events have set and not cleared: each is there as it was set, or has become a
//! follow-up; and there are no others.

use super::{Check, Live};
use chrono::{DateTime, Utc};
use engine::timer::{fires_at, timer_id};
use engine::{Domain, TimerChange};
use order_views::{Orders, Recorded};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use store::Position;
use uuid::Uuid;

pub(super) struct Timers {
    live: Option<Live>,
    check: Check,
    /// What is set and not cleared.
    set: HashMap<(String, Uuid, String), Set>,
}

/// A timer as its event has set it.
struct Set {
    id: Uuid,
    recorded_at: DateTime<Utc>,
    after_seconds: u32,
    /// What does not depend on when its row was written.
    columns: Value,
}

impl Timers {
    pub(super) fn new(live: Option<Live>) -> Self {
        Self { live, check: Check::new("timers"), set: HashMap::new() }
    }

    /// Takes the next event that is no history, if the timers have.
    pub(super) fn take(&mut self, Recorded { record, event }: &Recorded) {
        if !self.live.as_ref().is_some_and(|live| live.has(record.position)) {
            return;
        }
        for change in Orders::timers(event) {
            match change {
                TimerChange::Set { timer, after_seconds, effect } => {
                    let id = timer_id(record.event_id, &timer);
                    let columns = json!({
                        "domain": Orders::NAME,
                        "id": id,
                        "event_id": record.event_id,
                        "position": record.position,
                        "correlation_id": Orders::correlation_id(record.metadata.correlation_id, event),
                        "act": effect,
                    });
                    let set = Set { id, recorded_at: record.recorded_at, after_seconds, columns };
                    self.set.insert((timer.kind.to_owned(), timer.target, timer.key), set);
                }
                TimerChange::Clear(timer) => {
                    self.set.remove(&(timer.kind.to_owned(), timer.target, timer.key));
                }
            }
        }
    }

    pub(super) async fn finish(mut self, snapshot: &mut PgConnection, head: Position) -> Result<Check, sqlx::Error> {
        let Some(live) = &self.live else {
            self.check.differs(|| "it has no live generation".to_owned());
            return Ok(self.check);
        };
        live.report(head, &mut self.check);
        let stored = sqlx::query!(
            "SELECT domain, kind, target, key, id, event_id, position, correlation_id, act, counted_from, fires_at
             FROM daybook.timers ORDER BY domain, kind, target, key"
        );
        for row in stored.fetch_all(&mut *snapshot).await? {
            let name = format!("{} of {} {}", row.kind, row.target, row.key);
            let key = (row.kind, row.target, row.key);
            if row.domain != Orders::NAME && self.set.get(&key).is_none_or(|set| set.id != row.id) {
                // Another domain's.
                continue;
            }
            self.check.checked += 1;
            let Some(Set { recorded_at, after_seconds, columns: set, .. }) = self.set.remove(&key) else {
                self.check.differs(|| format!("{name} is there, but no event has set it, or one has cleared it"));
                continue;
            };
            let stored = json!({
                "domain": row.domain,
                "id": row.id,
                "event_id": row.event_id,
                "position": row.position,
                "correlation_id": row.correlation_id,
                "act": row.act,
            });
            // From when its event was recorded, or from an earlier time, if that was ahead of the clock.
            if row.counted_from > recorded_at || row.fires_at != fires_at(row.counted_from, after_seconds) {
                self.check.differs(|| format!("{name}: fires_at is not what position {} has set", set["position"]));
            }
            for column in ["domain", "id", "event_id", "position", "correlation_id", "act"] {
                if stored[column] != set[column] {
                    let position = &set["position"];
                    self.check.differs(|| format!("{name}: {column} is not what position {position} has set"));
                }
            }
        }
        let gone: Vec<Uuid> = self.set.values().map(|set| set.id).collect();
        let fired = sqlx::query_scalar!("SELECT id FROM daybook.follow_ups WHERE id = ANY($1)", &gone);
        let fired: HashSet<Uuid> = fired.fetch_all(snapshot).await?.into_iter().collect();
        for ((kind, target, key), Set { id, columns: set, .. }) in self.set {
            self.check.checked += 1;
            if !fired.contains(&id) {
                let position = &set["position"];
                self.check.differs(|| {
                    format!("{kind} of {target} {key} was set by position {position}, but is neither there nor fired")
                });
            }
        }
        Ok(self.check)
    }
}
