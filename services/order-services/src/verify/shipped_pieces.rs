//! Invariant 24: of each line of an order, shipped ≤ ordered − cancelled, and returned ≤ shipped, in pieces.

use super::Check;
use super::business::{Invariant, Unread, id, is_imported, is_of, pieces_by_line};
use super::read_models::list;
use runtime::verify::log::Row;
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

pub(super) struct ShippedPieces {
    check: Check,
    /// They are kept for as long as the log goes on: a return may come at any time. An order that was called off keeps
    /// no line, so that none of it can be shipped.
    orders: HashMap<Uuid, Order>,
}

#[derive(Default)]
struct Order {
    lines: Vec<Line>,
    edit: Option<Edit>,
}

struct Line {
    line: u64,
    /// 0, once the line is cancelled or edited away.
    ordered: i128,
    shipped: i128,
    /// Returned by the customer, lost, or returned to the sender.
    back: i128,
}

/// An edit that is proposed, and neither confirmed nor discarded.
struct Edit {
    remove: Vec<u64>,
    add: Vec<(u64, i128)>,
}

impl Invariant for ShippedPieces {
    fn check(&mut self) -> &mut Check {
        &mut self.check
    }

    fn fold(&mut self, event: &Row, payload: &Value, unread: &Unread) -> Option<()> {
        if is_of(event, "order") && !unread.has(event.stream_id) {
            self.of_order(event, payload)
        } else if is_of(event, "shipment") && event.event_type == "ShipmentDispatched" {
            self.dispatched(event, payload, unread)
        } else {
            Some(())
        }
    }
}

impl ShippedPieces {
    pub(super) fn new() -> Self {
        Self { check: Check::new("shipped pieces"), orders: HashMap::new() }
    }

    fn of_order(&mut self, event: &Row, payload: &Value) -> Option<()> {
        if event.event_type == "OrderPlaced" {
            let lines = pieces_by_line(payload, "lines")?.into_iter().map(Line::ordered).collect();
            self.orders.insert(event.stream_id, Order { lines, edit: None });
            return Some(());
        }
        let order = self.orders.entry(event.stream_id).or_default();
        let touched: Vec<u64> = match &*event.event_type {
            "EditProposed" => {
                order.edit = Some(Edit { remove: numbers(payload, "remove")?, add: pieces_by_line(payload, "add")? });
                vec![]
            }
            "EditDiscarded" => {
                order.edit = None;
                vec![]
            }
            "EditConfirmed" => {
                let Some(Edit { remove, add }) = order.edit.take() else { return Some(()) };
                order.cancel(&remove);
                order.lines.extend(add.into_iter().map(Line::ordered));
                remove
            }
            "LinesCancelled" => {
                let gone = numbers(payload, "lines")?;
                order.cancel(&gone);
                gone
            }
            // A history may tell that an order was cancelled after it was shipped.
            "OrderCancelled" if is_imported(event) => vec![],
            "OrderCancelled" | "OrderRejected" | "OrderExpired" => {
                let all: Vec<u64> = order.lines.iter().map(|line| line.line).collect();
                order.cancel(&all);
                compare(&mut self.check, event, event.stream_id, order, &all);
                order.lines = vec![];
                return Some(());
            }
            // A history may tell that lines have arrived before it tells of their shipment.
            "LinesDelivered" if is_imported(event) => {
                let arrived = numbers(payload, "lines")?;
                order.each(&arrived, |line| line.shipped = line.shipped.max(line.ordered));
                arrived
            }
            "ReturnReceived" => {
                let came = pieces_by_line(payload, "lines")?;
                for (no, pieces) in &came {
                    order.line(*no).back += pieces;
                }
                came.into_iter().map(|(line, _)| line).collect()
            }
            // A line is lost, or comes back, as it was shipped: whole.
            "LinesLost" | "LinesReturnedToSender" => {
                let gone = numbers(payload, "lines")?;
                order.each(&gone, |line| line.back += line.ordered);
                gone
            }
            _ => return Some(()),
        };
        compare(&mut self.check, event, event.stream_id, order, &touched);
        Some(())
    }

    fn dispatched(&mut self, event: &Row, payload: &Value, unread: &Unread) -> Option<()> {
        let (order_id, sent) = (id(payload, "order_id")?, pieces_by_line(payload, "lines")?);
        if unread.has(order_id) {
            return Some(());
        }
        let order = self.orders.entry(order_id).or_default();
        for (no, pieces) in &sent {
            let line = order.line(*no);
            // What a history tells of a line's arrival has counted it already.
            line.shipped = if is_imported(event) { line.shipped.max(*pieces) } else { line.shipped + pieces };
        }
        let sent: Vec<u64> = sent.into_iter().map(|(line, _)| line).collect();
        compare(&mut self.check, event, order_id, order, &sent);
        Some(())
    }

    pub(super) fn finish(self) -> Check {
        self.check
    }
}

impl Line {
    fn ordered((line, ordered): (u64, i128)) -> Self {
        Self { line, ordered, shipped: 0, back: 0 }
    }
}

impl Order {
    /// The line of this number; of one that the order has not, nothing was ordered.
    fn line(&mut self, no: u64) -> &mut Line {
        let at = self.lines.iter().position(|line| line.line == no);
        let at = at.unwrap_or_else(|| {
            self.lines.push(Line::ordered((no, 0)));
            self.lines.len() - 1
        });
        &mut self.lines[at]
    }

    fn each(&mut self, numbers: &[u64], change: impl Fn(&mut Line)) {
        numbers.iter().for_each(|no| change(self.line(*no)));
    }

    fn cancel(&mut self, numbers: &[u64]) {
        self.each(numbers, |line| line.ordered = 0);
    }
}

/// Compares those lines of the order that the event has changed.
fn compare(check: &mut Check, event: &Row, id: Uuid, order: &Order, touched: &[u64]) {
    for Line { line, ordered, shipped, back } in order.lines.iter().filter(|line| touched.contains(&line.line)) {
        check.checked += 1;
        let position = event.position;
        if shipped > ordered {
            check.differs(|| {
                format!(
                    "after position {position}, {shipped} pieces of line {line} of order {id} are shipped, and {ordered} \
                     ordered and not cancelled"
                )
            });
        }
        if back > shipped {
            check.differs(|| {
                format!("after position {position}, {back} pieces of line {line} of order {id} came back, of {shipped}")
            });
        }
    }
}

fn numbers(payload: &Value, field: &str) -> Option<Vec<u64>> {
    list(payload, field)?.iter().map(Value::as_u64).collect()
}
