//! The folder that holds both servers: locked against a second user for as long as this process lives, and temporary if
//! nobody named one. Also the modes that let Postgres' own user in when daybook runs as root.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::error::{ServersError, at};
use crate::process::{self, UNPRIVILEGED};

/// Locked until it is dropped; a temporary one is then removed.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    temporary: bool,
    /// The kernel frees the lock with the process, on kill -9 as well; children do not inherit it (std sets CLOEXEC).
    _lock: File,
}

impl Folder {
    pub(crate) fn persistent(path: &Path) -> Result<Self, ServersError> {
        let path = std::path::absolute(path).map_err(at("resolve", path))?;
        create(&path, enterable_mode())?;
        let lock = lock(&path)?;
        Ok(Self { path, temporary: false, _lock: lock })
    }

    /// A new `<base>/daybook-<pid>-<n>`.
    pub(crate) fn temporary(base: &Path) -> Result<Self, ServersError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("daybook-{}-{n}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                // Left by an earlier process with our pid; the next process sweeps it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.map_err(at("create", &path))?,
            }
            set_mode(&path, enterable_mode())?;
            let lock = lock(&path)?;
            return Ok(Self { path, temporary: true, _lock: lock });
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(folder = %self.path.display(), %error, "temporary folder not removed");
        }
    }
}

fn lock(dir: &Path) -> Result<File, ServersError> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(at("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(ServersError::InUse { dir: dir.to_owned(), pid: process::pid_in(&path) });
        }
        Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(at("write", &path))?;
    Ok(file)
}

/// Removes the temporary folders of processes that were killed before they could do it themselves.
pub(crate) fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if is_abandoned(&entry.path()) {
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::debug!(folder = %entry.path().display(), "removed an abandoned folder"),
                Err(error) => {
                    tracing::warn!(folder = %entry.path().display(), %error, "abandoned folder not removed");
                }
            }
        }
    }
}

/// True only for our own folder, with exactly our form of name, whose process, lock and servers are all gone.
fn is_abandoned(path: &Path) -> bool {
    let ours = fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw());
    let owner = path.file_name().and_then(|name| owner_of(name.to_str()?));
    if !ours || owner.is_none_or(process::is_alive) {
        return false;
    }
    // The owner may live in another container that shares this folder; its lock shows what its pid does not.
    let locked = File::open(path.join("lock")).is_ok_and(|file| file.try_lock().is_err());
    let pid_files = ["postgres/postmaster.pid", "nats/nats.pid", "socket/.s.PGSQL.5432.lock"];
    let served = pid_files.iter().filter_map(|file| process::pid_in(&path.join(file))).any(process::is_server);
    !locked && !served
}

/// The pid in `daybook-<pid>-<n>`.
fn owner_of(name: &str) -> Option<u32> {
    let (pid, n) = name.strip_prefix("daybook-")?.split_once('-')?;
    let number = |text: &str| -> Option<u32> {
        let value: u32 = text.parse().ok()?;
        (value.to_string() == text).then_some(value)
    };
    number(n).and(number(pid))
}

/// `<path>.<suffix>`, in the same parent.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// What a folder on the way to Postgres' files needs.
fn enterable_mode() -> u32 {
    if process::is_root() { 0o711 } else { 0o700 }
}

/// Creates what is missing of `path` with this mode, whatever the umask; leaves what exists as it is.
pub(crate) fn create(path: &Path, mode: u32) -> Result<(), ServersError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create(parent, mode)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(at("create", path)(error)),
        Ok(()) => set_mode(path, mode),
    }
}

/// Creates the parent of `path`, and as root makes sure that Postgres' user can come that far.
pub(crate) fn create_parent(path: &Path) -> Result<(), ServersError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    create(parent, enterable_mode())?;
    for folder in parent.ancestors().filter(|_| process::is_root()) {
        let found = fs::metadata(folder).map_err(at("look at", folder))?;
        let bit = if found.uid() == UNPRIVILEGED { 0o100 } else { 0o001 };
        if found.mode() & bit == 0 {
            return Err(ServersError::NotEnterable { path: folder.to_owned(), uid: UNPRIVILEGED });
        }
    }
    Ok(())
}

/// An empty folder for Postgres' user alone; what it held is removed.
pub(crate) fn create_empty(path: &Path) -> Result<(), ServersError> {
    let mut tries = 0..200;
    while let Err(error) = fs::remove_dir_all(path) {
        match error.kind() {
            io::ErrorKind::NotFound => break,
            // The backend of a killed initdb writes there until it finds the end of its input.
            io::ErrorKind::DirectoryNotEmpty if tries.next().is_some() => thread::sleep(Duration::from_millis(10)),
            _ => return Err(at("empty", path)(error)),
        }
    }
    DirBuilder::new().mode(0o700).create(path).map_err(at("create", path))?;
    if process::is_root() {
        std::os::unix::fs::chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).map_err(at("chown", path))?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ServersError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("chmod", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_form_of_name_has_an_owner() {
        assert_eq!(owner_of("daybook-4711-0"), Some(4711));
        for other in ["daybook-4711", "daybook-4711-0.bak", "daybook-4711-0-1", "daybook-+1-0", "daybook-01-0", "x-1-0"]
        {
            assert_eq!(owner_of(other), None, "{other}");
        }
    }
}
