//! How often a follow-up is tried, how long is waited in between, and which refusal somebody has to look at: one table,
//! by what the reaction does.

use domain::reaction::{Act, Operation};
use domain::{Command, payment, stock};
use std::time::Duration;
use store::clock;

/// What becomes of a follow-up that cannot be done at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// How often it is tried. After the last time it is parked, with its reason.
    pub attempts: u32,
    /// What the wait after the first attempt is below. The bound doubles with every attempt …
    pub first: Duration,
    /// … up to this.
    pub last: Duration,
    /// Its refusal is permanent and cannot be left as it is: it is parked, for somebody to look at. Else a refusal is
    /// an answer: what it was about has changed meanwhile, or there is a way back.
    pub refusal_is_parked: bool,
}

/// Somebody else's server: away for hours at worst, and not to be rushed when it comes back.
const OUTSIDE: Policy = Policy {
    attempts: 60,
    first: Duration::from_millis(200),
    last: Duration::from_secs(5 * 60),
    refusal_is_parked: true,
};

/// Our own log: others write to the same streams, or Postgres is starting.
const INSIDE: Policy = Policy {
    attempts: 200,
    first: Duration::from_millis(100),
    last: Duration::from_secs(30),
    refusal_is_parked: false,
};

/// Goods that have left, or money that is owed: a refusal means that the books do not agree.
const OWED: Policy = Policy { refusal_is_parked: true, ..INSIDE };

impl Policy {
    /// No wait between two attempts is longer, of any.
    pub const LONGEST: Duration = OUTSIDE.last;

    /// The policy of a reaction, told by its act.
    pub fn of(act: &Act) -> Self {
        match act {
            Act::Provider(_) | Act::Notice(_) => OUTSIDE,
            Act::Command(Command::Payment { command, .. }) => match command {
                payment::Command::Capture { .. } | payment::Command::Refund { .. } => OWED,
                payment::Command::Authorise { .. }
                | payment::Command::RecordAuthorisation { .. }
                | payment::Command::RecordCapture { .. }
                | payment::Command::Void { .. }
                | payment::Command::RecordVoid { .. }
                | payment::Command::RecordRefund { .. }
                | payment::Command::RecordUnknown { .. }
                | payment::Command::ResolveUnknown { .. }
                | payment::Command::Expire
                | payment::Command::RecordNotice { .. } => INSIDE,
            },
            Act::Command(Command::Stock(stock::Command::Commit { .. } | stock::Command::Restock { .. })) => OWED,
            Act::Command(
                Command::Stock(_)
                | Command::Order { .. }
                | Command::CancelOrder { .. }
                | Command::CancelLines { .. }
                | Command::ConfirmEdit { .. }
                | Command::ChangeAddress { .. }
                | Command::Shipment { .. },
            ) => INSIDE,
        }
    }

    /// How long to wait after `attempts` attempts: exponential backoff with full jitter, a fraction `random` (0 to 1)
    /// of the whole bound, so that those who failed together do not come back together.
    pub fn delay(&self, attempts: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(30));
        doubled.min(self.last).mul_f64(random.clamp(0.0, 1.0))
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

/// How long the sender waits for others, and how far Postgres' clock may be from this process'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long the provider or the notifier may take to answer.
    pub answer: Duration,
    /// No wait between two attempts is longer, whatever the policy says.
    pub longest_wait: Duration,
    /// While they are further apart, nothing is recorded, sent or fired.
    pub clock_tolerance: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { answer: Duration::from_secs(5), longest_wait: Duration::MAX, clock_tolerance: clock::TOLERANCE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_by_twice_as_long_each_time_up_to_the_last() {
        let policy = Policy { first: Duration::from_millis(100), last: Duration::from_secs(1), ..INSIDE };
        let bounds = [1, 2, 3, 4, 5, 6].map(|attempts| policy.delay(attempts, 1.0).as_millis());
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(policy.delay(u32::MAX, 1.0), policy.last);
    }

    #[test]
    fn waits_are_anything_from_nothing_to_the_bound() {
        assert_eq!(OUTSIDE.delay(7, 0.0), Duration::ZERO);
        assert_eq!(OUTSIDE.delay(3, 0.25), Duration::from_millis(200));
        assert_eq!(OUTSIDE.delay(60, 0.5), OUTSIDE.last / 2);
    }
}
