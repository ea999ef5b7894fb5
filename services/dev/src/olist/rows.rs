//! The rows of the three files that placing needs. The customers file and the time stamps are not read.

use super::Orphans;
use super::amount::Amounts;
use super::file::{self, CUSTOMER, Cell, CellError, OlistError, Reading, TidiedAmount};
use super::ids::{FileId, IdOf};
use super::problem::Problem;
use orders::id::{CustomerId, OrderId, SellerId, Sku};
use orders::money::Amount;
use std::collections::{HashMap, HashSet};
use std::path::Path;

pub(super) const ORDERS: &str = "olist_orders_dataset.csv";
pub(super) const ITEMS: &str = "olist_order_items_dataset.csv";
pub(super) const PAYMENTS: &str = "olist_order_payments_dataset.csv";

#[derive(Debug)]
pub(super) struct OrderRow {
    pub(super) olist_id: String,
    pub(super) id: OrderId,
    pub(super) customer: CustomerId,
}

#[derive(Debug)]
pub(super) struct ItemRow {
    pub(super) order: OrderId,
    /// From 1 within the order.
    pub(super) number: u32,
    pub(super) sku: Sku,
    pub(super) seller: SellerId,
    /// As the file writes it, if the seller's id is derived from that.
    pub(super) seller_name: Option<String>,
    pub(super) price: Amount,
    pub(super) freight: Amount,
    pub(super) tidied: Vec<TidiedAmount>,
}

#[derive(Debug)]
pub(super) struct PaymentRow {
    pub(super) order: OrderId,
    /// Its place among the payments of the order.
    pub(super) sequential: u32,
    pub(super) kind: String,
    pub(super) amount: Amount,
    pub(super) tidied: Vec<TidiedAmount>,
}

/// All rows, as they stand in the files. No key is there twice, and the amounts of a file add up to less than 2^63.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) orders: Vec<OrderRow>,
    pub(super) items: Vec<ItemRow>,
    pub(super) payments: Vec<PaymentRow>,
}

impl Rows {
    pub(super) fn read(dir: &Path) -> Result<Self, OlistError> {
        let mut reading = Reading::new(Amounts::Tidied);
        Ok(Self {
            orders: orders(dir, &mut reading)?,
            items: items(dir, &mut reading)?,
            payments: payments(dir, &mut reading)?,
        })
    }

    pub(super) fn by_order(&self) -> ByOrder<'_> {
        let mut groups: HashMap<_, Group<'_>> = self.orders.iter().map(|o| (o.id, Group::default())).collect();
        let mut orphans = Orphans::default();
        for item in &self.items {
            match groups.get_mut(&item.order) {
                Some(group) => group.items.push(item),
                None => orphans.items += 1,
            }
        }
        for payment in &self.payments {
            match groups.get_mut(&payment.order) {
                Some(group) => group.payments.push(payment),
                None => orphans.payments += 1,
            }
        }
        for group in groups.values_mut() {
            group.items.sort_by_key(|i| i.number);
            group.payments.sort_by_key(|p| p.sequential);
        }
        ByOrder { groups, orphans }
    }
}

#[derive(Default)]
struct Group<'a> {
    items: Vec<&'a ItemRow>,
    payments: Vec<&'a PaymentRow>,
}

/// The rows of each order, by their number in it: the payments file is in no order at all.
pub(super) struct ByOrder<'a> {
    groups: HashMap<OrderId, Group<'a>>,
    orphans: Orphans,
}

impl<'a> ByOrder<'a> {
    pub(super) fn items(&self, order: OrderId) -> &[&'a ItemRow] {
        self.groups.get(&order).map_or(&[], |g| &g.items)
    }

    pub(super) fn payments(&self, order: OrderId) -> &[&'a PaymentRow] {
        self.groups.get(&order).map_or(&[], |g| &g.payments)
    }

    pub(super) fn orphans(&self) -> Orphans {
        self.orphans
    }
}

/// The sum of amounts of one file. It cannot overflow: none is negative, and reading refused what all of them could
/// not be added to.
pub(super) fn sum(amounts: impl Iterator<Item = Amount>) -> Amount {
    Amount(amounts.map(|a| a.0).sum())
}

impl ItemRow {
    pub(super) const COLUMNS: [&'static str; 6] =
        ["order_id", "order_item_id", "product_id", "seller_id", "price", "freight_value"];

    /// The row of the cells of these columns; its amounts are added to `total`.
    pub(super) fn of(
        order: &FileId,
        cells: [Cell<'_>; 6],
        reading: &mut Reading,
        total: &mut Amount,
    ) -> Result<Self, CellError> {
        let [_, number, sku, seller, price, freight] = cells;
        let FileId { uuid, name } = seller.id(IdOf::Seller, reading)?;
        let mut tidied = Vec::new();
        Ok(Self {
            order: OrderId(order.uuid),
            number: number.number()?,
            sku: sku.sku()?,
            seller: SellerId(uuid),
            seller_name: name,
            price: price.amount(order, reading, total, &mut tidied)?,
            freight: freight.amount(order, reading, total, &mut tidied)?,
            tidied,
        })
    }
}

impl PaymentRow {
    pub(super) const COLUMNS: [&'static str; 4] = ["order_id", "payment_sequential", "payment_type", "payment_value"];

    /// The row of the cells of these columns; its amount is added to `total`.
    pub(super) fn of(
        order: &FileId,
        cells: [Cell<'_>; 4],
        reading: &mut Reading,
        total: &mut Amount,
    ) -> Result<Self, CellError> {
        let [_, sequential, kind, amount] = cells;
        let mut tidied = Vec::new();
        Ok(Self {
            order: OrderId(order.uuid),
            sequential: sequential.number()?,
            kind: kind.kind()?,
            amount: amount.amount(order, reading, total, &mut tidied)?,
            tidied,
        })
    }
}

fn orders(dir: &Path, reading: &mut Reading) -> Result<Vec<OrderRow>, OlistError> {
    let mut seen = HashSet::new();
    file::read(&dir.join(ORDERS), ["order_id", CUSTOMER], |[order, customer]| {
        let id = order.id(IdOf::Order, reading)?;
        if !seen.insert(id.uuid) {
            return Err(order.is_not(Problem::OrderTwice, "an order that no line before has").into());
        }
        let customer = CustomerId(customer.id(IdOf::Customer, reading)?.uuid);
        Ok(OrderRow { olist_id: id.written(), id: OrderId(id.uuid), customer })
    })
}

fn items(dir: &Path, reading: &mut Reading) -> Result<Vec<ItemRow>, OlistError> {
    let (mut seen, mut total) = (HashSet::new(), Amount::ZERO);
    file::read(&dir.join(ITEMS), ItemRow::COLUMNS, |cells| {
        let row = ItemRow::of(&cells[0].id(IdOf::Order, reading)?, cells, reading, &mut total)?;
        if !seen.insert((row.order, row.number)) {
            return Err(cells[1].is_not(Problem::NumberTwice, "an item that no line before has").into());
        }
        Ok(row)
    })
}

fn payments(dir: &Path, reading: &mut Reading) -> Result<Vec<PaymentRow>, OlistError> {
    let (mut seen, mut total) = (HashSet::new(), Amount::ZERO);
    file::read(&dir.join(PAYMENTS), PaymentRow::COLUMNS, |cells| {
        let row = PaymentRow::of(&cells[0].id(IdOf::Order, reading)?, cells, reading, &mut total)?;
        if !seen.insert((row.order, row.sequential)) {
            return Err(cells[1].is_not(Problem::NumberTwice, "a payment that no line before has").into());
        }
        Ok(row)
    })
}
