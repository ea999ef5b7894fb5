//! What is appended to the log, and what comes of it.

use crate::chain::Mark;
use crate::event::{Metadata, NewEvent};
use crate::{ExpectedVersion, Position, StreamId, Version};
use chrono::{DateTime, Utc};

/// What one command writes: to one stream or several, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub metadata: Metadata,
    /// Each stream at most once.
    pub streams: Vec<StreamAppend>,
}

/// What an append expects of a stream, and what it adds to it; nothing, if it only expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAppend {
    pub stream: StreamId,
    pub expected: ExpectedVersion,
    pub events: Vec<NewEvent>,
}

/// An append that is in the log, durably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Of its last event; of an append without events, the end of the log when its expectations held.
    pub position: Position,
    /// Of its events.
    pub recorded_at: DateTime<Utc>,
    /// The streams' versions now, in the append's order; 0 of one that is expected to exist or not expected to be
    /// anything, and not written: nobody looked.
    pub versions: Vec<Version>,
    /// Where the log ended after it, and after what was written together with it: a log that has this mark has the append.
    pub end: Mark,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("version conflict on {stream}: expected {expected}, found {actual}")]
    VersionConflict { stream: StreamId, expected: ExpectedVersion, actual: Version },
    /// The command id is spent: its first event stands at `position`.
    #[error("the command has been recorded already, at position {position}")]
    AlreadyRecorded { position: Position },
    /// What it was decided on is not in the log: an append before it in one of its speculations was not
    /// written, or the log has gone on from an older state.
    #[error("what it was decided on was not written")]
    DependencyAborted,
    /// Nothing is stamped while the clocks of this process and of Postgres differ.
    #[error("nothing is recorded: {0}. Set the clocks of both machines, by NTP for example")]
    ClocksDiffer(String),
    /// It can never be written as it is.
    #[error("{0}")]
    Refused(String),
    /// Whether it was written is not known, and it cannot be until somebody changes something: rights, settings, the disk.
    #[error("the log cannot be written: {0}")]
    Broken(String),
    /// Whether it was written is not known. The same append may be sent again: it is written once.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
}
