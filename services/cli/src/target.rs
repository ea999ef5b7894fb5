//! Which servers a verb is about: those that are named, else those of the `daybook dev` that runs.

use crate::Failure;
use crate::config::Servers;
use runtime::client::Client;
use runtime::nats::Nats;
use runtime::process::{StartError, Urls};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a command is repeated while a server does not answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a running `daybook dev` leaves in its folder for other verbs, and for its own next start.
#[derive(Debug, Serialize, Deserialize)]
pub struct DevFile {
    /// Of the process; the servers end with it.
    pub pid: u32,
    #[serde(flatten)]
    pub urls: Urls,
    pub nats_port: u16,
}

impl DevFile {
    fn path(dir: &Path) -> PathBuf {
        dir.join("dev.json")
    }

    /// What the last `daybook dev` in this folder left, running or not.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(dir)).ok()?).ok()
    }

    pub fn write(&self, dir: &Path) -> Result<(), Failure> {
        let new = dir.join("dev.json.new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        Ok(std::fs::rename(new, Self::path(dir))?)
    }

    /// A process of that id may be another one by now: it has to be a `dev`.
    fn is_running(&self) -> bool {
        let command = std::fs::read(Path::new("/proc").join(self.pid.to_string()).join("cmdline"));
        command.is_ok_and(|command| command.split(|b| *b == 0).any(|argument| argument == b"dev"))
    }
}

/// Where `daybook dev` keeps its servers if it is not told: `DAYBOOK_DEV`, else a folder for the user's data.
pub fn dev_dir() -> Result<PathBuf, Failure> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = named("DAYBOOK_DEV") {
        return Ok(dir);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/daybook/dev"));
    }
    let data = named("XDG_DATA_HOME").or_else(|| named("HOME").map(|home| home.join(".local/share")));
    let unknown = || Failure::Usage("there is no home folder: name one with --dir or DAYBOOK_DEV".into());
    Ok(data.ok_or_else(unknown)?.join("daybook/dev"))
}

/// The database to use.
pub fn database_url(servers: &Servers) -> Result<String, Failure> {
    match servers.database_url()? {
        Some(url) => Ok(url),
        None if nats_that_is_set(servers)?.is_some() => {
            Err(Failure::Usage("NATS_URL is set, DATABASE_URL is not: set both, or neither".into()))
        }
        None => Ok(running()?.database_url),
    }
}

/// The NATS to use, and who to be there.
pub fn nats(servers: &Servers) -> Result<Nats, Failure> {
    match nats_that_is_set(servers)? {
        Some(nats) => Ok(nats),
        None if servers.database_url()?.is_some() => {
            Err(Failure::Usage("DATABASE_URL is set, NATS_URL is not: set both, or neither".into()))
        }
        None => nats_at(&running()?.nats_url),
    }
}

/// The NATS that is named, if one is.
pub fn nats_that_is_set(servers: &Servers) -> Result<Option<Nats>, Failure> {
    Nats::from_args(servers.nats_url.as_deref(), &servers.nats).map_err(|e| Failure::Usage(e.to_string()))
}

/// The NATS at a URL that one of Daybook's own servers has.
pub fn nats_at(url: &str) -> Result<Nats, Failure> {
    Nats::at(url).map_err(|e| Failure::Usage(e.to_string()))
}

/// The servers of the `daybook dev` that runs.
fn running() -> Result<Urls, Failure> {
    let running = DevFile::read(&dev_dir()?).filter(DevFile::is_running);
    let none = "set DATABASE_URL and NATS_URL, or start `daybook dev` (none is running)";
    Ok(running.ok_or_else(|| Failure::Unavailable(none.into()))?.urls)
}

/// A connection to NATS, under a name that operators see.
pub async fn connect(servers: &Servers, name: &str) -> Result<async_nats::Client, Failure> {
    Ok(nats(servers)?.process.connect(name).await.map_err(StartError::from)?)
}

/// A client of the APIs, as the person at the command line.
pub async fn client(servers: &Servers) -> Result<Client, Failure> {
    Ok(Client::new(connect(servers, "daybook cli").await?, "cli"))
}
