//! What a shipment's events come to: all that decisions need.

use super::event::{Event, ShipmentPlanned, ShipmentReplanned};
use crate::Aggregate;
use crate::id::{OrderId, ShipmentId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shipment {
    pub(super) status: Status,
    /// The last plan.
    pub(super) revision: u32,
    /// The last time that it was to wait, and the last one that was over. Each may be known before the other.
    pub(super) held: u32,
    pub(super) released: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// There is no such shipment yet.
    #[default]
    Unplanned,
    Planned(Arc<ShipmentPlanned>),
    Ready(Arc<ShipmentPlanned>),
    Dispatched {
        planned: Arc<ShipmentPlanned>,
        tracking: String,
    },
    Settled {
        tracking: String,
        outcome: Outcome,
    },
    Cancelled,
}

/// What became of a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Delivered,
    Lost,
    ReturnedToSender,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivered => "delivered",
            Self::Lost => "lost",
            Self::ReturnedToSender => "returned to sender",
        })
    }
}

impl Shipment {
    /// The order that it is for, as long as anything can follow from that.
    pub fn order_id(&self) -> Option<OrderId> {
        match &self.status {
            Status::Planned(planned) | Status::Ready(planned) | Status::Dispatched { planned, .. } => {
                Some(planned.order_id)
            }
            Status::Unplanned | Status::Settled { .. } | Status::Cancelled => None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held > self.released
    }

    fn plan(&mut self, planned: ShipmentPlanned) {
        self.revision = planned.revision;
        self.status = Status::Planned(Arc::new(planned));
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Status::Dispatched { tracking, .. } = &mut self.status {
            self.status = Status::Settled { tracking: std::mem::take(tracking), outcome };
        }
    }
}

impl Aggregate for Shipment {
    const CATEGORY: &'static str = "shipment";
    type Event = Event;

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::ShipmentPlanned(planned) => self.plan(planned.clone()),
            Event::ShipmentReplanned(ShipmentReplanned { order_id, revision, released, shipment }) => {
                self.released = self.released.max(*released);
                self.plan(ShipmentPlanned { order_id: *order_id, revision: *revision, shipment: shipment.clone() });
            }
            Event::ShipmentReady(_) => {
                if let Status::Planned(planned) = &self.status {
                    self.status = Status::Ready(planned.clone());
                }
            }
            Event::ShipmentHeld(e) => self.held = e.hold,
            Event::ShipmentReleased(e) => self.released = e.hold,
            Event::ShipmentDispatched(e) => {
                if let Status::Planned(planned) | Status::Ready(planned) = &self.status {
                    self.status = Status::Dispatched { planned: planned.clone(), tracking: e.tracking.clone() };
                }
            }
            Event::ShipmentDelivered(_) => self.settle(Outcome::Delivered),
            Event::ShipmentLost(_) => self.settle(Outcome::Lost),
            Event::ShipmentReturnedToSender(_) => self.settle(Outcome::ReturnedToSender),
            Event::ShipmentCancelled(_) => {
                self.status = Status::Cancelled;
                // Should it be planned again, nobody releases it from a hold of before.
                self.released = self.released.max(self.held);
            }
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
