//! A payment's history in another system, recorded as facts: that its events have the shape of one is checked, that
//! they could have come about here is not.

use super::{Event, Payment};
use crate::Fault;
use crate::id::{CaptureId, OrderId};
use crate::money::{Amount, Currency};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

impl Payment {
    /// Whether `events` can be the whole history of a payment.
    ///
    /// # Errors
    /// Every field that is wrong, with what it should be.
    pub fn check_history(events: &[Event]) -> Result<(), Vec<Fault>> {
        let Some((Event::PaymentRequested(request), rest)) = events.split_first() else {
            return Err(vec![Fault::new("events[0]", "PaymentRequested")]);
        };
        let mut faults = Vec::new();
        let mut expect = |right: bool, field: String, expected: String| {
            if !right {
                faults.push(Fault::new(field, expected));
            }
        };
        expect(request.amount >= Amount::ZERO, "events[0].amount".into(), "zero or more".into());
        let mut captures: BTreeMap<CaptureId, Amount> = BTreeMap::new();
        let mut left = request.amount.0;
        for (i, event) in (1..).zip(rest) {
            let at = |field: &str| format!("events[{i}].{field}");
            let of = |order_id: OrderId| order_id == request.order_id;
            let is_currency = |currency: Currency| currency == request.currency;
            let (order, currency) = match event {
                Event::PaymentAuthorised(e) => {
                    expect(e.amount == request.amount, at("amount"), format!("the {} asked for", request.amount.0));
                    (of(e.order_id), is_currency(e.currency))
                }
                Event::CaptureRequested(e) => {
                    let all = Amount::sum(captures.values().copied().chain([e.amount]));
                    let fits = e.amount > Amount::ZERO && all.is_some_and(|all| all <= request.amount);
                    let is_new = captures.insert(e.capture_id, e.amount).is_none();
                    expect(is_new, at("capture_id"), "an id that no other capture has".into());
                    expect(fits, at("amount"), format!("with all captures 1 to {}", request.amount.0));
                    (of(e.order_id), is_currency(e.currency))
                }
                Event::PaymentCaptured(e) => {
                    let asked = captures.get(&e.capture_id) == Some(&e.amount);
                    expect(asked, at("capture_id"), "a capture that was asked for, with its amount".into());
                    left = left.saturating_sub(e.amount.0);
                    expect(e.left.0 == left, at("left"), format!("what is not captured yet, {left}"));
                    (of(e.order_id), is_currency(e.currency))
                }
                // Nobody has said yet what of the others is right by itself: no history has them.
                other => {
                    expect(
                        false,
                        format!("events[{i}]"),
                        format!("what a history may have, not {}", other.event_type()),
                    );
                    (true, true)
                }
            };
            expect(order, at("order_id"), format!("the payment's order, {}", request.order_id));
            expect(currency, at("currency"), format!("the payment's, {}", request.currency));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}
