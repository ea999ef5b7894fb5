//! Invariants 21 and 25, at the end of the log: every order ends, or waits for somebody who can see it; an order that has
//! ended holds no stock, and one that was called off neither has taken money nor holds any.
//!
//! A system in motion breaks this at any moment, and puts it right a moment later. So an order is judged only when
//! nothing more will happen to it by itself: all its events were reacted to, and no follow-up of it is due. Nor is it
//! judged when somebody can see that something of it was not done (it is parked), or has said that it is not to be
//! done (it was discarded).

use super::business::{Invariant, Unread, id, is_imported, is_of};
use super::payment_amounts::Left;
use super::read_models::list;
use super::{Check, Live};
use runtime::verify::log::Row;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use store::Position;
use uuid::Uuid;

pub(super) struct OrderEnds {
    check: Check,
    /// How far follow-ups and timers have come, both of them; none, if one has no live generation.
    reacted_to: Option<Position>,
    imported_to: Position,
    orders: HashMap<Uuid, Order>,
}

#[derive(Default)]
struct Order {
    is_placed: bool,
    /// Whether an event of it is imported, alone or with a whole log. Nothing follows from such an event, so that much
    /// of what must hold here was left to another system.
    is_history: bool,
    /// The position of its last event, whichever stream that is in.
    last: Position,
    end: Option<End>,
    is_confirmed: bool,
    holds: u32,
    awaits_approval: bool,
    /// The lines that wait for goods.
    backordered: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Completed,
    Cancelled,
    Rejected,
    Expired,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }
}

impl Invariant for OrderEnds {
    fn check(&mut self) -> &mut Check {
        &mut self.check
    }

    fn fold(&mut self, event: &Row, payload: &Value, unread: &Unread) -> Option<()> {
        let is_order = is_of(event, "order");
        let order_id = match is_order {
            true => event.stream_id,
            // Receipts and adjustments of stock are about no order.
            false if payload.get("order_id").is_none() => return Some(()),
            false => id(payload, "order_id")?,
        };
        if unread.has(order_id) {
            return Some(());
        }
        let is_history = is_imported(event) || event.position <= self.imported_to;
        let order = self.orders.entry(order_id).or_default();
        order.last = event.position;
        order.is_history |= is_history;
        if is_order { order.take(event, payload) } else { Some(()) }
    }
}

impl Order {
    fn take(&mut self, event: &Row, payload: &Value) -> Option<()> {
        match &*event.event_type {
            "OrderPlaced" => self.is_placed = true,
            "OrderConfirmed" => self.is_confirmed = true,
            "OrderCompleted" => self.end = Some(End::Completed),
            "OrderCancelled" => self.end = Some(End::Cancelled),
            "OrderRejected" => self.end = Some(End::Rejected),
            "OrderExpired" => self.end = Some(End::Expired),
            "HoldPlaced" => self.holds += 1,
            "HoldReleased" => self.holds = self.holds.saturating_sub(1),
            "ApprovalRequested" => self.awaits_approval = true,
            "ApprovalGranted" | "ApprovalDenied" | "ApprovalTimedOut" => self.awaits_approval = false,
            "LinesBackordered" => {
                let short = list(payload, "short")?.iter().map(|line| line.get("line")?.as_u64());
                self.backordered.extend(short.collect::<Option<Vec<_>>>()?);
            }
            "BackorderFilled" | "LinesCancelled" => {
                let gone = list(payload, "lines")?;
                self.backordered.retain(|line| !gone.iter().any(|gone| gone.as_u64() == Some(*line)));
            }
            _ => {}
        }
        Some(())
    }

    /// Whether somebody can see that it is up to them: the sellers and the carrier once it is confirmed, whoever holds
    /// or approves it, whoever receives goods. `waiting.rs` checks that the read model shows that.
    fn waits_for_somebody(&self) -> bool {
        self.is_confirmed || self.holds > 0 || self.awaits_approval || !self.backordered.is_empty()
    }
}

impl OrderEnds {
    pub(super) fn new(follow_ups: Option<&Live>, timers: Option<&Live>, imported_to: Position) -> Self {
        let reacted_to = follow_ups.zip(timers).map(|(acts, timed)| acts.position.min(timed.position));
        Self { check: Check::new("order ends"), reacted_to, imported_to, orders: HashMap::new() }
    }

    /// Judges all orders that have come to rest. `held` are the pieces that are reserved for each, `left` is what is left
    /// of its payments.
    pub(super) async fn finish(
        mut self,
        snapshot: &mut PgConnection,
        held: &HashMap<Uuid, i128>,
        left: &HashMap<Uuid, Left>,
        unread: &Unread,
    ) -> Result<Check, sqlx::Error> {
        // That there is none, the checks of follow-ups and timers say.
        let Some(reacted_to) = self.reacted_to else { return Ok(self.check) };
        let (in_motion, timed) = (in_motion(snapshot).await?, timed(snapshot).await?);
        for (id, order) in &self.orders {
            let is_judged = order.is_placed && !order.is_history && order.last <= reacted_to;
            if !is_judged || unread.has(*id) || in_motion.contains(&id.to_string()) {
                continue;
            }
            self.check.checked += 1;
            let Some(end) = order.end else {
                if !order.waits_for_somebody() && !timed.contains(id) {
                    self.check
                        .differs(|| format!("order {id} has not ended, and waits for nobody: nothing is due of it"));
                }
                continue;
            };
            let pieces = held.get(id).copied().unwrap_or(0);
            if pieces != 0 {
                self.check.differs(|| format!("order {id} is {}, and {pieces} pieces are reserved for it", end.word()));
            }
            // What a completed order owes and has paid is not told in one place yet.
            let Some(Left { taken, held }) = left.get(id).filter(|_| end != End::Completed) else { continue };
            if *taken != 0 {
                self.check.differs(|| format!("order {id} is {}, and {taken} of its money is taken", end.word()));
            }
            if *held != 0 {
                self.check.differs(|| format!("order {id} is {}, and {held} of its money is held", end.word()));
            }
        }
        Ok(self.check)
    }
}

/// The orders, and streams, of which something is due, waits for somebody, or was given up: a follow-up, or an event that a
/// projection could not take in.
async fn in_motion(snapshot: &mut PgConnection) -> Result<HashSet<String>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        r#"SELECT correlation_id::text AS "id!" FROM daybook.follow_ups WHERE state IN ('due', 'parked', 'discarded')
           UNION
           SELECT unnest(ARRAY[e.correlation_id::text, e.stream_id::text, coalesce(e.payload ->> 'order_id', '')])
           FROM daybook.events AS e
           WHERE e.position IN (SELECT position FROM daybook.parked_events
                                UNION ALL SELECT position FROM daybook.resolutions WHERE outcome = 'discarded')"#
    );
    Ok(ids.fetch_all(snapshot).await?.into_iter().collect())
}

/// The orders of which something is due at a later time.
async fn timed(snapshot: &mut PgConnection) -> Result<HashSet<Uuid>, sqlx::Error> {
    let ids = sqlx::query_scalar!("SELECT DISTINCT correlation_id FROM daybook.timers");
    Ok(ids.fetch_all(snapshot).await?.into_iter().collect())
}
