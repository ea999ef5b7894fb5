//! Speculative appends: each was decided on what those before it are to write.

use crate::history::Branch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The appends of one process that were each decided on what those before it are to write to a stream. Once one of them
/// is not written, no later one is: the version that it expects may be there, but by another's events. The same if the
/// history that they were decided on is no longer the log's.
#[derive(Debug, Clone, Default)]
pub struct Speculation {
    state: Arc<AtomicU8>,
    branch: Branch,
}

/// How a speculation has failed. At 0 it has not.
const ABORTED: u8 = 1;
const LOST_RACE: u8 = 2;

impl Speculation {
    /// On states that were read from this branch of the log.
    pub fn on(branch: Branch) -> Self {
        Self { state: Arc::default(), branch }
    }

    /// Whether it takes no more appends: one was not written, or the stream went on without them. A new decision begins
    /// another speculation.
    pub fn is_aborted(&self) -> bool {
        self.branch.is_lost() || self.state.load(Ordering::Acquire) >= ABORTED
    }

    /// Whether it was aborted because another process was faster.
    pub fn lost_race(&self) -> bool {
        self.state.load(Ordering::Acquire) == LOST_RACE
    }

    /// Whether it is on states that were read from `branch`.
    pub fn is_on(&self, branch: &Branch) -> bool {
        self.branch.is_same(branch)
    }

    pub(crate) fn abort(&self) {
        self.state.fetch_max(ABORTED, Ordering::Release);
    }

    pub(crate) fn lose_race(&self) {
        self.state.fetch_max(LOST_RACE, Ordering::Release);
    }

    /// Tells it from every other speculation.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.state).addr()
    }
}
