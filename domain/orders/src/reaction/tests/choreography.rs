//! The whole choreography as a model: an order's follow-ups and timers, the provider's answers, and what customer,
//! approver, warehouse and carrier do, delivered in any order and more than once, come to a good end.

use super::*;
use crate::aggregate::Aggregate;
use crate::id::{SellerId, Sku};
use crate::order::{Change, Changed, Order, PlaceLine, PlaceOrder, Status};
use crate::payment::{Payment, Status as PaymentStatus};
use crate::shipment::Shipment;
use crate::stock::Stock;
use crate::timer::{TimerChange, timers};
use books::{Books, cost};
use check::check;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use provider::Provider;
use script::{Ask, Edit, Mood, PAYMENTS, Parcel, SKUS, Script, Silence, TIMERS, any_script};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::World;

mod books;
mod check;
mod people;
mod provider;
mod script;
mod world;

/// How many interleavings are tried: `PROPTEST_CASES`, if that is set, else enough for every ending to occur often.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn invariant_25_every_order_ends_with_its_money_and_stock_settled(script in any_script()) {
        let world = World::run(&script);
        check(&world).map_err(|e| TestCaseError::fail(format!("{e}\n{}", world.story())))?;
    }
}
