//! Child processes that cannot outlive this one, however it ends: return, panic, Ctrl-C or kill -9. And what `/proc`
//! knows about processes of earlier runs. Linux only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::error::{ServersError, at};

/// Who runs what refuses to run as root: `nobody`. (`initdb` insists on a user with a name.)
pub(crate) const UNPRIVILEGED: u32 = 65534;

const POLL: Duration = Duration::from_millis(10);
/// Crash recovery of a large log may take its time; a server that hangs should still be reported some day.
const READY_WITHIN: Duration = Duration::from_secs(120);

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Drops root, if this is root. The caller sees to it that the files can be reached.
pub(crate) fn unprivileged(command: &mut Command) {
    if is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
}

/// Spawns a child that the kernel sends `on_parent_death` to when this process ends. It leads a process group of its own:
/// a Ctrl-C in the terminal is for daybook alone, which then stops its children in order.
pub(crate) fn spawn(mut command: Command, on_parent_death: Signal) -> io::Result<Child> {
    command.process_group(0).stdin(Stdio::null());
    die_with_parent(&mut command, on_parent_death);

    let (reply, child) = mpsc::sync_channel(1);
    let gone = |_| io::Error::other("the thread that spawns processes is gone");
    spawner().send((command, reply)).map_err(|_| gone(()))?;
    // Blocks for the millisecond of a fork and an exec, so that no cancelled future can lose a child on its way.
    child.recv().map_err(|_| gone(()))?
}

#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        // Root's umask may hide what pip installs from the user that Postgres runs as.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        // std runs this after setuid, which would have cleared the signal.
        rustix::process::set_parent_process_death_signal(Some(signal))?;
        // The parent may have died before the line above; then no signal will come.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes three system calls; it does not allocate and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

/// The kernel sends the death signal when the *thread* that spawned ends, and a runtime's threads come and go. So one
/// thread, which lives as long as the process, spawns all children.
fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        let work = move || {
            for (mut command, reply) in jobs {
                let _ = reply.send(command.spawn());
            }
        };
        // Without the thread `jobs` is dropped, and every send says so.
        let _ = thread::Builder::new().name("spawner".to_owned()).spawn(work);
        sender
    })
}

/// Runs a short command to its end and returns what it printed, or why it did not work.
pub(crate) async fn output(mut command: Command, within: Duration) -> Result<String, String> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command, Signal::KILL).map_err(|error| format!("it does not run: {error}"))?;
    let Some(status) = wait(&mut child, within).await else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("it gave no answer within {} s", within.as_secs()));
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    child.stdout.take().map(|mut pipe| pipe.read_to_end(&mut out));
    child.stderr.take().map(|mut pipe| pipe.read_to_end(&mut err));
    if status.success() {
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    } else {
        Err(format!("it failed ({status}): {}", String::from_utf8_lossy(&err).trim()))
    }
}

/// Polled rather than tied to a runtime's signal driver: tests share one server among many runtimes.
async fn wait(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            _ if started.elapsed() > within => return None,
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// A long-running child and its log file. Dropping it ends the child with the signal of its parent's death.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    death: Signal,
    log: PathBuf,
    /// Where this run begins in the log, which is appended to.
    log_start: u64,
}

impl Server {
    pub(crate) fn spawn(
        name: &'static str,
        mut command: Command,
        log: PathBuf,
        death: Signal,
    ) -> Result<Self, ServersError> {
        let open = || -> io::Result<(File, File, u64)> {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&log)?;
            let length = file.metadata()?.len();
            Ok((file.try_clone()?, file, length))
        };
        let (out, err, log_start) = open().map_err(at("open the log", &log))?;
        command.stdout(out).stderr(err);
        let program = PathBuf::from(command.get_program());
        let child = spawn(command, death).map_err(at("run", &program))?;
        Ok(Self { name, child, death, log, log_start })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks until there is an answer; an early exit or too long a silence is an error with the end of the log.
    pub(crate) async fn ready<T>(&mut self, mut ask: impl FnMut() -> Option<T>) -> Result<T, ServersError> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let (log, tail) = (self.log.clone(), self.tail());
                return Err(ServersError::Exited { name: self.name, status, log, tail });
            }
            if let Some(answer) = ask() {
                return Ok(answer);
            }
            if started.elapsed() > READY_WITHIN {
                let (seconds, log, tail) = (READY_WITHIN.as_secs(), self.log.clone(), self.tail());
                return Err(ServersError::NotReady { name: self.name, seconds, log, tail });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for the end of a command that ends by itself.
    pub(crate) async fn finished(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = wait(&mut self.child, READY_WITHIN).await {
                return status;
            }
        }
    }

    /// Sends one signal after the other, each with its time to work, and at last SIGKILL. Does nothing if it has ended.
    pub(crate) async fn end(&mut self, steps: &[(Signal, Duration)]) {
        for &(signal, within) in steps {
            self.signal(signal);
            if wait(&mut self.child, within).await.is_some() {
                return;
            }
            tracing::warn!(server = self.name, pid = self.pid(), ?signal, "did not end in time");
        }
        self.signal(Signal::KILL);
        self.finished().await;
    }

    /// The last lines that this run has logged.
    pub(crate) fn tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let from = file.metadata()?.len().saturating_sub(4096).max(self.log_start);
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_else(|error| format!("(the log cannot be read: {error})"));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Its pid cannot be another's yet: only `try_wait` reaps it.
    fn signal(&mut self, signal: Signal) {
        if let Ok(None) = self.child.try_wait() {
            let _ = rustix::process::kill_process(Pid::from_child(&self.child), signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(self.death);
        for _ in 0..200 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process with this pid, if it lives, by the name of its executable (15 bytes). Zombies do not live.
fn name_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    (!rest.starts_with(['Z', 'X'])).then(|| name.to_owned())
}

pub(crate) fn is_alive(pid: u32) -> bool {
    name_of(pid).is_some()
}

pub(crate) fn is_server(pid: u32) -> bool {
    name_of(pid).is_some_and(|name| name == "postgres" || name == "nats-server")
}

/// The pid on the first line of a pid file. Postgres writes a negative one for a single-user backend.
pub(crate) fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.lines().next()?.trim().trim_start_matches('-').parse().ok()
}

/// Whether `program` runs under this pid with this working folder: a pid alone may have passed to another process.
pub(crate) fn runs_in(pid: u32, program: &str, folder: &Path) -> bool {
    // Root without CAP_SYS_PTRACE, as in a container, may not read the link of another user's process.
    let elsewhere = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd != folder);
    name_of(pid).is_some_and(|name| name == program) && !elsewhere
}

/// Waits until a server that an earlier run left in `folder` has ended.
pub(crate) async fn earlier_ended(
    name: &'static str,
    program: &str,
    pid_file: &Path,
    folder: &Path,
) -> Result<(), ServersError> {
    let started = Instant::now();
    while let Some(pid) = pid_in(pid_file).filter(|&pid| runs_in(pid, program, folder)) {
        if started.elapsed() > Duration::from_secs(20) {
            return Err(ServersError::StillRunning { name, pid, dir: folder.to_owned() });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
