//! Invariant 22: captured ≤ authorised and refunded ≤ captured, of each payment and each capture; one capture for each
//! capture id, one refund for each refund id.

use super::Check;
use super::business::{Invariant, Unread, amount, id, is_imported, is_of};
use runtime::verify::log::Row;
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

pub(super) struct PaymentAmounts {
    check: Check,
    /// The payments of which money can still be taken or given back. Of any other one nothing is authorised, so that a
    /// capture or a refund of it is a difference, whether it is kept or not.
    payments: HashMap<Uuid, Payment>,
}

#[derive(Default)]
struct Payment {
    order: Uuid,
    asked: i128,
    authorised: i128,
    captured: i128,
    refunded: i128,
    captures: Vec<Capture>,
    refunds: Vec<Uuid>,
}

struct Capture {
    id: Uuid,
    amount: i128,
    refunded: i128,
}

/// What is left of an order's payments.
#[derive(Default)]
pub(super) struct Left {
    /// Captured, and not given back.
    pub(super) taken: i128,
    /// Authorised, and neither captured nor let go.
    pub(super) held: i128,
}

impl Invariant for PaymentAmounts {
    fn check(&mut self) -> &mut Check {
        &mut self.check
    }

    fn fold(&mut self, event: &Row, payload: &Value, unread: &Unread) -> Option<()> {
        if !is_of(event, "payment") || unread.has(event.stream_id) {
            return Some(());
        }
        let (position, payment_id) = (event.position, event.stream_id);
        match &*event.event_type {
            "PaymentRequested" => {
                let (order, asked) = (id(payload, "order_id")?, amount(payload, "amount")?);
                // A history need not tell that the money was authorised. It may take what was asked for.
                let authorised = if is_imported(event) { asked } else { 0 };
                self.payments.insert(payment_id, Payment { order, asked, authorised, ..Payment::default() });
            }
            "PaymentAuthorised" => {
                let authorised = amount(payload, "amount")?;
                self.check.checked += 1;
                let payment = self.payments.entry(payment_id).or_default();
                payment.authorised = authorised;
                let asked = payment.asked;
                if authorised > asked {
                    self.check.differs(|| {
                        format!("position {position} authorises {authorised} of {payment_id}, of which {asked} was asked for")
                    });
                }
            }
            "PaymentDeclined" => _ = self.payments.remove(&payment_id),
            "PaymentVoided" => {
                // What was captured before stays captured. No more can be.
                if let Some(payment) = self.payments.get_mut(&payment_id) {
                    payment.authorised = payment.captured;
                }
            }
            "PaymentCaptured" => {
                let (capture, amount) = (id(payload, "capture_id")?, amount(payload, "amount")?);
                self.capture(position, payment_id, capture, amount);
            }
            "PaymentRefunded" => {
                let (refund, capture) = (id(payload, "refund_id")?, id(payload, "capture_id")?);
                self.refund(position, payment_id, refund, capture, amount(payload, "amount")?);
            }
            _ => return Some(()),
        }
        let is_over = |p: &Payment| p.captured == p.authorised && p.refunded == p.captured;
        if event.event_type != "PaymentRequested" && self.payments.get(&payment_id).is_some_and(is_over) {
            self.payments.remove(&payment_id);
        }
        Some(())
    }
}

impl PaymentAmounts {
    pub(super) fn new() -> Self {
        Self { check: Check::new("payment amounts"), payments: HashMap::new() }
    }

    fn capture(&mut self, position: i64, payment_id: Uuid, capture_id: Uuid, amount: i128) {
        self.check.checked += 1;
        let payment = self.payments.entry(payment_id).or_default();
        let (authorised, before) = (payment.authorised, payment.captured);
        payment.captured += amount;
        if payment.captured > authorised {
            self.check.differs(|| {
                format!(
                    "position {position} captures {amount} of {payment_id}, of which {authorised} is authorised and \
                     {before} captured before"
                )
            });
        }
        if payment.captures.iter().any(|capture| capture.id == capture_id) {
            self.check.differs(|| format!("position {position} captures {capture_id} of {payment_id} once more"));
        } else {
            payment.captures.push(Capture { id: capture_id, amount, refunded: 0 });
        }
    }

    fn refund(&mut self, position: i64, payment_id: Uuid, refund_id: Uuid, capture_id: Uuid, amount: i128) {
        self.check.checked += 1;
        let payment = self.payments.entry(payment_id).or_default();
        payment.refunded += amount;
        if payment.refunds.contains(&refund_id) {
            self.check.differs(|| format!("position {position} gives {refund_id} of {payment_id} back once more"));
        }
        payment.refunds.push(refund_id);
        let capture = payment.captures.iter_mut().find(|capture| capture.id == capture_id);
        let (captured, before) = capture.as_ref().map_or((0, 0), |capture| (capture.amount, capture.refunded));
        if let Some(capture) = capture {
            capture.refunded += amount;
        }
        // The captures of a payment add up to what is captured of it, so that this bounds its refunds as well.
        if before + amount > captured {
            self.check.differs(|| {
                format!(
                    "position {position} gives back {amount} of capture {capture_id}, of which {captured} is captured \
                     and {before} given back before"
                )
            });
        }
    }

    /// What is left of each order's payments, if anything is. Nothing is said of a payment that has an event that could
    /// not be read.
    pub(super) fn left(&self, unread: &Unread) -> HashMap<Uuid, Left> {
        let mut left: HashMap<Uuid, Left> = HashMap::new();
        for (_, payment) in self.payments.iter().filter(|(id, _)| !unread.has(**id)) {
            let of_order = left.entry(payment.order).or_default();
            of_order.taken += payment.captured - payment.refunded;
            of_order.held += payment.authorised - payment.captured;
        }
        left
    }

    pub(super) fn finish(self) -> Check {
        self.check
    }
}
