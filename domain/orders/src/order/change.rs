//! What is decided over an order and its shipments at once: cancellations, an edit's confirmation, another address.

use super::event::{AddressChanged, CancelReason, Event, LinesCancelled, ShipmentOrder};
use super::rejection::Rejection;
use super::state::{Order, Status};
use crate::Fault;
use crate::id::{AddressId, LineNo, OrderId, ShipmentId};
use crate::shipment::{self, Shipment};
use std::borrow::Borrow;
use std::collections::BTreeSet;

/// A change of an order that its shipments have to be part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Cancel { reason: CancelReason },
    CancelLines { lines: Vec<LineNo>, reason: CancelReason },
    ConfirmEdit { edit: u32 },
    ChangeAddress { address_id: AddressId },
}

/// What a change writes: to the order's stream, and to each of its shipments' in the order they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub order: Vec<Event>,
    pub shipments: Vec<Vec<shipment::Event>>,
}

/// What happens to an order, and the shipments that it has after that.
pub(super) struct Next {
    pub(super) events: Vec<Event>,
    pub(super) shipments: Vec<ShipmentOrder>,
}

impl Order {
    /// Changes the order `id` with its shipments, which are those of [`Order::shipment_ids`], all or nothing.
    ///
    /// All is written in one append, so that a dispatch of the same moment either comes first, and the change is
    /// refused, or finds its shipment changed.
    ///
    /// # Errors
    /// When a shipment is dispatched, or the order's state forbids it.
    pub fn change<S: Borrow<Shipment>>(
        &self,
        id: OrderId,
        shipments: &[(ShipmentId, S)],
        change: &Change,
    ) -> Result<Changed, Rejection> {
        let unchanged = || Changed { order: vec![], shipments: vec![vec![]; shipments.len()] };
        if self.placed.is_none() {
            return Err(Rejection::NotPlaced { order_id: id });
        }
        match (self.status, change) {
            (Status::Unplaced | Status::Placed | Status::Confirmed, _) => {}
            (Status::Cancelled, Change::Cancel { .. }) => return Ok(unchanged()),
            (status, _) => return Err(Rejection::Ended { order_id: id, status }),
        }
        let Some(Next { events, shipments: after }) = self.changed(id, change)? else { return Ok(unchanged()) };
        let released = self.times_held - u32::from(!self.holds.is_empty());
        let decided = shipments.iter().map(|(shipment_id, shipment)| {
            let command = match after.iter().find(|s| s.shipment_id == *shipment_id) {
                Some(shipment) => shipment::Command::Replan { order_id: id, released, shipment: shipment.clone() },
                None => shipment::Command::Cancel { order_id: id },
            };
            let shipment: &Shipment = shipment.borrow();
            (*shipment_id, shipment.decide(*shipment_id, &command).ok())
        });
        let (mut changed, mut waiting, mut dispatched) = (Vec::new(), Vec::new(), None);
        let sellers = self.sellers();
        let has_lines = |shipment_id| sellers.iter().any(|seller| ShipmentId::of_seller(id, *seller) == shipment_id);
        for (shipment_id, events) in decided {
            match events {
                Some(events) => {
                    waiting.extend(has_lines(shipment_id).then_some(shipment_id));
                    changed.push(events);
                }
                None => dispatched = dispatched.or(Some(shipment_id)),
            }
        }
        match dispatched {
            Some(shipment_id) => Err(Rejection::AlreadyDispatched { shipment_id, waiting }),
            None => Ok(Changed { order: self.with_what_follows(id, events), shipments: changed }),
        }
    }

    /// What follows for the order and its shipments; `None` if nothing changes.
    fn changed(&self, id: OrderId, change: &Change) -> Result<Option<Next>, Rejection> {
        match change {
            Change::Cancel { reason } => Ok(Some(Next { events: self.cancelled(*reason), shipments: vec![] })),
            Change::CancelLines { lines, reason } => self.cancel_lines(id, lines, *reason),
            Change::ConfirmEdit { edit } => self.confirm_edit(id, *edit),
            Change::ChangeAddress { address_id } if self.address() == Some(*address_id) => Ok(None),
            Change::ChangeAddress { address_id } => {
                let after = Self { address: Some(*address_id), ..self.clone() };
                let events = vec![AddressChanged { address_id: *address_id }.into()];
                Ok(Some(Next { events, shipments: after.shipments(id) }))
            }
        }
    }

    fn cancel_lines(&self, id: OrderId, lines: &[LineNo], reason: CancelReason) -> Result<Option<Next>, Rejection> {
        let unknown = lines.iter().enumerate().filter(|(_, line)| self.line(**line).is_none());
        let faults: Vec<Fault> =
            unknown.map(|(i, _)| Fault::new(format!("lines[{i}]"), "a line of the order")).collect();
        if !faults.is_empty() {
            return Err(Rejection::Invalid { faults });
        }
        let gone: BTreeSet<LineNo> = lines.iter().copied().filter(|line| self.has_line(*line)).collect();
        if gone.is_empty() {
            return Ok(None);
        }
        if self.lines().all(|l| gone.contains(&l.line)) {
            return Ok(Some(Next { events: self.cancelled(reason), shipments: vec![] }));
        }
        if self.is_history {
            return Err(Rejection::Imported { order_id: id });
        }
        if let Some(edit) = &self.edit {
            return Err(Rejection::EditOpen { order_id: id, edit: edit.proposed.edit });
        }
        if self.payments_secured && !self.unanswered.is_empty() {
            return Err(Rejection::BeingReserved { order_id: id });
        }
        let gone: Vec<LineNo> = gone.into_iter().collect();
        let mut after = self.clone();
        after.remove(&gone);
        let (Some(placed), Some(totals)) = (&self.placed, after.totals()) else {
            return Err(Rejection::NotPlaced { order_id: id });
        };
        let shipments = after.shipments(id);
        let cancelled = LinesCancelled {
            reason,
            customer_id: placed.customer_id,
            released: self.reserved().into_iter().filter(|l| gone.contains(&l.line)).collect(),
            totals,
            payments: after.unneeded(&shipments),
            lines: gone,
        };
        Ok(Some(Next { events: vec![cancelled.into()], shipments }))
    }
}
