//! The whole choreography as a model: an order's follow-ups, the provider's answers, a cancellation, a warehouse and a
//! carrier, delivered in any order and more than once, come to a good end.

use super::*;
use crate::aggregate::Aggregate;
use crate::id::Sku;
use crate::order::{Changed, Order, PlaceOrder, Status};
use crate::payment::{Payment, Status as PaymentStatus};
use crate::shipment::Shipment;
use crate::stock::Stock;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a run is made of, besides the order.
#[derive(Debug, Clone)]
struct Script {
    order: PlaceOrder,
    /// By SKU, in the order of their names.
    on_hand: Vec<u32>,
    /// What the provider says to each payment.
    approves: Vec<bool>,
    /// What the provider does with its first calls instead of answering them: as asked, or nothing.
    silences: Vec<Option<Silence>>,
    /// After how many deliveries the customer cancels, if at all.
    cancelled_after: Option<usize>,
    /// After how many deliveries ten pieces of each SKU come in, if at all.
    restocked_after: Option<usize>,
    /// What is delivered next, and whether it stays in the bag to be delivered again; over and over.
    picks: Vec<(Index, bool)>,
}

#[derive(Debug, Clone, Copy)]
enum Silence {
    After,
    Before,
}

fn any_script() -> impl Strategy<Value = Script> {
    // Plenty and approval are the rule, for most of what can go wrong comes after them.
    let on_hand = prop_oneof![3 => Just(vec![20; 4]), 1 => vec(0..9_u32, 4)];
    let approves = prop_oneof![3 => Just(vec![true; 3]), 1 => vec(any::<bool>(), 3)];
    let moment = || proptest::option::of(0..60_usize);
    let picks = vec((any::<Index>(), proptest::bool::weighted(0.3)), 1..120);
    let silence = prop_oneof![6 => Just(None), 1 => Just(Some(Silence::After)), 1 => Just(Some(Silence::Before))];
    (any_order(), on_hand, approves, vec(silence, 8), moment(), moment(), picks).prop_map(
        |(order, on_hand, approves, silences, cancelled_after, restocked_after, picks)| Script {
            order,
            on_hand,
            approves,
            silences,
            cancelled_after,
            restocked_after,
            picks,
        },
    )
}

/// Something under way. It is delivered at any time from now on, three times at most.
#[derive(Debug, Clone)]
struct Delivery {
    /// What makes a repetition known: the event or the delivery that it follows from, the reaction and the target.
    id: String,
    act: Act,
    left: u8,
}

#[derive(Default)]
struct World {
    order: Order,
    payments: BTreeMap<PaymentId, Payment>,
    shipments: BTreeMap<ShipmentId, Arc<Shipment>>,
    stocks: BTreeMap<Sku, Arc<Stock>>,
    provider: Provider,
    log: Vec<Event>,
    /// The ids of the commands that have written something.
    spent: BTreeSet<String>,
    ids: BTreeSet<String>,
    bag: Vec<Delivery>,
    notices: BTreeMap<String, Message>,
    refused: Vec<(Command, Rejection)>,
}

/// The provider's books. The same key has the same effect once, and the same answer.
#[derive(Default)]
struct Provider {
    answers: BTreeMap<Uuid, Outcome>,
    declines: BTreeSet<PaymentId>,
    /// What of it is left, the next one last.
    silences: Vec<Option<Silence>>,
    held: BTreeMap<PaymentId, i64>,
    captured: i64,
}

impl Provider {
    /// What the payment is told, if anything is left to tell.
    fn call(&mut self, call: &ProviderCall) -> Option<Command> {
        if matches!(call.operation, Operation::Lookup { .. }) {
            let found = self.answers.get(&call.idempotency_key).cloned();
            return found.map_or_else(|| not_found(call), |outcome| Some(answered(call, outcome)));
        }
        match self.silences.pop().flatten() {
            None => Some(answered(call, self.answer(call))),
            Some(Silence::Before) => not_answered(call),
            Some(Silence::After) => {
                self.answer(call);
                not_answered(call)
            }
        }
    }

    fn answer(&mut self, call: &ProviderCall) -> Outcome {
        if let Some(before) = self.answers.get(&call.idempotency_key) {
            return before.clone();
        }
        let mut outcome = approved();
        match &call.operation {
            Operation::Authorise { .. } if self.declines.contains(&call.payment_id) => {
                outcome = Outcome::Declined { reason: "no funds".to_owned() };
            }
            Operation::Authorise { amount, .. } => {
                assert_eq!(self.held.insert(call.payment_id, amount.0), None, "authorised twice");
            }
            Operation::Capture { amount, .. } => {
                let held = self.held.get_mut(&call.payment_id).expect("captured what is not held");
                assert!(*held >= amount.0, "captured {amount:?} of {held}");
                *held -= amount.0;
                self.captured += amount.0;
            }
            Operation::Void => {
                assert!(self.held.insert(call.payment_id, 0) > Some(0), "voided what is not held");
            }
            Operation::Refund { amount, .. } => {
                self.captured -= amount.0;
                assert!(self.captured >= 0, "refunded {amount:?} more than is captured");
            }
            Operation::Lookup { .. } => panic!("a lookup does nothing"),
        }
        self.answers.insert(call.idempotency_key, outcome.clone());
        outcome
    }

    fn holds(&self) -> i64 {
        self.held.values().sum()
    }
}

impl World {
    fn send(&mut self, id: String, act: &Act) {
        // A follow-up is stored as JSON until it is done.
        let stored = serde_json::to_string(act).unwrap();
        let act = serde_json::from_str(&stored).unwrap();
        self.bag.push(Delivery { id, act, left: 3 });
    }

    fn send_new(&mut self, id: String, act: &Act) {
        assert!(self.ids.insert(id.clone()), "two follow-ups have one id, {id}");
        self.send(id, act);
    }

    fn deliver(&mut self, Delivery { id, act, .. }: Delivery) {
        match act {
            Act::Command(command) => self.command(&id, &command),
            Act::Provider(call) => {
                if let Some(told) = self.provider.call(&call) {
                    self.send(format!("{id}/answer"), &Act::Command(told));
                }
            }
            Act::Notice(notice) => {
                self.notices.insert(id, notice.message);
            }
        }
    }

    fn command(&mut self, id: &str, command: &Command) {
        // All that a repetition could do twice; everything else is decided again, and has to know.
        let adds_up = matches!(command, Command::Stock(stock::Command::Receive { .. }));
        if adds_up && self.spent.contains(id) {
            return;
        }
        match self.decide(command) {
            Ok(events) => {
                if !events.is_empty() {
                    self.spent.insert(id.to_owned());
                }
                events.into_iter().for_each(|event| self.append(event));
            }
            Err(rejection) => {
                if let Some(way_back) = react_to_rejection(command, &rejection) {
                    self.send(format!("{id}/{}", way_back.reaction), &way_back.act);
                }
                self.refused.push((command.clone(), rejection));
            }
        }
    }

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        fn all<A: Aggregate>(id: Uuid, events: Vec<A::Event>) -> Vec<Event> {
            events.into_iter().map(|event| A::event(id, event)).collect()
        }
        Ok(match command {
            Command::Order { id, command } => all::<Order>(id.0, self.order.decide(*id, command)?),
            Command::CancelOrder { id, .. }
            | Command::CancelLines { id, .. }
            | Command::ConfirmEdit { id, .. }
            | Command::ChangeAddress { id, .. } => {
                let ids = self.order.shipment_ids(*id);
                let shipments: Vec<_> = ids.into_iter().map(|id| (id, self.shipment(id))).collect();
                let (_, change) = command.change().expect("these are changes");
                let Changed { order, shipments: changed } = self.order.change(*id, &shipments, &change)?;
                let changed = shipments.iter().zip(changed).flat_map(|((id, _), e)| all::<Shipment>(id.0, e));
                all::<Order>(id.0, order).into_iter().chain(changed).collect()
            }
            Command::Payment { id, command } => {
                let payment = self.payments.get(id).cloned().unwrap_or_default();
                all::<Payment>(id.0, payment.decide(*id, command)?)
            }
            Command::Stock(command) => {
                let skus = command.skus();
                let stocks: Vec<_> = skus.iter().map(|sku| self.stocks[sku].clone()).collect();
                let events = stock::decide(command, &stocks)?;
                let of_sku = |(sku, events)| all::<Stock>(crate::id::StockId::from(sku).0, events);
                skus.iter().zip(events).flat_map(of_sku).collect()
            }
            Command::Shipment { id, command } => all::<Shipment>(id.0, self.shipment(*id).decide(*id, command)?),
        })
    }

    fn shipment(&self, id: ShipmentId) -> Arc<Shipment> {
        self.shipments.get(&id).cloned().unwrap_or_default()
    }

    fn append(&mut self, event: Event) {
        match &event {
            Event::Order(_, e) => self.order.evolve(e),
            Event::Payment(id, e) => self.payments.entry(*id).or_default().evolve(e),
            Event::Shipment(id, e) => Arc::make_mut(self.shipments.entry(*id).or_default()).evolve(e),
            Event::Stock(_, e) => {
                let sku = e.sku();
                let stock = Arc::make_mut(self.stocks.entry(sku.clone()).or_default());
                stock.evolve(e);
                assert!(stock.reserved() <= stock.on_hand(), "{sku}: {stock:?}");
            }
        }
        let n = self.log.len();
        for FollowUp { reaction, target, act } in react(&event) {
            self.send_new(format!("{n}/{reaction}/{target}"), &act);
        }
        // The warehouse ships what is planned, and the carrier delivers what is shipped.
        if let Event::Shipment(id, e) = &event {
            let next = match e {
                shipment::Event::ShipmentPlanned(_) => shipment::Command::Dispatch { tracking: "T1".to_owned() },
                shipment::Event::ShipmentDispatched(_) => shipment::Command::ConfirmDelivery,
                shipment::Event::ShipmentReplanned(_)
                | shipment::Event::ShipmentReady(_)
                | shipment::Event::ShipmentHeld(_)
                | shipment::Event::ShipmentReleased(_)
                | shipment::Event::ShipmentDelivered(_)
                | shipment::Event::ShipmentLost(_)
                | shipment::Event::ShipmentReturnedToSender(_)
                | shipment::Event::ShipmentCancelled(_) => return self.log.push(event),
            };
            self.send_new(format!("{n}/next"), &Act::Command(Command::Shipment { id: *id, command: next }));
        }
        self.log.push(event);
    }

    /// Plays the script until nothing is under way.
    fn run(script: &Script) -> Self {
        let mut world = Self::default();
        let declines = script.approves.iter().enumerate().filter(|(_, approves)| !**approves);
        world.provider.declines = declines.map(|(n, _)| PaymentId::of_order(ORDER, n)).collect();
        world.provider.silences.clone_from(&script.silences);
        for (name, quantity) in SKUS.iter().zip(&script.on_hand) {
            let received = stock::StockReceived { sku: sku(name), quantity: *quantity };
            world.append(Event::Stock((&sku(name)).into(), received.into()));
        }
        let place = Command::Order { id: ORDER, command: order::Command::Place(script.order.clone()) };
        world.send_new("place".to_owned(), &Act::Command(place));
        for (n, (index, again)) in script.picks.iter().cycle().enumerate() {
            if script.cancelled_after == Some(n) {
                let reason = CancelReason::CustomerRequest;
                world.send_new("cancel".to_owned(), &Act::Command(Command::CancelOrder { id: ORDER, reason }));
            }
            if script.restocked_after == Some(n) {
                for name in SKUS {
                    let command = stock::Command::Receive { sku: sku(name), quantity: 10 };
                    world.send_new(format!("restock {name}"), &Act::Command(Command::Stock(command)));
                }
            }
            if world.bag.is_empty() {
                break;
            }
            let mut delivery = world.bag.swap_remove(index.index(world.bag.len()));
            delivery.left -= 1;
            if *again && delivery.left > 0 {
                world.bag.push(delivery.clone());
            }
            world.deliver(delivery);
        }
        world
    }

    fn count(&self, event_type: &str) -> usize {
        self.log.iter().filter(|e| e.event_type() == event_type).count()
    }

    fn told(&self, message: &Message) -> usize {
        self.notices.values().filter(|told| *told == message).count()
    }
}

const SKUS: [&str; 4] = ["BAG", "HAT", "MUG", "PEN"];

/// The refusals that a race leads to, each with its reason. Any other would be a hole in the choreography.
fn is_foreseen(command: &Command, rejection: &Rejection) -> bool {
    use Rejection as R;
    match (command, rejection) {
        // The customer is too late, or too early.
        (Command::CancelOrder { .. }, R::Order(order::Rejection::AlreadyDispatched { .. })) => true,
        (Command::CancelOrder { .. }, R::Order(order::Rejection::NotPlaced { .. })) => true,
        (Command::CancelOrder { .. }, R::Order(order::Rejection::Ended { status, .. })) => {
            matches!(status, Status::Completed | Status::Rejected)
        }
        // The cancellation was faster than what it calls off.
        (
            Command::Payment { command: payment::Command::Authorise { .. }, .. },
            R::Payment(payment::Rejection::LetGo { .. }),
        ) => true,
        (
            Command::Shipment { command: shipment::Command::Plan { .. } | shipment::Command::Dispatch { .. }, .. },
            R::Shipment(shipment::Rejection::Cancelled { .. }),
        ) => true,
        (Command::Stock(stock::Command::Reserve { .. }), R::Stock(stock::Rejection::OutOfStock { .. })) => true,
        _ => false,
    }
}

/// Invariants 21 to 25 at the end of a run.
fn check(world: &World, script: &Script) -> Result<(), TestCaseError> {
    for (command, rejection) in &world.refused {
        prop_assert!(is_foreseen(command, rejection), "{:?} was refused: {:?}", command, rejection);
    }
    let status = world.order.status;
    let ended = matches!(status, Status::Completed | Status::Cancelled | Status::Rejected);
    prop_assert!(ended, "{:?}", status);

    let total = world.order.placed().unwrap().totals.total.0;
    let is_completed = status == Status::Completed;
    prop_assert_eq!(world.provider.captured, if is_completed { total } else { 0 });
    prop_assert_eq!(world.provider.holds(), 0, "money is held by a {:?} order", status);
    for payment in world.payments.values() {
        let expected = if is_completed {
            payment.status == PaymentStatus::Authorised
        } else {
            matches!(payment.status, PaymentStatus::Voided | PaymentStatus::Declined)
        };
        prop_assert!(payment.as_str() != "unknown", "a payment is left unknown: {:?}", payment);
        prop_assert!(expected, "the payment of a {:?} order is {:?}", status, payment.status);
    }

    for (name, quantity) in SKUS.iter().zip(&script.on_hand) {
        let stock = &world.stocks[&sku(name)];
        prop_assert_eq!(stock.reserved(), 0, "{} is held by a {:?} order", name, status);
        let restocked = if world.spent.contains(&format!("restock {name}")) { 10 } else { 0 };
        let lines = script.order.lines.iter().filter(|l| is_completed && l.sku == sku(name));
        let shipped: u32 = lines.map(|l| l.quantity).sum();
        prop_assert_eq!(stock.on_hand(), u64::from(quantity + restocked - shipped), "{}", name);
    }

    // However often a message was repeated, what it says happened once.
    let sellers = world.order.sellers().len();
    prop_assert_eq!(world.count("OrderPlaced"), 1);
    prop_assert!(world.count("ReservationReturned") <= 1);
    let endings = world.count("OrderCompleted") + world.count("OrderCancelled") + world.count("OrderRejected");
    prop_assert_eq!(endings, 1);
    prop_assert_eq!(world.count("ShipmentDelivered"), if is_completed { sellers } else { 0 });
    prop_assert_eq!(world.told(&Message::PaymentDeclined), world.count("OrderRejected"));
    prop_assert_eq!(
        world.told(&Message::ShipmentDispatched { tracking: "T1".to_owned() }),
        sellers * usize::from(is_completed)
    );
    let cancellations = [CancelReason::CustomerRequest, CancelReason::OutOfStock];
    let told: usize = cancellations.iter().map(|reason| world.told(&Message::OrderCancelled { reason: *reason })).sum();
    prop_assert_eq!(told, world.count("OrderCancelled"));

    // What is stored is read back as it was.
    for event in &world.log {
        let payload = serde_json::to_value(event).unwrap();
        let read = Event::from_payload(event.category(), event.stream_id(), event.event_type(), payload).unwrap();
        prop_assert_eq!(read.as_ref(), Some(event));
    }
    Ok(())
}

/// How many interleavings are tried: `PROPTEST_CASES`, if that is set, else enough for every ending to occur often.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn invariant_25_every_order_ends_with_its_money_and_stock_settled(script in any_script()) {
        check(&World::run(&script), &script)?;
    }
}
