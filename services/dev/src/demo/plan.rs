//! What is ordered, and what must become of it: known before anything runs.

use crate::olist::Sample;
use crate::provider::{DECLINE, TIMEOUT_AFTER};
use orders::id::{AddressId, CustomerId, OrderId, SellerId, Sku};
use orders::money::{Amount, Currency};
use orders::order::{PaymentMethod, PlaceLine, PlaceOrder, PlacePayment, Rounding, SellerShipping};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How an order can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Completed,
    Declined,
    OutOfStock,
    Cancelled,
    Denied,
}

impl End {
    pub(super) const ALL: [Self; 5] =
        [Self::Completed, Self::Declined, Self::OutOfStock, Self::Cancelled, Self::Denied];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Declined => "declined",
            Self::OutOfStock => "out_of_stock",
            Self::Cancelled => "cancelled",
            Self::Denied => "denied",
        }
    }
}

/// What happens to an order on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    /// It is placed, paid, shipped and delivered.
    Straight,
    /// The provider takes the money, and its answer is lost.
    AnswerLost,
    /// The provider would not take the money.
    Declined,
    /// There is nothing of its first line.
    SoldOut,
    /// Its first line comes in only after it is ordered.
    Backordered,
    /// It wants one of the last pieces, as others do.
    Contended,
    /// The customer cancels it as soon as it is placed, and the warehouse waits for that.
    Cancelled,
    /// A person is asked, and says yes.
    Granted,
    /// A person is asked, and says no.
    Denied,
    /// Once confirmed, its first line is removed, and one more piece of it is ordered.
    Edited(Edit),
    /// Once delivered, its first line is sent back.
    Returned,
}

impl Path {
    fn name(&self) -> &'static str {
        match self {
            Self::Straight => "straight",
            Self::AnswerLost => "answer lost",
            Self::Declined => "declined",
            Self::SoldOut => "sold out",
            Self::Backordered => "backordered",
            Self::Contended => "contended",
            Self::Cancelled => "cancelled",
            Self::Granted => "approval granted",
            Self::Denied => "approval denied",
            Self::Edited(_) => "edited",
            Self::Returned => "partly returned",
        }
    }

    /// How it must end; of those that contend for something, it is open.
    fn end(&self) -> Option<End> {
        match self {
            Self::Straight
            | Self::AnswerLost
            | Self::Backordered
            | Self::Granted
            | Self::Edited(_)
            | Self::Returned => Some(End::Completed),
            Self::Declined => Some(End::Declined),
            Self::SoldOut => Some(End::OutOfStock),
            Self::Cancelled => Some(End::Cancelled),
            Self::Denied => Some(End::Denied),
            Self::Contended => None,
        }
    }
}

/// What takes the place of the first line, and what that costs more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) add: PlaceLine,
    pub(super) payments: Vec<PlacePayment>,
}

pub(super) struct PlannedOrder {
    pub(super) id: OrderId,
    pub(super) place: PlaceOrder,
    pub(super) path: Path,
}

pub(super) struct Plan {
    pub(super) orders: Vec<PlannedOrder>,
    /// What the warehouse takes in beforehand.
    pub(super) stock: BTreeMap<Sku, u32>,
    /// How many orders take which path.
    pub(super) paths: BTreeMap<&'static str, u64>,
    /// How many orders must end how.
    pub(super) expected: BTreeMap<End, u64>,
    /// What must be left of what the provider took, in minor units of each currency.
    pub(super) kept: BTreeMap<Currency, i64>,
    /// How many pieces must go out, and come back.
    pub(super) shipped: u64,
    pub(super) returned: u64,
}

/// Never taken in.
const SOLD_OUT: &str = "sold-out";
/// What a piece of the scarce SKU costs, in cents.
const SCARCE: i64 = 1000;

impl Plan {
    fn empty() -> Self {
        Self {
            orders: vec![],
            stock: BTreeMap::new(),
            paths: BTreeMap::new(),
            expected: BTreeMap::new(),
            kept: BTreeMap::new(),
            shipped: 0,
            returned: 0,
        }
    }

    /// `count` orders after `seed`.
    pub(super) fn seeded(count: u32, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // New in every run, so that its pieces are those of this run alone.
        let scarce = sku(&format!("scarce-{}", Uuid::now_v7().simple()));
        let sellers: Vec<SellerId> = (0..20).map(|_| SellerId(random_id(&mut random))).collect();
        let mut plan = Self::empty();
        for _ in 0..count {
            let share = random.random_range(0..100);
            let place = random_order(&mut random, &sellers);
            let (place, path) = match share {
                0..58 => (place, Path::Straight),
                58..61 => answer_lost(place),
                61..68 => declined(place),
                68..73 => sold_out(place),
                73..77 => backordered(place),
                77..80 => contended(place, &scarce),
                80..85 => (place, Path::Cancelled),
                85..89 => (asking(place), Path::Granted),
                89..92 => (asking(place), Path::Denied),
                92..96 => edited(place),
                _ => (place, Path::Returned),
            };
            plan.add(OrderId(Uuid::now_v7()), place, path);
        }
        // Who gets the last pieces is open; how many do is not.
        let contenders = plan.paths.get(Path::Contended.name()).copied().unwrap_or(0);
        if contenders > 0 {
            let pieces = contenders.div_ceil(2);
            plan.stock.insert(scarce, pieces as u32);
            plan.ends(End::Completed, pieces);
            plan.ends(End::OutOfStock, contenders - pieces);
            *plan.kept.entry(currency("EUR")).or_default() += SCARCE * pieces as i64;
            plan.shipped += pieces;
        }
        plan
    }

    /// The real orders of the sample that can be placed; all are to be completed.
    pub(super) fn of_sample(sample: &Sample) -> Self {
        let mut plan = Self::empty();
        for order in &sample.orders {
            plan.add(order.order_id, order.place.clone(), Path::Straight);
        }
        plan
    }

    fn ends(&mut self, end: End, orders: u64) {
        if orders > 0 {
            *self.expected.entry(end).or_default() += orders;
        }
    }

    /// Adds an order, and what it must come to.
    fn add(&mut self, id: OrderId, place: PlaceOrder, path: Path) {
        *self.paths.entry(path.name()).or_default() += 1;
        let end = path.end();
        if let Some(end) = end {
            self.ends(end, 1);
        }
        // What the warehouse has of it beforehand.
        let beforehand = match path {
            Path::SoldOut | Path::Backordered | Path::Contended => &place.lines[1..],
            _ => &place.lines[..],
        };
        for line in beforehand {
            *self.stock.entry(line.sku.clone()).or_default() += line.quantity;
        }
        let pieces: u64 = place.lines.iter().map(|line| u64::from(line.quantity)).sum();
        let first = &place.lines[0];
        if end == Some(End::Completed) {
            let (mut kept, mut shipped) = (total(&place), pieces);
            match &path {
                Path::Edited(Edit { add, .. }) => {
                    *self.stock.entry(add.sku.clone()).or_default() += add.quantity;
                    kept += cost(add) - cost(first);
                    shipped += u64::from(add.quantity - first.quantity);
                }
                Path::Returned => {
                    kept -= cost(first);
                    self.returned += u64::from(first.quantity);
                }
                _ => {}
            }
            *self.kept.entry(place.currency).or_default() += kept;
            self.shipped += shipped;
        }
        self.orders.push(PlannedOrder { id, place, path });
    }
}

fn answer_lost(place: PlaceOrder) -> (PlaceOrder, Path) {
    let mut place = costing_something(place);
    place.payments[0].method.token = format!("{TIMEOUT_AFTER}_card");
    (place, Path::AnswerLost)
}

fn declined(place: PlaceOrder) -> (PlaceOrder, Path) {
    let mut place = costing_something(place);
    place.payments[0].method.token = format!("{DECLINE}_card");
    (place, Path::Declined)
}

fn sold_out(mut place: PlaceOrder) -> (PlaceOrder, Path) {
    place.lines[0].sku = sku(SOLD_OUT);
    (place, Path::SoldOut)
}

fn backordered(mut place: PlaceOrder) -> (PlaceOrder, Path) {
    // Of its own, so that nobody else takes what comes in for it.
    place.lines[0].sku = sku(&format!("later-{}", Uuid::now_v7().simple()));
    place.backorder = true;
    (place, Path::Backordered)
}

/// All that contend pay the same: who of them pays is open, how much they all do is not.
fn contended(mut place: PlaceOrder, scarce: &Sku) -> (PlaceOrder, Path) {
    place.currency = currency("EUR");
    place.lines.truncate(1);
    let line = &mut place.lines[0];
    *line = PlaceLine {
        sku: scarce.clone(),
        quantity: 1,
        unit_price: Amount(SCARCE),
        discount: Amount::ZERO,
        tax: Amount::ZERO,
        ..line.clone()
    };
    place.shipping.clear();
    place.payments = vec![by_card(SCARCE)];
    (place, Path::Contended)
}

/// A person is asked before it is confirmed.
fn asking(mut place: PlaceOrder) -> PlaceOrder {
    place.approval_within_seconds = Some(24 * 60 * 60);
    place
}

fn edited(place: PlaceOrder) -> (PlaceOrder, Path) {
    let first = &place.lines[0];
    let add = PlaceLine { quantity: first.quantity + 1, discount: Amount::ZERO, tax: Amount::ZERO, ..first.clone() };
    let more = cost(&add) - cost(first);
    let payments = if more > 0 { vec![by_card(more)] } else { vec![] };
    (place, Path::Edited(Edit { add, payments }))
}

fn by_card(amount: i64) -> PlacePayment {
    let method = PaymentMethod { kind: "credit_card".into(), token: "tok_approve_credit_card".into() };
    PlacePayment { method, amount: Amount(amount) }
}

pub(crate) fn currency(code: &str) -> Currency {
    code.parse().unwrap_or_else(|e| unreachable!("{code} is listed: {e}"))
}

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap_or_else(|e| unreachable!("{name}: {e}"))
}

fn random_id(random: &mut StdRng) -> Uuid {
    uuid::Builder::from_random_bytes(random.random()).into_uuid()
}

/// An order of one to four lines from one to three sellers, with one or two payments; one in fifty costs nothing.
fn random_order(random: &mut StdRng, sellers: &[SellerId]) -> PlaceOrder {
    let currency = currency(["EUR", "USD", "BRL", "JPY", "KWD"][random.random_range(0..5)]);
    let free = random.random_range(0..50) == 0;
    let first_seller = random.random_range(0..sellers.len());
    let seller_count = random.random_range(1..=3);
    let line = |random: &mut StdRng| {
        let quantity = random.random_range(1..=3);
        let unit_price = if free { 0 } else { random.random_range(1..20_000) };
        let goods = unit_price * i64::from(quantity);
        PlaceLine {
            sku: sku(&format!("sku-{:03}", random.random_range(0..200))),
            seller_id: sellers[(first_seller + random.random_range(0..seller_count)) % sellers.len()],
            quantity,
            unit_price: Amount(unit_price),
            discount: Amount(if random.random_range(0..5) == 0 { goods / 10 } else { 0 }),
            tax: Amount(goods / 20),
        }
    };
    let lines: Vec<PlaceLine> = (0..random.random_range(1..=4)).map(|_| line(random)).collect();
    let mut shipping: Vec<SellerShipping> = Vec::new();
    for line in &lines {
        if !free && !shipping.iter().any(|s| s.seller_id == line.seller_id) {
            let amount = Amount(random.random_range(0..1_000));
            shipping.push(SellerShipping { seller_id: line.seller_id, amount });
        }
    }
    let mut order = PlaceOrder {
        customer_id: CustomerId(random_id(random)),
        currency,
        shipping_address_id: AddressId(random_id(random)),
        billing_address_id: None,
        lines,
        shipping,
        payments: vec![],
        rounding: Rounding::default(),
        backorder: false,
        approval_within_seconds: None,
    };
    pay(random, &mut order);
    order
}

/// Pays what the order costs: by card, or by voucher and card.
fn pay(random: &mut StdRng, order: &mut PlaceOrder) {
    let total = total(order);
    let voucher = if total > 100 && random.random_range(0..4) == 0 { random.random_range(1..total) } else { 0 };
    let payments = [("voucher", voucher), ("credit_card", total - voucher)];
    let payment = |(kind, amount): (&str, i64)| PlacePayment {
        method: PaymentMethod { kind: kind.to_owned(), token: format!("tok_approve_{kind}") },
        amount: Amount(amount),
    };
    order.payments = payments.into_iter().filter(|(_, amount)| *amount > 0).map(payment).collect();
}

/// An order that costs nothing has no payment that anything could happen to: let it cost something.
fn costing_something(mut order: PlaceOrder) -> PlaceOrder {
    if order.payments.is_empty() {
        order.lines[0].unit_price = Amount(100);
        order.lines[0].discount = Amount::ZERO;
        order.payments = vec![by_card(total(&order))];
    }
    order
}

fn cost(line: &PlaceLine) -> i64 {
    line.unit_price.0 * i64::from(line.quantity) - line.discount.0 + line.tax.0
}

fn total(order: &PlaceOrder) -> i64 {
    order.lines.iter().map(cost).sum::<i64>() + order.shipping.iter().map(|s| s.amount.0).sum::<i64>()
}
