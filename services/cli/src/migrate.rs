//! `daybook migrate`: the schema and its roles, as this build needs them.

use crate::config::Servers;
use crate::{Failure, logins, output, target};
use store::schema::{self, MigrateError, Part};

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
    Ok(schema::migrate(url, &parts()).await?)
}

/// The parts of the schema that are built on the log, in the order in which they are made: each may refer to those before it.
pub fn parts() -> [&'static Part; 2] {
    [&engine::schema::ENGINE, &order_views::schema::ORDERS]
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        let text = format!("the schema cannot be brought up to date: {error}");
        match error {
            MigrateError::Database(error) => error.into(),
            MigrateError::Failed { .. } | MigrateError::Other { .. } => Self::Unavailable(text),
            MigrateError::Unknown(_) | MigrateError::Changed(_) | MigrateError::Unfinished(_) => Self::Refused(text),
        }
    }
}
