//! Invariant 21, the part that each event must keep: of every SKU, 0 ≤ reserved ≤ on hand, and a line ends what it holds.
//! That every reservation ends is checked with the orders, in `order_ends.rs`.

use super::Check;
use super::business::{Invariant, Unread, id, is_of, pieces_by_line};
use runtime::verify::log::Row;
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

pub(super) struct ReservedStock {
    check: Check,
    /// By the stream of the SKU; none, if not all events of a SKU are taken.
    levels: Option<HashMap<Uuid, Level>>,
    held: HashMap<Holder, i128>,
}

#[derive(Default)]
struct Level {
    on_hand: i128,
    reserved: i128,
}

/// A line of an order, at the stream of its SKU.
#[derive(PartialEq, Eq, Hash)]
struct Holder {
    stock: Uuid,
    order: Uuid,
    line: u64,
}

impl Level {
    fn is_right(&self) -> bool {
        0 <= self.reserved && self.reserved <= self.on_hand
    }
}

impl Invariant for ReservedStock {
    fn check(&mut self) -> &mut Check {
        &mut self.check
    }

    fn fold(&mut self, event: &Row, payload: &Value, unread: &Unread) -> Option<()> {
        if !is_of(event, "stock") || unread.has(event.stream_id) {
            return Some(());
        }
        let sku = payload.get("sku")?.as_str()?;
        let (on_hand, reserved) = self.moved(event, payload)?;
        self.check.checked += 1;
        let Some(levels) = &mut self.levels else { return Some(()) };
        let level = levels.entry(event.stream_id).or_default();
        let was_right = level.is_right();
        level.on_hand += on_hand;
        level.reserved += reserved;
        // One difference for each time that it goes wrong: the events after it repeat it.
        if was_right && !level.is_right() {
            let (Level { on_hand, reserved }, position) = (level, event.position);
            self.check.differs(|| {
                format!("after position {position}, {reserved} pieces of {sku} are reserved and {on_hand} on hand")
            });
        }
        Some(())
    }
}

impl ReservedStock {
    pub(super) fn new() -> Self {
        Self { levels: Some(HashMap::new()), ..Self::of_orders() }
    }

    /// What each line holds and ends alone.
    pub(super) fn of_orders() -> Self {
        Self { check: Check::new("reserved stock"), levels: None, held: HashMap::new() }
    }

    /// How many pieces more are on hand, and how many are reserved.
    fn moved(&mut self, event: &Row, payload: &Value) -> Option<(i128, i128)> {
        let lines = || pieces_by_line(payload, "lines");
        let sum = |lines: &[(u64, i128)]| lines.iter().map(|(_, pieces)| pieces).sum::<i128>();
        Some(match &*event.event_type {
            "StockReceived" => (u32::try_from(payload.get("quantity")?.as_u64()?).ok()?.into(), 0),
            "StockAdjusted" => (payload.get("by")?.as_i64()?.into(), 0),
            "StockRestocked" => (sum(&lines()?), 0),
            "StockReserved" => {
                let (order, lines) = (id(payload, "order_id")?, lines()?);
                lines.iter().for_each(|(line, pieces)| self.hold(event, order, *line, *pieces));
                (0, sum(&lines))
            }
            "StockCommitted" | "StockReleased" | "StockExpired" => {
                let (order, lines) = (id(payload, "order_id")?, lines()?);
                lines.iter().for_each(|(line, pieces)| self.end(event, order, *line, *pieces));
                let gone = -sum(&lines);
                (if event.event_type == "StockCommitted" { gone } else { 0 }, gone)
            }
            _ => (0, 0),
        })
    }

    fn hold(&mut self, event: &Row, order: Uuid, line: u64, pieces: i128) {
        let before = self.held.insert(Holder { stock: event.stream_id, order, line }, pieces);
        if let Some(before) = before {
            let position = event.position;
            self.check.differs(|| {
                format!(
                    "position {position} reserves line {line} of order {order}, which holds {before} pieces already"
                )
            });
        }
    }

    fn end(&mut self, event: &Row, order: Uuid, line: u64, pieces: i128) {
        let held = self.held.remove(&Holder { stock: event.stream_id, order, line }).unwrap_or(0);
        if held != pieces {
            let Row { position, event_type, .. } = event;
            self.check.differs(|| {
                format!(
                    "position {position} is a {event_type} of {pieces} pieces for line {line} of order {order}, which \
                     holds {held}"
                )
            });
        }
    }

    /// How many pieces each order holds. Nothing is said of a SKU that has an event that could not be read.
    pub(super) fn held(&self, unread: &Unread) -> HashMap<Uuid, i128> {
        let mut held = HashMap::new();
        for (holder, pieces) in self.held.iter().filter(|(holder, _)| !unread.has(holder.stock)) {
            *held.entry(holder.order).or_default() += pieces;
        }
        held
    }

    pub(super) fn finish(self) -> Check {
        self.check
    }
}
