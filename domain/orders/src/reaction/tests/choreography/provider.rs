//! The provider's books. The same key has the same effect once, and the same answer.

use super::*;

pub(super) struct Provider {
    mood: Mood,
    answers: BTreeMap<Uuid, Outcome>,
    accounts: BTreeMap<PaymentId, Account>,
    /// What is captured and not given back, of each capture.
    kept: BTreeMap<CaptureId, i64>,
}

/// What the provider has of a customer's money, for one payment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    pub(super) authorised: i64,
    pub(super) held: i64,
    pub(super) captured: i64,
    pub(super) refunded: i64,
}

impl Provider {
    pub(super) fn new(mood: &Mood) -> Self {
        Self { mood: mood.clone(), answers: BTreeMap::new(), accounts: BTreeMap::new(), kept: BTreeMap::new() }
    }

    /// What the payment is told.
    pub(super) fn call(&mut self, call: &ProviderCall) -> Vec<Command> {
        if matches!(call.operation, Operation::Lookup { .. }) {
            let found = self.answers.get(&call.idempotency_key).cloned();
            return match found {
                Some(outcome) => vec![answered(call, outcome)],
                None => not_found(call).into_iter().collect(),
            };
        }
        let silence = self.mood.silences.pop().flatten();
        let unknown = not_answered(call).expect("only lookups can go without an answer");
        if matches!(silence, Some(Silence::Before)) {
            return vec![unknown];
        }
        let outcome = self.answer(call);
        let notice = self.mood.notices.then(|| notice_of(call, outcome.clone()));
        let told = match silence {
            None => vec![answered(call, outcome)],
            Some(Silence::Late) => vec![unknown, answered(call, outcome)],
            Some(Silence::After | Silence::Before) => vec![unknown],
        };
        told.into_iter().chain(notice).collect()
    }

    fn answer(&mut self, call: &ProviderCall) -> Outcome {
        if let Some(before) = self.answers.get(&call.idempotency_key) {
            return before.clone();
        }
        let n = (0..PAYMENTS).find(|n| PaymentId::of_order(ORDER, *n) == call.payment_id);
        let outcome = match &call.operation {
            Operation::Authorise { .. } if n.is_some_and(|n| !self.mood.approves[n]) => declined(),
            Operation::Capture { .. } if self.mood.captures.pop() == Some(false) => declined(),
            operation => {
                self.accounts.entry(call.payment_id).or_default().book(operation);
                self.keep(operation);
                approved()
            }
        };
        self.answers.insert(call.idempotency_key, outcome.clone());
        outcome
    }

    /// Invariant 22, capture by capture.
    fn keep(&mut self, operation: &Operation) {
        match operation {
            Operation::Capture { capture_id, amount, .. } => {
                assert_eq!(self.kept.insert(*capture_id, amount.0), None, "captured twice");
            }
            Operation::Refund { capture_id, amount, .. } => {
                let kept = self.kept.get_mut(capture_id).expect("it is captured");
                *kept -= amount.0;
                assert!(*kept >= 0, "refunded more than is captured: {operation:?}");
            }
            Operation::Authorise { .. } | Operation::Void | Operation::Lookup { .. } => {}
        }
    }

    pub(super) fn kept(&self) -> &BTreeMap<CaptureId, i64> {
        &self.kept
    }

    pub(super) fn account(&self, payment: PaymentId) -> Account {
        self.accounts.get(&payment).copied().unwrap_or_default()
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = (PaymentId, Account)> {
        self.accounts.iter().map(|(id, account)| (*id, *account))
    }
}

impl Account {
    /// Invariant 22, at the provider.
    fn book(&mut self, operation: &Operation) {
        match operation {
            Operation::Authorise { amount, .. } => {
                assert_eq!(self.authorised, 0, "authorised twice");
                (self.authorised, self.held) = (amount.0, amount.0);
            }
            Operation::Capture { amount, .. } => {
                assert!(self.held >= amount.0, "captured {amount:?} of {self:?}");
                self.held -= amount.0;
                self.captured += amount.0;
            }
            Operation::Void => {
                assert!(self.held > 0, "voided what is not held: {self:?}");
                self.held = 0;
            }
            Operation::Refund { amount, .. } => {
                self.refunded += amount.0;
                assert!(self.refunded <= self.captured, "refunded {amount:?} more than is captured: {self:?}");
            }
            Operation::Lookup { .. } => panic!("a lookup does nothing"),
        }
        assert!(self.captured <= self.authorised, "{self:?}");
    }
}

fn declined() -> Outcome {
    Outcome::Declined { reason: "no funds".to_owned() }
}

fn notice_of(call: &ProviderCall, outcome: Outcome) -> Command {
    let what = match call.operation {
        Operation::Authorise { .. } => Call::Authorise,
        Operation::Capture { capture_id, .. } => Call::Capture { capture_id },
        Operation::Void => Call::Void,
        Operation::Refund { refund_id, .. } => Call::Refund { refund_id },
        Operation::Lookup { call } => call,
    };
    let notice = payment::ProviderNotice { call: what, outcome };
    let command = payment::Command::RecordNotice { notice_id: call.idempotency_key, notice };
    Command::Payment { id: call.payment_id, command }
}
