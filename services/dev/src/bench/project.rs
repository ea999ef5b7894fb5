//! Live projections on their way through the log, one of them or all at once, beside a COPY of the log that nobody looks
//! into. Of several, each event counts for each.

use super::measure::{self, Run};
use super::place::Place;
use super::{Args, Pair, read};
use cli::Failure;
use engine::ReadModel as _;
use order_services::process::connect_to;
use order_views::{Orders, Projection, ReadModel};
use runtime::process::{Context, Urls};
use runtime::projector::Projector;
use runtime::step::{Outcome, Step};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

pub(super) async fn measure(
    args: &Args,
    place: &Place,
    projections: &[Projection],
) -> Result<(&'static str, Vec<Pair>), Failure> {
    let events = super::seed::orders(place, args.size.unwrap_or(300_000)).await?;
    let urls = Urls { database_url: place.database_url.clone(), nats_url: place.nats_url.clone() };
    let parts = connect_to(&urls).await?;
    let mut pairs = Vec::new();
    for run in 0..=args.runs {
        begin_anew(&place.database_url).await?;
        let pair = Pair {
            run: projected(&parts, projections, events).await?,
            bound: read::bare(&place.database_url).await?,
            least_share: None,
        };
        if run > 0 {
            pairs.push(pair);
        }
    }
    Ok((read::BOUND, pairs))
}

/// Empties all that is folded from the log.
async fn begin_anew(superuser_url: &str) -> Result<(), Failure> {
    let mut superuser = PgConnection::connect(superuser_url).await?;
    let models = ReadModel::ALL.iter().map(|model| format!("TRUNCATE daybook.{};", model.name())).collect::<String>();
    let anew = format!(
        "{models} TRUNCATE daybook.follow_ups, daybook.timers, daybook.parked_events, daybook.leases;
         DELETE FROM daybook.checkpoints WHERE NOT live;
         UPDATE daybook.checkpoints SET position = 0, fence = 0"
    );
    sqlx::raw_sql(AssertSqlSafe(anew)).execute(&mut superuser).await?;
    Ok(())
}

/// As in a process that serves: each loop is a task.
async fn projected(parts: &Context, projections: &[Projection], events: u64) -> Result<Run, Failure> {
    let begun = Instant::now();
    let mut loops: JoinSet<Result<(), Failure>> = JoinSet::new();
    // What JetStream has is what the orders left that the log's were copied from: the feed reads the log.
    let mut feed = parts.feed::<Orders>().await.map_err(|e| Failure::Unavailable(e.to_string()))?;
    for projection in projections {
        let (pool, written) = (parts.project.clone(), Arc::new(Notify::new()));
        let mut projector = Projector::new(pool, *projection, feed.reader(), Uuid::now_v7(), written);
        loops.spawn(async move {
            let mut taken_in = 0;
            while taken_in < events {
                match projector.step().await.map_err(|e| Failure::Unavailable(e.to_string()))? {
                    Outcome::Worked(n) => taken_in += n as u64,
                    Outcome::Again => {}
                    Outcome::Idle => projector.wait().await,
                }
            }
            projector.end().await;
            Ok(())
        });
    }
    loops.spawn(async move {
        while (feed.position() as u64) < events {
            feed.step().await.map_err(|e| Failure::Unavailable(e.to_string()))?;
        }
        Ok(())
    });
    while let Some(ended) = loops.join_next().await {
        ended.map_err(|e| Failure::Unavailable(e.to_string()))??;
    }
    let (elapsed, operations) = (begun.elapsed(), events * projections.len() as u64);
    Ok(Run { operations, elapsed, latencies: measure::histogram()? })
}
