//! What an order's events come to: all that decisions need.

use super::display_status::DisplayStatus;
use super::event::{
    EditProposed, Event, HoldReason, Life, OrderLine, OrderPayment, OrderPlaced, ReceivedLine, RefundShare,
    SellerShipping, StockLine,
};
use crate::Aggregate;
use crate::id::{AddressId, CaptureId, LineNo, OrderId, PaymentId, ReceiptId};
use crate::money::Amount;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Where an order is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is no such order yet.
    #[default]
    Unplaced,
    Placed,
    Confirmed,
    Completed,
    Cancelled,
    Rejected,
    Expired,
}

impl Status {
    /// Whether the order came to nothing.
    pub(super) fn is_called_off(self) -> bool {
        matches!(self, Self::Cancelled | Self::Rejected | Self::Expired)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown().map_or("unplaced", DisplayStatus::as_str))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Order {
    pub status: Status,
    /// Its events up to here are the history of another system.
    pub(super) is_history: bool,
    /// As it was placed. Shared, for the state is cloned for every decision.
    pub(super) placed: Option<Arc<OrderPlaced>>,
    /// The lines of confirmed edits.
    pub(super) added: Vec<OrderLine>,
    /// The lines that were cancelled or edited away.
    pub(super) removed: BTreeSet<LineNo>,
    /// Of the last confirmed edit.
    pub(super) shipping: Option<Vec<SellerShipping>>,
    /// Where to it is shipped, if not where to it was placed.
    pub(super) address: Option<AddressId>,
    /// The payments of confirmed edits.
    pub(super) more_payments: Vec<OrderPayment>,
    /// The payments that are no longer needed.
    pub(super) let_go: BTreeSet<PaymentId>,
    pub(super) authorised: BTreeSet<PaymentId>,
    pub(super) payments_secured: bool,
    pub(super) stock_secured: bool,
    /// The lines whose reservation is not accounted for: neither made, nor returned because it came too late.
    pub(super) unanswered: BTreeSet<LineNo>,
    /// The lines that wait for stock.
    pub(super) waiting: BTreeSet<LineNo>,
    pub(super) holds: BTreeSet<HoldReason>,
    /// How often it has been on hold.
    pub(super) times_held: u32,
    pub(super) approvals: Vec<Approval>,
    pub(super) edit: Option<OpenEdit>,
    /// What became of the edits before.
    pub(super) edits: Vec<EditEnd>,
    /// How many lines and payments it has ever had, those of discarded edits included.
    pub(super) lines_numbered: u32,
    pub(super) payments_numbered: usize,
    pub(super) delivered: BTreeSet<LineNo>,
    /// The lines that were lost or went back to the sender.
    pub(super) undelivered: BTreeSet<LineNo>,
    pub(super) returns: Vec<Return>,
    pub(super) refunded: BTreeMap<CaptureId, Amount>,
}

/// Where an approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    Pending { within_seconds: u32 },
    Granted,
    Denied,
    TimedOut,
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending { .. } => "pending",
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::TimedOut => "timed out",
        })
    }
}

/// An edit that is neither confirmed nor discarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenEdit {
    pub(super) proposed: Arc<EditProposed>,
    pub(super) stock_secured: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EditEnd {
    Confirmed,
    /// With what may have been reserved for it, and is not accounted for.
    Discarded(Vec<StockLine>),
}

/// A return, from the day on which it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Return {
    pub(super) lines: Vec<super::ReturnLine>,
    pub(super) reason: super::ReturnReason,
    pub(super) approved: bool,
    /// What came with each parcel.
    pub(super) receipts: BTreeMap<ReceiptId, Vec<ReceivedLine>>,
}

impl Return {
    /// How many pieces of a line came back.
    pub(super) fn received(&self, line: LineNo) -> u32 {
        self.receipts.values().flatten().filter(|l| l.line == line).map(|l| l.quantity).sum()
    }
}

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
    type Event = Event;

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::OrderPlaced(placed) => {
                self.status = Status::Placed;
                self.unanswered = placed.lines.iter().map(|l| l.line).collect();
                self.lines_numbered = placed.lines.iter().map(|l| l.line).max().unwrap_or_default();
                self.payments_numbered = placed.payments.len();
                self.placed = Some(Arc::new(placed.clone()));
            }
            Event::PaymentAuthorisedRecorded(e) => {
                self.authorised.insert(e.payment_id);
            }
            Event::PaymentsSecured(_) => self.payments_secured = true,
            Event::OrderRejected(_) => self.status = Status::Rejected,
            Event::StockSecured(_) => {
                self.stock_secured = true;
                self.unanswered.clear();
            }
            Event::OrderConfirmed(_) => self.status = Status::Confirmed,
            Event::OrderCancelled(_) => self.status = Status::Cancelled,
            Event::OrderExpired(_) => self.status = Status::Expired,
            Event::OrderCompleted(_) => self.status = Status::Completed,
            Event::LinesBackordered(e) => {
                self.unanswered = e.rest.iter().map(|l| l.line).collect();
                self.waiting.extend(e.short.iter().map(|l| l.line));
            }
            Event::BackorderFilled(e) => self.waiting.retain(|line| !e.lines.contains(line)),
            Event::RestReserved(e) => self.unanswered.retain(|line| !e.lines.contains(line)),
            Event::ReservationReturned(e) => self.account_for(&e.lines),
            Event::HoldPlaced(e) => {
                self.holds.insert(e.reason);
                self.times_held = e.hold;
            }
            Event::HoldReleased(e) => {
                self.holds.remove(&e.reason);
            }
            Event::ApprovalRequested(e) => self.approvals.push(Approval::Pending { within_seconds: e.within_seconds }),
            Event::ApprovalGranted(e) => self.decide_approval(e.approval, Approval::Granted),
            Event::ApprovalDenied(e) => self.decide_approval(e.approval, Approval::Denied),
            Event::ApprovalTimedOut(e) => self.decide_approval(e.approval, Approval::TimedOut),
            Event::LinesCancelled(e) => {
                self.remove(&e.lines);
                self.let_go.extend(&e.payments);
            }
            Event::AddressChanged(e) => self.address = Some(e.address_id),
            Event::EditProposed(e) => {
                self.lines_numbered += e.add.len() as u32;
                self.payments_numbered += e.payments.len();
                self.edit = Some(OpenEdit { proposed: Arc::new(e.clone()), stock_secured: e.reserve.is_empty() });
            }
            Event::EditStockSecured(_) => {
                if let Some(edit) = &mut self.edit {
                    edit.stock_secured = true;
                }
            }
            Event::EditDiscarded(_) => {
                let Some(edit) = self.edit.take() else { return };
                let unknown = if edit.stock_secured { vec![] } else { edit.proposed.reserve.clone() };
                self.edits.push(EditEnd::Discarded(unknown));
            }
            Event::EditConfirmed(e) => {
                if let Some(edit) = self.edit.take() {
                    self.become_as(&edit.proposed);
                }
                self.let_go.extend(&e.payments);
                self.edits.push(EditEnd::Confirmed);
            }
            Event::LinesDelivered(e) => self.delivered.extend(&e.lines),
            Event::LinesLost(e) => self.go_back(&e.lines, &e.refunds),
            Event::LinesReturnedToSender(e) => self.go_back(&e.lines, &e.refunds),
            Event::ReturnRequested(e) => self.returns.push(Return {
                lines: e.lines.clone(),
                reason: e.reason,
                approved: false,
                receipts: BTreeMap::new(),
            }),
            Event::ReturnApproved(e) => {
                if let Some(asked) = self.return_mut(e.return_no) {
                    asked.approved = true;
                }
            }
            Event::ReturnReceived(e) => {
                if let Some(asked) = self.return_mut(e.return_no) {
                    asked.receipts.insert(e.receipt_id, e.lines.clone());
                }
                self.refund(&e.refunds);
            }
            Event::HistoryRecorded(_) => self.is_history = true,
            Event::PaymentRefused(_) | Event::LinesShort(_) => {}
        }
    }

    fn event_of(event: &crate::Event) -> Option<&Event> {
        match event {
            crate::Event::Order(_, event) => Some(event),
            crate::Event::Payment(..) | crate::Event::Stock(..) | crate::Event::Shipment(..) => None,
        }
    }

    fn event(id: Uuid, event: Event) -> crate::Event {
        crate::Event::Order(OrderId(id), event)
    }
}

impl Order {
    /// What was placed, if anything was.
    pub fn placed(&self) -> Option<&OrderPlaced> {
        self.placed.as_deref()
    }

    /// Where the order is, as it is shown; nothing before it is placed and after it has ended.
    pub fn life(&self) -> Option<Life> {
        match self.status {
            Status::Placed | Status::Confirmed if !self.holds.is_empty() => Some(Life::OnHold),
            Status::Placed if self.pending_approval().is_some() => Some(Life::AwaitingApproval),
            Status::Placed => Some(Life::Placed),
            Status::Confirmed => Some(Life::Confirmed),
            Status::Unplaced | Status::Completed | Status::Cancelled | Status::Rejected | Status::Expired => None,
        }
    }

    /// The approval that is waited for, and for how long.
    pub(super) fn pending_approval(&self) -> Option<(u32, u32)> {
        match self.approvals.last() {
            Some(Approval::Pending { within_seconds }) => Some((self.approvals.len() as u32, *within_seconds)),
            _ => None,
        }
    }

    fn decide_approval(&mut self, approval: u32, decided: Approval) {
        let index = (approval as usize).wrapping_sub(1);
        self.approvals.get_mut(index).into_iter().for_each(|a| *a = decided);
    }

    pub(super) fn remove(&mut self, lines: &[LineNo]) {
        self.removed.extend(lines);
        // Before the payments are secured nothing was asked for; after it, nothing goes while it is asked for.
        self.unanswered.retain(|line| !lines.contains(line));
    }

    pub(super) fn become_as(&mut self, edit: &EditProposed) {
        self.removed.extend(&edit.remove);
        self.added.extend(edit.add.iter().cloned());
        self.shipping = Some(edit.shipping.clone());
        self.more_payments.extend(edit.payments.iter().cloned());
    }

    fn account_for(&mut self, returned: &[StockLine]) {
        let is_returned = |line: &LineNo| returned.iter().any(|l| l.line == *line);
        self.unanswered.retain(|line| !is_returned(line));
        self.waiting.retain(|line| !is_returned(line));
        for edit in &mut self.edits {
            if let EditEnd::Discarded(unknown) = edit {
                unknown.retain(|l| !is_returned(&l.line));
            }
        }
    }

    fn go_back(&mut self, lines: &[LineNo], refunds: &[RefundShare]) {
        self.undelivered.extend(lines);
        self.refund(refunds);
    }

    fn refund(&mut self, refunds: &[RefundShare]) {
        for share in refunds {
            let refunded = self.refunded.entry(share.capture_id).or_default();
            *refunded = refunded.saturating_add(share.amount);
        }
    }

    fn return_mut(&mut self, return_no: u32) -> Option<&mut Return> {
        self.returns.get_mut((return_no as usize).wrapping_sub(1))
    }
}
