//! What happened, added up beside the aggregates: invariants 21 to 24 after every event.

use super::*;
use crate::order::{CaptureShare, EditProposed, OrderLine, OrderTotals, RefundShare};
use crate::payment::Event as P;

#[derive(Default)]
pub(super) struct Books {
    authorised: BTreeMap<PaymentId, i64>,
    captures: BTreeMap<CaptureId, Taking>,
    refunds: BTreeMap<RefundId, Taking>,
    /// The refunds that wait for a capture.
    pub(super) deferred: BTreeSet<RefundId>,
    /// The payments whose money is not wanted any more.
    pub(super) let_go: BTreeSet<PaymentId>,
    /// By what is captured for a shipment: how much it is, and what of that is to be given back.
    pub(super) sold: BTreeMap<CaptureId, (i64, i64)>,
    /// What is captured for each shipment.
    captures_of: BTreeMap<ShipmentId, Vec<CaptureShare>>,
    /// Money was not taken or not given back, and somebody knows: it was declined, or a follow-up was parked.
    pub(super) is_short_of_money: bool,
    shipped: BTreeMap<LineNo, u32>,
    returned: BTreeMap<LineNo, u32>,
    /// At the stock: what each line holds, which wait, and whose time was over.
    pub(super) held: BTreeMap<LineNo, u32>,
    pub(super) waiting: BTreeSet<LineNo>,
    pub(super) expired: BTreeSet<LineNo>,
    /// What should be on hand, as far as goods have moved.
    pub(super) on_hand: BTreeMap<Sku, i64>,
    /// The lines that wait as the order knows it.
    pub(super) on_backorder: BTreeSet<LineNo>,
    pub(super) edit: Option<EditProposed>,
}

/// A capture or a refund: of which payment, how much, and whether it was done.
struct Taking {
    payment: PaymentId,
    amount: i64,
    is_done: Option<bool>,
}

/// What those of the takings of a payment come to that may have been done.
fn sum(takings: &BTreeMap<impl Ord, Taking>, payment: PaymentId, may_be: bool) -> i64 {
    let counts = |t: &&Taking| t.payment == payment && (t.is_done == Some(true) || may_be && t.is_done.is_none());
    takings.values().filter(counts).map(|t| t.amount).sum()
}

/// What a line costs.
pub(super) fn cost(line: &OrderLine) -> i64 {
    line.unit_price.0 * i64::from(line.quantity) - line.discount.0 + line.tax.0
}

impl Books {
    /// Takes in an event, of which `order` knows nothing yet.
    pub(super) fn take_in(&mut self, event: &Event, order: &Order) {
        match event {
            Event::Order(_, event) => self.of_order(event, order),
            Event::Payment(id, event) => self.of_payment(*id, event),
            Event::Stock(_, event) => self.of_stock(event),
            Event::Shipment(id, event) => self.of_shipment(*id, event, order),
        }
    }

    fn of_order(&mut self, event: &order::Event, before: &Order) {
        use order::Event as E;
        match event {
            E::OrderPlaced(e) => adds_up(&e.lines, e.shipping.iter().map(|s| s.amount.0).sum(), e.totals),
            E::OrderRejected(e) => self.let_go.extend(&e.payments),
            E::OrderCancelled(e) => self.let_go.extend(&e.payments),
            E::OrderExpired(e) => self.let_go.extend(&e.payments),
            E::LinesCancelled(e) => {
                let after = then(before, std::slice::from_ref(event));
                adds_up(after.lines(), after.shipping().iter().map(|s| s.amount.0).sum(), e.totals);
                self.on_backorder.retain(|line| !e.lines.contains(line));
                self.let_go.extend(&e.payments);
            }
            E::EditProposed(e) => self.edit = Some(e.clone()),
            E::EditDiscarded(e) => {
                self.edit = None;
                self.let_go.extend(&e.payments);
            }
            E::EditConfirmed(e) => {
                let after = then(before, std::slice::from_ref(event));
                adds_up(after.lines(), after.shipping().iter().map(|s| s.amount.0).sum(), e.totals);
                self.edit = None;
                self.let_go.extend(&e.payments);
            }
            E::LinesBackordered(e) => self.on_backorder.extend(e.short.iter().map(|l| l.line)),
            E::BackorderFilled(e) => self.on_backorder.retain(|line| !e.lines.contains(line)),
            E::ReturnReceived(e) => {
                e.lines.iter().for_each(|l| self.comes_back(l.line, l.quantity));
                self.restock(&e.restock);
                self.give_back(&e.refunds);
            }
            E::LinesLost(e) => self.give_all_back(e.shipment_id, &e.refunds),
            E::LinesReturnedToSender(e) => {
                e.restock.iter().for_each(|l| self.comes_back(l.line, l.quantity));
                self.restock(&e.restock);
                self.give_all_back(e.shipment_id, &e.refunds);
            }
            _ => {}
        }
    }

    /// Invariant 24.
    fn comes_back(&mut self, line: LineNo, quantity: u32) {
        let returned = self.returned.entry(line).or_default();
        *returned += quantity;
        let shipped = self.shipped.get(&line).copied().unwrap_or_default();
        assert!(*returned <= shipped, "{returned} of {shipped} pieces of line {line} came back");
    }

    fn restock(&mut self, lines: &[StockLine]) {
        lines.iter().for_each(|l| *self.on_hand.entry(l.sku.clone()).or_default() += i64::from(l.quantity));
    }

    fn give_back(&mut self, refunds: &[RefundShare]) {
        for share in refunds {
            let (taken, given_back) = self.sold.get_mut(&share.capture_id).expect("it was shipped");
            *given_back += share.amount.0;
            assert!(given_back <= taken, "{share:?}: {given_back} of {taken}");
        }
    }

    fn give_all_back(&mut self, shipment: ShipmentId, refunds: &[RefundShare]) {
        self.give_back(refunds);
        for capture in &self.captures_of[&shipment] {
            let (taken, given_back) = self.sold[&capture.capture_id];
            assert_eq!(given_back, taken, "what did not arrive is not paid");
        }
    }

    /// Invariant 22.
    fn of_payment(&mut self, payment: PaymentId, event: &P) {
        let asked = |amount: Amount| Taking { payment, amount: amount.0, is_done: None };
        match event {
            P::PaymentAuthorised(e) => assert_eq!(self.authorised.insert(payment, e.amount.0), None),
            P::CaptureRequested(e) => assert!(self.captures.insert(e.capture_id, asked(e.amount)).is_none()),
            P::PaymentCaptured(e) => done(&mut self.captures, &e.capture_id, true),
            P::CaptureDeclined(e) => {
                done(&mut self.captures, &e.capture_id, false);
                self.is_short_of_money = true;
            }
            P::RefundDeferred(e) => assert!(self.deferred.insert(e.refund_id)),
            P::RefundRequested(e) => {
                self.deferred.remove(&e.refund_id);
                assert!(self.refunds.insert(e.refund_id, asked(e.amount)).is_none());
            }
            P::PaymentRefunded(e) => done(&mut self.refunds, &e.refund_id, true),
            P::RefundDropped(e) => {
                self.deferred.remove(&e.refund_id);
                self.is_short_of_money = true;
            }
            P::RefundDeclined(_) | P::VoidDeclined(_) => panic!("the provider does not decline it: {event:?}"),
            _ => {}
        }
        let authorised = self.authorised.get(&payment).copied().unwrap_or_default();
        assert!(sum(&self.captures, payment, true) <= authorised, "{event:?}");
        assert!(sum(&self.refunds, payment, true) <= sum(&self.captures, payment, false), "{event:?}");
    }

    /// Invariant 21: a line holds pieces once.
    fn of_stock(&mut self, event: &stock::Event) {
        use stock::Event as E;
        match event {
            E::StockReceived(e) => *self.on_hand.entry(e.sku.clone()).or_default() += i64::from(e.quantity),
            E::StockAdjusted(e) => *self.on_hand.entry(e.sku.clone()).or_default() += e.by,
            E::StockReserved(e) => {
                for l in &e.lines {
                    assert_eq!(self.held.insert(l.line, l.quantity), None, "{l:?} was reserved twice");
                    assert!(!self.shipped.contains_key(&l.line), "{l:?} is shipped already");
                    self.waiting.remove(&l.line);
                }
            }
            E::StockBackordered(e) => self.waiting.extend(e.lines.iter().map(|l| l.line)),
            E::BackorderNeedless(e) => e.lines.iter().for_each(|l| assert!(self.held.contains_key(&l.line))),
            E::BackorderDropped(e) => self.waiting.retain(|line| !e.lines.iter().any(|l| l.line == *line)),
            E::StockCommitted(e) => {
                for l in &e.lines {
                    assert_eq!(self.held.remove(&l.line), Some(l.quantity));
                    assert_eq!(self.shipped.get(&l.line), Some(&l.quantity), "what goes out was dispatched");
                }
            }
            E::StockReleased(e) => e.lines.iter().for_each(|l| assert!(self.held.remove(&l.line).is_some())),
            E::StockExpired(e) => {
                e.lines.iter().for_each(|l| assert!(self.held.remove(&l.line).is_some()));
                self.expired.extend(e.lines.iter().map(|l| l.line));
            }
            E::StockRestocked(_) => {}
        }
    }

    /// Invariants 23 and 24: what is shipped is what was ordered and not cancelled, and is to be paid as it costs.
    fn of_shipment(&mut self, id: ShipmentId, event: &shipment::Event, order: &Order) {
        let shipment::Event::ShipmentDispatched(e) = event else { return };
        assert_eq!(order.status, Status::Confirmed);
        let seller = order.lines().find(|l| l.line == e.lines[0].line).expect("a line of the order").seller_id;
        let lines: Vec<&OrderLine> = order.lines().filter(|l| l.seller_id == seller).collect();
        let ordered: Vec<_> = lines.iter().map(|l| (l.line, &l.sku, l.quantity)).collect();
        assert_eq!(e.lines.iter().map(|l| (l.line, &l.sku, l.quantity)).collect::<Vec<_>>(), ordered);
        let shipping: i64 = order.shipping().iter().filter(|s| s.seller_id == seller).map(|s| s.amount.0).sum();
        let taken: i64 = e.captures.iter().map(|c| c.amount.0).sum();
        assert_eq!(taken, lines.iter().map(|l| cost(l)).sum::<i64>() + shipping);
        for capture in &e.captures {
            assert_eq!(self.sold.insert(capture.capture_id, (capture.amount.0, 0)), None, "it was shipped twice");
        }
        self.captures_of.insert(id, e.captures.clone());
        for l in &e.lines {
            assert_eq!(self.shipped.insert(l.line, l.quantity), None, "line {} was shipped twice", l.line);
            *self.on_hand.entry(l.sku.clone()).or_default() -= i64::from(l.quantity);
        }
    }

    /// Takes in that a command was refused: money that is to be taken or given back then is not, and it is parked.
    pub(super) fn refused(&mut self, command: &Command) {
        use payment::Command as C;
        if let Command::Payment { command: C::Capture { .. } | C::Refund { .. }, .. } = command {
            self.is_short_of_money = true;
        }
    }

    pub(super) fn captured(&self, payment: PaymentId) -> i64 {
        sum(&self.captures, payment, false)
    }

    pub(super) fn refunded(&self, payment: PaymentId) -> i64 {
        sum(&self.refunds, payment, false)
    }

    /// What the seller may keep of each capture that was done.
    pub(super) fn earned(&self) -> BTreeMap<CaptureId, i64> {
        let done = self.captures.iter().filter(|(_, capture)| capture.is_done == Some(true));
        let earned = |(id, capture): (&CaptureId, &Taking)| {
            let (taken, given_back) = self.sold[id];
            (*id, if self.let_go.contains(&capture.payment) { 0 } else { taken - given_back })
        };
        done.map(earned).collect()
    }
}

fn done<Id: Ord>(takings: &mut BTreeMap<Id, Taking>, id: &Id, is_done: bool) {
    let taking = takings.get_mut(id).expect("it was asked for");
    assert_eq!(taking.is_done.replace(is_done), None, "it has one outcome");
}

fn adds_up<'a>(lines: impl IntoIterator<Item = &'a OrderLine>, shipping: i64, totals: OrderTotals) {
    let total = totals.goods.0 - totals.discount.0 + totals.tax.0 + totals.shipping.0;
    assert_eq!((totals.total.0, totals.shipping.0), (total, shipping));
    assert_eq!(total, lines.into_iter().map(cost).sum::<i64>() + shipping);
}
