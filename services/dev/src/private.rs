//! `daybook dev`: private servers and every service, kept in a folder, left running until Ctrl-C.

use cli::shutdown;
use cli::target::{DevFile, dev_dir};
use cli::{Failure, migrate, output, serve};
use order_services::policy::Timeouts;
use runtime::process::Process;
use runtime::process::Urls;
use serde_json::json;
use servers::{Servers, ServersError, ServersOptions};
use std::path::{Path, PathBuf};
use std::pin::pin;

#[derive(clap::Args)]
pub struct Args {
    /// The folder for the servers' data. Other commands find this `dev` only in the default folder or in DAYBOOK_DEV.
    /// The default is ~/.local/share/daybook/dev; for root, /var/lib/daybook/dev.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The database that Daybook's own servers keep the log in.
pub const DATABASE: &str = "postgres";

/// Runs until it is told to end.
///
/// # Errors
/// When the servers cannot be started.
pub async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let mut requested = pin!(shutdown::requested());
    let dir = match args.dir {
        Some(dir) => dir,
        None => dev_dir()?,
    };
    std::fs::create_dir_all(&dir)?;
    let (servers, process, urls) = tokio::select! {
        started = start(&dir) => started?,
        // What runs by then is ended with what holds it.
        () = &mut requested => return Ok(()),
    };
    if json {
        let ready = json!({ "ready": true, "database_url": urls.database_url, "nats_url": urls.nats_url });
        output::line(&ready.to_string());
    } else {
        output::line(&format!(
            "Postgres  {}\nNATS      {}\ndata      {}",
            urls.database_url,
            urls.nats_url,
            dir.display()
        ));
        output::say("every service is ready; Ctrl-C ends them and both servers");
    }
    let ended = serve::until_told(process, requested).await;
    servers.stop().await;
    ended
}

/// Everything, ready; and its file, by which other verbs find it.
async fn start(dir: &Path) -> Result<(Servers, Process, Urls), Failure> {
    let servers = start_servers(dir).await.map_err(not_started)?;
    let urls = Urls { database_url: servers.postgres.url(DATABASE), nats_url: servers.nats.url() };
    migrate::migrate(&urls.database_url).await?;
    let process = crate::process::start(&urls, Timeouts::default()).await?;
    DevFile { pid: std::process::id(), urls: urls.clone(), nats_port: servers.nats.port() }.write(dir)?;
    Ok((servers, process, urls))
}

/// Why private servers could not be started.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(crate) fn not_started(error: ServersError) -> Failure {
    Failure::Unavailable(error.to_string())
}

/// On the port that it had the last time, if that is free: clients that are still there find it again.
async fn start_servers(dir: &Path) -> Result<Servers, ServersError> {
    let nats_port = DevFile::read(dir).map(|file| file.nats_port);
    let options = ServersOptions { dir: Some(dir.to_owned()), durable: true, nats_port };
    match Servers::start(options.clone(), &output::say).await {
        Err(ServersError::PortTaken { port }) => {
            output::say(&format!("port {port} is taken: NATS gets another one"));
            Servers::start(ServersOptions { nats_port: None, ..options }, &output::say).await
        }
        started => started,
    }
}
