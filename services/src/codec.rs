//! Events of the domain to stored events and back, whatever schema version they were stored in.

use domain::{Aggregate, Event, order, payment, shipment, stock};
use projections::{Delivered, Recorded};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use store::{Category, NewEvent, Position, RecordedEvent, StreamId};
use uuid::Uuid;

/// The categories of Daybook's streams; their ids stand in `migrations/orders/0002_order_categories.sql`.
pub const CATEGORIES: &[Category] = &[
    Category { id: 1, name: order::Order::CATEGORY },
    Category { id: 2, name: payment::Payment::CATEGORY },
    Category { id: 3, name: stock::Stock::CATEGORY },
    Category { id: 4, name: shipment::Shipment::CATEGORY },
];

/// The stream `id` of an aggregate.
pub fn stream<A: Aggregate>(id: Uuid) -> StreamId {
    let category = CATEGORIES.iter().find(|c| c.name == A::CATEGORY);
    StreamId { category: *category.unwrap_or_else(|| unreachable!("every aggregate's category is listed")), id }
}

/// The category of this name.
pub fn parse_category(name: &str) -> Option<Category> {
    CATEGORIES.iter().find(|c| c.name == name).copied()
}

/// The stream that a name like `order-0199…` names.
pub fn parse_stream(name: &str) -> Option<StreamId> {
    let (category, id) = name.split_once('-')?;
    Some(StreamId { category: parse_category(category)?, id: id.parse().ok()? })
}

/// Takes a payload from one schema version to the next.
struct Upcaster {
    category: &'static str,
    event_type: &'static str,
    /// The version that it takes; it gives the one after.
    from: i16,
    upcast: fn(Value) -> Value,
}

/// One for each version of an event type that is no longer written.
const UPCASTERS: &[Upcaster] = &[
    // Version 2 may say that lines wait for stock.
    Upcaster { category: "order", event_type: "OrderPlaced", from: 1, upcast: |v| v },
    // Version 2 knows more reasons.
    Upcaster { category: "order", event_type: "OrderCancelled", from: 1, upcast: |v| v },
    // Version 2 says what else it is for than the order as placed: an edit, a line that had to wait.
    Upcaster { category: "stock", event_type: "StockReserved", from: 1, upcast: |v| v },
];

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

/// What is stored for an event.
pub fn encode(event: &Event) -> NewEvent {
    let payload = serde_json::to_string(event);
    NewEvent {
        event_type: event.event_type().into(),
        schema_version: event.schema_version(),
        payload: payload.unwrap_or_else(|e| unreachable!("events are plain data: {e}")).into(),
    }
}

/// The event of the domain that is stored in `record`.
///
/// # Errors
/// When this build does not know its type or version, or it has not the shape of its type.
pub fn decode(record: RecordedEvent) -> Result<Recorded, DecodeError> {
    let event = decode_stored(Stored::from(&record))?;
    Ok(Recorded { record, event })
}

/// The event as projections get it: one that has not the shape of its type is told apart, for all others go on without it.
///
/// # Errors
/// When this build does not know its type or version: a newer one does.
pub fn deliver(record: RecordedEvent) -> Result<Delivered, DecodeError> {
    match decode_stored(Stored::from(&record)) {
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
pub fn decode_stored(stored: Stored<'_>) -> Result<Event, DecodeError> {
    decode_with(UPCASTERS, Event::current_version, stored)
}

/// Whether this build can read a category's events of that type in that schema version: it is the present one, or is
/// taken to it step by step.
pub fn reads(category: &str, event_type: &str, version: i16) -> bool {
    reads_with(UPCASTERS, Event::current_version, category, event_type, version)
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

fn decode_with(
    upcasters: &[Upcaster],
    current_version: impl Fn(&str, &str) -> Option<i16>,
    record: Stored<'_>,
) -> Result<Event, DecodeError> {
    let (category, event_type) = (record.stream.category.name, record.event_type);
    let unknown = || DecodeError::UnknownType {
        position: record.position,
        event_type: event_type.to_owned(),
        version: record.schema_version,
    };
    let malformed = |error: serde_json::Error| DecodeError::Malformed {
        position: record.position,
        event_type: event_type.to_owned(),
        column: error.column(),
    };
    let current = current_version(category, event_type).ok_or_else(unknown)?;
    let payload = match record.schema_version {
        version if version == current => Cow::Borrowed(record.payload),
        version => {
            let mut payload: Value = serde_json::from_str(record.payload).map_err(malformed)?;
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
    let mut json = serde_json::Deserializer::from_str(&payload);
    let event = Event::from_payload(category, record.stream.id, event_type, &mut json).map_err(malformed)?;
    json.end().map_err(malformed)?;
    event.ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use domain::order::{Event as OrderEvent, PaymentAuthorisedRecorded};
    use store::{Fingerprint, Metadata, Origin};

    fn stored(event_type: &str, schema_version: i16, payload: &str) -> RecordedEvent {
        RecordedEvent {
            position: 7,
            stream: stream::<order::Order>(Uuid::nil()),
            version: 1,
            event_id: Uuid::nil(),
            event_type: event_type.into(),
            schema_version,
            recorded_at: DateTime::UNIX_EPOCH,
            metadata: Metadata {
                correlation_id: Uuid::nil(),
                causation_id: None,
                command_id: Uuid::nil(),
                fingerprint: Fingerprint([0; 16]),
                actor: "test".into(),
                origin: Origin::Live,
                occurred_at: DateTime::UNIX_EPOCH,
                traceparent: None,
            },
            payload: payload.into(),
            link: None,
        }
    }

    const PAYMENT: &str = "00000000-0000-0000-0000-000000000001";

    #[test]
    fn an_event_comes_back_as_it_was_stored() {
        let payment_id = PAYMENT.parse().unwrap();
        let event = Event::Order(
            domain::id::OrderId(Uuid::nil()),
            OrderEvent::PaymentAuthorisedRecorded(PaymentAuthorisedRecorded { payment_id }),
        );
        let NewEvent { event_type, schema_version, payload } = encode(&event);
        assert_eq!(decode(stored(&event_type, schema_version, &payload)).unwrap().event, event);
    }

    #[test]
    fn an_older_version_is_taken_to_the_present_one_step_by_step() {
        let upcasters = [
            Upcaster {
                category: "order",
                event_type: "PaymentAuthorisedRecorded",
                from: 1,
                upcast: |v| serde_json::json!({ "payment": v["id"] }),
            },
            Upcaster {
                category: "order",
                event_type: "PaymentAuthorisedRecorded",
                from: 2,
                upcast: |v| serde_json::json!({ "payment_id": v["payment"] }),
            },
        ];
        let decoded = |version, payload: &str| {
            let stored = stored("PaymentAuthorisedRecorded", version, payload);
            decode_with(&upcasters, |_, _| Some(3), Stored::from(&stored))
        };
        let expected = OrderEvent::from(PaymentAuthorisedRecorded { payment_id: PAYMENT.parse().unwrap() });
        let expected = Event::Order(domain::id::OrderId(Uuid::nil()), expected);
        assert_eq!(decoded(1, &format!(r#"{{"id":"{PAYMENT}"}}"#)).unwrap(), expected);
        assert_eq!(decoded(2, &format!(r#"{{"payment":"{PAYMENT}"}}"#)).unwrap(), expected);
        assert_eq!(decoded(3, &format!(r#"{{"payment_id":"{PAYMENT}"}}"#)).unwrap(), expected);
        let reads =
            |upcasters, version| reads_with(upcasters, |_, _| Some(3), "order", "PaymentAuthorisedRecorded", version);
        assert_eq!([0, 1, 2, 3, 4].map(|version| reads(&upcasters, version)), [false, true, true, true, false]);
        assert_eq!([1, 2, 3].map(|version| reads(&upcasters[..1], version)), [false, false, true], "a step is missing");
        assert!(matches!(decoded(0, "{}"), Err(DecodeError::UnknownType { version: 0, .. })));
        assert!(matches!(decoded(4, "{}"), Err(DecodeError::UnknownType { version: 4, .. })));
    }

    #[test]
    fn this_build_reads_what_it_writes_and_nothing_else() {
        assert!(reads("order", "OrderPlaced", 1));
        assert!(!reads("payment", "OrderPlaced", 1) && !reads("order", "OrderTeleported", 1));
        assert!(!reads("order", "OrderPlaced", 0) && !reads("order", "OrderPlaced", i16::MAX));
    }

    #[test]
    fn what_this_build_does_not_know_is_said_with_its_position() {
        let unknown = decode(stored("OrderTeleported", 1, "{}")).unwrap_err();
        assert!(matches!(unknown, DecodeError::UnknownType { position: 7, .. }));
        let malformed = decode(stored("PaymentAuthorisedRecorded", 1, "{}")).unwrap_err();
        assert!(matches!(malformed, DecodeError::Malformed { position: 7, .. }));
    }

    #[test]
    fn a_streams_name_is_read_as_it_is_written() {
        let stream = stream::<stock::Stock>(Uuid::from_u128(5));
        assert_eq!(parse_stream(&stream.to_string()), Some(stream));
        assert_eq!(parse_stream("cart-00000000-0000-0000-0000-000000000005"), None);
        assert_eq!(parse_stream("order"), None);
    }
}
