//! `daybook events read|tail`: the log, or one stream of it.

use super::{Failure, output, target};
use crate::config::Servers;
use crate::process::connect_nats;
use crate::{codec, shutdown, subject};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::Duration;
use store::connect::{self, Role};
use store::{Log, Position, RecordedEvent, StreamId, Version};
use uuid::Uuid;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Print events, oldest first.
    Read(Read),
    /// Print events as they are recorded, until Ctrl-C.
    Tail(Tail),
}

#[derive(clap::Args)]
pub(super) struct Read {
    /// Only this stream, such as order-0199…; then --from counts its versions.
    #[arg(long)]
    stream: Option<String>,
    /// The first position to print; of a stream, the first version.
    #[arg(long, default_value_t = 1)]
    from: Position,
    /// How many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
}

#[derive(clap::Args)]
pub(super) struct Tail {
    /// Only this stream, such as order-0199….
    #[arg(long)]
    stream: Option<String>,
    /// The first position to print; what comes next, if not given.
    #[arg(long)]
    from: Option<Position>,
}

const PAGE: i64 = 500;
/// How often the log is looked at without a hint.
const POLL: Duration = Duration::from_secs(1);

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    let urls = target::urls(servers)?;
    let log = Log::new(connect::pool(&urls.database_url, Role::Read, 1)?, codec::CATEGORIES);
    match verb {
        Verb::Read(args) => read(&log, &args, json).await,
        Verb::Tail(args) => {
            let nats = connect_nats(&urls.nats_url, "daybook events tail").await?;
            let tailed = tail(&log, &nats, &args, json);
            tokio::select! {
                tailed = tailed => tailed,
                () = shutdown::requested() => Ok(()),
            }
        }
    }
}

async fn read(log: &Log, args: &Read, json: bool) -> Result<(), Failure> {
    let stream = args.stream.as_deref().map(parse_stream).transpose()?;
    let (mut after, mut left) = (args.from - 1, args.limit);
    while left > 0 {
        let limit = left.min(PAGE);
        let page = match stream {
            Some(stream) => log.read_stream(stream, after, limit).await?,
            None => log.read_all(after, limit).await?,
        };
        page.iter().try_for_each(|event| print(event, json))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = if stream.is_some() { last.version } else { last.position };
        left -= page.len() as i64;
    }
    Ok(())
}

async fn tail(log: &Log, nats: &async_nats::Client, args: &Tail, json: bool) -> Result<(), Failure> {
    let stream = args.stream.as_deref().map(parse_stream).transpose()?;
    let hints = nats.subscribe(subject::HEAD_HINT).await;
    let mut hints = hints.map_err(|e| Failure::Unavailable(format!("NATS cannot be used: {e}")))?;
    let mut after = match args.from {
        Some(from) => from - 1,
        None => log.head().await?,
    };
    loop {
        let page = log.read_all(after, PAGE).await?;
        for event in page.iter().filter(|e| stream.is_none_or(|stream| e.stream == stream)) {
            print(event, json)?;
        }
        match page.last() {
            Some(last) => after = last.position,
            None => _ = tokio::time::timeout(POLL, hints.next()).await,
        }
    }
}

fn parse_stream(name: &str) -> Result<StreamId, Failure> {
    let bad = || Failure::Usage(format!("{name} is no stream: a stream is called order-0199…, payment-… and so on"));
    codec::parse_stream(name).ok_or_else(bad)
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
