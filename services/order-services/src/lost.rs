//! What may have been done outside in the name of events that the log has lost: calls of the payment provider, and notices.
//!
//! The lost messages are folded with the same reactions that made the follow-ups. An act that the present log asks for as
//! well is no lost one. Of a call, the key is what the provider knows it by: so the present log is searched for the key, not
//! for the event. A notice is known by its id, which derives from the event's.
//!
//! A lost event may also have led to a command whose events never reached JetStream. The key of the call that such a command
//! leads to is known, so that the provider can be asked for it as well.

use async_nats::HeaderMap;
use engine::Domain;
use engine::codec;
use engine::follow_up::follow_up_id;
use order_views::{CATEGORIES, Orders, Recorded};
use orders::id::{CaptureId, OrderId, PaymentId};
use orders::money::{Amount, Currency};
use orders::order::PaymentMethod;
use orders::payment::{self, Call};
use orders::reaction::{Act, Message, Notice, Operation, ProviderCall, react};
use orders::{Command, Event};
use runtime::message;
use std::collections::HashMap;
use store::epoch::Lost;
use store::{Chain, Origin, Position, RecordedEvent};
use uuid::Uuid;

/// What was lost with one epoch, or several: the acts that may have followed, and what of the messages is no event.
#[derive(Default)]
pub struct Collected {
    pub calls: Vec<LostCall>,
    pub notices: Vec<LostNotice>,
    by_key: HashMap<Uuid, Vec<usize>>,
    by_notice: HashMap<Uuid, usize>,
    payments: HashMap<PaymentId, Held>,
}

/// What the messages of one epoch are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Messages {
    /// How many are events.
    pub events: u64,
    /// Where what is no message of a relay's stands, or one of another position.
    pub foreign: Vec<Position>,
    /// Where events stand that this build cannot read, each with the reason.
    pub unreadable: Vec<(Position, String)>,
    /// From there on the messages do not continue the log's chain: others have published them, or the fork lies further back.
    pub unlinked_from: Option<Position>,
    /// The positions that were distributed and not kept, from and to.
    pub gone: Vec<(Position, Position)>,
}

/// A call of the provider that may have been made. It knows the payment's token, so it is not to be printed as it is.
pub struct LostCall {
    pub epoch: i64,
    /// Of the lost event.
    pub position: Position,
    pub order_id: Uuid,
    pub key: Uuid,
    pub asked: Asked,
    /// Whether an event asks for the call itself; else it only asks for the command that leads to the call.
    pub requested: bool,
    /// Whether another lost event asks for something else under the same key.
    pub is_ambiguous: bool,
    /// What the lost history says of the payment's money up to there.
    held: Held,
}

/// What the provider is asked for, as far as that is known.
#[derive(Clone)]
pub struct Asked {
    pub payment_id: PaymentId,
    pub call: Call,
    pub amount: Option<Amount>,
    pub currency: Option<Currency>,
    method: Option<PaymentMethod>,
    capture_id: Option<CaptureId>,
}

/// A notice that may have been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostNotice {
    pub epoch: i64,
    /// Of the lost event.
    pub position: Position,
    pub notice_id: Uuid,
    pub notice: Notice,
    pub event_id: Uuid,
    pub command_id: Uuid,
}

/// Money of a payment, as a part of its events tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    requested: Option<(Amount, Currency)>,
    captured: i64,
}

/// Whether the present log asks for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InLog {
    /// For the same.
    Same,
    /// For something else under the same key. The provider has done one of them.
    Other,
    No,
}

impl Held {
    fn take(&mut self, event: &payment::Event) {
        match event {
            payment::Event::PaymentRequested(e) => self.requested = Some((e.amount, e.currency)),
            payment::Event::PaymentCaptured(e) => self.captured = self.captured.saturating_add(e.amount.0),
            _ => {}
        }
    }
}

impl Asked {
    fn new(payment_id: PaymentId, call: Call) -> Self {
        Self { payment_id, call, amount: None, currency: None, method: None, capture_id: None }
    }

    /// Nothing, if the provider is only asked what it knows.
    fn of_call(call: &ProviderCall) -> Option<Self> {
        let asked = |of: Call| Self::new(call.payment_id, of);
        Some(match call.operation.clone() {
            Operation::Authorise { order_id: _, amount, currency, method } => {
                Self { amount: Some(amount), currency: Some(currency), method: Some(method), ..asked(Call::Authorise) }
            }
            Operation::Capture { capture_id, amount, currency } => {
                Self { amount: Some(amount), currency: Some(currency), ..asked(Call::Capture { capture_id }) }
            }
            Operation::Void => asked(Call::Void),
            Operation::Refund { refund_id, capture_id, amount, currency } => Self {
                amount: Some(amount),
                currency: Some(currency),
                capture_id: Some(capture_id),
                ..asked(Call::Refund { refund_id })
            },
            Operation::Lookup { .. } => return None,
        })
    }

    /// What a command leads to, if it leads to a call.
    fn of_command(command: &Command) -> Option<Self> {
        let Command::Payment { id, command } = command else { return None };
        let asked = |of: Call| Self::new(*id, of);
        Some(match command.clone() {
            payment::Command::Authorise { order_id: _, amount, currency, method } => {
                Self { amount: Some(amount), currency: Some(currency), method: Some(method), ..asked(Call::Authorise) }
            }
            payment::Command::Capture { capture_id, amount } => {
                Self { amount: Some(amount), ..asked(Call::Capture { capture_id }) }
            }
            payment::Command::Void { .. } => asked(Call::Void),
            payment::Command::Refund { order_id: _, refund_id, capture_id, amount } => {
                Self { amount: Some(amount), capture_id: Some(capture_id), ..asked(Call::Refund { refund_id }) }
            }
            payment::Command::RecordAuthorisation { .. }
            | payment::Command::RecordCapture { .. }
            | payment::Command::RecordVoid { .. }
            | payment::Command::RecordRefund { .. }
            | payment::Command::RecordUnknown { .. }
            | payment::Command::ResolveUnknown { .. }
            | payment::Command::Expire
            | payment::Command::RecordNotice { .. } => return None,
        })
    }

    /// Whether both can be the same request: nothing that is known of both differs.
    fn fits(&self, other: &Self) -> bool {
        fn fits<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        (self.payment_id, self.call) == (other.payment_id, other.call)
            && fits(&self.amount, &other.amount)
            && fits(&self.currency, &other.currency)
            && fits(&self.method, &other.method)
            && fits(&self.capture_id, &other.capture_id)
    }

    /// Takes over what only the other one knows.
    fn complete(&mut self, other: Self) {
        self.amount = self.amount.or(other.amount);
        self.currency = self.currency.or(other.currency);
        self.method = self.method.take().or(other.method);
        self.capture_id = self.capture_id.or(other.capture_id);
    }
}

impl Collected {
    /// Takes a lost event. Nothing follows from imported history.
    fn take(&mut self, epoch: i64, Recorded { record, event }: &Recorded) {
        if record.metadata.origin == Origin::Import {
            return;
        }
        let position = record.position;
        let order_id = Orders::correlation_id(record.metadata.correlation_id, event);
        if let Event::Payment(id, event) = event {
            self.payments.entry(*id).or_default().take(event);
        }
        for follow_up in react(event) {
            let (asked, key, requested) = match follow_up.act {
                Act::Provider(call) => (Asked::of_call(&call), call.idempotency_key, true),
                Act::Command(command) => {
                    let asked = Asked::of_command(&command);
                    let key = asked.as_ref().map(|asked| asked.call.idempotency_key(asked.payment_id));
                    (asked, key.unwrap_or_default(), false)
                }
                Act::Notice(notice) => {
                    let notice_id = follow_up_id(record.event_id, follow_up.reaction, follow_up.target);
                    let (event_id, command_id) = (record.event_id, record.metadata.command_id);
                    self.notice(LostNotice { epoch, position, notice_id, notice, event_id, command_id });
                    continue;
                }
            };
            let Some(asked) = asked else { continue };
            let held = self.payments.get(&asked.payment_id).copied().unwrap_or_default();
            self.call(LostCall { epoch, position, order_id, key, asked, requested, is_ambiguous: false, held });
        }
    }

    /// Each request once, however many events ask for it, in whatever epoch.
    fn call(&mut self, call: LostCall) {
        let known = self.by_key.entry(call.key).or_default();
        if let Some(before) = known.iter().find(|n| self.calls[**n].asked.fits(&call.asked)) {
            let before = &mut self.calls[*before];
            before.requested |= call.requested;
            before.held = call.held;
            before.asked.complete(call.asked);
            return;
        }
        let is_ambiguous = !known.is_empty();
        known.iter().for_each(|n| self.calls[*n].is_ambiguous = true);
        known.push(self.calls.len());
        self.calls.push(LostCall { is_ambiguous, ..call });
    }

    fn notice(&mut self, notice: LostNotice) {
        let known = self.by_notice.get(&notice.notice_id).map(|n| &self.notices[*n].notice);
        if known == Some(&notice.notice) {
            return;
        }
        self.by_notice.insert(notice.notice_id, self.notices.len());
        self.notices.push(notice);
    }
}

/// Reads the messages that one epoch began without, in order of position.
pub struct Reader {
    epoch: i64,
    next: Position,
    messages: Messages,
    /// What the messages continue; `None` if that cannot be said.
    chain: Option<Chain>,
}

impl Reader {
    /// Of an epoch that began after `forked_after`. `chain` is at that position, if the log still has it.
    pub fn new(epoch: i64, forked_after: Position, chain: Option<Chain>) -> Self {
        Self { epoch, next: forked_after + 1, messages: Messages::default(), chain }
    }

    /// Takes the next message.
    pub fn take(&mut self, lost: &Lost, collected: &mut Collected) {
        let position = lost.position;
        if position > self.next {
            self.messages.gone.push((self.next, position - 1));
            // Over a gap, no link can be computed.
            self.chain = None;
        }
        self.next = position + 1;
        let Some(record) = self.record(lost) else {
            self.messages.foreign.push(position);
            return;
        };
        self.messages.events += 1;
        match codec::decode(record) {
            Ok(recorded) => collected.take(self.epoch, &recorded),
            Err(e) => self.messages.unreadable.push((position, e.to_string())),
        }
    }

    fn record(&mut self, lost: &Lost) -> Option<RecordedEvent> {
        let headers: HeaderMap = serde_json::from_str(&lost.headers).ok()?;
        let record = message::recorded(CATEGORIES, &lost.subject, &headers, lost.payload.clone().into()).ok()?;
        if record.position != lost.position {
            return None;
        }
        if !message::is_packed(&headers) {
            // Earlier builds have published without links.
            self.chain = None;
        }
        if let Some(chain) = &mut self.chain
            && self.messages.unlinked_from.is_none()
            && chain.advance(&record).is_err()
        {
            self.messages.unlinked_from = Some(chain.end().position + 1);
        }
        Some(record)
    }

    /// What the messages were; `distributed_to` is the last position that there must have been.
    pub fn finish(mut self, distributed_to: Option<Position>) -> Messages {
        if let Some(last) = distributed_to.filter(|last| *last >= self.next) {
            self.messages.gone.push((self.next, last));
        }
        self.messages
    }
}

impl LostCall {
    /// Whether the present log asks for it, by the events of its payment.
    pub fn in_log(&self, payment: &[Recorded]) -> InLog {
        let live = payment.iter().filter(|recorded| recorded.record.metadata.origin != Origin::Import);
        let acts = live.flat_map(|recorded| react(&recorded.event)).filter_map(|follow_up| match follow_up.act {
            Act::Provider(call) if call.idempotency_key == self.key => Asked::of_call(&call),
            Act::Provider(_) | Act::Command(_) | Act::Notice(_) => None,
        });
        acts.fold(InLog::No, |found, asked| match (found, asked.fits(&self.asked)) {
            (InLog::Same, _) | (_, true) => InLog::Same,
            (InLog::Other | InLog::No, false) => InLog::Other,
        })
    }

    /// The amount of a void is what was held. `before` is the payment as the log had it where the histories part.
    pub fn amount(&self, before: &[Recorded]) -> Option<(Amount, Currency)> {
        if self.asked.call != Call::Void {
            let currency = self.asked.currency.or_else(|| self.requested(before).map(|(_, currency)| currency));
            return self.asked.amount.zip(currency);
        }
        let (amount, currency) = self.requested(before)?;
        let captured = self.held.captured.saturating_add(held(before).captured);
        Some((Amount(amount.0.saturating_sub(captured)), currency))
    }

    fn requested(&self, before: &[Recorded]) -> Option<(Amount, Currency)> {
        self.held.requested.or_else(|| held(before).requested)
    }
}

fn held(payment: &[Recorded]) -> Held {
    let mut held = Held::default();
    for Recorded { event, .. } in payment {
        if let Event::Payment(_, event) = event {
            held.take(event);
        }
    }
    held
}

impl LostNotice {
    /// Whether the present log asks for it, by the events that the command has in it.
    pub fn is_in_log(&self, command: &[Recorded]) -> bool {
        let same = command.iter().filter(|recorded| {
            recorded.record.event_id == self.event_id && recorded.record.metadata.origin != Origin::Import
        });
        same.flat_map(|recorded| react(&recorded.event)).any(|follow_up| {
            follow_up_id(self.event_id, follow_up.reaction, follow_up.target) == self.notice_id
                && matches!(&follow_up.act, Act::Notice(notice) if *notice == self.notice)
        })
    }

    pub fn order_id(&self) -> OrderId {
        self.notice.order_id
    }

    /// Which message it is, without what it says of persons.
    pub fn message(&self) -> &'static str {
        match self.notice.message {
            Message::PaymentDeclined => "payment_declined",
            Message::OrderCancelled { .. } => "order_cancelled",
            Message::OrderExpired => "order_expired",
            Message::LinesCancelled { .. } => "lines_cancelled",
            Message::ShipmentDispatched { .. } => "shipment_dispatched",
            Message::ShipmentLost { .. } => "shipment_lost",
            Message::ShipmentReturnedToSender { .. } => "shipment_returned_to_sender",
            Message::ReturnReceived { .. } => "return_received",
        }
    }
}

/// The word that a call is told by.
pub fn word(call: Call) -> &'static str {
    match call {
        Call::Authorise => "authorise",
        Call::Capture { .. } => "capture",
        Call::Void => "void",
        Call::Refund { .. } => "refund",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use order_views::stream;
    use orders::payment::{CaptureRequested, PaymentCaptured, PaymentRequested, VoidRequested};
    use store::{Fingerprint, Metadata};

    const EUR: &str = "EUR";

    fn recorded(position: Position, origin: Origin, event: payment::Event) -> Recorded {
        let id = Uuid::from_u128(position as u128);
        let metadata = Metadata {
            correlation_id: order().0,
            causation_id: None,
            command_id: id,
            fingerprint: Fingerprint([0; 16]),
            actor: "test".into(),
            origin,
            occurred_at: DateTime::UNIX_EPOCH,
            traceparent: None,
        };
        let record = RecordedEvent {
            position,
            stream: stream::<payment::Payment>(payment().0),
            version: position,
            event_id: id,
            event_type: event.event_type().into(),
            schema_version: 1,
            recorded_at: DateTime::UNIX_EPOCH,
            metadata,
            payload: "{}".into(),
            link: None,
        };
        Recorded { record, event: Event::Payment(payment(), event) }
    }

    fn order() -> OrderId {
        OrderId(Uuid::from_u128(0xA))
    }

    fn payment() -> PaymentId {
        PaymentId(Uuid::from_u128(0xB))
    }

    fn requested(amount: i64) -> payment::Event {
        let method = PaymentMethod { kind: "credit_card".into(), token: "tok".into() };
        let (currency, idempotency_key) = (EUR.parse().unwrap(), payment().0);
        PaymentRequested { order_id: order(), amount: Amount(amount), currency, method, idempotency_key }.into()
    }

    fn capture(amount: i64) -> [payment::Event; 2] {
        let (order_id, capture_id, amount) = (order(), CaptureId(Uuid::from_u128(0xC)), Amount(amount));
        let (currency, left, reference) = (EUR.parse().unwrap(), Amount::ZERO, "r".into());
        [
            CaptureRequested { order_id, capture_id, amount, currency, idempotency_key: capture_id.0 }.into(),
            PaymentCaptured { order_id, capture_id, amount, left, currency, reference }.into(),
        ]
    }

    fn void() -> payment::Event {
        let idempotency_key = Call::Void.idempotency_key(payment());
        VoidRequested { order_id: order(), idempotency_key }.into()
    }

    fn live(events: impl IntoIterator<Item = payment::Event>) -> Vec<Recorded> {
        (1..).zip(events).map(|(position, event)| recorded(position, Origin::Live, event)).collect()
    }

    fn collected(events: &[Recorded]) -> Vec<LostCall> {
        let mut collected = Collected::default();
        events.iter().for_each(|event| collected.take(2, event));
        collected.calls
    }

    #[test]
    fn a_void_lets_go_of_what_was_held_and_not_captured() {
        let [asked, captured] = capture(300);
        let all = [requested(1000), asked, captured, void()];
        let calls = collected(&live(all.clone()));
        assert_eq!(
            calls.iter().map(|call| word(call.asked.call)).collect::<Vec<_>>(),
            ["authorise", "capture", "void"]
        );
        assert_eq!(calls[2].amount(&[]), Some((Amount(700), EUR.parse().unwrap())));
        // Whether the events before it are lost as well, or still in the log.
        for parted in 1..all.len() {
            let (before, lost) = all.split_at(parted);
            let calls = collected(&live(lost.to_vec()));
            let void = calls.last().unwrap();
            assert_eq!(void.amount(&live(before.to_vec())), Some((Amount(700), EUR.parse().unwrap())), "{parted}");
        }
    }

    #[test]
    fn the_log_asks_for_a_call_if_key_and_content_are_the_same() {
        let calls = collected(&live([requested(1000)]));
        assert_eq!(calls[0].in_log(&live([])), InLog::No);
        assert_eq!(calls[0].in_log(&live([requested(1000)])), InLog::Same);
        assert_eq!(calls[0].in_log(&live([requested(1001)])), InLog::Other);
        assert_eq!(calls[0].in_log(&[recorded(1, Origin::Import, requested(1000))]), InLog::No);
    }

    #[test]
    fn a_call_is_told_once_and_what_differs_under_its_key_as_well() {
        let same = collected(&live([requested(1000), requested(1000)]));
        assert_eq!(same.iter().map(|call| call.is_ambiguous).collect::<Vec<_>>(), [false]);
        let other = collected(&live([requested(1000), requested(1001)]));
        assert_eq!(other.iter().map(|call| call.is_ambiguous).collect::<Vec<_>>(), [true, true]);
        assert!(collected(&[recorded(1, Origin::Import, requested(1000))]).is_empty());
    }
}
