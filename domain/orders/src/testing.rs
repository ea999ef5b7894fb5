//! Given these events, when this is decided, then these events: the vocabulary of the domain's tests.

use crate::Aggregate;
use crate::id::{AddressId, CustomerId, OrderId, SellerId, Sku};
use crate::money::{Amount, Currency};
use crate::order::{PaymentMethod, PlaceLine, PlaceOrder, PlacePayment, Rounding, SellerShipping};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Debug;
use uuid::Uuid;

pub(crate) const ORDER: OrderId = OrderId(Uuid::from_u128(1));
pub(crate) const OTHER_ORDER: OrderId = OrderId(Uuid::from_u128(2));
pub(crate) const CUSTOMER: CustomerId = CustomerId(Uuid::from_u128(3));
pub(crate) const ADDRESS: AddressId = AddressId(Uuid::from_u128(4));
pub(crate) const POTTER: SellerId = SellerId(Uuid::from_u128(5));
pub(crate) const HATTER: SellerId = SellerId(Uuid::from_u128(6));

/// The state that `events` come to.
pub(crate) fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> A {
    then(&A::default(), &events.into_iter().collect::<Vec<_>>())
}

/// The state after `events` have happened too.
pub(crate) fn then<A: Aggregate>(state: &A, events: &[A::Event]) -> A {
    let mut state = state.clone();
    events.iter().for_each(|event| state.evolve(event));
    state
}

/// Decides `commands` one after the other; none that was accepted makes anything of the state that it has made.
pub(crate) fn each_can_be_repeated<A, C, R>(
    commands: &[C],
    decide: impl Fn(&A, &C) -> Result<Vec<A::Event>, R>,
) -> Result<(), TestCaseError>
where
    A: Aggregate<Event: Debug + PartialEq>,
    C: Debug,
    R: Debug + PartialEq,
{
    let mut state = A::default();
    for command in commands {
        if let Ok(events) = decide(&state, command) {
            state = then(&state, &events);
            prop_assert_eq!(decide(&state, command), Ok(vec![]), "{:?} again", command);
        }
    }
    Ok(())
}

pub(crate) fn eur() -> Currency {
    "EUR".parse().unwrap()
}

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap()
}

pub(crate) fn method(kind: &str) -> PaymentMethod {
    PaymentMethod { kind: kind.to_owned(), token: format!("tok_{kind}") }
}

pub(crate) fn paying(kind: &str, amount: i64) -> PlacePayment {
    PlacePayment { method: method(kind), amount: Amount(amount) }
}

pub(crate) fn line(name: &str, seller_id: SellerId, quantity: u32, unit_price: i64) -> PlaceLine {
    let (discount, tax) = (Amount::ZERO, Amount::ZERO);
    PlaceLine { sku: sku(name), seller_id, quantity, unit_price: Amount(unit_price), discount, tax }
}

/// An order of `lines`, with no shipping to pay.
pub(crate) fn order_of(lines: Vec<PlaceLine>, payments: Vec<PlacePayment>) -> PlaceOrder {
    PlaceOrder {
        customer_id: CUSTOMER,
        currency: eur(),
        shipping_address_id: ADDRESS,
        billing_address_id: None,
        lines,
        shipping: vec![],
        payments,
        rounding: Rounding::default(),
        backorder: false,
        approval_within_seconds: None,
    }
}

/// Two mugs of the potter for 25.90 with shipping and a hat of the hatter for 35.70, paid with a voucher and a card.
pub(crate) fn mugs_and_hat() -> PlaceOrder {
    let mugs = PlaceLine { discount: Amount(100), tax: Amount(190), ..line("MUG", POTTER, 2, 1000) };
    let hat = PlaceLine { tax: Amount(570), ..line("HAT", HATTER, 1, 3000) };
    PlaceOrder {
        shipping: vec![SellerShipping { seller_id: POTTER, amount: Amount(500) }],
        ..order_of(vec![mugs, hat], vec![paying("voucher", 3000), paying("card", 3160)])
    }
}

/// Well-formed orders of up to six lines, three sellers, four SKUs and three payments; some of them cost nothing.
pub(crate) fn any_order() -> impl Strategy<Value = PlaceOrder> {
    let priced = (0..4_usize, 0..3_u128, 1..4_u32, prop_oneof![Just(0), 0..500_i64], 0..=100_i64, 0..100_i64);
    let a_line = priced.prop_map(|(name, seller, quantity, unit_price, percent_off, tax)| {
        let goods = i64::from(quantity) * unit_price;
        PlaceLine {
            discount: Amount(goods * percent_off / 100),
            tax: Amount(goods * tax / 100),
            ..line(["MUG", "HAT", "PEN", "BAG"][name], SellerId(Uuid::from_u128(10 + seller)), quantity, unit_price)
        }
    });
    (vec(a_line, 1..=6), vec(0..50_i64, 3), vec(1..10_i64, 1..=3)).prop_map(|(lines, shipping, weights)| {
        let sellers: BTreeSet<SellerId> = lines.iter().map(|l| l.seller_id).collect();
        // Some sellers take nothing for shipping, and are left out.
        let shipping: Vec<_> = sellers
            .into_iter()
            .zip(shipping)
            .filter(|(_, amount)| amount % 3 > 0)
            .map(|(seller_id, amount)| SellerShipping { seller_id, amount: Amount(amount) })
            .collect();
        let net = |l: &PlaceLine| l.unit_price.0 * i64::from(l.quantity) - l.discount.0 + l.tax.0;
        let total = lines.iter().map(net).chain(shipping.iter().map(|s| s.amount.0)).sum();
        let payments = split(total, &weights).into_iter().filter(|a| *a > 0).map(|a| paying("card", a)).collect();
        PlaceOrder { shipping, ..order_of(lines, payments) }
    })
}

/// `total` in parts by `weights`; the last takes the remainder.
fn split(total: i64, weights: &[i64]) -> Vec<i64> {
    let all: i64 = weights.iter().sum();
    let mut parts: Vec<i64> = weights.iter().map(|w| total * w / all).collect();
    let rest = total - parts.iter().sum::<i64>();
    parts.last_mut().into_iter().for_each(|last| *last += rest);
    parts
}
