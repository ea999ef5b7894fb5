//! Commands about a few accounts, through two processes that cache what they have folded, against accounts in memory:
//! also what is refused, what changes nothing, what is sent again, and what was sent to a Postgres that was killed.

use super::checker::{Call, Client, Clock, Sequential, is_linearizable};
use super::{seeded, seeds};
use crate::bank::{self, Bank, Unavailable};
use crate::harness::{database, id, start_postgres};
use daybook_store::Version;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use uuid::Uuid;

const ACCOUNTS: usize = 2;
/// A purchase takes once, so there are some to come.
const PURCHASES: u64 = 8;

/// A command, with small numbers in place of ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Body {
    Deposit { account: usize, amount: i64 },
    Withdraw { purchase: u64, accounts: Vec<usize>, amount: i64 },
    Refund { purchase: u64, accounts: Vec<usize> },
}

/// A command and its id.
type Op = (u64, Body);

/// An account and its version.
type Versions = Vec<(usize, Version)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Answer {
    Recorded(Versions),
    Unchanged(Versions),
    /// The accounts that were short, with their balances.
    Short(Vec<(usize, i64)>),
    IdSpent,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Account {
    version: Version,
    balance: i64,
    withdrawn: BTreeMap<u64, i64>,
    refunded: BTreeMap<u64, ()>,
}

impl Account {
    fn knows(&self, purchase: u64) -> bool {
        self.withdrawn.contains_key(&purchase) || self.refunded.contains_key(&purchase)
    }
}

/// What the two processes are to be like: one bank that does one command after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Model {
    accounts: [Account; ACCOUNTS],
    recorded: BTreeMap<u64, (Body, Versions)>,
}

impl Model {
    fn execute(&mut self, command: u64, body: &Body) -> Answer {
        if let Some((recorded, versions)) = self.recorded.get(&command) {
            return if recorded == body { Answer::Recorded(versions.clone()) } else { Answer::IdSpent };
        }
        let accounts = match body {
            Body::Deposit { account, .. } => &vec![*account],
            Body::Withdraw { accounts, .. } | Body::Refund { accounts, .. } => accounts,
        };
        if let Body::Withdraw { purchase, amount, .. } = body {
            let new = accounts.iter().map(|n| (*n, &self.accounts[*n])).filter(|(_, a)| !a.knows(*purchase));
            let short: Vec<_> = new.filter(|(_, a)| a.balance < *amount).map(|(n, a)| (n, a.balance)).collect();
            if !short.is_empty() {
                return Answer::Short(short);
            }
        }
        let mut written = Vec::new();
        for n in accounts {
            let account = &mut self.accounts[*n];
            let is_new = match body {
                Body::Deposit { amount, .. } => {
                    account.balance += amount;
                    true
                }
                Body::Withdraw { purchase, amount, .. } if !account.knows(*purchase) => {
                    account.balance -= amount;
                    account.withdrawn.insert(*purchase, *amount);
                    true
                }
                Body::Withdraw { .. } => false,
                // Also what it has never heard of: nothing will be withdrawn for that.
                Body::Refund { purchase, .. } if !account.refunded.contains_key(purchase) => {
                    account.balance += account.withdrawn.remove(purchase).unwrap_or(0);
                    account.refunded.insert(*purchase, ());
                    true
                }
                Body::Refund { .. } => false,
            };
            if is_new {
                account.version += 1;
                written.push((*n, account.version));
            }
        }
        if written.is_empty() {
            return Answer::Unchanged(accounts.iter().map(|n| (*n, self.accounts[*n].version)).collect());
        }
        self.recorded.insert(command, (body.clone(), written.clone()));
        Answer::Recorded(written)
    }
}

impl Sequential for Model {
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

    fn id(self, n: u64) -> Uuid {
        id(u128::from(self.history) << 64 | u128::from(n))
    }

    fn account(self, n: usize) -> Uuid {
        self.id(1_000_000 + n as u64)
    }

    fn command(self, body: &Body) -> bank::Command {
        let accounts = |accounts: &[usize]| accounts.iter().map(|n| self.account(*n)).collect();
        match body {
            Body::Deposit { account, amount } => {
                bank::Command::Deposit { account: self.account(*account), amount: *amount }
            }
            Body::Withdraw { purchase, accounts: from, amount } => {
                bank::Command::Withdraw { accounts: accounts(from), amount: *amount, purchase: self.id(*purchase) }
            }
            Body::Refund { purchase, accounts: to } => {
                bank::Command::Refund { accounts: accounts(to), purchase: self.id(*purchase) }
            }
        }
    }

    async fn execute(self, bank: &Bank, (command, body): &Op) -> Option<Answer> {
        let number = |id: Uuid| (0..ACCOUNTS).find(|n| self.account(*n) == id).expect("an account of the history");
        let numbers = |versions: Vec<(Uuid, Version)>| versions.into_iter().map(|(id, v)| (number(id), v)).collect();
        Some(match bank.execute(self.id(*command), &self.command(body)).await {
            Ok(bank::Answer::Recorded { versions, .. }) => Answer::Recorded(numbers(versions)),
            Ok(bank::Answer::Unchanged { versions }) => Answer::Unchanged(numbers(versions)),
            Ok(bank::Answer::Short(short)) => Answer::Short(numbers(short)),
            Ok(bank::Answer::IdSpent) => Answer::IdSpent,
            Err(Unavailable) => return None,
        })
    }
}

/// What the clients of a history share.
struct Story<'a> {
    names: Names,
    processes: &'a [Bank],
    clock: Clock,
    /// All that was sent, to be sent again.
    sent: Mutex<Vec<Op>>,
    answered: AtomicUsize,
    /// No client asks for more.
    is_over: AtomicBool,
}

impl<'a> Story<'a> {
    fn new(processes: &'a [Bank]) -> Self {
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
        let purchase = random.random_range(0..PURCHASES);
        let mut accounts: Vec<usize> = (0..ACCOUNTS).collect();
        if random.random_bool(0.6) {
            accounts = vec![random.random_range(0..ACCOUNTS)];
        }
        let body = match random.random_range(0..10) {
            0..2 => Body::Deposit { account: accounts[0], amount: random.random_range(1..4) },
            2..7 => Body::Withdraw { purchase, accounts, amount: random.random_range(1..4) },
            _ => Body::Refund { purchase, accounts },
        };
        // Another command under an id that may be spent, or one of its own.
        let op = (again.map_or(1000 + sent.len() as u64, |(command, _)| command), body);
        sent.push(op.clone());
        op
    }

    /// Sends commands, until one is not answered. Each goes to one of the processes.
    async fn client(&self, mut random: StdRng, calls: usize) -> Client<Model> {
        let mut client: Client<Model> = Vec::new();
        let is_over = || self.is_over.load(Ordering::Relaxed);
        while client.len() < calls && client.last().is_none_or(Call::is_answered) && !is_over() {
            let op = self.next(&mut random);
            let process = self.processes.choose(&mut random).unwrap();
            let execute = async |op: &Op| self.names.execute(process, op).await;
            client.push(self.clock.call(op, execute).await);
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        client
    }

    /// What so many clients are told at once.
    async fn clients(&self, random: &mut StdRng, clients: usize, calls: usize) -> Vec<Client<Model>> {
        let clients = (0..clients).map(|_| self.client(StdRng::from_rng(random), calls)).collect::<Vec<_>>();
        futures_util::future::join_all(clients).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_the_bank_are_linearizable() {
    let url = database().await;
    let processes = [Bank::start(&url, 0), Bank::start(&url, 0)];
    for seed in seeds() {
        let story = Story::new(&processes);
        let history = story.clients(&mut seeded(seed), 6, 8).await;
        let is_answered = |client: &Client<Model>| client.iter().all(Call::is_answered);
        assert!(history.iter().all(is_answered), "seed {seed}: {history:#?}");
        assert!(is_linearizable(Model::default(), &history), "seed {seed}: {history:#?}");
    }
}

/// Also 1 and 3, and the fault: Postgres is killed in the middle of it and comes back. Whoever was not answered sends the
/// same again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_the_bank_around_a_postgres_that_is_killed_are_linearizable() {
    let (mut postgres, url) = start_postgres().await;
    let processes = [Bank::start(&url, 0), Bank::start(&url, 0)];
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
            let execute = async |op: &Op| story.names.execute(&processes[0], op).await;
            again.push(story.clock.call(op, execute).await);
        }
        history.push(again);
        story.is_over.store(false, Ordering::Relaxed);
        history.extend(story.clients(&mut random, 4, 4).await);
        assert!(is_linearizable(Model::default(), &history), "seed {seed}: {history:#?}");
    }
}
