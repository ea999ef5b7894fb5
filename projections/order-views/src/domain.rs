//! What the order domain supplies to the engine.

use crate::ReadModel;
use engine::codec::{self, Upcaster};
use engine::{Domain, FollowUp, Timer, TimerChange};
use orders::reaction::{self, Act};
use orders::{Aggregate, Event, order, payment, shipment, stock, timer};
use serde_json::Value;
use store::{Category, NewEvent, StreamId};
use uuid::Uuid;

/// An aggregate whose streams have a category in the log.
pub trait Stored: Aggregate {
    const STORED_IN: Category;
}

/// Declares the aggregates of the domain: for each its variant of [`Event`], its category, and the id that stands in the table
/// `categories`. An event of an aggregate that is not declared does not compile.
macro_rules! aggregates {
    ($($variant:ident($aggregate:ty) = $constant:ident($id:literal),)+) => {
        $(
            pub const $constant: Category = Category { id: $id, name: <$aggregate>::CATEGORY, domain: Orders::NAME };

            impl Stored for $aggregate {
                const STORED_IN: Category = $constant;
            }
        )+

        /// The categories of the domain's streams.
        pub const CATEGORIES: &[Category] = &[$($constant),+];

        const _: fn(&Event) -> Category = |event| match event { $(Event::$variant(..) => $constant),+ };
    };
}

aggregates! {
    Order(order::Order) = ORDER(1),
    Payment(payment::Payment) = PAYMENT(2),
    Stock(stock::Stock) = STOCK(3),
    Shipment(shipment::Shipment) = SHIPMENT(4),
}

/// The stream `id` of an aggregate.
pub fn stream<A: Stored>(id: Uuid) -> StreamId {
    StreamId { category: A::STORED_IN, id }
}

/// What is stored for an event.
pub fn encode(event: &Event) -> NewEvent {
    codec::encode(event.event_type(), event.schema_version(), event)
}

/// The order domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Orders {}

impl Domain for Orders {
    type Event = Event;
    type Effect = Act;
    type ReadModel = ReadModel;

    const NAME: &'static str = "orders";
    const CATEGORIES: &'static [Category] = CATEGORIES;
    const FOLLOW_UPS: &'static str = "follow_ups";
    const TIMERS: &'static str = "timers";
    const SENDER: &'static str = "sender";
    const UPCASTERS: &'static [Upcaster] = &[
        // Version 2 may say that lines wait for stock.
        Upcaster { category: ORDER.name, event_type: "OrderPlaced", from: 1, upcast: |v| v },
        // Version 2 knows more reasons.
        Upcaster { category: ORDER.name, event_type: "OrderCancelled", from: 1, upcast: |v| v },
        // Version 2 may say what the other system calls what has a derived id.
        Upcaster { category: ORDER.name, event_type: "HistoryRecorded", from: 1, upcast: |v| v },
        // Version 2 says what else it is for than the order as placed: an edit, a line that had to wait.
        Upcaster { category: STOCK.name, event_type: "StockReserved", from: 1, upcast: |v| v },
    ];

    fn current_version(category: &str, event_type: &str) -> Option<i16> {
        Event::current_version(category, event_type)
    }

    fn from_payload(stream: StreamId, event_type: &str, payload: &str) -> Result<Option<Event>, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(payload);
        let event = Event::from_payload(stream.category.name, stream.id, event_type, &mut json)?;
        json.end()?;
        Ok(event)
    }

    /// The order that the event is about. Only a stock event may be about another order than the one whose command led to
    /// it: what one order gives back, another one has waited for.
    fn correlation_id(of_event: Uuid, event: &Event) -> Uuid {
        match event {
            Event::Stock(_, event) => event.order_id().map_or(of_event, |order| order.0),
            Event::Order(..) | Event::Payment(..) | Event::Shipment(..) => of_event,
        }
    }

    fn redact(effect: &mut Value) {
        crate::redact::hide_tokens(effect);
    }

    fn react(event: &Event) -> Vec<FollowUp<Act>> {
        reaction::react(event).into_iter().map(follow_up).collect()
    }

    fn timers(event: &Event) -> Vec<TimerChange<Act>> {
        let change = |change| match change {
            timer::TimerChange::Set { timer, after_seconds, command } => {
                TimerChange::Set { timer: named(timer), after_seconds, effect: Act::Command(command) }
            }
            timer::TimerChange::Clear(timer) => TimerChange::Clear(named(timer)),
        };
        timer::timers(event).into_iter().map(change).collect()
    }
}

/// A follow-up of the domain, as the engine has it.
pub fn follow_up(reaction::FollowUp { reaction, target, act }: reaction::FollowUp) -> FollowUp<Act> {
    FollowUp { reaction, target, effect: act }
}

fn named(timer::Timer { kind, target, key }: timer::Timer) -> Timer {
    Timer { kind, target, key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::codec::{DecodeError, Stored, decode_stored, parse_stream, reads};
    use orders::order::{Event as OrderEvent, PaymentAuthorisedRecorded};

    #[test]
    fn an_event_comes_back_as_it_was_stored() {
        let payment_id = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        let id = orders::id::OrderId(Uuid::nil());
        let event = Event::Order(id, OrderEvent::PaymentAuthorisedRecorded(PaymentAuthorisedRecorded { payment_id }));
        let NewEvent { event_type, schema_version, payload } = encode(&event);
        let stream = stream::<order::Order>(id.0);
        let stored = Stored { position: 7, stream, event_type: &event_type, schema_version, payload: &payload };
        assert_eq!(decode_stored::<Orders>(stored).unwrap(), event);
        assert_eq!(parse_stream(CATEGORIES, &stream.to_string()), Some(stream));
    }

    #[test]
    fn this_build_reads_what_it_writes_and_nothing_else() {
        assert!(reads::<Orders>("order", "OrderPlaced", 1));
        assert!(!reads::<Orders>("payment", "OrderPlaced", 1) && !reads::<Orders>("order", "OrderTeleported", 1));
        assert!(!reads::<Orders>("order", "OrderPlaced", 0) && !reads::<Orders>("order", "OrderPlaced", i16::MAX));
    }

    #[test]
    fn what_this_build_does_not_know_is_said_with_its_position() {
        let stream = stream::<order::Order>(Uuid::nil());
        let decoded = |event_type| {
            decode_stored::<Orders>(Stored { position: 7, stream, event_type, schema_version: 1, payload: "{}" })
        };
        assert!(matches!(decoded("OrderTeleported").unwrap_err(), DecodeError::UnknownType { position: 7, .. }));
        assert!(matches!(
            decoded("PaymentAuthorisedRecorded").unwrap_err(),
            DecodeError::Malformed { position: 7, .. }
        ));
    }
}
