//! `daybook replay PROJECTION`: a read model, rebuilt from the log beside the live one.

use super::{Failure, output, target};
use crate::config::Servers;
use crate::replay::{Mode, ReplayError, Replayed, replay};
use crate::{codec, readable};
use projections::{Comparison, Difference, ReadModel};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use store::connect::{self, Role};
use store::{Log, Position};

/// How often progress is told as JSON.
const TOLD: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Args {
    /// The read model: order_summary, stock_level, event_index, order_history, fulfilment or revenue.
    #[arg(value_parser = parse)]
    projection: ReadModel,
    /// Only compare: build it, tell what differs, and leave the live rows.
    #[arg(long, conflicts_with = "undo")]
    dry_run: bool,
    /// Go back to the rows that were live before the last replay, brought up to date.
    #[arg(long)]
    undo: bool,
}

fn parse(name: &str) -> Result<ReadModel, String> {
    let names = || ReadModel::ALL.map(ReadModel::name).join(", ");
    ReadModel::from_name(name).ok_or_else(|| format!("the read models are {}", names()))
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let urls = target::urls(servers)?;
    let read = connect::pool(&urls.database_url, Role::Read, 1)?;
    let log = Log::new(read.clone(), codec::CATEGORIES);
    log.identity().await?;
    readable::check(&read).await?;
    let pool = connect::pool(&urls.database_url, Role::Project, 4)?;
    let mode = match args {
        Args { dry_run: true, .. } => Mode::DryRun,
        Args { undo: true, .. } => Mode::Undo,
        _ => Mode::Switch,
    };
    let mut progress = Progress::new(args.projection, json);
    let replayed = replay(&log, &pool, args.projection, mode, |position, target| progress.tell(position, target)).await;
    progress.bar.finish_and_clear();
    let replayed = replayed.map_err(|e| match e {
        ReplayError::Busy(_) | ReplayError::NothingKept(_) => Failure::Refused(e.to_string()),
        e => Failure::Unavailable(e.to_string()),
    })?;
    if json {
        output::line(&serde_json::to_string(&replayed)?);
    } else {
        print(&replayed);
    }
    match &replayed.compared {
        Some(compared) if !replayed.switched && compared.differences() > 0 => {
            Err(Failure::Differs(format!("{} rows are not what the log says", compared.differences())))
        }
        _ => Ok(()),
    }
}

/// How far it is: a bar, or an object at first and then one a second.
struct Progress {
    projection: ReadModel,
    bar: indicatif::ProgressBar,
    json: bool,
    begun: Instant,
    from: Option<Position>,
    told: Option<Instant>,
}

impl Progress {
    fn new(projection: ReadModel, json: bool) -> Self {
        let bar = if json { indicatif::ProgressBar::hidden() } else { output::bar(0, projection.name()) };
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

fn print(replayed: &Replayed) {
    let Replayed { projection, position, events, seconds, .. } = replayed;
    let rate = *events as f64 / seconds.max(0.001);
    output::line(&format!(
        "{projection}: {events} events in {seconds:.1} s, {rate:.0} a second, up to position {position}"
    ));
    if let Some(compared) = &replayed.compared {
        print_comparison(compared);
    }
    output::line(match (replayed.switched, &replayed.compared) {
        (true, Some(_)) => "the rebuilt rows are live; the ones before are kept: --undo goes back to them",
        (true, None) => "the rows from before the last replay are live again; the others are kept",
        (false, _) => "nothing was changed",
    });
}

fn print_comparison(compared: &Comparison) {
    let Comparison { rows, missing, surplus, different, examples } = compared;
    if compared.differences() == 0 {
        return output::line(&format!("{rows} rows, the same as the live ones"));
    }
    output::line(&format!(
        "{rows} rows; of the live ones {different} were different, {missing} were missing and {surplus} were too many:"
    ));
    examples.iter().for_each(|difference| output::line(&format!("  {}", told(difference))));
    let more = compared.differences() - examples.len() as i64;
    if more > 0 {
        output::line(&format!("  … and {more} more"));
    }
}

/// A difference in one line: the whole row if there is but one, else the columns that differ.
fn told(Difference { before, rebuilt }: &Difference) -> String {
    match (before, rebuilt) {
        (Some(Value::Object(before)), Some(Value::Object(rebuilt))) => {
            let (same, other): (Vec<_>, Vec<_>) =
                rebuilt.iter().partition(|(name, value)| before.get(*name) == Some(value));
            let key = same.first().map_or(String::new(), |(name, value)| format!("{name} {value}: "));
            let null = Value::Null;
            let changed = other
                .iter()
                .map(|(name, value)| format!("{name} was {} and is {value}", before.get(*name).unwrap_or(&null)));
            format!("{key}{}", changed.collect::<Vec<_>>().join(", "))
        }
        (None, Some(row)) => format!("missing: {row}"),
        (Some(row), _) => format!("too many: {row}"),
        (None, None) => String::new(),
    }
}
