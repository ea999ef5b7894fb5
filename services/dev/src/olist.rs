//! Real orders in the public Olist CSV format, as orders to place: what `daybook demo --orders-from DIR` drives. As
//! history, they are in `import/`.
//!
//! The recorded status is not replayed: a cancelled order with items and fitting payments is placed like any other.
//! What cannot be placed, or is left out, is listed with the reason; nothing is dropped in silence.

mod amount;
mod file;
mod ids;
pub mod import;
mod problem;
mod rows;
mod table;
#[cfg(test)]
mod tests;

pub use amount::Amounts;
pub use file::{CellError, OlistError, TidiedAmount};
pub use ids::IdOf;
pub use problem::Problem;
pub use table::{Figures, Table};

use orders::id::{AddressId, CustomerId, OrderId, SellerId};
use orders::money::{Amount, Currency};
use orders::order::{PaymentMethod, PlaceLine, PlaceOrder, PlacePayment, SellerShipping};
use rows::{ItemRow, OrderRow, PaymentRow, Rows};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use uuid::Uuid;

/// What a folder of Olist files holds.
#[derive(Debug)]
pub struct Sample {
    /// The orders to place, as they stand in the orders file.
    pub orders: Vec<Order>,
    /// The orders that cannot be placed, as they stand in the orders file.
    pub not_taken: Vec<NotTaken>,
    /// Payments of 0.00 of the orders to place; nothing can be authorised for them, so they are left out.
    pub zero_payments: Vec<ZeroPayment>,
    /// Amounts of the orders to place that a spreadsheet has written.
    pub tidied: Vec<TidiedAmount>,
    pub orphans: Orphans,
    rows: Rows,
}

/// One order of the files, as the command that places it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The order's id as the file writes it.
    pub olist_id: String,
    pub order_id: OrderId,
    pub place: PlaceOrder,
}

/// An order that cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    pub olist_id: String,
    pub why: Why,
}

/// Why an order cannot be placed; amounts are in centavos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    NoItems { paid: Amount },
    NoPayments { owed: Amount },
    PaymentsDiffer { owed: Amount, paid: Amount },
}

/// A payment of 0.00.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroPayment {
    pub olist_id: String,
    pub sequential: u32,
    pub kind: String,
}

/// How many rows name an order that the orders file does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Orphans {
    pub items: usize,
    pub payments: usize,
}

/// Reads the orders, items and payments files of `dir`.
///
/// # Errors
/// When a file or a column is missing, or a cell is not what its column holds.
pub fn read(dir: &Path) -> Result<Sample, OlistError> {
    let currency = "BRL".parse()?;
    Ok(Sample::of(Rows::read(dir)?, currency))
}

impl Sample {
    /// What the files say, from their rows and not from the commands, so that each can be checked against the other.
    pub fn expected(&self) -> Table {
        Table::of(&self.rows, &self.not_taken)
    }

    fn of(rows: Rows, currency: Currency) -> Self {
        let by_order = rows.by_order();
        let (mut orders, mut not_taken) = (Vec::new(), Vec::new());
        let (mut zero_payments, mut tidied) = (Vec::new(), Vec::new());
        for order in &rows.orders {
            let (items, payments) = (by_order.items(order.id), by_order.payments(order.id));
            if let Some(why) = why_not(items, payments) {
                not_taken.push(NotTaken { olist_id: order.olist_id.clone(), why });
                continue;
            }
            zero_payments.extend(payments.iter().filter(|p| p.amount == Amount::ZERO).map(|p| zero_payment(order, p)));
            tidied.extend(items.iter().flat_map(|i| &i.tidied).chain(payments.iter().flat_map(|p| &p.tidied)).cloned());
            let place = place(order.customer, currency, items, payments);
            orders.push(Order { olist_id: order.olist_id.clone(), order_id: order.id, place });
        }
        let orphans = by_order.orphans();
        Self { orders, not_taken, zero_payments, tidied, orphans, rows }
    }
}

/// What the domain would refuse in these rows. It wants payments to the cent: an order that is a cent off would be
/// captured a cent off, and no ledger could say whose cent that is.
fn why_not(items: &[&ItemRow], payments: &[&PaymentRow]) -> Option<Why> {
    let owed = rows::sum(items.iter().flat_map(|i| [i.price, i.freight]));
    let paid = rows::sum(payments.iter().map(|p| p.amount));
    match (items, payments) {
        ([], _) => Some(Why::NoItems { paid }),
        (_, []) => Some(Why::NoPayments { owed }),
        _ if owed != paid => Some(Why::PaymentsDiffer { owed, paid }),
        _ => None,
    }
}

fn place(customer_id: CustomerId, currency: Currency, items: &[&ItemRow], payments: &[&PaymentRow]) -> PlaceOrder {
    PlaceOrder {
        customer_id,
        currency,
        // The files have no addresses; a customer's is the same however often they are read.
        shipping_address_id: AddressId(Uuid::new_v5(&customer_id.0, b"address")),
        billing_address_id: None,
        lines: items.iter().map(|i| line(i)).collect(),
        shipping: shipping(items),
        payments: payments.iter().filter(|p| p.amount > Amount::ZERO).map(|p| payment(p)).collect(),
        rounding: Default::default(),
        backorder: false,
        approval_within_seconds: None,
    }
}

fn line(item: &ItemRow) -> PlaceLine {
    PlaceLine {
        sku: item.sku.clone(),
        seller_id: item.seller,
        quantity: 1,
        unit_price: item.price,
        discount: Amount::ZERO,
        tax: Amount::ZERO,
    }
}

/// The freight of each seller, in the order of their first lines.
fn shipping(items: &[&ItemRow]) -> Vec<SellerShipping> {
    let mut sellers: Vec<SellerId> = Vec::new();
    for item in items {
        if !sellers.contains(&item.seller) {
            sellers.push(item.seller);
        }
    }
    let freight = |seller| rows::sum(items.iter().filter(|i| i.seller == seller).map(|i| i.freight));
    sellers.into_iter().map(|seller_id| SellerShipping { seller_id, amount: freight(seller_id) }).collect()
}

fn payment(row: &PaymentRow) -> PlacePayment {
    let method = PaymentMethod { kind: row.kind.clone(), token: format!("tok_approve_{}", row.kind) };
    PlacePayment { method, amount: row.amount }
}

fn zero_payment(order: &OrderRow, row: &PaymentRow) -> ZeroPayment {
    ZeroPayment { olist_id: order.olist_id.clone(), sequential: row.sequential, kind: row.kind.clone() }
}

impl Why {
    /// The reason without its figures, to count by.
    pub fn kind(self) -> &'static str {
        match self {
            Self::NoItems { .. } => "no_items",
            Self::NoPayments { .. } => "no_payments",
            Self::PaymentsDiffer { .. } => "payments_differ",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoItems { paid } => write!(f, "has no items, though {} was paid", reais(paid)),
            Self::NoPayments { owed } => write!(f, "has no payments, though {} is owed", reais(owed)),
            Self::PaymentsDiffer { owed, paid } => write!(f, "{} is owed, but {} was paid", reais(owed), reais(paid)),
        }
    }
}

/// Never negative: the files hold no sign.
fn reais(amount: Amount) -> String {
    format!("{}.{:02} BRL", amount.0 / 100, amount.0 % 100)
}
