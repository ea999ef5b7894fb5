//! `daybook migrate`: the schema and its roles, as this build needs them.

use crate::config::Servers;
use crate::{Failure, logins, output, target};
use sqlx::Connection;
use store::{MIGRATOR, connect};

#[derive(clap::Args)]
pub struct Args {
    /// Also create a login for each role of a process, with its rights and settings. It has no password yet.
    #[arg(long)]
    logins: bool,
}

pub async fn run(args: &Args, servers: &Servers) -> Result<(), Failure> {
    let url = target::database_url(servers)?;
    migrate(&url).await?;
    output::say("the schema is up to date");
    if args.logins {
        let made = logins::make(&url).await?;
        output::say("the logins are up to date; in psql, \\password NAME sets a password");
        made.iter().for_each(|login| output::line(login));
    }
    Ok(())
}

/// Applies the migrations that the database does not have yet, if it is one that they can be applied to.
pub async fn migrate(url: &str) -> Result<(), Failure> {
    let mut connection = connect::to_migrate(url).await?;
    let migrated = MIGRATOR.run(&mut connection).await;
    _ = connection.close().await;
    migrated.map_err(|e| Failure::Unavailable(format!("the schema cannot be brought up to date: {e}")))
}
