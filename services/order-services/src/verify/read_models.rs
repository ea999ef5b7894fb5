//! A read model's rows against the naive fold of the log: every column of every row, none missing and none too many.

use super::{Check, Live};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use order_views::Projection;
use runtime::verify::log::Row;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use std::collections::HashMap;
use store::Position;

/// A read model, told a second time: from the payloads alone, without the types that the projector has.
pub(super) trait ReadModel: Serialize + Sized {
    const TABLE: &'static str;
    const CATEGORIES: &'static [&'static str];
    /// The types of these categories that it knows in more schema versions than the first, up to this one.
    const VERSIONS: &'static [(&'static str, i16)] = &[];

    /// Takes an event of these categories into the rows, by key; `None` if it has not the shape of its type.
    fn fold(rows: &mut HashMap<String, Self>, event: &Row, payload: &Value) -> Option<()>;

    /// The rows of a generation, and those whose generation has no checkpoint.
    fn stored(snapshot: &mut PgConnection, generation: Option<i32>) -> BoxStream<'_, Result<StoredRow, sqlx::Error>>;
}

/// A row, whatever columns its table has.
pub(super) struct StoredRow {
    pub(super) generation: i32,
    pub(super) key: String,
    pub(super) columns: Value,
}

/// The rows that a read model must have.
pub(super) struct Fold<M> {
    pub(super) live: Option<Live>,
    pub(super) rows: HashMap<String, M>,
    check: Check,
}

impl<M: ReadModel> Fold<M> {
    /// Rows that the code of another build has folded are its to judge: while two builds run side by side, both are right.
    pub(super) fn new(live: Option<Live>) -> Self {
        let ours = Projection::from_name(M::TABLE).map(Projection::version);
        let other = live.as_ref().map(|live| live.version).filter(|version| ours.is_some_and(|ours| ours != *version));
        let live = live.filter(|_| other.is_none());
        Self { live, rows: HashMap::new(), check: Check { of_other_version: other, ..Check::new(M::TABLE) } }
    }

    /// Takes the next event, if the read model has.
    pub(super) fn take(&mut self, event: &Row, payload: &Value) {
        let ours = event.category_name.as_deref().is_some_and(|name| M::CATEGORIES.contains(&name));
        if !ours || !self.live.as_ref().is_some_and(|live| live.has(event.position)) {
            return;
        }
        let Row { position, schema_version, event_type, .. } = event;
        // Whoever changes an event's shape tells it here as well: else this would be no second opinion.
        let known = M::VERSIONS.iter().find(|(name, _)| *name == event_type).map_or(1, |(_, version)| *version);
        if !(1..=known).contains(schema_version) {
            self.check.differs(|| {
                format!(
                    "position {position} is a {event_type} of schema version {schema_version}, unknown to this fold"
                )
            });
        } else if M::fold(&mut self.rows, event, payload).is_none() {
            self.check.differs(|| format!("the {event_type} at position {position} cannot be folded"));
        }
    }

    /// Compares those that no later event changes with the stored ones of the same keys, and forgets them.
    pub(super) fn compare_final(&mut self, stored: Vec<StoredRow>) {
        for row in stored {
            self.check.checked += 1;
            if let Some(folded) = self.rows.remove(&row.key) {
                compare(&mut self.check, &row.key, columns(row.columns), folded_columns(&folded));
            }
        }
        self.missing();
    }

    fn missing(&mut self) {
        let mut missing: Vec<String> = std::mem::take(&mut self.rows).into_keys().collect();
        missing.sort_unstable();
        for key in missing {
            self.check.checked += 1;
            self.check.differs(|| format!("{key} has events, but no row"));
        }
    }

    /// Compares them with the rows that there are.
    pub(super) async fn compare(self, snapshot: &mut PgConnection, head: Position) -> Result<Check, sqlx::Error> {
        let stored = M::stored(snapshot, self.live.as_ref().map(|live| live.generation));
        self.compare_with(stored, head).await
    }

    /// Compares them with these rows.
    pub(super) async fn compare_with(
        mut self,
        mut stored: BoxStream<'_, Result<StoredRow, sqlx::Error>>,
        head: Position,
    ) -> Result<Check, sqlx::Error> {
        match &self.live {
            _ if self.check.of_other_version.is_some() => return Ok(self.check),
            Some(live) => live.report(head, &mut self.check),
            None => self.check.differs(|| "it has no live generation".to_owned()),
        }
        let generation = self.live.as_ref().map(|live| live.generation);
        while let Some(row) = stored.try_next().await? {
            self.check.checked += 1;
            let key = &row.key;
            if Some(row.generation) != generation {
                self.check.differs(|| format!("{key} is of generation {}, which has no checkpoint", row.generation));
            } else if let Some(folded) = self.rows.remove(key) {
                compare(&mut self.check, key, columns(row.columns), folded_columns(&folded));
            } else {
                self.check.differs(|| format!("{key} has a row, but no events"));
            }
        }
        self.missing();
        Ok(self.check)
    }
}

fn compare(check: &mut Check, key: &str, mut stored: Map<String, Value>, folded: Map<String, Value>) {
    for (column, folded) in folded {
        match stored.remove(&column) {
            Some(stored) if stored == folded => {}
            Some(stored) => check.differs(|| format!("{key}: {column} is {stored}, the log says {folded}")),
            None => check.differs(|| format!("{key}: there is no column {column}, the log says {folded}")),
        }
    }
    for (column, stored) in stored {
        check.differs(|| format!("{key}: {column} is {stored}, of which this fold knows nothing"));
    }
}

fn folded_columns<M: Serialize>(row: &M) -> Map<String, Value> {
    columns(serde_json::to_value(row).unwrap_or(Value::Null))
}

/// The columns by name; times in one form, for Postgres writes them in another than we do.
fn columns(row: Value) -> Map<String, Value> {
    let Value::Object(mut columns) = row else { return Map::new() };
    for (name, value) in &mut columns {
        let is_time = name.ends_with("_at") || name == "since";
        let time = value.as_str().filter(|_| is_time).and_then(|s| DateTime::parse_from_rfc3339(s).ok());
        if let Some(time) = time {
            *value = time.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::Micros, true).into();
        }
    }
    columns
}

pub(super) fn text(payload: &Value, field: &str) -> Option<String> {
    payload.get(field)?.as_str().map(str::to_owned)
}

pub(super) fn list<'a>(payload: &'a Value, field: &str) -> Option<&'a Vec<Value>> {
    payload.get(field)?.as_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_column_is_compared_and_times_by_what_they_mean() {
        let stored = json!({ "total": 5, "placed_at": "2026-01-02T03:04:05.1+00:00", "extra": null });
        let folded = json!({ "total": 6, "placed_at": "2026-01-02T03:04:05.100Z", "status": "placed" });
        let mut check = Check::new("order_summary");
        compare(&mut check, "A", columns(stored), columns(folded));
        let expected = [
            r#"A: there is no column status, the log says "placed""#,
            "A: total is 5, the log says 6",
            "A: extra is null, of which this fold knows nothing",
        ];
        assert_eq!(check.differences, expected);
    }
}
