//! `daybook verify`: whether log, JetStream and read models agree.

use cli::config::Servers;
use cli::{Failure, output, target};
use engine::ReadModel as _;
use order_services::verify::{Report, VerifyError, verify, verify_books, verify_sample};
use order_views::{CATEGORIES, Orders, ReadModel};
use runtime::process::jetstream;
use runtime::readable;
use runtime::replay::{Mode, replay};
use std::time::Duration;
use store::Log;
use store::connect::{self, Role};

#[derive(clap::Args)]
pub(super) struct Args {
    /// How long to wait until JetStream and the read models have reached the end of the log, in seconds.
    #[arg(long, default_value_t = 10)]
    wait: u64,
    /// Check only this many orders, chosen at random: their rows, and what their events promise.
    #[arg(long, value_name = "ORDERS", conflicts_with = "wait", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sample: Option<u32>,
    /// Also compare with the payment provider's books, by one lookup for each call of a payment. A number limits this to
    /// as many payments, chosen at random.
    #[arg(long, value_name = "PAYMENTS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    books: Option<Option<u32>>,
    /// Rebuild the read models that differ, as `daybook replay` does, and check them again.
    #[arg(long)]
    repair: bool,
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let database_url = target::database_url(servers)?;
    let pool = connect::checked_pool(&database_url, Role::Read, 2).await?;
    readable::check::<Orders>(&pool).await?;
    let log = Log::new(pool.clone(), CATEGORIES);
    // A sample of the orders is in Postgres alone.
    let client = match (args.sample, args.books) {
        (Some(_), None) => None,
        _ => Some(target::connect(servers, "daybook verify").await?),
    };
    let unavailable = |e: VerifyError| Failure::beneath(e.failure(), e.to_string());
    let checked = async || -> Result<Report, Failure> {
        let report = match args.sample {
            Some(orders) => verify_sample(&pool, &log, orders).await,
            None => verify(&pool, client.as_ref().map(jetstream).as_ref(), Duration::from_secs(args.wait)).await,
        };
        let report = report.map_err(unavailable)?;
        let (Some(payments), Some(client)) = (args.books, &client) else { return Ok(report) };
        Ok(report.with(verify_books(&pool, client, payments).await.map_err(unavailable)?))
    };
    let mut report = checked().await?;
    print(&report, json)?;
    let different: Vec<ReadModel> =
        report.checks.iter().filter(|check| !check.agrees()).filter_map(|c| ReadModel::from_name(c.name)).collect();
    if args.repair && !different.is_empty() {
        let project = connect::checked_pool(&database_url, Role::Project, 4).await?;
        for model in different {
            let replayed =
                replay(&log, &project, model, Mode::Switch, |_, _| ()).await.map_err(super::replay::failure)?;
            super::replay::print(&replayed, json)?;
        }
        report = checked().await?;
        print(&report, json)?;
    }
    if report.agrees() { Ok(()) } else { Err(Failure::Differs("the data does not agree with the log".into())) }
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    match json {
        true => output::line(&serde_json::to_string(report)?),
        false => output::line(&report.to_string()),
    }
    Ok(())
}
