//! Any event of the domain, with the id of the stream that it is in.

use crate::id::{OrderId, PaymentId, ShipmentId, StockId};
use crate::{Aggregate, order, payment, shipment, stock};
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// An event and whose it is. All that a reaction or a read model is told of what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Order(OrderId, order::Event),
    Payment(PaymentId, payment::Event),
    Stock(StockId, stock::Event),
    Shipment(ShipmentId, shipment::Event),
}

impl Event {
    /// The category of the event's stream.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Order(..) => order::Order::CATEGORY,
            Self::Payment(..) => payment::Payment::CATEGORY,
            Self::Stock(..) => stock::Stock::CATEGORY,
            Self::Shipment(..) => shipment::Shipment::CATEGORY,
        }
    }

    /// The id of the event's stream.
    pub fn stream_id(&self) -> Uuid {
        match self {
            Self::Order(id, _) => id.0,
            Self::Payment(id, _) => id.0,
            Self::Stock(id, _) => id.0,
            Self::Shipment(id, _) => id.0,
        }
    }

    /// The stored event type.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::Order(_, e) => e.event_type(),
            Self::Payment(_, e) => e.event_type(),
            Self::Stock(_, e) => e.event_type(),
            Self::Shipment(_, e) => e.event_type(),
        }
    }

    /// The schema version of the payload that this build writes.
    pub fn schema_version(&self) -> i16 {
        match self {
            Self::Order(_, e) => e.schema_version(),
            Self::Payment(_, e) => e.schema_version(),
            Self::Stock(_, e) => e.schema_version(),
            Self::Shipment(_, e) => e.schema_version(),
        }
    }

    /// The event types of a category, each with the schema version that this build writes; none for a category that it
    /// does not know.
    pub fn types(category: &str) -> &'static [(&'static str, i16)] {
        match category {
            order::Order::CATEGORY => order::Event::TYPES,
            payment::Payment::CATEGORY => payment::Event::TYPES,
            stock::Stock::CATEGORY => stock::Event::TYPES,
            shipment::Shipment::CATEGORY => shipment::Event::TYPES,
            _ => &[],
        }
    }

    /// The schema version that this build writes for an event type; `None` for a type that it does not know.
    pub fn current_version(category: &str, event_type: &str) -> Option<i16> {
        Self::types(category).iter().find(|(name, _)| *name == event_type).map(|(_, version)| *version)
    }

    /// The event from its payload in the present schema version; `None` for a category or type that this build does
    /// not know.
    ///
    /// # Errors
    /// When the payload has not the shape of the type.
    pub fn from_payload<'de, D: serde::Deserializer<'de>>(
        category: &str,
        id: Uuid,
        event_type: &str,
        payload: D,
    ) -> Result<Option<Self>, D::Error> {
        Ok(match category {
            order::Order::CATEGORY => {
                order::Event::from_payload(event_type, payload)?.map(|e| Self::Order(OrderId(id), e))
            }
            payment::Payment::CATEGORY => {
                payment::Event::from_payload(event_type, payload)?.map(|e| Self::Payment(PaymentId(id), e))
            }
            stock::Stock::CATEGORY => {
                stock::Event::from_payload(event_type, payload)?.map(|e| Self::Stock(StockId(id), e))
            }
            shipment::Shipment::CATEGORY => {
                shipment::Event::from_payload(event_type, payload)?.map(|e| Self::Shipment(ShipmentId(id), e))
            }
            _ => None,
        })
    }
}

/// The payload alone.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Order(_, e) => e.serialize(serializer),
            Self::Payment(_, e) => e.serialize(serializer),
            Self::Stock(_, e) => e.serialize(serializer),
            Self::Shipment(_, e) => e.serialize(serializer),
        }
    }
}
