//! The rows of the three files that a history is made of. A cell that is not what its column holds leaves its order out,
//! with all of its rows: an order that is recorded in part would be wrong for ever.

use super::report::{LeftOut, NotTaken, What};
use crate::olist::file::{self, Cell, OlistError};
use crate::olist::rows::{ITEMS, ItemRow, ORDERS, PAYMENTS, PaymentRow};
use chrono::{DateTime, Utc};
use orders::id::{CustomerId, OrderId};
use orders::money::Amount;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

pub(super) struct OrderRow {
    pub(super) olist_id: String,
    pub(super) id: OrderId,
    pub(super) customer: CustomerId,
    pub(super) status: Status,
    pub(super) purchased: DateTime<Utc>,
    pub(super) approved: Option<DateTime<Utc>>,
    pub(super) to_carrier: Option<DateTime<Utc>>,
    pub(super) to_customer: Option<DateTime<Utc>>,
}

/// What Olist says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Approved,
    Processing,
    Invoiced,
    Shipped,
    Delivered,
    Canceled,
    Unavailable,
}

impl Status {
    const ALL: [Self; 8] = [
        Self::Created,
        Self::Approved,
        Self::Processing,
        Self::Invoiced,
        Self::Shipped,
        Self::Delivered,
        Self::Canceled,
        Self::Unavailable,
    ];

    /// As the file has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Approved => "approved",
            Self::Processing => "processing",
            Self::Invoiced => "invoiced",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Canceled => "canceled",
            Self::Unavailable => "unavailable",
        }
    }

    fn of(cell: Cell<'_>) -> Result<Self, OlistError> {
        let text = cell.text()?;
        let words = "created, approved, processing, invoiced, shipped, delivered, canceled or unavailable";
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| cell.is_not(words))
    }
}

impl OrderRow {
    const COLUMNS: [&'static str; 7] = [
        "order_id",
        "customer_id",
        "order_status",
        "order_purchase_timestamp",
        "order_approved_at",
        "order_delivered_carrier_date",
        "order_delivered_customer_date",
    ];

    fn of(cells: [Cell<'_>; 7]) -> Result<Self, OlistError> {
        let [order, customer, status, purchased, approved, to_carrier, to_customer] = cells;
        Ok(Self {
            olist_id: order.text()?.to_owned(),
            id: OrderId(order.id()?),
            customer: CustomerId(customer.id()?),
            status: Status::of(status)?,
            purchased: purchased.time()?.ok_or_else(|| purchased.is_not("a time such as 2017-10-02 10:56:33"))?,
            approved: approved.time()?,
            to_carrier: to_carrier.time()?,
            to_customer: to_customer.time()?,
        })
    }
}

/// What the folder holds.
pub(super) struct Files {
    /// The orders to record, as they stand in their file.
    pub(super) orders: Vec<OrderRow>,
    items: HashMap<OrderId, Vec<ItemRow>>,
    payments: HashMap<OrderId, Vec<PaymentRow>>,
    /// How many rows the files have: orders, items, payments.
    pub(super) rows: [usize; 3],
    pub(super) left_out: Vec<LeftOut>,
    pub(super) not_taken: Vec<NotTaken>,
}

impl Files {
    /// # Errors
    /// When a file or a column is missing or a file is no CSV; and when a row does not tell its order: then it cannot be
    /// said which one to leave out.
    pub(super) fn read(dir: &Path) -> Result<Self, OlistError> {
        let mut reading = Reading::default();
        let orders = reading.orders(dir)?;
        let (items, in_items) = reading.rows(dir, ITEMS, ItemRow::COLUMNS, What::Item, |cells, total| {
            ItemRow::of(cells, total).map(|row| (row.number, row))
        })?;
        let (payments, in_payments) =
            reading.rows(dir, PAYMENTS, PaymentRow::COLUMNS, What::Payment, |cells, total| {
                PaymentRow::of(cells, total).map(|row| (row.sequential, row))
            })?;
        let rows = [orders.len(), in_items, in_payments];
        let fit = |order: &OrderRow| !reading.unfit.contains(&order.id);
        Ok(Self {
            orders: orders.into_iter().flatten().filter(fit).collect(),
            items,
            payments,
            rows,
            left_out: reading.left_out,
            not_taken: not_taken(dir)?,
        })
    }

    /// The items of an order, by their number in it.
    pub(super) fn items(&self, order: OrderId) -> &[ItemRow] {
        self.items.get(&order).map_or(&[], Vec::as_slice)
    }

    /// The payments of an order, by their number in it.
    pub(super) fn payments(&self, order: OrderId) -> &[PaymentRow] {
        self.payments.get(&order).map_or(&[], Vec::as_slice)
    }
}

#[derive(Default)]
struct Reading {
    /// Every order of the orders file.
    known: HashSet<OrderId>,
    /// Those that a row makes unfit to be recorded.
    unfit: HashSet<OrderId>,
    left_out: Vec<LeftOut>,
}

impl Reading {
    /// The rows of the orders file; none for one that is not as it should be.
    fn orders(&mut self, dir: &Path) -> Result<Vec<Option<OrderRow>>, OlistError> {
        file::read(&dir.join(ORDERS), OrderRow::COLUMNS, |cells| {
            let id = OrderId(cells[0].id()?);
            let twice = || cells[0].is_not("an order that no line before has");
            let row = if self.known.insert(id) { OrderRow::of(cells) } else { Err(twice()) };
            Ok(row.map_err(|e| self.unfit(id, &e)).ok())
        })
    }

    /// The rows of a file by their order, and how many it has. `row` makes one of its cells, with its number in the
    /// order; the first cell is the order's id, the second that number.
    fn rows<T, const N: usize>(
        &mut self,
        dir: &Path,
        name: &str,
        columns: [&'static str; N],
        what: What,
        row: impl Fn([Cell<'_>; N], &mut Amount) -> Result<(u32, T), OlistError>,
    ) -> Result<(HashMap<OrderId, Vec<T>>, usize), OlistError> {
        let (mut by_order, mut total) = (HashMap::<OrderId, Vec<(u32, T)>>::new(), Amount::ZERO);
        let read = file::read(&dir.join(name), columns, |cells| {
            let order = OrderId(cells[0].id()?);
            if !self.known.contains(&order) {
                let why = cells[0].is_not("an order of the orders file").to_string();
                self.left_out.push(LeftOut::new(what, order, why, "add the order's row, and import again"));
                return Ok(());
            }
            let rows = by_order.entry(order).or_default();
            let row = row(cells, &mut total).and_then(|(number, row)| {
                let is_new = rows.iter().all(|(before, _)| *before != number);
                if is_new { Ok((number, row)) } else { Err(cells[1].is_not("a number that no line of its order has")) }
            });
            match row {
                Ok(row) => rows.push(row),
                Err(e) => self.unfit(order, &e),
            }
            Ok(())
        })?;
        let in_order = |mut rows: Vec<(u32, T)>| {
            rows.sort_by_key(|(number, _)| *number);
            rows.into_iter().map(|(_, row)| row).collect()
        };
        Ok((by_order.into_iter().map(|(order, rows)| (order, in_order(rows))).collect(), read.len()))
    }

    fn unfit(&mut self, order: OrderId, error: &OlistError) {
        self.unfit.insert(order);
        self.left_out.push(LeftOut::new(What::Order, order, error.to_string(), "mend the row, and import again"));
    }
}

/// What in the folder no history is made of: other files, and columns that no event has a place for.
fn not_taken(dir: &Path) -> Result<Vec<NotTaken>, OlistError> {
    let unreadable = |source: io::Error| OlistError::Read { path: dir.to_owned(), source };
    let taken: [(&str, &[&str]); 3] =
        [(ORDERS, &OrderRow::COLUMNS), (ITEMS, &ItemRow::COLUMNS), (PAYMENTS, &PaymentRow::COLUMNS)];
    let mut not_taken = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        let columns = match taken.iter().find(|(name, _)| *name == file) {
            Some((_, taken)) => {
                let columns = file::columns(&dir.join(&file))?;
                columns.into_iter().filter(|column| !taken.contains(&column.as_str())).collect()
            }
            None => vec!["all".to_owned()],
        };
        if !columns.is_empty() {
            not_taken.push(NotTaken { file, columns });
        }
    }
    not_taken.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(not_taken)
}
