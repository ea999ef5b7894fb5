//! `daybook migrate`: the schema and its roles, as this build needs them.

use super::{Failure, output};
use crate::config::Servers;
use sqlx::{Connection, PgConnection};
use store::MIGRATOR;

pub(super) async fn run(servers: &Servers) -> Result<(), Failure> {
    let url = match &servers.database_url {
        Some(url) => url.clone(),
        None => super::target::urls(servers)?.database_url,
    };
    migrate(&url).await?;
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
