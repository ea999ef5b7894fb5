//! Which history of the log a process has seen.
//!
//! A log can go on from an older state: after a failover to a replica that lacked the last events, or a restore. What a
//! process remembers of the events that were lost must not count any more. It cannot notice that by its connections: they
//! survive behind a pooler. So each append names the last mark that the process has seen, and each load asks for it.

use crate::chain::Mark;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The last mark that a process has seen of the log, by appending or loading. One a process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Seen>>);

/// One history of the log, until the log is found to have another one. What was read from it carries it.
#[derive(Debug, Clone, Default)]
pub struct Branch(Arc<AtomicBool>);

/// The branch that the log is on, and the last mark that was seen of it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub branch: Branch,
    pub mark: Option<Mark>,
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

    /// What a statement that reads is to ask the log for, so that [`Self::observe`] can be told.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// The branch that a statement has read from. It asked whether the log has the mark of `seen`, and where it ended then.
    pub fn observe(&self, seen: Seen, has_seen: bool, end: Option<Mark>) -> Branch {
        if !has_seen {
            return self.lose(&seen.branch, end);
        }
        end.into_iter().for_each(|end| self.advance(&seen.branch, end));
        seen.branch
    }

    /// The log was at `mark`, on `branch`.
    pub(crate) fn advance(&self, branch: &Branch, mark: Mark) {
        let mut seen = self.lock();
        if seen.branch.is_same(branch) && seen.mark.is_none_or(|before| before.position < mark.position) {
            seen.mark = Some(mark);
        }
    }

    /// The log does not have what was seen of `branch`. It goes on from `now`, if that is known. Returns the branch that
    /// it is on; one that is lost if somebody else has found that out before, and perhaps yet another history.
    pub(crate) fn lose(&self, branch: &Branch, now: Option<Mark>) -> Branch {
        let mut seen = self.lock();
        if seen.branch.is_same(branch) {
            tracing::warn!(
                seen = ?seen.mark,
                found = ?now,
                "the log has another history than this process has seen: what it remembers is thrown away"
            );
            seen.branch.0.store(true, Ordering::Release);
            *seen = Seen { branch: Branch::default(), mark: now };
            return seen.branch.clone();
        }
        Branch::lost()
    }
}
