//! Reading all events in order, decoded into the domain's types, beside a COPY that nobody looks into.

use super::measure::{self, Run};
use super::place::Place;
use super::{Args, Pair};
use cli::Failure;
use engine::codec;
use futures_util::TryStreamExt;
use order_views::CATEGORIES;
use order_views::Orders;
use sqlx::{Connection, PgConnection};
use std::time::Instant;
use store::Log;
use store::connect::{self, Role};

pub(super) const BOUND: &str = "binary COPY of the same columns in one statement, not parsed";

/// The columns of an event, all of them.
const COPY: &str = "COPY (SELECT position, version, recorded_at, occurred_at, category, schema_version, origin,
        stream_id, event_id, correlation_id, causation_id, command_id, fingerprint, event_type, actor, traceparent,
        payload FROM daybook.events ORDER BY position) TO STDOUT (FORMAT binary)";

pub(super) async fn measure(args: &Args, place: &Place) -> Result<(&'static str, Vec<Pair>), Failure> {
    let events = super::seed::orders(place, args.size.unwrap_or(1_000_000)).await?;
    let url = &place.database_url;
    let log = Log::new(connect::pool(url, Role::Read, 4)?, CATEGORIES);
    let mut pairs = Vec::new();
    // The first pass is for the cache.
    for run in 0..=args.runs {
        let pair = Pair { run: decoded(&log).await?, bound: bare(url).await?, least_share: None };
        if [pair.run.operations, pair.bound.operations].iter().any(|read| *read != events) {
            return Err(Failure::Other(format!("not all of the {events} events were read")));
        }
        if run > 0 {
            pairs.push(pair);
        }
    }
    Ok((BOUND, pairs))
}

async fn decoded(log: &Log) -> Result<Run, Failure> {
    let begun = Instant::now();
    let (mut scan, mut operations) = (log.scan(0, log.head().await?), 0);
    while let Some(page) = scan.next().await? {
        for record in page.events {
            std::hint::black_box(codec::decode::<Orders>(record).map_err(|e| Failure::Other(e.to_string()))?);
            operations += 1;
        }
    }
    Ok(Run { operations, elapsed: begun.elapsed(), latencies: measure::histogram()? })
}

pub(super) async fn bare(url: &str) -> Result<Run, Failure> {
    let mut connection = PgConnection::connect(url).await?;
    let begun = Instant::now();
    let mut messages = connection.copy_out_raw(COPY).await?;
    let mut operations = 0;
    while let Some(message) = messages.try_next().await? {
        // The last message is a mark of two bytes.
        operations += u64::from(std::hint::black_box(message).len() > 2);
    }
    Ok(Run { operations, elapsed: begun.elapsed(), latencies: measure::histogram()? })
}
