//! `daybook serve`: the services of some roles, until told to end.

use super::{Failure, target};
use crate::config::{Role, Servers};
use crate::process::Process;
use crate::shutdown;

#[derive(clap::Args)]
pub(super) struct Args {
    /// What to run; everything if not given. Give it several times for several roles.
    #[arg(long = "role", value_enum)]
    roles: Vec<Role>,
}

pub(super) async fn run(args: &Args, servers: &Servers) -> Result<(), Failure> {
    let urls = target::urls(servers)?;
    let roles = if args.roles.is_empty() { Role::ALL.to_vec() } else { args.roles.clone() };
    let process = Process::start(&urls, &roles).await?;
    tracing::info!(?roles, "ready");
    let failed = tokio::select! {
        () = shutdown::requested() => false,
        () = process.failed() => true,
    };
    tracing::info!("finishing what is under way");
    // Who asks twice does not want to wait.
    tokio::select! {
        () = process.stop() => {}
        () = shutdown::requested() => {}
    }
    if failed { Err(Failure::Other("a part of the process has failed: see its log".into())) } else { Ok(()) }
}
