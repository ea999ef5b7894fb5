//! Daybook's benchmark workloads on the other event stores for Postgres in Rust, so that a comparison can be repeated:
//! one library, one workload and one number of clients a call. README.md says how; `run` calls it for all of them.

mod disintegrate_postgres;
mod esrs;
mod event;
mod postgres_es;
mod report;

use crate::disintegrate_postgres::DisintegratePostgres;
use crate::esrs::Esrs;
use crate::postgres_es::PostgresEs;
use clap::{Parser, ValueEnum};
use event::NoteEvent;
use hdrhistogram::Histogram;
use report::Report;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgPool};
use std::collections::HashMap;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use uuid::Uuid;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Recorded in each stream before anything is measured.
const SEEDED: u32 = 10;

#[derive(Parser)]
#[command(
    version,
    args_override_self = true,
    about = "Run Daybook's benchmark workloads on another event store for Postgres"
)]
struct Args {
    /// A Postgres that nothing else uses; a database is created in it, and dropped at the end.
    #[arg(long, env, hide_env_values = true)]
    database_url: String,
    #[arg(long)]
    library: Library,
    #[arg(long)]
    workload: Workload,
    /// How many send at once, each waiting for its answer. One reads.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Connections. By default 64, and for `hot` what was measured to be best.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pool: Option<u32>,
    /// Of each run. Reading takes as long as it takes.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds before the first run that do not count.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How many there are beforehand, of 10 events each.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..))]
    streams: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Library {
    PostgresEs,
    DisintegratePostgres,
    Esrs,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Workload {
    /// The first event of a new stream, which must be new.
    Append,
    /// Load a random stream, decide, append one event.
    Command,
    /// The same on one stream, which is new in each run.
    Hot,
    /// All events, in order, decoded.
    Read,
}

/// What each library does in its own way.
trait Peer: Sized + Send + Sync + 'static {
    /// Its name on crates.io.
    const PACKAGE: &'static str;

    /// In an empty database.
    fn create(pool: PgPool) -> impl Future<Output = Result<Self>>;

    /// Records whole streams, as fast as can be, as if they had been recorded one event at a time.
    fn seed(&self, events: Vec<NoteEvent>) -> impl Future<Output = Result<()>>;

    /// How many connections are best for `hot`, with so many clients. Of few, fewer are in conflict.
    fn hot_pool(_clients: u32) -> u32 {
        4
    }

    /// An id for `append`.
    fn new_stream() -> Uuid {
        Uuid::now_v7()
    }

    /// Appends the first event of `stream`, expecting that there is none.
    fn append(&self, stream: Uuid) -> impl Future<Output = Result<Outcome>> + Send;

    /// Loads `stream`, decides, and appends what was decided, expecting that nothing has been appended since.
    fn command(&self, stream: Uuid) -> impl Future<Output = Result<Outcome>> + Send;

    /// The same, where many want the same stream, if the library has a better way for that.
    fn contended_command(&self, stream: Uuid) -> impl Future<Output = Result<Outcome>> + Send {
        self.command(stream)
    }

    /// Reads all events, at least each stream's in order.
    fn read(&self, each: impl FnMut(NoteEvent) + Send) -> impl Future<Output = Result<()>>;
}

enum Outcome {
    Recorded,
    /// Somebody else was faster, or the library thinks so. Nothing is recorded, and the client tries again at once.
    Conflict,
}

#[tokio::main]
async fn main() -> ExitCode {
    match in_a_new_database(&Args::parse()).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn in_a_new_database(args: &Args) -> Result<String> {
    let options: PgConnectOptions = args.database_url.parse()?;
    let mut server = options.connect().await?;
    let database = format!("peers_{}", std::process::id());
    server.execute(&*format!("CREATE DATABASE {database}")).await?;
    let database_options = options.database(&database);
    let measured = async {
        match args.library {
            Library::PostgresEs => measure::<PostgresEs>(database_options, args).await,
            Library::DisintegratePostgres => measure::<DisintegratePostgres>(database_options, args).await,
            Library::Esrs => measure::<Esrs>(database_options, args).await,
        }
    };
    let report = tokio::select! {
        report = measured => report,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    server.execute(&*format!("DROP DATABASE {database} WITH (FORCE)")).await?;
    server.close().await?;
    let report = report?;
    Ok(if args.json { serde_json::to_string(&report)? } else { report.table() })
}

async fn measure<P: Peer>(database: PgConnectOptions, args: &Args) -> Result<Report> {
    let connections = args.pool.unwrap_or(match args.workload {
        Workload::Hot => P::hot_pool(args.clients),
        _ => 64,
    });
    // Asking each connection whether it still lives, before each use, would be one more round trip.
    let pool = PgPoolOptions::new().max_connections(connections).test_before_acquire(false);
    let pool = pool.connect_with(database).await?;
    for setting in ["fsync", "synchronous_commit"] {
        let value: String = sqlx::query_scalar(&format!("SHOW {setting}")).fetch_one(&pool).await?;
        if value != "on" {
            return Err(format!("{setting} is {value}, but what is measured must survive a crash").into());
        }
    }
    let peer = Arc::new(P::create(pool.clone()).await?);

    let streams: Arc<[Uuid]> = (0..args.streams).map(|_| Uuid::now_v7()).collect();
    for some in streams.chunks(1_000) {
        let events = some.iter().flat_map(|stream| (0..SEEDED).map(|notes| NoteEvent::after(notes, *stream)));
        peer.seed(events.collect()).await?;
    }
    // The statistics of a log in use, and no share of the first run in writing what was seeded.
    pool.execute("VACUUM (ANALYZE)").await?;
    pool.execute("CHECKPOINT").await?;

    let run = async |seconds| {
        let target = match args.workload {
            Workload::Read => return read(&*peer).await,
            Workload::Append => Target::NewStream,
            Workload::Command => Target::RandomOf(streams.clone()),
            Workload::Hot => Target::One(Uuid::now_v7()),
        };
        load(&peer, target, args.clients, Duration::from_secs(seconds)).await
    };
    let mut recorded = u64::from(args.streams) * u64::from(SEEDED);
    let mut runs = Vec::new();
    if args.warmup > 0 {
        recorded += run(args.warmup).await?.recorded;
    }
    for _ in 0..args.runs {
        let run = run(args.seconds).await?;
        recorded += run.recorded;
        runs.push(run);
    }
    let lost_updates = check(&*peer, recorded).await?;
    Ok(Report::new(P::PACKAGE, args, connections, &runs, lost_updates))
}

/// Where the clients of a run append.
#[derive(Clone)]
enum Target {
    NewStream,
    RandomOf(Arc<[Uuid]>),
    One(Uuid),
}

struct Run {
    recorded: u64,
    per_second: f64,
    conflicts: u64,
    /// In microseconds, from the first try to success.
    latencies: Histogram<u64>,
}

/// Keeps `clients` busy for `time`. What has begun by then is finished, and counted with the time it takes.
async fn load<P: Peer>(peer: &Arc<P>, target: Target, clients: u32, time: Duration) -> Result<Run> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(client(peer.clone(), target.clone(), started + time));
    }
    let (mut conflicts, mut latencies) = (0, Histogram::new(3)?);
    while let Some(done) = tasks.join_next().await {
        let (its_conflicts, its_latencies) = done??;
        conflicts += its_conflicts;
        latencies.add(its_latencies)?;
    }
    let recorded = latencies.len();
    Ok(Run { recorded, per_second: recorded as f64 / started.elapsed().as_secs_f64(), conflicts, latencies })
}

async fn client<P: Peer>(peer: Arc<P>, target: Target, until: Instant) -> Result<(u64, Histogram<u64>)> {
    let (mut conflicts, mut latencies) = (0, Histogram::new(3)?);
    while Instant::now() < until {
        let stream = match &target {
            Target::NewStream => P::new_stream(),
            Target::RandomOf(streams) => streams[fastrand::usize(..streams.len())],
            Target::One(stream) => *stream,
        };
        let started = Instant::now();
        loop {
            let outcome = match target {
                Target::NewStream => peer.append(stream).await?,
                Target::RandomOf(_) => peer.command(stream).await?,
                Target::One(_) => peer.contended_command(stream).await?,
            };
            match outcome {
                Outcome::Recorded => break,
                Outcome::Conflict => conflicts += 1,
            }
        }
        latencies.record(started.elapsed().as_micros() as u64)?;
    }
    Ok((conflicts, latencies))
}

async fn read<P: Peer>(peer: &P) -> Result<Run> {
    let started = Instant::now();
    let mut events = 0_u64;
    peer.read(|event| {
        std::hint::black_box(event);
        events += 1;
    })
    .await?;
    let per_second = events as f64 / started.elapsed().as_secs_f64();
    Ok(Run { recorded: 0, per_second, conflicts: 0, latencies: Histogram::new(3)? })
}

/// Reads everything back through the library: every acknowledged event must be there, once. Returns how many have not the
/// number of their place in the stream: they were decided without having seen the one before, and recorded all the same.
async fn check<P: Peer>(peer: &P, recorded: u64) -> Result<u64> {
    let mut places: HashMap<Uuid, u32> = HashMap::new();
    let (mut found, mut lost_updates) = (0, 0);
    peer.read(|NoteEvent::Noted { stream_id, number, .. }| {
        let place = places.entry(stream_id).or_default();
        *place += 1;
        lost_updates += u64::from(number != *place);
        found += 1;
    })
    .await?;
    match found == recorded {
        true => Ok(lost_updates),
        false => Err(format!("{recorded} events were acknowledged, {found} are there").into()),
    }
}
