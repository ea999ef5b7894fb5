//! What can be asked of an order.

use super::event::{OrderLine, OrderPayment, OrderTotals, PaymentMethod, Rounding, SellerShipping};
use crate::Fault;
use crate::id::{AddressId, CustomerId, LineNo, OrderId, PaymentId, SellerId, ShipmentId, Sku};
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
    /// Nobody has decided on an approval in time.
    TimeOutApproval {
        approval: u32,
    },
    /// Nobody has tried to pay for the order in time.
    Expire,
    /// A shipment of the order has arrived.
    RecordDelivery {
        shipment_id: ShipmentId,
        lines: Vec<LineNo>,
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
const MAX_LINES: usize = 200;
const MAX_PAYMENTS: usize = 20;

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
        for (i, line) in self.lines.iter().enumerate() {
            line.check(&format!("lines[{i}]"), &mut faults);
        }
        let sellers: BTreeSet<SellerId> = self.lines.iter().map(|l| l.seller_id).collect();
        let mut seen = BTreeSet::new();
        for (i, shipping) in self.shipping.iter().enumerate() {
            if !sellers.contains(&shipping.seller_id) || !seen.insert(shipping.seller_id) {
                faults.push(Fault::new(format!("shipping[{i}].seller_id"), "each seller of a line at most once"));
            }
            not_negative(shipping.amount, || format!("shipping[{i}].amount"), &mut faults);
        }
        if self.payments.len() > MAX_PAYMENTS {
            faults.push(Fault::new("payments", format!("at most {MAX_PAYMENTS} payments")));
        }
        for (i, payment) in self.payments.iter().enumerate() {
            payment.check(&format!("payments[{i}]"), &mut faults);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let totals = self.totals().ok_or_else(|| vec![Fault::new("lines", "a total below 2^63 minor units")])?;
        let paid = Amount::sum(self.payments.iter().map(|p| p.amount));
        if paid != Some(totals.total) {
            let expected = format!("amounts that add up to the total of {}", totals.total.display(self.currency));
            return Err(vec![Fault::new("payments", expected)]);
        }
        Ok(Checked { lines: self.numbered_lines(), totals, payments: self.numbered_payments(order) })
    }

    fn totals(&self) -> Option<OrderTotals> {
        let goods = self.lines.iter().map(|l| l.unit_price.checked_mul(l.quantity)).collect::<Option<Vec<_>>>()?;
        let goods = Amount::sum(goods)?;
        let discount = Amount::sum(self.lines.iter().map(|l| l.discount))?;
        let tax = Amount::sum(self.lines.iter().map(|l| l.tax))?;
        let shipping = Amount::sum(self.shipping.iter().map(|s| s.amount))?;
        let total = goods.checked_sub(discount)?.checked_add(tax)?.checked_add(shipping)?;
        Some(OrderTotals { goods, discount, tax, shipping, total })
    }

    fn numbered_lines(&self) -> Vec<OrderLine> {
        (1..)
            .zip(&self.lines)
            .map(|(line, l)| OrderLine {
                line,
                sku: l.sku.clone(),
                seller_id: l.seller_id,
                quantity: l.quantity,
                unit_price: l.unit_price,
                discount: l.discount,
                tax: l.tax,
            })
            .collect()
    }

    fn numbered_payments(&self, order: OrderId) -> Vec<OrderPayment> {
        self.payments
            .iter()
            .enumerate()
            .map(|(n, p)| OrderPayment {
                payment_id: PaymentId::of_order(order, n),
                method: p.method.clone(),
                amount: p.amount,
            })
            .collect()
    }
}

/// What a well-formed [`PlaceOrder`] comes to.
pub(super) struct Checked {
    pub(super) lines: Vec<OrderLine>,
    pub(super) totals: OrderTotals,
    pub(super) payments: Vec<OrderPayment>,
}

impl PlaceLine {
    fn check(&self, at: &str, faults: &mut Vec<Fault>) {
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
        let kind = &self.method.kind;
        let is_code = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !(1..=32).contains(&kind.len()) || !kind.bytes().all(is_code) {
            faults.push(Fault::new(format!("{at}.method.kind"), "1 to 32 of a-z, 0-9 and underscore"));
        }
        let token = &self.method.token;
        if !(1..=128).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
            faults.push(Fault::new(format!("{at}.method.token"), "1 to 128 printable ASCII characters"));
        }
    }
}

fn not_negative(amount: Amount, field: impl FnOnce() -> String, faults: &mut Vec<Fault>) {
    if amount < Amount::ZERO {
        faults.push(Fault::new(field(), "zero or more"));
    }
}
