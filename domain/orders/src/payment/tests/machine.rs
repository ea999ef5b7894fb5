//! Any commands in any order, beside the provider's books: what is asked for is asked for once, and adds up.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn capture_id() -> impl Strategy<Value = CaptureId> {
    prop_oneof![Just(FIRST), Just(SECOND), (30..34_u128).prop_map(|n| CaptureId(Uuid::from_u128(n)))]
}

fn refund_id() -> impl Strategy<Value = RefundId> {
    prop_oneof![4 => (40..46_u128).prop_map(|n| RefundId(Uuid::from_u128(n))), 1 => capture_id().prop_map(RefundId::of_void)]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![3 => Just(approved()), 1 => Just(declined())]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => Just(Call::Authorise),
        4 => capture_id().prop_map(|capture_id| Call::Capture { capture_id }),
        1 => Just(Call::Void),
        4 => refund_id().prop_map(|refund_id| Call::Refund { refund_id }),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => prop_oneof![5 => Just(1000), 1 => Just(1001)].prop_map(authorise),
        3 => outcome().prop_map(answer),
        6 => (capture_id(), -10..700_i64).prop_map(|(id, amount)| capture(id, amount)),
        6 => (capture_id(), outcome()).prop_map(|(id, outcome)| capture_answer(id, outcome)),
        1 => Just(void()),
        1 => outcome().prop_map(void_answer),
        6 => (refund_id(), capture_id(), -10..500_i64).prop_map(|(refund_id, capture_id, amount)| {
            Command::Refund { order_id: ORDER, refund_id, capture_id, amount: Amount(amount) }
        }),
        4 => (refund_id(), outcome()).prop_map(|(refund_id, outcome)| Command::RecordRefund { refund_id, outcome }),
        3 => any_call().prop_map(|call| Command::RecordUnknown { call }),
        3 => (any_call(), proptest::option::of(outcome()))
            .prop_map(|(call, found)| Command::ResolveUnknown { call, found }),
        1 => Just(Command::Expire),
        2 => (any_call(), outcome()).prop_map(|(call, outcome)| {
            let notice = ProviderNotice { call, outcome };
            Command::RecordNotice { notice_id: Uuid::from_u128(50), notice }
        }),
    ]
}

/// What the events say, added up without the payment's help.
#[derive(Default)]
struct Books {
    authorised: i64,
    captures: BTreeMap<CaptureId, i64>,
    captured: i64,
    /// Those that are done.
    taken: BTreeMap<CaptureId, i64>,
    refunds: BTreeMap<RefundId, (CaptureId, i64)>,
    /// By capture: what is to be given back, or is.
    given_back: BTreeMap<CaptureId, i64>,
    /// The refunds that wait.
    deferred: BTreeMap<RefundId, CaptureId>,
    voids: u32,
    /// How often each call was asked for the first time, settled, and left unknown since it was last asked for.
    asked: BTreeMap<Call, u32>,
    settled: BTreeMap<Call, u32>,
    unknown: BTreeMap<Call, bool>,
}

impl Books {
    fn ask(&mut self, call: Call) {
        *self.asked.entry(call).or_default() += 1;
    }

    fn settle(&mut self, call: Call) {
        *self.settled.entry(call).or_default() += 1;
        self.unknown.insert(call, false);
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::PaymentRequested(_) => self.ask(Call::Authorise),
            Event::PaymentAuthorised(e) => {
                self.authorised += e.amount.0;
                self.settle(Call::Authorise);
            }
            Event::PaymentDeclined(_) => self.settle(Call::Authorise),
            Event::CaptureRequested(e) => {
                self.captures.insert(e.capture_id, e.amount.0);
                self.ask(Call::Capture { capture_id: e.capture_id });
            }
            Event::PaymentCaptured(e) => {
                assert_eq!(self.captures[&e.capture_id], e.amount.0);
                self.captured += e.amount.0;
                assert_eq!(e.left.0, self.authorised - self.captured);
                self.taken.insert(e.capture_id, e.amount.0);
                self.settle(Call::Capture { capture_id: e.capture_id });
            }
            Event::CaptureDeclined(e) => self.settle(Call::Capture { capture_id: e.capture_id }),
            Event::VoidRequested(_) => {
                self.voids += 1;
                self.ask(Call::Void);
            }
            Event::PaymentVoided(_) if self.voids > 0 => self.settle(Call::Void),
            Event::VoidDeclined(_) => self.settle(Call::Void),
            Event::RefundRequested(e) => {
                self.deferred.remove(&e.refund_id);
                self.refunds.insert(e.refund_id, (e.capture_id, e.amount.0));
                *self.given_back.entry(e.capture_id).or_default() += e.amount.0;
                self.ask(Call::Refund { refund_id: e.refund_id });
            }
            Event::PaymentRefunded(e) => {
                assert_eq!(self.refunds[&e.refund_id].1, e.amount.0);
                self.settle(Call::Refund { refund_id: e.refund_id });
            }
            Event::RefundDeclined(e) => {
                let (capture_id, amount) = self.refunds[&e.refund_id];
                *self.given_back.entry(capture_id).or_default() -= amount;
                self.settle(Call::Refund { refund_id: e.refund_id });
            }
            Event::OutcomeUnknown(e) => {
                assert_eq!(e.idempotency_key, e.call.idempotency_key(PAYMENT));
                assert_ne!(self.unknown.insert(e.call, true), Some(true), "{:?} is unknown twice", e.call);
            }
            Event::CallRetried(e) => {
                assert_eq!(e.idempotency_key, e.call.idempotency_key(PAYMENT));
                assert_eq!(self.unknown.insert(e.call, false), Some(true), "{:?} was not unknown", e.call);
            }
            Event::RefundDeferred(e) => _ = self.deferred.insert(e.refund_id, e.capture_id),
            Event::RefundDropped(e) => _ = self.deferred.remove(&e.refund_id),
            Event::PaymentVoided(_)
            | Event::VoidDeferred(_)
            | Event::ExpiryDeferred(_)
            | Event::AuthorisationExpired(_) => {}
        }
    }
}

/// An answer that says no. Only such a one may lead to an event that says so.
fn is_decline(command: &Command) -> bool {
    match command {
        Command::RecordAuthorisation { outcome }
        | Command::RecordCapture { outcome, .. }
        | Command::RecordVoid { outcome }
        | Command::RecordRefund { outcome, .. }
        | Command::ResolveUnknown { found: Some(outcome), .. } => *outcome == declined(),
        Command::RecordNotice { notice, .. } => notice.outcome == declined(),
        Command::Authorise { .. }
        | Command::Capture { .. }
        | Command::Void { .. }
        | Command::Refund { .. }
        | Command::RecordUnknown { .. }
        | Command::ResolveUnknown { found: None, .. }
        | Command::Expire => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_command_can_be_repeated(commands in vec(any_command(), 1..40)) {
        each_can_be_repeated(&commands, |payment: &Payment, command| payment.decide(PAYMENT, command))?;
    }

    #[test]
    fn invariant_22_captured_within_authorised_refunded_within_captured_each_asked_for_once(
        commands in vec(any_command(), 1..60),
    ) {
        let (mut payment, mut books) = (Payment::default(), Books::default());
        for command in commands {
            let events = payment.decide(PAYMENT, &command).unwrap_or_default();
            payment = then(&payment, &events);
            for event in &events {
                books.take(event);
                prop_assert!(books.captured <= books.authorised, "{command:?}: {events:?}");
                for (capture, given_back) in &books.given_back {
                    let taken = books.taken.get(capture).copied().unwrap_or_default();
                    prop_assert!(*given_back <= taken, "{command:?}: {events:?}");
                }
                let declines = matches!(
                    event,
                    Event::PaymentDeclined(_) | Event::CaptureDeclined(_) | Event::VoidDeclined(_)
                        | Event::RefundDeclined(_)
                );
                prop_assert!(!declines || is_decline(&command), "{command:?} is taken for a decline: {events:?}");
            }
            for (call, asked) in &books.asked {
                prop_assert_eq!(*asked, 1, "{:?} is asked for again", call);
            }
            for (call, settled) in &books.settled {
                prop_assert!(*settled == 1 && books.asked.contains_key(call), "{call:?} has {settled} outcomes");
            }
            // Nothing waits for a capture that is known, or that will not come.
            for capture_id in books.deferred.values() {
                let is_settled = books.settled.contains_key(&Call::Capture { capture_id: *capture_id });
                prop_assert!(!is_settled && books.voids == 0, "{command:?}: a refund waits for {capture_id}");
            }
            // While the provider lets the money go, it is not asked for any of it.
            let capturing = books.captures.len() > settled_captures(&books);
            prop_assert!(books.voids == 0 || !capturing, "{command:?}: captured while it is let go");
            let unknown = books.unknown.values().any(|unknown| *unknown);
            prop_assert_eq!(payment.as_str() == "unknown", unknown);
        }
    }
}

fn settled_captures(books: &Books) -> usize {
    books.settled.keys().filter(|call| matches!(call, Call::Capture { .. })).count()
}
