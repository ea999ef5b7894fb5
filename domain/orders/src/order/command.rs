//! What can be asked of an order.

use super::event::{
    HoldReason, OrderLine, OrderPayment, OrderTotals, PaymentMethod, ReceivedLine, ReturnLine, ReturnReason, Rounding,
    SellerShipping,
};
use super::hold::approval_fault;
use crate::Fault;
use crate::id::{AddressId, CustomerId, LineNo, OrderId, PaymentId, ReceiptId, SellerId, ShipmentId, Sku};
use crate::money::{Amount, Currency};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Place(PlaceOrder),
    /// A payment of the order has been authorised.
    RecordPaymentAuthorised {
        payment_id: PaymentId,
    },
    /// A payment of the order has been declined.
    RecordPaymentDeclined {
        payment_id: PaymentId,
        reason: String,
    },
    /// All lines of the order are reserved.
    RecordStockReserved,
    /// The order's lines could not be reserved, for these were short.
    RecordShortage {
        short: Vec<LineNo>,
    },
    /// These lines waited for stock, and are reserved now.
    RecordBackorderFilled {
        lines: Vec<LineNo>,
    },
    /// All lines of an edit are reserved.
    RecordEditReserved {
        edit: u32,
    },
    /// The lines of an edit could not be reserved, for these were short.
    RecordEditShortage {
        edit: u32,
        short: Vec<LineNo>,
    },
    /// A shipment of the order has arrived.
    RecordDelivery {
        shipment_id: ShipmentId,
        lines: Vec<LineNo>,
    },
    /// A shipment of the order was lost on its way.
    RecordLoss {
        shipment_id: ShipmentId,
        lines: Vec<LineNo>,
    },
    /// A shipment of the order could not be delivered, and came back.
    RecordReturnedToSender {
        shipment_id: ShipmentId,
        lines: Vec<LineNo>,
    },
    /// The order is not to go on for now. Each reason holds it by itself.
    PlaceHold {
        reason: HoldReason,
    },
    ReleaseHold {
        reason: HoldReason,
    },
    /// A person is to decide within so many seconds, five days at most, whether the order may go on.
    RequestApproval {
        within_seconds: u32,
    },
    GrantApproval {
        approval: u32,
    },
    DenyApproval {
        approval: u32,
    },
    /// Nobody has decided on an approval in time.
    TimeOutApproval {
        approval: u32,
    },
    /// Nobody has tried to pay for the order in time.
    Expire,
    /// The order is to become another one. Nothing changes until it is confirmed.
    ProposeEdit(ProposeEdit),
    DiscardEdit {
        edit: u32,
    },
    /// The customer wants to send pieces back that have arrived.
    RequestReturn {
        lines: Vec<ReturnLine>,
        reason: ReturnReason,
    },
    ApproveReturn {
        return_no: u32,
    },
    /// Pieces of a return came back with this parcel.
    ReceiveReturn {
        return_no: u32,
        receipt_id: ReceiptId,
        lines: Vec<ReceivedLine>,
    },
}

/// A new order. Amounts are in minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder {
    pub customer_id: CustomerId,
    pub currency: Currency,
    pub shipping_address_id: AddressId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_address_id: Option<AddressId>,
    /// Numbered from 1 in the order given.
    pub lines: Vec<PlaceLine>,
    /// What each seller takes for shipping; a seller that is not named takes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shipping: Vec<SellerShipping>,
    /// Add up to the order's total; none for an order that costs nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<PlacePayment>,
    /// How the tax amounts were rounded.
    #[serde(default)]
    pub rounding: Rounding,
    /// Whether lines that there is too little stock for wait for more, or else end the order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backorder: bool,
    /// A person is to decide within so many seconds whether it may go on, as if [`Command::RequestApproval`] had come with
    /// it: asked for later, it may be confirmed by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_within_seconds: Option<u32>,
}

/// What is to change about an order. Another quantity is a line removed and a line added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposeEdit {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<LineNo>,
    /// Numbered on from the last line that the order or a proposal of it has had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<PlaceLine>,
    /// What each seller takes for shipping after the edit; a seller that is not named takes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shipping: Vec<SellerShipping>,
    /// Add up to what the order costs more than is authorised; none if it does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<PlacePayment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceLine {
    pub sku: Sku,
    pub seller_id: SellerId,
    pub quantity: u32,
    /// For one piece.
    pub unit_price: Amount,
    /// For the whole line.
    #[serde(default)]
    pub discount: Amount,
    /// For the whole line, on top of the price.
    #[serde(default)]
    pub tax: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacePayment {
    pub method: PaymentMethod,
    pub amount: Amount,
}

/// More than anyone orders, and few enough that no event of the order is larger than the log takes.
pub(super) const MAX_LINES: usize = 200;
pub(super) const MAX_PAYMENTS: usize = 20;

impl PlaceOrder {
    /// The order's numbered lines, totals and payments.
    ///
    /// # Errors
    /// Every field that is wrong, with what it should be.
    pub(super) fn checked(&self, order: OrderId) -> Result<Checked, Vec<Fault>> {
        let mut faults = Vec::new();
        if self.lines.is_empty() || self.lines.len() > MAX_LINES {
            faults.push(Fault::new("lines", format!("1 to {MAX_LINES} lines")));
        }
        check_lines("lines", &self.lines, &mut faults);
        check_shipping(&self.shipping, &self.lines.iter().map(|l| l.seller_id).collect(), &mut faults);
        if self.payments.len() > MAX_PAYMENTS {
            faults.push(Fault::new("payments", format!("at most {MAX_PAYMENTS} payments")));
        }
        check_payments(&self.payments, &mut faults);
        if let Some(within_seconds) = self.approval_within_seconds {
            faults.extend(approval_fault("approval_within_seconds", within_seconds));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let lines = numbered_lines(&self.lines, 1);
        let totals = OrderTotals::of(&lines, &self.shipping).ok_or_else(|| vec![too_large("lines")])?;
        let paid = Amount::sum(self.payments.iter().map(|p| p.amount));
        if paid != Some(totals.total) {
            let expected = format!("amounts that add up to the total of {}", totals.total.display(self.currency));
            return Err(vec![Fault::new("payments", expected)]);
        }
        Ok(Checked { lines, totals, payments: numbered_payments(&self.payments, order, 0) })
    }
}

/// What lines come to that cost more than there are minor units.
pub(super) fn too_large(field: &str) -> Fault {
    Fault::new(field, "a total below 2^63 minor units")
}

pub(super) fn check_lines(field: &str, lines: &[PlaceLine], faults: &mut Vec<Fault>) {
    for (i, line) in lines.iter().enumerate() {
        line.check(&format!("{field}[{i}]"), faults);
    }
}

pub(super) fn check_shipping(shipping: &[SellerShipping], sellers: &BTreeSet<SellerId>, faults: &mut Vec<Fault>) {
    let mut seen = BTreeSet::new();
    for (i, shipping) in shipping.iter().enumerate() {
        if !sellers.contains(&shipping.seller_id) || !seen.insert(shipping.seller_id) {
            faults.push(Fault::new(format!("shipping[{i}].seller_id"), "each seller of a line at most once"));
        }
        not_negative(shipping.amount, || format!("shipping[{i}].amount"), faults);
    }
}

pub(super) fn check_payments(payments: &[PlacePayment], faults: &mut Vec<Fault>) {
    for (i, payment) in payments.iter().enumerate() {
        payment.check(&format!("payments[{i}]"), faults);
    }
}

/// The lines with their numbers, from `first`.
pub(super) fn numbered_lines(lines: &[PlaceLine], first: LineNo) -> Vec<OrderLine> {
    let numbered = |(line, l): (LineNo, &PlaceLine)| OrderLine {
        line,
        sku: l.sku.clone(),
        seller_id: l.seller_id,
        quantity: l.quantity,
        unit_price: l.unit_price,
        discount: l.discount,
        tax: l.tax,
    };
    (first..).zip(lines).map(numbered).collect()
}

/// The payments with their ids, which are derived from their numbers, from `first`.
pub(super) fn numbered_payments(payments: &[PlacePayment], order: OrderId, first: usize) -> Vec<OrderPayment> {
    let numbered = |(n, p): (usize, &PlacePayment)| OrderPayment {
        payment_id: PaymentId::of_order(order, n),
        method: p.method.clone(),
        amount: p.amount,
    };
    (first..).zip(payments).map(numbered).collect()
}

/// What a well-formed [`PlaceOrder`] comes to.
pub(super) struct Checked {
    pub(super) lines: Vec<OrderLine>,
    pub(super) totals: OrderTotals,
    pub(super) payments: Vec<OrderPayment>,
}

impl PlaceLine {
    pub(super) fn check(&self, at: &str, faults: &mut Vec<Fault>) {
        if self.quantity == 0 {
            faults.push(Fault::new(format!("{at}.quantity"), "1 or more"));
        }
        not_negative(self.unit_price, || format!("{at}.unit_price"), faults);
        not_negative(self.discount, || format!("{at}.discount"), faults);
        not_negative(self.tax, || format!("{at}.tax"), faults);
        let goods = self.unit_price.checked_mul(self.quantity);
        if goods.is_some_and(|goods| goods >= Amount::ZERO && self.discount > goods) {
            faults.push(Fault::new(format!("{at}.discount"), "no more than quantity times unit price"));
        }
    }
}

impl PlacePayment {
    fn check(&self, at: &str, faults: &mut Vec<Fault>) {
        if self.amount <= Amount::ZERO {
            faults.push(Fault::new(format!("{at}.amount"), "more than zero"));
        }
        self.method.check(at, faults);
    }
}

impl PaymentMethod {
    pub(super) fn check(&self, at: &str, faults: &mut Vec<Fault>) {
        let is_code = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !(1..=32).contains(&self.kind.len()) || !self.kind.bytes().all(is_code) {
            faults.push(Fault::new(format!("{at}.method.kind"), "1 to 32 of a-z, 0-9 and underscore"));
        }
        if !(1..=128).contains(&self.token.len()) || !self.token.bytes().all(|b| b.is_ascii_graphic()) {
            faults.push(Fault::new(format!("{at}.method.token"), "1 to 128 printable ASCII characters"));
        }
    }
}

pub(super) fn not_negative(amount: Amount, field: impl FnOnce() -> String, faults: &mut Vec<Fault>) {
    if amount < Amount::ZERO {
        faults.push(Fault::new(field(), "zero or more"));
    }
}
