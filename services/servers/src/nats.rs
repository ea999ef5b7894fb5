//! A private nats-server with JetStream on a loopback port: started, stopped, killed and started again on the same store.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use crate::error::{ServersError, at};
use crate::folder;
use crate::process::{self, Server};
use crate::{Binaries, Progress};

const NAME: &str = "nats-server";

#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Created if it does not exist. The log, and a configuration that is empty at each start, lie beside it.
    pub store_dir: PathBuf,
    /// `None` leaves the choice to nats-server, which cannot lose it to another process before it listens.
    pub port: Option<u16>,
    /// What it is configured with beside what is said here.
    pub configuration: Option<Configuration>,
}

/// A file in nats-server's format. Its `listen` and `store_dir` do not count.
#[derive(Clone)]
pub struct Configuration {
    pub file: PathBuf,
    /// The variables that the file refers to.
    pub environment: Vec<(String, String)>,
    /// The user, and the password, that [`Nats::url`] names.
    pub login: Option<(String, String)>,
}

/// It holds passwords.
impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Ended when it is dropped, and by the kernel when this process ends.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    store_dir: PathBuf,
    configuration: Option<Configuration>,
    port: u16,
    server: Server,
}

impl Nats {
    /// Returns once it answers as a server with JetStream. A port that is taken is `ServersError::PortTaken`.
    pub async fn start(
        binaries: &Binaries,
        options: NatsOptions,
        progress: Progress<'_>,
    ) -> Result<Self, ServersError> {
        let store_dir = std::path::absolute(&options.store_dir).map_err(at("resolve", &options.store_dir))?;
        folder::create(&store_dir, 0o700)?;
        progress(&format!("starting nats-server {}…", binaries.nats_server.version));
        let program = binaries.nats_server.path.clone();
        let configuration = options.configuration;
        let (server, port) = launch(&program, &store_dir, configuration.as_ref(), options.port).await?;
        Ok(Self { program, store_dir, configuration, port, server })
    }

    /// Stops it, if it runs, and starts it on the same store and the same port.
    pub async fn restart(&mut self) -> Result<(), ServersError> {
        self.stop().await;
        let configuration = self.configuration.as_ref();
        (self.server, self.port) = launch(&self.program, &self.store_dir, configuration, Some(self.port)).await?;
        Ok(())
    }

    pub fn url(&self) -> String {
        match self.configuration.as_ref().and_then(|configuration| configuration.login.as_ref()) {
            Some((user, password)) => format!("nats://{user}:{password}@127.0.0.1:{}", self.port),
            None => format!("nats://127.0.0.1:{}", self.port),
        }
    }

    /// The file of its configuration.
    pub fn configuration_file(&self) -> PathBuf {
        match &self.configuration {
            Some(configuration) => configuration.file.clone(),
            None => folder::beside(&self.store_dir, "conf"),
        }
    }

    /// Where it keeps what it stores.
    pub fn store_dir(&self) -> &Path {
        &self.store_dir
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Closes its connections and syncs its store.
    pub async fn stop(&mut self) {
        self.server.end(&[(Signal::TERM, Duration::from_secs(10))]).await;
    }

    /// A crash, for fault tests; it is gone when this returns.
    pub async fn kill9(&mut self) {
        self.server.end(&[]).await;
    }
}

async fn launch(
    program: &Path,
    store_dir: &Path,
    configuration: Option<&Configuration>,
    port: Option<u16>,
) -> Result<(Server, u16), ServersError> {
    // As the kernel reports it for the working folder of a process.
    let store_dir = store_dir.canonicalize().map_err(at("find", store_dir))?;
    process::earlier_ended(NAME, NAME, &store_dir.join("nats.pid"), &store_dir).await?;
    // A killed server leaves its ports file; its pid, which is in the name, may come again.
    for file in ports_files(&store_dir, ".ports") {
        fs::remove_file(&file).map_err(at("remove", &file))?;
    }

    let mut command = Command::new(program);
    // It runs in its store folder: so a later run can tell whether a pid is still its own.
    command.current_dir(&store_dir).args(["-js", "-a", "127.0.0.1", "-p"]).arg(port.map_or(-1, i32::from).to_string());
    // Whoever looks at the processes sees whose it is.
    command.arg("--store_dir").arg(&store_dir).args(["--pid", "nats.pid", "--ports_file_dir", "."]);
    match configuration {
        Some(Configuration { file, environment, .. }) => {
            command.arg("-c").arg(file).envs(environment.iter().map(|(name, value)| (name, value)));
        }
        None => {
            let file = folder::beside(&store_dir, "conf");
            fs::write(&file, "# Written by daybook at each start.\n").map_err(at("write", &file))?;
            command.arg("-c").arg(&file);
        }
    }
    // SIGKILL, when daybook dies: nobody is left to insist if an orderly end hangs, and the port and the store must be
    // free for the next start. What it acknowledged is in the page cache, and the log in Postgres has it all.
    let mut server = Server::spawn(NAME, command, folder::beside(&store_dir, "log"), Signal::KILL)?;
    let ending = format!("_{}.ports", server.pid());
    let listening = server.ready(|| ports_files(&store_dir, &ending).find_map(|file| port_in(&file))).await;
    match (listening, port) {
        (Ok(port), _) => {
            check(port).await?;
            Ok((server, port))
        }
        // The kernel knows better than the wording of a log; the server is gone, so this takes nothing from it.
        (Err(ServersError::Exited { .. }), Some(port)) if is_taken(port) => Err(ServersError::PortTaken { port }),
        (Err(error), _) => Err(error),
    }
}

fn is_taken(port: u16) -> bool {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn ports_files<'a>(store_dir: &Path, ending: &'a str) -> impl Iterator<Item = PathBuf> + use<'a> {
    let entries = fs::read_dir(store_dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(move |path| path.as_os_str().as_encoded_bytes().ends_with(ending.as_bytes()))
}

/// The port in the ports file, which nats-server writes once it listens; `None` if it is only half written.
fn port_in(file: &Path) -> Option<u16> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let ports: Ports = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    ports.nats.first()?.rsplit_once(':')?.1.parse().ok()
}

/// Reads the INFO line with which every server greets: is it one, does it have JetStream?
async fn check(port: u16) -> Result<(), ServersError> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        jetstream: bool,
    }
    let greeting = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let mut line = String::new();
        BufReader::new(stream.take(64 * 1024)).read_line(&mut line).await?;
        io::Result::Ok(line)
    };
    let answer = match tokio::time::timeout(Duration::from_secs(10), greeting).await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nothing for 10 s".to_owned(),
    };
    let info = answer.strip_prefix("INFO ").and_then(|json| serde_json::from_str::<Info>(json).ok());
    if info.is_some_and(|info| info.jetstream) {
        Ok(())
    } else {
        Err(ServersError::UnusableNats { port, answer: answer.trim().to_owned() })
    }
}
