//! How often each follow-up of an order is tried, and what its refusal means.

use orders::reaction::{Act, Operation};
use orders::{Command, payment, stock};
use runtime::sender::Policy;
use std::time::Duration;
use store::clock;

/// A foreign server: away for hours at worst, and not to be rushed when it comes back.
const OUTSIDE: Policy = Policy { attempts: 60, first: Duration::from_millis(200), last: Duration::from_secs(5 * 60) };

/// Our own log: others write to the same streams, or Postgres is starting.
const INSIDE: Policy = Policy { attempts: 200, first: Duration::from_millis(100), last: Duration::from_secs(30) };

/// No wait between two attempts is longer, of any follow-up.
pub const LONGEST_WAIT: Duration = OUTSIDE.last;

/// How often a follow-up is tried.
pub fn policy(act: &Act) -> Policy {
    match act {
        Act::Provider(_) | Act::Notice(_) => OUTSIDE,
        Act::Command(_) => INSIDE,
    }
}

/// Whether a refusal cannot be left as it is: a person has to look at the follow-up. Else a refusal is an answer: what the
/// follow-up was about has changed meanwhile, or there is a way back.
pub fn refusal_is_parked(act: &Act) -> bool {
    match act {
        Act::Provider(_) | Act::Notice(_) => true,
        // Money that is owed: a refusal means that the books do not agree.
        Act::Command(Command::Payment { command, .. }) => match command {
            payment::Command::Capture { .. } | payment::Command::Refund { .. } => true,
            payment::Command::Authorise { .. }
            | payment::Command::RecordAuthorisation { .. }
            | payment::Command::RecordCapture { .. }
            | payment::Command::Void { .. }
            | payment::Command::RecordVoid { .. }
            | payment::Command::RecordRefund { .. }
            | payment::Command::RecordUnknown { .. }
            | payment::Command::ResolveUnknown { .. }
            | payment::Command::Expire
            | payment::Command::RecordNotice { .. } => false,
        },
        // Goods that have left.
        Act::Command(Command::Stock(stock::Command::Commit { .. } | stock::Command::Restock { .. })) => true,
        Act::Command(
            Command::Stock(_)
            | Command::Order { .. }
            | Command::CancelOrder { .. }
            | Command::CancelLines { .. }
            | Command::ConfirmEdit { .. }
            | Command::ChangeAddress { .. }
            | Command::Shipment { .. },
        ) => false,
    }
}

/// Whether the provider's "no" to this is an answer that orders are prepared for. To anything else it leaves money
/// where it should not be.
pub(crate) fn decline_is_foreseen(operation: &Operation) -> bool {
    match operation {
        Operation::Authorise { .. } | Operation::Lookup { call: payment::Call::Authorise } => true,
        Operation::Capture { .. } | Operation::Void | Operation::Refund { .. } | Operation::Lookup { .. } => false,
    }
}

/// How long the sender waits for answers and between attempts, and how far Postgres' clock may be from this process'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// How long the provider or the notifier may take to answer.
    pub answer: Duration,
    /// No wait between two attempts is longer, whatever the policy says.
    pub longest_wait: Duration,
    /// While they are further apart, nothing is recorded, sent or fired.
    pub clock_tolerance: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { answer: Duration::from_secs(5), longest_wait: Duration::MAX, clock_tolerance: clock::TOLERANCE }
    }
}
