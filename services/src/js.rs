//! The JetStream stream that carries the log: its configuration, and events as its messages.

use crate::subject;
use async_nats::jetstream::stream;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytestring::ByteString;
use chrono::{DateTime, SecondsFormat, Utc};
use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use store::{LogIdentity, Metadata, Origin, Position, RecordedEvent};

const POSITION: HeaderName = HeaderName::from_static("Daybook-Position");
const EPOCH: HeaderName = HeaderName::from_static("Daybook-Epoch");
const VERSION: HeaderName = HeaderName::from_static("Daybook-Version");
pub(crate) const EVENT_ID: HeaderName = HeaderName::from_static("Daybook-Event-Id");
const SCHEMA_VERSION: HeaderName = HeaderName::from_static("Daybook-Schema-Version");
const RECORDED_AT: HeaderName = HeaderName::from_static("Daybook-Recorded-At");
const OCCURRED_AT: HeaderName = HeaderName::from_static("Daybook-Occurred-At");
const CORRELATION_ID: HeaderName = HeaderName::from_static("Daybook-Correlation-Id");
const CAUSATION_ID: HeaderName = HeaderName::from_static("Daybook-Causation-Id");
const COMMAND_ID: HeaderName = HeaderName::from_static("Daybook-Command-Id");
const FINGERPRINT: HeaderName = HeaderName::from_static("Daybook-Fingerprint");
const ACTOR: HeaderName = HeaderName::from_static("Daybook-Actor");
const ORIGIN: HeaderName = HeaderName::from_static("Daybook-Origin");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const LOG_ID_KEY: &str = "daybook_log_id";
const EPOCH_KEY: &str = "daybook_epoch";

/// How many events JetStream keeps: what is older is read from the log.
pub const WINDOW: i64 = 1_000_000;

/// The stream's configuration, to be created with `first_sequence` as the first position that it holds.
pub fn stream_config(log: LogIdentity, first_sequence: Position) -> stream::Config {
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
        metadata: HashMap::from([
            (LOG_ID_KEY.into(), log.log_id.to_string()),
            (EPOCH_KEY.into(), log.epoch.to_string()),
        ]),
        ..stream::Config::default()
    }
}

/// Which log a stream carries, by its metadata.
pub fn identity(config: &stream::Config) -> Option<LogIdentity> {
    let log_id = config.metadata.get(LOG_ID_KEY)?.parse().ok()?;
    let epoch = config.metadata.get(EPOCH_KEY)?.parse().ok()?;
    Some(LogIdentity { log_id, epoch })
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// All that is known of an event beside its payload and what its subject says.
pub fn headers(event: &RecordedEvent, epoch: i64) -> HeaderMap {
    let metadata = &event.metadata;
    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName, value: String| headers.insert(name, value);
    add(POSITION, event.position.to_string());
    add(EPOCH, epoch.to_string());
    add(VERSION, event.version.to_string());
    add(EVENT_ID, event.event_id.to_string());
    add(SCHEMA_VERSION, event.schema_version.to_string());
    add(RECORDED_AT, time(event.recorded_at));
    add(OCCURRED_AT, time(metadata.occurred_at));
    add(CORRELATION_ID, metadata.correlation_id.to_string());
    if let Some(id) = metadata.causation_id {
        add(CAUSATION_ID, id.to_string());
    }
    add(COMMAND_ID, metadata.command_id.to_string());
    add(FINGERPRINT, metadata.fingerprint.to_string());
    add(ACTOR, metadata.actor.to_string());
    add(ORIGIN, metadata.origin.as_str().to_owned());
    if let Some(traceparent) = &metadata.traceparent {
        add(TRACEPARENT, traceparent.to_string());
    }
    headers
}

/// Why a message is no event of the log.
#[derive(Debug, thiserror::Error)]
#[error("a message on {subject} is no event of the log: its {what} is missing or malformed")]
pub struct BadMessage {
    subject: String,
    what: String,
}

/// The event that a message of the stream carries.
///
/// # Errors
/// When the message is none of the relay's.
pub fn recorded(message: &async_nats::Message) -> Result<RecordedEvent, BadMessage> {
    let bad = |what: &dyn Display| BadMessage { subject: message.subject.to_string(), what: what.to_string() };
    let none = HeaderMap::new();
    let headers = message.headers.as_ref().unwrap_or(&none);
    let given = |name: HeaderName| headers.get(name).map(HeaderValue::as_str);
    let text = |name: HeaderName| given(name.clone()).ok_or_else(|| bad(&name));
    fn parsed<T: FromStr>(text: &str) -> Option<T> {
        text.parse().ok()
    }
    macro_rules! header {
        ($name:expr) => {
            text($name).and_then(|text| parsed(text).ok_or_else(|| bad(&$name)))?
        };
    }
    let (stream, event_type) = subject::parse_event(message.subject.as_str()).ok_or_else(|| bad(&"subject"))?;
    Ok(RecordedEvent {
        position: header!(POSITION),
        stream,
        version: header!(VERSION),
        event_id: header!(EVENT_ID),
        event_type: event_type.into(),
        schema_version: header!(SCHEMA_VERSION),
        recorded_at: header!(RECORDED_AT),
        metadata: Metadata {
            correlation_id: header!(CORRELATION_ID),
            causation_id: match given(CAUSATION_ID) {
                Some(_) => Some(header!(CAUSATION_ID)),
                None => None,
            },
            command_id: header!(COMMAND_ID),
            fingerprint: header!(FINGERPRINT),
            actor: text(ACTOR)?.into(),
            origin: Origin::from_name(text(ORIGIN)?).ok_or_else(|| bad(&ORIGIN))?,
            occurred_at: header!(OCCURRED_AT),
            traceparent: given(TRACEPARENT).map(ByteString::from),
        },
        payload: ByteString::try_from(message.payload.clone()).map_err(|_| bad(&"body"))?.into(),
    })
}
