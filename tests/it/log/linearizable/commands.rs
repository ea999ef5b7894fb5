//! Commands about a few SKUs, through two processes that keep what they have folded, against shelves in memory: also
//! what is refused, what is so already, what is sent again, and what was sent to a Postgres that was killed.

use super::checker::{Call, Client, Clock, Sequential, is_linearizable};
use super::{seeded, seeds};
use crate::harness::{database, envelope, executor, id, migrate, start_postgres};
use order_services::{Envelope, ExecuteError, Executor};
use order_views::stream as stream_of;
use orders::id::{OrderId, Sku, StockId};
use orders::order::StockLine;
use orders::stock::{self, Stock};
use orders::{Command, Rejection};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use runtime::executor::Outcome;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use store::Version;

const SKUS: usize = 2;
/// A line holds once, so there are some to come.
const ORDERS: u64 = 8;

/// A command, with small numbers in place of ids. An order's line is one SKU's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Body {
    Receive { sku: usize, quantity: u32 },
    Reserve { order: u64, skus: Vec<usize>, quantity: u32 },
    Release { order: u64, skus: Vec<usize> },
    Commit { order: u64, skus: Vec<usize> },
}

/// A command and its id.
type Op = (u64, Body);

/// A SKU and its version.
type Versions = Vec<(usize, Version)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Answer {
    Recorded(Versions),
    AlreadySo(Versions),
    /// The SKUs that were short, and how many pieces there were.
    OutOfStock(Vec<(usize, u64)>),
    /// The SKUs of which nothing was held that could go out.
    NotHeld(Vec<usize>),
    IdSpent,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Shelf {
    version: Version,
    on_hand: u64,
    reserved: BTreeMap<u64, u64>,
    /// Those that hold no more, and whether their pieces went out.
    ended: BTreeMap<u64, bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Shelves {
    shelves: [Shelf; SKUS],
    recorded: BTreeMap<u64, (Body, Versions)>,
}

impl Shelf {
    fn available(&self) -> u64 {
        self.on_hand - self.reserved.values().sum::<u64>()
    }

    fn knows(&self, order: u64) -> bool {
        self.reserved.contains_key(&order) || self.ended.contains_key(&order)
    }
}

impl Shelves {
    fn execute(&mut self, command: u64, body: &Body) -> Answer {
        if let Some((recorded, versions)) = self.recorded.get(&command) {
            return if recorded == body { Answer::Recorded(versions.clone()) } else { Answer::IdSpent };
        }
        let skus = match body {
            Body::Receive { sku, .. } => &vec![*sku],
            Body::Reserve { skus, .. } | Body::Release { skus, .. } | Body::Commit { skus, .. } => skus,
        };
        if let Body::Reserve { order, quantity, .. } = body {
            let new = skus.iter().map(|sku| (*sku, &self.shelves[*sku])).filter(|(_, s)| !s.knows(*order));
            let short: Vec<_> =
                new.map(|(sku, s)| (sku, s.available())).filter(|(_, n)| *n < u64::from(*quantity)).collect();
            if !short.is_empty() {
                return Answer::OutOfStock(short);
            }
        }
        if let Body::Commit { order, .. } = body {
            let gone = |sku: &usize| {
                let shelf = &self.shelves[*sku];
                !shelf.reserved.contains_key(order) && shelf.ended.get(order) != Some(&true)
            };
            let gone: Vec<usize> = skus.iter().copied().filter(gone).collect();
            if !gone.is_empty() {
                return Answer::NotHeld(gone);
            }
        }
        let mut written = Vec::new();
        for sku in skus {
            let shelf = &mut self.shelves[*sku];
            let is_new = match body {
                Body::Receive { quantity, .. } => {
                    shelf.on_hand += u64::from(*quantity);
                    true
                }
                Body::Reserve { order, quantity, .. } if !shelf.knows(*order) => {
                    shelf.reserved.insert(*order, u64::from(*quantity));
                    true
                }
                Body::Reserve { .. } => false,
                // Also what it has never heard of: it never will hold.
                Body::Release { order, .. } if !shelf.ended.contains_key(order) => {
                    shelf.reserved.remove(order);
                    shelf.ended.insert(*order, false);
                    true
                }
                Body::Release { .. } => false,
                Body::Commit { order, .. } => match shelf.reserved.remove(order) {
                    Some(pieces) => {
                        shelf.on_hand -= pieces;
                        shelf.ended.insert(*order, true);
                        true
                    }
                    None => false,
                },
            };
            if is_new {
                shelf.version += 1;
                written.push((*sku, shelf.version));
            }
        }
        if written.is_empty() {
            return Answer::AlreadySo(skus.iter().map(|sku| (*sku, self.shelves[*sku].version)).collect());
        }
        self.recorded.insert(command, (body.clone(), written.clone()));
        Answer::Recorded(written)
    }
}

impl Sequential for Shelves {
    type Op = Op;
    type Answer = Answer;

    fn explains(&mut self, (command, body): &Op, answer: Option<&Answer>) -> bool {
        let said = self.execute(*command, body);
        answer.is_none_or(|answer| *answer == said)
    }
}

/// The ids of one history.
#[derive(Debug, Clone, Copy)]
struct Names {
    history: u64,
}

impl Names {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { history: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    fn sku(self, sku: usize) -> Sku {
        Sku::new(format!("sku-{}-{sku}", self.history)).unwrap()
    }

    fn id(self, n: u64) -> uuid::Uuid {
        id(u128::from(self.history) << 64 | u128::from(n))
    }

    fn envelope(self, (command, body): &Op) -> Envelope {
        let lines = |skus: &[usize], quantity| {
            let line = |sku: &usize| StockLine { line: *sku as u32 + 1, sku: self.sku(*sku), quantity };
            skus.iter().map(line).collect()
        };
        let order = |order: &u64| OrderId(self.id(*order));
        let stock = match body {
            Body::Receive { sku, quantity } => stock::Command::Receive { sku: self.sku(*sku), quantity: *quantity },
            Body::Reserve { order: of, skus, quantity } => stock::Command::Reserve {
                order_id: order(of),
                lines: lines(skus, *quantity),
                hold_seconds: 60,
                edit: None,
            },
            Body::Release { order: of, skus } => stock::Command::Release { order_id: order(of), lines: lines(skus, 1) },
            Body::Commit { order: of, skus } => stock::Command::Commit { order_id: order(of), lines: lines(skus, 1) },
        };
        envelope(self.id(*command), Command::Stock(stock))
    }

    fn answer(self, outcome: Result<Outcome, ExecuteError>) -> Option<Answer> {
        let number = |of: &dyn Fn(Sku) -> bool| (0..SKUS).find(|sku| of(self.sku(*sku))).expect("a SKU of the history");
        Some(match outcome {
            Ok(Outcome { recorded, streams, .. }) => {
                let sku = |stream| number(&|sku| stream_of::<Stock>(StockId::from(&sku).0) == stream);
                let mut versions: Versions =
                    streams.into_iter().map(|(stream, version)| (sku(stream), version)).collect();
                versions.sort_unstable();
                if recorded { Answer::Recorded(versions) } else { Answer::AlreadySo(versions) }
            }
            Err(ExecuteError::Rejected(Rejection::Stock(stock::Rejection::OutOfStock { short }))) => {
                Answer::OutOfStock(short.into_iter().map(|s| (number(&|sku| sku == s.sku), s.available)).collect())
            }
            Err(ExecuteError::Rejected(Rejection::Stock(stock::Rejection::NotHeld { lines, .. }))) => {
                Answer::NotHeld(lines.into_iter().map(|line| line as usize - 1).collect())
            }
            Err(ExecuteError::IdSpent) => Answer::IdSpent,
            Err(ExecuteError::Unavailable(_)) => return None,
            Err(other) => panic!("{other:?}"),
        })
    }
}

/// What the clients of a history share.
struct Story<'a> {
    names: Names,
    processes: &'a [Executor],
    clock: Clock,
    /// All that was sent, to be sent again.
    sent: Mutex<Vec<Op>>,
    answered: AtomicUsize,
    /// No client asks for more.
    is_over: AtomicBool,
}

impl<'a> Story<'a> {
    fn new(processes: &'a [Executor]) -> Self {
        Self {
            names: Names::new(),
            processes,
            clock: Clock::default(),
            sent: Mutex::default(),
            answered: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    fn next(&self, random: &mut StdRng) -> Op {
        let mut sent = self.sent.lock().unwrap();
        let again = sent.choose(random).filter(|_| random.random_bool(0.15)).cloned();
        if let Some(again) = &again
            && random.random_bool(0.8)
        {
            return again.clone();
        }
        let order = random.random_range(0..ORDERS);
        let mut skus: Vec<usize> = (0..SKUS).collect();
        if random.random_bool(0.6) {
            skus = vec![random.random_range(0..SKUS)];
        }
        let body = match random.random_range(0..10) {
            0..2 => Body::Receive { sku: skus[0], quantity: random.random_range(1..4) },
            2..7 => Body::Reserve { order, skus, quantity: random.random_range(1..4) },
            7..9 => Body::Release { order, skus },
            _ => Body::Commit { order, skus },
        };
        // Another command under an id that may be spent, or one of its own.
        let op = (again.map_or(1000 + sent.len() as u64, |(command, _)| command), body);
        sent.push(op.clone());
        op
    }

    /// Sends commands, until one is not answered. Each goes to one of the processes.
    async fn client(&self, mut random: StdRng, calls: usize) -> Client<Shelves> {
        let mut client: Client<Shelves> = Vec::new();
        let is_over = || self.is_over.load(Ordering::Relaxed);
        while client.len() < calls && client.last().is_none_or(Call::is_answered) && !is_over() {
            let op = self.next(&mut random);
            let process = self.processes.choose(&mut random).unwrap();
            let execute = async |op: &Op| self.names.answer(process.execute(&self.names.envelope(op)).await);
            client.push(self.clock.call(op, execute).await);
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        client
    }

    /// What so many clients are told at once.
    async fn clients(&self, random: &mut StdRng, clients: usize, calls: usize) -> Vec<Client<Shelves>> {
        let clients = (0..clients).map(|_| self.client(StdRng::from_rng(random), calls)).collect::<Vec<_>>();
        futures_util::future::join_all(clients).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_commands_are_linearizable() {
    let url = database().await;
    let processes = [executor(&url), executor(&url)];
    for seed in seeds() {
        let story = Story::new(&processes);
        let history = story.clients(&mut seeded(seed), 6, 8).await;
        let is_answered = |client: &Client<Shelves>| client.iter().all(Call::is_answered);
        assert!(history.iter().all(is_answered), "seed {seed}: {history:#?}");
        assert!(is_linearizable(Shelves::default(), &history), "seed {seed}: {history:#?}");
    }
}

/// Also 1 and 3, and the fault: Postgres is killed in the middle of it and comes back. Whoever was not answered sends the
/// same again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_around_a_postgres_that_is_killed_are_linearizable() {
    let mut postgres = start_postgres().await;
    let url = postgres.url("postgres");
    migrate(&url).await;
    let processes = [executor(&url), executor(&url)];
    for seed in seeds().into_iter().step_by(20) {
        let mut random = seeded(seed);
        let story = Story::new(&processes);
        let after = random.random_range(20..60);
        let kill = async {
            while story.answered.load(Ordering::Relaxed) < after {
                tokio::task::yield_now().await;
            }
            postgres.kill9().await;
            postgres.restart().await.unwrap();
            story.is_over.store(true, Ordering::Relaxed);
        };
        let (mut history, ()) = tokio::join!(story.clients(&mut random, 8, usize::MAX), kill);
        // What got no answer, and then other things.
        let lost = history.iter().filter_map(|client| client.last()).filter(|call| !call.is_answered());
        let mut lost: Vec<Op> = lost.map(|call| call.op().clone()).collect();
        assert!(!lost.is_empty(), "seed {seed}: it was killed in vain");
        lost.shuffle(&mut random);
        let mut again = Vec::new();
        for op in lost {
            let execute = async |op: &Op| story.names.answer(processes[0].execute(&story.names.envelope(op)).await);
            again.push(story.clock.call(op, execute).await);
        }
        history.push(again);
        story.is_over.store(false, Ordering::Relaxed);
        history.extend(story.clients(&mut random, 4, 4).await);
        assert!(is_linearizable(Shelves::default(), &history), "seed {seed}: {history:#?}");
    }
}
