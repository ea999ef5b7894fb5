//! `daybook projections list|pause|resume`: how each of them does, and whether it is to stand still. What they cannot take
//! in, `daybook dead-letters` tells.

use cli::config::Servers;
use cli::{Failure, output, target};
use order_views::{Orders, Projection};
use runtime::health::{self, Health, RelayHealth};
use serde_json::json;
use std::time::Duration;
use store::connect::{self, Role};
use store::{checkpoint, clock};

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// List the state of each projection and of the relay: position, lag, rate and last error.
    List {
        /// Also list what is wrong with projections, relay and clocks, and exit with 1 if anything is.
        #[arg(long)]
        check: bool,
    },
    /// Pause a projection in every process that runs it.
    Pause {
        /// The projection, as `list` prints it.
        #[arg(value_parser = parse)]
        projection: Projection,
    },
    /// Resume a projection.
    Resume {
        /// The projection, as `list` prints it.
        #[arg(value_parser = parse)]
        projection: Projection,
    },
}

fn parse(name: &str) -> Result<Projection, String> {
    let names = || Projection::all().map(Projection::name).collect::<Vec<_>>().join(", ");
    Projection::from_name(name).ok_or_else(|| format!("the projections are {}", names()))
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    let url = target::database_url(servers)?;
    match verb {
        Verb::List { check } => list(&url, check, servers.clock_tolerance(), json).await,
        Verb::Pause { projection } => pause(&url, projection, true, json).await,
        Verb::Resume { projection } => pause(&url, projection, false, json).await,
    }
}

async fn pause(database_url: &str, projection: Projection, paused: bool, json: bool) -> Result<(), Failure> {
    let pool = connect::checked_pool(database_url, Role::Project, 1).await?;
    let name = projection.name();
    checkpoint::pause(&pool, name, paused).await?;
    output::line(&match (json, paused) {
        (true, _) => json!({ "projection": name, "paused": paused }).to_string(),
        (false, true) => format!("{name} pauses within a second"),
        (false, false) => format!("{name} goes on"),
    });
    Ok(())
}

async fn list(database_url: &str, check: bool, tolerance: Duration, json: bool) -> Result<(), Failure> {
    let pool = connect::checked_pool(database_url, Role::Read, 1).await?;
    let all = health::projections::<Orders>(&pool, health::SAMPLE).await?;
    let (relay, clocks) = (health::relay(&pool).await?, clock::faults(&pool, tolerance).await?);
    if json {
        for one in &all {
            output::line(&serde_json::to_string(one)?);
        }
        output::line(&json!({ "relay": relay }).to_string());
        for finding in &clocks {
            output::line(&json!({ "clock": finding.to_string() }).to_string());
        }
    } else {
        print(&all, &relay);
        clocks.iter().for_each(|finding| output::line(&finding.to_string()));
    }
    let mut ill: Vec<String> = all
        .iter()
        .filter(|one| !one.state.is_healthy())
        .map(|one| format!("{} is {}", one.projection, one.state.as_str()))
        .collect();
    if !relay.state.is_healthy() {
        ill.push(format!("the relay is {}", relay.state.as_str()));
    }
    ill.extend(clocks.iter().map(ToString::to_string));
    if !check || ill.is_empty() { Ok(()) } else { Err(Failure::Differs(ill.join(", "))) }
}

fn print(all: &[Health], relay: &RelayHealth) {
    let headings = ["projection", "position", "behind", "seconds", "a second", "left", "heartbeat", "parked", "state"];
    let seconds = |of: Option<f64>| of.map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
    let row = |one: &Health| {
        vec![
            one.projection.clone(),
            one.position.to_string(),
            one.lag_events.to_string(),
            seconds(Some(one.lag_seconds)),
            one.events_per_second.to_string(),
            one.seconds_left.map_or("-".to_owned(), |left| left.to_string()),
            seconds(one.heartbeat_seconds_ago),
            one.parked.to_string(),
            one.state.as_str().to_owned(),
        ]
    };
    let none = || "-".to_owned();
    let relay_row = vec![
        "relay".to_owned(),
        relay.position.to_string(),
        relay.lag_events.to_string(),
        seconds(Some(relay.lag_seconds)),
        none(),
        none(),
        seconds(relay.heartbeat_seconds_ago),
        none(),
        relay.state.as_str().to_owned(),
    ];
    output::line(&output::table(&headings, &all.iter().map(row).chain([relay_row]).collect::<Vec<_>>()));
    if let Some(error) = &relay.last_error {
        output::line(&format!("relay: {error}"));
    }
    for one in all {
        if let Some(error) = &one.last_error {
            output::line(&format!("{}: {error}", one.projection));
        }
        if let Some(position) = one.rebuilt_to {
            output::line(&format!("{}: rebuilt up to position {position}", one.projection));
        }
    }
}
