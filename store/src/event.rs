//! Events before and after they are recorded, and the ids that are derived for them.

use crate::hash_chain::Link;
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

/// An event to be appended. Its id is derived from the command's id and its place among the command's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// 1 to 128 bytes.
    pub event_type: Cow<'static, str>,
    /// Of the payload, from 1.
    pub schema_version: i16,
    /// JSON, of [`MAX_PAYLOAD`](crate::MAX_PAYLOAD) bytes at most.
    pub payload: Payload,
}

/// An event in the log. Its texts are slices of what was received, so a clone copies none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its place in the log.
    pub position: Position,
    /// The stream that it was appended to.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Unique in the log: see [`event_id`].
    pub event_id: Uuid,
    /// As it was appended.
    pub event_type: ByteString,
    /// Of the payload.
    pub schema_version: i16,
    /// By Postgres' clock. It never falls as the position rises.
    pub recorded_at: DateTime<Utc>,
    /// Of the command that it was appended for.
    pub metadata: Metadata,
    /// As it was appended, byte for byte.
    pub payload: Payload,
    /// The value of the [hash chain](crate::hash_chain) after a group of appends: only on the last event of the group.
    pub link: Option<Link>,
}

/// The content of an event: JSON text, stored and sent on byte for byte. It may contain secrets, so `Debug` shows only its
/// length.
///
/// ```
/// # use daybook_store::Payload;
/// let payload = Payload::from(r#"{"a":  1}"#);
/// assert_eq!((&*payload, format!("{payload:?}")), (r#"{"a":  1}"#, "9 bytes".to_owned()));
/// ```
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

/// What is known of a command, beside its events. All events of an append share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What a whole process of commands and events has in common: the id of an order, for example.
    pub correlation_id: Uuid,
    /// The event that led to the command; none if a client sent it.
    pub causation_id: Option<Uuid>,
    /// Unique for the command, the same when it is sent again.
    pub command_id: Uuid,
    /// Of all that makes the command: its type, target, actor and body.
    pub fingerprint: Fingerprint,
    /// Who sent the command: 1 to 128 bytes.
    pub actor: ByteString,
    /// Where the events come from.
    pub origin: Origin,
    /// When it happened, as the sender says. It has no influence on the order of events.
    pub occurred_at: DateTime<Utc>,
    /// W3C Trace Context, if the command carried one.
    pub traceparent: Option<ByteString>,
}

impl Metadata {
    /// The metadata of a command that a client has sent just now. Set the fields in which it differs.
    pub fn new(command_id: Uuid, fingerprint: Fingerprint, actor: impl Into<ByteString>) -> Self {
        Self {
            correlation_id: command_id,
            causation_id: None,
            command_id,
            fingerprint,
            actor: actor.into(),
            origin: Origin::Live,
            occurred_at: Utc::now(),
            traceparent: None,
        }
    }
}

/// Tells a command that is sent again from another command under the same id. Written as 32 hex digits.
///
/// ```
/// # use daybook_store::Fingerprint;
/// let fingerprint = Fingerprint::of(br#"{"add": "mug"}"#);
/// assert_ne!(fingerprint, Fingerprint::of(br#"{"add": "hat"}"#));
/// assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(
    /// The first 16 bytes of a SHA-256.
    pub [u8; 16],
);

impl Fingerprint {
    /// The fingerprint of a command as bytes: equal commands must have equal bytes.
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

/// What was to be a fingerprint is not 32 hex digits.
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
    /// It is the recorded history of another system. No reaction should follow from it.
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

    /// The origin with this name: see [`Self::as_str`].
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
        hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = first_16(hash.finalize().as_ref());
    bytes[..6].copy_from_slice(&parent.as_bytes()[..6]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The id of a command's event number `index`, from 0.
pub fn event_id(command_id: Uuid, index: usize) -> Uuid {
    derive_id(command_id, &[b"event", &u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes()])
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
