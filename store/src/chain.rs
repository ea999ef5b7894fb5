//! What appends build on: what those before them are to write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The appends of one process that were each decided on what those before it are to write to a stream. Once one of them
/// does not write what it was to, no later one is written: the version that it expects may be there, but by another's
/// events.
#[derive(Debug, Clone, Default)]
pub struct Chain(Arc<AtomicU8>);

/// How a chain is broken. It is whole at 0.
const CUT: u8 = 1;
const OVERTAKEN: u8 = 2;

impl Chain {
    /// Whether it takes no more appends, for one was not written, or the stream had gone on without them. Who decides
    /// again begins another chain.
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire) >= CUT
    }

    /// Whether it is broken because another process was faster.
    pub fn is_overtaken(&self) -> bool {
        self.0.load(Ordering::Acquire) == OVERTAKEN
    }

    pub(crate) fn cut(&self) {
        self.0.fetch_max(CUT, Ordering::Release);
    }

    pub(crate) fn overtake(&self) {
        self.0.fetch_max(OVERTAKEN, Ordering::Release);
    }

    /// Tells it from every other chain.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}
