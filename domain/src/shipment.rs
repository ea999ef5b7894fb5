//! A shipment: what one seller sends for one order. Its stream settles who came first, a dispatch or a cancellation.

use crate::Aggregate;
use crate::Fault;
use crate::aggregate::events;
use crate::id::{CustomerId, LineNo, OrderId, ShipmentId};
use crate::order::{CaptureShare, ShipmentOrder, StockLine};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

mod history;
#[cfg(test)]
mod tests;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Plan {
        order_id: OrderId,
        shipment: ShipmentOrder,
    },
    /// The parcel is handed to the carrier.
    Dispatch {
        tracking: String,
    },
    ConfirmDelivery,
    Cancel {
        order_id: OrderId,
    },
}

events! {
    /// A seller is to ship lines of an order.
    ShipmentPlanned = 1,
    /// The parcel was handed to the carrier.
    ShipmentDispatched = 1,
    /// The parcel has arrived.
    ShipmentDelivered = 1,
    /// It will not be dispatched.
    ShipmentCancelled = 1,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentPlanned {
    pub order_id: OrderId,
    pub shipment: ShipmentOrder,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentDispatched {
    pub order_id: OrderId,
    pub customer_id: CustomerId,
    pub tracking: String,
    pub lines: Vec<StockLine>,
    pub captures: Vec<CaptureShare>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentDelivered {
    pub order_id: OrderId,
    pub lines: Vec<LineNo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShipmentCancelled {
    pub order_id: OrderId,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shipment {
    /// There is no such shipment yet.
    #[default]
    Unplanned,
    Planned(Arc<ShipmentPlanned>),
    Dispatched {
        planned: Arc<ShipmentPlanned>,
        tracking: String,
    },
    Delivered {
        tracking: String,
    },
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Rejection {
    #[error("the shipment command is malformed")]
    Invalid { faults: Vec<Fault> },
    #[error("there is no shipment {shipment_id}")]
    NotPlanned { shipment_id: ShipmentId },
    #[error("shipment {shipment_id} is cancelled")]
    Cancelled { shipment_id: ShipmentId },
    #[error("shipment {shipment_id} is dispatched")]
    AlreadyDispatched { shipment_id: ShipmentId },
    #[error("shipment {shipment_id} was dispatched with another tracking number, {tracking}")]
    OtherTracking { shipment_id: ShipmentId, tracking: String },
    #[error("shipment {shipment_id} is not dispatched: it cannot have been delivered")]
    NotDispatched { shipment_id: ShipmentId },
}

impl Shipment {
    /// The order that it is for, as long as anything can follow from that.
    pub fn order_id(&self) -> Option<OrderId> {
        match self {
            Self::Planned(planned) | Self::Dispatched { planned, .. } => Some(planned.order_id),
            Self::Unplanned | Self::Delivered { .. } | Self::Cancelled => None,
        }
    }

    /// What `command` makes of the shipment `id`; nothing, if it is so already.
    ///
    /// # Errors
    /// When the shipment's state forbids it.
    pub fn decide(&self, id: ShipmentId, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Plan { order_id, shipment } => match self {
                Self::Unplanned => Ok(vec![ShipmentPlanned { order_id: *order_id, shipment: shipment.clone() }.into()]),
                Self::Planned(_) | Self::Dispatched { .. } | Self::Delivered { .. } => Ok(vec![]),
                Self::Cancelled => Err(Rejection::Cancelled { shipment_id: id }),
            },
            Command::Dispatch { tracking } => self.dispatch(id, tracking),
            Command::ConfirmDelivery => match self {
                Self::Dispatched { planned, .. } => {
                    let lines = planned.shipment.lines.iter().map(|l| l.line).collect();
                    Ok(vec![ShipmentDelivered { order_id: planned.order_id, lines }.into()])
                }
                Self::Delivered { .. } => Ok(vec![]),
                Self::Unplanned => Err(Rejection::NotPlanned { shipment_id: id }),
                Self::Planned(_) => Err(Rejection::NotDispatched { shipment_id: id }),
                Self::Cancelled => Err(Rejection::Cancelled { shipment_id: id }),
            },
            Command::Cancel { order_id } => match self {
                // Also before it was planned: the plan, when it comes, is refused.
                Self::Unplanned | Self::Planned(_) => Ok(vec![ShipmentCancelled { order_id: *order_id }.into()]),
                Self::Cancelled => Ok(vec![]),
                Self::Dispatched { .. } | Self::Delivered { .. } => {
                    Err(Rejection::AlreadyDispatched { shipment_id: id })
                }
            },
        }
    }

    fn dispatch(&self, id: ShipmentId, tracking: &str) -> Result<Vec<Event>, Rejection> {
        if !(1..=64).contains(&tracking.len()) || !tracking.bytes().all(|b| b.is_ascii_graphic()) {
            let faults = vec![Fault::new("tracking", "1 to 64 printable ASCII characters without blanks")];
            return Err(Rejection::Invalid { faults });
        }
        match self {
            Self::Planned(planned) => {
                let ShipmentPlanned { order_id, shipment } = &**planned;
                Ok(vec![
                    ShipmentDispatched {
                        order_id: *order_id,
                        customer_id: shipment.customer_id,
                        tracking: tracking.to_owned(),
                        lines: shipment.lines.clone(),
                        captures: shipment.captures.clone(),
                    }
                    .into(),
                ])
            }
            Self::Dispatched { tracking: before, .. } | Self::Delivered { tracking: before } if before == tracking => {
                Ok(vec![])
            }
            Self::Dispatched { tracking, .. } | Self::Delivered { tracking } => {
                Err(Rejection::OtherTracking { shipment_id: id, tracking: tracking.clone() })
            }
            Self::Unplanned => Err(Rejection::NotPlanned { shipment_id: id }),
            Self::Cancelled => Err(Rejection::Cancelled { shipment_id: id }),
        }
    }
}

impl Aggregate for Shipment {
    const CATEGORY: &'static str = "shipment";
    type Event = Event;

    fn evolve(&mut self, event: &Event) {
        *self = match (std::mem::take(self), event) {
            (_, Event::ShipmentPlanned(planned)) => Self::Planned(Arc::new(planned.clone())),
            (Self::Planned(planned), Event::ShipmentDispatched(e)) => {
                Self::Dispatched { planned, tracking: e.tracking.clone() }
            }
            (Self::Dispatched { tracking, .. }, Event::ShipmentDelivered(_)) => Self::Delivered { tracking },
            (_, Event::ShipmentCancelled(_)) => Self::Cancelled,
            (unchanged, Event::ShipmentDispatched(_) | Event::ShipmentDelivered(_)) => unchanged,
        }
    }

    fn event_of(event: &crate::Event) -> Option<&Event> {
        match event {
            crate::Event::Shipment(_, event) => Some(event),
            crate::Event::Order(..) | crate::Event::Payment(..) | crate::Event::Stock(..) => None,
        }
    }

    fn event(id: Uuid, event: Event) -> crate::Event {
        crate::Event::Shipment(ShipmentId(id), event)
    }
}
