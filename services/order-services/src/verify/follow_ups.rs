//! The follow-ups' rows against what must follow: none missing, none without a cause, which may be a timer's. What must
//! follow is the domain's to say, so this asks its reactions; that every event was reacted to, once, is what is checked.

use super::{Check, Live};
use engine::follow_up::{follow_up_id, storable};
use engine::timer::timer_id;
use engine::{Domain, FollowUp, TimerChange, codec};
use futures_util::TryStreamExt;
use order_views::{CATEGORIES, Orders, Recorded};
use orders::id::ShipmentId;
use orders::order::{self, StockLine};
use orders::reaction::{Act, react_to_rejection};
use orders::stock::{self, ShortLine};
use orders::{Command, Rejection};
use runtime::verify::log::Row;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use store::{Fingerprint, Metadata, Origin, Position, RecordedEvent, StreamId};
use uuid::Uuid;

pub(super) struct FollowUps {
    live: Option<Live>,
    /// How far the timers have come.
    timers: Option<Live>,
    check: Check,
    /// The ids of those that follow from an event, at once or after a time.
    caused: HashSet<Uuid>,
}

/// What of a follow-up says where it comes from, and what it is to do.
#[derive(PartialEq)]
struct Expected {
    domain: String,
    event_id: Uuid,
    position: i64,
    correlation_id: Uuid,
    reaction: String,
    target: Uuid,
    act: Value,
}

impl FollowUps {
    pub(super) fn new(live: Option<Live>, timers: Option<Live>) -> Self {
        Self { live, timers, check: Check::new("follow_ups"), caused: HashSet::new() }
    }

    /// Takes the next events that are no history, if they were reacted to, and looks for what follows from them.
    pub(super) async fn take(
        &mut self,
        snapshot: &mut PgConnection,
        events: Vec<Result<Recorded, Undecodable>>,
    ) -> Result<(), sqlx::Error> {
        let has = |live: &Option<Live>, position| live.as_ref().is_some_and(|live| live.has(position));
        let (mut expected, mut fired) = (Vec::new(), Vec::new());
        for event in events {
            let event = match event {
                Ok(event) => event,
                Err(Undecodable { position, why }) => {
                    if has(&self.live, position) {
                        self.check.differs(|| why);
                    }
                    continue;
                }
            };
            if has(&self.live, event.record.position) {
                match reactions(&event) {
                    Ok(reactions) => expected.extend(reactions),
                    Err(why) => self.check.differs(|| why),
                }
            }
            if has(&self.timers, event.record.position) {
                fired.extend(timed_acts(&event));
            }
        }
        let ids: Vec<Uuid> = expected.iter().chain(&fired).map(|(id, _)| *id).collect();
        let stored = sqlx::query!(
            "SELECT id, domain, event_id, position, correlation_id, reaction, target, act
             FROM daybook.follow_ups WHERE id = ANY($1)",
            &ids
        );
        let mut stored: HashMap<Uuid, Expected> = stored
            .fetch_all(snapshot)
            .await?
            .into_iter()
            .map(|r| {
                let (event_id, position, correlation_id) = (r.event_id, r.position, r.correlation_id);
                let (domain, reaction, target, act) = (r.domain, r.reaction, r.target, r.act);
                (r.id, Expected { domain, event_id, position, correlation_id, reaction, target, act })
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
        // Whether they had to fire, the check of the timers knows.
        for (id, expected) in fired {
            if let Some(stored) = stored.remove(&id) {
                self.check.checked += 1;
                self.caused.insert(id);
                self.compare(id, &stored, &expected);
            }
        }
        Ok(())
    }

    fn compare(&mut self, id: Uuid, stored: &Expected, expected: &Expected) {
        let columns = [
            ("domain", stored.domain.clone(), expected.domain.clone()),
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

    /// Looks for rows without a cause, for what nobody has given up, and for what follows from refusals.
    pub(super) async fn finish(mut self, snapshot: &mut PgConnection, head: Position) -> Result<Check, sqlx::Error> {
        let Some(live) = &self.live else {
            self.check.differs(|| "it has no live generation".to_owned());
            return Ok(self.check);
        };
        live.report(head, &mut self.check);
        let mut after_refusals = after_refusals(snapshot).await?;
        let mut rows = sqlx::query!(
            r#"SELECT id, domain, event_id, position, correlation_id, reaction, target, act, state,
                      state = 'discarded' AND NOT EXISTS (
                          SELECT FROM daybook.resolutions r WHERE r.dead_letter = f.id AND r.outcome = 'discarded'
                      ) AS "lost!"
               FROM daybook.follow_ups f"#
        )
        .fetch(snapshot);
        while let Some(row) = rows.try_next().await? {
            let id = row.id;
            if row.domain != Orders::NAME && !self.caused.contains(&id) && !after_refusals.contains_key(&id) {
                // Another domain's.
                continue;
            }
            if row.lost {
                self.check.differs(|| format!("{id} ({}) is discarded, but nobody has said so", row.reaction));
            }
            if self.caused.contains(&id) {
                continue;
            }
            self.check.checked += 1;
            if let Some(refusal) = after_refusals.remove(&id) {
                let (event_id, position, correlation_id) = (row.event_id, row.position, row.correlation_id);
                let (domain, reaction, target, act) = (row.domain, row.reaction, row.target, row.act);
                let stored = Expected { domain, event_id, position, correlation_id, reaction, target, act };
                self.compare(id, &stored, &refusal.expected(&stored.act));
            } else {
                self.check.differs(|| {
                    let (reaction, state, position) = (&row.reaction, &row.state, row.position);
                    format!("{id} ({reaction}, {state}) names position {position}, from which it does not follow")
                });
            }
        }
        drop(rows);
        for Refusal { id, next, .. } in after_refusals.into_values() {
            self.check.checked += 1;
            let FollowUp { reaction, target, .. } = next;
            self.check
                .differs(|| format!("{reaction} of {target} follows from {id}, which was refused, but has no row"));
        }
        Ok(self.check)
    }
}

/// A refused follow-up from which another one follows.
struct Refusal {
    id: Uuid,
    event_id: Uuid,
    position: i64,
    correlation_id: Uuid,
    command: Command,
    reason: String,
    /// What follows; of a shortage, if every line was short.
    next: FollowUp<Act>,
}

impl Refusal {
    /// What must follow. The reason names the SKUs that were short; which of several lines of one SKU it was, only the
    /// follow-up itself says, so that `act` is taken at its word as far as it gives the same reason.
    fn expected(&self, act: &Value) -> Expected {
        let told = match serde_json::from_value(act.clone()) {
            Ok(Act::Command(Command::Order {
                command: order::Command::RecordShortage { short } | order::Command::RecordEditShortage { short, .. },
                ..
            })) => short,
            _ => vec![],
        };
        let told = after_shortage(&self.command, |line| told.contains(&line.line));
        let told = told.filter(|(reason, _)| storable(reason) == self.reason).map(|(_, next)| next);
        let FollowUp { reaction, target, effect } = told.unwrap_or_else(|| self.next.clone());
        Expected {
            domain: Orders::NAME.to_owned(),
            event_id: self.event_id,
            position: self.position,
            correlation_id: self.correlation_id,
            reaction: reaction.to_owned(),
            target,
            act: serde_json::to_value(effect).unwrap_or_default(),
        }
    }
}

/// What follows from the refusal of `command`, if it reserves stock and these lines were short; before it, the reason.
fn after_shortage(command: &Command, is_short: impl Fn(&StockLine) -> bool) -> Option<(String, FollowUp<Act>)> {
    let Command::Stock(stock::Command::Reserve { lines, .. }) = command else { return None };
    let short = |l: &StockLine| ShortLine { line: l.line, sku: l.sku.clone(), wanted: l.quantity, available: 0 };
    let mut short: Vec<ShortLine> = lines.iter().filter(|line| is_short(line)).map(short).collect();
    short.sort_unstable_by_key(|s| s.line);
    let rejection = Rejection::Stock(stock::Rejection::OutOfStock { short });
    Some((rejection.to_string(), order_views::follow_up(react_to_rejection(command, &rejection)?)))
}

/// The refusals from which something follows, by its id.
async fn after_refusals(snapshot: &mut PgConnection) -> Result<HashMap<Uuid, Refusal>, sqlx::Error> {
    let mut rows = sqlx::query!(
        r#"SELECT id, event_id, position, correlation_id, act, coalesce(reason, '') AS "reason!"
           FROM daybook.follow_ups WHERE state = 'refused'"#
    )
    .fetch(snapshot);
    let mut refusals = HashMap::new();
    while let Some(row) = rows.try_next().await? {
        let (id, event_id, position, correlation_id) = (row.id, row.event_id, row.position, row.correlation_id);
        let Ok(Act::Command(command)) = serde_json::from_value(row.act) else { continue };
        // For other reasons nothing follows.
        let next = if row.reason.starts_with("out of stock: ") {
            after_shortage(&command, |_| true).map(|(_, next)| next)
        } else if row.reason.contains(" is dispatched, others of the order are not: ") {
            // Which of its shipments they were makes no difference.
            let shipment_id = ShipmentId(Uuid::nil());
            let rejection = order::Rejection::AlreadyDispatched { shipment_id, waiting: vec![shipment_id] };
            react_to_rejection(&command, &Rejection::Order(rejection)).map(order_views::follow_up)
        } else {
            None
        };
        if let Some(next) = next {
            let next_id = follow_up_id(id, next.reaction, next.target);
            let refusal = Refusal { id, event_id, position, correlation_id, command, reason: row.reason, next };
            refusals.insert(next_id, refusal);
        }
    }
    Ok(refusals)
}

/// What follows from an event, with the ids; or why that cannot be said.
fn reactions(Recorded { record, event }: &Recorded) -> Result<Vec<(Uuid, Expected)>, String> {
    let (position, event_id) = (record.position, record.event_id);
    let correlation_id = Orders::correlation_id(record.metadata.correlation_id, event);
    let expected = |f: FollowUp<Act>| {
        let act =
            serde_json::to_value(f.effect).map_err(|e| format!("an act of position {position} is no JSON: {e}"))?;
        let (reaction, target) = (f.reaction.to_owned(), f.target);
        let id = follow_up_id(event_id, &reaction, target);
        Ok((
            id,
            Expected { domain: Orders::NAME.to_owned(), event_id, position, correlation_id, reaction, target, act },
        ))
    };
    Orders::react(event).into_iter().map(expected).collect()
}

/// What follows from an event if nothing else happens for a while, with the ids.
fn timed_acts(Recorded { record, event }: &Recorded) -> Vec<(Uuid, Expected)> {
    let (position, event_id) = (record.position, record.event_id);
    let correlation_id = Orders::correlation_id(record.metadata.correlation_id, event);
    let expected = |change| match change {
        TimerChange::Set { timer, effect, .. } => {
            let act = serde_json::to_value(effect).unwrap_or_default();
            let (id, reaction, target) = (timer_id(event_id, &timer), timer.kind.to_owned(), timer.target);
            Some((
                id,
                Expected { domain: Orders::NAME.to_owned(), event_id, position, correlation_id, reaction, target, act },
            ))
        }
        TimerChange::Clear(_) => None,
    };
    Orders::timers(event).into_iter().filter_map(expected).collect()
}

/// Why what follows from an event cannot be said.
pub(super) struct Undecodable {
    position: Position,
    why: String,
}

/// The event of the domain that a row is.
pub(super) fn decoded(row: Row) -> Result<Recorded, Undecodable> {
    let position = row.position;
    let decoded = recorded(row).and_then(|record| codec::decode::<Orders>(record).map_err(|e| e.to_string()));
    decoded.map_err(|why| Undecodable { position, why })
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
        event_type: row.event_type.into(),
        schema_version: row.schema_version,
        recorded_at: row.recorded_at,
        metadata: Metadata {
            correlation_id: row.correlation_id,
            causation_id: row.causation_id,
            command_id: row.command_id,
            fingerprint: Fingerprint(fingerprint),
            actor: row.actor.into(),
            origin: Origin::Live,
            occurred_at: row.occurred_at,
            traceparent: row.traceparent.map(Into::into),
        },
        payload: row.payload.into(),
        link: None,
    })
}
