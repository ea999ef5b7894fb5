//! `daybook bench`: what the log does a second, beside what its own table and indexes could take at best, in the same
//! run on the same machine.

mod bound;
mod freshness;
mod load;
mod measure;
mod peer;
mod place;
mod project;
mod read;
mod relay;
mod replay;
mod seed;

use clap::ValueEnum;
use cli::{Failure, output, shutdown};
use measure::{Run, Window, median};
use order_views::{Projection, ReadModel};
use place::Place;
use serde::Serialize;
use std::time::Duration;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Appends of one event at an expected version.
    Append,
    /// Commands on random streams of ten events: load, decide, append. Nothing is cached.
    Command,
    /// The same with cached aggregates.
    Warm,
    /// Commands on one stream.
    Hot,
    /// All events in order, decoded.
    Read,
    /// Publishing the log to JetStream.
    Relay,
    /// A replay of the order summary: rebuild, compare, switch.
    Replay,
    /// The projection of the order summary, from the beginning of the log.
    Project,
    /// All projections at once. An event counts once for each projection.
    ProjectAll,
    /// Orders at a steady rate with their follow-ups: the time from a reply until the order summary shows the command.
    Freshness,
}

impl Workload {
    /// Whether several processes can share it.
    fn is_of_processes(self) -> bool {
        match self {
            Self::Append | Self::Command | Self::Warm | Self::Hot => true,
            Self::Read | Self::Relay | Self::Replay | Self::Project | Self::ProjectAll | Self::Freshness => false,
        }
    }
}

#[derive(clap::Args, Clone)]
pub struct Args {
    /// The workload to measure.
    workload: Workload,
    /// The number of concurrent clients in each process (append, command, warm, hot, freshness).
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// The number of processes that share the log (append, command, warm, hot).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    processes: u16,
    /// The number of commands per second, follow-ups included (freshness).
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// The duration of a run, in seconds (append, command, warm, hot, freshness). The others process all events once.
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// The time before a run is measured, in seconds.
    #[arg(long, default_value = "1", value_parser = seconds)]
    warmup: Duration,
    /// The number of runs. The result is their median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// The number of streams to write to (append, command, warm), or of events to read.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    size: Option<u32>,
    /// Measure on this Postgres instead of a private one, in a new database that is dropped afterwards. The login must
    /// be a superuser.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// One of several processes: measure once told to, on stdin.
    #[arg(long, hide = true)]
    join: bool,
}

impl Args {
    fn window(&self) -> Window {
        Window { warmup: self.warmup, measured: self.seconds }
    }
}

/// Up to an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = || "a number of seconds, from 0.001 to 3600".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wanted())?;
    if (0.001..=3600.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wanted()) }
}

/// A run of the workload and one of the bound, one right after the other.
struct Pair {
    run: Run,
    bound: Run,
    /// Of several processes, the least that one of them had of the whole.
    least_share: Option<f64>,
}

/// Measures, and prints what came of it.
///
/// # Errors
/// When a server cannot be used.
pub async fn run(args: Args, json: bool) -> Result<(), Failure> {
    if args.join {
        return peer::join(&args).await;
    }
    if args.processes > 1 && !args.workload.is_of_processes() {
        return Err(Failure::Usage("this is measured in one process: leave --processes out".into()));
    }
    let place = Place::prepare(args.server.as_deref()).await?;
    let measured = tokio::select! {
        measured = measure(&args, &place) => measured,
        () = shutdown::requested() => Err(Failure::Other("interrupted".into())),
    };
    place.clear().await;
    measured?.print(json)
}

async fn measure(args: &Args, place: &Place) -> Result<Report, Failure> {
    let (bound, pairs) = match args.workload {
        Workload::Append | Workload::Command | Workload::Warm | Workload::Hot => load::measure(args, place).await?,
        Workload::Read => read::measure(args, place).await?,
        Workload::Relay => relay::measure(args, place).await?,
        Workload::Replay => replay::measure(args, place).await?,
        Workload::Project => {
            let one = [Projection::ReadModel(ReadModel::OrderSummary)];
            project::measure(args, place, &one).await?
        }
        Workload::Freshness => freshness::measure(args, place).await?,
        Workload::ProjectAll => project::measure(args, place, &Projection::all().collect::<Vec<_>>()).await?,
    };
    Report::of(args, bound, &pairs)
}

/// What is printed. Rates are medians over the runs; percentiles are of all runs together.
#[derive(Serialize)]
struct Report {
    workload: String,
    clients: u16,
    processes: u16,
    ops_per_second: f64,
    /// None where nobody asks and waits.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    p999_ms: Option<f64>,
    bound: &'static str,
    bound_per_second: f64,
    /// The median of the runs' ratios.
    ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    least_share: Option<f64>,
    runs: u16,
    seconds: f64,
    version: &'static str,
}

impl Report {
    fn of(args: &Args, bound: &'static str, pairs: &[Pair]) -> Result<Self, Failure> {
        let mut latencies = measure::histogram()?;
        for pair in pairs {
            let added = latencies.add(&pair.run.latencies);
            added.map_err(|e| Failure::Other(format!("histograms do not add up: {e}")))?;
        }
        let of_all = |figure: fn(&Pair) -> f64| median(pairs.iter().map(figure).collect());
        let percentile = |percent| {
            let micros = latencies.value_at_percentile(percent) as f64;
            (!latencies.is_empty()).then(|| round(micros / 1000.0, 3))
        };
        let shares: Vec<f64> = pairs.iter().filter_map(|pair| pair.least_share).collect();
        Ok(Self {
            workload: args.workload.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default(),
            clients: if latencies.is_empty() { 1 } else { args.clients },
            processes: args.processes,
            ops_per_second: round(of_all(|pair| pair.run.per_second()), 0),
            p50_ms: percentile(50.0),
            p99_ms: percentile(99.0),
            p999_ms: percentile(99.9),
            bound,
            bound_per_second: round(of_all(|pair| pair.bound.per_second()), 0),
            ratio: round(of_all(|pair| pair.run.per_second() / pair.bound.per_second()), 3),
            least_share: (!shares.is_empty()).then(|| round(median(shares), 3)),
            runs: args.runs,
            seconds: args.seconds.as_secs_f64(),
            version: env!("CARGO_PKG_VERSION"),
        })
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            output::line(&serde_json::to_string(self)?);
            return Ok(());
        }
        let headings =
            ["workload", "clients", "processes", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "bound/s", "ratio"];
        let percentile = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| ms.to_string());
        let row = vec![
            self.workload.clone(),
            self.clients.to_string(),
            self.processes.to_string(),
            self.ops_per_second.to_string(),
            percentile(self.p50_ms),
            percentile(self.p99_ms),
            percentile(self.p999_ms),
            self.bound_per_second.to_string(),
            self.ratio.to_string(),
        ];
        output::line(&output::table(&headings, &[row]));
        output::line(&format!("bound: {}", self.bound));
        if let Some(share) = self.least_share {
            output::line(&format!("the process that had the least had {:.0} %", share * 100.0));
        }
        Ok(())
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
