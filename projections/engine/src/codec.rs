//! From stored events to a domain's, whatever schema version they were stored in.

use crate::{Delivered, Domain, Recorded};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use store::{Category, NewEvent, Position, RecordedEvent, StreamId};

/// The stream that a name like `order-0199…` names, of one of these categories.
pub fn parse_stream(categories: &[Category], name: &str) -> Option<StreamId> {
    let (category, id) = name.split_once('-')?;
    Some(StreamId { category: parse_category(categories, category)?, id: id.parse().ok()? })
}

/// The category of this name.
pub fn parse_category(categories: &[Category], name: &str) -> Option<Category> {
    categories.iter().find(|category| category.name == name).copied()
}

/// Takes a payload from one schema version to the next.
#[derive(Debug, Clone, Copy)]
pub struct Upcaster {
    pub category: &'static str,
    pub event_type: &'static str,
    /// The version that it takes; it gives the one after.
    pub from: i16,
    pub upcast: fn(Value) -> Value,
}

/// Why a stored event cannot be read by this build.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(
        "the event at position {position} is a {event_type} of schema version {version}, which this build does not \
         know: run a newer one"
    )]
    UnknownType { position: Position, event_type: String, version: i16 },
    /// What the payload holds is not told: it may be a secret.
    #[error(
        "the {event_type} at position {position} has not the shape of its type (at column {column} of its payload)"
    )]
    Malformed { position: Position, event_type: String, column: usize },
}

/// What is stored for an event of this type and schema version.
pub fn encode(event_type: &'static str, schema_version: i16, event: &impl Serialize) -> NewEvent {
    let payload = serde_json::to_string(event);
    NewEvent {
        event_type: event_type.into(),
        schema_version,
        payload: payload.unwrap_or_else(|e| unreachable!("events are plain data: {e}")).into(),
    }
}

/// The event of the domain that is stored in `record`.
///
/// # Errors
/// When this build does not know its type or version, or it has not the shape of its type.
pub fn decode<D: Domain>(record: RecordedEvent) -> Result<Recorded<D>, DecodeError> {
    let event = decode_stored::<D>(Stored::from(&record))?;
    Ok(Recorded { record, event })
}

/// The event as projections get it: another domain's is not decoded, and one that has not the shape of its type is told
/// apart, for all others go on without it.
///
/// # Errors
/// When this build does not know its type or version: a newer one does.
pub fn deliver<D: Domain>(record: RecordedEvent) -> Result<Delivered<D>, DecodeError> {
    // A category that the domain has gained since this build was made is not foreign: its events are of an unknown type.
    if record.stream.category.domain != D::NAME {
        return Ok(Delivered::Foreign(Arc::new(record)));
    }
    match decode_stored::<D>(Stored::from(&record)) {
        Ok(event) => Ok(Delivered::Event(Arc::new(Recorded { record, event }))),
        Err(e @ DecodeError::Malformed { .. }) => {
            Ok(Delivered::Unreadable { record: Arc::new(record), cause: e.to_string() })
        }
        Err(e @ DecodeError::UnknownType { .. }) => Err(e),
    }
}

/// What decoding takes of a stored event.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    pub position: Position,
    pub stream: StreamId,
    pub event_type: &'a str,
    pub schema_version: i16,
    pub payload: &'a str,
}

impl<'a> From<&'a RecordedEvent> for Stored<'a> {
    fn from(record: &'a RecordedEvent) -> Self {
        Self {
            position: record.position,
            stream: record.stream,
            event_type: &record.event_type,
            schema_version: record.schema_version,
            payload: &record.payload,
        }
    }
}

/// The event of the domain.
///
/// # Errors
/// When this build does not know its type or version, or it has not the shape of its type.
pub fn decode_stored<D: Domain>(stored: Stored<'_>) -> Result<D::Event, DecodeError> {
    decode_with(D::UPCASTERS, D::current_version, D::from_payload, stored)
}

/// Whether this build can read a category's events of that type in that schema version: it is the present one, or is
/// taken to it step by step.
pub fn reads<D: Domain>(category: &str, event_type: &str, version: i16) -> bool {
    reads_with(D::UPCASTERS, D::current_version, category, event_type, version)
}

fn reads_with(
    upcasters: &[Upcaster],
    current_version: impl Fn(&str, &str) -> Option<i16>,
    category: &str,
    event_type: &str,
    version: i16,
) -> bool {
    current_version(category, event_type).is_some_and(|current| {
        version <= current && (version..current).all(|from| upcaster(upcasters, category, event_type, from).is_some())
    })
}

fn upcaster<'a>(upcasters: &'a [Upcaster], category: &str, event_type: &str, from: i16) -> Option<&'a Upcaster> {
    upcasters.iter().find(|u| (u.category, u.event_type, u.from) == (category, event_type, from))
}

fn decode_with<E>(
    upcasters: &[Upcaster],
    current_version: impl Fn(&str, &str) -> Option<i16>,
    from_payload: impl Fn(StreamId, &str, &str) -> Result<Option<E>, serde_json::Error>,
    stored: Stored<'_>,
) -> Result<E, DecodeError> {
    let (category, event_type) = (stored.stream.category.name, stored.event_type);
    let unknown = || DecodeError::UnknownType {
        position: stored.position,
        event_type: event_type.to_owned(),
        version: stored.schema_version,
    };
    let malformed = |error: serde_json::Error| DecodeError::Malformed {
        position: stored.position,
        event_type: event_type.to_owned(),
        column: error.column(),
    };
    let current = current_version(category, event_type).ok_or_else(unknown)?;
    let payload = match stored.schema_version {
        version if version == current => Cow::Borrowed(stored.payload),
        version => {
            let mut payload: Value = serde_json::from_str(stored.payload).map_err(malformed)?;
            for from in version..current {
                let upcaster = upcaster(upcasters, category, event_type, from).ok_or_else(unknown)?;
                payload = (upcaster.upcast)(payload);
            }
            if version > current {
                return Err(unknown());
            }
            Cow::Owned(payload.to_string())
        }
    };
    from_payload(stored.stream, event_type, &payload).map_err(malformed)?.ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const CATEGORIES: &[Category] =
        &[Category { id: 1, name: "loan", domain: "loans" }, Category { id: 2, name: "book", domain: "loans" }];

    /// Its payload is what the upcasters have made of it.
    fn decoded(upcasters: &[Upcaster], version: i16, payload: &str) -> Result<Value, DecodeError> {
        let stream = StreamId { category: CATEGORIES[0], id: Uuid::nil() };
        let stored = Stored { position: 7, stream, event_type: "Lent", schema_version: version, payload };
        decode_with(upcasters, |_, _| Some(3), |_, _, payload| serde_json::from_str(payload).map(Some), stored)
    }

    #[test]
    fn an_older_version_is_taken_to_the_present_one_step_by_step() {
        let upcaster = |from, upcast| Upcaster { category: "loan", event_type: "Lent", from, upcast };
        let upcasters = [
            upcaster(1, |v| serde_json::json!({ "reader": v["id"] })),
            upcaster(2, |v| serde_json::json!({ "reader_id": v["reader"] })),
        ];
        let expected = serde_json::json!({ "reader_id": "a" });
        assert_eq!(decoded(&upcasters, 1, r#"{"id":"a"}"#).unwrap(), expected);
        assert_eq!(decoded(&upcasters, 2, r#"{"reader":"a"}"#).unwrap(), expected);
        assert_eq!(decoded(&upcasters, 3, r#"{"reader_id":"a"}"#).unwrap(), expected);
        let reads = |upcasters, version| reads_with(upcasters, |_, _| Some(3), "loan", "Lent", version);
        assert_eq!([0, 1, 2, 3, 4].map(|version| reads(&upcasters, version)), [false, true, true, true, false]);
        assert_eq!([1, 2, 3].map(|version| reads(&upcasters[..1], version)), [false, false, true], "a step is missing");
        for version in [0, 4] {
            let unknown = decoded(&upcasters, version, "{}").unwrap_err();
            assert!(matches!(unknown, DecodeError::UnknownType { version: v, position: 7, .. } if v == version));
        }
        assert!(matches!(decoded(&upcasters, 3, "{").unwrap_err(), DecodeError::Malformed { position: 7, .. }));
    }

    #[test]
    fn a_streams_name_is_read_as_it_is_written() {
        let stream = StreamId { category: CATEGORIES[1], id: Uuid::from_u128(5) };
        assert_eq!(parse_stream(CATEGORIES, &stream.to_string()), Some(stream));
        assert_eq!(parse_stream(CATEGORIES, "cart-00000000-0000-0000-0000-000000000005"), None);
        assert_eq!(parse_stream(CATEGORIES, "book"), None);
    }
}
