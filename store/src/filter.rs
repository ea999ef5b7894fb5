//! Which events of the log are wanted.

use crate::{Category, RecordedEvent, StreamId};
use uuid::Uuid;

/// Which events are wanted: those that match every field. The default matches all events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this stream.
    pub stream: Option<StreamId>,
    /// Of any stream of this category.
    pub category: Option<Category>,
    /// Of one of these types; of any type, if there is none in the list.
    pub event_types: Vec<String>,
    /// With this correlation id.
    pub correlation_id: Option<Uuid>,
}

impl Filter {
    /// Whether the event matches every field.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        self.stream.is_none_or(|stream| event.stream == stream)
            && self.category.is_none_or(|category| event.stream.category == category)
            && (self.event_types.is_empty() || self.event_types.iter().any(|name| **name == *event.event_type))
            && self.correlation_id.is_none_or(|id| event.metadata.correlation_id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fingerprint, Metadata, Origin};
    use chrono::DateTime;

    const CART: Category = Category { id: 1, name: "cart", domain: "bank" };
    const SHELF: Category = Category { id: 2, name: "shelf", domain: "bank" };

    fn recorded(stream: StreamId, event_type: &'static str, correlation_id: Uuid) -> RecordedEvent {
        RecordedEvent {
            position: 7,
            stream,
            version: 1,
            event_id: Uuid::nil(),
            event_type: event_type.into(),
            schema_version: 1,
            recorded_at: DateTime::UNIX_EPOCH,
            metadata: Metadata {
                correlation_id,
                causation_id: None,
                command_id: Uuid::nil(),
                fingerprint: Fingerprint([0; 16]),
                actor: "test".into(),
                origin: Origin::Live,
                occurred_at: DateTime::UNIX_EPOCH,
                traceparent: None,
            },
            payload: "{}".into(),
            link: None,
        }
    }

    #[test]
    fn every_field_has_to_let_an_event_through() {
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let stream = StreamId { category: CART, id };
        let all = Filter {
            stream: Some(stream),
            category: Some(CART),
            event_types: vec!["Filled".into(), "Emptied".into()],
            correlation_id: Some(id),
        };
        let event = recorded(stream, "Emptied", id);
        assert!(Filter::default().matches(&event) && all.matches(&event));
        for (one, not) in [
            (
                Filter { stream: all.stream, ..Filter::default() },
                recorded(StreamId { id: other, ..stream }, "Emptied", id),
            ),
            (
                Filter { category: all.category, ..Filter::default() },
                recorded(StreamId { category: SHELF, id }, "Emptied", id),
            ),
            (Filter { event_types: all.event_types.clone(), ..Filter::default() }, recorded(stream, "Moved", id)),
            (Filter { correlation_id: all.correlation_id, ..Filter::default() }, recorded(stream, "Emptied", other)),
        ] {
            assert!(one.matches(&event) && !one.matches(&not) && !all.matches(&not), "{one:?}");
            assert!(Filter::default().matches(&not));
        }
    }
}
