//! What the events of a SKU's stock come to: all that decisions need.

use super::event::{Event, LineQuantity, StockReserved};
use crate::Aggregate;
use crate::id::{LineNo, OrderId, RestockId, Sku, StockId};
use crate::order::StockLine;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The stock of one SKU. Never `reserved > on_hand`; and whoever waits, waits because the first of them does not fit
/// into what is free.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stock {
    on_hand: u64,
    reserved: u64,
    pub(super) reservations: BTreeMap<OrderId, BTreeMap<LineNo, Held>>,
    /// In the order in which they came.
    pub(super) waiting: Vec<Waiting>,
    /// The lines that hold or wait no more, in their order: each does so once, whatever comes late or twice. It grows
    /// with every order, and is a list because that takes the least room and is soonest copied.
    ended: Vec<(OrderId, LineNo, End)>,
    restocked: BTreeSet<RestockId>,
}

/// A line that holds pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) quantity: u32,
    /// Whether its order was told that it need not wait for them.
    pub(super) backorder: bool,
}

/// A line that waits for pieces to come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) order_id: OrderId,
    pub(super) line: LineNo,
    pub(super) quantity: u32,
    pub(super) hold_seconds: u32,
}

/// How a line's reservation, or its waiting for one, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    Committed,
    GivenBack,
}

impl Stock {
    pub fn on_hand(&self) -> u64 {
        self.on_hand
    }

    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// What is on hand and not reserved.
    pub(super) fn free(&self) -> u64 {
        self.on_hand - self.reserved
    }

    /// What of that a new reservation can have: nothing as long as somebody waits, for those come first.
    pub(super) fn available(&self) -> u64 {
        if self.waiting.is_empty() { self.free() } else { 0 }
    }

    /// Those of the lines that are held, with what is held for them.
    pub(super) fn held(&self, order: OrderId, sku: &Sku, lines: &[StockLine]) -> Vec<LineQuantity> {
        let held =
            |l: &StockLine| Some(LineQuantity { line: l.line, quantity: self.reservation(order, l.line)?.quantity });
        lines.iter().filter(|l| l.sku == *sku).filter_map(held).collect()
    }

    /// Those of the lines that are held though they were not expected to be.
    pub(super) fn held_unexpectedly(&self, order: OrderId, sku: &Sku, lines: &[StockLine]) -> Vec<LineQuantity> {
        let mut held = self.held(order, sku, lines);
        held.retain(|l| self.reservation(order, l.line).is_some_and(|held| !held.backorder));
        held
    }

    /// Those of the lines that wait, with what they wait for.
    pub(super) fn waited_for(&self, order: OrderId, sku: &Sku, lines: &[StockLine]) -> Vec<LineQuantity> {
        let ours = lines.iter().filter(|l| l.sku == *sku);
        let waiting = |l: &StockLine| self.waiting.iter().find(|w| (w.order_id, w.line) == (order, l.line));
        ours.filter_map(waiting).map(|w| LineQuantity { line: w.line, quantity: w.quantity }).collect()
    }

    /// Whether the line holds or waits, or did so once.
    pub(super) fn knows(&self, order: OrderId, line: LineNo) -> bool {
        self.reservation(order, line).is_some()
            || self.waiting.iter().any(|w| (w.order_id, w.line) == (order, line))
            || self.end_of(order, line).is_some()
    }

    pub(super) fn is_committed(&self, order: OrderId, line: LineNo) -> bool {
        self.end_of(order, line) == Some(End::Committed)
    }

    pub(super) fn has_restocked(&self, id: RestockId) -> bool {
        self.restocked.contains(&id)
    }

    fn reservation(&self, order: OrderId, line: LineNo) -> Option<Held> {
        self.reservations.get(&order)?.get(&line).copied()
    }

    fn end_of(&self, order: OrderId, line: LineNo) -> Option<End> {
        let at = self.ended.binary_search_by_key(&(order, line), |(order, line, _)| (*order, *line)).ok()?;
        Some(self.ended[at].2)
    }

    fn hold(&mut self, e: &StockReserved) {
        self.wait_no_more(e.order_id, &e.lines);
        let held = |l: &LineQuantity| (l.line, Held { quantity: l.quantity, backorder: e.backorder });
        self.reservations.entry(e.order_id).or_default().extend(e.lines.iter().map(held));
        self.reserved += pieces(&e.lines);
    }

    fn wait_no_more(&mut self, order: OrderId, lines: &[LineQuantity]) {
        self.waiting.retain(|w| w.order_id != order || !lines.iter().any(|l| l.line == w.line));
    }

    fn end(&mut self, order: OrderId, lines: &[LineQuantity], how: End) {
        for LineQuantity { line, .. } in lines {
            match self.ended.binary_search_by_key(&(order, *line), |(order, line, _)| (*order, *line)) {
                Ok(at) => self.ended[at].2 = how,
                Err(at) => self.ended.insert(at, (order, *line, how)),
            }
        }
    }

    /// How many pieces were held.
    fn end_reservations(&mut self, order: OrderId, lines: &[LineQuantity], how: End) -> u64 {
        self.end(order, lines, how);
        let Some(held) = self.reservations.get_mut(&order) else { return 0 };
        let pieces: u64 = lines.iter().filter_map(|l| held.remove(&l.line)).map(|h| u64::from(h.quantity)).sum();
        if held.is_empty() {
            self.reservations.remove(&order);
        }
        self.reserved -= pieces;
        pieces
    }
}

/// How many pieces the lines have together.
pub(super) fn pieces(lines: &[LineQuantity]) -> u64 {
    lines.iter().map(|l| u64::from(l.quantity)).sum()
}

impl Aggregate for Stock {
    const CATEGORY: &'static str = "stock";
    type Event = Event;

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::StockReceived(e) => self.on_hand += u64::from(e.quantity),
            Event::StockReserved(e) => self.hold(e),
            Event::StockBackordered(e) => {
                let (order_id, hold_seconds) = (e.order_id, e.hold_seconds);
                let waiting = |l: &LineQuantity| Waiting { order_id, line: l.line, quantity: l.quantity, hold_seconds };
                self.waiting.extend(e.lines.iter().map(waiting));
            }
            Event::BackorderNeedless(e) => {
                let held = self.reservations.get_mut(&e.order_id).into_iter().flatten();
                held.filter(|(line, _)| e.lines.iter().any(|l| l.line == **line)).for_each(|(_, h)| h.backorder = true);
            }
            Event::BackorderDropped(e) => {
                self.wait_no_more(e.order_id, &e.lines);
                self.end(e.order_id, &e.lines, End::GivenBack);
            }
            Event::StockCommitted(e) => self.on_hand -= self.end_reservations(e.order_id, &e.lines, End::Committed),
            Event::StockReleased(e) => _ = self.end_reservations(e.order_id, &e.lines, End::GivenBack),
            Event::StockExpired(e) => _ = self.end_reservations(e.order_id, &e.lines, End::GivenBack),
            Event::StockAdjusted(e) => self.on_hand = self.on_hand.saturating_add_signed(e.by),
            Event::StockRestocked(e) => {
                self.on_hand += pieces(&e.lines);
                self.restocked.insert(e.restock_id);
            }
        }
    }

    fn event_of(event: &crate::Event) -> Option<&Event> {
        match event {
            crate::Event::Stock(_, event) => Some(event),
            crate::Event::Order(..) | crate::Event::Payment(..) | crate::Event::Shipment(..) => None,
        }
    }

    fn event(id: Uuid, event: Event) -> crate::Event {
        crate::Event::Stock(StockId(id), event)
    }
}
