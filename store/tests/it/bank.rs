//! A small bank: the domain of these tests, and a process that executes its commands as an application would. It decides
//! on cached states, appends speculatively, and decides again when another process was faster.

use crate::harness::append_as;
use daybook_store::connect::{self, Role};
use daybook_store::{
    AppendError, Appender, Category, ExpectedVersion, Fingerprint, Loaded, Loader, Log, NewEvent, ReadError,
    RecordedEvent, Snapshot, Speculation, StreamAppend, StreamId, Version,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};
use uuid::Uuid;

/// Accounts; and another kind of streams, to tell them from.
pub(crate) const CATEGORIES: &[Category] =
    &[Category { id: 11, name: "account", domain: "bank" }, Category { id: 12, name: "vault", domain: "bank" }];

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(crate) enum Command {
    Deposit {
        account: Uuid,
        amount: i64,
    },
    /// Takes the amount from each account, once for a purchase; or from none, if one of them has less.
    Withdraw {
        accounts: Vec<Uuid>,
        amount: i64,
        purchase: Uuid,
    },
    /// Gives back what was withdrawn for a purchase. Nothing is withdrawn for it afterwards.
    Refund {
        accounts: Vec<Uuid>,
        purchase: Uuid,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    Deposited { amount: i64 },
    Withdrawn { amount: i64, purchase: Uuid },
    Refunded { purchase: Uuid },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) balance: i64,
    /// What each purchase took; nothing, if it was refunded.
    purchases: BTreeMap<Uuid, i64>,
}

impl Account {
    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Deposited { amount } => self.balance += amount,
            Event::Withdrawn { amount, purchase } => {
                self.balance -= amount;
                self.purchases.insert(purchase, amount);
            }
            Event::Refunded { purchase } => self.balance += self.purchases.insert(purchase, 0).unwrap_or(0),
        }
    }
}

/// Why nothing is withdrawn: the accounts that are short, with their balances.
type Short = Vec<(Uuid, i64)>;

impl Command {
    fn accounts(&self) -> Vec<Uuid> {
        match self {
            Self::Deposit { account, .. } => vec![*account],
            Self::Withdraw { accounts, .. } | Self::Refund { accounts, .. } => accounts.clone(),
        }
    }

    /// The event of each account, in their order, if there is one.
    fn decide(&self, accounts: &[&Account]) -> Result<Vec<Option<Event>>, Short> {
        match self {
            Self::Deposit { amount, .. } => Ok(vec![Some(Event::Deposited { amount: *amount })]),
            Self::Withdraw { accounts: ids, amount, purchase } => {
                let is_new = |account: &Account| !account.purchases.contains_key(purchase);
                let short = ids.iter().zip(accounts).filter(|(_, a)| is_new(a) && a.balance < *amount);
                let short: Short = short.map(|(id, account)| (*id, account.balance)).collect();
                if !short.is_empty() {
                    return Err(short);
                }
                let event = |_| Event::Withdrawn { amount: *amount, purchase: *purchase };
                Ok(accounts.iter().map(|account| is_new(account).then_some(()).map(event)).collect())
            }
            Self::Refund { purchase, .. } => {
                let is_due = |account: &Account| account.purchases.get(purchase) != Some(&0);
                let event = |_| Event::Refunded { purchase: *purchase };
                Ok(accounts.iter().map(|account| is_due(account).then_some(()).map(event)).collect())
            }
        }
    }
}

pub(crate) fn account(id: Uuid) -> StreamId {
    StreamId { category: CATEGORIES[0], id }
}

fn encode(event: &Event) -> NewEvent {
    let event_type = match event {
        Event::Deposited { .. } => "Deposited",
        Event::Withdrawn { .. } => "Withdrawn",
        Event::Refunded { .. } => "Refunded",
    };
    let payload = serde_json::to_string(event).unwrap();
    NewEvent { event_type: event_type.into(), schema_version: 1, payload: payload.into() }
}

/// The balance of an account after each of its events, as the log has them.
pub(crate) async fn balances(log: &Log, id: Uuid) -> Vec<i64> {
    let mut state = Account::default();
    let events = log.read_stream(account(id), 0, 100_000).await.unwrap();
    let balance = |event: RecordedEvent| {
        state.apply(&serde_json::from_str(&event.payload).unwrap());
        state.balance
    };
    events.into_iter().map(balance).collect()
}

/// What a command is answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// The accounts that it changed, with the versions that they came to.
    Recorded {
        position: i64,
        versions: Vec<(Uuid, Version)>,
    },
    /// All of it was so already: its accounts, with their versions.
    Unchanged {
        versions: Vec<(Uuid, Version)>,
    },
    Short(Short),
    /// Its id was used for another command.
    IdSpent,
}

/// The command may have been recorded or not.
#[derive(Debug)]
pub(crate) struct Unavailable;

/// How often a command is decided again because another process was faster.
const ATTEMPTS: usize = 32;
/// After how many events a snapshot is written.
const SNAPSHOT_AFTER: usize = 500;

/// A process of the bank. Clones share its cache and its connections.
#[derive(Clone)]
pub(crate) struct Bank {
    log: Log,
    appender: Appender,
    loader: Loader,
    cache: Arc<Mutex<HashMap<Uuid, Arc<TurnMutex<Cached>>>>>,
}

/// An account as this process believes it to be: also with what it has submitted and the log has not written yet.
#[derive(Default)]
struct Cached {
    state: Option<(Account, Version)>,
    speculation: Speculation,
}

/// An account, while a command decides on it. Other commands of the process wait.
type Turn = OwnedMutexGuard<Cached>;

fn state(turn: &Turn) -> &(Account, Version) {
    turn.state.as_ref().expect("it is loaded before it is handed out")
}

impl Bank {
    /// `snapshot_version` says which code has made a snapshot.
    pub(crate) fn start(url: &str, snapshot_version: i64) -> Self {
        let log = Log::new(connect::pool(url, Role::Read, 4).unwrap(), CATEGORIES);
        let appender = Appender::start(url).unwrap();
        let loader = Loader::start(url, snapshot_version, appender.history()).unwrap();
        Self { log, appender, loader, cache: Arc::default() }
    }

    /// Decides and records the command, once for its id.
    pub(crate) async fn execute(&self, command_id: Uuid, command: &Command) -> Result<Answer, Unavailable> {
        let fingerprint = Fingerprint::of(&serde_json::to_vec(command).unwrap());
        let mut log_lock = None;
        for attempt in 1..=ATTEMPTS {
            let mut turns = self.turns(command).await?;
            let states: Vec<&Account> = turns.iter().map(|(_, turn)| &state(turn).0).collect();
            let decided = command.decide(&states);
            let events = decided.clone().unwrap_or_else(|_| vec![None; turns.len()]);
            let is_empty = events.iter().all(Option::is_none);
            // Also an answer that writes nothing rests on states that may have passed: the log confirms them.
            let mut append = append_as(command_id, vec![]);
            append.metadata.fingerprint = fingerprint;
            for ((id, turn), event) in turns.iter().zip(&events) {
                let expected = match state(turn).1 {
                    0 => ExpectedVersion::NoStream,
                    version => ExpectedVersion::Exact(version),
                };
                let events = event.iter().map(encode).collect();
                append.streams.push(StreamAppend { stream: account(*id), expected, events });
            }
            let speculations = turns.iter().map(|(_, turn)| turn.speculation.clone()).collect();
            let submitted = self.appender.submit(append, speculations).await;
            let mut versions = Vec::new();
            for ((id, turn), event) in turns.iter_mut().zip(&events) {
                let (account, version) = turn.state.as_mut().expect("it is loaded");
                if let (Some(event), Ok(_)) = (event, &submitted) {
                    // The next command goes on from what this one is to write.
                    account.apply(event);
                    *version += 1;
                }
                if event.is_some() || is_empty {
                    versions.push((*id, *version));
                }
            }
            drop((turns, log_lock.take()));
            let appended = match submitted {
                Ok(submitted) => submitted.written().await,
                Err(e) => Err(e),
            };
            match appended {
                Ok(appended) if !is_empty => return Ok(Answer::Recorded { position: appended.position, versions }),
                Ok(_) => {
                    let recorded = self.recorded(command_id, fingerprint).await?;
                    let found = decided.map_or_else(Answer::Short, |_| Answer::Unchanged { versions });
                    return Ok(recorded.unwrap_or(found));
                }
                Err(AppendError::AlreadyRecorded { .. }) => {
                    return Ok(self.recorded(command_id, fingerprint).await?.unwrap_or(Answer::IdSpent));
                }
                Err(AppendError::VersionConflict { .. } | AppendError::DependencyAborted) => {
                    // Or what was before it had been recorded already, and so may it itself.
                    if attempt > 1
                        && let Some(recorded) = self.recorded(command_id, fingerprint).await?
                    {
                        return Ok(recorded);
                    }
                    log_lock = self.appender.lock_log().await.ok();
                }
                Err(AppendError::Unavailable(_)) => return Err(Unavailable),
                Err(other) => panic!("{other}"),
            }
        }
        panic!("{ATTEMPTS} attempts, and another process was faster each time")
    }

    /// What an earlier sending of the command was answered, if the log has events of it.
    async fn recorded(&self, command_id: Uuid, fingerprint: Fingerprint) -> Result<Option<Answer>, Unavailable> {
        let events = self.log.read_command(command_id).await.map_err(|e| unavailable(&e))?;
        let Some(last) = events.last() else { return Ok(None) };
        if last.metadata.fingerprint != fingerprint {
            return Ok(Some(Answer::IdSpent));
        }
        let versions = events.iter().map(|event| (event.stream.id, event.version)).collect();
        Ok(Some(Answer::Recorded { position: last.position, versions }))
    }

    /// The accounts of the command, in its order. They are waited for in one order by all, so that no two commands wait
    /// for each other.
    async fn turns(&self, command: &Command) -> Result<Vec<(Uuid, Turn)>, Unavailable> {
        let ids = command.accounts();
        let mut in_order = ids.clone();
        in_order.sort_unstable();
        let mut turns = HashMap::new();
        for id in in_order {
            turns.insert(id, self.turn(id).await?);
        }
        Ok(ids.into_iter().map(|id| (id, turns.remove(&id).expect("each is there once"))).collect())
    }

    async fn turn(&self, id: Uuid) -> Result<Turn, Unavailable> {
        let cached = self.cache.lock().unwrap().entry(id).or_default().clone();
        let mut turn = cached.lock_owned().await;
        if turn.speculation.is_aborted() {
            *turn = Cached::default();
        }
        if turn.state.is_none() {
            *turn = self.load(id).await.map_err(|e| unavailable(&e))?;
        }
        Ok(turn)
    }

    async fn load(&self, id: Uuid) -> Result<Cached, ReadError> {
        loop {
            let mut loaded = self.loader.load(account(id), None).await?;
            let (mut state, mut version) = (Account::default(), 0);
            if let Some(snapshot) = loaded.snapshot.take() {
                match serde_json::from_str(&snapshot.state) {
                    Ok(kept) => (state, version) = (kept, snapshot.version),
                    // It is for speed alone.
                    Err(_) => loaded = self.loader.load(account(id), Some(0)).await?,
                }
            }
            if let Some(cached) = self.fold(id, state, version, loaded).await? {
                return Ok(cached);
            }
        }
    }

    /// Folds what was loaded, and what follows it; `None` if that is not all of one history.
    async fn fold(
        &self,
        id: Uuid,
        mut state: Account,
        mut version: Version,
        mut loaded: Loaded,
    ) -> Result<Option<Cached>, ReadError> {
        let branch = loaded.branch.clone();
        let mut after_snapshot = 0;
        loop {
            if branch.is_lost() || !loaded.branch.is_same(&branch) {
                return Ok(None);
            }
            after_snapshot += loaded.events.len();
            for event in &loaded.events {
                state.apply(&serde_json::from_str(&event.payload).expect("an event of the bank"));
                version = event.version;
            }
            if let Some(last) = loaded.events.last().filter(|_| after_snapshot >= SNAPSHOT_AFTER) {
                let state = serde_json::to_string(&state).unwrap();
                self.loader.save_snapshot(
                    account(id),
                    Snapshot { position: last.position, version, state },
                    branch.clone(),
                );
                after_snapshot = 0;
            }
            if !loaded.more {
                return Ok(Some(Cached { state: Some((state, version)), speculation: Speculation::on(branch) }));
            }
            loaded = self.loader.load(account(id), Some(version)).await?;
        }
    }
}

fn unavailable(error: &ReadError) -> Unavailable {
    match error.failure() {
        daybook_store::Failure::Passing => Unavailable,
        _ => panic!("{error}"),
    }
}

pub(crate) fn deposit(account: Uuid, amount: i64) -> (Uuid, Command) {
    (Uuid::now_v7(), Command::Deposit { account, amount })
}

pub(crate) fn withdraw(accounts: &[Uuid], amount: i64, purchase: Uuid) -> (Uuid, Command) {
    (Uuid::now_v7(), Command::Withdraw { accounts: accounts.to_vec(), amount, purchase })
}
