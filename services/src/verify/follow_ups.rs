//! The follow-ups' rows against what must follow: none missing, none without a cause. What must follow is the domain's
//! to say, so this asks its reactions; that every event was reacted to, once, is what is checked.

use super::log::Row;
use super::{Check, Live};
use crate::codec::{self, CATEGORIES};
use domain::reaction::react;
use futures_util::TryStreamExt;
use projections::follow_up::follow_up_id;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use store::{Fingerprint, Metadata, Origin, Position, RecordedEvent, StreamId};
use uuid::Uuid;

pub(super) struct FollowUps {
    live: Option<Live>,
    check: Check,
    /// The ids of those that follow from an event.
    caused: HashSet<Uuid>,
}

/// What of a follow-up says where it comes from, and what it is to do.
#[derive(PartialEq)]
struct Expected {
    event_id: Uuid,
    position: i64,
    correlation_id: Uuid,
    reaction: String,
    target: Uuid,
    act: Value,
}

/// Where a refused follow-up comes from: so does what follows from it.
struct Refused {
    id: Uuid,
    position: i64,
    correlation_id: Uuid,
}

impl FollowUps {
    pub(super) fn new(live: Option<Live>) -> Self {
        Self { live, check: Check::new("follow_ups"), caused: HashSet::new() }
    }

    /// Takes the next events, if they were reacted to, and looks for what follows from them.
    pub(super) async fn take(&mut self, snapshot: &mut PgConnection, events: Vec<Row>) -> Result<(), sqlx::Error> {
        let Some(Live { position: checkpoint, .. }) = self.live else { return Ok(()) };
        let mut expected = Vec::new();
        for event in events.into_iter().filter(|e| e.position <= checkpoint && e.origin_name() != Some("import")) {
            match reactions(event) {
                Ok(reactions) => expected.extend(reactions),
                Err(why) => self.check.differs(|| why),
            }
        }
        let ids: Vec<Uuid> = expected.iter().map(|(id, _)| *id).collect();
        let stored = sqlx::query!(
            "SELECT id, event_id, position, correlation_id, reaction, target, act
             FROM daybook.follow_ups WHERE id = ANY($1)",
            &ids
        );
        let mut stored: HashMap<Uuid, Expected> = stored
            .fetch_all(snapshot)
            .await?
            .into_iter()
            .map(|r| {
                let (event_id, position, correlation_id) = (r.event_id, r.position, r.correlation_id);
                (
                    r.id,
                    Expected { event_id, position, correlation_id, reaction: r.reaction, target: r.target, act: r.act },
                )
            })
            .collect();
        for (id, expected) in expected {
            self.check.checked += 1;
            if !self.caused.insert(id) {
                let Expected { position, reaction, target, .. } = expected;
                self.check.differs(|| format!("position {position} asks for {reaction} of {target} twice"));
            } else if let Some(stored) = stored.remove(&id) {
                self.compare(id, &stored, &expected);
            } else {
                let Expected { position, reaction, target, .. } = expected;
                self.check
                    .differs(|| format!("{reaction} of {target} follows from position {position}, but has no row"));
            }
        }
        Ok(())
    }

    fn compare(&mut self, id: Uuid, stored: &Expected, expected: &Expected) {
        let columns = [
            ("event_id", stored.event_id.to_string(), expected.event_id.to_string()),
            ("position", stored.position.to_string(), expected.position.to_string()),
            ("correlation_id", stored.correlation_id.to_string(), expected.correlation_id.to_string()),
            ("reaction", stored.reaction.clone(), expected.reaction.clone()),
            ("target", stored.target.to_string(), expected.target.to_string()),
        ];
        for (column, stored, expected) in columns.into_iter().filter(|(_, stored, expected)| stored != expected) {
            self.check.differs(|| format!("{id}: {column} is {stored}, the log says {expected}"));
        }
        // Not shown: it may hold the provider's token for a payment method.
        if stored.act != expected.act {
            self.check.differs(|| format!("{id}: act is not what follows from position {}", expected.position));
        }
    }

    /// Looks for rows without a cause.
    pub(super) async fn finish(mut self, snapshot: &mut PgConnection, head: Position) -> Result<Check, sqlx::Error> {
        let Some(live) = self.live else {
            self.check.differs(|| "it has no live generation".to_owned());
            return Ok(self.check);
        };
        live.beyond(head, &mut self.check);
        let refused = refused(snapshot).await?;
        let mut rows = sqlx::query!(
            "SELECT id, event_id, position, correlation_id, reaction, target, state FROM daybook.follow_ups"
        )
        .fetch(snapshot);
        while let Some(row) = rows.try_next().await? {
            if self.caused.contains(&row.id) {
                continue;
            }
            self.check.checked += 1;
            let follows = |r: &Refused| {
                follow_up_id(r.id, &row.reaction, row.target) == row.id
                    && (r.position, r.correlation_id) == (row.position, row.correlation_id)
            };
            if !refused.get(&row.event_id).is_some_and(|refused| refused.iter().any(follows)) {
                self.check.differs(|| {
                    let (id, reaction, state, position) = (row.id, &row.reaction, &row.state, row.position);
                    format!("{id} ({reaction}, {state}) names position {position}, from which it does not follow")
                });
            }
        }
        drop(rows);
        Ok(self.check)
    }
}

/// The refused follow-ups, by the event that they come from.
async fn refused(snapshot: &mut PgConnection) -> Result<HashMap<Uuid, Vec<Refused>>, sqlx::Error> {
    let mut rows =
        sqlx::query!("SELECT id, event_id, position, correlation_id FROM daybook.follow_ups WHERE state = 'refused'")
            .fetch(snapshot);
    let mut refused: HashMap<Uuid, Vec<Refused>> = HashMap::new();
    while let Some(row) = rows.try_next().await? {
        let (id, position, correlation_id) = (row.id, row.position, row.correlation_id);
        refused.entry(row.event_id).or_default().push(Refused { id, position, correlation_id });
    }
    Ok(refused)
}

/// What follows from an event, with the ids; or why that cannot be said.
fn reactions(event: Row) -> Result<Vec<(Uuid, Expected)>, String> {
    let Row { position, event_id, correlation_id, .. } = event;
    let recorded = codec::decode(recorded(event)?).map_err(|e| e.to_string())?;
    let expected = |f: domain::reaction::FollowUp| {
        let act = serde_json::to_value(f.act).map_err(|e| format!("an act of position {position} is no JSON: {e}"))?;
        let (reaction, target) = (f.reaction.to_owned(), f.target);
        let id = follow_up_id(event_id, &reaction, target);
        Ok((id, Expected { event_id, position, correlation_id, reaction, target, act }))
    };
    react(&recorded.event).into_iter().map(expected).collect()
}

fn recorded(row: Row) -> Result<RecordedEvent, String> {
    let position = row.position;
    let category = CATEGORIES.iter().find(|c| c.id == row.category);
    let category = *category.ok_or_else(|| format!("position {position} is of a category unknown to this build"))?;
    let fingerprint = row.fingerprint.try_into();
    let fingerprint = fingerprint.map_err(|_| format!("the fingerprint at position {position} is malformed"))?;
    Ok(RecordedEvent {
        position,
        stream: StreamId { category, id: row.stream_id },
        version: row.version,
        event_id: row.event_id,
        event_type: row.event_type,
        schema_version: row.schema_version,
        recorded_at: row.recorded_at,
        metadata: Metadata {
            correlation_id: row.correlation_id,
            causation_id: row.causation_id,
            command_id: row.command_id,
            fingerprint: Fingerprint(fingerprint),
            actor: row.actor,
            origin: Origin::Live,
            occurred_at: row.occurred_at,
            traceparent: row.traceparent,
        },
        payload: row.payload,
    })
}
