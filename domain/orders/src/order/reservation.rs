//! What an order hears of its stock: that it is reserved, short, or has come in.

use super::decide::HOLD_SECONDS;
use super::event::{
    BackorderFilled, CancelReason, Event, LinesBackordered, LinesShort, OrderPlaced, ReservationReturned, RestReserved,
    StockSecured,
};
use super::rejection::Rejection;
use super::state::{Order, Status};
use crate::id::{LineNo, OrderId};

impl Order {
    pub(super) fn stock_reserved(&self, id: OrderId) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Placed if !self.payments_secured => Err(Rejection::PaymentsNotSecured { order_id: id }),
            _ if self.unanswered.is_empty() => Ok(vec![]),
            Status::Placed if self.outstanding().next().is_none() => Ok(vec![StockSecured {}.into()]),
            Status::Placed => Ok(vec![RestReserved { lines: self.unanswered.iter().copied().collect() }.into()]),
            // An order that was called off released what it knew of; this was reserved while it was.
            status if status.is_called_off() => {
                Ok(vec![ReservationReturned { lines: self.pieces(|line| self.unanswered.contains(&line)) }.into()])
            }
            _ => Ok(vec![]),
        }
    }

    pub(super) fn shortage(
        &self,
        id: OrderId,
        placed: &OrderPlaced,
        short: &[LineNo],
    ) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Placed if !self.payments_secured => Err(Rejection::PaymentsNotSecured { order_id: id }),
            Status::Placed if self.unanswered.is_empty() => Ok(vec![]),
            Status::Placed if !placed.backorder => {
                let short = LinesShort { lines: short.to_vec() };
                Ok([vec![short.into()], self.cancelled(CancelReason::OutOfStock)].concat())
            }
            // What waits already was short the time before.
            Status::Placed if !short.iter().any(|line| self.unanswered.contains(line)) => Ok(vec![]),
            Status::Placed => {
                let short = |line: &LineNo| self.unanswered.contains(line) && short.contains(line);
                let rest = |line: &LineNo| self.unanswered.contains(line) && !short(line);
                let (short, rest) = (self.pieces(|line| short(&line)), self.pieces(|line| rest(&line)));
                Ok(vec![LinesBackordered { short, rest, hold_seconds: HOLD_SECONDS }.into()])
            }
            _ => Ok(vec![]),
        }
    }

    /// What has come in too late, or for a line that has gone, goes back once.
    pub(super) fn backorder_filled(&self, lines: &[LineNo]) -> Vec<Event> {
        let is_wanted = |line: LineNo| self.status == Status::Placed && self.has_line(line);
        let (wanted, late): (Vec<LineNo>, Vec<LineNo>) =
            self.waiting.iter().copied().filter(|line| lines.contains(line)).partition(|line| is_wanted(*line));
        let mut events = Vec::new();
        if !wanted.is_empty() {
            events.push(BackorderFilled { lines: wanted }.into());
        }
        if !late.is_empty() {
            events.push(ReservationReturned { lines: self.pieces(|line| late.contains(&line)) }.into());
        }
        events
    }
}
