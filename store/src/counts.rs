//! The paths that every event takes, without a server: `.ci/counts` counts their instructions under Callgrind.

use crate::binary_copy::Decoder;
use crate::group::{Group, Prepared};
use crate::{
    Append, Category, Chain, ExpectedVersion, Fingerprint, Link, Mark, Metadata, NewEvent, Origin, RecordedEvent,
    StreamAppend, StreamId,
};
use bytes::Bytes;
use chrono::DateTime;
use std::hint::black_box;
use uuid::Uuid;

const CART: Category = Category { id: 21, name: "cart", domain: "shop" };
const PAYLOAD: &str = r#"{"sku":"mug","quantity":2,"unit_price":1250,"seller":"0199f0a0-0000-7000-8000-000000000001"}"#;
const TYPE: &str = "ItemAdded";
const EVENTS: u128 = 1000;

fn metadata(command: u128) -> Metadata {
    Metadata {
        correlation_id: Uuid::from_u128(command),
        causation_id: None,
        command_id: Uuid::from_u128(command),
        fingerprint: Fingerprint([7; 16]),
        actor: "test".into(),
        origin: Origin::Live,
        occurred_at: DateTime::UNIX_EPOCH,
        traceparent: None,
    }
}

#[inline(never)]
fn counted_append(appends: Vec<Append>) -> Group {
    let mut group = Group::default();
    for append in appends {
        group.add(Prepared::new(append), &[]);
    }
    group
}

/// A group of 250 appends, of four events each.
#[test]
#[ignore = "`.ci/counts` counts its instructions"]
fn append() {
    let event = || NewEvent { event_type: TYPE.into(), schema_version: 1, payload: PAYLOAD.into() };
    let append = |n| Append {
        metadata: metadata(n),
        streams: vec![StreamAppend {
            stream: StreamId { category: CART, id: Uuid::from_u128(n) },
            expected: ExpectedVersion::NoStream,
            events: vec![event(), event(), event(), event()],
        }],
    };
    let group = counted_append(black_box((0..EVENTS / 4).map(append).collect()));
    assert_eq!(group.appends().len(), 250);
}

#[inline(never)]
fn counted_read(message: Bytes) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    Decoder::default().decode(message, &[CART], &mut events).unwrap();
    events
}

/// A page of the log, as Postgres sends it.
#[test]
#[ignore = "`.ci/counts` counts its instructions"]
fn read() {
    let mut message = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for n in 1..=i64::try_from(EVENTS).unwrap() {
        message.extend(18_i16.to_be_bytes());
        let id = Uuid::from_u128(7);
        let columns: [Option<&[u8]>; 18] = [
            Some(&n.to_be_bytes()),
            Some(&1_i64.to_be_bytes()),
            Some(&n.to_be_bytes()),
            Some(&n.to_be_bytes()),
            Some(&CART.id.to_be_bytes()),
            Some(&1_i16.to_be_bytes()),
            Some(&0_i16.to_be_bytes()),
            Some(id.as_bytes()),
            Some(id.as_bytes()),
            Some(id.as_bytes()),
            None,
            Some(id.as_bytes()),
            Some(&[7; 16]),
            Some(TYPE.as_bytes()),
            Some(b"test"),
            None,
            Some(PAYLOAD.as_bytes()),
            None,
        ];
        for column in columns {
            message.extend(column.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap()).to_be_bytes());
            message.extend(column.unwrap_or_default());
        }
    }
    message.extend((-1_i16).to_be_bytes());
    assert_eq!(counted_read(black_box(message.into())).len(), 1000);
}

#[inline(never)]
fn counted_chain(chain: &mut Chain, events: &[RecordedEvent]) {
    for event in events {
        chain.advance(event).unwrap();
    }
}

/// What a consumer checks of every event: its digest, and the link of its group.
#[test]
#[ignore = "`.ci/counts` counts its instructions"]
fn chain() {
    let begin = Mark { position: 0, link: Link([0; 32]) };
    let events: Vec<RecordedEvent> = (0..EVENTS)
        .map(|n| RecordedEvent {
            position: i64::try_from(n).unwrap() + 1,
            stream: StreamId { category: CART, id: Uuid::from_u128(n) },
            version: 1,
            event_id: crate::event_id(Uuid::from_u128(n), 0),
            event_type: TYPE.into(),
            schema_version: 1,
            recorded_at: DateTime::UNIX_EPOCH,
            metadata: metadata(n),
            payload: PAYLOAD.into(),
            link: None,
        })
        .collect();
    let mut chain = Chain::after(begin);
    counted_chain(&mut chain, black_box(&events));
    assert_eq!(chain.position(), 1000);
}
