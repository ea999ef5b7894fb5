//! PostgreSQL and nats-server as private child processes, for `daybook demo`, `daybook dev` and the tests. They are found
//! or installed, live in one folder, and never outlive this process.

mod error;
mod folder;
mod install;
mod nats;
mod postgres;
mod process;

use std::path::{Path, PathBuf};

pub use error::ServersError;
pub use install::{Binaries, Program};
pub use nats::{Configuration, Nats, NatsOptions};
pub use postgres::{Postgres, PostgresOptions};

use folder::Folder;

/// Called with one line for each step that takes time, or that the user should know of.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

#[derive(Debug, Clone, Default)]
pub struct ServersOptions {
    /// Kept, and locked against a second daybook. `None` is a temporary folder, which is removed at the end.
    pub dir: Option<PathBuf>,
    pub durable: bool,
    pub nats_port: Option<u16>,
}

/// A Postgres without NATS, in a temporary folder. Dropping it ends the server.
#[derive(Debug)]
pub struct TemporaryPostgres {
    pub postgres: Postgres,
    pub binaries: Binaries,
    /// Last, so that it outlives the server in it.
    folder: Folder,
}

impl TemporaryPostgres {
    /// Returns once it is ready. It is fast, and does not survive a failure of the machine.
    pub async fn start(progress: Progress<'_>) -> Result<Self, ServersError> {
        let binaries = Binaries::locate(progress).await?;
        let folder = Folder::temporary(&swept_temporary_folder())?;
        let options = PostgresOptions { data_dir: folder.path().join("postgres"), durable: false };
        let postgres = Postgres::start(&binaries, options, progress).await?;
        Ok(Self { postgres, binaries, folder })
    }

    /// Where it keeps its data and its log.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }
}

/// Where temporary folders go, without those that killed processes have left there.
fn swept_temporary_folder() -> PathBuf {
    let temp = std::env::temp_dir();
    folder::sweep(&temp);
    if temp != Path::new("/tmp") {
        // Where sockets go whose path would be too long.
        folder::sweep(Path::new("/tmp"));
    }
    temp
}

/// Both servers. Dropping it ends them; `stop` does so in order.
#[derive(Debug)]
pub struct Servers {
    pub postgres: Postgres,
    pub nats: Nats,
    /// Last, so that it outlives the servers in it.
    folder: Folder,
}

impl Servers {
    /// Returns once both are ready.
    pub async fn start(options: ServersOptions, progress: Progress<'_>) -> Result<Self, ServersError> {
        let temp = swept_temporary_folder();
        let binaries = Binaries::locate(progress).await?;
        let folder = match &options.dir {
            Some(dir) => Folder::persistent(dir)?,
            None => Folder::temporary(&temp)?,
        };
        let postgres = PostgresOptions { data_dir: folder.path().join("postgres"), durable: options.durable };
        let nats = NatsOptions { store_dir: folder.path().join("nats"), port: options.nats_port, configuration: None };
        // Not `try_join`: if one fails, the other is ended as a whole and not in the middle of its start.
        let (postgres, nats) =
            tokio::join!(Postgres::start(&binaries, postgres, progress), Nats::start(&binaries, nats, progress));
        Ok(Self { postgres: postgres?, nats: nats?, folder })
    }

    /// Where the servers keep their data and their logs.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Stops both in order; removes the folder if it is a temporary one.
    pub async fn stop(mut self) {
        tokio::join!(self.postgres.stop(), self.nats.stop());
    }
}
