//! `daybook events read|tail`: the log, or what a filter lets through of it.

use chrono::{DateTime, Utc};
use cli::config::Servers;
use cli::shutdown;
use cli::{Failure, output, target};
use engine::codec;
use order_views::CATEGORIES;
use orders::Event;
use runtime::process::hear_hints;
use runtime::search::{Direction, Query, Search};
use runtime::subject;
use serde::Serialize;
use serde_json::value::RawValue;
use store::connect::{self, Role};
use store::{Category, Filter, Log, Position, RecordedEvent, StreamId, Version};
use tokio::sync::watch;
use uuid::Uuid;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Print events, oldest first.
    Read(Read),
    /// Print new events as they are recorded, until Ctrl-C.
    Tail(Tail),
}

#[derive(clap::Args)]
pub(super) struct Read {
    #[command(flatten)]
    which: Which,
    /// The first position to print; with --stream, the first version.
    #[arg(long)]
    from: Option<Position>,
    /// Only events recorded at this time or later, such as 2026-11-22T08:39:56Z.
    #[arg(long, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// Only events recorded at this time or earlier.
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
    /// Print the newest event first.
    #[arg(long)]
    backward: bool,
    /// The maximum number of events.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
}

#[derive(clap::Args)]
pub(super) struct Tail {
    #[command(flatten)]
    which: Which,
    /// The first position to print. By default, the next event.
    #[arg(long)]
    from: Option<Position>,
}

/// Which events are printed.
#[derive(clap::Args)]
struct Which {
    /// Only events of this stream, such as order-0199….
    #[arg(long)]
    stream: Option<String>,
    /// Only events of this category: order, payment, stock or shipment.
    #[arg(long)]
    category: Option<String>,
    /// Only events of this type, such as OrderPlaced. Repeat the option for several types.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events with this correlation id, such as an order's id.
    #[arg(long, value_name = "ID")]
    correlation: Option<Uuid>,
}

impl Which {
    fn filter(&self) -> Result<Filter, Failure> {
        let category = self.category.as_deref().map(parse_category).transpose()?;
        self.types.iter().try_for_each(|name| check_type(category, name))?;
        Ok(Filter {
            stream: self.stream.as_deref().map(parse_stream).transpose()?,
            category,
            event_types: self.types.clone(),
            correlation_id: self.correlation,
        })
    }
}

const PAGE: i64 = 500;

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    let (Verb::Read(Read { which, .. }) | Verb::Tail(Tail { which, .. })) = &verb;
    let filter = which.filter()?;
    let pool = connect::checked_pool(&target::database_url(servers)?, Role::Read, 1).await?;
    let log = Log::new(pool.clone(), CATEGORIES);
    match verb {
        Verb::Read(args) => {
            let direction = if args.backward { Direction::NewestFirst } else { Direction::OldestFirst };
            let query = Query { filter, direction, from: args.from, since: args.since, until: args.until, own: false };
            read(Search::begin(log, pool, query).await?, args.limit, json).await
        }
        Verb::Tail(args) => {
            let nats = target::connect(servers, "daybook events tail").await?;
            let tailed = tail(&log, &nats, filter, args.from, json);
            tokio::select! {
                tailed = tailed => tailed,
                () = shutdown::requested() => Ok(()),
            }
        }
    }
}

async fn read(mut search: Search, mut left: i64, json: bool) -> Result<(), Failure> {
    while left > 0 {
        let page = search.next(left.min(PAGE)).await?;
        if page.is_empty() {
            return Ok(());
        }
        page.iter().try_for_each(|event| print(event, json))?;
        left -= page.len() as i64;
    }
    Ok(())
}

async fn tail(
    log: &Log,
    nats: &async_nats::Client,
    filter: Filter,
    from: Option<Position>,
    json: bool,
) -> Result<(), Failure> {
    let hints = nats.subscribe(subject::HEAD_HINT).await;
    let hints = hints.map_err(|e| Failure::Unavailable(format!("NATS cannot be used: {e}")))?;
    let after = match from {
        Some(from) => from - 1,
        None => log.head().await?,
    };
    let (grown, hint) = watch::channel(after);
    let mut subscription = log.subscribe(after, filter, hint);
    let hinting = async {
        hear_hints(hints, grown).await;
        std::future::pending().await
    };
    let printing = async {
        loop {
            subscription.next().await?.iter().try_for_each(|event| print(event, json))?;
        }
    };
    tokio::select! {
        ended = hinting => ended,
        ended = printing => ended,
    }
}

fn parse_category(name: &str) -> Result<Category, Failure> {
    let known = || CATEGORIES.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
    codec::parse_category(CATEGORIES, name)
        .ok_or_else(|| Failure::Usage(format!("{name} is no category: the categories are {}", known())))
}

fn check_type(category: Option<Category>, name: &str) -> Result<(), Failure> {
    let categories = CATEGORIES.iter().filter(|c| category.is_none_or(|category| category == **c));
    let known: Vec<&str> = categories.flat_map(|c| Event::types(c.name)).map(|(name, _)| *name).collect();
    if known.contains(&name) {
        return Ok(());
    }
    let of = category.map(|c| format!(" of {}", c.name)).unwrap_or_default();
    Err(Failure::Usage(format!("{name} is no event type{of}: the types{of} are {}", known.join(", "))))
}

fn parse_stream(name: &str) -> Result<StreamId, Failure> {
    let bad = || Failure::Usage(format!("{name} is no stream: a stream is called order-0199…, payment-… and so on"));
    codec::parse_stream(CATEGORIES, name).ok_or_else(bad)
}

fn print(event: &RecordedEvent, json: bool) -> Result<(), Failure> {
    if !json {
        let at = event.recorded_at.format("%Y-%m-%d %H:%M:%S%.3f");
        let RecordedEvent { position, stream, version, event_type, payload, .. } = event;
        output::line(&format!("{position:>8}  {at}  {stream}@{version}  {event_type}  {}", &**payload));
        return Ok(());
    }
    let metadata = &event.metadata;
    let payload: &RawValue = serde_json::from_str(&event.payload)?;
    let shown = Shown {
        position: event.position,
        stream: event.stream.to_string(),
        version: event.version,
        event_id: event.event_id,
        event_type: &event.event_type,
        schema_version: event.schema_version,
        recorded_at: event.recorded_at,
        occurred_at: metadata.occurred_at,
        correlation_id: metadata.correlation_id,
        causation_id: metadata.causation_id,
        command_id: metadata.command_id,
        fingerprint: metadata.fingerprint.to_string(),
        actor: &metadata.actor,
        origin: metadata.origin.as_str(),
        traceparent: metadata.traceparent.as_deref(),
        payload,
    };
    output::line(&serde_json::to_string(&shown)?);
    Ok(())
}

/// An event with its metadata; the payload is as it is stored.
#[derive(Serialize)]
struct Shown<'a> {
    position: Position,
    stream: String,
    version: Version,
    event_id: Uuid,
    event_type: &'a str,
    schema_version: i16,
    recorded_at: DateTime<Utc>,
    occurred_at: DateTime<Utc>,
    correlation_id: Uuid,
    causation_id: Option<Uuid>,
    command_id: Uuid,
    fingerprint: String,
    actor: &'a str,
    origin: &'static str,
    traceparent: Option<&'a str>,
    payload: &'a RawValue,
}
