//! What an order consists of as it stands: its lines, what they cost, who ships them, and what is captured for that.

use super::event::{CaptureShare, OrderLine, OrderPayment, OrderTotals, SellerShipping, ShipmentOrder, StockLine};
use super::state::{Order, Status};
use crate::id::{AddressId, CaptureId, LineNo, OrderId, PaymentId, SellerId, ShipmentId};
use crate::money::Amount;
use std::collections::BTreeSet;

impl Order {
    /// All lines that it has or had.
    pub(super) fn all_lines(&self) -> impl Iterator<Item = &OrderLine> {
        self.placed.iter().flat_map(|placed| &placed.lines).chain(&self.added)
    }

    /// The lines that were neither cancelled nor edited away.
    pub fn lines(&self) -> impl Iterator<Item = &OrderLine> {
        self.all_lines().filter(|l| !self.removed.contains(&l.line))
    }

    pub(super) fn line(&self, line: LineNo) -> Option<&OrderLine> {
        self.all_lines().find(|l| l.line == line)
    }

    pub(super) fn has_line(&self, line: LineNo) -> bool {
        self.lines().any(|l| l.line == line)
    }

    /// The pieces of these lines.
    pub(super) fn pieces(&self, of: impl Fn(LineNo) -> bool) -> Vec<StockLine> {
        self.all_lines().filter(|l| of(l.line)).map(OrderLine::pieces).collect()
    }

    /// What is reserved as far as the order knows, or waits for stock.
    pub(super) fn reserved(&self) -> Vec<StockLine> {
        self.lines().filter(|l| !self.unanswered.contains(&l.line)).map(OrderLine::pieces).collect()
    }

    /// The lines that wait for stock and are still wanted.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = LineNo> {
        self.waiting.iter().copied().filter(|line| self.has_line(*line))
    }

    /// Whether the line has arrived, or never will.
    pub(super) fn is_settled(&self, line: LineNo) -> bool {
        self.delivered.contains(&line) || self.undelivered.contains(&line)
    }

    /// The payments that are needed, as far as the order knows.
    pub(super) fn payments(&self) -> impl Iterator<Item = &OrderPayment> {
        let all = self.placed.iter().flat_map(|placed| &placed.payments).chain(&self.more_payments);
        all.filter(|p| !self.let_go.contains(&p.payment_id))
    }

    pub(super) fn payment_ids(&self) -> Vec<PaymentId> {
        self.payments().map(|p| p.payment_id).collect()
    }

    /// What is authorised, or is to be.
    pub(crate) fn to_be_paid(&self) -> Amount {
        Amount::saturating_sum(self.payments().map(|p| p.amount))
    }

    pub(super) fn address(&self) -> Option<AddressId> {
        self.address.or(self.placed.as_ref().map(|placed| placed.shipping_address_id))
    }

    /// What each seller takes for shipping that has a line left.
    pub(crate) fn shipping(&self) -> Vec<SellerShipping> {
        let placed = || self.placed.as_ref().map(|placed| &placed.shipping);
        let shipping = self.shipping.as_ref().or_else(placed).into_iter().flatten();
        shipping.filter(|s| self.lines().any(|l| l.seller_id == s.seller_id)).cloned().collect()
    }

    /// What it costs; `None` if that is more than there are minor units, which no order comes to.
    pub(super) fn totals(&self) -> Option<OrderTotals> {
        OrderTotals::of(self.lines(), &self.shipping())
    }

    /// The sellers in the order of their first line.
    pub(crate) fn sellers(&self) -> Vec<SellerId> {
        distinct(self.lines().map(|l| l.seller_id))
    }

    /// The order's shipments, once it is confirmed; before that, it has none. Those are among them of sellers that have
    /// no line left.
    pub fn shipment_ids(&self, id: OrderId) -> Vec<ShipmentId> {
        match self.status {
            Status::Confirmed | Status::Completed => {
                let sellers = distinct(self.all_lines().map(|l| l.seller_id));
                sellers.into_iter().map(|seller| ShipmentId::of_seller(id, seller)).collect()
            }
            Status::Unplaced | Status::Placed | Status::Cancelled | Status::Rejected | Status::Expired => vec![],
        }
    }

    /// A shipment for each seller, with what to capture for it: the payments are used up one after the other.
    ///
    /// An imported order was paid as its payments say, more or less than it costs: what is left of them in the end was
    /// for the last shipment. Its stock was never reserved here.
    pub(super) fn shipments(&self, order: OrderId) -> Vec<ShipmentOrder> {
        let (Some(placed), Some(address_id)) = (&self.placed, self.address()) else { return vec![] };
        let mut left: Vec<OrderPayment> = self.payments().cloned().collect();
        let shipment = |seller_id: SellerId| {
            let shipment_id = ShipmentId::of_seller(order, seller_id);
            let lines = self.lines().filter(|l| l.seller_id == seller_id);
            ShipmentOrder {
                shipment_id,
                seller_id,
                customer_id: placed.customer_id,
                address_id,
                captures: take(&mut left, self.owed_for(seller_id), shipment_id),
                lines: lines.map(OrderLine::pieces).collect(),
                unreserved: self.is_history,
            }
        };
        let mut shipments: Vec<ShipmentOrder> = self.sellers().into_iter().map(shipment).collect();
        if let Some(last) = shipments.last_mut().filter(|_| self.is_history) {
            let rest = take(&mut left, Amount(i64::MAX), last.shipment_id);
            for share in rest {
                match last.captures.iter_mut().find(|c| c.payment_id == share.payment_id) {
                    Some(before) => before.amount = before.amount.saturating_add(share.amount),
                    None => last.captures.push(share),
                }
            }
        }
        shipments
    }

    /// What the lines and the shipping of a seller cost. It fits: the total of the order, which is no less, does.
    fn owed_for(&self, seller: SellerId) -> Amount {
        let goods = self.lines().filter(|l| l.seller_id == seller).map(OrderLine::cost);
        let shipping = self.shipping().into_iter().filter(|s| s.seller_id == seller).map(|s| s.amount);
        Amount::saturating_sum(goods.chain(shipping))
    }

    /// The payments of which nothing is captured for any of `shipments`.
    pub(super) fn unneeded(&self, shipments: &[ShipmentOrder]) -> Vec<PaymentId> {
        let captured: BTreeSet<PaymentId> =
            shipments.iter().flat_map(|s| &s.captures).map(|capture| capture.payment_id).collect();
        self.payments().map(|p| p.payment_id).filter(|id| !captured.contains(id)).collect()
    }
}

impl OrderLine {
    /// The pieces to reserve and to ship.
    pub(super) fn pieces(&self) -> StockLine {
        StockLine { line: self.line, sku: self.sku.clone(), quantity: self.quantity }
    }

    /// What the line costs. It fits: it was checked when the line was taken.
    pub(super) fn cost(&self) -> Amount {
        self.unit_price.saturating_mul(self.quantity).saturating_sub(self.discount).saturating_add(self.tax)
    }
}

impl OrderTotals {
    /// What lines and shipping come to, if it fits.
    pub(super) fn of<'a>(lines: impl IntoIterator<Item = &'a OrderLine>, shipping: &[SellerShipping]) -> Option<Self> {
        let (mut goods, mut discount, mut tax) = (Amount::ZERO, Amount::ZERO, Amount::ZERO);
        for line in lines {
            goods = goods.checked_add(line.unit_price.checked_mul(line.quantity)?)?;
            discount = discount.checked_add(line.discount)?;
            tax = tax.checked_add(line.tax)?;
        }
        let shipping = Amount::sum(shipping.iter().map(|s| s.amount))?;
        let total = goods.checked_sub(discount)?.checked_add(tax)?.checked_add(shipping)?;
        Some(Self { goods, discount, tax, shipping, total })
    }
}

fn distinct(sellers: impl Iterator<Item = SellerId>) -> Vec<SellerId> {
    let mut distinct = Vec::new();
    for seller in sellers {
        if !distinct.contains(&seller) {
            distinct.push(seller);
        }
    }
    distinct
}

/// Takes `owed` from what is left of the payments, in their order.
fn take(left: &mut [OrderPayment], mut owed: Amount, shipment: ShipmentId) -> Vec<CaptureShare> {
    let mut shares = Vec::new();
    for payment in left {
        let amount = payment.amount.min(owed);
        if amount > Amount::ZERO {
            payment.amount = payment.amount.saturating_sub(amount);
            owed = owed.saturating_sub(amount);
            let capture_id = CaptureId::of_shipment(payment.payment_id, shipment);
            shares.push(CaptureShare { payment_id: payment.payment_id, capture_id, amount });
        }
    }
    shares
}
