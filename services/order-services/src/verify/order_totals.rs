//! Invariant 23: the lines, tax, shipping and discounts of an order add up to its total, as it is placed and after every
//! change; and its payments add up to what is owed.

use super::Check;
use super::business::{Invariant, Unread, amount, id, is_imported, is_of};
use super::read_models::list;
use runtime::verify::log::Row;
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

pub(super) struct OrderTotals {
    check: Check,
    /// The orders that have not ended. A total does not change after that.
    orders: HashMap<Uuid, Order>,
}

struct Order {
    lines: Vec<Line>,
    /// What each seller takes.
    shipping: Vec<(Uuid, i128)>,
    /// The payments that were not let go.
    payments: Vec<(Uuid, i128)>,
    edit: Option<Edit>,
}

#[derive(Clone)]
struct Line {
    line: u64,
    seller: Uuid,
    goods: i128,
    discount: i128,
    tax: i128,
}

/// An edit that is proposed, and neither confirmed nor discarded.
struct Edit {
    remove: Vec<u64>,
    add: Vec<Line>,
    shipping: Vec<(Uuid, i128)>,
    payments: Vec<(Uuid, i128)>,
}

impl Invariant for OrderTotals {
    fn check(&mut self) -> &mut Check {
        &mut self.check
    }

    fn fold(&mut self, event: &Row, payload: &Value, unread: &Unread) -> Option<()> {
        if is_of(event, "payment") && event.event_type == "PaymentRequested" {
            return self.requested(event, payload, unread);
        }
        if !is_of(event, "order") || unread.has(event.stream_id) {
            return Some(());
        }
        if event.event_type == "OrderPlaced" {
            return self.placed(event, payload);
        }
        let Some(order) = self.orders.get_mut(&event.stream_id) else { return Some(()) };
        let mut add_up = |order: &Order| add_up(&mut self.check, event, order, payload);
        match &*event.event_type {
            "EditProposed" => {
                let edit = Edit {
                    remove: numbers(payload, "remove")?,
                    add: lines(payload, "add")?,
                    shipping: shipping(payload)?,
                    payments: payments(payload)?,
                };
                let after = order.after(&edit);
                add_up(&after)?;
                let (paid, asked) = (sum(&order.payments), sum(&edit.payments));
                let missing = (after.total() - paid).max(0);
                if asked != missing {
                    let (position, id) = (event.position, event.stream_id);
                    self.check.differs(|| {
                        format!(
                            "position {position} asks {asked} for an edit of order {id}, for which {missing} is missing"
                        )
                    });
                }
                order.edit = Some(edit);
            }
            "EditDiscarded" => order.edit = None,
            "EditConfirmed" => {
                if let Some(edit) = order.edit.take() {
                    let mut after = order.after(&edit);
                    after.payments = std::mem::take(&mut order.payments);
                    after.payments.extend(edit.payments);
                    *order = after;
                }
                order.let_go(payload)?;
                add_up(order)?;
            }
            "LinesCancelled" => {
                let gone = numbers(payload, "lines")?;
                order.lines.retain(|line| !gone.contains(&line.line));
                order.let_go(payload)?;
                add_up(order)?;
            }
            "OrderCompleted" | "OrderCancelled" | "OrderRejected" | "OrderExpired" => {
                self.orders.remove(&event.stream_id);
            }
            _ => {}
        }
        Some(())
    }
}

impl OrderTotals {
    pub(super) fn new() -> Self {
        Self { check: Check::new("order totals"), orders: HashMap::new() }
    }

    fn placed(&mut self, event: &Row, payload: &Value) -> Option<()> {
        let (lines, shipping, payments) = (lines(payload, "lines")?, shipping(payload)?, payments(payload)?);
        let order = Order { lines, shipping, payments, edit: None };
        add_up(&mut self.check, event, &order, payload)?;
        // An imported order was paid as its payments say, more or less than it costs. It is not edited here.
        if is_imported(event) {
            return Some(());
        }
        let (id, paid, total) = (event.stream_id, sum(&order.payments), order.total());
        if paid != total {
            self.check.differs(|| format!("the payments of order {id} add up to {paid}, and it costs {total}"));
        }
        self.orders.insert(id, order);
        Some(())
    }

    /// A payment is asked for as the order has it. Of an order that has ended this is not known any more.
    fn requested(&mut self, event: &Row, payload: &Value, unread: &Unread) -> Option<()> {
        let (position, payment) = (event.position, event.stream_id);
        if unread.has(payment) {
            return Some(());
        }
        let (order_id, asked) = (id(payload, "order_id")?, amount(payload, "amount")?);
        let Some(order) = self.orders.get(&order_id).filter(|_| !unread.has(order_id)) else { return Some(()) };
        let of_edit = order.edit.iter().flat_map(|edit| &edit.payments);
        let named = order.payments.iter().chain(of_edit).find(|(id, _)| *id == payment);
        if let Some((_, named)) = named.filter(|(_, named)| *named != asked) {
            self.check.differs(|| format!("position {position} asks {asked} of {payment}, the order {named}"));
        }
        Some(())
    }

    pub(super) fn finish(self) -> Check {
        self.check
    }
}

impl Order {
    /// What the edit makes of it, before anything is paid for that.
    fn after(&self, edit: &Edit) -> Self {
        let kept = self.lines.iter().filter(|line| !edit.remove.contains(&line.line));
        let lines = kept.chain(&edit.add).cloned().collect();
        Self { lines, shipping: edit.shipping.clone(), payments: vec![], edit: None }
    }

    /// Takes away the payments that the event lets go.
    fn let_go(&mut self, payload: &Value) -> Option<()> {
        let gone: Vec<Uuid> = list(payload, "payments")?.iter().map(uuid).collect::<Option<_>>()?;
        self.payments.retain(|(payment, _)| !gone.contains(payment));
        Some(())
    }

    fn sum(&self, of: impl Fn(&Line) -> i128) -> i128 {
        self.lines.iter().map(of).sum()
    }

    /// What the sellers take that have a line left.
    fn shipping(&self) -> i128 {
        let has_line = |seller: Uuid| self.lines.iter().any(|line| line.seller == seller);
        self.shipping.iter().filter(|(seller, _)| has_line(*seller)).map(|(_, amount)| amount).sum()
    }

    fn total(&self) -> i128 {
        self.sum(|line| line.goods - line.discount + line.tax) + self.shipping()
    }
}

/// Compares the totals that the event has with what the order comes to.
fn add_up(check: &mut Check, event: &Row, order: &Order, payload: &Value) -> Option<()> {
    check.checked += 1;
    let totals = payload.get("totals")?;
    let folded = [
        ("goods", order.sum(|line| line.goods)),
        ("discount", order.sum(|line| line.discount)),
        ("tax", order.sum(|line| line.tax)),
        ("shipping", order.shipping()),
        ("total", order.total()),
    ];
    for (name, folded) in folded {
        let told = amount(totals, name)?;
        if told != folded {
            let (position, id) = (event.position, event.stream_id);
            check
                .differs(|| format!("position {position}: {name} of order {id} is {told}, its lines come to {folded}"));
        }
    }
    Some(())
}

fn lines(payload: &Value, field: &str) -> Option<Vec<Line>> {
    let line = |line: &Value| {
        let quantity = u32::try_from(line.get("quantity")?.as_u64()?).ok()?;
        Some(Line {
            line: line.get("line")?.as_u64()?,
            seller: id(line, "seller_id")?,
            goods: amount(line, "unit_price")? * i128::from(quantity),
            discount: amount(line, "discount")?,
            tax: amount(line, "tax")?,
        })
    };
    list(payload, field)?.iter().map(line).collect()
}

fn shipping(payload: &Value) -> Option<Vec<(Uuid, i128)>> {
    let of_seller = |shipping: &Value| Some((id(shipping, "seller_id")?, amount(shipping, "amount")?));
    list(payload, "shipping")?.iter().map(of_seller).collect()
}

fn payments(payload: &Value) -> Option<Vec<(Uuid, i128)>> {
    let payment = |payment: &Value| Some((id(payment, "payment_id")?, amount(payment, "amount")?));
    list(payload, "payments")?.iter().map(payment).collect()
}

fn numbers(payload: &Value, field: &str) -> Option<Vec<u64>> {
    list(payload, field)?.iter().map(Value::as_u64).collect()
}

fn uuid(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}

fn sum(payments: &[(Uuid, i128)]) -> i128 {
    payments.iter().map(|(_, amount)| amount).sum()
}
