//! Another history of the log, under services that go on: the database goes back to an earlier state, and other events are
//! recorded. The connections of the services survive that, as they do behind a pooler. In the end, whatever else happened,
//! nothing of a lost history is in the rows, and what was done outside in its name is listed.

use crate::binary::until;
use crate::harness::{System, appenders_waiting, database, envelope, executor, new_order, order_of, receipt, sender};
use async_nats::HeaderMap;
use chrono::{DateTime, Utc};
use dev::provider;
use engine::codec::{self, Stored};
use engine::follow_up::{self, follow_up_id};
use order_services::notifier;
use order_services::policy::Timeouts;
use order_services::{Envelope, ExecuteError, Executor};
use order_views::Orders;
use order_views::Projection;
use order_views::{CATEGORIES, stream as stream_of};
use orders::id::{OrderId, Sku, StockId};
use orders::order::CancelReason;
use orders::reaction::{Act as Effect, Operation, react};
use orders::stock::{self, AdjustReason, Stock};
use orders::{Aggregate, Command, Rejection, order};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as Cases, TestRunner};
use runtime::executor::Outcome as Executed;
use runtime::feed::Feed;
use runtime::message;
use runtime::process::jetstream;
use runtime::projector::Projector;
use runtime::relay::{Relay, RelayError};
use runtime::step::{Outcome, Step};
use runtime::subject;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row, Transaction, query_as, query_scalar};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::connect::{self, Role};
use store::{Position, Seen, StreamId, checkpoint};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

const SKUS: [&str; 2] = ["mug", "hat"];
/// How long a feed is waited for in the middle of a case. Then its step is given up, as a loop's deadline does it.
const MOMENT: Duration = Duration::from_millis(40);
/// After how many rounds the system must have come to rest.
const ROUNDS: usize = 60;

/// What can happen. Of two executors, relays and sets of projectors, a number says which.
#[derive(Debug, Clone)]
enum Act {
    Receive(usize, usize, u32),
    /// Pieces are found to be missing.
    Remove(usize, usize, u32),
    Place(usize, usize, u32),
    Cancel(usize, Index),
    Dispatch(usize, Index),
    /// An earlier command comes again, with its id and body; its client does not know what became of it.
    Resend(usize, Index),
    /// Both executors write to one stream at once.
    Race(usize),
    Relay(usize),
    /// Somebody runs `daybook reconcile`, needed or not.
    Reconcile,
    Feed(usize),
    Project(usize),
    Send,
    /// All services go on for a while, these projectors among them.
    Run(usize, usize),
    /// All leases run out: who is stepped next takes over, and the owner before does not know yet.
    Expire,
    Save,
    /// The database goes back to what was saved.
    Fork(Index),
    /// The same while all services are in the middle of something.
    ForkUnder(Index),
    RestartExecutor(usize),
    RestartRelay(usize),
    /// The feed begins again, up to so far back: what was delivered is delivered again.
    RestartProjectors(usize, Index),
    RestartSender,
    Wipe,
}

fn act() -> impl Strategy<Value = Act> {
    let two = || 0..2usize;
    let index = any::<Index>;
    prop_oneof![
        4 => (two(), two(), 1..9u32).prop_map(|(who, sku, pieces)| Act::Receive(who, sku, pieces)),
        2 => (two(), two(), 1..6u32).prop_map(|(who, sku, pieces)| Act::Remove(who, sku, pieces)),
        4 => (two(), two(), 1..3u32).prop_map(|(who, sku, pieces)| Act::Place(who, sku, pieces)),
        1 => (two(), index()).prop_map(|(who, order)| Act::Cancel(who, order)),
        2 => (two(), index()).prop_map(|(who, order)| Act::Dispatch(who, order)),
        3 => (two(), index()).prop_map(|(who, command)| Act::Resend(who, command)),
        1 => two().prop_map(Act::Race),
        2 => two().prop_map(Act::Relay),
        1 => Just(Act::Reconcile),
        1 => two().prop_map(Act::Feed),
        2 => two().prop_map(Act::Project),
        2 => Just(Act::Send),
        5 => (two(), 1..4usize).prop_map(|(set, rounds)| Act::Run(set, rounds)),
        1 => Just(Act::Expire),
        3 => Just(Act::Save),
        4 => index().prop_map(Act::Fork),
        2 => index().prop_map(Act::ForkUnder),
        1 => two().prop_map(Act::RestartExecutor),
        1 => two().prop_map(Act::RestartRelay),
        1 => (two(), index()).prop_map(|(set, back)| Act::RestartProjectors(set, back)),
        1 => Just(Act::RestartSender),
        1 => Just(Act::Wipe),
    ]
}

/// An event of any history.
#[derive(Debug, Clone)]
struct Event {
    position: Position,
    event_id: Uuid,
    recorded_at: DateTime<Utc>,
    causation_id: Option<Uuid>,
    event: orders::Event,
}

impl Event {
    /// Ids and positions survive a fork; together with the time, they tell events apart.
    fn key(&self) -> (Position, Uuid, DateTime<Utc>) {
        (self.position, self.event_id, self.recorded_at)
    }

    fn of(record: store::RecordedEvent) -> Self {
        let recorded = codec::decode::<Orders>(record).unwrap();
        let (record, event) = (recorded.record, recorded.event);
        let (position, event_id, recorded_at) = (record.position, record.event_id, record.recorded_at);
        Self { position, event_id, recorded_at, causation_id: record.metadata.causation_id, event }
    }
}

/// The events that are in a table like the log.
async fn events_in(connection: &mut PgConnection, table: &str) -> Vec<Event> {
    let select = format!(
        "SELECT position, event_id, recorded_at, causation_id, category, stream_id, event_type, schema_version,
                payload::text AS payload
         FROM {table} ORDER BY position"
    );
    let rows = sqlx::query(AssertSqlSafe(select)).fetch_all(connection).await.unwrap();
    let event = |row: sqlx::postgres::PgRow| {
        let (position, id, event_type, payload): (i64, i16, String, String) =
            (row.get("position"), row.get("category"), row.get("event_type"), row.get("payload"));
        let category = *CATEGORIES.iter().find(|category| category.id == id).unwrap();
        let stream = StreamId { category, id: row.get("stream_id") };
        let schema_version = row.get("schema_version");
        let stored = Stored { position, stream, event_type: &event_type, schema_version, payload: &payload };
        Event {
            position,
            event_id: row.get("event_id"),
            recorded_at: row.get("recorded_at"),
            causation_id: row.get("causation_id"),
            event: codec::decode_stored::<Orders>(stored).unwrap(),
        }
    };
    rows.into_iter().map(event).collect()
}

/// What is kept of lost histories.
async fn lost_events(connection: &mut PgConnection) -> Vec<Event> {
    let rows =
        sqlx::query_as("SELECT subject, headers::text, payload FROM daybook.lost_events ORDER BY epoch, position");
    let rows: Vec<(String, String, Vec<u8>)> = rows.fetch_all(connection).await.unwrap();
    let event = |(subject, headers, payload): (String, String, Vec<u8>)| {
        let told: BTreeMap<String, Vec<String>> = serde_json::from_str(&headers).unwrap();
        let mut headers = HeaderMap::new();
        for (name, values) in &told {
            values.iter().for_each(|value| headers.append(&**name, &**value));
        }
        Event::of(message::recorded(CATEGORIES, &subject, &headers, payload.into()).unwrap())
    };
    rows.into_iter().map(event).collect()
}

/// The processes that project: a feed, and a projector for each projection.
struct Projecting {
    feed: Feed<Orders>,
    projectors: Vec<Projector<Orders>>,
}

/// An earlier state of the database: all of it, as a restore puts it back.
#[derive(Debug, Clone)]
struct Copy {
    schema: String,
    acknowledged: Vec<(Uuid, Position)>,
}

/// Services, the database and what has become of both.
struct World {
    system: System,
    superuser: PgPool,
    /// The provider and the notifier keep their books elsewhere: nothing takes these back.
    books: PgPool,
    executors: [Executor; 2],
    relays: [Relay; 2],
    /// Kept: the relays wait on their other ends.
    _hints: Vec<watch::Sender<i64>>,
    sets: [Projecting; 2],
    copies: Vec<Copy>,
    sent: Vec<Envelope>,
    orders: Vec<OrderId>,
    /// The commands that were answered as recorded, with the position, and not lost since.
    acknowledged: Vec<(Uuid, Position)>,
    /// What the log has lost, and the stream had then: it is to be kept.
    distributed: Vec<Event>,
    /// What the log has lost, and the stream did not have, or was wiped before anybody looked.
    unknown: Vec<Event>,
    /// What was ever listed in `lost_events`. (A restore takes that list back as well.)
    listed: Vec<Event>,
}

fn relay(system: &System) -> (Relay, watch::Sender<i64>) {
    let (hint, hinted) = watch::channel(0);
    let parts = &system.parts;
    (Relay::new(parts.log.clone(), parts.project.clone(), jetstream(&parts.client), hinted), hint)
}

/// Without `after`, from where the projections are.
async fn projecting(system: &System, after: Option<Position>) -> Projecting {
    let parts = &system.parts;
    let feed = match after {
        Some(after) => Feed::new(parts.log.clone(), jetstream(&parts.client), after),
        None => parts.feed().await.unwrap(),
    };
    let (owner, written) = (Uuid::now_v7(), Arc::new(Notify::new()));
    let projector =
        |projection| Projector::new(parts.project.clone(), projection, feed.reader(), owner, written.clone());
    let projectors = Projection::all().map(projector).collect();
    Projecting { feed, projectors }
}

impl World {
    async fn start() -> Self {
        let timeouts = Timeouts { longest_wait: Duration::ZERO, ..Timeouts::default() };
        let (mut system, books) = tokio::join!(System::start_at(timeouts), database());
        for service in system.outside.drain(..) {
            service.stop().await;
        }
        let outside = connect::pool(&books, Role::Project, 4).unwrap();
        let client = &system.parts.client;
        system.outside = vec![
            provider::start(client, outside.clone(), Duration::ZERO).await.unwrap(),
            notifier::start(client, outside).await.unwrap(),
        ];
        client.flush().await.unwrap();
        let superuser = system.superuser().await;
        let (relays, hints): (Vec<_>, Vec<_>) = [relay(&system), relay(&system)].into_iter().unzip();
        let Ok(relays) = relays.try_into() else { unreachable!("they are two") };
        let sets = [projecting(&system, None).await, projecting(&system, None).await];
        Self {
            executors: [system.executor.clone(), executor(&system.urls.database_url)],
            books: PgPool::connect(&books).await.unwrap(),
            superuser,
            relays,
            _hints: hints,
            sets,
            system,
            copies: vec![],
            sent: vec![],
            orders: vec![],
            acknowledged: vec![],
            distributed: vec![],
            unknown: vec![],
            listed: vec![],
        }
    }

    async fn head(&self) -> Position {
        self.system.parts.log.head().await.unwrap()
    }

    async fn execute(&mut self, who: usize, envelope: Envelope) -> Result<Executed, ExecuteError> {
        let executed = self.executors[who].execute(&envelope).await;
        self.sent.push(envelope);
        self.note(self.sent.len() - 1, &executed);
        executed
    }

    fn note(&mut self, sent: usize, executed: &Result<Executed, ExecuteError>) {
        let id = self.sent[sent].command_id;
        match executed {
            Ok(executed) if executed.recorded => self.acknowledged.push((id, executed.position)),
            Ok(_) => {}
            Err(ExecuteError::Rejected(_) | ExecuteError::Conflict(_) | ExecuteError::Unavailable(_)) => {}
            Err(
                e @ (ExecuteError::IdSpent
                | ExecuteError::Refused(_)
                | ExecuteError::Broken(_)
                | ExecuteError::Unreadable(_)),
            ) => {
                panic!("{e}: {:?}", self.sent[sent])
            }
        }
    }

    async fn place(&mut self, who: usize, sku: &str, pieces: u32) -> OrderId {
        let id = new_order();
        self.orders.push(id);
        let command = order::Command::Place(order_of(&[(sku, pieces, 1)]));
        _ = self.execute(who, envelope(Uuid::now_v7(), Command::Order { id, command })).await;
        id
    }

    /// Copies all tables, at one moment.
    async fn save(&mut self) -> Copy {
        let schema = format!("copy_{}", self.copies.len());
        let copy = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ;
             CREATE SCHEMA {schema};
             DO $$
             DECLARE
                 copied name;
             BEGIN
                 FOR copied IN SELECT relname FROM pg_class
                               WHERE relnamespace = 'daybook'::regnamespace AND relkind = 'r' LOOP
                     EXECUTE format('CREATE TABLE {schema}.%1$I AS TABLE daybook.%1$I', copied);
                 END LOOP;
             END
             $$;
             COMMIT"
        );
        sqlx::raw_sql(AssertSqlSafe(copy)).execute(&self.superuser).await.unwrap();
        let copy = Copy { schema, acknowledged: self.acknowledged.clone() };
        self.copies.push(copy.clone());
        copy
    }

    /// The database goes back to the copy, at one moment.
    async fn fork(&mut self, copy: &Copy) {
        let (log, listed) = go_back(&self.superuser, copy).await;
        self.forked(copy, log, listed).await;
    }

    /// Notes what was lost: of what the log had, and of what had been listed before.
    async fn forked(&mut self, copy: &Copy, log: Vec<Event>, listed: Vec<Event>) {
        self.acknowledged = copy.acknowledged.clone();
        self.listed.extend(listed);
        let present: HashSet<_> = self.present().await.iter().map(Event::key).collect();
        // What has come back is lost no more. If it is lost again, the stream may have been made anew without it.
        self.distributed.retain(|event| !present.contains(&event.key()));
        let stream = jetstream(&self.system.parts.client).get_stream(subject::STREAM).await.ok();
        for event in log.into_iter().filter(|event| !present.contains(&event.key())) {
            let message = match &stream {
                Some(stream) => stream.get_raw_message(event.position as u64).await.ok(),
                None => None,
            };
            let carried = message
                .and_then(|m| message::recorded(CATEGORIES, &m.subject, &m.headers, m.payload).ok())
                .map(Event::of);
            match carried.is_some_and(|carried| carried.key() == event.key()) {
                true => self.distributed.push(event),
                false => self.unknown.push(event),
            }
        }
    }

    async fn present(&self) -> Vec<Event> {
        events_in(&mut self.superuser.acquire().await.unwrap(), "daybook.events").await
    }

    async fn note_listed(&mut self) {
        self.listed.extend(lost_events(&mut self.superuser.acquire().await.unwrap()).await);
    }

    /// JetStream forgets what nobody has kept yet.
    async fn wipe(&mut self) {
        self.note_listed().await;
        let listed: HashSet<_> = self.listed.iter().map(Event::key).collect();
        let (listed, gone) = std::mem::take(&mut self.distributed).into_iter().partition(|e| listed.contains(&e.key()));
        self.distributed = listed;
        self.unknown.extend::<Vec<_>>(gone);
        _ = jetstream(&self.system.parts.client).delete_stream(subject::STREAM).await;
    }

    /// An operator, in a process of its own.
    async fn reconcile(&self) -> Result<(), RelayError> {
        let (mut relay, _hint) = relay(&self.system);
        relay.reconcile().await.map(drop)
    }

    async fn expire(&self) {
        let expire = "UPDATE daybook.leases SET expires_at = '-infinity'";
        sqlx::query(expire).execute(&self.superuser).await.unwrap();
    }

    /// What goes wrong now is tried again later.
    async fn project(&mut self, set: usize) {
        for projector in &mut self.sets[set].projectors {
            for _ in 0..3 {
                if !matches!(projector.step().await, Ok(Outcome::Worked(_) | Outcome::Again)) {
                    break;
                }
            }
        }
    }

    async fn feed(&mut self, set: usize) {
        _ = tokio::time::timeout(MOMENT, self.sets[set].feed.step()).await;
    }

    async fn send(&mut self) {
        for _ in 0..4 {
            if !matches!(self.system.sender.step().await, Ok(Outcome::Worked(_))) {
                break;
            }
        }
    }

    async fn run(&mut self, set: usize) {
        for relay in &mut self.relays {
            _ = relay.step().await;
        }
        if self.sets[set].feed.position() != self.head().await {
            self.feed(set).await;
        }
        self.project(set).await;
        _ = self.system.sweeper.step().await;
        self.send().await;
    }

    /// All services are in the middle of something.
    async fn fork_under(&mut self, copy: &Copy) {
        let url = self.superuser.clone();
        let (log, listed) = {
            let Self { relays: [one, other], sets: [first, second], system, executors, .. } = self;
            let [a, b] = [receipt("mug", 3), receipt("mug", 4)];
            let running = async {
                tokio::join!(
                    one.step(),
                    other.step(),
                    tokio::time::timeout(MOMENT, first.feed.step()),
                    tokio::time::timeout(MOMENT, second.feed.step()),
                    async {
                        for projector in &mut first.projectors {
                            _ = projector.step().await;
                        }
                    },
                    system.sender.step(),
                    executors[0].execute(&a),
                    executors[1].execute(&b),
                )
            };
            tokio::join!(go_back(&url, copy), running).0
        };
        self.forked(copy, log, listed).await;
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Receive(who, sku, pieces) => _ = self.execute(*who, receipt(SKUS[*sku], *pieces)).await,
            Act::Remove(who, sku, pieces) => _ = self.execute(*who, removal(SKUS[*sku], *pieces)).await,
            Act::Place(who, sku, pieces) => _ = self.place(*who, SKUS[*sku], *pieces).await,
            Act::Cancel(who, index) => {
                if !self.orders.is_empty() {
                    let (id, reason) = (*index.get(&self.orders), CancelReason::CustomerRequest);
                    _ = self.execute(*who, envelope(Uuid::now_v7(), Command::CancelOrder { id, reason })).await;
                }
            }
            Act::Dispatch(who, index) => {
                if !self.orders.is_empty() {
                    for id in self.system.shipments(*index.get(&self.orders)).await {
                        let command = self.system.dispatch(id).await;
                        _ = self.execute(*who, envelope(Uuid::now_v7(), command)).await;
                    }
                }
            }
            Act::Resend(who, index) => {
                if !self.sent.is_empty() {
                    let sent = index.index(self.sent.len());
                    let executed = self.executors[*who].execute(&self.sent[sent]).await;
                    self.note(sent, &executed);
                }
            }
            Act::Race(sku) => {
                let commands = [receipt(SKUS[*sku], 2), removal(SKUS[*sku], 1), receipt(SKUS[*sku], 1)];
                let sent = self.sent.len();
                self.sent.extend(commands);
                let [a, b, c] = [0, 1, 2].map(|n| &self.sent[sent + n]);
                let [one, other] = &self.executors;
                let (a, b, c) = tokio::join!(one.execute(a), other.execute(b), other.execute(c));
                (sent..).zip([a, b, c]).for_each(|(sent, executed)| self.note(sent, &executed));
            }
            Act::Relay(which) => _ = self.relays[*which].step().await,
            Act::Reconcile => _ = self.reconcile().await,
            Act::Feed(set) => self.feed(*set).await,
            Act::Project(set) => self.project(*set).await,
            Act::Send => self.send().await,
            Act::Run(set, rounds) => {
                for _ in 0..*rounds {
                    self.run(*set).await;
                }
            }
            Act::Expire => self.expire().await,
            Act::Save => _ = self.save().await,
            Act::Fork(index) => {
                let copy = index.get(&self.copies).clone();
                self.fork(&copy).await;
            }
            Act::ForkUnder(index) => {
                let copy = index.get(&self.copies).clone();
                self.fork_under(&copy).await;
            }
            Act::RestartExecutor(who) => self.executors[*who] = executor(&self.system.urls.database_url),
            Act::RestartRelay(which) => {
                let (relay, hint) = relay(&self.system);
                self.relays[*which] = relay;
                self._hints.push(hint);
            }
            Act::RestartProjectors(set, back) => {
                let after = back.index(self.head().await as usize + 1) as Position;
                self.sets[*set] = projecting(&self.system, Some(after)).await;
            }
            Act::RestartSender => {
                let parts = &self.system.parts;
                let (pool, client) = (parts.project.clone(), parts.client.clone());
                let (owner, written) = (Uuid::now_v7(), Arc::new(Notify::new()));
                let timeouts = Timeouts { longest_wait: Duration::ZERO, ..Timeouts::default() };
                let executor = executor(&self.system.urls.database_url);
                self.system.sender = sender(pool, executor, client, owner, written, timeouts);
            }
            Act::Wipe => self.wipe().await,
        }
    }

    /// Has one of the relays publish all, or a new one; an operator decides when it asks for that.
    async fn relay_all(&mut self, which: Option<usize>) {
        let (mut another, _hint) = relay(&self.system);
        let mut last = None;
        for _ in 0..ROUNDS {
            let relay = which.map_or(&mut another, |which| &mut self.relays[which]);
            match relay.step().await {
                Ok(Outcome::Idle) => return,
                Ok(Outcome::Worked(_) | Outcome::Again) => {}
                Err(RelayError::Diverged(_)) => self.reconcile().await.unwrap(),
                Err(e) => last = Some(e),
            }
        }
        panic!("the relay {which:?} does not come to an end: {last:?}");
    }

    async fn are_at(&self, head: Position) -> bool {
        checkpoint::live(&self.superuser).await.unwrap().iter().all(|(_, position)| *position == head)
    }

    /// Has the projectors of a set come to the end of the log.
    async fn project_all(&mut self, set: usize) {
        let mut last = None;
        for _ in 0..ROUNDS {
            let head = self.head().await;
            for projector in &mut self.sets[set].projectors {
                loop {
                    match projector.step().await {
                        Ok(Outcome::Worked(_) | Outcome::Again) => {}
                        Ok(Outcome::Idle) => break,
                        Err(e) => {
                            last = Some(e.to_string());
                            break;
                        }
                    }
                }
            }
            if self.are_at(head).await {
                return;
            }
            if let Err(e) = self.sets[set].feed.step().await {
                last = Some(e.to_string());
            }
        }
        let at = checkpoint::live(&self.superuser).await.unwrap();
        panic!("the projectors {set} do not come to {}: {at:?}, {last:?}", self.head().await);
    }

    async fn due(&self) -> i64 {
        let due = "SELECT count(*) FROM daybook.follow_ups WHERE state = 'due'";
        query_scalar(due).fetch_one(&self.superuser).await.unwrap()
    }

    /// Does everything that follows, until nothing more does.
    async fn settle(&mut self, set: usize) {
        self.expire().await;
        for _ in 0..ROUNDS {
            let head = self.head().await;
            for which in [Some(0), Some(1), None] {
                self.relay_all(which).await;
            }
            self.project_all(set).await;
            while self.system.sweeper.step().await.unwrap() != Outcome::Idle {}
            let mut sent = false;
            while self.system.sender.step().await.unwrap() != Outcome::Idle {
                sent = true;
            }
            if !sent && self.due().await == 0 && self.head().await == head {
                return;
            }
        }
        panic!(
            "it does not come to rest: {} follow-ups are due, the log is at {}",
            self.due().await,
            self.head().await
        );
    }

    /// Both sets of projectors have to find out by themselves what became of the log.
    async fn end(&mut self, last: usize) {
        self.settle(1 - last).await;
        self.assert_lawful().await;
        _ = self.execute(last, receipt("mug", 1)).await;
        self.settle(last).await;
        self.assert_lawful().await;
    }

    async fn assert_lawful(&mut self) {
        self.system.assert_verified().await;
        self.note_listed().await;
        let present = self.present().await;

        // What was answered is so.
        for (command, position) in &self.acknowledged {
            let events = self.system.parts.log.read_command(*command).await.unwrap();
            assert_eq!(events.last().map(|event| event.position), Some(*position), "of command {command}");
        }
        // Nothing was decided because of what the log does not have.
        let mut before = HashSet::new();
        for event in &present {
            assert!(
                event.causation_id.is_none_or(|cause| before.contains(&cause)),
                "what {event:?} follows from is not in the log"
            );
            before.insert(event.event_id);
        }
        // What was distributed and lost is listed.
        let is_present: HashSet<_> = present.iter().map(Event::key).collect();
        let is_listed: HashSet<_> = self.listed.iter().map(Event::key).collect();
        for event in self.distributed.iter().filter(|event| !is_present.contains(&event.key())) {
            assert!(is_listed.contains(&event.key()), "it was in the stream, and is lost and not listed: {event:?}");
        }
        // What was done outside follows from what there is, from what is listed, or from what never reached the stream (or
        // was wiped with it): of that, nobody can have a list.
        let mut calls: HashMap<Uuid, Vec<Operation>> = HashMap::new();
        let mut notices = HashSet::new();
        for event in present.iter().chain(&self.listed).chain(&self.unknown) {
            for follow_up in react(&event.event) {
                match follow_up.act {
                    Effect::Provider(call) => calls.entry(call.idempotency_key).or_default().push(call.operation),
                    Effect::Notice(_) => {
                        notices.insert(follow_up_id(event.event_id, follow_up.reaction, follow_up.target));
                    }
                    Effect::Command(_) => {}
                }
            }
        }
        let ledger = "SELECT idempotency_key, operation, amount FROM daybook.provider_ledger";
        let ledger: Vec<(Uuid, String, i64)> = query_as(ledger).fetch_all(&self.books).await.unwrap();
        for (key, operation, amount) in ledger {
            let asked = calls.get(&key).is_some_and(|calls| {
                calls.iter().any(|call| match call {
                    Operation::Authorise { amount: asked, .. } => operation == "authorise" && asked.0 == amount,
                    Operation::Capture { amount: asked, .. } => operation == "capture" && asked.0 == amount,
                    Operation::Refund { amount: asked, .. } => operation == "refund" && asked.0 == amount,
                    Operation::Void => operation == "void",
                    Operation::Lookup { .. } => false,
                })
            });
            assert!(asked, "nothing that there is or is listed asks for the {operation} of {amount} under {key}");
        }
        let told: Vec<Uuid> = query_scalar("SELECT id FROM daybook.notices").fetch_all(&self.books).await.unwrap();
        assert!(told.iter().all(|id| notices.contains(id)), "a notice follows from nothing that there is or is listed");
    }

    /// The orders that the provider was asked to hold money for, as it says.
    async fn authorised(&self) -> Vec<Uuid> {
        let authorised = "SELECT order_id FROM daybook.provider_ledger WHERE operation = 'authorise' ORDER BY done_at";
        query_scalar(authorised).fetch_all(&self.books).await.unwrap()
    }

    /// What was kept of lost histories, by position.
    async fn kept(&self) -> Vec<Position> {
        let kept = "SELECT position FROM daybook.lost_events ORDER BY epoch, position";
        query_scalar(kept).fetch_all(&self.superuser).await.unwrap()
    }

    /// What the log says of a SKU: how many pieces are on hand after each of its events.
    async fn on_hand(&self, sku: &str) -> Vec<u64> {
        let stream = stream_of::<Stock>(StockId::from(&Sku::new(sku).unwrap()).0);
        let mut stock = Stock::default();
        let events = self.system.parts.log.read_stream(stream, 0, 10_000).await.unwrap().into_iter().map(Event::of);
        let after = events.map(|event| {
            let orders::Event::Stock(_, event) = event.event else { unreachable!("it is in a stream of stock") };
            stock.evolve(&event);
            stock.on_hand()
        });
        after.collect()
    }
}

fn removal(sku: &str, pieces: u32) -> Envelope {
    let sku = Sku::new(sku).unwrap();
    let command = stock::Command::Adjust { sku, by: -i64::from(pieces), reason: AdjustReason::Count };
    envelope(Uuid::now_v7(), Command::Stock(command))
}

/// Puts all tables back as they were, as soon as nobody is in the middle of a transaction. Returns the events that the log
/// had until then, and those that were listed as lost.
async fn go_back(superuser: &PgPool, copy: &Copy) -> (Vec<Event>, Vec<Event>) {
    loop {
        let mut transaction = superuser.begin().await.unwrap();
        match sqlx::raw_sql(LOCK_ALL).execute(&mut *transaction).await {
            Ok(_) => return put_back(transaction, copy).await,
            // Somebody has two tables in another order.
            Err(e) if e.as_database_error().and_then(|e| e.code()).as_deref() == Some("40P01") => {}
            Err(e) => panic!("{e}"),
        }
    }
}

const LOCK_ALL: &str = "DO $$
    BEGIN
        EXECUTE (SELECT 'LOCK TABLE ' || string_agg(format('daybook.%I', relname), ', ' ORDER BY relname)
                        || ' IN ACCESS EXCLUSIVE MODE'
                 FROM pg_class WHERE relnamespace = 'daybook'::regnamespace AND relkind = 'r');
    END
    $$";

async fn put_back(mut transaction: Transaction<'static, Postgres>, copy: &Copy) -> (Vec<Event>, Vec<Event>) {
    let log = events_in(&mut transaction, "daybook.events").await;
    let listed = lost_events(&mut transaction).await;
    let schema = &copy.schema;
    // Rows are deleted, and not truncated: who waits for a lock has taken its snapshot, perhaps.
    let put_back = format!(
        "SET LOCAL session_replication_role = replica;
         ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
         DO $$
         DECLARE
             put_back name;
         BEGIN
             FOR put_back IN SELECT relname FROM pg_class
                             WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r' LOOP
                 EXECUTE format('DELETE FROM daybook.%1$I', put_back);
                 EXECUTE format('INSERT INTO daybook.%1$I SELECT * FROM {schema}.%1$I', put_back);
             END LOOP;
         END
         $$;
         ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only"
    );
    sqlx::raw_sql(AssertSqlSafe(put_back)).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    (log, listed)
}

/// How many runs there are: `PROPTEST_CASES`, if that is set.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(8)
}

/// Invariants 26 and 27: any interleaving of commands, forks at any point, commands that come again, relays, redeliveries
/// and take-overs. In the end all rows are the fold of the log that there is, all that was answered is in it, nothing in it
/// was decided because of something lost, and what was done outside follows from it or from what is listed as lost.
#[test]
fn whatever_becomes_of_the_log_nothing_of_a_lost_history_is_left() {
    let runtime = Runtime::new().unwrap();
    let mut runner =
        TestRunner::new(Cases { cases: cases(), max_shrink_iters: 60, failure_persistence: None, ..Cases::default() });
    let proved = runner.run(&prop::collection::vec(act(), 8..40), |acts| {
        runtime.block_on(async {
            let mut world = World::start().await;
            world.save().await;
            for act in &acts {
                world.act(act).await;
            }
            world.end(acts.len() % 2).await;
        });
        Ok(())
    });
    if let Err(e) = proved {
        panic!("{e}");
    }
}

/// Invariant 26. The log is at 1. Three receipts are acknowledged, distributed and taken in; the database goes back to 1, and
/// four others are recorded at 2 to 5. The services go on all the time.
#[tokio::test]
async fn no_row_is_of_a_lost_event_while_services_go_on() {
    for has_operator_first in [true, false] {
        let mut world = World::start().await;
        world.execute(0, receipt("mug", 1)).await.unwrap();
        world.settle(0).await;
        let copy = world.save().await;
        for _ in 0..3 {
            world.execute(0, receipt("hat", 100)).await.unwrap();
        }
        world.settle(0).await;
        assert_eq!(world.system.stock_of("hat").await, (300, 0));

        world.fork(&copy).await;
        for pieces in [10, 20, 30, 40] {
            assert!(world.execute(1, receipt("mug", pieces)).await.unwrap().recorded);
        }
        assert_eq!(world.head().await, 5);
        if has_operator_first {
            world.reconcile().await.unwrap();
        } else {
            // The projectors are beyond the end of what was lost before anybody looks at the stream.
            world.expire().await;
            world.project_all(0).await;
            assert_eq!(world.system.stock_of("mug").await, (101, 0));
        }
        world.end(1).await;
        assert_eq!(world.system.stock_of("mug").await, (102, 0));
        assert_eq!(order_views::stock_level::get(&world.system.parts.read, "hat").await.unwrap(), None);
        assert_eq!(world.kept().await, [2, 3, 4], "the operator is first: {has_operator_first}");
    }
}

/// Invariant 26. Two orders are recorded at 2 and 3, and distributed. The services are stopped, the database goes back to 1, and
/// the services are started. Another order is recorded at 2, and then a client sends the second one again: it lands where it
/// was, with the position, the version and the ids that it had.
#[tokio::test]
async fn a_command_that_lands_where_it_was_vouches_for_nothing_before_it() {
    for is_taken_in in [false, true] {
        let mut world = World::start().await;
        world.execute(0, receipt("mug", 9)).await.unwrap();
        world.settle(0).await;
        let copy = world.save().await;
        let lost = world.place(0, "mug", 1).await;
        let again = world.place(0, "mug", 2).await;
        assert_eq!(world.head().await, 3);
        world.relay_all(Some(0)).await;
        if is_taken_in {
            world.expire().await;
            world.project_all(0).await;
        }

        world.fork(&copy).await;
        for restart in [Act::RestartExecutor(0), Act::RestartExecutor(1), Act::RestartRelay(0), Act::RestartRelay(1)] {
            world.act(&restart).await;
        }
        world.act(&Act::RestartSender).await;
        let new = world.place(0, "mug", 3).await;
        let sent = world.sent[2].clone();
        let outcome = world.executors[1].execute(&sent).await.unwrap();
        assert_eq!((outcome.recorded, outcome.position), (true, 3));
        world.note(2, &Ok(outcome));
        // They begin where the checkpoints are.
        world.sets = [projecting(&world.system, None).await, projecting(&world.system, None).await];
        world.end(0).await;
        for order in [new, again] {
            assert_eq!(world.system.status(order).await, "confirmed");
            assert_eq!(world.authorised().await.iter().filter(|id| **id == order.0).count(), 1);
        }
        assert_eq!(order_views::order_summary::get(&world.system.parts.read, lost.0).await.unwrap(), None);
        assert!(!world.authorised().await.contains(&lost.0));
        assert_eq!(world.kept().await, [2, 3], "they are taken in: {is_taken_in}");
    }
}

/// Invariant 26: what a feed holds of a lost history gets into no row, though the projectors come to it only after the fork, and
/// more has been recorded.
#[tokio::test]
async fn no_row_is_of_an_event_that_waited_in_a_feed() {
    let mut world = World::start().await;
    world.execute(0, receipt("mug", 1)).await.unwrap();
    world.settle(0).await;
    let copy = world.save().await;
    for _ in 0..3 {
        world.execute(0, receipt("hat", 100)).await.unwrap();
    }
    world.relay_all(Some(0)).await;
    while world.sets[0].feed.position() < 4 {
        world.sets[0].feed.step().await.unwrap();
    }
    world.fork(&copy).await;
    for pieces in [10, 20, 30, 40] {
        world.execute(1, receipt("mug", pieces)).await.unwrap();
    }
    world.project(0).await;
    let rows = order_views::stock_level::get(&world.system.parts.read, "hat").await.unwrap();
    assert_eq!(rows, None);
    world.end(1).await;
    assert_eq!(world.system.stock_of("mug").await, (102, 0));
}

/// Invariant 26. A process has taken in an event that is lost; another one, under the fence that the first one had, the event in
/// its place. The first one does not go on from what it remembers, though the checkpoint is where it left it.
#[tokio::test]
async fn no_row_is_written_on_what_is_remembered_of_a_lost_history() {
    let mut world = World::start().await;
    world.execute(0, receipt("mug", 1)).await.unwrap();
    world.settle(0).await;
    let copy = world.save().await;
    let fence = async |world: &World| -> i64 {
        let fence = "SELECT fence FROM daybook.leases WHERE name = 'stock_level'";
        query_scalar(fence).fetch_one(&world.superuser).await.unwrap()
    };
    // Their feeds have nothing for them: they read the log themselves.
    for (set, fork) in [(0, false), (1, true)] {
        if fork {
            world.fork(&copy).await;
        }
        world.execute(set, receipt("mug", if fork { 2 } else { 100 })).await.unwrap();
        world.sets[set] = projecting(&world.system, Some(1000)).await;
        world.expire().await;
        world.project(set).await;
        assert!(world.are_at(2).await);
        assert_eq!(fence(&world).await, 2);
    }
    world.execute(1, receipt("mug", 4)).await.unwrap();
    world.project(0).await;
    world.project(1).await;
    assert_eq!(world.system.stock_of("mug").await, (7, 0));
    world.sets = [projecting(&world.system, None).await, projecting(&world.system, None).await];
    world.end(0).await;
}

/// Invariant 16. A process has acquired a lease, the database goes back to when another one had it, and then the first one takes
/// the checkpoint, under its fence. The one that has the lease again goes on all the same.
#[tokio::test]
async fn a_fence_of_a_lost_history_keeps_nobody_out() {
    let mut world = World::start().await;
    world.execute(0, receipt("mug", 1)).await.unwrap();
    world.settle(0).await;
    let take = "UPDATE daybook.checkpoints SET fence = fence + 1 WHERE projection = 'stock_level'";
    sqlx::query(take).execute(&world.superuser).await.unwrap();
    world.execute(0, receipt("mug", 1)).await.unwrap();
    world.settle(0).await;
    assert_eq!(world.system.stock_of("mug").await, (2, 0));
    world.end(1).await;
}

/// Invariant 16. The log keeps all its events, and the checkpoints go back: a failover loses what was committed last. The
/// projectors bring the rows to the end of the log again, though nothing more is recorded and they have seen all of it.
#[tokio::test]
async fn rows_that_went_back_behind_the_log_catch_up() {
    let mut world = World::start().await;
    world.execute(0, receipt("mug", 1)).await.unwrap();
    world.settle(0).await;
    world.execute(0, receipt("mug", 2)).await.unwrap();
    let copy = world.save().await;
    world.settle(0).await;
    assert!(world.are_at(2).await);

    world.fork(&copy).await;
    assert_eq!(world.head().await, 2);
    assert!(world.are_at(1).await);
    world.settle(0).await;
    assert_eq!(world.system.stock_of("mug").await, (3, 0));
    world.end(1).await;
}

/// Invariant 26. An event is lost, and comes back. What was distributed after it is kept, and the stream is made anew. The event
/// is lost again before the new stream has it. Then it counts like an event that was never distributed: nothing lists it.
#[tokio::test]
async fn an_event_that_comes_back_is_lost_anew() {
    let mut world = World::start().await;
    let empty = world.save().await;
    world.execute(0, receipt("mug", 1)).await.unwrap();
    world.relay_all(Some(0)).await;
    let one = world.save().await;
    world.execute(0, receipt("mug", 2)).await.unwrap();
    world.relay_all(Some(0)).await;

    world.fork(&empty).await;
    assert_eq!(world.distributed.len(), 2);
    world.fork(&one).await;
    world.reconcile().await.unwrap();
    assert_eq!(world.kept().await, [2]);
    world.fork(&empty).await;
    assert_eq!((world.distributed.len(), world.unknown.len()), (1, 1));
    world.end(0).await;
}

/// Invariant 12. A relay waits at the fork, and another one has published an event that is lost. The first one does not publish
/// what follows the event in its place.
#[tokio::test]
async fn a_relay_publishes_nothing_around_a_lost_event() {
    let mut world = World::start().await;
    world.execute(0, receipt("mug", 1)).await.unwrap();
    world.relay_all(Some(1)).await;
    let copy = world.save().await;
    world.execute(0, receipt("hat", 1)).await.unwrap();
    world.relay_all(Some(0)).await;
    world.fork(&copy).await;
    for _ in 0..3 {
        world.execute(1, receipt("mug", 1)).await.unwrap();
    }
    world.relay_all(Some(1)).await;
    // Who compares the stream later need not begin before what the projections still need.
    world.project_all(0).await;
    world.end(0).await;
    assert_eq!(world.kept().await[0], 2);
}

/// Invariants 21 and 26: a state that was read of a lost history is decided on no more, though its version fits; also if the
/// process has looked at the log in the meantime.
#[tokio::test]
async fn no_command_is_decided_on_a_lost_state() {
    for has_read in [false, true] {
        let mut world = World::start().await;
        let empty = world.save().await;
        world.execute(0, receipt("mug", 10)).await.unwrap();
        world.fork(&empty).await;
        let received = world.execute(1, receipt("mug", 1)).await.unwrap();
        assert_eq!((received.recorded, received.position), (true, 1));
        if has_read {
            world.execute(1, receipt("hat", 1)).await.unwrap();
            world.execute(0, removal("hat", 2)).await.unwrap_err();
        }
        let refused = world.execute(0, removal("mug", 5)).await;
        assert!(
            matches!(
                refused,
                Err(ExecuteError::Rejected(Rejection::Stock(stock::Rejection::BelowReserved { on_hand: 1, .. })))
            ),
            "{refused:?}"
        );
        assert_eq!(world.on_hand("mug").await, [1]);
        // What is decided anew is recorded where it is allowed.
        assert!(world.execute(0, removal("mug", 1)).await.unwrap().recorded);
        assert_eq!(world.on_hand("mug").await, [1, 0]);
        world.end(0).await;
    }
}

/// Invariants 21 and 26. Two statements of a process are under way at once, and the log goes back between their answers. Neither
/// answer hides the other, whichever is noted first.
#[tokio::test]
async fn an_answer_of_the_present_hides_none_of_a_lost_history() {
    for lost_first in [true, false] {
        let mut world = World::start().await;
        world.execute(0, receipt("mug", 1)).await.unwrap();
        let copy = world.save().await;
        let pool = world.system.parts.project.clone();
        let ask = async |asked: &Seen| follow_up::due::<Orders>(&pool, asked, &[], None, 1).await.unwrap().1;
        let history = world.executors[0].history();
        let asked = history.seen();
        assert_eq!(asked.marks.len(), 1);
        if lost_first {
            world.execute(0, receipt("mug", 10)).await.unwrap();
        } else {
            // Another process records it, and the answer is on its way.
            world.execute(1, receipt("mug", 10)).await.unwrap();
        }
        let lost = ask(&asked).await;
        world.fork(&copy).await;
        world.execute(1, receipt("mug", 1)).await.unwrap();
        world.execute(1, receipt("hat", 1)).await.unwrap();
        let present = ask(&asked).await;
        assert_eq!((lost.end.unwrap().position, present.end.unwrap().position), (2, 3));
        for found in if lost_first { [lost, present] } else { [present, lost] } {
            assert!(!history.note(asked.clone(), found).is_lost());
        }
        assert_eq!(history.seen().marks.len(), 2);
        // What the process remembers has the same version as what the log has, and more pieces.
        world.execute(0, removal("mug", 5)).await.unwrap_err();
        assert!(asked.branch.is_lost());
        assert_eq!(world.on_hand("mug").await, [1, 2]);
        assert_eq!(history.seen().marks.len(), 1);
        world.end(0).await;
    }
}

/// Invariant 26: what a process has read of a lost history becomes no snapshot.
#[tokio::test]
async fn no_snapshot_is_written_of_a_lost_history() {
    let mut world = World::start().await;
    world.execute(0, receipt("mug", 1)).await.unwrap();
    let copy = world.save().await;
    let receipts: Vec<Envelope> = (0..600).map(|_| receipt("mug", 1)).collect();
    let received = receipts.iter().map(|receipt| world.executors[0].execute(receipt));
    futures_util::future::join_all(received).await.into_iter().for_each(|received| assert!(received.unwrap().recorded));

    // A snapshot is asked for by who reads the stream. It cannot be written yet.
    let mut transaction = world.superuser.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE daybook.snapshots IN SHARE MODE").execute(&mut *transaction).await.unwrap();
    world.execute(1, removal("mug", 10_000)).await.unwrap_err();
    appenders_waiting(&world.system.urls.database_url, 1).await;
    sqlx::raw_sql(LOCK_ALL).execute(&mut *transaction).await.unwrap();
    let (log, listed) = put_back(transaction, &copy).await;
    world.forked(&copy, log, listed).await;

    // The new history has as many events of the stream.
    let receipts: Vec<Envelope> = (0..600).map(|_| receipt("mug", 2)).collect();
    let received = receipts.iter().map(|receipt| world.executors[0].execute(receipt));
    futures_util::future::join_all(received).await.into_iter().for_each(|received| assert!(received.unwrap().recorded));
    // What the loader was asked for before, it has done, or not.
    world.execute(1, removal("hat", 1)).await.unwrap_err();
    world.act(&Act::RestartExecutor(1)).await;
    let refused = world.execute(1, removal("mug", 10_000)).await;
    assert!(
        matches!(
            refused,
            Err(ExecuteError::Rejected(Rejection::Stock(stock::Rejection::BelowReserved { on_hand: 1201, .. })))
        ),
        "{refused:?}"
    );
    world.end(0).await;
}

/// Invariant 26, no new act: a follow-up that the sender had begun when its event was lost is not recorded.
#[tokio::test]
async fn a_follow_up_that_was_begun_before_the_fork_is_not_done_after_it() {
    let mut world = World::start().await;
    world.execute(0, receipt("mug", 9)).await.unwrap();
    world.settle(0).await;
    let copy = world.save().await;
    let lost = world.place(0, "mug", 1).await;
    world.relay_all(Some(0)).await;
    world.project_all(0).await;
    assert_eq!(world.due().await, 1, "the payment is to be taken");

    // The sender has read the follow-up, and can read what it is decided on when the log is another one.
    let mut transaction = world.superuser.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE daybook.snapshots IN ACCESS EXCLUSIVE MODE").execute(&mut *transaction).await.unwrap();
    assert_eq!(world.system.sender.step().await.unwrap(), Outcome::Worked(0));
    appenders_waiting(&world.system.urls.database_url, 1).await;
    let (log, listed) = put_back(transaction, &copy).await;
    world.forked(&copy, log, listed).await;
    world.end(0).await;
    assert_eq!(world.system.events_of(lost).await, [""; 0]);
    assert!(world.authorised().await.is_empty());
}

/// Invariants 13, 25 and 26: what was done in a lost history is not settled in the present one, where it is due again.
#[tokio::test]
async fn what_was_done_in_a_lost_history_is_done_again() {
    let mut world = World::start().await;
    world.execute(0, receipt("mug", 9)).await.unwrap();
    world.settle(0).await;
    let order = world.place(0, "mug", 1).await;
    world.relay_all(Some(0)).await;
    world.project_all(0).await;
    let copy = world.save().await;
    assert_eq!((world.head().await, world.due().await), (2, 1));

    // The sender has done it, and cannot yet say so.
    let mut transaction = world.superuser.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE daybook.leases IN ACCESS EXCLUSIVE MODE").execute(&mut *transaction).await.unwrap();
    let (log, url) = (world.system.parts.log.clone(), world.system.urls.database_url.clone());
    let fork = async {
        until("the payment is requested", async || (log.head().await.unwrap() == 3).then_some(())).await;
        appenders_waiting(&url, 1).await;
        sqlx::raw_sql(LOCK_ALL).execute(&mut *transaction).await.unwrap();
        put_back(transaction, &copy).await
    };
    let sender = &mut world.system.sender;
    let (_, (log, listed)) = tokio::join!(sender.step(), fork);
    world.forked(&copy, log, listed).await;
    world.end(0).await;
    assert_eq!(world.system.status(order).await, "confirmed");
}
