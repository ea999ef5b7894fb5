//! An event as a line of an export: a CloudEvent 1.0 in the JSON format, with the log's other columns as extension
//! attributes. Files are kept, so what is written here can always be read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytestring::ByteString;
use chrono::{DateTime, SecondsFormat, Utc};
use engine::codec::parse_stream;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use store::{Category, Fingerprint, Link, Metadata, Origin, Position, RecordedEvent, Version};
use uuid::Uuid;

const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/json";

/// The line. What it has more than is known here would be lost, so it is refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloudEvent<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    id: Uuid,
    /// The log, as `urn:uuid:…`.
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    /// The stream.
    #[serde(borrow)]
    subject: Cow<'a, str>,
    /// When it happened.
    #[serde(serialize_with = "microseconds")]
    time: DateTime<Utc>,
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    // As texts: a CloudEvents integer has 32 bits.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    position: Position,
    /// Where the export ends: so that lines which are missing at its end are missed.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    lastposition: Position,
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    streamversion: Version,
    schemaversion: i16,
    #[serde(serialize_with = "microseconds")]
    recordedtime: DateTime<Utc>,
    correlationid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<Uuid>,
    commandid: Uuid,
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    fingerprint: Fingerprint,
    #[serde(borrow)]
    actor: Cow<'a, str>,
    #[serde(borrow)]
    origin: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    /// Of the hash chain: with the last event of a group. Exports of before there was one have none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "some_as_text",
        deserialize_with = "some_from_text"
    )]
    link: Option<Link>,
    /// The payload, as it is.
    #[serde(borrow, default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    /// The payload, if it cannot stand in a line as it is.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    data_base64: Option<Cow<'a, str>>,
}

impl<'a> CloudEvent<'a> {
    /// The line of an event of the log `log_id`, in an export that ends at `last`.
    pub(super) fn of(event: &'a RecordedEvent, log_id: Uuid, last: Position) -> Self {
        let metadata = &event.metadata;
        let data = in_a_line(&event.payload);
        Self {
            specversion: SPEC_VERSION.into(),
            id: event.event_id,
            source: log_id.urn().to_string().into(),
            event_type: (&*event.event_type).into(),
            subject: event.stream.to_string().into(),
            time: metadata.occurred_at,
            datacontenttype: CONTENT_TYPE.into(),
            position: event.position,
            lastposition: last,
            streamversion: event.version,
            schemaversion: event.schema_version,
            recordedtime: event.recorded_at,
            correlationid: metadata.correlation_id,
            causationid: metadata.causation_id,
            commandid: metadata.command_id,
            fingerprint: metadata.fingerprint,
            actor: (&*metadata.actor).into(),
            origin: metadata.origin.as_str().into(),
            traceparent: metadata.traceparent.as_deref().map(Cow::from),
            link: event.link,
            data,
            data_base64: data.is_none().then(|| STANDARD.encode(event.payload.as_bytes()).into()),
        }
    }
}

/// The payload as a value within a line, if it is the same when it is read from there: breaks of lines, and blanks around
/// it, would not be.
fn in_a_line(payload: &str) -> Option<&RawValue> {
    let value: &RawValue = serde_json::from_str(payload).ok()?;
    (value.get().len() == payload.len() && !payload.contains(['\n', '\r'])).then_some(value)
}

/// What a line says.
pub(super) struct Line {
    pub(super) event: RecordedEvent,
    pub(super) log_id: Uuid,
    /// Where the export ends that it is of.
    pub(super) last: Position,
}

/// Takes a line apart.
///
/// # Errors
/// With what is wrong; never with what it holds, which may be a secret.
pub(super) fn read(categories: &[Category], line: &[u8]) -> Result<Line, String> {
    let line: CloudEvent<'_> = serde_json::from_slice(line).map_err(|e| match e.is_data() {
        true => format!("an attribute is unknown, missing or malformed (found at column {})", e.column()),
        false => format!("it is no JSON object (found at column {})", e.column()),
    })?;
    if (&*line.specversion, &*line.datacontenttype) != (SPEC_VERSION, CONTENT_TYPE) {
        return Err(format!("it is no CloudEvent {SPEC_VERSION} of {CONTENT_TYPE}"));
    }
    let log_id = line.source.parse::<uuid::fmt::Urn>().map_err(|_| "its source is no log".to_owned())?;
    let stream = parse_stream(categories, &line.subject).ok_or("its subject is no stream that this build knows")?;
    let payload = match (line.data, line.data_base64) {
        (Some(data), None) => ByteString::from(data.get()),
        (None, Some(data)) => {
            let data = STANDARD.decode(&*data).ok().and_then(|data| ByteString::try_from(data).ok());
            data.ok_or("its data_base64 is no text in base64")?
        }
        _ => return Err("it has not one of data and data_base64".to_owned()),
    };
    let event = RecordedEvent {
        position: line.position,
        stream,
        version: line.streamversion,
        event_id: line.id,
        event_type: text(line.event_type),
        schema_version: line.schemaversion,
        recorded_at: line.recordedtime,
        metadata: Metadata {
            correlation_id: line.correlationid,
            causation_id: line.causationid,
            command_id: line.commandid,
            fingerprint: line.fingerprint,
            actor: text(line.actor),
            origin: Origin::from_name(&line.origin).ok_or("its origin is neither live nor import")?,
            occurred_at: line.time,
            traceparent: line.traceparent.map(text),
        },
        payload: payload.into(),
        link: line.link,
    };
    Ok(Line { event, log_id: log_id.into_uuid(), last: line.lastposition })
}

fn text(text: Cow<'_, str>) -> ByteString {
    ByteString::from(text.into_owned())
}

fn microseconds<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn as_text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn some_as_text<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn some_from_text<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    from_text(deserializer).map(Some)
}

fn from_text<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom("malformed"))
}

/// A value that is there, also if it is null.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
