//! Which history of the log a process has seen.
//!
//! A log can go on from an older state: after a failover to a replica that lacked the last events, or a restore. What a
//! process remembers of the events that were lost must not count any more. It cannot notice that by its connections: they
//! survive behind a pooler. So each append names the marks that the process has seen, and each load asks for them.
//!
//! There may be several: of statements that were under way at once, one may have shown the log before a change of history,
//! and the other one the log after it.

use crate::Position;
use crate::chain::Mark;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The marks that a process has seen of the log, by appending or loading. One a process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Seen>>);

/// One history of the log, until the log is found to have another one. What was read from it carries it.
#[derive(Debug, Clone, Default)]
pub struct Branch(Arc<AtomicBool>);

/// The branch that the log is on, and where it ended in each answer that no later statement has asked for. A log that has
/// all these marks has all that was seen of the branch.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub branch: Branch,
    pub marks: Vec<Mark>,
}

/// What a statement has found that was asked for marks, and reads something else at the same moment.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Whether the log has all the marks.
    pub has_seen: bool,
    /// Where the log ends; `None` if it has no event.
    pub end: Option<Mark>,
}

impl Seen {
    /// The positions of the marks, and their links, as `append_group` and `has_marks` take them.
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

    /// What a statement is to ask for.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Notes what a statement has found that was asked for `asked`. Returns the branch that it has read from.
    pub fn note(&self, asked: Seen, found: Found) -> Branch {
        if !found.has_seen {
            return self.lose(&asked.branch, found.end);
        }
        if let Some(end) = found.end {
            self.advance(&asked, end);
        }
        asked.branch
    }

    /// The log had all of `asked`, and ended at `end`: so `end` stands for them. What was seen meanwhile stays to be asked
    /// for, for `end` may be of a log that does not have it.
    pub(crate) fn advance(&self, asked: &Seen, end: Mark) {
        let mut seen = self.lock();
        if seen.branch.is_same(&asked.branch) {
            seen.marks.retain(|mark| *mark != end && !asked.marks.contains(mark));
            seen.marks.push(end);
        }
    }

    /// The log does not have what was seen of `branch`. It goes on from `now`, if that is known. Returns the branch that
    /// it is on; one that is lost if somebody else has found that out before, and perhaps yet another history.
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
