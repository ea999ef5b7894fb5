//! Stock: one stream per SKU. What is on hand, what of it is reserved for which order line, and which lines wait for more.
//!
//! A command of an order names all its lines, and is decided over the streams of all their SKUs at once. A line holds
//! pieces once: whatever comes late or twice after its reservation has ended changes nothing. What becomes free goes to
//! those who wait, first come, first served, in the append that makes it free.

use crate::Fault;
use crate::id::{LineNo, OrderId, RestockId, Sku};
use crate::order::StockLine;
use serde::{Deserialize, Serialize};
use state::{Waiting, pieces};
use std::borrow::Borrow;
use std::collections::BTreeSet;

mod event;
mod state;
#[cfg(test)]
mod tests;

pub use event::*;
pub use state::Stock;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Adds pieces. It adds up: only its command id protects it from being repeated.
    Receive { sku: Sku, quantity: u32 },
    /// Holds all lines, or none and names every short one.
    Reserve {
        order_id: OrderId,
        lines: Vec<StockLine>,
        hold_seconds: u32,
        /// The edit of the order that the lines are for, if they are for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edit: Option<u32>,
    },
    /// Has the lines wait for pieces to come in.
    Backorder { order_id: OrderId, lines: Vec<StockLine>, hold_seconds: u32 },
    /// Takes reserved pieces out: they were dispatched.
    Commit { order_id: OrderId, lines: Vec<StockLine> },
    /// Gives reserved pieces back, and has nobody wait: neither now nor when a backorder comes that it was faster than.
    Release { order_id: OrderId, lines: Vec<StockLine> },
    /// The same, for the time of the reservation is over.
    Expire { order_id: OrderId, lines: Vec<StockLine> },
    /// Puts right how many pieces there are. It adds up, like a receipt.
    Adjust {
        sku: Sku,
        /// How many more; negative if they are fewer.
        by: i64,
        reason: AdjustReason,
    },
    /// Takes pieces back that were dispatched, once for its id. Whether they were is not asked: word of the dispatch may
    /// come later.
    Restock { order_id: OrderId, restock_id: RestockId, lines: Vec<StockLine> },
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
    #[error("order {order_id} holds nothing for its lines {lines:?}, which were dispatched: count what there is")]
    NotHeld { order_id: OrderId, lines: Vec<LineNo> },
    #[error("of {sku} there are {on_hand} on hand and {reserved} of them reserved: {} cannot be taken away", -by)]
    BelowReserved { sku: Sku, on_hand: u64, reserved: u64, by: i64 },
}

/// The most pieces by which a stock can be put right at once: as many as can be received.
const MAX_ADJUSTMENT: i64 = u32::MAX as i64;

impl Command {
    /// The order that it is for, if it is for one.
    pub fn order_id(&self) -> Option<OrderId> {
        match self {
            Self::Receive { .. } | Self::Adjust { .. } => None,
            Self::Reserve { order_id, .. }
            | Self::Backorder { order_id, .. }
            | Self::Commit { order_id, .. }
            | Self::Release { order_id, .. }
            | Self::Expire { order_id, .. }
            | Self::Restock { order_id, .. } => Some(*order_id),
        }
    }

    /// The order's lines that it is about; none of one that is about no order.
    fn lines(&self) -> &[StockLine] {
        match self {
            Self::Receive { .. } | Self::Adjust { .. } => &[],
            Self::Reserve { lines, .. }
            | Self::Backorder { lines, .. }
            | Self::Commit { lines, .. }
            | Self::Release { lines, .. }
            | Self::Expire { lines, .. }
            | Self::Restock { lines, .. } => lines,
        }
    }

    /// The SKUs that the command is about, each once.
    pub fn skus(&self) -> Vec<Sku> {
        if let Self::Receive { sku, .. } | Self::Adjust { sku, .. } = self {
            return vec![sku.clone()];
        }
        let mut skus: Vec<Sku> = self.lines().iter().map(|l| l.sku.clone()).collect();
        skus.sort_unstable();
        skus.dedup();
        skus
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Receive { quantity: 0, .. } => vec![Fault::new("quantity", "1 or more")],
            Self::Adjust { by, .. } if *by == 0 || by.unsigned_abs() > MAX_ADJUSTMENT.unsigned_abs() => {
                vec![Fault::new("by", format!("1 to {MAX_ADJUSTMENT} pieces more or fewer"))]
            }
            command => {
                let mut seen = BTreeSet::new();
                let again = command.lines().iter().enumerate().filter(|(_, l)| !seen.insert(l.line));
                again.map(|(i, _)| Fault::new(format!("lines[{i}].line"), "each line once")).collect()
            }
        }
    }
}

/// What `command` makes of the stocks of its SKUs, given and returned in the order of [`Command::skus`]; no events
/// where nothing changes.
///
/// # Errors
/// When a line is short: then nothing is reserved, and every short line is named. When what was dispatched is not held,
/// and when more is reserved than would be on hand.
pub fn decide(command: &Command, stocks: &[impl Borrow<Stock>]) -> Result<Vec<Vec<Event>>, Rejection> {
    let faults = command.faults();
    if !faults.is_empty() {
        return Err(Rejection::Invalid { faults });
    }
    let skus = command.skus();
    let stocks = || skus.iter().zip(stocks.iter().map(Borrow::borrow));
    match command {
        Command::Receive { quantity, .. } => Ok(stocks().map(|(sku, stock)| stock.receive(sku, *quantity)).collect()),
        Command::Adjust { by, reason, .. } => stocks().map(|(sku, stock)| stock.adjust(sku, *by, *reason)).collect(),
        Command::Reserve { order_id, lines, hold_seconds, edit } => {
            let mut short = Vec::new();
            let new: Vec<_> = stocks().map(|(sku, stock)| stock.reserve(*order_id, sku, lines, &mut short)).collect();
            if !short.is_empty() {
                short.sort_unstable_by_key(|s| s.line);
                return Err(Rejection::OutOfStock { short });
            }
            Ok(reserved(*order_id, *hold_seconds, *edit, &skus, new))
        }
        Command::Backorder { order_id, lines, hold_seconds } => {
            Ok(stocks().map(|(sku, stock)| stock.backorder(*order_id, sku, lines, *hold_seconds)).collect())
        }
        Command::Commit { order_id, lines } => {
            let mut gone: Vec<LineNo> =
                stocks().flat_map(|(sku, stock)| stock.neither_held_nor_committed(*order_id, sku, lines)).collect();
            if !gone.is_empty() {
                gone.sort_unstable();
                return Err(Rejection::NotHeld { order_id: *order_id, lines: gone });
            }
            Ok(stocks().map(|(sku, stock)| stock.commit(*order_id, sku, lines)).collect())
        }
        Command::Release { order_id, lines } => {
            let released = |sku, order_id, lines| StockReleased { sku, order_id, lines }.into();
            let of_sku = |(sku, stock): (&Sku, &Stock)| {
                let events = stock.give_back(*order_id, sku, lines, released).into_iter();
                events.chain(stock.not_to_come(*order_id, sku, lines)).collect()
            };
            Ok(stocks().map(of_sku).collect())
        }
        Command::Expire { order_id, lines } => {
            let expired = |sku, order_id, lines| StockExpired { sku, order_id, lines }.into();
            Ok(stocks().map(|(sku, stock)| stock.give_back(*order_id, sku, lines, expired)).collect())
        }
        Command::Restock { order_id, restock_id, lines } => {
            Ok(stocks().map(|(sku, stock)| stock.restock(*order_id, sku, *restock_id, lines)).collect())
        }
    }
}

/// An event for each SKU that something new is reserved of.
fn reserved(
    order_id: OrderId,
    hold_seconds: u32,
    edit: Option<u32>,
    skus: &[Sku],
    new: Vec<Vec<LineQuantity>>,
) -> Vec<Vec<Event>> {
    let parts = new.iter().filter(|lines| !lines.is_empty()).count() as u32;
    let mut part = 0;
    let event = |(sku, lines): (&Sku, Vec<LineQuantity>)| {
        if lines.is_empty() {
            return vec![];
        }
        part += 1;
        let sku = sku.clone();
        vec![StockReserved { sku, order_id, lines, hold_seconds, part, parts, edit, backorder: false }.into()]
    };
    skus.iter().zip(new).map(event).collect()
}

impl Stock {
    fn receive(&self, sku: &Sku, quantity: u32) -> Vec<Event> {
        let received = StockReceived { sku: sku.clone(), quantity };
        let fills = fills(sku, self.free() + u64::from(quantity), &self.waiting);
        [received.into()].into_iter().chain(fills).collect()
    }

    fn adjust(&self, sku: &Sku, by: i64, reason: AdjustReason) -> Result<Vec<Event>, Rejection> {
        let (on_hand, reserved) = (self.on_hand(), self.reserved());
        let Some(free) = self.free().checked_add_signed(by) else {
            return Err(Rejection::BelowReserved { sku: sku.clone(), on_hand, reserved, by });
        };
        let adjusted = StockAdjusted { sku: sku.clone(), by, reason };
        Ok([adjusted.into()].into_iter().chain(fills(sku, free, &self.waiting)).collect())
    }

    /// The lines of `sku` that are new to it; those that do not fit go to `short`.
    fn reserve(&self, order: OrderId, sku: &Sku, lines: &[StockLine], short: &mut Vec<ShortLine>) -> Vec<LineQuantity> {
        let mut available = self.available();
        let mut new = Vec::new();
        for line in lines.iter().filter(|l| l.sku == *sku && !self.knows(order, l.line)) {
            if let Some(rest) = available.checked_sub(u64::from(line.quantity)) {
                available = rest;
                new.push(LineQuantity { line: line.line, quantity: line.quantity });
            } else {
                short.push(ShortLine { line: line.line, sku: sku.clone(), wanted: line.quantity, available });
            }
        }
        new
    }

    fn backorder(&self, order_id: OrderId, sku: &Sku, lines: &[StockLine], hold_seconds: u32) -> Vec<Event> {
        // They were short, and in the meantime another try to reserve them has succeeded.
        let held = self.held_unexpectedly(order_id, sku, lines);
        let mut events: Vec<Event> = Vec::new();
        if !held.is_empty() {
            events.push(BackorderNeedless { sku: sku.clone(), order_id, lines: held }.into());
        }
        let lines = self.unknown(order_id, sku, lines);
        if lines.is_empty() {
            return events;
        }
        let waiting = |l: &LineQuantity| Waiting { order_id, line: l.line, quantity: l.quantity, hold_seconds };
        let new: Vec<Waiting> = lines.iter().map(waiting).collect();
        let backordered = StockBackordered { sku: sku.clone(), order_id, lines, hold_seconds };
        // Pieces may have come in since the order was found to be short.
        let fills = fills(sku, self.free(), self.waiting.iter().chain(&new));
        events.into_iter().chain([backordered.into()]).chain(fills).collect()
    }

    /// The lines of `sku` that it has never heard of.
    fn unknown(&self, order: OrderId, sku: &Sku, lines: &[StockLine]) -> Vec<LineQuantity> {
        of_sku(sku, lines).filter(|l| !self.knows(order, l.line)).collect()
    }

    fn neither_held_nor_committed(&self, order: OrderId, sku: &Sku, lines: &[StockLine]) -> Vec<LineNo> {
        let held = self.held(order, sku, lines);
        let gone = |line: &LineNo| !held.iter().any(|l| l.line == *line) && !self.is_committed(order, *line);
        lines.iter().filter(|l| l.sku == *sku).map(|l| l.line).filter(gone).collect()
    }

    fn commit(&self, order_id: OrderId, sku: &Sku, lines: &[StockLine]) -> Vec<Event> {
        let lines = self.held(order_id, sku, lines);
        if lines.is_empty() { vec![] } else { vec![StockCommitted { sku: sku.clone(), order_id, lines }.into()] }
    }

    /// Ends what is held of the lines, by the event that `given_back` makes of it, and has none of them wait.
    fn give_back(
        &self,
        order_id: OrderId,
        sku: &Sku,
        lines: &[StockLine],
        given_back: impl FnOnce(Sku, OrderId, Vec<LineQuantity>) -> Event,
    ) -> Vec<Event> {
        let (held, dropped) = (self.held(order_id, sku, lines), self.waited_for(order_id, sku, lines));
        let free = self.free() + pieces(&held);
        let stays = |w: &&Waiting| w.order_id != order_id || !dropped.iter().any(|l| l.line == w.line);
        let fills = fills(sku, free, self.waiting.iter().filter(stays));
        let mut events: Vec<Event> = Vec::new();
        if !held.is_empty() {
            events.push(given_back(sku.clone(), order_id, held));
        }
        if !dropped.is_empty() {
            events.push(BackorderDropped { sku: sku.clone(), order_id, lines: dropped }.into());
        }
        events.into_iter().chain(fills).collect()
    }

    /// Writes down the lines that it has never heard of: the release was faster than the backorder, which then is none.
    fn not_to_come(&self, order_id: OrderId, sku: &Sku, lines: &[StockLine]) -> Option<Event> {
        let lines = self.unknown(order_id, sku, lines);
        (!lines.is_empty()).then(|| BackorderDropped { sku: sku.clone(), order_id, lines }.into())
    }

    fn restock(&self, order_id: OrderId, sku: &Sku, restock_id: RestockId, lines: &[StockLine]) -> Vec<Event> {
        if self.has_restocked(restock_id) {
            return vec![];
        }
        let lines: Vec<LineQuantity> = of_sku(sku, lines).collect();
        let fills = fills(sku, self.free() + pieces(&lines), &self.waiting);
        [StockRestocked { sku: sku.clone(), order_id, lines, restock_id }.into()].into_iter().chain(fills).collect()
    }
}

fn of_sku(sku: &Sku, lines: &[StockLine]) -> impl Iterator<Item = LineQuantity> {
    lines.iter().filter(|l| l.sku == *sku).map(|l| LineQuantity { line: l.line, quantity: l.quantity })
}

/// Who of those who wait gets what is free: one after the other, up to the first that does not fit. Nobody overtakes, or
/// who waits for much would wait for ever.
fn fills<'a>(sku: &Sku, mut free: u64, waiting: impl IntoIterator<Item = &'a Waiting>) -> Vec<Event> {
    let mut fills: Vec<StockReserved> = Vec::new();
    for Waiting { order_id, line, quantity, hold_seconds } in waiting.into_iter().copied() {
        let Some(rest) = free.checked_sub(u64::from(quantity)) else { break };
        free = rest;
        let line = LineQuantity { line, quantity };
        match fills.last_mut() {
            Some(last) if (last.order_id, last.hold_seconds) == (order_id, hold_seconds) => last.lines.push(line),
            _ => fills.push(StockReserved {
                sku: sku.clone(),
                order_id,
                lines: vec![line],
                hold_seconds,
                part: 1,
                parts: 1,
                edit: None,
                backorder: true,
            }),
        }
    }
    fills.into_iter().map(Event::from).collect()
}
