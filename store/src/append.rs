//! What is appended to the log, and what comes of it.

use crate::cause::Cause;
use crate::event::{Metadata, NewEvent};
use crate::hash_chain::Mark;
use crate::{ExpectedVersion, Position, StreamId, Version};
use chrono::{DateTime, Utc};

/// What one command writes: to one stream or several, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Shared by all its events.
    pub metadata: Metadata,
    /// One or more, each stream at most once; 1,000 events in all.
    pub streams: Vec<StreamAppend>,
}

/// What an append expects of a stream, and the events that it adds. Without events it only expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAppend {
    /// The stream. It exists from its first event on.
    pub stream: StreamId,
    /// What must be true of it.
    pub expected: ExpectedVersion,
    /// What is added, in this order.
    pub events: Vec<NewEvent>,
}

/// An append that is in the log, durably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The position of its last event. For an append without events: the end of the log when its expectations held.
    pub position: Position,
    /// When its events were recorded, by Postgres' clock.
    pub recorded_at: DateTime<Utc>,
    /// The streams' versions now, in the append's order. A stream that is not written to, and is expected to exist or to be
    /// anything, has 0: its version was not looked up.
    pub versions: Vec<Version>,
    /// The end of the log after the group that the append was written in. A log that has this mark has the append.
    pub end: Mark,
}

/// Why an append was not written, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// A stream is not as the append expects. Read it and decide again. Nothing was written.
    #[error("version conflict on {stream}: expected {expected}, found {actual}")]
    VersionConflict {
        /// The first stream that is not as expected.
        stream: StreamId,
        /// What the append expects of it.
        expected: ExpectedVersion,
        /// Its version; 0 if it does not exist.
        actual: Version,
    },
    /// The command has events in the log, of this or an earlier append with its id. Nothing more was written.
    #[error("the command has been recorded already, at position {position}")]
    AlreadyRecorded {
        /// The position of the command's first event.
        position: Position,
    },
    /// What it was decided on is not in the log: an append before it in one of its speculations was not written, or the log
    /// was restored to an older state. Read and decide again. Nothing was written.
    #[error("what it was decided on was not written")]
    DependencyAborted,
    /// Nothing is recorded while the clocks of this process and of Postgres differ.
    #[error("nothing is recorded: {0}. Set the clocks of both machines, by NTP for example")]
    ClocksDiffer(#[source] Cause),
    /// It can never be written as it is.
    #[error("{0}")]
    Refused(String),
    /// It may have been written or not, and it fails until an operator changes something: rights, settings, the disk.
    #[error("the log cannot be written: {0}")]
    Broken(#[source] Cause),
    /// It may have been written or not. The same append may be sent again: it is written once.
    #[error("the log is unavailable: {0}")]
    Unavailable(#[source] Cause),
}
