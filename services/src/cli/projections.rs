//! `daybook projections`: how far each of them is, and what keeps it from being further.

use super::{Failure, output, target};
use crate::codec;
use crate::config::Servers;
use crate::redrive::{RedriveError, redrive};
use projections::Projection;
use projections::parked::Parked;
use serde_json::json;
use std::time::Duration;
use store::Log;
use store::checkpoint::{self, Status};
use store::connect::{self, Role};
use uuid::Uuid;

/// How long their rates are measured.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long one that has something to do may stand still.
const STALLED_SECONDS: f64 = 10.0;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Have a projection stand still, whichever process runs it.
    Pause {
        #[arg(value_parser = parse)]
        projection: Projection,
    },
    /// Have it go on.
    Resume {
        #[arg(value_parser = parse)]
        projection: Projection,
    },
    /// List the events that could not be taken in, with the cause, and those that wait behind them.
    Parked {
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=500))]
        limit: i64,
    },
    /// Take in what is parked of a key, once what was wrong is mended: harmless twice.
    Redrive {
        #[arg(value_parser = parse)]
        projection: Projection,
        /// As `parked` lists it: an order's id, or a stream's.
        key: Uuid,
    },
}

fn parse(name: &str) -> Result<Projection, String> {
    let names = || Projection::ALL.map(Projection::name).join(", ");
    let found = Projection::ALL.into_iter().find(|projection| projection.name() == name);
    found.ok_or_else(|| format!("the projections are {}", names()))
}

pub(super) async fn run(args: Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let urls = target::urls(servers)?;
    let (projection, paused) = match args.verb {
        None => return list(&urls.database_url, json).await,
        Some(Verb::Pause { projection }) => (projection, true),
        Some(Verb::Resume { projection }) => (projection, false),
        Some(Verb::Parked { limit }) => return parked(&urls.database_url, limit, json).await,
        Some(Verb::Redrive { projection, key }) => return redriven(&urls.database_url, projection, key, json).await,
    };
    let pool = connect::pool(&urls.database_url, Role::Project, 1)?;
    checkpoint::pause(&pool, projection.name(), paused).await?;
    let name = projection.name();
    if json {
        output::line(&json!({ "projection": name, "paused": paused }).to_string());
    } else {
        output::line(&format!("{name} {}", if paused { "stands still within a second" } else { "goes on" }));
    }
    Ok(())
}

async fn parked(database_url: &str, limit: i64, json: bool) -> Result<(), Failure> {
    let pool = connect::pool(database_url, Role::Read, 1)?;
    let parked = projections::parked::list(&pool, None, limit).await?;
    if json {
        for one in &parked {
            output::line(&serde_json::to_string(one)?);
        }
        return Ok(());
    }
    let row = |one: &Parked| {
        let cause = one.cause.clone().unwrap_or_else(|| "waits for one before it".to_owned());
        vec![one.projection.clone(), one.key.to_string(), one.position.to_string(), one.event_type.clone(), cause]
    };
    let rows: Vec<_> = parked.iter().map(row).collect();
    output::line(&output::table(&["projection", "key", "position", "event", "cause"], &rows));
    Ok(())
}

async fn redriven(database_url: &str, projection: Projection, key: Uuid, json: bool) -> Result<(), Failure> {
    let read = connect::pool(database_url, Role::Read, 2)?;
    let pool = connect::pool(database_url, Role::Project, 1)?;
    let log = Log::new(read.clone(), codec::CATEGORIES);
    let events = redrive(&log, &read, &pool, projection, key).await.map_err(|e| match e {
        RedriveError::Decode(_) => Failure::Refused(e.to_string()),
        RedriveError::Log(_) | RedriveError::Database(_) => Failure::Unavailable(e.to_string()),
    })?;
    let name = projection.name();
    if json {
        output::line(&json!({ "projection": name, "key": key, "events": events }).to_string());
    } else {
        output::line(&format!("{name}: {events} events of {key} are taken in"));
    }
    Ok(())
}

/// One of them, with how many events a second it takes in now.
struct Shown {
    status: Status,
    rate: f64,
}

impl Shown {
    /// In a word.
    fn state(&self) -> &'static str {
        let Status { paused, owned, lag_events, moved_seconds_ago, .. } = self.status;
        let ours = Projection::ALL.into_iter().find(|projection| projection.name() == self.status.projection);
        if paused {
            "paused"
        } else if ours.is_some_and(|ours| ours.version() != self.status.version) {
            "other version"
        } else if self.status.last_error.is_some() {
            "failing"
        } else if !owned {
            "not running"
        } else if lag_events == 0 {
            "idle"
        } else if moved_seconds_ago > STALLED_SECONDS {
            "stalled"
        } else {
            "running"
        }
    }

    /// Until it has all there is now, in seconds; `None` if it does not move.
    fn left(&self) -> Option<f64> {
        match self.status.lag_events {
            0 => Some(0.0),
            lag if self.rate > 0.0 => Some((lag as f64 / self.rate).ceil()),
            _ => None,
        }
    }
}

async fn list(database_url: &str, json: bool) -> Result<(), Failure> {
    let pool = connect::pool(database_url, Role::Read, 1)?;
    let before = checkpoint::status(&pool).await?;
    tokio::time::sleep(SAMPLE).await;
    let now = checkpoint::status(&pool).await?;
    let shown = now.into_iter().map(|status| {
        let before = before.iter().find(|before| before.projection == status.projection);
        let moved = before.map_or(0, |before| status.position - before.position).max(0);
        Shown { rate: moved as f64 / SAMPLE.as_secs_f64(), status }
    });
    let shown: Vec<Shown> = shown.collect();
    if json {
        shown.iter().for_each(|one| output::line(&as_json(one).to_string()));
        return Ok(());
    }
    let headings = ["projection", "position", "behind", "seconds", "a second", "left", "parked", "state"];
    let row = |one: &Shown| {
        let Status { projection, position, lag_events, lag_seconds, parked, .. } = &one.status;
        let left = one.left().map_or("-".to_owned(), |left| left.to_string());
        vec![
            projection.clone(),
            position.to_string(),
            lag_events.to_string(),
            format!("{lag_seconds:.1}"),
            one.rate.to_string(),
            left,
            parked.to_string(),
            one.state().to_owned(),
        ]
    };
    output::line(&output::table(&headings, &shown.iter().map(row).collect::<Vec<_>>()));
    for one in &shown {
        if let Some(error) = &one.status.last_error {
            output::line(&format!("{}: {error}", one.status.projection));
        }
        if let Some(position) = one.status.rebuilt_to {
            output::line(&format!("{}: rebuilt up to position {position}", one.status.projection));
        }
    }
    Ok(())
}

fn as_json(one: &Shown) -> serde_json::Value {
    let Status { projection, position, version, lag_events, lag_seconds, last_error, parked, rebuilt_to, kept, .. } =
        &one.status;
    json!({
        "projection": projection,
        "position": position,
        "version": version,
        "state": one.state(),
        "lag_events": lag_events,
        "lag_seconds": lag_seconds,
        "events_per_second": one.rate,
        "seconds_left": one.left(),
        "parked": parked,
        "last_error": last_error,
        "rebuilt_to": rebuilt_to,
        "kept": kept,
    })
}
