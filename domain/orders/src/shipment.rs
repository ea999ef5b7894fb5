//! A shipment: what one seller sends for one order. Its stream settles who came first, a dispatch or a change.

use crate::Fault;
use crate::id::{LineNo, OrderId, ShipmentId};
use crate::order::ShipmentOrder;
use serde::{Deserialize, Serialize};
use state::Status;

mod event;
mod history;
mod state;
#[cfg(test)]
mod tests;

pub use event::*;
pub use state::{Outcome, Shipment};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Plan {
        order_id: OrderId,
        shipment: ShipmentOrder,
    },
    /// The order has changed. Decided with it; a shipment that was cancelled comes to life again, and is not held by what
    /// is over, should word of that come late.
    Replan {
        order_id: OrderId,
        released: u32,
        shipment: ShipmentOrder,
    },
    /// The parcel is packed, as this revision of the plan says.
    MarkReady {
        revision: u32,
    },
    /// The order is on hold for the `hold`th time.
    Hold {
        order_id: OrderId,
        hold: u32,
    },
    /// The order is no longer on hold for the `hold`th time.
    Release {
        order_id: OrderId,
        hold: u32,
    },
    /// The parcel is handed to the carrier, packed as this revision of the plan says.
    Dispatch {
        revision: u32,
        tracking: String,
    },
    ConfirmDelivery,
    /// The carrier has lost the parcel.
    ReportLost,
    /// The carrier has brought the parcel back.
    ReportReturned,
    Cancel {
        order_id: OrderId,
    },
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
    #[error("shipment {shipment_id} is held")]
    Held { shipment_id: ShipmentId },
    #[error("shipment {shipment_id} was planned anew: it is to be packed as revision {revision} says")]
    Replanned { shipment_id: ShipmentId, revision: u32 },
    #[error("shipment {shipment_id} is dispatched")]
    AlreadyDispatched { shipment_id: ShipmentId },
    #[error("shipment {shipment_id} was dispatched with another tracking number, {tracking}")]
    OtherTracking { shipment_id: ShipmentId, tracking: String },
    #[error("shipment {shipment_id} is not dispatched: nothing can have become of it")]
    NotDispatched { shipment_id: ShipmentId },
    #[error("shipment {shipment_id} is {outcome}")]
    OtherOutcome { shipment_id: ShipmentId, outcome: Outcome },
}

impl Shipment {
    /// What `command` makes of the shipment `id`; no events if nothing changes.
    ///
    /// # Errors
    /// When the shipment's state forbids it.
    pub fn decide(&self, id: ShipmentId, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Plan { order_id, shipment } => match &self.status {
                Status::Unplanned => {
                    let revision = self.revision + 1;
                    Ok(vec![ShipmentPlanned { order_id: *order_id, revision, shipment: shipment.clone() }.into()])
                }
                Status::Cancelled => Err(Rejection::Cancelled { shipment_id: id }),
                Status::Planned(_) | Status::Ready(_) | Status::Dispatched { .. } | Status::Settled { .. } => {
                    Ok(vec![])
                }
            },
            Command::Replan { order_id, released, shipment } => self.replan(id, *order_id, *released, shipment),
            Command::MarkReady { revision } => self.mark_ready(id, *revision),
            Command::Hold { order_id, hold } => self.hold(id, *order_id, *hold),
            Command::Release { order_id, hold } => Ok(self.release(*order_id, *hold)),
            Command::Dispatch { revision, tracking } => self.dispatch(id, *revision, tracking),
            Command::ConfirmDelivery => {
                self.settled(id, Outcome::Delivered, |order_id, lines| ShipmentDelivered { order_id, lines }.into())
            }
            Command::ReportLost => {
                self.settled(id, Outcome::Lost, |order_id, lines| ShipmentLost { order_id, lines }.into())
            }
            Command::ReportReturned => self.settled(id, Outcome::ReturnedToSender, |order_id, lines| {
                ShipmentReturnedToSender { order_id, lines }.into()
            }),
            Command::Cancel { order_id } => match &self.status {
                // Also before it was planned: the plan, when it comes, is refused.
                Status::Unplanned | Status::Planned(_) | Status::Ready(_) => {
                    Ok(vec![ShipmentCancelled { order_id: *order_id }.into()])
                }
                Status::Cancelled => Ok(vec![]),
                Status::Dispatched { .. } | Status::Settled { .. } => {
                    Err(Rejection::AlreadyDispatched { shipment_id: id })
                }
            },
        }
    }

    /// Also before it was planned: the plan that comes later is of the order as it was.
    fn replan(
        &self,
        id: ShipmentId,
        order_id: OrderId,
        released: u32,
        shipment: &ShipmentOrder,
    ) -> Result<Vec<Event>, Rejection> {
        match &self.status {
            Status::Planned(planned) | Status::Ready(planned) if planned.shipment == *shipment => Ok(vec![]),
            Status::Unplanned | Status::Planned(_) | Status::Ready(_) | Status::Cancelled => {
                let (revision, shipment) = (self.revision + 1, shipment.clone());
                Ok(vec![ShipmentReplanned { order_id, revision, released, shipment }.into()])
            }
            Status::Dispatched { .. } | Status::Settled { .. } => Err(Rejection::AlreadyDispatched { shipment_id: id }),
        }
    }

    fn mark_ready(&self, id: ShipmentId, revision: u32) -> Result<Vec<Event>, Rejection> {
        match &self.status {
            Status::Planned(_) if self.is_held() => Err(Rejection::Held { shipment_id: id }),
            Status::Planned(_) | Status::Ready(_) if revision != self.revision => Err(self.replanned(id)),
            Status::Planned(planned) => Ok(vec![ShipmentReady { order_id: planned.order_id }.into()]),
            Status::Ready(_) | Status::Dispatched { .. } | Status::Settled { .. } => Ok(vec![]),
            Status::Unplanned => Err(Rejection::NotPlanned { shipment_id: id }),
            Status::Cancelled => Err(Rejection::Cancelled { shipment_id: id }),
        }
    }

    /// Also before it was planned: it is planned to wait.
    fn hold(&self, id: ShipmentId, order_id: OrderId, hold: u32) -> Result<Vec<Event>, Rejection> {
        match &self.status {
            Status::Unplanned | Status::Planned(_) | Status::Ready(_) => {
                let is_known = hold <= self.held.max(self.released);
                Ok(if is_known { vec![] } else { vec![ShipmentHeld { order_id, hold }.into()] })
            }
            Status::Cancelled => Ok(vec![]),
            Status::Dispatched { .. } | Status::Settled { .. } => Err(Rejection::AlreadyDispatched { shipment_id: id }),
        }
    }

    /// Also before the hold, which then does nothing when it comes.
    fn release(&self, order_id: OrderId, hold: u32) -> Vec<Event> {
        let can_wait = matches!(self.status, Status::Unplanned | Status::Planned(_) | Status::Ready(_));
        if can_wait && hold > self.released { vec![ShipmentReleased { order_id, hold }.into()] } else { vec![] }
    }

    fn replanned(&self, shipment_id: ShipmentId) -> Rejection {
        Rejection::Replanned { shipment_id, revision: self.revision }
    }

    fn dispatch(&self, id: ShipmentId, revision: u32, tracking: &str) -> Result<Vec<Event>, Rejection> {
        if !(1..=64).contains(&tracking.len()) || !tracking.bytes().all(|b| b.is_ascii_graphic()) {
            let faults = vec![Fault::new("tracking", "1 to 64 printable ASCII characters without blanks")];
            return Err(Rejection::Invalid { faults });
        }
        match &self.status {
            Status::Planned(_) | Status::Ready(_) if self.is_held() => Err(Rejection::Held { shipment_id: id }),
            Status::Planned(_) | Status::Ready(_) if revision != self.revision => Err(self.replanned(id)),
            Status::Planned(planned) | Status::Ready(planned) => {
                let ShipmentPlanned { order_id, shipment, .. } = &**planned;
                Ok(vec![
                    ShipmentDispatched {
                        order_id: *order_id,
                        customer_id: shipment.customer_id,
                        tracking: tracking.to_owned(),
                        lines: shipment.lines.clone(),
                        captures: shipment.captures.clone(),
                        unreserved: shipment.unreserved,
                    }
                    .into(),
                ])
            }
            Status::Dispatched { tracking: before, .. } | Status::Settled { tracking: before, .. } => {
                if before == tracking {
                    Ok(vec![])
                } else {
                    Err(Rejection::OtherTracking { shipment_id: id, tracking: before.clone() })
                }
            }
            Status::Unplanned => Err(Rejection::NotPlanned { shipment_id: id }),
            Status::Cancelled => Err(Rejection::Cancelled { shipment_id: id }),
        }
    }

    fn settled(
        &self,
        id: ShipmentId,
        outcome: Outcome,
        event: impl FnOnce(OrderId, Vec<LineNo>) -> Event,
    ) -> Result<Vec<Event>, Rejection> {
        match &self.status {
            Status::Dispatched { planned, .. } => {
                let lines = planned.shipment.lines.iter().map(|l| l.line).collect();
                Ok(vec![event(planned.order_id, lines)])
            }
            Status::Settled { outcome: before, .. } if *before == outcome => Ok(vec![]),
            Status::Settled { outcome, .. } => Err(Rejection::OtherOutcome { shipment_id: id, outcome: *outcome }),
            Status::Unplanned => Err(Rejection::NotPlanned { shipment_id: id }),
            Status::Planned(_) | Status::Ready(_) => Err(Rejection::NotDispatched { shipment_id: id }),
            Status::Cancelled => Err(Rejection::Cancelled { shipment_id: id }),
        }
    }
}
