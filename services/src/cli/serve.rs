//! `daybook serve`: the services of some roles, until told to end.

use super::{Failure, output, target};
use crate::config::{Role, Servers};
use crate::policy::Pace;
use crate::process::Process;
use crate::shutdown;
use std::pin::pin;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The role to run. Repeat the option for several roles. By default, all roles run.
    #[arg(long = "role", value_enum)]
    roles: Vec<Role>,
    /// The payment provider's time to answer, in seconds. After that, Daybook asks the provider for the outcome.
    #[arg(long, value_name = "SECONDS", default_value_t = Pace::default().answer.as_secs(), value_parser = clap::value_parser!(u64).range(1..=600))]
    answer_within: u64,
}

pub(super) async fn run(args: &Args, servers: &Servers) -> Result<(), Failure> {
    let mut requested = pin!(shutdown::requested());
    let (database_url, nats) = (target::database_url(servers)?, target::nats(servers)?);
    let roles = if args.roles.is_empty() { Role::ALL.to_vec() } else { args.roles.clone() };
    let pace = Pace {
        answer: Duration::from_secs(args.answer_within),
        clock_tolerance: servers.clock_tolerance(),
        ..Pace::default()
    };
    let process = tokio::select! {
        process = Process::start_on(&database_url, nats, &roles, pace) => process?,
        () = &mut requested => return Ok(()),
    };
    tracing::info!(?roles, "ready");
    until_told(process, requested).await
}

/// Lets the process run until it is told to end, or a part of it has failed; then ends it in order.
pub(super) async fn until_told(process: Process, requested: impl Future<Output = ()>) -> Result<(), Failure> {
    let failed = tokio::select! {
        () = requested => false,
        () = process.failed() => true,
    };
    output::say("stopping…");
    // Who asks twice does not want to wait.
    tokio::select! {
        () = process.stop() => {}
        () = shutdown::requested() => {}
    }
    if failed { Err(Failure::Other("a part of the process has failed: see its log".into())) } else { Ok(()) }
}
