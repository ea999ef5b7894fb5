//! The rows of the three files that a history is made of. A cell that is not what its column holds leaves its order out,
//! with all of its rows: an order that is recorded in part would be wrong for ever.

use super::report::{DerivedId, LeftOut, NotTaken, What};
use crate::olist::file::{self, CUSTOMER, Cell, CellError, OlistError, Reading};
use crate::olist::ids::{FileId, IdOf};
use crate::olist::rows::{ITEMS, ItemRow, ORDERS, PAYMENTS, PaymentRow};
use crate::olist::{Amounts, Problem};
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
    /// The ids above that are derived: what the files write, and for what that stands.
    pub(super) derived: Vec<DerivedId>,
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

    fn of(cell: Cell<'_>) -> Result<Self, CellError> {
        let text = cell.text()?;
        let words = "created, approved, processing, invoiced, shipped, delivered, canceled or unavailable";
        let status = Self::ALL.into_iter().find(|status| status.as_str() == text);
        status.ok_or_else(|| cell.is_not(Problem::Status, words))
    }
}

impl OrderRow {
    const COLUMNS: [&'static str; 7] = [
        "order_id",
        CUSTOMER,
        "order_status",
        "order_purchase_timestamp",
        "order_approved_at",
        "order_delivered_carrier_date",
        "order_delivered_customer_date",
    ];

    fn of(order: &FileId, cells: [Cell<'_>; 7], reading: &mut Reading) -> Result<Self, CellError> {
        let [_, customer, status, purchased, approved, to_carrier, to_customer] = cells;
        let customer = customer.id(IdOf::Customer, reading)?;
        let derived = [(IdOf::Order, order), (IdOf::Customer, &customer)];
        Ok(Self {
            olist_id: order.written(),
            id: OrderId(order.uuid),
            customer: CustomerId(customer.uuid),
            derived: derived.into_iter().filter_map(|(of, id)| DerivedId::of(of, id.uuid, id.name.as_ref())).collect(),
            status: Status::of(status)?,
            purchased: purchased.time()?.ok_or_else(|| purchased.no_time())?,
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
    pub(super) fn read(dir: &Path, amounts: Amounts) -> Result<Self, OlistError> {
        let mut telling = Telling::new(amounts);
        let orders = telling.orders(dir)?;
        let (items, in_items) =
            telling.rows(dir, ITEMS, ItemRow::COLUMNS, What::Item, |order, cells, reading, total| {
                ItemRow::of(order, cells, reading, total).map(|row| (row.number, row))
            })?;
        let (payments, in_payments) =
            telling.rows(dir, PAYMENTS, PaymentRow::COLUMNS, What::Payment, |order, cells, reading, total| {
                PaymentRow::of(order, cells, reading, total).map(|row| (row.sequential, row))
            })?;
        let rows = [orders.len(), in_items, in_payments];
        let fit = |order: &OrderRow| !telling.unfit.contains(&order.id);
        Ok(Self {
            orders: orders.into_iter().flatten().filter(fit).collect(),
            items,
            payments,
            rows,
            left_out: telling.left_out,
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

/// The files as they are read, and what is not right about them.
struct Telling {
    reading: Reading,
    /// Every order of the orders file.
    known: HashSet<OrderId>,
    /// Those that a row makes unfit to be recorded.
    unfit: HashSet<OrderId>,
    left_out: Vec<LeftOut>,
}

impl Telling {
    fn new(amounts: Amounts) -> Self {
        let reading = Reading::new(amounts);
        Self { reading, known: HashSet::new(), unfit: HashSet::new(), left_out: Vec::new() }
    }

    /// The rows of the orders file; none for one that is not as it should be.
    fn orders(&mut self, dir: &Path) -> Result<Vec<Option<OrderRow>>, OlistError> {
        file::read(&dir.join(ORDERS), OrderRow::COLUMNS, |cells| {
            let order = cells[0].id(IdOf::Order, &mut self.reading)?;
            let twice = || cells[0].is_not(Problem::OrderTwice, "an order that no line before has");
            let is_new = self.known.insert(OrderId(order.uuid));
            let row = match is_new {
                true => OrderRow::of(&order, cells, &mut self.reading),
                false => Err(twice()),
            };
            Ok(row.map_err(|e| self.unfit(&order, &e)).ok())
        })
    }

    /// The rows of a file by their order, and how many it has. `row` makes one of its order and cells, with its number in
    /// the order; the first cell is the order's id, the second that number.
    fn rows<T, const N: usize>(
        &mut self,
        dir: &Path,
        name: &str,
        columns: [&'static str; N],
        what: What,
        row: impl Fn(&FileId, [Cell<'_>; N], &mut Reading, &mut Amount) -> Result<(u32, T), CellError>,
    ) -> Result<(HashMap<OrderId, Vec<T>>, usize), OlistError> {
        let without_order = match what {
            What::Payment => Problem::PaymentWithoutOrder,
            What::Item | What::Order => Problem::ItemWithoutOrder,
        };
        let (mut by_order, mut total) = (HashMap::<OrderId, Vec<(u32, T)>>::new(), Amount::ZERO);
        let read = file::read(&dir.join(name), columns, |cells| {
            let id = cells[0].id(IdOf::Order, &mut self.reading)?;
            let order = OrderId(id.uuid);
            if !self.known.contains(&order) {
                let why = cells[0].is_not(without_order, "an order of the orders file");
                self.left_out.push(LeftOut::of_cell(what, &id, &why, "add the order's row, and import again"));
                return Ok(());
            }
            let rows = by_order.entry(order).or_default();
            let row = row(&id, cells, &mut self.reading, &mut total).and_then(|(number, row)| {
                let is_new = rows.iter().all(|(before, _)| *before != number);
                let twice = || cells[1].is_not(Problem::NumberTwice, "a number that no line of its order has");
                if is_new { Ok((number, row)) } else { Err(twice()) }
            });
            match row {
                Ok(row) => rows.push(row),
                Err(e) => self.unfit(&id, &e),
            }
            Ok(())
        })?;
        let in_order = |mut rows: Vec<(u32, T)>| {
            rows.sort_by_key(|(number, _)| *number);
            rows.into_iter().map(|(_, row)| row).collect()
        };
        Ok((by_order.into_iter().map(|(order, rows)| (order, in_order(rows))).collect(), read.len()))
    }

    fn unfit(&mut self, order: &FileId, error: &CellError) {
        self.unfit.insert(OrderId(order.uuid));
        self.left_out.push(LeftOut::of_cell(What::Order, order, error, "mend the row, and import again"));
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
