//! Where it is measured: on private servers that are as durable as real ones, or in a database made on a given Postgres.

use crate::private;
use cli::{Failure, migrate, output};
use servers::{Servers, ServersOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

pub(super) struct Place {
    /// Of a database with nothing in it but the schema; the URL's user may do everything.
    pub(super) database_url: String,
    pub(super) nats_url: String,
    servers: Servers,
    made: Option<Made>,
}

/// A database on a Postgres that is not ours.
struct Made {
    server: PgConnectOptions,
    name: String,
}

impl Place {
    pub(super) async fn prepare(server: Option<&str>) -> Result<Self, Failure> {
        let servers = Servers::start(ServersOptions { durable: true, ..ServersOptions::default() }, &output::say)
            .await
            .map_err(private::not_started)?;
        let (database_url, made) = match server {
            None => (servers.postgres.url(private::DATABASE), None),
            Some(url) => {
                let server: PgConnectOptions = url.parse()?;
                let name = format!("daybook_bench_{}", Uuid::now_v7().simple());
                let mut connection = server.connect().await?;
                require_durable(&mut connection).await?;
                sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await?;
                let url = server.clone().database(&name).to_url_lossy().to_string();
                (url, Some(Made { server, name }))
            }
        };
        let place = Self { database_url, nats_url: servers.nats.url(), servers, made };
        require_durable(&mut PgConnection::connect(&place.database_url).await?).await?;
        migrate::migrate(&place.database_url).await?;
        Ok(place)
    }

    /// Ends the private servers, and drops what was made elsewhere.
    pub(super) async fn clear(self) {
        if let Some(Made { server, name }) = self.made {
            let drop = format!("DROP DATABASE {name} WITH (FORCE)");
            let dropped = async {
                let mut connection = server.connect().await?;
                sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await
            };
            if let Err(e) = dropped.await {
                output::say(&format!("the database {name} is left behind: {e}"));
            }
        }
        self.servers.stop().await;
    }
}

/// A figure without durability would be no figure.
async fn require_durable(connection: &mut PgConnection) -> Result<(), Failure> {
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&mut *connection).await?;
        if value != "on" {
            return Err(Failure::Usage(format!(
                "{setting} is {value} on this Postgres: set it to on, and measure then"
            )));
        }
    }
    Ok(())
}
