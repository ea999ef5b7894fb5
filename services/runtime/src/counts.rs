//! What the relay and a feed do with every event, without a server: `.ci/counts` counts their instructions under Callgrind.

use crate::{message, subject};
use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::DateTime;
use std::hint::black_box;
use store::{Category, Fingerprint, Metadata, Origin, Position, RecordedEvent, StreamId};
use uuid::Uuid;

const CART: Category = Category { id: 21, name: "cart", domain: "shop" };

fn events() -> Vec<RecordedEvent> {
    let event = |n: u128| RecordedEvent {
        position: Position::try_from(n).unwrap() + 1,
        stream: StreamId { category: CART, id: Uuid::from_u128(n) },
        version: 1,
        event_id: store::event_id(Uuid::from_u128(n), 0),
        event_type: "ItemAdded".into(),
        schema_version: 1,
        recorded_at: DateTime::UNIX_EPOCH,
        metadata: Metadata {
            correlation_id: Uuid::from_u128(n),
            causation_id: None,
            command_id: Uuid::from_u128(n),
            fingerprint: Fingerprint([7; 16]),
            actor: "test".into(),
            origin: Origin::Live,
            occurred_at: DateTime::UNIX_EPOCH,
            traceparent: None,
        },
        payload: r#"{"sku":"mug","quantity":2}"#.into(),
        link: None,
    };
    (0..1000).map(event).collect()
}

#[inline(never)]
fn counted_headers(events: &[RecordedEvent]) -> Vec<(String, HeaderMap)> {
    events.iter().map(|event| (subject::event(event.stream, &event.event_type), message::headers(event, 1))).collect()
}

/// What the relay publishes events with.
#[test]
#[ignore = "`.ci/counts` counts its instructions"]
fn headers() {
    assert_eq!(counted_headers(black_box(&events())).len(), 1000);
}

#[inline(never)]
fn counted_message(messages: Vec<(String, HeaderMap, Bytes)>) -> Vec<RecordedEvent> {
    let event = |(subject, headers, payload): (String, HeaderMap, Bytes)| {
        message::recorded(&[CART], &subject, &headers, payload).unwrap()
    };
    messages.into_iter().map(event).collect()
}

/// What a feed reads of messages.
#[test]
#[ignore = "`.ci/counts` counts its instructions"]
fn message() {
    let events = events();
    let payload = Bytes::from_static(br#"{"sku":"mug","quantity":2}"#);
    let messages = counted_headers(&events).into_iter().map(|(subject, headers)| (subject, headers, payload.clone()));
    assert_eq!(counted_message(black_box(messages.collect())), events);
}
