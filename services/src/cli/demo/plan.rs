//! What is ordered, and what must become of it: known before anything runs.

use crate::olist::Sample;
use crate::provider::DECLINE;
use domain::id::{AddressId, CustomerId, OrderId, SellerId, Sku};
use domain::money::{Amount, Currency};
use domain::order::{PaymentMethod, PlaceLine, PlaceOrder, PlacePayment, Rounding, SellerShipping};
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
}

impl End {
    pub(super) const ALL: [Self; 4] = [Self::Completed, Self::Declined, Self::OutOfStock, Self::Cancelled];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Declined => "declined",
            Self::OutOfStock => "out_of_stock",
            Self::Cancelled => "cancelled",
        }
    }
}

pub(super) struct PlannedOrder {
    pub(super) id: OrderId,
    pub(super) place: PlaceOrder,
    /// The customer cancels it as soon as it is placed, and the warehouse waits for that.
    pub(super) cancel: bool,
}

pub(super) struct Plan {
    pub(super) orders: Vec<PlannedOrder>,
    /// What the warehouse takes in beforehand.
    pub(super) stock: BTreeMap<Sku, u32>,
    /// How many orders must end how.
    pub(super) expected: BTreeMap<End, u64>,
}

/// What is meant to become of an order.
enum Intent {
    Complete,
    Decline,
    SoldOut,
    Cancel,
    /// One of several that want the last pieces.
    Contend,
}

/// Never taken in.
const SOLD_OUT: &str = "sold-out";

impl Plan {
    /// `count` orders after `seed`.
    pub(super) fn seeded(count: u32, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // New in every run, so that its pieces are those of this run alone.
        let scarce = sku(&format!("scarce-{}", Uuid::now_v7().simple()));
        let sellers: Vec<SellerId> = (0..20).map(|_| SellerId(random_id(&mut random))).collect();
        let mut plan = Self { orders: vec![], stock: BTreeMap::new(), expected: BTreeMap::new() };
        let mut contenders = 0_u64;
        for _ in 0..count {
            let intent = match random.random_range(0..100) {
                0..72 => Intent::Complete,
                72..82 => Intent::Decline,
                82..90 => Intent::SoldOut,
                90..97 => Intent::Cancel,
                _ => Intent::Contend,
            };
            let mut place = random_order(&mut random, &sellers);
            let end = match intent {
                Intent::Complete => Some(End::Completed),
                Intent::Decline => {
                    pay_something(&mut place);
                    place.payments[0].method.token = format!("{DECLINE}_card");
                    Some(End::Declined)
                }
                Intent::SoldOut => {
                    place.lines[0].sku = sku(SOLD_OUT);
                    Some(End::OutOfStock)
                }
                Intent::Cancel => Some(End::Cancelled),
                Intent::Contend => {
                    place.lines.truncate(1);
                    place.shipping.retain(|s| s.seller_id == place.lines[0].seller_id);
                    place.lines[0].sku = scarce.clone();
                    place.lines[0].quantity = 1;
                    place.lines[0].discount = Amount::ZERO;
                    pay(&mut random, &mut place);
                    contenders += 1;
                    None
                }
            };
            if let Some(end) = end {
                *plan.expected.entry(end).or_default() += 1;
            }
            let cancel = matches!(intent, Intent::Cancel);
            plan.orders.push(PlannedOrder { id: OrderId(Uuid::now_v7()), place, cancel });
        }
        plan.stock_up(|sku| sku.as_str() != SOLD_OUT && *sku != scarce);
        // Who gets the last pieces is open; how many do is not.
        let pieces = contenders.div_ceil(2);
        if contenders > 0 {
            plan.stock.insert(scarce, pieces as u32);
            *plan.expected.entry(End::Completed).or_default() += pieces;
            *plan.expected.entry(End::OutOfStock).or_default() += contenders - pieces;
        }
        plan.expected.retain(|_, orders| *orders > 0);
        plan
    }

    /// The real orders of the sample that can be placed; all are to be completed.
    pub(super) fn of_sample(sample: &Sample) -> Self {
        let orders = sample.orders.iter();
        let orders = orders.map(|o| PlannedOrder { id: o.order_id, place: o.place.clone(), cancel: false });
        let mut plan = Self { orders: orders.collect(), stock: BTreeMap::new(), expected: BTreeMap::new() };
        plan.stock_up(|_| true);
        plan.expected.insert(End::Completed, plan.orders.len() as u64);
        plan
    }

    fn stock_up(&mut self, wanted: impl Fn(&Sku) -> bool) {
        for line in self.orders.iter().flat_map(|o| &o.place.lines).filter(|l| wanted(&l.sku)) {
            *self.stock.entry(line.sku.clone()).or_default() += line.quantity;
        }
    }
}

fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap_or_else(|e| unreachable!("{name}: {e}"))
}

fn random_id(random: &mut StdRng) -> Uuid {
    uuid::Builder::from_random_bytes(random.random()).into_uuid()
}

/// An order of one to four lines from one to three sellers, with one or two payments; one in fifty costs nothing.
fn random_order(random: &mut StdRng, sellers: &[SellerId]) -> PlaceOrder {
    let currency: Currency = ["EUR", "USD", "BRL", "JPY", "KWD"][random.random_range(0..5)]
        .parse()
        .unwrap_or_else(|e| unreachable!("listed: {e}"));
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

/// An order that costs nothing has no payment that could be declined: let it cost something.
fn pay_something(order: &mut PlaceOrder) {
    if order.payments.is_empty() {
        order.lines[0].unit_price = Amount(100);
        order.lines[0].discount = Amount::ZERO;
        let amount = Amount(total(order));
        let method = PaymentMethod { kind: "credit_card".into(), token: "tok_approve_credit_card".into() };
        order.payments = vec![PlacePayment { method, amount }];
    }
}

fn total(order: &PlaceOrder) -> i64 {
    let lines = order.lines.iter().map(|l| l.unit_price.0 * i64::from(l.quantity) - l.discount.0 + l.tax.0);
    lines.sum::<i64>() + order.shipping.iter().map(|s| s.amount.0).sum::<i64>()
}
