//! An aggregate as it was: folded from its stream up to a version, or up to a moment; and what is different between two
//! of these.

use chrono::{DateTime, Utc};
use engine::codec::{self, DecodeError};
use order_views::redact::hide_tokens;
use order_views::{Orders, Stored, stream as stream_of};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use store::{Log, ReadError, StreamId, Version};
use uuid::Uuid;

/// How many events of a stream are read at a time.
const PAGE: i64 = 1000;

/// Where to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// After the event of this version, from 1.
    Version(Version),
    /// After the last event that was recorded at this time or before, by Postgres' clock.
    Time(DateTime<Utc>),
}

/// A state, and the last event that it was folded from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(bound(serialize = "A: Serialize"))]
pub struct StateAt<A> {
    /// `order-0199…`
    pub stream: String,
    pub version: Version,
    pub recorded_at: DateTime<Utc>,
    #[serde(serialize_with = "without_tokens")]
    pub state: A,
}

/// A state is shown to people, and a payment token to nobody.
fn without_tokens<A: Serialize, S: Serializer>(state: &A, serializer: S) -> Result<S::Ok, S::Error> {
    let mut state = serde_json::to_value(state).map_err(S::Error::custom)?;
    hide_tokens(&mut state);
    state.serialize(serializer)
}

#[derive(Debug, thiserror::Error)]
pub enum StateAtError {
    #[error("there is no {0}")]
    NoStream(StreamId),
    #[error("{stream} has no version {version}: it ends with version {actual}")]
    NoVersion { stream: StreamId, version: Version, actual: Version },
    #[error("{stream} had no events at {time}: its first was recorded at {began}")]
    NotBegun { stream: StreamId, time: DateTime<Utc>, began: DateTime<Utc> },
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The aggregate `id` as it was.
///
/// # Errors
/// When it was not there yet, or has not come to that version, or its events cannot be read.
pub async fn state_at<A: Stored>(log: &Log, id: Uuid, at: At) -> Result<StateAt<A>, StateAtError> {
    let stream = stream_of::<A>(id);
    let mut found =
        StateAt { stream: stream.to_string(), version: 0, recorded_at: DateTime::default(), state: A::default() };
    loop {
        let limit = match at {
            At::Version(version) => PAGE.min(version - found.version),
            At::Time(_) => PAGE,
        };
        let page = log.read_stream(stream, found.version, limit).await?;
        let more = page.len() == PAGE as usize;
        for record in page {
            if let At::Time(time) = at
                && record.recorded_at > time
            {
                return match found.version {
                    0 => Err(StateAtError::NotBegun { stream, time, began: record.recorded_at }),
                    _ => Ok(found),
                };
            }
            let recorded = codec::decode::<Orders>(record)?;
            found.version = recorded.record.version;
            found.recorded_at = recorded.record.recorded_at;
            if let Some(event) = A::event_of(&recorded.event) {
                found.state.evolve(event);
            }
        }
        if !more {
            break;
        }
    }
    match at {
        _ if found.version == 0 => Err(StateAtError::NoStream(stream)),
        At::Version(version) if version != found.version => {
            Err(StateAtError::NoVersion { stream, version, actual: found.version })
        }
        At::Version(_) | At::Time(_) => Ok(found),
    }
}

/// A field that is not the same in two states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its path, such as `added[0].sku`.
    pub field: String,
    /// Null if it was not there.
    pub before: Value,
    pub after: Value,
}

/// The fields that are not the same, payment tokens hidden.
///
/// # Errors
/// When a state cannot be written as JSON.
pub fn differences<A: Serialize>(
    before: &StateAt<A>,
    after: &StateAt<A>,
) -> Result<Vec<Difference>, serde_json::Error> {
    let (mut before, mut after) = (serde_json::to_value(&before.state)?, serde_json::to_value(&after.state)?);
    hide_tokens(&mut before);
    hide_tokens(&mut after);
    let mut differences = Vec::new();
    differ(String::new(), &before, &after, &mut differences);
    Ok(differences)
}

/// What has come or gone is told field by field as well.
fn differ(path: String, before: &Value, after: &Value, differences: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    if let (Some(before), Some(after)) = (fields(before), fields(after))
        && !(before.is_empty() && after.is_empty())
    {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let of = |fields: &Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
            differ(path, &of(&before), &of(&after), differences);
        }
    } else if let (Some(before), Some(after)) = (items(before), items(after))
        && before.iter().chain(&after).any(Value::is_object)
    {
        for i in 0..before.len().max(after.len()) {
            let of = |items: &[Value]| items.get(i).cloned().unwrap_or_default();
            differ(format!("{path}[{i}]"), &of(&before), &of(&after), differences);
        }
    } else {
        differences.push(Difference { field: path, before: before.clone(), after: after.clone() });
    }
}

/// Of an object, or of one that is not there.
fn fields(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(fields) => Some(fields.clone()),
        Value::Null => Some(Map::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}

/// Of a list, or of one that is not there.
fn items(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items.clone()),
        Value::Null => Some(vec![]),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_different_is_told_by_its_path_down_to_the_field() {
        let before = json!({
            "same": [{ "a": 1 }], "word": { "pending": 5 }, "list": [1, 2], "gone": [{ "a": 1, "b": [] }], "none": {},
        });
        let after = json!({
            "same": [{ "a": 1 }], "word": "granted", "list": [], "gone": [], "none": null,
            "new": { "x": [{ "sku": "mug" }], "y": {} },
        });
        let mut differences = Vec::new();
        differ(String::new(), &before, &after, &mut differences);
        let told: Vec<_> = differences.into_iter().map(|d| (d.field, d.before, d.after)).collect();
        let expected = [
            ("gone[0].a", json!(1), json!(null)),
            ("gone[0].b", json!([]), json!(null)),
            ("list", json!([1, 2]), json!([])),
            ("new.x[0].sku", json!(null), json!("mug")),
            ("new.y", json!(null), json!({})),
            ("none", json!({}), json!(null)),
            ("word", json!({ "pending": 5 }), json!("granted")),
        ];
        assert_eq!(told, expected.map(|(field, before, after)| (field.to_owned(), before, after)));
    }
}
