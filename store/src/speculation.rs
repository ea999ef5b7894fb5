//! Speculative appends: each was decided on what those before it will write.

use crate::branch::Branch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Appends of one process to a stream, each decided on what those before it will write. So commands about one stream need
/// not wait for each other's answers, and are written together.
///
/// Once one of them is not written, no later one is: the version that it expects may exist, but by another process's events.
/// The same happens if the log is found to have another history than the first decision was made on.
///
/// ```no_run
/// # use daybook_store::{Append, AppendError, Appender, Loader, Speculation, StreamId};
/// # async fn example(appender: Appender, loader: Loader, stream: StreamId,
/// #                  decide: impl Fn() -> Append) -> Result<(), Box<dyn std::error::Error>> {
/// let loaded = loader.load(stream, None).await?;
/// // Fold what was loaded into a state. It counts as long as the speculation is not aborted.
/// let speculation = Speculation::on(loaded.branch);
/// // Decide, apply the new events to the state, submit; and decide the next command on that state at once.
/// let first = appender.submit(decide(), vec![speculation.clone()]).await?;
/// let second = appender.submit(decide(), vec![speculation.clone()]).await?;
/// // Answer no command before its append is written. If one is not, load the stream again.
/// first.written().await?;
/// match second.written().await {
///     Err(AppendError::DependencyAborted) => assert!(speculation.is_aborted()),
///     written => drop(written?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Speculation {
    state: Arc<AtomicU8>,
    branch: Branch,
}

/// How a speculation has failed. At 0 it has not.
const ABORTED: u8 = 1;
const LOST_RACE: u8 = 2;

impl Speculation {
    /// A speculation on states that were read from this branch of the log.
    pub fn on(branch: Branch) -> Self {
        Self { state: Arc::default(), branch }
    }

    /// Whether it takes no more appends: one was not written, or the branch is lost. Read the stream again, and begin another
    /// speculation.
    pub fn is_aborted(&self) -> bool {
        self.branch.is_lost() || self.state.load(Ordering::Acquire) >= ABORTED
    }

    /// Whether it was aborted because another process wrote to the stream first.
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

    /// A number that tells it from every other speculation.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.state).addr()
    }
}
