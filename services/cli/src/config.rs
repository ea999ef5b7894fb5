//! Where the servers are, and what is run: flags and environment, read here and nowhere else.

use clap::Args;
use runtime::nats;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::clock;
use store::connect::with_hosts;

/// Where the servers are.
#[derive(Clone, Args)]
pub struct Servers {
    /// The URL of Postgres: postgresql://user@host/database. It may name several hosts, with commas: Daybook uses the one
    /// that takes writes.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, help_heading = "Global options")]
    database_url: Option<String>,
    /// The hosts of Postgres, instead of those in the URL: host:port,host:port, or folders of unix sockets.
    #[arg(long, env = "DATABASE_HOSTS", global = true, help_heading = "Global options", value_name = "HOSTS")]
    database_hosts: Option<String>,
    /// A file with the password for Postgres. PGPASSFILE and PGPASSWORD work, too.
    #[arg(long, env = "DATABASE_PASSWORD_FILE", global = true, help_heading = "Global options", value_name = "FILE")]
    database_password_file: Option<PathBuf>,
    /// The URL of NATS: nats://host:4222. JetStream must be on.
    #[arg(long, env = "NATS_URL", hide_env_values = true, global = true, help_heading = "Global options")]
    pub nats_url: Option<String>,
    #[command(flatten)]
    pub nats: nats::Args,
    /// The tolerated difference between the clocks of Postgres and of this machine, in seconds. Beyond it, nothing is
    /// recorded.
    #[arg(long, value_name = "SECONDS", env = "DAYBOOK_CLOCK_TOLERANCE", default_value_t = clock::TOLERANCE.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400), global = true, help_heading = "Global options")]
    clock_tolerance: u64,
}

impl Servers {
    /// Postgres with all that is given of it, if any is.
    ///
    /// # Errors
    /// When the file of the password cannot be read.
    pub fn database_url(&self) -> std::io::Result<Option<String>> {
        let Some(url) = self.database_url.clone() else { return Ok(None) };
        let url = match &self.database_hosts {
            Some(hosts) => with_hosts(&url, hosts),
            None => url,
        };
        match &self.database_password_file {
            Some(file) => Ok(Some(with_password(&url, &read_secret(file)?))),
            None => Ok(Some(url)),
        }
    }

    /// How far the clocks of Postgres and of this process may be apart.
    pub fn clock_tolerance(&self) -> Duration {
        Duration::from_secs(self.clock_tolerance)
    }
}

/// What a file holds, without the end of its last line.
///
/// # Errors
/// When it cannot be read. The error names the file.
fn read_secret(file: &Path) -> std::io::Result<String> {
    let secret = std::fs::read_to_string(file)
        .map_err(|e| std::io::Error::new(e.kind(), format!("{} cannot be read: {e}", file.display())))?;
    Ok(secret.trim_end_matches(['\r', '\n']).to_owned())
}

fn with_password(url: &str, password: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("{url}{mark}password={encoded}")
}
