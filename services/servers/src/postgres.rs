//! A private PostgreSQL on a unix socket: created, started, stopped, killed and started again on the same data folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{ServersError, at};
use crate::folder::{self, Folder};
use crate::process::{self, Server};
use crate::{Binaries, Progress};

const NAME: &str = "PostgreSQL";
const SOCKET_FILE: &str = ".s.PGSQL.5432";
/// The kernel allows 107 bytes; some clients fewer.
const LONGEST_SOCKET_PATH: usize = 100;

#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Created, with a new cluster, if it does not exist. The log, and usually the socket, lie beside it.
    pub data_dir: PathBuf,
    /// Whether what is committed survives a crash of the machine. Tests do without.
    pub durable: bool,
}

/// Ended when it is dropped, and by the kernel when this process ends.
#[derive(Debug)]
pub struct Postgres {
    program: PathBuf,
    options: PostgresOptions,
    socket_dir: PathBuf,
    server: Server,
    /// After `server`, so that it is removed last.
    _socket_folder: Option<Folder>,
}

impl Postgres {
    /// Returns once it accepts connections. Recovers by itself what a crash has left, and waits for an earlier server on
    /// this folder that is still shutting down.
    pub async fn start(
        binaries: &Binaries,
        options: PostgresOptions,
        progress: Progress<'_>,
    ) -> Result<Self, ServersError> {
        let data_dir = std::path::absolute(&options.data_dir).map_err(at("resolve", &options.data_dir))?;
        let options = PostgresOptions { data_dir, ..options };
        folder::create_parent(&options.data_dir)?;
        if !options.data_dir.join("PG_VERSION").exists() {
            progress(&format!("creating a PostgreSQL {} cluster…", binaries.postgres.version));
            create_cluster(&binaries.initdb, &options).await?;
        }
        let (socket_dir, socket_folder) = socket_dir(&options.data_dir)?;
        progress(&format!("starting PostgreSQL {}…", binaries.postgres.version));
        let program = binaries.postgres.path.clone();
        let server = launch(&program, &options, &socket_dir).await?;
        Ok(Self { program, options, socket_dir, server, _socket_folder: socket_folder })
    }

    /// Stops it, if it runs, and starts it on the same folder and the same URL.
    pub async fn restart(&mut self) -> Result<(), ServersError> {
        self.stop().await;
        self.server = launch(&self.program, &self.options, &self.socket_dir).await?;
        Ok(())
    }

    /// For sqlx and libpq. Port and `sslmode` are given so that the user's PGPORT and PGSSLMODE cannot interfere.
    pub fn url(&self, database: &str) -> String {
        let socket_dir = percent_encoded(self.socket_dir.as_os_str().as_encoded_bytes());
        let database = percent_encoded(database.as_bytes());
        format!("postgresql://postgres@localhost:5432/{database}?host={socket_dir}&sslmode=disable")
    }

    /// Of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Ends all sessions and writes a checkpoint; after 10 s without one.
    pub async fn stop(&mut self) {
        let within = Duration::from_secs(10);
        self.server.end(&[(Signal::INT, within), (Signal::QUIT, within)]).await;
    }

    /// A crash, for fault tests: the postmaster is gone when this returns, its backends follow by themselves.
    pub async fn kill9(&mut self) {
        self.server.end(&[]).await;
    }
}

/// A command of PostgreSQL in a clean environment: PGDATA, PGPORT, PGOPTIONS and their like are the user's, for others.
fn postgres_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    process::unprivileged(&mut command);
    command
}

/// Creates it in a sibling: a data folder that exists is complete.
async fn create_cluster(initdb: &Path, options: &PostgresOptions) -> Result<(), ServersError> {
    let unfinished = folder::beside(&options.data_dir, "new");
    folder::create_empty(&unfinished)?;
    let mut command = postgres_command(initdb);
    command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]);
    if !options.durable {
        command.arg("--no-sync");
    }
    command.arg("--pgdata").arg(&unfinished);
    let log = folder::beside(&options.data_dir, "log");
    // SIGKILL: at SIGTERM it would go on for a while, and then remove the folder under the hands of the next start.
    let mut initdb = Server::spawn("initdb", command, log.clone(), Signal::KILL)?;
    let status = initdb.finished().await;
    if !status.success() {
        return Err(ServersError::Initdb { status, log, tail: initdb.tail() });
    }
    fs::rename(&unfinished, &options.data_dir).map_err(at("rename into place", &options.data_dir))?;
    if options.durable {
        // Without this a power failure could take back the rename, and with it all that was committed since.
        let parent = options.data_dir.parent().unwrap_or(Path::new("/"));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(at("sync", parent))?;
    }
    Ok(())
}

/// Beside the data folder, or in `/tmp` where that path is too long for a socket, or would be read as a list of paths by
/// Postgres (`"`, `,`) or libpq (`,`). Only Postgres' user and root may enter.
fn socket_dir(data_dir: &Path) -> Result<(PathBuf, Option<Folder>), ServersError> {
    let socket_dir = folder::beside(data_dir, "socket");
    let path = socket_dir.join(SOCKET_FILE).into_os_string().into_encoded_bytes();
    if path.len() <= LONGEST_SOCKET_PATH && !path.contains(&b',') && !path.contains(&b'"') {
        return Ok((socket_dir, None));
    }
    let short = Folder::temporary(Path::new("/tmp"))?;
    Ok((short.path().join("socket"), Some(short)))
}

async fn launch(program: &Path, options: &PostgresOptions, socket_dir: &Path) -> Result<Server, ServersError> {
    // As the kernel reports it for the working folder of a process.
    let data_dir = options.data_dir.canonicalize().map_err(at("find", &options.data_dir))?;
    let pid_file = data_dir.join("postmaster.pid");
    let started = Instant::now();
    let mut crashed = false;
    loop {
        process::earlier_ended(NAME, "postgres", &pid_file, &data_dir).await?;
        if pid_file.exists() {
            crashed = true;
            // Its pid may be another process' by now, or even the new postmaster's: pids are small in containers, and
            // the file would hinder the start, or tell that it is ready too soon. The shared memory, whose key is the
            // folder's inode, still shows Postgres whether a backend of the dead postmaster lives.
            fs::remove_file(&pid_file).map_err(at("remove", &pid_file))?;
        }
        folder::create_empty(socket_dir)?;

        let command = server_command(program, options, socket_dir);
        // SIGQUIT, when daybook dies: the postmaster ends at once and takes its backends with it. SIGKILL would leave
        // them behind for a while, in the way of the next start; SIGINT would first write a checkpoint, for however long.
        let mut server = Server::spawn(NAME, command, folder::beside(&options.data_dir, "log"), Signal::QUIT)?;
        let pid = server.pid();
        match server.ready(|| is_ready(&pid_file, pid).then_some(())).await {
            Ok(()) => return Ok(server),
            // After a crash it refuses to start as long as a backend of the dead postmaster is busy.
            Err(ServersError::Exited { .. }) if crashed && started.elapsed() < Duration::from_secs(20) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn server_command(program: &Path, options: &PostgresOptions, socket_dir: &Path) -> Command {
    let mut command = postgres_command(program);
    command.arg("-D").arg(&options.data_dir);
    let durability: &[&str] = if options.durable {
        &["fsync=on", "synchronous_commit=on", "shared_buffers=256MB", "max_wal_size=2GB"]
    } else {
        &["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=128MB"]
    };
    for setting in ["listen_addresses=", "port=5432", "max_connections=200"].iter().chain(durability) {
        command.args(["-c", setting]);
    }
    let mut sockets = std::ffi::OsString::from("unix_socket_directories=");
    sockets.push(socket_dir);
    command.arg("-c").arg(sockets);
    command
}

/// The postmaster writes its state into the eighth line of its pid file; `pg_ctl` waits for it in the same way.
fn is_ready(pid_file: &Path, pid: u32) -> bool {
    process::pid_in(pid_file) == Some(pid)
        && fs::read_to_string(pid_file).is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
}

/// RFC 3986's unreserved characters and `/` stay as they are.
fn percent_encoded(bytes: &[u8]) -> String {
    let mut encoded = String::new();
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_for_a_url() {
        assert_eq!(percent_encoded("/tmp/día 1&x".as_bytes()), "/tmp/d%C3%ADa%201%26x");
    }
}
