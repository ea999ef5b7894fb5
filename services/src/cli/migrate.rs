//! `daybook migrate`: the schema and its roles, as this build needs them.

use super::{Failure, output, target};
use crate::config::Servers;
use sqlx::{Connection, PgConnection};
use store::MIGRATOR;

pub(super) async fn run(servers: &Servers) -> Result<(), Failure> {
    migrate(&target::database_url(servers)?).await?;
    output::say("the schema is up to date");
    Ok(())
}

/// Applies the migrations that the database does not have yet.
pub(super) async fn migrate(url: &str) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(url).await?;
    let migrated = MIGRATOR.run(&mut connection).await;
    _ = connection.close().await;
    migrated.map_err(|e| Failure::Unavailable(format!("the schema cannot be brought up to date: {e}")))
}
