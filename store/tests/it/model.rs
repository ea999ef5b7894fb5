//! The log against a model of it: whatever is appended, by whichever of two processes and however many at once, each
//! append comes to what the model says, and the log holds what the model holds. Invariants 2, 4, 5, 6 and 8.

use crate::bank::CATEGORIES;
use crate::harness::{append_as, database, event, id, stream};
use chrono::{DateTime, Utc};
use daybook_store::ExpectedVersion::{Any, Exact, Exists, NoStream};
use daybook_store::connect::{self, Role};
use daybook_store::{
    Append, AppendError, Appended, Appender, Chain, ExpectedVersion, Log, Metadata, Position, RecordedEvent,
    Speculation, StreamAppend, StreamId, Version, event_id,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use sqlx::{PgPool, query};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// An append, with small numbers in place of ids.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    pub(crate) command: u64,
    pub(crate) streams: Vec<Write>,
    pub(crate) flaw: Option<Flaw>,
    /// It was decided on what the speculative ones before it are to write, in one batch.
    pub(crate) speculative: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Write {
    pub(crate) stream: u64,
    pub(crate) expected: ExpectedVersion,
    pub(crate) events: u64,
}

/// What can never be written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flaw {
    LargePayload,
    NoJson,
    Nul,
    DeepPayload,
    ManyEvents,
    NoStream,
    StreamTwice,
    BlankActor,
}

/// What came of an append.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Written { position: Position, versions: Vec<Version> },
    Conflict { stream: u64, expected: ExpectedVersion, actual: Version },
    Spent { position: Position },
    DependencyAborted,
    Refused,
}

/// The log, in memory, from its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Model {
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    pub(crate) stream: u64,
    pub(crate) version: Version,
    pub(crate) command: u64,
    /// Its place among the command's events.
    pub(crate) index: u64,
}

impl Model {
    pub(crate) fn version(&self, stream: u64) -> Version {
        self.events.iter().filter(|e| e.stream == stream).count() as Version
    }

    fn head(&self) -> Position {
        self.events.len() as Position
    }

    /// Writes it if all that it expects is so, one append after the other.
    pub(crate) fn append(&mut self, append: &Try) -> Outcome {
        let no_version = |w: &Write| matches!(w.expected, Exact(version) if !(0..1 << 62).contains(&version));
        if append.flaw.is_some() || append.streams.iter().any(no_version) {
            return Outcome::Refused;
        }
        let writes = append.streams.iter().any(|w| w.events > 0);
        if let Some(first) = self.events.iter().position(|e| writes && e.command == append.command) {
            return Outcome::Spent { position: first as Position + 1 };
        }
        // What is expected without being written is looked at first.
        let (told, looked_at): (Vec<&Write>, Vec<&Write>) =
            append.streams.iter().partition(|w| w.events > 0 && w.expected != Exists);
        for Write { stream, expected, .. } in looked_at.into_iter().chain(told) {
            let actual = self.version(*stream);
            let holds = match expected {
                NoStream => actual == 0,
                Exact(version) => actual == *version,
                Exists => actual > 0,
                Any => true,
            };
            if !holds {
                let expected = if *expected == Exact(0) { NoStream } else { *expected };
                return Outcome::Conflict { stream: *stream, expected, actual };
            }
        }
        let mut index = 0;
        for Write { stream, events, .. } in &append.streams {
            for version in (self.version(*stream) + 1..).take(*events as usize) {
                self.events.push(Event { stream: *stream, version, command: append.command, index });
                index += 1;
            }
        }
        let version = |w: &Write| match (w.events, w.expected) {
            // Nobody looks where a stream ends that is not written and not expected to be at one version.
            (0, Any | Exists) => 0,
            _ => self.version(w.stream),
        };
        Outcome::Written { position: self.head(), versions: append.streams.iter().map(version).collect() }
    }
}

/// Where on a real log a model is played: after what is there, under ids of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    number: u64,
    pub(crate) start: Position,
}

impl Place {
    pub(crate) async fn after(log: &Log) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), start: log.head().await.unwrap() }
    }

    fn id(self, n: u64) -> u128 {
        u128::from(self.number) << 64 | u128::from(n)
    }

    pub(crate) fn append(self, append: &Try) -> Append {
        let mut indexes = 0..;
        let to = |w: &Write| {
            let new = |index| event(&payload(append.command, w.stream, index));
            let events = indexes.by_ref().take(w.events as usize).map(new).collect();
            StreamAppend { stream: self.stream(w.stream), expected: w.expected, events }
        };
        let streams = append.streams.iter().map(to).collect();
        let mut made = append_as(id(self.id(append.command)), streams);
        made.metadata = self.metadata(append.command);
        let mut with = |payload: String| made.streams[0].events.push(event(&payload));
        match append.flaw {
            None => {}
            Some(Flaw::LargePayload) => with(format!("\"{}\"", "x".repeat(128 * 1024))),
            Some(Flaw::NoJson) => with("{\"a\":}".into()),
            Some(Flaw::Nul) => with(r#"{"a":"\u0000"}"#.into()),
            Some(Flaw::DeepPayload) => with("[".repeat(65) + &"]".repeat(65)),
            Some(Flaw::ManyEvents) => (0..1001).for_each(|_| with("{}".into())),
            Some(Flaw::NoStream) => made.streams.clear(),
            Some(Flaw::StreamTwice) => made.streams.push(made.streams[0].clone()),
            Some(Flaw::BlankActor) => made.metadata.actor = " ".into(),
        }
        made
    }

    pub(crate) fn outcome(self, append: &Try, outcome: Result<Appended, AppendError>) -> Outcome {
        match outcome {
            Ok(Appended { position, versions, .. }) => Outcome::Written { position: position - self.start, versions },
            Err(AppendError::VersionConflict { stream: conflicting, expected, actual }) => {
                let is = |w: &&Write| self.stream(w.stream) == conflicting;
                let stream = append.streams.iter().find(is).expect("a stream of the append").stream;
                Outcome::Conflict { stream, expected, actual }
            }
            Err(AppendError::AlreadyRecorded { position }) => Outcome::Spent { position: position - self.start },
            Err(AppendError::DependencyAborted) => Outcome::DependencyAborted,
            Err(AppendError::Refused(_)) => Outcome::Refused,
            Err(other) => panic!("{other:?}"),
        }
    }

    pub(crate) fn stream(self, n: u64) -> StreamId {
        stream(self.id(n))
    }

    fn metadata(self, command: u64) -> Metadata {
        let occurred_at = DateTime::from_timestamp_micros(1_500_000_000_000_000 + command as i64).unwrap();
        Metadata { occurred_at, ..append_as(id(self.id(command)), vec![]).metadata }
    }

    /// What the model knows of a recorded event.
    pub(crate) fn event(self, recorded: &RecordedEvent) -> (Position, Event) {
        let RecordedEvent { position, stream, version, event_id: id, metadata, .. } = recorded;
        let number = |id: Uuid| id.as_u128() as u64;
        let index = (0..).find(|index| event_id(metadata.command_id, *index) == *id).expect("one of them");
        let (stream, command, index) = (number(stream.id), number(metadata.command_id), index as u64);
        (position - self.start, Event { stream, version: *version, command, index })
    }

    /// The event at `position` of the model, as the log has it.
    fn recorded(self, position: Position, event: &Event, recorded_at: DateTime<Utc>) -> RecordedEvent {
        let metadata = self.metadata(event.command);
        RecordedEvent {
            position: self.start + position,
            stream: self.stream(event.stream),
            version: event.version,
            event_id: event_id(metadata.command_id, event.index as usize),
            event_type: "Tested".into(),
            schema_version: 1,
            recorded_at,
            metadata,
            payload: payload(event.command, event.stream, event.index).into(),
            link: None,
        }
    }
}

/// A command's event; some so large that a group of them is full before it is long.
fn payload(command: u64, stream: u64, index: u64) -> String {
    let padding = if (command + stream).is_multiple_of(97) { 60_000 } else { 0 };
    format!(r#"{{ "command": {command}, "stream":{stream},"index":{index},"padding":"{}" }}"#, "é".repeat(padding))
}

/// What a transition asks for, of whichever state it finds.
#[derive(Debug, Clone)]
struct Wish {
    /// A stream, what is expected of it, how many events.
    streams: Vec<(u64, Hope, u64)>,
    /// One of the commands before, if there are any.
    again: Option<Index>,
    flaw: Option<Flaw>,
    /// Then it expects what those in its speculations are to write, whatever was hoped.
    speculative: bool,
}

#[derive(Debug, Clone, Copy)]
enum Hope {
    Right,
    Off(i64),
    Beyond,
    Is(ExpectedVersion),
}

const STREAMS: u64 = 4;

fn any_wish() -> impl Strategy<Value = Wish> {
    let hope = prop_oneof![
        8 => Just(Hope::Right),
        2 => select(vec![-2, -1, 0, 1, 7]).prop_map(Hope::Off),
        2 => select(vec![NoStream, Exists, Any]).prop_map(Hope::Is),
        1 => Just(Hope::Beyond),
    ];
    let events = prop_oneof![1 => Just(0_u64), 6 => 1..4_u64];
    let streams = prop::collection::vec((0..STREAMS, hope, events), 1..4);
    let flaws = vec![
        Flaw::LargePayload,
        Flaw::NoJson,
        Flaw::Nul,
        Flaw::DeepPayload,
        Flaw::ManyEvents,
        Flaw::NoStream,
        Flaw::StreamTwice,
        Flaw::BlankActor,
    ];
    let (again, flaw) = (any::<Index>(), select(flaws));
    let (again, flaw) = (prop::option::weighted(0.15, again), prop::option::weighted(0.05, flaw));
    (streams, again, flaw, prop::bool::weighted(0.6)).prop_map(|(mut streams, again, flaw, speculative)| {
        let mut seen = BTreeSet::new();
        streams.retain(|(stream, ..)| seen.insert(*stream));
        Wish { streams, again, flaw, speculative }
    })
}

impl Wish {
    /// What it is in this state, where the speculative ones before it are believed to have taken the streams to these
    /// versions.
    fn of(self, state: &State, believed: &mut BTreeMap<u64, Version>) -> Try {
        let exactly = |version| if version == 0 { NoStream } else { Exact(version) };
        let mut write = |(stream, hope, events)| {
            let version = state.model.version(stream);
            let expected = match hope {
                _ if self.speculative => {
                    let believed = believed.entry(stream).or_insert(version);
                    let expected = exactly(*believed);
                    *believed += if self.flaw.is_none() { events as Version } else { 0 };
                    expected
                }
                Hope::Right => exactly(version),
                Hope::Off(by) => Exact(version + by),
                Hope::Beyond => Exact(Version::MAX),
                Hope::Is(expected) => expected,
            };
            Write { stream, expected, events }
        };
        let streams = self.streams.into_iter().map(&mut write).collect();
        let again = self.again.filter(|_| state.commands > 0).map(|index| index.index(state.commands as usize) as u64);
        Try { command: again.unwrap_or(state.commands), streams, flaw: self.flaw, speculative: self.speculative }
    }
}

#[derive(Debug, Clone, Default)]
struct State {
    model: Model,
    /// How many commands there were, whatever came of them.
    commands: u64,
    /// What the appends of the last transition come to.
    outcomes: Vec<Outcome>,
    /// The streams whose speculation was aborted in the last transition.
    broken: BTreeSet<u64>,
}

impl State {
    fn append(&mut self, append: &Try) {
        self.commands = self.commands.max(append.command + 1);
        let lost_its_dependency = append.speculative && append.streams.iter().any(|w| self.broken.contains(&w.stream));
        let outcome = match append.flaw {
            // That is seen at once.
            None if lost_its_dependency => Outcome::DependencyAborted,
            _ => self.model.append(append),
        };
        if append.speculative && !matches!(outcome, Outcome::Written { .. } | Outcome::Refused) {
            let is_behind = |w: &Write| matches!(outcome, Outcome::Conflict { stream, .. } if stream == w.stream);
            let broken = append.streams.iter().filter(|w| w.events > 0 || is_behind(w));
            self.broken.extend(broken.map(|w| w.stream));
        }
        self.outcomes.push(outcome);
    }
}

/// What one of the two processes does.
#[derive(Debug, Clone)]
enum Transition {
    /// All are submitted before any is answered.
    Append { process: usize, appends: Vec<Try> },
    /// The same, while it has locked the log.
    AppendLocked { process: usize, appends: Vec<Try> },
    /// Postgres ends the connections of both.
    Disconnect,
}

struct Machine;

impl ReferenceStateMachine for Machine {
    type State = State;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<State> {
        Just(State::default()).boxed()
    }

    /// An append mostly expects what is so after those before it.
    fn transitions(state: &State) -> BoxedStrategy<Transition> {
        let state = state.clone();
        // More than a group holds are rare.
        let many = prop_oneof![40 => 1..=8_usize, 1 => 257..=300_usize];
        let wishes = many.prop_flat_map(|many| prop::collection::vec(any_wish(), many));
        let stale = prop::option::weighted(0.2, 0..STREAMS);
        let appends = move |(wishes, stale): (Vec<Wish>, Option<u64>)| {
            let mut state = State { broken: BTreeSet::new(), ..state.clone() };
            // Another process may have been faster than the first of a speculation.
            let behind = |stream: u64| (stream, (state.model.version(stream) - 1).max(0));
            let mut believed = stale.into_iter().map(behind).collect();
            let mut append = |wish: Wish| {
                let append = wish.of(&state, &mut believed);
                state.append(&append);
                append
            };
            wishes.into_iter().map(&mut append).collect::<Vec<Try>>()
        };
        prop_oneof![
            8 => (0..2_usize, (wishes.clone(), stale.clone()).prop_map(appends.clone()))
                .prop_map(|(process, appends)| Transition::Append { process, appends }),
            2 => (0..2_usize, (wishes, stale).prop_map(appends))
                .prop_map(|(process, appends)| Transition::AppendLocked { process, appends }),
            1 => Just(Transition::Disconnect),
        ]
        .boxed()
    }

    /// Nobody believes of a stream what is not in the log nor to be written by those before.
    fn preconditions(state: &State, transition: &Transition) -> bool {
        let (Transition::Append { appends, .. } | Transition::AppendLocked { appends, .. }) = transition else {
            return true;
        };
        let mut believed = BTreeMap::new();
        appends.iter().filter(|append| append.speculative && append.flaw.is_none()).flat_map(|a| &a.streams).all(|w| {
            let expected = if let Exact(version) = w.expected { version } else { 0 };
            let after = expected + w.events as Version;
            match believed.insert(w.stream, after) {
                None => expected <= state.model.version(w.stream),
                Some(before) => before == expected,
            }
        })
    }

    fn apply(mut state: State, transition: &Transition) -> State {
        state.outcomes.clear();
        state.broken.clear();
        match transition {
            Transition::Append { appends, .. } | Transition::AppendLocked { appends, .. } => {
                appends.iter().for_each(|append| state.append(append));
            }
            Transition::Disconnect => {}
        }
        state
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The real log, and two processes that have just been started.
struct System {
    log: Log,
    superuser: PgPool,
    appenders: [Appender; 2],
    place: Place,
}

impl System {
    /// On one database for all runs: it is as good as a new one from where it ends.
    async fn start() -> Self {
        static DATABASE: OnceCell<(String, Log, PgPool)> = OnceCell::const_new();
        let new = async || {
            let url = database().await;
            let log = Log::new(connect::pool(&url, Role::Read, 1).unwrap(), CATEGORIES);
            let superuser = PgPool::connect(&url).await.unwrap();
            (url, log, superuser)
        };
        let (url, log, superuser) = DATABASE.get_or_init(new).await.clone();
        let appenders = [Appender::start(&url).unwrap(), Appender::start(&url).unwrap()];
        Self { place: Place::after(&log).await, log, superuser, appenders }
    }

    async fn append(&self, process: usize, appends: &[Try], locked: bool) -> Vec<Outcome> {
        let appender = &self.appenders[process];
        // On a connection that was ended it does not come about; then it is done without.
        let lock = if locked { appender.lock_log().await.ok() } else { None };
        let mut speculations: BTreeMap<u64, Speculation> = BTreeMap::new();
        let mut submitted = Vec::new();
        for append in appends {
            let of = |w: &Write| speculations.entry(w.stream).or_default().clone();
            let speculations = if append.speculative { append.streams.iter().map(of).collect() } else { vec![] };
            submitted.push(appender.submit(self.place.append(append), speculations).await);
        }
        drop(lock);
        let mut outcomes = Vec::new();
        for (append, submitted) in appends.iter().zip(submitted) {
            let outcome = match submitted {
                Ok(submitted) => submitted.written().await,
                Err(e) => Err(e),
            };
            outcomes.push(self.place.outcome(append, outcome));
        }
        outcomes
    }

    async fn disconnect(&self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'daybook_append'";
        while query(end).execute(&self.superuser).await.unwrap().rows_affected() > 0 {}
    }

    /// The log has what the model has, and nothing else.
    async fn assert_is(&self, model: &Model) {
        let all = self.log.read_all(self.place.start, 100_000).await.unwrap();
        assert_eq!(all.len(), model.events.len());
        for ((position, event), recorded) in (1..).zip(&model.events).zip(&all) {
            let known = RecordedEvent { link: None, ..recorded.clone() };
            assert_eq!(known, self.place.recorded(position, event, recorded.recorded_at));
        }
        assert!(all.windows(2).all(|pair| pair[0].recorded_at <= pair[1].recorded_at));
        let mut chain = Chain::after(self.log.mark(self.place.start).await.unwrap().expect("the end of a group"));
        assert!(
            all.iter().map(|event| chain.advance(event).unwrap()).last().unwrap_or(true),
            "the last group is complete"
        );
    }
}

impl StateMachineTest for System {
    type SystemUnderTest = Self;
    type Reference = Machine;

    fn init_test(_: &State) -> Self {
        RUNTIME.block_on(Self::start())
    }

    fn apply(system: Self, state: &State, transition: Transition) -> Self {
        RUNTIME.block_on(async {
            let (outcomes, appends) = match &transition {
                Transition::Append { process, appends } => {
                    (system.append(*process, appends, false).await, &appends[..])
                }
                Transition::AppendLocked { process, appends } => {
                    (system.append(*process, appends, true).await, &appends[..])
                }
                Transition::Disconnect => {
                    system.disconnect().await;
                    (vec![], &[][..])
                }
            };
            for ((outcome, expected), append) in outcomes.iter().zip(&state.outcomes).zip(appends) {
                assert_eq!(outcome, expected, "{append:?}");
            }
            system.assert_is(&state.model).await;
        });
        system
    }

    /// Each way to read says the same.
    fn teardown(system: Self, State { model, .. }: State) {
        let Self { log, place, .. } = system;
        RUNTIME.block_on(async {
            assert_eq!(log.head().await.unwrap(), place.start + model.head());
            let all = log.read_all(place.start, 100_000).await.unwrap();
            let of = |is: &dyn Fn(&RecordedEvent) -> bool| all.iter().filter(|e| is(e)).cloned().collect::<Vec<_>>();
            for stream in (0..STREAMS).map(|n| place.stream(n)) {
                assert_eq!(log.read_stream(stream, 0, 100_000).await.unwrap(), of(&|e| e.stream == stream));
                assert_eq!(
                    log.read_stream(stream, 2, 3).await.unwrap(),
                    of(&|e| e.stream == stream && (3..6).contains(&e.version))
                );
            }
            for command in model.events.iter().map(|e| id(place.id(e.command))).take(10) {
                assert_eq!(log.read_command(command).await.unwrap(), of(&|e| e.metadata.command_id == command));
            }
            let mut scan = log.scan(place.start, place.start + model.head());
            let mut scanned = Vec::new();
            while let Some(page) = scan.next().await.unwrap() {
                scanned.extend(page.events);
            }
            assert_eq!(scanned, all);
        });
    }
}

/// How many runs there are: `PROPTEST_CASES`, if that is set.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

prop_state_machine! {
    #![proptest_config(Config { cases: cases(), failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_append_comes_to_what_a_model_says(sequential 1..16 => System);
}
