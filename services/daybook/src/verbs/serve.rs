//! `daybook serve`: the services of some roles, until told to end.

use super::role::{Part, Parts};
use cli::config::Servers;
use cli::serve::until_told;
use cli::{Failure, shutdown, target};
use order_services::policy::Timeouts;
use order_services::process::{self, Role};
use runtime::nats::Nats;
use runtime::process::{Context, Process};
use std::pin::pin;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The role to run. Repeat the option for several roles. By default, all roles run.
    #[arg(long = "role", value_enum)]
    parts: Vec<Part>,
    /// The payment provider's time to answer, in seconds. After that, Daybook asks the provider for the outcome.
    #[arg(long, value_name = "SECONDS", default_value_t = Timeouts::default().answer.as_secs(), value_parser = clap::value_parser!(u64).range(1..=600))]
    answer_within: u64,
}

pub(super) async fn run(args: &Args, servers: &Servers) -> Result<(), Failure> {
    let mut requested = pin!(shutdown::requested());
    let (database_url, nats) = (target::database_url(servers)?, target::nats(servers)?);
    let Parts { roles, provider } = Parts::of(&args.parts);
    let timeouts = Timeouts {
        answer: Duration::from_secs(args.answer_within),
        clock_tolerance: servers.clock_tolerance(),
        ..Timeouts::default()
    };
    let process = tokio::select! {
        process = start(&database_url, nats, &roles, provider, timeouts) => process?,
        () = &mut requested => return Ok(()),
    };
    tracing::info!(?roles, provider, "ready");
    until_told(process, requested).await
}

async fn start(
    database_url: &str,
    nats: Nats,
    roles: &[Role],
    provider: bool,
    timeouts: Timeouts,
) -> Result<Process, Failure> {
    let (context, mut process) = process::start(database_url, nats, roles, timeouts).await?;
    if provider {
        add_provider(&context, &mut process, timeouts).await?;
    }
    Ok(process)
}

#[cfg(feature = "dev")]
async fn add_provider(context: &Context, process: &mut Process, timeouts: Timeouts) -> Result<(), Failure> {
    Ok(::dev::process::add_provider(context, process, timeouts).await?)
}

/// The command line of a build without the simulator does not name it.
#[cfg(not(feature = "dev"))]
async fn add_provider(_: &Context, _: &mut Process, _: Timeouts) -> Result<(), Failure> {
    Err(Failure::Usage("this build has no simulated payment provider".into()))
}
