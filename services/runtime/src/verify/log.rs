//! The log's rows as they stand, and what the log promises of them: no gap, no change of order, ids that follow from
//! the command's.

use super::Check;
use super::chain::Chain;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::collections::HashMap;
use uuid::Uuid;

/// How many events are read at once: with the largest payloads, some 64 MiB.
const PAGE: i64 = 500;

/// An event, every column of it.
pub struct Row {
    pub position: i64,
    pub version: i64,
    pub recorded_at: DateTime<Utc>,
    pub occurred_at: DateTime<Utc>,
    pub category: i16,
    /// None, if `categories` does not have it.
    pub category_name: Option<String>,
    /// The domain of the category; `None` as above.
    pub domain: Option<String>,
    pub schema_version: i16,
    pub origin: i16,
    pub stream_id: Uuid,
    pub event_id: Uuid,
    pub correlation_id: Uuid,
    pub causation_id: Option<Uuid>,
    pub command_id: Uuid,
    pub fingerprint: Vec<u8>,
    pub event_type: String,
    pub actor: String,
    pub traceparent: Option<String>,
    pub payload: String,
    pub link: Option<Vec<u8>>,
}

macro_rules! rows {
    ($condition:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            r#"SELECT position, version, recorded_at, occurred_at, category,
                      (SELECT name FROM daybook.categories WHERE id = category) AS category_name,
                      (SELECT domain FROM daybook.categories WHERE id = category) AS domain,
                      schema_version, origin, stream_id, event_id, correlation_id, causation_id, command_id,
                      fingerprint, event_type, actor, traceparent, payload::text AS "payload!", link
               FROM daybook.events "# + $condition,
            $($argument),*
        )
    };
}

/// The next events after the position `after`; none at the end of the log.
pub async fn page(snapshot: &mut PgConnection, after: i64) -> Result<Vec<Row>, sqlx::Error> {
    rows!("WHERE position > $1 ORDER BY position LIMIT $2", after, PAGE).fetch_all(snapshot).await
}

/// The events at these positions, in any order.
pub async fn at(pool: &PgPool, positions: &[i64]) -> Result<Vec<Row>, sqlx::Error> {
    rows!("WHERE position = ANY($1)", positions).fetch_all(pool).await
}

/// The events of these streams, stream by stream, in order.
pub async fn of_streams(pool: &PgPool, category: i16, streams: &[Uuid]) -> Result<Vec<Row>, sqlx::Error> {
    rows!("WHERE category = $1 AND stream_id = ANY($2) ORDER BY stream_id, version", category, streams)
        .fetch_all(pool)
        .await
}

impl Row {
    /// `live` or `import`; none for a code that means neither.
    pub fn origin_name(&self) -> Option<&'static str> {
        match self.origin {
            0 => Some("live"),
            1 => Some("import"),
            _ => None,
        }
    }

    /// `order-0199…`
    pub fn stream_name(&self) -> String {
        let category = self.category_name.clone().unwrap_or_else(|| format!("category {}", self.category));
        format!("{category}-{}", self.stream_id)
    }
}

/// The log's promises, held against its rows in order of position.
pub struct Promises {
    positions: Check,
    versions: Check,
    times: Check,
    commands: Check,
    payloads: Check,
    chain: Chain,
    events: i64,
    last: Option<Last>,
    /// How far each stream has come.
    stream_versions: HashMap<(i16, Uuid), i64>,
    /// How many events each command has so far.
    command_events: HashMap<Uuid, u32>,
}

/// What the next event is compared with.
struct Last {
    position: i64,
    recorded_at: DateTime<Utc>,
    command_id: Uuid,
    fingerprint: Vec<u8>,
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            positions: Check::new("positions"),
            versions: Check::new("versions"),
            times: Check::new("recorded_at"),
            commands: Check::new("event ids"),
            payloads: Check::new("payloads"),
            chain: Chain::default(),
            events: 0,
            last: None,
            stream_versions: HashMap::new(),
            command_events: HashMap::new(),
        }
    }
}

impl Promises {
    /// Takes the next event.
    pub fn take(&mut self, row: &Row, payload: &Value) {
        let position = row.position;
        self.events += 1;
        for check in self.checks() {
            check.checked += 1;
        }
        self.chain.take(row);
        let before = self.last.as_ref().map_or(0, |last| last.position);
        if position != before + 1 {
            self.positions.differs(|| format!("position {position} comes after {before}"));
        }
        self.version(row);
        if let Some(last) = self.last.as_ref().filter(|last| row.recorded_at < last.recorded_at) {
            let (at, was) = (row.recorded_at, last.recorded_at);
            self.times.differs(|| format!("position {position} was recorded at {at}, the one before it at {was}"));
        }
        self.command(row);
        if !payload.is_object() {
            self.payloads.differs(|| format!("the payload at position {position} is no JSON object"));
        }
        if row.origin_name().is_none() {
            self.payloads.differs(|| format!("the origin at position {position} is {}, not 0 or 1", row.origin));
        }
        let Row { recorded_at, command_id, .. } = *row;
        self.last = Some(Last { position, recorded_at, command_id, fingerprint: row.fingerprint.clone() });
    }

    fn version(&mut self, row: &Row) {
        let Row { position, version, .. } = *row;
        if row.category_name.is_none() {
            self.versions.differs(|| format!("position {position} is of category {}, which is none", row.category));
        }
        let before = self.stream_versions.insert((row.category, row.stream_id), version).unwrap_or(0);
        if version != before + 1 {
            let stream = row.stream_name();
            self.versions.differs(|| format!("{stream} has version {version} after {before}, at position {position}"));
        }
    }

    /// Ids that are as derived, of commands that are told apart, are unique: that needs no list of them.
    fn command(&mut self, row: &Row) {
        let Row { position, event_id, command_id, .. } = *row;
        let events = self.command_events.entry(command_id).or_default();
        let index = *events;
        *events += 1;
        let derived = store::event_id(command_id, index as usize);
        if event_id != derived {
            self.commands.differs(|| {
                format!("position {position} has the event id {event_id}, not {derived}: event {index} of {command_id}")
            });
        }
        if row.fingerprint.len() != 16 {
            let bytes = row.fingerprint.len();
            self.commands.differs(|| format!("the fingerprint at position {position} has {bytes} bytes, not 16"));
        }
        let same_command = self.last.as_ref().filter(|last| last.command_id == command_id);
        if same_command.is_none() && index > 0 {
            self.commands.differs(|| {
                format!("position {position} is of command {command_id}, whose others stand apart from it")
            });
        }
        if same_command.is_some_and(|last| last.fingerprint != row.fingerprint) {
            self.commands
                .differs(|| format!("position {position} has another fingerprint than its command {command_id}"));
        }
    }

    pub fn events(&self) -> i64 {
        self.events
    }

    fn checks(&mut self) -> [&mut Check; 5] {
        [&mut self.positions, &mut self.versions, &mut self.times, &mut self.commands, &mut self.payloads]
    }

    pub fn finish(self) -> Vec<Check> {
        vec![self.positions, self.versions, self.times, self.commands, self.payloads, self.chain.finish()]
    }
}
