//! Where a payment is, folded from its events.

use super::command::Call;
use super::event::{Event, PaymentRequested};
use crate::Aggregate;
use crate::id::{CaptureId, OrderId, PaymentId, RefundId};
use crate::money::Amount;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use uuid::Uuid;

/// Where the authorisation is in its life; how much of it is captured and given back, the captures and refunds say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is no such payment yet.
    #[default]
    Unrequested,
    Requested,
    /// To be let go once it is known what came of the authorisation, or of the captures under way.
    VoidDeferred,
    Authorised,
    Declined,
    /// Held for too long; what came of the captures under way is waited for, and no more is captured.
    ExpiryDeferred,
    /// Held for too long; what is held is being voided.
    AuthorisationExpired,
    VoidRequested,
    VoidDeclined,
    Voided,
}

impl Status {
    /// The word that it is stored and sent as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unrequested => "unrequested",
            Self::Requested => "requested",
            Self::VoidDeferred => "void_deferred",
            Self::Authorised => "authorised",
            Self::Declined => "declined",
            Self::ExpiryDeferred => "expiry_deferred",
            Self::AuthorisationExpired => "authorisation_expired",
            Self::VoidRequested => "void_requested",
            Self::VoidDeclined => "void_declined",
            Self::Voided => "voided",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A capture, requested or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Capture {
    pub(super) amount: Amount,
    pub(super) settled: Option<Settled>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Settled {
    Captured,
    Declined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refund {
    pub(super) id: RefundId,
    /// What it gives back from.
    pub(super) capture_id: CaptureId,
    pub(super) amount: Amount,
    pub(super) stage: RefundStage,
}

impl Refund {
    pub(super) fn new(id: RefundId, capture_id: CaptureId, amount: Amount, stage: RefundStage) -> Self {
        Self { id, capture_id, amount, stage }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefundStage {
    /// Waits for its capture.
    Deferred,
    Requested,
    Refunded,
    /// Declined, or dropped.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Payment {
    pub status: Status,
    pub(super) request: Option<PaymentRequested>,
    pub(super) captures: BTreeMap<CaptureId, Capture>,
    /// In the order in which they were asked for.
    pub(super) refunds: Vec<Refund>,
    /// The calls that the provider did not answer, and was not asked about with success since.
    pub(super) unknown: BTreeSet<Call>,
}

impl Payment {
    /// The order that it pays, once it is asked for.
    pub fn order_id(&self) -> Option<OrderId> {
        self.request.as_ref().map(|request| request.order_id)
    }

    /// The word for where it is: whatever is unknown comes first, then what is done with the money.
    pub fn as_str(&self) -> &'static str {
        let refunded = sum(self.refunds.iter().filter(|r| r.stage == RefundStage::Refunded).map(|r| r.amount));
        let captured = self.captured();
        if !self.unknown.is_empty() {
            "unknown"
        } else if captured == Amount::ZERO {
            self.status.as_str()
        } else if refunded == captured {
            "refunded"
        } else if refunded > Amount::ZERO {
            "partially_refunded"
        } else if self.request.as_ref().is_some_and(|request| request.amount == captured) {
            "captured"
        } else {
            "partially_captured"
        }
    }

    /// What the provider has handed over.
    pub(super) fn captured(&self) -> Amount {
        self.captures(Some(Settled::Captured))
    }

    /// What it is asked to hand over.
    pub(super) fn capturing(&self) -> Amount {
        self.captures(None)
    }

    pub(super) fn captures(&self, settled: Option<Settled>) -> Amount {
        sum(self.captures.values().filter(|c| c.settled == settled).map(|c| c.amount))
    }

    /// What of a capture is to be given back, or is: in any of these stages.
    pub(super) fn refunds(&self, capture_id: CaptureId, stages: &[RefundStage]) -> Amount {
        let of_capture = self.refunds.iter().filter(|r| r.capture_id == capture_id && stages.contains(&r.stage));
        sum(of_capture.map(|r| r.amount))
    }

    pub(super) fn refund_of(&self, id: RefundId) -> Option<&Refund> {
        self.refunds.iter().find(|r| r.id == id)
    }

    fn settle(&mut self, capture_id: CaptureId, settled: Settled) {
        self.unknown.remove(&Call::Capture { capture_id });
        if let Some(capture) = self.captures.get_mut(&capture_id) {
            capture.settled = Some(settled);
        }
    }

    /// Takes a refund to the stage that it has come to, or takes it in.
    fn refund_is(&mut self, refund: Refund) {
        match self.refunds.iter_mut().find(|r| r.id == refund.id) {
            Some(before) => before.stage = refund.stage,
            None => self.refunds.push(refund),
        }
    }

    fn refund_settles(&mut self, id: RefundId, stage: RefundStage) {
        self.unknown.remove(&Call::Refund { refund_id: id });
        self.refunds.iter_mut().filter(|r| r.id == id).for_each(|r| r.stage = stage);
    }
}

/// What is authorised bounds all but declined captures, of which there may be any number.
fn sum(amounts: impl Iterator<Item = Amount>) -> Amount {
    Amount::saturating_sum(amounts)
}

impl Aggregate for Payment {
    const CATEGORY: &'static str = "payment";
    type Event = Event;

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::PaymentRequested(request) => {
                self.status = Status::Requested;
                self.request = Some(request.clone());
            }
            Event::PaymentAuthorised(_) => {
                self.unknown.remove(&Call::Authorise);
                self.status = Status::Authorised;
            }
            Event::PaymentDeclined(_) => {
                self.unknown.remove(&Call::Authorise);
                self.status = Status::Declined;
            }
            Event::CaptureRequested(e) => {
                self.captures.insert(e.capture_id, Capture { amount: e.amount, settled: None });
            }
            Event::PaymentCaptured(e) => self.settle(e.capture_id, Settled::Captured),
            Event::CaptureDeclined(e) => self.settle(e.capture_id, Settled::Declined),
            Event::VoidDeferred(_) => self.status = Status::VoidDeferred,
            Event::ExpiryDeferred(_) => self.status = Status::ExpiryDeferred,
            Event::AuthorisationExpired(_) => self.status = Status::AuthorisationExpired,
            // What has expired is told as that until the void is done.
            Event::VoidRequested(_) if self.status == Status::AuthorisationExpired => {}
            Event::VoidRequested(_) => self.status = Status::VoidRequested,
            Event::VoidDeclined(_) => {
                self.unknown.remove(&Call::Void);
                self.status = Status::VoidDeclined;
            }
            Event::PaymentVoided(_) => {
                self.unknown.remove(&Call::Void);
                self.status = Status::Voided;
            }
            Event::RefundDeferred(e) => {
                self.refund_is(Refund::new(e.refund_id, e.capture_id, e.amount, RefundStage::Deferred));
            }
            Event::RefundRequested(e) => {
                self.refund_is(Refund::new(e.refund_id, e.capture_id, e.amount, RefundStage::Requested));
            }
            Event::RefundDropped(e) => {
                self.refund_is(Refund::new(e.refund_id, e.capture_id, e.amount, RefundStage::Failed));
            }
            Event::PaymentRefunded(e) => self.refund_settles(e.refund_id, RefundStage::Refunded),
            Event::RefundDeclined(e) => self.refund_settles(e.refund_id, RefundStage::Failed),
            Event::OutcomeUnknown(e) => _ = self.unknown.insert(e.call),
            Event::CallRetried(e) => _ = self.unknown.remove(&e.call),
        }
    }

    fn event_of(event: &crate::Event) -> Option<&Event> {
        match event {
            crate::Event::Payment(_, event) => Some(event),
            crate::Event::Order(..) | crate::Event::Stock(..) | crate::Event::Shipment(..) => None,
        }
    }

    fn event(id: Uuid, event: Event) -> crate::Event {
        crate::Event::Payment(PaymentId(id), event)
    }
}
