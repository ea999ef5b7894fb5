//! A shipment's history in another system, recorded as facts: that its events have the shape of one is checked, that
//! they could have come about here is not.

use super::{Event, Shipment};
use crate::Fault;

#[cfg(test)]
mod tests;

impl Shipment {
    /// Whether `events` can be the whole history of a shipment.
    ///
    /// # Errors
    /// Every field that is wrong, with what it should be.
    pub fn check_history(events: &[Event]) -> Result<(), Vec<Fault>> {
        let Some((Event::ShipmentPlanned(planned), rest)) = events.split_first() else {
            return Err(vec![Fault::new("events[0]", "ShipmentPlanned")]);
        };
        let mut faults = Vec::new();
        let shipment = &planned.shipment;
        if planned.revision != 1 {
            faults.push(Fault::new("events[0].revision", "1, the only plan"));
        }
        for (i, event) in (1..).zip(rest) {
            let mut expect = |right: bool, field: &str, expected: &str| {
                if !right {
                    faults.push(Fault::new(format!("events[{i}].{field}"), expected));
                }
            };
            match event {
                Event::ShipmentDispatched(e) => {
                    expect(e.order_id == planned.order_id, "order_id", "the order that it was planned for");
                    expect(e.customer_id == shipment.customer_id, "customer_id", "the customer of its plan");
                    expect(e.lines == shipment.lines, "lines", "the lines of its plan");
                    expect(e.captures == shipment.captures, "captures", "the captures of its plan");
                    expect(e.unreserved == shipment.unreserved, "unreserved", "as its plan has it");
                }
                Event::ShipmentDelivered(e) => {
                    let planned_lines = shipment.lines.iter().map(|l| l.line);
                    expect(e.order_id == planned.order_id, "order_id", "the order that it was planned for");
                    expect(planned_lines.eq(e.lines.iter().copied()), "lines", "the lines of its plan");
                }
                // Nobody has said yet what of the others is right by itself: no history has them.
                other => {
                    let expected = format!("what a history may have, not {}", other.event_type());
                    faults.push(Fault::new(format!("events[{i}]"), expected));
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}
