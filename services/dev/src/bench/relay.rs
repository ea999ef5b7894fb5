//! Publishing the log to JetStream, beside a bare publish of the same bodies.

use super::measure::{self, Run};
use super::place::Place;
use super::{Args, Pair, seed};
use async_nats::jetstream::{Context, stream};
use bytes::Bytes;
use cli::Failure;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use order_services::process::connect_to;
use runtime::process::Urls;
use runtime::process::{self, jetstream};
use runtime::relay::Relay;
use runtime::step::{Outcome, Step};
use runtime::{message, subject};
use std::future::IntoFuture;
use std::time::Instant;
use store::RecordedEvent;
use tokio::sync::watch;

/// How many messages may wait for their acknowledgement.
const IN_FLIGHT: usize = 1000;
const BARE: &str = "BENCH";
const BARE_SUBJECT: &str = "bench.evt";

pub(super) async fn measure(args: &Args, place: &Place) -> Result<(&'static str, Vec<Pair>), Failure> {
    let size = args.size.unwrap_or(100_000).min(message::WINDOW as u32);
    let events = seed::orders(place, size).await?.min(u64::from(size));
    let urls = Urls { database_url: place.database_url.clone(), nats_url: place.nats_url.clone() };
    let parts = connect_to(&urls).await?;
    let context = jetstream(&parts.client);
    let page = parts.log.read_all(0, events as i64).await?;
    let mut pairs = Vec::new();
    for run in 0..=args.runs {
        let pair = Pair {
            run: relayed(&parts, &context, events).await?,
            bound: bare(&context, &page).await?,
            least_share: None,
        };
        if run > 0 {
            pairs.push(pair);
        }
    }
    Ok(("the same bodies published without headers, pipelined, 1,000 in flight", pairs))
}

/// All events of the log, by the relay as it is, to a stream that has none of them.
async fn relayed(parts: &process::Context, context: &Context, events: u64) -> Result<Run, Failure> {
    _ = context.delete_stream(subject::STREAM).await;
    let config = message::stream_config(parts.log.identity().await?, parts.log.server().await?, 1);
    context.create_stream(config).await.map_err(unavailable)?;
    let mut relay = Relay::new(parts.log.clone(), parts.project.clone(), context.clone(), watch::channel(0).1);
    let begun = Instant::now();
    while relay.step().await.map_err(unavailable)? != Outcome::Idle {}
    let elapsed = begun.elapsed();
    let mut stream = context.get_stream(subject::STREAM).await.map_err(unavailable)?;
    let operations = stream.info().await.map_err(unavailable)?.state.last_sequence;
    if operations < events {
        return Err(Failure::Other(format!("the relay stopped at {operations} of {events}")));
    }
    Ok(Run { operations, elapsed, latencies: measure::histogram()? })
}

async fn bare(context: &Context, page: &[RecordedEvent]) -> Result<Run, Failure> {
    _ = context.delete_stream(BARE).await;
    let config = stream::Config {
        name: BARE.into(),
        subjects: vec![BARE_SUBJECT.into()],
        storage: stream::StorageType::File,
        ..stream::Config::default()
    };
    context.create_stream(config).await.map_err(unavailable)?;
    let begun = Instant::now();
    let mut acks = FuturesOrdered::new();
    for event in page {
        if acks.len() == IN_FLIGHT {
            acknowledged(&mut acks).await?;
        }
        let body = Bytes::from(event.payload.clone());
        acks.push_back(context.publish(BARE_SUBJECT, body).await.map_err(unavailable)?.into_future());
    }
    while !acks.is_empty() {
        acknowledged(&mut acks).await?;
    }
    context.delete_stream(BARE).await.map_err(unavailable)?;
    Ok(Run { operations: page.len() as u64, elapsed: begun.elapsed(), latencies: measure::histogram()? })
}

async fn acknowledged<T, E: std::fmt::Display>(
    acks: &mut FuturesOrdered<impl Future<Output = Result<T, E>>>,
) -> Result<(), Failure> {
    match acks.next().await {
        Some(Err(e)) => Err(unavailable(e)),
        Some(Ok(_)) | None => Ok(()),
    }
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure::Unavailable(format!("NATS cannot be used: {error}"))
}
