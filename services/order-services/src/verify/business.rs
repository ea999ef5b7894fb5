//! What the business promises (invariants 21 to 25), folded from the payloads alone while the log is read: not from the
//! state that decisions are made on, so that a wrong decision is seen.
//!
//! Imported events are checked for what they add up to, not for their life cycle: what another system did in which order
//! cannot be undone here.

use super::order_ends::OrderEnds;
use super::order_totals::OrderTotals;
use super::payment_amounts::PaymentAmounts;
use super::read_models::list;
use super::reserved_stock::ReservedStock;
use super::shipped_pieces::ShippedPieces;
use super::{Check, Live};
use runtime::verify::log::Row;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashSet;
use store::Position;
use uuid::Uuid;

/// A promise that is held against the events, one after the other.
pub(super) trait Invariant {
    fn check(&mut self) -> &mut Check;

    /// Takes the next event; `None` if it has not the shape of its type.
    fn fold(&mut self, event: &Row, payload: &Value, unread: &Unread) -> Option<()>;
}

/// The streams and orders that have an event that could not be read. What is said of them after that would be wrong.
#[derive(Default)]
pub(super) struct Unread(HashSet<Uuid>);

impl Unread {
    pub(super) fn has(&self, id: Uuid) -> bool {
        self.0.contains(&id)
    }
}

pub(super) struct Business {
    reserved_stock: ReservedStock,
    payment_amounts: PaymentAmounts,
    order_totals: OrderTotals,
    shipped_pieces: ShippedPieces,
    order_ends: OrderEnds,
    /// The positions of the events that somebody has given up for a projection.
    given_up: HashSet<Position>,
    unread: Unread,
}

impl Business {
    /// For all events of some orders, and no others.
    pub(super) async fn of_orders(
        snapshot: &mut PgConnection,
        follow_ups: Option<&Live>,
        timers: Option<&Live>,
        imported_to: Position,
    ) -> Result<Self, sqlx::Error> {
        let reserved_stock = ReservedStock::of_orders();
        Ok(Self { reserved_stock, ..Self::new(snapshot, follow_ups, timers, imported_to).await? })
    }

    /// For all events of the log.
    pub(super) async fn new(
        snapshot: &mut PgConnection,
        follow_ups: Option<&Live>,
        timers: Option<&Live>,
        imported_to: Position,
    ) -> Result<Self, sqlx::Error> {
        let given_up = sqlx::query_scalar!(
            r#"SELECT position AS "position!" FROM daybook.resolutions
               WHERE outcome = 'discarded' AND position IS NOT NULL"#
        );
        Ok(Self {
            reserved_stock: ReservedStock::new(),
            payment_amounts: PaymentAmounts::new(),
            order_totals: OrderTotals::new(),
            shipped_pieces: ShippedPieces::new(),
            order_ends: OrderEnds::new(follow_ups, timers, imported_to),
            given_up: given_up.fetch_all(snapshot).await?.into_iter().collect(),
            unread: Unread::default(),
        })
    }

    /// Takes the next event.
    pub(super) fn take(&mut self, event: &Row, payload: &Value) {
        let all: [&mut dyn Invariant; 5] = [
            &mut self.reserved_stock,
            &mut self.payment_amounts,
            &mut self.order_totals,
            &mut self.shipped_pieces,
            &mut self.order_ends,
        ];
        let mut is_unread = false;
        for invariant in all {
            if invariant.fold(event, payload, &self.unread).is_some() {
                continue;
            }
            is_unread = true;
            // Somebody knows of what is given up.
            if !self.given_up.contains(&event.position) {
                let Row { event_type, position, .. } = event;
                invariant.check().differs(|| format!("the {event_type} at position {position} cannot be folded"));
            }
        }
        if is_unread {
            self.unread.0.extend([event.stream_id, event.correlation_id]);
            self.unread.0.extend(id(payload, "order_id"));
        }
    }

    pub(super) async fn finish(self, snapshot: &mut PgConnection) -> Result<Vec<Check>, sqlx::Error> {
        let (held, left) = (self.reserved_stock.held(&self.unread), self.payment_amounts.left(&self.unread));
        let order_ends = self.order_ends.finish(snapshot, &held, &left, &self.unread).await?;
        Ok(vec![
            self.reserved_stock.finish(),
            self.payment_amounts.finish(),
            self.order_totals.finish(),
            self.shipped_pieces.finish(),
            order_ends,
        ])
    }
}

pub(super) fn is_of(event: &Row, category: &str) -> bool {
    event.category_name.as_deref() == Some(category)
}

/// Whether it is a fact of another system. (The events of a log that was imported as a whole were decided here.)
pub(super) fn is_imported(event: &Row) -> bool {
    event.origin_name() == Some("import")
}

pub(super) fn id(payload: &Value, field: &str) -> Option<Uuid> {
    payload.get(field)?.as_str()?.parse().ok()
}

/// An amount of money, in minor units. None is negative.
pub(super) fn amount(payload: &Value, field: &str) -> Option<i128> {
    let amount = payload.get(field)?.as_i64()?;
    (amount >= 0).then_some(amount.into())
}

/// How many pieces each line of a list has.
pub(super) fn pieces_by_line(payload: &Value, field: &str) -> Option<Vec<(u64, i128)>> {
    let pieces = |line: &Value| {
        let quantity = u32::try_from(line.get("quantity")?.as_u64()?).ok()?;
        Some((line.get("line")?.as_u64()?, i128::from(quantity)))
    };
    list(payload, field)?.iter().map(pieces).collect()
}
