//! What is asked of the log: from either end, by time, by what events are about; and what was, before what is.

use crate::harness::{System, card, database, daybook_on, id, order_of, run};
use chrono::{DateTime, TimeDelta, Utc};
use engine::Batch;
use engine::apply::Applier;
use engine::codec;
use engine::event_index::{self, Key};
use order_services::time_travel::{At, StateAtError, state_at};
use order_views::Orders;
use order_views::{CATEGORIES, encode, stream as stream_of};
use order_views::{Delivered, Projection, ReadModel, Recorded};
use orders::id::{OrderId, PaymentId, ShipmentId, Sku, StockId};
use orders::money::Amount;
use orders::order::{self, Order, PaymentAuthorisedRecorded, PlacePayment, ProposeEdit, StockSecured};
use orders::payment::VoidDeferred;
use orders::shipment::ShipmentCancelled;
use orders::stock::{Stock, StockReceived};
use orders::{Aggregate, Command, Event};
use runtime::replay::{Mode, replay};
use runtime::search::{Direction, Query, Search};
use serde_json::json;
use sqlx::{PgPool, query_scalar};
use std::process::{Output, Stdio};
use std::sync::Arc;
use store::checkpoint::{self, AdvanceError, Checkpoint};
use store::connect::{self, Role};
use store::{
    Append, Appender, ExpectedVersion, Filter, Fingerprint, Log, Metadata, Origin, Position, RecordedEvent,
    StreamAppend, StreamId, lease,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use uuid::Uuid;

/// Numbers that are as good as random, and the same in every run: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((n ^ (n >> 31)) % end as u64) as usize
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// A log without services, in which nothing is indexed until it is asked for.
struct Store {
    url: String,
    log: Log,
    read: PgPool,
    project: PgPool,
}

impl Store {
    async fn new() -> Self {
        let url = database().await;
        let read = connect::pool(&url, Role::Read, 4).unwrap();
        let project = connect::pool(&url, Role::Project, 4).unwrap();
        Self { log: Log::new(read.clone(), CATEGORIES), url, read, project }
    }

    async fn append(&self, appender: &Appender, correlation_id: Uuid, events: &[Event]) {
        let mut streams: Vec<StreamAppend> = Vec::new();
        for event in events {
            let category = codec::parse_category(CATEGORIES, event.category()).unwrap();
            let stream = StreamId { category, id: event.stream_id() };
            match streams.iter_mut().find(|s| s.stream == stream) {
                Some(append) => append.events.push(encode(event)),
                None => {
                    let events = vec![encode(event)];
                    streams.push(StreamAppend { stream, expected: ExpectedVersion::Any, events });
                }
            }
        }
        let metadata = Metadata {
            correlation_id,
            causation_id: None,
            command_id: Uuid::now_v7(),
            fingerprint: Fingerprint([7; 16]),
            actor: "test".into(),
            origin: Origin::Live,
            occurred_at: DateTime::UNIX_EPOCH,
            traceparent: None,
        };
        appender.append(Append { metadata, streams }).await.unwrap();
    }

    /// A log of random events, at least so many, which begins a bit before a block of the index does.
    async fn with_random_events(numbers: &mut Numbers, events: usize) -> Self {
        let store = Self::new().await;
        let first = Event::Order(OrderId(id(1)), StockSecured {}.into());
        store.append(&Appender::start(&store.url).unwrap(), id(1), &[first]).await;
        // As if all that came before it were not there: nothing but the gap tells.
        let begin = 32_768 - 700;
        store.forge(&format!("UPDATE daybook.events SET position = {begin}")).await;
        run(&store.url, &format!("UPDATE daybook.checkpoints SET position = {begin} - 1")).await;
        let appender = Appender::start(&store.url).unwrap();
        let mut appended = 1;
        while appended < events {
            let batch: Vec<Event> = (0..=numbers.below(30)).map(|_| random_event(numbers)).collect();
            // The lower the number, the more often it comes.
            let correlation = 1 + numbers.below(12) * numbers.below(12);
            store.append(&appender, id(correlation as u128), &batch).await;
            appended += batch.len();
        }
        store
    }

    async fn forge(&self, sql: &str) {
        let forge = format!(
            "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only; {sql};
             ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only"
        );
        run(&self.url, &forge).await;
    }

    async fn all(&self) -> Vec<RecordedEvent> {
        self.log.read_all(0, 100_000).await.unwrap()
    }

    async fn decoded(&self, after: Position, limit: i64) -> Vec<Arc<Recorded>> {
        let page = self.log.read_all(after, limit).await.unwrap();
        page.into_iter().map(|record| Arc::new(codec::decode::<Orders>(record).unwrap())).collect()
    }

    async fn delivered(&self, after: Position, limit: i64) -> Batch<Orders> {
        let events = self.decoded(after, limit).await.into_iter().map(Delivered::Event).collect();
        Batch { events, proof: self.log.end().await.unwrap() }
    }

    /// Brings the index to `position`, in batches of any size.
    async fn index(&self, numbers: &mut Numbers, position: Position) -> (Checkpoint, i64) {
        let (pool, name) = (&self.project, INDEX.name());
        let lease = lease::acquire(pool, name, id(99)).await.unwrap().unwrap();
        let mut at = checkpoint::acquire(pool, name, 1, &lease).await.unwrap();
        let mut applier = Applier::new(INDEX);
        while at.position < position {
            let limit = (1 + numbers.below(400) as i64).min(position - at.position);
            let events = self.delivered(at.position, limit).await;
            at = applier.apply(pool, at, lease.fence, &events).await.unwrap();
        }
        (at, lease.fence)
    }

    async fn rows(&self) -> Vec<String> {
        let rows = "SELECT (to_jsonb(i) - 'generation')::text FROM daybook.event_index AS i WHERE generation = (
            SELECT generation FROM daybook.checkpoints WHERE projection = 'event_index' AND live) ORDER BY 1";
        query_scalar(rows).fetch_all(&self.read).await.unwrap()
    }

    /// All that a search finds, in pages of any size.
    async fn search(&self, numbers: &mut Numbers, query: Query) -> Vec<Position> {
        let mut search = Search::begin(self.log.clone(), self.read.clone(), query).await.unwrap();
        let mut found = Vec::new();
        loop {
            let limit = 1 + numbers.below(200);
            let page = search.next(limit as i64).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                return found;
            }
            found.extend(page.iter().map(|event| event.position));
        }
    }
}

const INDEX: Projection = Projection::ReadModel(ReadModel::EventIndex);

fn random_event(numbers: &mut Numbers) -> Event {
    let n = id(1 + numbers.below(6) as u128);
    match numbers.below(5) {
        0 => Event::Order(OrderId(n), StockSecured {}.into()),
        1 => Event::Order(OrderId(n), PaymentAuthorisedRecorded { payment_id: PaymentId(n) }.into()),
        2 => Event::Payment(PaymentId(n), VoidDeferred { order_id: OrderId(n) }.into()),
        3 => Event::Stock(StockId(n), StockReceived { sku: Sku::new("mug").unwrap(), quantity: 1 }.into()),
        _ => Event::Shipment(ShipmentId(n), ShipmentCancelled { order_id: OrderId(n) }.into()),
    }
}

fn random_filter(numbers: &mut Numbers) -> Filter {
    let types = ["StockSecured", "PaymentAuthorisedRecorded", "VoidDeferred", "StockReceived", "ShipmentCancelled"];
    let mut filter = Filter::default();
    if numbers.below(6) == 0 {
        filter.stream = Some(StreamId { category: numbers.one_of(CATEGORIES), id: id(1 + numbers.below(6) as u128) });
    }
    if numbers.below(3) == 0 {
        filter.category = Some(numbers.one_of(CATEGORIES));
    }
    if numbers.below(2) == 0 {
        filter.event_types = (0..=numbers.below(3)).map(|_| numbers.one_of(&types).to_owned()).collect();
    }
    if numbers.below(3) == 0 {
        filter.correlation_id = Some(id(1 + numbers.below(30) as u128));
    }
    filter
}

fn random_query(numbers: &mut Numbers, events: &[RecordedEvent]) -> Query {
    let filter = random_filter(numbers);
    let direction = numbers.one_of(&[Direction::OldestFirst, Direction::NewestFirst]);
    let mut query = Query { filter, direction, ..Query::default() };
    if numbers.below(2) == 0 {
        let event = numbers.one_of(events);
        query.from = Some(if query.filter.stream.is_some() { event.version } else { event.position });
    }
    let mut time = || {
        let around = TimeDelta::nanoseconds(numbers.one_of(&[-1, 0, 1, 999, 1000]));
        (numbers.below(3) == 0).then(|| numbers.one_of(events).recorded_at + around)
    };
    (query.since, query.until) = (time(), time());
    query
}

/// The positions that the query asks for, told event by event.
fn naive(events: &[RecordedEvent], query: &Query) -> Vec<Position> {
    let Query { filter, direction, from, since, until, .. } = query;
    let place = |e: &RecordedEvent| if filter.stream.is_some() { e.version } else { e.position };
    let wanted = |e: &&RecordedEvent| {
        filter.matches(e)
            && from.is_none_or(|from| match direction {
                Direction::OldestFirst => place(e) >= from,
                Direction::NewestFirst => place(e) <= from,
            })
            && since.is_none_or(|since| e.recorded_at >= since)
            && until.is_none_or(|until| e.recorded_at <= until)
    };
    let mut positions: Vec<Position> = events.iter().filter(wanted).map(|e| e.position).collect();
    if *direction == Direction::NewestFirst {
        positions.reverse();
    }
    positions
}

/// That these are the same, or where they part.
fn assert_same(what: &str, found: &[Position], expected: &[Position]) {
    let same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let next = |all: &[Position]| all.get(same).copied();
    assert!(found == expected, "{what}: after {same}, it is {:?}, not {:?}", next(found), next(expected));
}

fn received(n: u128) -> Event {
    Event::Stock(StockId(id(n)), StockReceived { sku: Sku::new("mug").unwrap(), quantity: 1 }.into())
}

#[tokio::test]
async fn the_index_has_what_a_filter_over_the_log_finds() {
    for seed in [1, 2] {
        let mut numbers = Numbers(seed);
        let store = Store::with_random_events(&mut numbers, 3000).await;
        let all = store.all().await;
        let head = all.last().unwrap().position;
        let (at, fence) = store.index(&mut numbers, head).await;
        assert_eq!(event_index::complete_to(&store.read).await.unwrap(), head);
        let rows = store.rows().await;
        assert_lists(&store, &mut numbers, &all).await;

        // What is delivered again changes nothing, be it to its owner or to one who is behind.
        let events = store.delivered(0, 10_000).await;
        let again = Applier::new(INDEX).apply(&store.project, at, fence, &events).await;
        assert_eq!(again.unwrap(), at);
        let behind = Checkpoint { position: head - 10, ..at };
        let behind = Applier::new(INDEX).apply(&store.project, behind, fence, &events).await;
        assert!(matches!(behind, Err(AdvanceError::Fenced(_))), "{behind:?}");
        assert_eq!(store.rows().await, rows);

        // Rebuilt, it is the same.
        let rebuilt = replay(&store.log, &store.project, ReadModel::EventIndex, Mode::Switch, |_, _| {}).await.unwrap();
        let compared = rebuilt.compared.unwrap();
        assert_eq!((compared.differences(), compared.rows), (0, rows.len() as i64));
        assert_eq!(store.rows().await, rows);
        assert_lists(&store, &mut numbers, &all).await;
    }
}

/// Each list, whole and in part, from either end.
async fn assert_lists(store: &Store, numbers: &mut Numbers, all: &[RecordedEvent]) {
    let mut keys: Vec<(String, Key)> = Vec::new();
    for event in all {
        let (category, correlation) = (event.stream.category.name, event.metadata.correlation_id);
        keys.push((category.to_owned(), Key::Category(category)));
        keys.push((format!("{category} {}", &*event.event_type), Key::Type(category, &event.event_type)));
        keys.push((correlation.to_string(), Key::Correlation(correlation)));
    }
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    keys.dedup();
    assert!(keys.len() > 20);
    let (first, head) = (all[0].position, all[all.len() - 1].position);
    for (name, key) in keys {
        let is_in = |e: &&RecordedEvent| match key {
            Key::Category(category) => e.stream.category.name == category,
            Key::Type(category, name) => e.stream.category.name == category && e.event_type == name,
            Key::Correlation(id) => e.metadata.correlation_id == id,
        };
        let expected: Vec<Position> = all.iter().filter(is_in).map(|e| e.position).collect();
        let keys = [key.clone()];
        let whole = event_index::positions(&store.read, &keys, 0, head, 100_000).await.unwrap();
        assert_same(&name, &whole, &expected);
        for _ in 0..10 {
            let after = first + numbers.below(all.len()) as i64;
            let to = after + numbers.below(all.len()) as i64;
            let limit = 1 + numbers.below(100);
            let within: Vec<Position> = expected.iter().copied().filter(|p| after < *p && *p <= to).collect();
            let found = event_index::positions(&store.read, &keys, after, to, limit as i64).await.unwrap();
            assert_same(&format!("{name} after {after} to {to}"), &found, &within[..limit.min(within.len())]);
            let found = event_index::positions_backward(&store.read, &keys, after, to, limit as i64).await.unwrap();
            let backward: Vec<Position> = within.into_iter().rev().take(limit).collect();
            assert_same(&format!("{name} from {to} to {after}"), &found, &backward);
        }
    }
}

/// Whether the index has nothing, a part or all of the log: an answer has every event, once, in its order.
#[tokio::test]
async fn a_search_is_complete_however_far_behind_the_index_is() {
    let mut numbers = Numbers(3);
    let store = Store::with_random_events(&mut numbers, 2500).await;
    let all = store.all().await;
    let (first, head) = (all[0].position, all[all.len() - 1].position);
    let mut answers = 0;
    for position in [first - 1, first + 1300, head - 7, head] {
        store.index(&mut numbers, position).await;
        assert_eq!(event_index::complete_to(&store.read).await.unwrap(), position);
        for _ in 0..150 {
            let query = random_query(&mut numbers, &all);
            let expected = naive(&all, &query);
            answers += usize::from(!expected.is_empty());
            let found = store.search(&mut numbers, query.clone()).await;
            assert_same(&format!("{query:?}, indexed to {position}"), &found, &expected);
        }
    }
    assert!(answers > 300, "{answers} queries have an answer");
}

/// What the index says is not taken for an event: it is looked at.
#[tokio::test]
async fn what_the_index_has_too_much_is_not_found() {
    let mut numbers = Numbers(4);
    let store = Store::with_random_events(&mut numbers, 300).await;
    let all = store.all().await;
    store.index(&mut numbers, all.last().unwrap().position).await;
    let other = "UPDATE daybook.event_index SET key = 'order/StockSecured' WHERE key = 'stock/StockReceived'";
    run(&store.url, &format!("DELETE FROM daybook.event_index WHERE key = 'order/StockSecured'; {other}")).await;
    let filter = Filter { event_types: vec!["StockSecured".into()], ..Filter::default() };
    assert_eq!(store.search(&mut numbers, Query { filter, ..Query::default() }).await, [0; 0]);
}

#[tokio::test]
async fn a_state_at_a_version_and_at_a_time_is_the_fold_of_what_was_there() {
    let mut system = System::start().await;
    system.receive("mug", 3).await;
    let order = system.place(order_of(&[("mug", 2, 1)])).await;
    system.settle().await;
    system.ship(order).await;
    let (log, stream) = (&system.parts.log, stream_of::<Order>(order.0));
    let events = log.read_stream(stream, 0, 100).await.unwrap();
    assert!(events.len() >= 7, "{events:?}");
    let mut state = Order::default();
    for event in &events {
        state.evolve(Order::event_of(&codec::decode::<Orders>(event.clone()).unwrap().event).unwrap());
        let at = state_at::<Order>(log, order.0, At::Version(event.version)).await.unwrap();
        assert_eq!((&at.state, at.version, at.recorded_at), (&state, event.version, event.recorded_at));
        assert_eq!(at.stream, stream.to_string());
    }
    // At a time: all that was recorded by then, also if it is several events of one moment.
    let moments = events.iter().flat_map(|e| [-1, 0, 1].map(|n| e.recorded_at + TimeDelta::microseconds(n)));
    for time in moments.skip(1) {
        let version = events.iter().filter(|e| e.recorded_at <= time).count() as i64;
        let then = state_at::<Order>(log, order.0, At::Version(version)).await.unwrap();
        assert_eq!(state_at::<Order>(log, order.0, At::Time(time)).await.unwrap(), then, "{time}");
    }
    let together = events.windows(2).any(|pair| pair[0].recorded_at == pair[1].recorded_at);
    assert!(together, "no two were recorded at one moment");

    let before = events[0].recorded_at - TimeDelta::microseconds(1);
    let began = events[0].recorded_at;
    let early = state_at::<Order>(log, order.0, At::Time(before)).await.unwrap_err();
    assert!(matches!(early, StateAtError::NotBegun { began: at, .. } if at == began), "{early}");
    let (last, beyond) = (events.len() as i64, events.len() as i64 + 1);
    let late = state_at::<Order>(log, order.0, At::Version(beyond)).await.unwrap_err();
    assert!(matches!(late, StateAtError::NoVersion { version, actual, .. } if (version, actual) == (beyond, last)));
    for at in [At::Version(1), At::Time(Utc::now())] {
        let none = state_at::<Order>(log, id(7), at).await.unwrap_err();
        assert!(matches!(none, StateAtError::NoStream(_)), "{none}");
    }
}

/// Longer than a page.
#[tokio::test]
async fn a_long_stream_is_folded_to_its_end() {
    let store = Store::new().await;
    let appender = Appender::start(&store.url).unwrap();
    for _ in 0..3 {
        store.append(&appender, id(1), &vec![received(1); 700]).await;
    }
    for version in [999, 1000, 1001, 2000, 2100] {
        let at = state_at::<Stock>(&store.log, id(1), At::Version(version)).await.unwrap();
        assert_eq!(
            (at.version, serde_json::to_value(&at.state).unwrap()["on_hand"].as_i64()),
            (version, Some(version))
        );
    }
    let now = state_at::<Stock>(&store.log, id(1), At::Time(DateTime::<Utc>::MAX_UTC)).await;
    assert_eq!(now.unwrap().version, 2100);
    let late = state_at::<Stock>(&store.log, id(1), At::Version(2101)).await.unwrap_err();
    assert_eq!(late.to_string(), format!("stock-{} has no version 2101: it ends with version 2100", id(1)));
}

async fn daybook(system: &System, arguments: &str) -> Output {
    daybook_on(&system.urls).args(arguments.split(' ')).output().await.unwrap()
}

/// The positions that the verb prints, each event being one JSON object.
async fn printed(system: &System, arguments: &str) -> Vec<i64> {
    let output = daybook(system, &format!("events read --json {arguments}")).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let position = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["position"].as_i64().unwrap();
    lines.lines().map(position).collect()
}

#[tokio::test]
async fn the_verb_reads_what_it_is_asked_for_also_what_was_just_written() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let first = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    // The index has not come here yet.
    let second = system.place(order_of(&[("mug", 1, 1)])).await;
    system.receive("hat", 1).await;
    let all = system.parts.log.read_all(0, 1000).await.unwrap();
    assert!(event_index::complete_to(&system.parts.read).await.unwrap() < all.len() as i64);
    let positions = |wanted: &dyn Fn(&RecordedEvent) -> bool| -> Vec<i64> {
        all.iter().filter(|e| wanted(e)).map(|e| e.position).collect()
    };
    let placed = positions(&|e| e.event_type == "OrderPlaced");
    assert_eq!(placed.len(), 2);
    assert_eq!(printed(&system, "--type OrderPlaced").await, placed);
    assert_eq!(printed(&system, "--type OrderPlaced --backward").await, [placed[1], placed[0]]);
    assert_eq!(printed(&system, "--type OrderPlaced --backward --limit 1").await, [placed[1]]);
    assert_eq!(printed(&system, &format!("--type OrderPlaced --from {}", placed[0] + 1)).await, [placed[1]]);
    let stock = positions(&|e| e.stream.category.name == "stock");
    assert_eq!(printed(&system, "--category stock").await, stock);
    let both = positions(&|e| ["OrderPlaced", "StockReceived"].contains(&&*e.event_type));
    assert_eq!(printed(&system, "--type OrderPlaced --type StockReceived").await, both);
    let of_first = positions(&|e| e.metadata.correlation_id == first.0);
    assert!(of_first.len() > 5);
    assert_eq!(printed(&system, &format!("--correlation {}", first.0)).await, of_first);
    assert_eq!(printed(&system, &format!("--correlation {}", second.0)).await, [placed[1]]);
    let payments = positions(&|e| e.metadata.correlation_id == first.0 && e.stream.category.name == "payment");
    assert_eq!(printed(&system, &format!("--category payment --correlation {}", first.0)).await, payments);
    let mut stream = positions(&|e| e.stream == stream_of::<Order>(first.0));
    stream.reverse();
    assert_eq!(printed(&system, &format!("--stream order-{} --backward", first.0)).await, stream);
    assert_eq!(
        printed(&system, &format!("--stream order-{} --backward --from 2", first.0)).await,
        stream[stream.len() - 2..]
    );

    // By time, to the microsecond.
    let time = |n: usize| all[n].recorded_at.to_rfc3339();
    let (since, until) = (time(3), time(8));
    let within = positions(&|e| all[3].recorded_at <= e.recorded_at && e.recorded_at <= all[8].recorded_at);
    assert_eq!(printed(&system, &format!("--since {since} --until {until}")).await, within);
    let orders = positions(&|e| within.contains(&e.position) && e.stream.category.name == "order");
    assert_eq!(printed(&system, &format!("--since {since} --until {until} --category order")).await, orders);
    let before = (all[0].recorded_at - TimeDelta::microseconds(1)).to_rfc3339();
    assert_eq!(printed(&system, &format!("--until {before}")).await, [0; 0]);

    for (arguments, says) in [
        ("--category cart", "daybook: cart is no category: the categories are order, payment, stock, shipment\n"),
        (
            "--category stock --type OrderPlaced",
            "daybook: OrderPlaced is no event type of stock: the types of stock are \
            StockReceived, StockReserved, StockBackordered, BackorderNeedless, BackorderDropped, StockCommitted, StockReleased, \
            StockExpired, StockAdjusted, StockRestocked\n",
        ),
        ("--type Placed", "daybook: Placed is no event type: the types are OrderPlaced, "),
        ("--stream order", "daybook: order is no stream: "),
        ("--correlation me", "error: invalid value 'me' for '--correlation <ID>'"),
        ("--since yesterday", "error: invalid value 'yesterday' for '--since <TIME>'"),
    ] {
        for verb in ["read", "tail"].iter().filter(|verb| **verb == "read" || !arguments.contains("--since")) {
            let output = daybook(&system, &format!("events {verb} {arguments}")).await;
            assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]), "{arguments}");
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(stderr.starts_with(says), "{verb} {arguments}: {stderr}");
        }
    }
}

#[tokio::test]
async fn a_tail_prints_what_its_filter_lets_through() {
    let system = System::start().await;
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    let mut command = daybook_on(&system.urls);
    command.args(["events", "tail", "--json", "--from", "1", "--type", "OrderPlaced", "--category", "order"]);
    let mut tail = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = async || -> serde_json::Value {
        serde_json::from_str(&lines.next_line().await.unwrap().expect("it goes on")).unwrap()
    };
    assert_eq!(next().await["stream"], format!("order-{}", order.0));
    system.receive("mug", 5).await;
    let other = system.place(order_of(&[("mug", 1, 1)])).await;
    assert_eq!(next().await["stream"], format!("order-{}", other.0));
    tail.kill().await.unwrap();
}

#[tokio::test]
async fn the_verb_shows_an_order_as_it_was() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let events = system.parts.log.read_stream(stream_of::<Order>(order.0), 0, 100).await.unwrap();
    let (first, last) = (&events[0], events.last().unwrap());
    let show = async |arguments: &str| daybook(&system, &format!("order show {} {arguments}", order.0)).await;
    let shown = async |arguments: &str| -> serde_json::Value {
        let output = show(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let placed = shown("--version 1 --json").await;
    assert_eq!(placed["stream"], format!("order-{}", order.0));
    assert_eq!((&placed["version"], &placed["state"]["status"]), (&1.into(), &"placed".into()));
    assert_eq!(placed["recorded_at"], serde_json::to_value(first.recorded_at).unwrap());
    assert_eq!(placed.as_object().unwrap().len(), 4);
    // Nobody is shown a payment token.
    assert_eq!(placed["state"]["placed"]["payments"][0]["method"]["token"], "…");
    // For people it is the same, on many lines.
    let output = show("--version 1").await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() > 20, "{text}");
    assert!(!text.contains("tok_"), "{text}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), placed);
    assert_eq!(shown(&format!("--as-of {} --json", first.recorded_at.to_rfc3339())).await, placed);
    let now = shown("--as-of 2200-01-01T00:00:00Z --json").await;
    assert_eq!((&now["version"], &now["state"]["status"]), (&last.version.into(), &"confirmed".into()));

    let (stream, end) = (format!("order-{}", order.0), last.version);
    for (arguments, code, says) in [
        ("--version 99", 3, format!("daybook: {stream} has no version 99: it ends with version {end}\n")),
        (
            "--as-of 2001-01-01T00:00:00Z",
            3,
            format!("daybook: {stream} had no events at 2001-01-01 00:00:00 UTC: its first"),
        ),
        ("--version 0", 2, "error: invalid value '0' for '--version <VERSION>'".into()),
        (
            "--version 1 --as-of 2001-01-01T00:00:00Z",
            2,
            "error: the argument '--version <VERSION>' cannot be used".into(),
        ),
        ("--version 1 --at-least 1", 2, "error: the argument '--".into()),
        ("--as-of now", 2, "error: invalid value 'now' for '--as-of <TIME>'".into()),
    ] {
        let output = show(arguments).await;
        assert_eq!((output.status.code(), &*output.stdout), (Some(code), &b""[..]), "{arguments}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&says), "{arguments}: {stderr}");
    }
    let nobody = daybook(&system, &format!("order show {} --version 1", id(7))).await;
    assert_eq!(nobody.status.code(), Some(3));
    assert_eq!(String::from_utf8(nobody.stderr).unwrap(), format!("daybook: there is no order-{}\n", id(7)));
}

#[tokio::test]
async fn the_verb_tells_two_versions_of_an_order_apart() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let edit = order::Command::ProposeEdit(ProposeEdit {
        remove: vec![1],
        add: order_of(&[("mug", 2, 1)]).lines,
        shipping: vec![],
        payments: vec![PlacePayment { method: card("tok_approve_more"), amount: Amount(750) }],
    });
    system.execute(Command::Order { id: order, command: edit }).await.unwrap();
    system.settle().await;
    let events = system.parts.log.read_stream(stream_of::<Order>(order.0), 0, 100).await.unwrap();
    let (stream, end) = (format!("order-{}", order.0), events.last().unwrap());
    let proposed = events.iter().find(|e| e.event_type == "EditProposed").unwrap();
    let diff = async |arguments: &str| daybook(&system, &format!("order diff {} {arguments}", order.0)).await;
    let told = async |arguments: &str| -> serde_json::Value {
        let output = diff(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let changes = |told: &serde_json::Value| -> Vec<(String, serde_json::Value, serde_json::Value)> {
        let change =
            |c: &serde_json::Value| (c["field"].as_str().unwrap().to_owned(), c["before"].clone(), c["after"].clone());
        told["changes"].as_array().unwrap().iter().map(change).collect()
    };

    let one = told("--from 1 --to 2 --json").await;
    assert_eq!(
        (&one["stream"], &one["from"]["version"], &one["to"]["version"]),
        (&stream.clone().into(), &1.into(), &2.into())
    );
    assert_eq!(one["to"]["recorded_at"], serde_json::to_value(events[1].recorded_at).unwrap());
    let payment = PaymentId::of_order(order, 0);
    assert_eq!(changes(&one), [("authorised".to_owned(), json!([]), json!([payment]))]);
    // Backwards it is the same, the other way round.
    assert_eq!(
        changes(&told("--from 2 --to 1 --json").await),
        [("authorised".to_owned(), json!([payment]), json!([]))]
    );
    // Up to now, and by time; a payment's token is not told.
    let all = told("--from 1 --json").await;
    assert_eq!(all["to"]["version"], end.version);
    assert_eq!(told(&format!("--from {} --json", events[0].recorded_at.to_rfc3339())).await, all);
    let all = changes(&all);
    let of = |field: &str| all.iter().find(|c| c.0 == field).map(|c| (c.1.clone(), c.2.clone()));
    assert_eq!(of("status"), Some((json!("placed"), json!("confirmed"))));
    assert_eq!(of("edit.proposed.add[0].quantity"), Some((json!(null), json!(2))));
    assert_eq!(of("edit.proposed.payments[0].method.token"), Some((json!(null), json!("…"))));
    assert!(all.iter().all(|c| !c.0.starts_with("placed")), "{all:?}");
    // For people.
    let output = diff(&format!("--from 1 --to {}", proposed.version)).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let first = format!(
        "{stream}: version 1 ({}) → version {} ({})\n",
        events[0].recorded_at, proposed.version, proposed.recorded_at
    );
    assert!(text.starts_with(&first), "{text}");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(lines.contains(&vec!["status", "placed", "→", "confirmed"]), "{text}");
    assert!(lines.contains(&vec!["edit.proposed.add[0].sku", "none", "→", "mug"]), "{text}");
    assert!(!text.contains("tok_"), "{text}");
    let same = String::from_utf8(diff("--from 3 --to 3").await.stdout).unwrap();
    assert!(same.ends_with("\nno differences\n"), "{same}");

    let last = end.version;
    for (arguments, code, says) in [
        ("--from 99", 3, format!("daybook: {stream} has no version 99: it ends with version {last}\n")),
        ("--from 1 --to 99", 3, format!("daybook: {stream} has no version 99: it ends with version {last}\n")),
        (
            "--from 2001-01-01T00:00:00Z",
            3,
            format!("daybook: {stream} had no events at 2001-01-01 00:00:00 UTC: its first"),
        ),
        ("--from 0", 2, "error: invalid value '0' for '--from <VERSION|TIME>': a version from 1, or a time".into()),
        ("--from now", 2, "error: invalid value 'now' for '--from <VERSION|TIME>': a version from 1, or a time".into()),
        ("--to 2", 2, "error: the following required arguments were not provided:\n  --from".into()),
    ] {
        let output = diff(arguments).await;
        assert_eq!((output.status.code(), &*output.stdout), (Some(code), &b""[..]), "{arguments}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&says), "{arguments}: {stderr}");
    }
    let nobody = daybook(&system, &format!("order diff {} --from 1", id(7))).await;
    assert_eq!(nobody.status.code(), Some(3));
    assert_eq!(String::from_utf8(nobody.stderr).unwrap(), format!("daybook: there is no order-{}\n", id(7)));
}
