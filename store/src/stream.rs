//! What a stream is called, and what an append expects of it.

use std::fmt;
use std::hash::{Hash, Hasher};
use uuid::Uuid;

/// A place in the log, from 1; 0 is before the first event.
pub type Position = i64;

/// A place in a stream, from 1; 0 is "there is no stream".
pub type Version = i64;

/// A kind of streams. Its id is stored with every event and stands in the table `categories` beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Category {
    pub id: i16,
    pub name: &'static str,
}

/// By the id alone: streams are looked up for every append.
impl Hash for Category {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The name of a stream, shown as `order-0199…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    pub category: Category,
    pub id: Uuid,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.category.name, self.id)
    }
}

/// What must be true of a stream for an append to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// It has no events.
    NoStream,
    /// It has exactly this version.
    Exact(Version),
    /// It has events.
    Exists,
    /// Nothing.
    Any,
}

impl ExpectedVersion {
    /// The one version that fits, if just one does.
    pub(crate) fn version(self) -> Option<Version> {
        match self {
            Self::NoStream => Some(0),
            Self::Exact(version) => Some(version),
            Self::Exists | Self::Any => None,
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStream => f.write_str("no stream"),
            Self::Exact(version) => version.fmt(f),
            Self::Exists => f.write_str("a stream"),
            Self::Any => f.write_str("anything"),
        }
    }
}
