//! A whole rebuild of the order summary, rows written, compared and switched to, beside a COPY of the log that nobody
//! looks into.

use super::measure::{self, Run};
use super::place::Place;
use super::{Args, Pair, read};
use cli::Failure;
use engine::ReadModel as _;
use order_views::CATEGORIES;
use order_views::ReadModel;
use runtime::replay::{Mode, replay};
use sqlx::{Connection, PgConnection};
use store::Log;
use store::connect::{self, Role};

pub(super) async fn measure(args: &Args, place: &Place) -> Result<(&'static str, Vec<Pair>), Failure> {
    let events = super::seed::orders(place, args.size.unwrap_or(1_000_000)).await?;
    let url = &place.database_url;
    // The live rows claim to be at the end of the log: the first replay, which is not measured, makes that true.
    let mut superuser = PgConnection::connect(url).await?;
    sqlx::query("UPDATE daybook.checkpoints SET position = $1 WHERE projection = $2 AND live")
        .bind(events as i64)
        .bind(ReadModel::OrderSummary.name())
        .execute(&mut superuser)
        .await?;
    let log = Log::new(connect::pool(url, Role::Read, 4)?, CATEGORIES);
    let pool = connect::pool(url, Role::Project, 4)?;
    let mut pairs = Vec::new();
    for run in 0..=args.runs {
        let replayed = replay(&log, &pool, ReadModel::OrderSummary, Mode::Switch, |_, _| {}).await;
        let replayed = replayed.map_err(|e| Failure::Other(e.to_string()))?;
        if replayed.events as u64 != events {
            return Err(Failure::Other(format!("{} of {events} events were read", replayed.events)));
        }
        let elapsed = std::time::Duration::from_secs_f64(replayed.seconds);
        let rebuilt = Run { operations: events, elapsed, latencies: measure::histogram()? };
        let pair = Pair { run: rebuilt, bound: read::bare(url).await?, least_share: None };
        if run > 0 {
            if replayed.compared.is_none_or(|compared| compared.differences() > 0) {
                return Err(Failure::Other("two rebuilds of one log are not the same".into()));
            }
            pairs.push(pair);
        }
    }
    Ok((read::BOUND, pairs))
}
