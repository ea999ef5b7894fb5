//! The JetStream stream that carries the log: its configuration, and events as its messages.

use crate::{percent, subject};
use async_nats::jetstream::stream;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;
use store::{Category, Link, LogIdentity, MAX_PAYLOAD, Metadata, Origin, Position, RecordedEvent, Server, Version};
use uuid::Uuid;

/// All that is known of an event beside its payload, its subject and its trace.
const PACKED: HeaderName = HeaderName::from_static("Daybook");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The version of the packed header.
const VERSION: &str = "1";
/// A field of it that has no value.
const NONE: &str = "-";

const LOG_ID_KEY: &str = "daybook_log_id";
const EPOCH_KEY: &str = "daybook_epoch";
const SYSTEM_KEY: &str = "daybook_system_identifier";
const TIMELINE_KEY: &str = "daybook_timeline";

/// How many events JetStream keeps: what is older is read from the log.
pub const WINDOW: i64 = 1_000_000;

/// The most that the headers of an event's message come to, in bytes.
const MAX_HEADERS: usize = 2048;

/// The largest message that an event can be: NATS must carry it.
pub const MAX_MESSAGE: usize = MAX_PAYLOAD + MAX_HEADERS;

/// The stream's configuration, to be created with `first_sequence` as the first position that it holds.
pub fn stream_config(log: LogIdentity, server: Server, first_sequence: Position) -> stream::Config {
    stream::Config {
        name: subject::STREAM.into(),
        description: Some("Daybook's log: the sequence of a message is the position of its event".into()),
        subjects: vec![subject::EVENTS.into()],
        max_messages: WINDOW,
        discard: stream::DiscardPolicy::Old,
        retention: stream::RetentionPolicy::Limits,
        storage: stream::StorageType::File,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        first_sequence: u64::try_from(first_sequence).ok(),
        metadata: metadata(log, server),
        ..stream::Config::default()
    }
}

/// What the stream says of the log that it carries, and of the server that this was last on.
pub fn metadata(log: LogIdentity, server: Server) -> HashMap<String, String> {
    HashMap::from([
        (LOG_ID_KEY.into(), log.log_id.to_string()),
        (EPOCH_KEY.into(), log.epoch.to_string()),
        (SYSTEM_KEY.into(), server.system_identifier.to_string()),
        (TIMELINE_KEY.into(), server.timeline.to_string()),
    ])
}

/// Which log a stream carries, by its metadata.
pub fn identity(config: &stream::Config) -> Option<LogIdentity> {
    let log_id = config.metadata.get(LOG_ID_KEY)?.parse().ok()?;
    let epoch = config.metadata.get(EPOCH_KEY)?.parse().ok()?;
    Some(LogIdentity { log_id, epoch })
}

/// The server that the log was on when the stream was last compared with it. Earlier builds have not said so.
pub fn server(config: &stream::Config) -> Option<Server> {
    let system_identifier = config.metadata.get(SYSTEM_KEY)?.parse().ok()?;
    let timeline = config.metadata.get(TIMELINE_KEY)?.parse().ok()?;
    Some(Server { system_identifier, timeline })
}

/// The headers of an event's message. It is their number that costs the server: so there is one, and where the command
/// carried a trace, what tracing tools look for.
pub fn headers(event: &RecordedEvent, epoch: i64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(PACKED, packed(event, epoch));
    if let Some(traceparent) = &event.metadata.traceparent {
        headers.insert(TRACEPARENT, traceparent.to_string());
    }
    headers
}

/// `docs/wire.md`, "Event messages", says what the fields are.
fn packed(event: &RecordedEvent, epoch: i64) -> String {
    let RecordedEvent { position, version, schema_version, event_id, metadata, .. } = event;
    let Metadata { correlation_id, command_id, fingerprint, .. } = metadata;
    let (recorded_at, occurred_at) = (event.recorded_at.timestamp_micros(), metadata.occurred_at.timestamp_micros());
    let mut packed = String::with_capacity(400);
    // Writing to a String does not fail.
    _ = write!(
        packed,
        "{VERSION} {epoch} {position} {version} {schema_version} {recorded_at} {occurred_at} {event_id} {correlation_id} "
    );
    _ = match &metadata.causation_id {
        Some(id) => write!(packed, "{id} "),
        None => write!(packed, "{NONE} "),
    };
    _ = write!(packed, "{command_id} {fingerprint} {} ", metadata.origin.as_str());
    _ = match &event.link {
        Some(link) => write!(packed, "{link} "),
        None => write!(packed, "{NONE} "),
    };
    percent::encode_word(&metadata.actor, &mut packed);
    packed
}

/// Why a message is no event of the log.
#[derive(Debug, thiserror::Error)]
#[error("a message on {subject} is no event of the log: its {what} is missing or malformed")]
pub struct BadMessage {
    subject: String,
    what: String,
}

/// The event that a message of the stream says that it carries, of one of these categories. That the log has it is for its link to prove: earlier builds
/// have published without one.
///
/// # Errors
/// When the message is none of a relay's.
pub fn recorded(
    categories: &[Category],
    subject: &str,
    headers: &HeaderMap,
    payload: Bytes,
) -> Result<RecordedEvent, BadMessage> {
    let bad = |what: &str| BadMessage { subject: subject.to_owned(), what: what.to_owned() };
    let (stream, event_type) = subject::parse_event(categories, subject).ok_or_else(|| bad("subject"))?;
    let payload = ByteString::try_from(payload).map_err(|_| bad("body"))?;
    let told = match headers.get(PACKED) {
        Some(packed) => unpacked(packed.as_str(), headers),
        None => unpacked_headers::read(headers),
    };
    let Told { position, version, event_id, schema_version, recorded_at, metadata, link } = told.map_err(bad)?;
    let event_type = event_type.into();
    Ok(RecordedEvent {
        position,
        stream,
        version,
        event_id,
        event_type,
        schema_version,
        recorded_at,
        metadata,
        payload: payload.into(),
        link,
    })
}

/// Whether a message is of the format that has links.
pub fn is_packed(headers: &HeaderMap) -> bool {
    headers.get(PACKED).is_some()
}

/// What headers say of an event.
struct Told {
    position: Position,
    version: Version,
    event_id: Uuid,
    schema_version: i16,
    recorded_at: DateTime<Utc>,
    metadata: Metadata,
    link: Option<Link>,
}

fn unpacked(packed: &str, headers: &HeaderMap) -> Result<Told, &'static str> {
    let mut fields = packed.split(' ');
    let mut field = |name: &'static str| fields.next().ok_or(name);
    fn parsed<T: FromStr>(text: &str, name: &'static str) -> Result<T, &'static str> {
        text.parse().map_err(|_| name)
    }
    fn some<T: FromStr>(text: &str, name: &'static str) -> Result<Option<T>, &'static str> {
        (text != NONE).then(|| parsed(text, name)).transpose()
    }
    fn time(text: &str, name: &'static str) -> Result<DateTime<Utc>, &'static str> {
        DateTime::from_timestamp_micros(parsed(text, name)?).ok_or(name)
    }
    if field("header")? != VERSION {
        return Err("header");
    }
    let _epoch: i64 = parsed(field("epoch")?, "epoch")?;
    // In the order in which they stand: fields of a struct are evaluated as they are written.
    let position = parsed(field("position")?, "position")?;
    let version = parsed(field("version")?, "version")?;
    let schema_version = parsed(field("schema version")?, "schema version")?;
    let recorded_at = time(field("recorded_at")?, "recorded_at")?;
    let occurred_at = time(field("occurred_at")?, "occurred_at")?;
    let event_id = parsed(field("event id")?, "event id")?;
    let correlation_id = parsed(field("correlation id")?, "correlation id")?;
    let causation_id = some(field("causation id")?, "causation id")?;
    let command_id = parsed(field("command id")?, "command id")?;
    let fingerprint = parsed(field("fingerprint")?, "fingerprint")?;
    let origin = Origin::from_name(field("origin")?).ok_or("origin")?;
    let link = some(field("link")?, "link")?;
    let actor = percent::decoded(field("actor")?).ok_or("actor")?.into();
    let traceparent = headers.get(TRACEPARENT).map(|value| ByteString::from(value.as_str()));
    let metadata =
        Metadata { correlation_id, causation_id, command_id, fingerprint, actor, origin, occurred_at, traceparent };
    Ok(Told { position, version, event_id, schema_version, recorded_at, metadata, link })
}

/// The format of earlier builds: a header for each column. Streams may hold such messages for as long as their window lasts.
mod unpacked_headers {
    use super::*;

    pub(super) fn read(headers: &HeaderMap) -> Result<Told, &'static str> {
        let text = |name: &'static str| headers.get(name).map(HeaderValue::as_str).ok_or(name);
        fn parsed<T: FromStr>(text: &str, name: &'static str) -> Result<T, &'static str> {
            text.parse().map_err(|_| name)
        }
        macro_rules! header {
            ($name:literal) => {
                parsed(text($name)?, $name)?
            };
        }
        let metadata = Metadata {
            correlation_id: header!("Daybook-Correlation-Id"),
            causation_id: match text("Daybook-Causation-Id") {
                Ok(id) => Some(parsed(id, "Daybook-Causation-Id")?),
                Err(_) => None,
            },
            command_id: header!("Daybook-Command-Id"),
            fingerprint: header!("Daybook-Fingerprint"),
            actor: text("Daybook-Actor")?.into(),
            origin: Origin::from_name(text("Daybook-Origin")?).ok_or("Daybook-Origin")?,
            occurred_at: header!("Daybook-Occurred-At"),
            traceparent: headers.get(TRACEPARENT).map(|value| ByteString::from(value.as_str())),
        };
        Ok(Told {
            position: header!("Daybook-Position"),
            version: header!("Daybook-Version"),
            event_id: header!("Daybook-Event-Id"),
            schema_version: header!("Daybook-Schema-Version"),
            recorded_at: header!("Daybook-Recorded-At"),
            metadata,
            link: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Fingerprint, StreamId};

    /// Every field as long as it can be.
    #[test]
    fn the_headers_of_an_event_are_bounded() {
        let id = Uuid::from_u128(u128::MAX);
        let longest = "%".repeat(128);
        let event = RecordedEvent {
            position: i64::MAX,
            stream: StreamId { category: Category { id: 1, name: "shipment", domain: "orders" }, id },
            version: i64::MAX,
            event_id: id,
            event_type: "T".into(),
            schema_version: i16::MIN,
            recorded_at: DateTime::<Utc>::MIN_UTC,
            metadata: Metadata {
                correlation_id: id,
                causation_id: Some(id),
                command_id: id,
                fingerprint: Fingerprint([255; 16]),
                actor: longest.as_str().into(),
                origin: Origin::Import,
                occurred_at: DateTime::<Utc>::MIN_UTC,
                traceparent: Some(longest.as_str().into()),
            },
            payload: ByteString::from_static("{}").into(),
            link: Some(Link([255; 32])),
        };
        let mut headers = headers(&event, i64::MAX);
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SEQUENCE, i64::MAX.to_string());
        // As they are sent: "name: value" and a line break, after the protocol's line and before an empty one.
        let lines: usize = headers
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |v| (name, v)))
            .map(|(name, value)| name.to_string().len() + value.as_str().len() + 4)
            .sum();
        assert!((800..=MAX_HEADERS).contains(&(lines + 14)), "{lines}");
    }
}
