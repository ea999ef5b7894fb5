//! Which history of the log a process has seen.
//!
//! A log can go on from an older state: after a restore, or a failover to a replica that lacked the last events. What a
//! process remembers of lost events must not count any more. Its connections do not tell it: behind a pooler they
//! survive. So each append names the marks that the process has seen, and each load asks for them.
//!
//! There may be several marks. Of two statements that ran at once, one may have shown the log before a change of history
//! and the other one the log after it.

use crate::Position;
use crate::hash_chain::Mark;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The marks that a process has seen of the log, by appending or loading. There is one for each process, which the
/// [`Appender`](crate::Appender::history) makes; clones share it.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Seen>>);

/// One history of the log, as this process knows it. What was read from it carries it. It is lost when the log is found to
/// have another history.
#[derive(Debug, Clone, Default)]
pub struct Branch(Arc<AtomicBool>);

/// What a process has seen of a branch. A log that has all the marks has all of it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The branch that the log is on.
    pub branch: Branch,
    /// The ends of the log in the answers that no later statement has asked for.
    pub marks: Vec<Mark>,
}

/// What a statement found that asked for marks with [`Seen::columns`], while it read something else.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Whether the log has all the marks.
    pub has_seen: bool,
    /// Where the log ends; `None` if it has no event.
    pub end: Option<Mark>,
}

impl Seen {
    /// The positions and the links of the marks, as the SQL functions `append_group` and `has_marks` take them.
    pub fn columns(&self) -> (Vec<Position>, Vec<&[u8]>) {
        self.marks.iter().map(|mark| (mark.position, &mark.link.0[..])).unzip()
    }
}

impl Branch {
    /// Whether the log has been found to have another history.
    pub fn is_lost(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether both are the same history, as this process knows it.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn lost() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl History {
    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The marks that a statement has to ask for.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Notes what a statement found that asked for `asked`. Returns the branch that it read from.
    pub fn note(&self, asked: Seen, found: Found) -> Branch {
        if !found.has_seen {
            return self.lose(&asked.branch, found.end);
        }
        if let Some(end) = found.end {
            self.advance(&asked, end);
        }
        asked.branch
    }

    /// The log had all of `asked` and ended at `end`, so `end` stands for them. Marks that were seen meanwhile stay: the log
    /// that ends at `end` may not have them.
    pub(crate) fn advance(&self, asked: &Seen, end: Mark) {
        let mut seen = self.lock();
        if seen.branch.is_same(&asked.branch) {
            seen.marks.retain(|mark| *mark != end && !asked.marks.contains(mark));
            seen.marks.push(end);
        }
    }

    /// The log does not have what was seen of `branch`, and ends at `now` if that is known. Returns the branch that the log
    /// is on; a lost one, if another statement has found this out before.
    pub(crate) fn lose(&self, branch: &Branch, now: Option<Mark>) -> Branch {
        let mut seen = self.lock();
        if seen.branch.is_same(branch) {
            tracing::warn!(
                seen = ?seen.marks,
                found = ?now,
                "the log has another history than this process has seen: what it remembers is thrown away"
            );
            seen.branch.0.store(true, Ordering::Release);
            *seen = Seen { branch: Branch::default(), marks: now.into_iter().collect() };
            return seen.branch.clone();
        }
        Branch::lost()
    }
}
