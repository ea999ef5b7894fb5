//! All aggregates, and what is under way between them.

use super::*;

/// Something under way. It is delivered at any time from now on, three times at most.
#[derive(Debug, Clone)]
struct Delivery {
    /// What makes a repetition known: the event or the delivery that it follows from, the reaction and the target.
    id: String,
    act: Act,
    left: u8,
}

/// Something that begins after a number of deliveries.
enum Todo {
    Send(String, Act),
    Ask(usize),
}

pub(super) struct World<'a> {
    pub(super) script: &'a Script,
    pub(super) order: Order,
    pub(super) payments: BTreeMap<PaymentId, Payment>,
    pub(super) shipments: BTreeMap<ShipmentId, Arc<Shipment>>,
    pub(super) stocks: BTreeMap<Sku, Arc<Stock>>,
    pub(super) provider: Provider,
    pub(super) books: Books,
    pub(super) log: Vec<Event>,
    /// The ids of the commands that have written something.
    spent: BTreeSet<String>,
    ids: BTreeSet<String>,
    bag: Vec<Delivery>,
    /// By the number of deliveries after which it begins.
    agenda: BTreeMap<usize, Vec<Todo>>,
    deliveries: usize,
    notices: BTreeMap<String, Message>,
    pub(super) refused: Vec<(Command, Rejection)>,
}

impl<'a> World<'a> {
    fn new(script: &'a Script) -> Self {
        let mut world = Self {
            script,
            order: Order::default(),
            payments: BTreeMap::new(),
            shipments: BTreeMap::new(),
            stocks: BTreeMap::new(),
            provider: Provider::new(&script.mood),
            books: Books::default(),
            log: vec![],
            spent: BTreeSet::new(),
            ids: BTreeSet::new(),
            bag: vec![],
            agenda: BTreeMap::new(),
            deliveries: 0,
            notices: BTreeMap::new(),
            refused: vec![],
        };
        for (name, quantity) in SKUS.iter().zip(&script.on_hand) {
            let received = stock::StockReceived { sku: sku(name), quantity: *quantity };
            world.append(Event::Stock((&sku(name)).into(), received.into()));
        }
        for (n, (moment, _)) in script.asks.iter().enumerate() {
            world.agenda.entry(*moment).or_default().push(Todo::Ask(n));
        }
        world
    }

    /// Plays the script until nothing is under way, and nothing will be.
    pub(super) fn run(script: &'a Script) -> Self {
        let mut world = Self::new(script);
        let place = Command::Order { id: ORDER, command: order::Command::Place(script.order.clone()) };
        world.send_new("place".to_owned(), &Act::Command(place));
        for (index, again) in script.picks.iter().cycle() {
            world.begin();
            if world.bag.is_empty() {
                break;
            }
            world.deliveries += 1;
            assert!(world.deliveries < 10_000, "it goes on for ever: {:?}", world.bag);
            let mut delivery = world.bag.swap_remove(index.index(world.bag.len()));
            delivery.left -= 1;
            let comes_again = *again && delivery.left > 0;
            if comes_again {
                world.bag.push(delivery.clone());
            }
            world.deliver(delivery, comes_again);
        }
        world
    }

    /// Begins what is due; and if nothing is under way, what comes next.
    fn begin(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if *entry.key() > self.deliveries && !self.bag.is_empty() {
                return;
            }
            for todo in entry.remove() {
                match todo {
                    Todo::Send(id, act) => self.send_new(id, &act),
                    Todo::Ask(n) => {
                        for (k, command) in self.asked(&self.script.asks[n].1, n).into_iter().enumerate() {
                            self.send_new(format!("ask {n}/{k}"), &Act::Command(command));
                        }
                    }
                }
            }
        }
    }

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

    fn deliver(&mut self, Delivery { id, act, .. }: Delivery, comes_again: bool) {
        match act {
            Act::Command(command) => self.command(&id, &command, comes_again),
            Act::Provider(call) => {
                for (n, told) in self.provider.call(&call).into_iter().enumerate() {
                    self.send(format!("{id}/answer {n}"), &Act::Command(told));
                }
            }
            Act::Notice(notice) => {
                self.notices.insert(id, notice.message);
            }
        }
    }

    fn command(&mut self, id: &str, command: &Command, comes_again: bool) {
        if needs_its_id(command) && self.spent.contains(id) {
            return;
        }
        match self.decide(command) {
            Ok(events) => {
                if !events.is_empty() {
                    self.spent.insert(id.to_owned());
                }
                self.append_all(events);
            }
            Err(rejection) => {
                // A refusal is settled together with its way back: what comes again was not settled. A sender that was
                // overtaken may decide once more after that, which only an order that waits for stock would not bear.
                let is_settled = !(comes_again && self.script.order.backorder);
                if let Some(way_back) = react_to_rejection(command, &rejection).filter(|_| is_settled) {
                    self.send(format!("{id}/{}", way_back.reaction), &way_back.act);
                }
                self.books.refused(command);
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
                let change = change(command);
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

    /// Takes in what was decided at once, and then begins what follows from it.
    fn append_all(&mut self, events: Vec<Event>) {
        let first = self.log.len();
        events.into_iter().for_each(|event| self.append(event));
        for n in first..self.log.len() {
            self.follow(n);
        }
    }

    fn append(&mut self, event: Event) {
        self.books.take_in(&event, &self.order);
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
        self.log.push(event);
    }

    fn follow(&mut self, n: usize) {
        let event = self.log[n].clone();
        for FollowUp { reaction, target, act } in react(&event) {
            self.send_new(format!("{n}/{reaction}/{target}"), &act);
        }
        // What is set fires, also if it is cleared by then: a clock is late, or a sweeper is.
        for change in timers(&event) {
            let TimerChange::Set { timer, command, .. } = change else { continue };
            let kind = TIMERS.iter().position(|kind| *kind == timer.kind).expect("the kinds are known");
            if let Some(earliest) = self.script.timers[kind] {
                let id = format!("{n}/{}/{}/{}", timer.kind, timer.target, timer.key);
                self.later(earliest, id, command);
            }
        }
        for (k, (moment, command)) in self.next_by_people(&event).into_iter().enumerate() {
            self.later(moment, format!("{n}/next {k}"), command);
        }
    }

    fn later(&mut self, moment: usize, id: String, command: Command) {
        self.agenda.entry(moment).or_default().push(Todo::Send(id, Act::Command(command)));
    }

    /// What happened and what was refused, for somebody who looks for a hole.
    pub(super) fn story(&self) -> String {
        let happened = self.log.iter().map(|event| format!("{event:?}\n"));
        let refused = self.refused.iter().map(|(command, why)| format!("refused, {why}: {command:?}\n"));
        happened.chain(refused).collect()
    }

    pub(super) fn count(&self, event_type: &str) -> usize {
        self.log.iter().filter(|e| e.event_type() == event_type).count()
    }

    pub(super) fn told(&self, message: impl Fn(&Message) -> bool) -> usize {
        self.notices.values().filter(|told| message(told)).count()
    }
}

/// All that a repetition could do twice, or again after somebody has undone it. Everything else is decided again, and
/// has to know.
fn needs_its_id(command: &Command) -> bool {
    use order::Command as O;
    match command {
        Command::Stock(command) => {
            matches!(command, stock::Command::Receive { .. } | stock::Command::Adjust { .. })
        }
        Command::Order { command, .. } => matches!(
            command,
            O::PlaceHold { .. }
                | O::ReleaseHold { .. }
                | O::RequestApproval { .. }
                | O::ProposeEdit(_)
                | O::RequestReturn { .. }
        ),
        _ => false,
    }
}

/// The change of an order that is decided over its shipments too.
fn change(command: &Command) -> Change {
    match command {
        Command::CancelOrder { reason, .. } => Change::Cancel { reason: *reason },
        Command::CancelLines { lines, reason, .. } => Change::CancelLines { lines: lines.clone(), reason: *reason },
        Command::ConfirmEdit { edit, .. } => Change::ConfirmEdit { edit: *edit },
        Command::ChangeAddress { address_id, .. } => Change::ChangeAddress { address_id: *address_id },
        other => unreachable!("it is decided on one stream: {other:?}"),
    }
}
