//! What a projector does with every event, without a server: `.ci/counts` counts its instructions under Callgrind.

use crate::order_summary::OrderSummary;
use crate::{Delivered, ORDER};
use chrono::DateTime;
use engine::codec;
use engine::row::Rows;
use std::hint::black_box;
use store::{Fingerprint, Metadata, Origin, Position, RecordedEvent, StreamId};
use uuid::Uuid;

const PLACED: &str = include_str!("../../../tests/it/fixtures/order/OrderPlaced.v2.jsonl");
const SECURED: &str = include_str!("../../../tests/it/fixtures/order/StockSecured.v1.jsonl");

/// 500 orders that are placed and have their stock.
fn records() -> Vec<RecordedEvent> {
    let of = |n: u128, version, event_type: &'static str, schema_version, payloads: &'static str| RecordedEvent {
        position: Position::try_from(2 * n).unwrap() + version,
        stream: StreamId { category: ORDER, id: Uuid::from_u128(n) },
        version,
        event_id: store::event_id(Uuid::from_u128(n), 0),
        event_type: event_type.into(),
        schema_version,
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
        payload: payloads.lines().next().unwrap().into(),
        link: None,
    };
    (0..500).flat_map(|n| [of(n, 1, "OrderPlaced", 2, PLACED), of(n, 2, "StockSecured", 1, SECURED)]).collect()
}

#[inline(never)]
fn counted_decode(records: Vec<RecordedEvent>) -> Vec<Delivered> {
    records.into_iter().map(|record| codec::deliver(record).unwrap()).collect()
}

#[test]
#[ignore = "`.ci/counts` counts its instructions"]
fn decode() {
    let delivered = counted_decode(black_box(records()));
    assert!(delivered.iter().all(|delivered| delivered.event().is_some()));
}

#[inline(never)]
fn counted_apply(rows: &mut Rows<OrderSummary>, events: &[Delivered]) {
    rows.fold(events);
}

#[test]
#[ignore = "`.ci/counts` counts its instructions"]
fn apply() {
    let delivered = counted_decode(records());
    let mut rows = Rows::new(1, true);
    counted_apply(&mut rows, black_box(&delivered));
    assert_eq!(rows.changed(), 500);
}
