//! The names of streams, and what an append expects of one.

use std::fmt;
use std::hash::{Hash, Hasher};
use uuid::Uuid;

/// A place in the log, from 1 on; 0 is before the first event.
pub type Position = i64;

/// A place in a stream, from 1 on; 0 means that there is no stream.
pub type Version = i64;

/// A number of events, to be added to positions and versions.
pub(crate) fn count(events: usize) -> i64 {
    i64::try_from(events).unwrap_or(i64::MAX)
}

/// A kind of streams. The id is stored with every event, so nothing of it may ever change.
/// [`migrate`](crate::migrate()) names the categories in the table `daybook.categories`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Category {
    /// Unique in the log.
    pub id: i16,
    /// Unique in the log: lower-case letters and `_`, 31 at most.
    pub name: &'static str,
    /// The domain that it belongs to, in the form of a name. A log may have several.
    pub domain: &'static str,
}

// By the id alone: streams are looked up for every append.
impl Hash for Category {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The name of a stream, shown as `order-0199…`.
///
/// ```
/// # use daybook_store::{Category, StreamId};
/// let stream = StreamId { category: Category { id: 1, name: "order", domain: "shop" }, id: uuid::Uuid::from_u128(7) };
/// assert_eq!(stream.to_string(), "order-00000000-0000-0000-0000-000000000007");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Its kind.
    pub category: Category,
    /// Unique in its category.
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
    /// Nothing: the events go to its end, wherever that is.
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
