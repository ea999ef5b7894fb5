//! The hash chain: one link for each group of appends, over all that the log says of its events.
//!
//! Ids do not tell two histories of a log apart: they derive from what a client sends, so they are the same after a restore.
//! A link does: it covers every event up to its own, in order. With a position and its link (a [`Mark`]), anyone can ask
//! whether the log still has that history. A log that was altered anywhere no longer fits its links.
//!
//! ```
//! # use daybook_store::{Chain, Mark, RecordedEvent, hash_chain::BrokenChain};
//! /// The mark that the events lead to, if they are a log from its beginning and nobody has altered them.
//! fn proved(events: &[RecordedEvent]) -> Result<Mark, BrokenChain> {
//!     let mut chain = Chain::after(Mark::GENESIS);
//!     for event in events {
//!         chain.advance(event)?;
//!     }
//!     Ok(chain.end())
//! }
//! assert_eq!(proved(&[]), Ok(Mark::GENESIS));
//! ```
//!
//! The bytes that are hashed are those of PostgreSQL's binary format, so SQL can prove a chain as well
//! (`daybook.event_digest`). `docs/wire.md` in the repository has the definition.

use crate::event::{Metadata, RecordedEvent};
use crate::{Position, StreamId, Version};
use chrono::{DateTime, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// 2000-01-01, when Postgres' time begins, in microseconds of Unix time.
pub(crate) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// The SHA-256 of an event's fields, without those that the log gives it (position, version, time).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of an event with these fields. Each field is hashed as its length (32 bits, big-endian) and its bytes; one
    /// without a value as the length -1 alone.
    pub fn of(
        stream: StreamId,
        event_id: Uuid,
        event_type: &str,
        schema_version: i16,
        metadata: &Metadata,
        payload: &str,
    ) -> Self {
        let mut fields = Fields(Vec::with_capacity(payload.len() + 320));
        fields.add(stream.category.name.as_bytes());
        fields.add(stream.id.as_bytes());
        fields.add(event_id.as_bytes());
        fields.add(event_type.as_bytes());
        fields.add(&schema_version.to_be_bytes());
        fields.add(&metadata.origin.code().to_be_bytes());
        fields.add(&micros(metadata.occurred_at).to_be_bytes());
        fields.add(metadata.correlation_id.as_bytes());
        fields.add_option(metadata.causation_id.as_ref().map(|id| &id.as_bytes()[..]));
        fields.add(metadata.command_id.as_bytes());
        fields.add(&metadata.fingerprint.0);
        fields.add(metadata.actor.as_bytes());
        fields.add_option(metadata.traceparent.as_deref().map(str::as_bytes));
        fields.add(payload.as_bytes());
        Self(Sha256::digest(&fields.0).into())
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

struct Fields(Vec<u8>);

impl Fields {
    fn add(&mut self, field: &[u8]) {
        // The limits of an append are far below.
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(field);
    }

    fn add_option(&mut self, field: Option<&[u8]>) {
        match field {
            Some(field) => self.add(field),
            None => self.0.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
}

impl RecordedEvent {
    /// The digest of its fields.
    pub fn digest(&self) -> Digest {
        let Self { stream, event_id, event_type, schema_version, metadata, payload, .. } = self;
        Digest::of(*stream, *event_id, event_type, *schema_version, metadata, payload)
    }
}

/// Microseconds since 2000, as Postgres stores a time.
fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros() - POSTGRES_EPOCH
}

/// The chain's value after a group of appends. Written as 64 hex digits.
///
/// ```
/// # use daybook_store::Link;
/// let link: Link = "5b".repeat(32).parse()?;
/// assert_eq!(link, Link([0x5b; 32]));
/// # Ok::<_, daybook_store::hash_chain::BadLink>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent, no_pg_array)]
pub struct Link(
    /// A SHA-256.
    pub [u8; 32],
);

impl Link {
    /// The value before the first group.
    pub const GENESIS: Self = Self([0; 32]);
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl FromStr for Link {
    type Err = BadLink;

    fn from_str(hex: &str) -> Result<Self, BadLink> {
        if hex.len() != 64 {
            return Err(BadLink);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(BadLink);
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = digit(digits[0])? << 4 | digit(digits[1])?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for Link {
    type Error = BadLink;

    fn try_from(bytes: &[u8]) -> Result<Self, BadLink> {
        bytes.try_into().map(Self).map_err(|_| BadLink)
    }
}

/// What was to be a link or a mark is none: a link has 32 bytes, or 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a link of 32 bytes")]
pub struct BadLink;

/// A place in one history of the log: the last position of a group, and the chain's value there. A log that has a mark has
/// all the events that led to it. Written as `17:5b1c…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The position of the group's last event.
    pub position: Position,
    /// The chain's value there.
    pub link: Link,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.position, self.link)
    }
}

impl FromStr for Mark {
    type Err = BadLink;

    fn from_str(text: &str) -> Result<Self, BadLink> {
        let (position, link) = text.split_once(':').ok_or(BadLink)?;
        let position = position.parse().ok().filter(|position| *position >= 0).ok_or(BadLink)?;
        Ok(Self { position, link: link.parse()? })
    }
}

impl Serialize for Mark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom("not a mark, expected a mark as a reply has it"))
    }
}

impl Mark {
    /// Before the first event. Every log has it.
    pub const GENESIS: Self = Self { position: 0, link: Link::GENESIS };
}

/// A group whose events are being hashed.
#[derive(Debug, Clone)]
struct Group {
    hash: Sha256,
    recorded_at: DateTime<Utc>,
    last: Position,
}

impl Group {
    fn begin(before: Link, first: &RecordedEvent) -> Self {
        let mut hash = Sha256::new_with_prefix(before.0);
        hash.update(first.position.to_be_bytes());
        hash.update(micros(first.recorded_at).to_be_bytes());
        Self { hash, recorded_at: first.recorded_at, last: first.position - 1 }
    }

    fn add(&mut self, event: &RecordedEvent) {
        self.hash.update(entry(event.version, &event.digest()));
        self.last = event.position;
    }

    fn end(self) -> Mark {
        Mark { position: self.last, link: Link(self.hash.finalize().into()) }
    }
}

/// What a group's link covers of each event: the version and the digest.
pub(crate) fn entry(version: Version, digest: &Digest) -> [u8; 40] {
    let mut entry = [0; 40];
    entry[..8].copy_from_slice(&version.to_be_bytes());
    entry[8..].copy_from_slice(digest.bytes());
    entry
}

/// Proves a chain, event by event, from a mark on.
#[derive(Debug, Clone)]
pub struct Chain {
    end: Mark,
    /// The group that is not complete yet.
    open: Option<Group>,
}

/// Why an event is not the next one of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenChain {
    /// It has another position than the next one.
    #[error("position {found} comes after {before}")]
    Position {
        /// Of the event before it.
        before: Position,
        /// Of the event.
        found: Position,
    },
    /// All events of a group have one time of recording.
    #[error("the event at position {0} was recorded at another time than its group")]
    Time(Position),
    /// An event up to this position was altered, or belongs to another history.
    #[error("the link at position {0} does not follow from the events up to it")]
    Link(Position),
}

impl BrokenChain {
    /// The position of the event that does not fit.
    pub fn position(self) -> Position {
        match self {
            Self::Position { found, .. } => found,
            Self::Time(position) | Self::Link(position) => position,
        }
    }
}

impl Chain {
    /// A chain that goes on from `mark`.
    pub fn after(mark: Mark) -> Self {
        Self { end: mark, open: None }
    }

    /// The end of the last complete group.
    pub fn end(&self) -> Mark {
        self.end
    }

    /// The position of the last event, also if its group is not complete.
    pub fn position(&self) -> Position {
        self.open.as_ref().map_or(self.end.position, |group| group.last)
    }

    /// Adds the next event. Returns whether it completes its group.
    ///
    /// # Errors
    /// When it is not the next event, or its link does not fit the events up to it. The chain then stays at the end of its
    /// last complete group.
    pub fn advance(&mut self, event: &RecordedEvent) -> Result<bool, BrokenChain> {
        let mut group = self.next_of(event)?;
        group.add(event);
        let Some(link) = event.link else {
            self.open = Some(group);
            return Ok(false);
        };
        let end = group.end();
        if end.link != link {
            return Err(BrokenChain::Link(event.position));
        }
        self.end = end;
        Ok(true)
    }

    /// Ends the open group with the last event; `None` if no group is open.
    pub(crate) fn close(&mut self) -> Option<Mark> {
        self.end = self.open.take()?.end();
        Some(self.end)
    }

    /// The group that the event belongs to: the open one, or a new one.
    fn next_of(&mut self, event: &RecordedEvent) -> Result<Group, BrokenChain> {
        let before = self.position();
        let open = self.open.take();
        if event.position != before + 1 {
            return Err(BrokenChain::Position { before, found: event.position });
        }
        match open {
            Some(group) if group.recorded_at != event.recorded_at => Err(BrokenChain::Time(event.position)),
            Some(group) => Ok(group),
            None => Ok(Group::begin(self.end.link, event)),
        }
    }
}
