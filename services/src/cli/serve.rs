//! `daybook serve`: the services of some roles, until told to end.

use super::{Failure, target};
use crate::config::{Role, Servers};
use crate::process::Process;
use crate::shutdown;
use std::pin::pin;

#[derive(clap::Args)]
pub(super) struct Args {
    /// What to run; everything if not given. Give it several times for several roles.
    #[arg(long = "role", value_enum)]
    roles: Vec<Role>,
}

pub(super) async fn run(args: &Args, servers: &Servers) -> Result<(), Failure> {
    let mut requested = pin!(shutdown::requested());
    let urls = target::urls(servers)?;
    let roles = if args.roles.is_empty() { Role::ALL.to_vec() } else { args.roles.clone() };
    let process = tokio::select! {
        process = Process::start(&urls, &roles) => process?,
        () = &mut requested => return Ok(()),
    };
    tracing::info!(?roles, "ready");
    requested.await;
    tracing::info!("finishing what is under way");
    process.stop().await;
    Ok(())
}
