//! `daybook demo`: orders, driven through the command API to their end, and whether each ended as it must.

mod drive;
pub(super) mod plan;
mod report;

use crate::olist;
use crate::private;
use cli::config;
use cli::shutdown;
use cli::{Failure, migrate, output, target};
use order_services::policy::Timeouts;
use plan::Plan;
use runtime::nats::Nats;
use runtime::process::Urls;
use servers::{Servers, ServersOptions};
use std::path::PathBuf;
use std::pin::pin;

#[derive(clap::Args)]
pub struct Args {
    /// The number of orders.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    orders: u32,
    /// The seed of the random choices. The same seed gives the same orders with the same ends.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Place the orders of the public Olist data set instead. The folder holds its CSV files.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["orders", "seed"])]
    orders_from: Option<PathBuf>,
    /// The number of commands in flight at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Use the running services, found by DATABASE_URL and NATS_URL or `daybook dev`, instead of private ones.
    #[arg(long)]
    attach: bool,
}

/// Drives so many orders to their end through the services that run there.
pub(super) async fn play(urls: &Urls, orders: u32) -> Result<(), Failure> {
    drive::drive(&Plan::seeded(orders, 1), &urls.database_url, &target::nats_at(&urls.nats_url)?, 64).await.map(drop)
}

/// Plays the orders, and prints how each ended.
///
/// # Errors
/// When one did not end as it must, or a server cannot be used.
pub async fn run(args: Args, servers: &config::Servers, json: bool) -> Result<(), Failure> {
    let (plan, sample) = match &args.orders_from {
        Some(dir) => {
            let sample = olist::read(dir).map_err(|e| Failure::Usage(e.to_string()))?;
            (Plan::of_sample(&sample), Some(sample))
        }
        None => (Plan::seeded(args.orders, args.seed), None),
    };
    let play = async |database_url: &str, nats: &Nats| -> Result<(), Failure> {
        let driven = drive::drive(&plan, database_url, nats, args.clients).await?;
        report::of(&plan, sample.as_ref(), database_url, nats, &driven).await?.print(json)
    };
    if args.attach {
        return play(&target::database_url(servers)?, &target::nats(servers)?).await;
    }
    let mut requested = pin!(shutdown::requested());
    let interrupted = || Failure::Other("interrupted".into());
    let options = ServersOptions { durable: true, ..ServersOptions::default() };
    let own = tokio::select! {
        servers = Servers::start(options, &output::say) => servers.map_err(private::not_started)?,
        () = &mut requested => return Err(interrupted()),
    };
    let urls = Urls { database_url: own.postgres.url(private::DATABASE), nats_url: own.nats.url() };
    let played = async {
        migrate::migrate(&urls.database_url).await?;
        let process = crate::process::start(&urls, Timeouts::default()).await?;
        let played = play(&urls.database_url, &target::nats_at(&urls.nats_url)?).await;
        process.stop().await;
        played
    };
    let played = tokio::select! {
        played = played => played,
        () = &mut requested => Err(interrupted()),
    };
    own.stop().await;
    played
}
