//! Stock: one stream per SKU. What is on hand, and what of it is reserved for which order line.
//!
//! A command of an order names all its lines, and is decided over the streams of all their SKUs at once.

use crate::Aggregate;
use crate::Fault;
use crate::aggregate::events;
use crate::id::{LineNo, OrderId, Sku, StockId};
use crate::order::StockLine;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Adds pieces. It adds up: only its command id protects it from being repeated.
    Receive { sku: Sku, quantity: u32 },
    /// Holds all lines, or none and names every short one.
    Reserve { order_id: OrderId, lines: Vec<StockLine>, hold_seconds: u32 },
    /// Takes reserved pieces out: they were dispatched.
    Commit { order_id: OrderId, lines: Vec<StockLine> },
    /// Gives reserved pieces back.
    Release { order_id: OrderId, lines: Vec<StockLine> },
}

events! {
    /// Pieces came in.
    StockReceived = 1,
    /// Pieces are held for lines of an order.
    StockReserved = 1,
    /// Held pieces went out: they were dispatched.
    StockCommitted = 1,
    /// Held pieces are free again.
    StockReleased = 1,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockReceived {
    pub sku: Sku,
    pub quantity: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockReserved {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
    /// How long the pieces are held, in seconds from the recording.
    pub hold_seconds: u32,
    /// A reservation is one event for each SKU, all appended at once. This is number `part` of `parts`, from 1: at the
    /// last one, the order has all.
    pub part: u32,
    pub parts: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockCommitted {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StockReleased {
    pub sku: Sku,
    pub order_id: OrderId,
    pub lines: Vec<LineQuantity>,
}

/// A number of pieces, for a line of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LineQuantity {
    pub line: LineNo,
    pub quantity: u32,
}

/// The stock of one SKU. Never `reserved > on_hand`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stock {
    on_hand: u64,
    reserved: u64,
    reservations: BTreeMap<OrderId, BTreeMap<LineNo, u32>>,
}

/// A line that there is too little stock for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortLine {
    pub line: LineNo,
    pub sku: Sku,
    pub wanted: u32,
    /// What the lines before it have left.
    pub available: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Rejection {
    #[error("the stock command is malformed")]
    Invalid { faults: Vec<Fault> },
    #[error("out of stock: {}", short.iter().map(|s| s.sku.as_str()).collect::<Vec<_>>().join(", "))]
    OutOfStock { short: Vec<ShortLine> },
}

impl Command {
    /// The order that it is for, if it is for one.
    pub fn order_id(&self) -> Option<OrderId> {
        match self {
            Self::Receive { .. } => None,
            Self::Reserve { order_id, .. } | Self::Commit { order_id, .. } | Self::Release { order_id, .. } => {
                Some(*order_id)
            }
        }
    }

    /// The SKUs that the command is about, each once.
    pub fn skus(&self) -> Vec<Sku> {
        match self {
            Self::Receive { sku, .. } => vec![sku.clone()],
            Self::Reserve { lines, .. } | Self::Commit { lines, .. } | Self::Release { lines, .. } => {
                let mut skus: Vec<Sku> = lines.iter().map(|l| l.sku.clone()).collect();
                skus.sort_unstable();
                skus.dedup();
                skus
            }
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Receive { quantity: 0, .. } => vec![Fault::new("quantity", "1 or more")],
            Self::Receive { .. } => vec![],
            Self::Reserve { lines, .. } | Self::Commit { lines, .. } | Self::Release { lines, .. } => {
                let mut seen = BTreeSet::new();
                let again = lines.iter().enumerate().filter(|(_, l)| !seen.insert(l.line));
                again.map(|(i, _)| Fault::new(format!("lines[{i}].line"), "each line once")).collect()
            }
        }
    }
}

/// What `command` makes of the stocks of its SKUs, given and returned in the order of [`Command::skus`]; nothing where
/// it is so already.
///
/// # Errors
/// When a line is short: then nothing is reserved, and every short line is named.
pub fn decide(command: &Command, stocks: &[impl Borrow<Stock>]) -> Result<Vec<Vec<Event>>, Rejection> {
    let faults = command.faults();
    if !faults.is_empty() {
        return Err(Rejection::Invalid { faults });
    }
    let skus = command.skus();
    let stocks = skus.iter().zip(stocks.iter().map(Borrow::borrow));
    match command {
        Command::Receive { sku, quantity } => {
            Ok(vec![vec![StockReceived { sku: sku.clone(), quantity: *quantity }.into()]])
        }
        Command::Reserve { order_id, lines, hold_seconds } => {
            let mut short = Vec::new();
            let new: Vec<_> = stocks.map(|(sku, stock)| stock.reserve(*order_id, sku, lines, &mut short)).collect();
            if !short.is_empty() {
                short.sort_unstable_by_key(|s| s.line);
                return Err(Rejection::OutOfStock { short });
            }
            Ok(reserved(*order_id, *hold_seconds, skus, new))
        }
        Command::Commit { order_id, lines } => Ok(stocks
            .map(|(sku, stock)| {
                stock.held(*order_id, sku, lines, |sku, order_id, lines| StockCommitted { sku, order_id, lines }.into())
            })
            .collect()),
        Command::Release { order_id, lines } => Ok(stocks
            .map(|(sku, stock)| {
                stock.held(*order_id, sku, lines, |sku, order_id, lines| StockReleased { sku, order_id, lines }.into())
            })
            .collect()),
    }
}

/// An event for each SKU that something new is reserved of.
fn reserved(order_id: OrderId, hold_seconds: u32, skus: Vec<Sku>, new: Vec<Vec<LineQuantity>>) -> Vec<Vec<Event>> {
    let parts = new.iter().filter(|lines| !lines.is_empty()).count() as u32;
    let mut part = 0;
    let event = |(sku, lines): (Sku, Vec<LineQuantity>)| {
        if lines.is_empty() {
            return vec![];
        }
        part += 1;
        vec![StockReserved { sku, order_id, lines, hold_seconds, part, parts }.into()]
    };
    skus.into_iter().zip(new).map(event).collect()
}

impl Stock {
    pub fn on_hand(&self) -> u64 {
        self.on_hand
    }

    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The lines of `sku` that are not reserved yet; those that do not fit go to `short`.
    fn reserve(&self, order: OrderId, sku: &Sku, lines: &[StockLine], short: &mut Vec<ShortLine>) -> Vec<LineQuantity> {
        let mut available = self.on_hand - self.reserved;
        let mut new = Vec::new();
        for line in lines.iter().filter(|l| l.sku == *sku && self.reservation(order, l.line).is_none()) {
            if let Some(rest) = available.checked_sub(u64::from(line.quantity)) {
                available = rest;
                new.push(LineQuantity { line: line.line, quantity: line.quantity });
            } else {
                short.push(ShortLine { line: line.line, sku: sku.clone(), wanted: line.quantity, available });
            }
        }
        new
    }

    /// An event with what is still held for the lines of `sku`; none if nothing is.
    fn held(
        &self,
        order: OrderId,
        sku: &Sku,
        lines: &[StockLine],
        event: impl FnOnce(Sku, OrderId, Vec<LineQuantity>) -> Event,
    ) -> Vec<Event> {
        let held = |l: &StockLine| Some(LineQuantity { line: l.line, quantity: self.reservation(order, l.line)? });
        let lines: Vec<_> = lines.iter().filter(|l| l.sku == *sku).filter_map(held).collect();
        if lines.is_empty() { vec![] } else { vec![event(sku.clone(), order, lines)] }
    }

    fn reservation(&self, order: OrderId, line: LineNo) -> Option<u32> {
        self.reservations.get(&order)?.get(&line).copied()
    }

    fn end_reservations(&mut self, order: OrderId, lines: &[LineQuantity]) -> u64 {
        let Some(held) = self.reservations.get_mut(&order) else { return 0 };
        let pieces: u64 = lines.iter().filter_map(|l| held.remove(&l.line)).map(u64::from).sum();
        if held.is_empty() {
            self.reservations.remove(&order);
        }
        self.reserved -= pieces;
        pieces
    }
}

impl Aggregate for Stock {
    const CATEGORY: &'static str = "stock";
    type Event = Event;

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::StockReceived(e) => self.on_hand += u64::from(e.quantity),
            Event::StockReserved(e) => {
                self.reservations.entry(e.order_id).or_default().extend(e.lines.iter().map(|l| (l.line, l.quantity)));
                self.reserved += e.lines.iter().map(|l| u64::from(l.quantity)).sum::<u64>();
            }
            Event::StockCommitted(e) => self.on_hand -= self.end_reservations(e.order_id, &e.lines),
            Event::StockReleased(e) => {
                self.end_reservations(e.order_id, &e.lines);
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
