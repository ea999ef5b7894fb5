//! `daybook verify`: whether log, JetStream and read models agree.

use super::{Failure, output, target};
use crate::config::Servers;
use crate::process::{connect_nats, jetstream};
use crate::readable;
use crate::verify::{Report, verify};
use std::time::Duration;
use store::connect::{self, Role};

#[derive(clap::Args)]
pub(super) struct Args {
    /// How long to wait for JetStream and the read models to come to the end of the log, in seconds.
    #[arg(long, default_value_t = 10)]
    wait: u64,
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let urls = target::urls(servers)?;
    let pool = connect::pool(&urls.database_url, Role::Read, 2)?;
    readable::check(&pool).await?;
    let nats = connect_nats(&urls.nats_url, "daybook verify").await?;
    let report = verify(&pool, Some(&jetstream(&nats)), Duration::from_secs(args.wait)).await;
    print(&report.map_err(|e| Failure::Unavailable(e.to_string()))?, json)
}

/// Prints the report; it is a failure if anything differs.
fn print(report: &Report, json: bool) -> Result<(), Failure> {
    match json {
        true => output::line(&serde_json::to_string(report)?),
        false => output::line(&report.to_string()),
    }
    if report.agrees() { Ok(()) } else { Err(Failure::Differs("what is stored is not what the log says".into())) }
}
