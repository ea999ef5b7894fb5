//! What the files say must come out, computed from their rows alone: no command is looked at, so that a mistake in
//! making the commands shows as a difference.

use super::NotTaken;
use super::rows::{Rows, sum};
use orders::id::OrderId;
use orders::money::Amount;
use std::collections::{BTreeMap, HashSet};

/// The files in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Every order of the orders file.
    pub all: Figures,
    /// The orders that are to be placed.
    pub taken: Figures,
    /// How many are not, by [`Why::kind`](super::Why::kind).
    pub not_taken: BTreeMap<&'static str, usize>,
}

/// Some of the orders in figures; amounts are in centavos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    pub orders: usize,
    pub lines: usize,
    /// Different sellers.
    pub sellers: usize,
    /// One per order and seller.
    pub shipments: usize,
    pub items: Amount,
    pub freight: Amount,
    /// Payments of more than 0.00.
    pub payments: usize,
    /// What these come to, by payment type.
    pub paid: BTreeMap<String, Amount>,
}

impl Table {
    pub(super) fn of(rows: &Rows, not_taken: &[NotTaken]) -> Self {
        let refused: HashSet<&str> = not_taken.iter().map(|n| n.olist_id.as_str()).collect();
        let all = rows.orders.iter().map(|o| o.id).collect();
        let taken = rows.orders.iter().filter(|o| !refused.contains(o.olist_id.as_str())).map(|o| o.id).collect();
        let mut by_kind = BTreeMap::new();
        for n in not_taken {
            *by_kind.entry(n.why.kind()).or_default() += 1;
        }
        Self { all: Figures::of(rows, &all), taken: Figures::of(rows, &taken), not_taken: by_kind }
    }
}

impl Figures {
    fn of(rows: &Rows, orders: &HashSet<OrderId>) -> Self {
        let items: Vec<_> = rows.items.iter().filter(|i| orders.contains(&i.order)).collect();
        let paying = rows.payments.iter().filter(|p| orders.contains(&p.order) && p.amount > Amount::ZERO);
        let mut paid: BTreeMap<String, Amount> = BTreeMap::new();
        let mut payments = 0;
        for payment in paying {
            payments += 1;
            paid.entry(payment.kind.clone()).or_default().0 += payment.amount.0;
        }
        Self {
            orders: orders.len(),
            lines: items.len(),
            sellers: items.iter().map(|i| i.seller).collect::<HashSet<_>>().len(),
            shipments: items.iter().map(|i| (i.order, i.seller)).collect::<HashSet<_>>().len(),
            items: sum(items.iter().map(|i| i.price)),
            freight: sum(items.iter().map(|i| i.freight)),
            payments,
            paid,
        }
    }
}
