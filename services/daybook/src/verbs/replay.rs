//! `daybook replay PROJECTION`: a read model, rebuilt from the log beside the live one.

use chrono::{DateTime, Utc};
use cli::config::Servers;
use cli::{Failure, output, target};
use engine::codec;
use engine::{Comparison, Difference, ReadModel as _};
use order_views::{CATEGORIES, Orders, ReadModel, stream as stream_of};
use orders::order::Order;
use runtime::readable;
use runtime::replay::{Copied, CopyName, Mode, Part, ReplayError, Replayed, copy, replay};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use store::connect::{self, Role};
use store::{Filter, Log, Position};

/// How often progress is told as JSON.
const TOLD: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Args {
    /// The read model: order_summary, stock_level, event_index, waiting, order_history, fulfilment or revenue.
    #[arg(value_parser = parse)]
    projection: ReadModel,
    /// Only build and compare. The live rows stay.
    #[arg(long, conflicts_with = "undo")]
    dry_run: bool,
    /// Switch back to the rows from before the last replay, after bringing them up to date.
    #[arg(long)]
    undo: bool,
    /// Build a copy in the table daybook_copies.NAME instead. The live rows stay.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dry_run", "undo"])]
    into: Option<CopyName>,
    /// With --into: the state of the read model at this time, such as 2026-11-01T00:00:00Z.
    #[arg(long, value_name = "TIME", requires = "into", conflicts_with = "to")]
    as_of: Option<DateTime<Utc>>,
    /// With --into: only these events. An order's stream, such as order-0199…, includes its payments, stock and
    /// shipments; any other stream, or a category, stands for itself.
    #[arg(long, value_name = "STREAM|CATEGORY", requires = "into", value_parser = parse_only)]
    only: Option<Filter>,
    /// With --into: begin with the event at this position. Whatever began before it has no rows.
    #[arg(long, value_name = "POSITION", requires = "into", value_parser = clap::value_parser!(i64).range(1..))]
    from: Option<Position>,
    /// With --into: end with the event at this position.
    #[arg(long, value_name = "POSITION", requires = "into", value_parser = clap::value_parser!(i64).range(1..))]
    to: Option<Position>,
}

fn parse(name: &str) -> Result<ReadModel, String> {
    let names = || ReadModel::ALL.iter().map(|model| model.name()).collect::<Vec<_>>().join(", ");
    ReadModel::from_name(name).ok_or_else(|| format!("the read models are {}", names()))
}

/// Which events are meant by a stream or a category: of an order, also those of its payments, stock and shipments.
fn parse_only(name: &str) -> Result<Filter, String> {
    let stream = codec::parse_stream(CATEGORIES, name);
    let category = codec::parse_category(CATEGORIES, name);
    match stream {
        Some(stream) if stream == stream_of::<Order>(stream.id) => {
            Ok(Filter { correlation_id: Some(stream.id), ..Filter::default() })
        }
        Some(_) => Ok(Filter { stream, ..Filter::default() }),
        None if category.is_some() => Ok(Filter { category, ..Filter::default() }),
        None => Err(format!(
            "neither a stream, such as order-0199…, nor a category: these are {}",
            CATEGORIES.iter().map(|category| category.name).collect::<Vec<_>>().join(", ")
        )),
    }
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let database_url = target::database_url(servers)?;
    let read = connect::checked_pool(&database_url, Role::Read, 1).await?;
    let log = Log::new(read.clone(), CATEGORIES);
    log.identity().await?;
    readable::check::<Orders>(&read).await?;
    let pool = connect::checked_pool(&database_url, Role::Project, 4).await?;
    if let Some(name) = &args.into {
        return run_copy(args, name, &log, &pool, json).await;
    }
    let mode = match args {
        Args { dry_run: true, .. } => Mode::DryRun,
        Args { undo: true, .. } => Mode::Undo,
        _ => Mode::Switch,
    };
    let mut progress = Progress::new(args.projection, json);
    let replayed = replay(&log, &pool, args.projection, mode, |position, target| progress.tell(position, target)).await;
    progress.bar.finish_and_clear();
    let replayed = replayed.map_err(failure)?;
    print(&replayed, json)?;
    match &replayed.compared {
        Some(compared) if !replayed.switched && compared.differences() > 0 => {
            Err(Failure::Differs(format!("{} rows differ from the log", compared.differences())))
        }
        _ => Ok(()),
    }
}

async fn run_copy(args: &Args, name: &CopyName, log: &Log, pool: &PgPool, json: bool) -> Result<(), Failure> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        return Err(Failure::Usage(format!("--from {from} is after --to {to}")));
    }
    let part = Part { filter: args.only.clone().unwrap_or_default(), from: args.from, to: args.to, as_of: args.as_of };
    let mut progress = Progress::new(args.projection, json);
    let copied = copy(log, pool, args.projection, &part, name, |position, to| progress.tell(position, to)).await;
    progress.bar.finish_and_clear();
    let copied = copied.map_err(failure)?;
    if json {
        output::line(&serde_json::to_string(&copied)?);
        return Ok(());
    }
    let Copied { projection, table, position, events, rows, left_out, seconds } = copied;
    output::line(&format!(
        "{projection}: {rows} rows of {events} events, up to position {position}, in {seconds:.1} s: SELECT * FROM {table}"
    ));
    if left_out > 0 {
        output::line(&format!("{left_out} keys have events that cannot be applied: their rows end before those"));
    }
    Ok(())
}

pub(super) fn failure(error: ReplayError) -> Failure {
    match error {
        ReplayError::Busy(_) | ReplayError::NothingKept(_) | ReplayError::NameTaken(_) => {
            Failure::Refused(error.to_string())
        }
        error => Failure::beneath(error.failure(), error.to_string()),
    }
}

/// How far it is: a bar, or an object at first and then one a second.
struct Progress {
    projection: ReadModel,
    bar: output::ProgressBar,
    json: bool,
    begun: Instant,
    from: Option<Position>,
    told: Option<Instant>,
}

impl Progress {
    fn new(projection: ReadModel, json: bool) -> Self {
        let bar = if json { output::ProgressBar::hidden() } else { output::bar(0, projection.name()) };
        Self { projection, bar, json, begun: Instant::now(), from: None, told: None }
    }

    fn tell(&mut self, position: Position, target: Position) {
        self.bar.set_length(target.max(position) as u64);
        self.bar.set_position(position as u64);
        let from = *self.from.get_or_insert(position);
        if self.json && self.told.is_none_or(|told| told.elapsed() >= TOLD) {
            self.told = Some(Instant::now());
            let rate = (position - from) as f64 / self.begun.elapsed().as_secs_f64();
            let left = (rate > 0.0).then(|| (target - position) as f64 / rate);
            output::say(
                &json!({
                    "projection": self.projection.name(),
                    "position": position,
                    "target": target,
                    "events_per_second": rate.round(),
                    "seconds_left": left.map(f64::round),
                })
                .to_string(),
            );
        }
    }
}

pub(super) fn print(replayed: &Replayed, json: bool) -> Result<(), Failure> {
    if json {
        output::line(&serde_json::to_string(&replayed)?);
        return Ok(());
    }
    let Replayed { projection, position, events, seconds, .. } = replayed;
    let rate = *events as f64 / seconds.max(0.001);
    output::line(&format!(
        "{projection}: {events} events in {seconds:.1} s, {rate:.0} a second, up to position {position}"
    ));
    if let Some(compared) = &replayed.compared {
        print_comparison(compared);
    }
    output::line(match (replayed.switched, &replayed.compared) {
        (true, Some(_)) => "the rebuilt rows are live; --undo goes back to the rows from before",
        (true, None) => "the rows from before the last replay are live again",
        (false, _) => "nothing was changed",
    });
    Ok(())
}

fn print_comparison(compared: &Comparison) {
    let Comparison { rows, missing, surplus, different, examples } = compared;
    if compared.differences() == 0 {
        return output::line(&format!("{rows} rows, equal to the live ones"));
    }
    output::line(&format!(
        "{rows} rows; of the live ones, {different} were different, {missing} were missing and {surplus} should not be there:"
    ));
    examples.iter().for_each(|difference| output::line(&format!("  {}", told(difference))));
    let more = compared.differences() - examples.len() as i64;
    if more > 0 {
        output::line(&format!("  … and {more} more"));
    }
}

/// A difference in one line: the key, and the columns that differ or the whole row if there is but one.
fn told(Difference { key, before, rebuilt }: &Difference) -> String {
    let values = key.as_object().into_iter().flat_map(|key| key.values());
    let values = values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let key = values.collect::<Vec<_>>().join(", ");
    match (before, rebuilt) {
        (Some(Value::Object(before)), Some(Value::Object(rebuilt))) => {
            let null = Value::Null;
            let was = |name: &String| before.get(name).unwrap_or(&null);
            let other = rebuilt.iter().filter(|(name, value)| was(name) != *value);
            let changed = other.map(|(name, value)| format!("{name} was {} and is {value}", was(name)));
            format!("{key}: {}", changed.collect::<Vec<_>>().join(", "))
        }
        (None, Some(row)) => format!("{key} was missing: {row}"),
        (Some(row), _) => format!("{key} should not be there: {row}"),
        (None, None) => key,
    }
}
