//! `daybook migrate`: the schema and its roles, as this build needs them.

use super::{Failure, output, target};
use crate::config::Servers;
use crate::logins;
use store::schema::{self, MigrateError};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Also make a login for each role of a process, with the rights and settings that it needs, and no password.
    #[arg(long)]
    logins: bool,
}

pub(super) async fn run(args: &Args, servers: &Servers) -> Result<(), Failure> {
    let url = target::database_url(servers)?;
    migrate(&url).await?;
    output::say("the schema is up to date");
    if args.logins {
        let made = logins::make(&url).await?;
        output::say("the logins are as this build needs them; in psql, \\password NAME gives one a password");
        made.iter().for_each(|login| output::line(login));
    }
    Ok(())
}

/// Applies the migrations that the database does not have yet, if it is one that they can be applied to.
pub(super) async fn migrate(url: &str) -> Result<(), Failure> {
    Ok(schema::migrate(url, &projections::schema::parts()).await?)
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
