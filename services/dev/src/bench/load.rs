//! The workloads that write: appends, and commands on random streams or on one.

use super::bound::{Bare, Inserting, Loading};
use super::measure::{self, Client, Run};
use super::place::Place;
use super::{Args, Pair, Workload, peer};
use chrono::Utc;
use cli::Failure;
use order_services::decide::OrderDecider;
use order_services::{Envelope, Executor};
use order_views::{CATEGORIES, encode, stream};
use orders::id::{Sku, StockId};
use orders::order::Order;
use orders::stock::{self, Stock};
use orders::{Aggregate, Command};
use rand::RngExt;
use runtime::executor::Decide;
use std::sync::Arc;
use store::connect::{self, Role};
use store::{
    Append, Appender, ExpectedVersion, Fingerprint, Loader, Log, Metadata, NewEvent, Origin, StreamAppend, StreamId,
    Version,
};
use uuid::Uuid;

/// How many events each stream has before commands are measured on it.
const SEEDED: i64 = 10;
const SEEDED_AT_ONCE: usize = 2000;

/// How many streams there are, if it is not said.
const STREAMS: u32 = 30_000;

pub(super) async fn measure(args: &Args, place: &Place) -> Result<(&'static str, Vec<Pair>), Failure> {
    let url = &place.database_url;
    if matches!(args.workload, Workload::Command | Workload::Warm) {
        seed(args, url).await?;
    }
    let mut pairs = Vec::new();
    for _ in 0..args.runs {
        let (run, least_share) = match args.processes {
            1 => (one_process(args, url).await?, None),
            _ => peer::run(args, url).await?,
        };
        let bare = Bare::connect(url).await?;
        let (rows, event) = (rows(args), event(args.workload)?);
        let bound = match args.workload {
            Workload::Command => {
                let streams = Arc::new(skus(args).iter().map(stream_of).collect());
                measure::run(vec![Loading { bare, rows, streams, event }], args.window()).await?
            }
            _ => {
                let streams = match args.workload {
                    Workload::Hot => new_streams(1),
                    _ => new_streams(args.size.unwrap_or(STREAMS) as usize),
                };
                measure::run(vec![Inserting { bare, rows, streams, next: 0, event }], args.window()).await?
            }
        };
        pairs.push(Pair { run, bound, least_share });
    }
    let bound = match (args.workload, rows(args)) {
        (Workload::Command, 38) => "one connection: = ANY load of 38 streams, bare UNNEST insert of 38 rows",
        (Workload::Command, _) => "one connection: = ANY load of 137 streams, bare UNNEST insert of 137 rows",
        (_, 1) => "one connection: bare one-row INSERT",
        (_, 38) => "one connection: bare UNNEST insert of 38 rows",
        (..) => "one connection: bare UNNEST insert of 137 rows",
    };
    Ok((bound, pairs))
}

/// How many rows the bound writes at a time: about as many as so many clients have waiting.
fn rows(args: &Args) -> usize {
    match u32::from(args.clients) * u32::from(args.processes) {
        1 => 1,
        2..=64 => 38,
        _ => 137,
    }
}

/// The workload, by this process alone.
pub(super) async fn one_process(args: &Args, url: &str) -> Result<Run, Failure> {
    let appender = Appender::start(url)?;
    if args.workload == Workload::Append {
        let each = (args.size.unwrap_or(STREAMS) as usize).div_ceil(usize::from(args.clients));
        let event = event(args.workload)?;
        let client =
            || Appending { appender: appender.clone(), streams: new_streams(each), next: 0, event: event.clone() };
        let clients: Vec<_> = std::iter::repeat_with(client).take(args.clients.into()).collect();
        return measure::run(clients, args.window()).await;
    }
    let log = Log::new(connect::pool(url, Role::Read, 4)?, CATEGORIES);
    let loader = Loader::start(url, OrderDecider::SNAPSHOT_VERSION, appender.history())?;
    let executor = match args.workload {
        Workload::Command => Executor::without_cache(log, loader, appender),
        _ => Executor::new(log, loader, appender),
    };
    let skus = Arc::new(skus(args));
    if args.workload == Workload::Warm {
        // All of them are kept before anything is measured.
        let clients = usize::from(args.clients);
        let touch = |client: usize| {
            let (executor, skus) = (executor.clone(), skus.clone());
            async move {
                for sku in skus.iter().skip(client).step_by(clients) {
                    receive(&executor, sku).await?;
                }
                Ok::<_, Failure>(())
            }
        };
        let mut touching = tokio::task::JoinSet::new();
        (0..clients).for_each(|client| _ = touching.spawn(touch(client)));
        while let Some(touched) = touching.join_next().await {
            touched.map_err(|e| Failure::Other(e.to_string()))??;
        }
    }
    let client = || Commanding { executor: executor.clone(), skus: skus.clone() };
    let clients: Vec<_> = std::iter::repeat_with(client).take(args.clients.into()).collect();
    measure::run(clients, args.window()).await
}

fn new_streams(count: usize) -> Vec<(StreamId, Version)> {
    (0..count).map(|_| (stream::<Order>(Uuid::now_v7()), 0)).collect()
}

/// The SKUs that commands are about: the same ones for all processes and runs.
fn skus(args: &Args) -> Vec<Sku> {
    let count = match args.workload {
        Workload::Hot => 1,
        _ => args.size.unwrap_or(STREAMS),
    };
    (0..count).filter_map(|n| Sku::new(format!("bench-{n}")).ok()).collect()
}

fn stream_of(sku: &Sku) -> StreamId {
    stream::<Stock>(StockId::from(sku).0)
}

/// What is appended: 250 bytes of payload; of commands, what they lead to.
fn event(workload: Workload) -> Result<NewEvent, Failure> {
    if workload == Workload::Append {
        let payload = format!(r#"{{"note":"{}"}}"#, "n".repeat(239));
        return Ok(NewEvent { event_type: "OrderNoted".into(), schema_version: 1, payload: payload.into() });
    }
    let sku = Sku::new("bench-00000").map_err(|e| Failure::Other(e.to_string()))?;
    let received = stock::StockReceived { sku: sku.clone(), quantity: 1 };
    Ok(encode(&Stock::event(StockId::from(&sku).0, received.into())))
}

async fn seed(args: &Args, url: &str) -> Result<(), Failure> {
    let mut bare = Bare::connect(url).await?;
    for skus in skus(args).chunks(SEEDED_AT_ONCE / SEEDED as usize) {
        let mut events = Vec::new();
        for version in 1..=SEEDED {
            for sku in skus {
                let stream = stream_of(sku);
                let received = stock::StockReceived { sku: sku.clone(), quantity: 1 };
                events.push((stream, version, encode(&Stock::event(stream.id, received.into()))));
            }
        }
        bare.insert(&events).await?;
    }
    bare.settle().await
}

/// Appends one event at a time to its streams in turn.
struct Appending {
    appender: Appender,
    streams: Vec<(StreamId, Version)>,
    next: usize,
    event: NewEvent,
}

impl Client for Appending {
    async fn once(&mut self) -> Result<u64, Failure> {
        let count = self.streams.len();
        let (stream, version) = &mut self.streams[self.next % count];
        let expected = match *version {
            0 => ExpectedVersion::NoStream,
            version => ExpectedVersion::Exact(version),
        };
        let metadata = Metadata {
            correlation_id: stream.id,
            causation_id: None,
            command_id: Uuid::now_v7(),
            fingerprint: Fingerprint([7; 16]),
            actor: "bench".into(),
            origin: Origin::Live,
            occurred_at: Utc::now(),
            traceparent: None,
        };
        let streams = vec![StreamAppend { stream: *stream, expected, events: vec![self.event.clone()] }];
        let appended = self.appender.append(Append { metadata, streams }).await;
        appended.map_err(|e| Failure::Other(e.to_string()))?;
        *version += 1;
        self.next += 1;
        Ok(1)
    }
}

/// Receives a piece of a SKU, of one at random.
struct Commanding {
    executor: Executor,
    skus: Arc<Vec<Sku>>,
}

impl Client for Commanding {
    async fn once(&mut self) -> Result<u64, Failure> {
        let sku = &self.skus[rand::rng().random_range(0..self.skus.len())];
        receive(&self.executor, sku).await?;
        Ok(1)
    }
}

async fn receive(executor: &Executor, sku: &Sku) -> Result<(), Failure> {
    let envelope = Envelope {
        command_id: Uuid::now_v7(),
        command: Command::Stock(stock::Command::Receive { sku: sku.clone(), quantity: 1 }),
        actor: "bench".into(),
        correlation_id: None,
        causation_id: None,
        occurred_at: Utc::now(),
        traceparent: None,
    };
    executor.execute(&envelope).await.map(drop).map_err(|e| Failure::Other(e.to_string()))
}
