//! Events before and after they are recorded, and the ids that are derived for them.

use crate::chain::Link;
use crate::{Position, StreamId, Version};
use bytes::Bytes;
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use uuid::Uuid;

/// An event to be appended. Its id is derived from its command's and its place among the command's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub event_type: Cow<'static, str>,
    pub schema_version: i16,
    pub payload: Payload,
}

/// An event in the log. Its texts are slices of what it was read from: a clone copies none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    pub position: Position,
    pub stream: StreamId,
    pub version: Version,
    pub event_id: Uuid,
    pub event_type: ByteString,
    pub schema_version: i16,
    /// By Postgres' clock; never falls as the position rises.
    pub recorded_at: DateTime<Utc>,
    pub metadata: Metadata,
    pub payload: Payload,
    /// The chain's value after the group of appends that it is of: on the last event of the group, and on no other.
    pub link: Option<Link>,
}

/// What happened: JSON text, stored and sent on as it is, byte for byte. It may hold what is nobody's business, so
/// `Debug` tells its length alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(ByteString);

impl Deref for Payload {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<T: Into<ByteString>> From<T> for Payload {
    fn from(json: T) -> Self {
        Self(json.into())
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        payload.0.into_bytes()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What is known of an event beside what happened. All events of an append share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it all belongs to: the order, mostly.
    pub correlation_id: Uuid,
    /// The event that led to the command; none if a client sent it.
    pub causation_id: Option<Uuid>,
    pub command_id: Uuid,
    /// Of the command: its type, target, actor and body.
    pub fingerprint: Fingerprint,
    /// Who sent the command.
    pub actor: ByteString,
    pub origin: Origin,
    /// When it happened, by whoever said so: data, not an order.
    pub occurred_at: DateTime<Utc>,
    /// W3C Trace Context, if the command carried one.
    pub traceparent: Option<ByteString>,
}

/// Tells a repeated command from another command under the same id: the first 16 bytes of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of a command's canonical bytes.
    pub fn of(command: &[u8]) -> Self {
        Self(first_16(Sha256::digest(command).as_ref()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(hex: &str) -> Result<Self, BadFingerprint> {
        if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadFingerprint);
        }
        u128::from_str_radix(hex, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| BadFingerprint)
    }
}

/// A fingerprint is written as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 32 hex digits")]
pub struct BadFingerprint;

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It happened here.
    Live,
    /// It is recorded history of another system; nothing follows from it.
    Import,
}

impl Origin {
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::Live => 0,
            Self::Import => 1,
        }
    }

    pub(crate) fn from_code(code: i16) -> Option<Self> {
        [Self::Live, Self::Import].into_iter().find(|origin| origin.code() == code)
    }

    /// The origin that [`Origin::as_str`] calls so.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Live, Self::Import].into_iter().find(|origin| origin.as_str() == name)
    }

    /// `live` or `import`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Import => "import",
        }
    }
}

/// The id that follows from `parent` and `parts`: the same for the same, and near its parent's in time.
///
/// A UUID of version 8 (RFC 9562, section 5.8): the first 48 bits are the parent's, which are its milliseconds if it is
/// of version 7 or was itself derived so; the rest is of SHA-256 over the parent and each part with its length (as
/// 32 bits, big-endian) before it. So an index over such ids grows at its edge.
pub fn derive_id(parent: Uuid, parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new_with_prefix(parent.as_bytes());
    for part in parts {
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = first_16(hash.finalize().as_ref());
    bytes[..6].copy_from_slice(&parent.as_bytes()[..6]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The id of a command's event number `index`, from 0.
pub fn event_id(command_id: Uuid, index: usize) -> Uuid {
    derive_id(command_id, &[b"event", &(index as u32).to_be_bytes()])
}

fn first_16(hash: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_shown_by_its_length_alone() {
        assert_eq!(format!("{:?}", Payload::from("secret")), "6 bytes");
    }

    /// Stored and looked up for ever: if this test fails, the change is wrong, not the test.
    #[test]
    fn derived_ids_never_change() {
        let command = Uuid::from_u128(0x0199_aaaa_bbbb_7ccc_8ddd_eeee_eeee_eeee);
        assert_eq!(event_id(command, 0).to_string(), "0199aaaa-bbbb-8a8b-b673-449e0a1d5b39");
        assert_eq!(event_id(command, 1).to_string(), "0199aaaa-bbbb-876d-bea2-cfbf0ee9abb8");
        assert_eq!(derive_id(command, &[b"a", b"bc"]).get_version_num(), 8);
        assert_ne!(derive_id(command, &[b"a", b"bc"]), derive_id(command, &[b"ab", b"c"]));
        assert_eq!(derive_id(command, &[]).as_bytes()[..6], command.as_bytes()[..6]);
    }
}
