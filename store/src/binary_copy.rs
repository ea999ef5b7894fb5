//! Decodes events from Postgres' binary COPY, the leanest way to read many of them.
//!
//! The format is in PostgreSQL's manual, under COPY, "Binary Format". Each column is what the `send` function of its type
//! writes. Texts are not copied: they are slices of what was received.

use crate::Category;
use crate::event::RecordedEvent;
use crate::hash_chain::{Link, POSTGRES_EPOCH};
use crate::read::{ReadError, Row};
use bytes::{Buf, Bytes};
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// The columns of an event, in the order in which they are decoded.
pub(crate) const COLUMNS: &str = "position, version, recorded_at, occurred_at, category, schema_version, origin, \
                                  stream_id, event_id, correlation_id, causation_id, command_id, fingerprint, \
                                  event_type, actor, traceparent, payload, link";
const COLUMN_COUNT: i16 = 18;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Follows the last row, in place of a number of columns.
const TRAILER: i16 = -1;

/// Decodes the messages of one COPY, in order.
#[derive(Default)]
pub(crate) struct Decoder {
    begun: bool,
}

/// The column, or other part, that is not as Postgres writes it.
struct Bad(&'static str);

impl Decoder {
    /// Adds the events of a message to `events`. Postgres sends whole rows in a message.
    pub(crate) fn decode(
        &mut self,
        mut message: Bytes,
        categories: &[Category],
        events: &mut Vec<RecordedEvent>,
    ) -> Result<(), ReadError> {
        let position = events.last().map_or(0, |event| event.position) + 1;
        while let Some(row) = self.row(&mut message).map_err(|Bad(what)| ReadError::Malformed { position, what })? {
            events.push(row.event(categories)?);
        }
        Ok(())
    }

    fn row(&mut self, message: &mut Bytes) -> Result<Option<Row>, Bad> {
        if !self.begun {
            skip_header(message)?;
            self.begun = true;
        }
        if message.is_empty() {
            return Ok(None);
        }
        match message.try_get_i16() {
            Ok(COLUMN_COUNT) => row(message).map(Some),
            Ok(TRAILER) if message.is_empty() => Ok(None),
            _ => Err(Bad("number of columns")),
        }
    }
}

/// Signature, flags, and an extension of the length that it begins with.
fn skip_header(message: &mut Bytes) -> Result<(), Bad> {
    let bad = Bad("header");
    if !message.starts_with(SIGNATURE) {
        return Err(bad);
    }
    message.advance(SIGNATURE.len());
    match (message.try_get_i32(), message.try_get_i32()) {
        (Ok(0), Ok(0)) => Ok(()),
        _ => Err(bad),
    }
}

fn row(message: &mut Bytes) -> Result<Row, Bad> {
    // In the order of `COLUMNS`: the fields of a struct are evaluated as they are written.
    Ok(Row {
        position: i64::from_be_bytes(array(message, "position")?),
        version: i64::from_be_bytes(array(message, "version")?),
        recorded_at: time(message, "recorded_at")?,
        occurred_at: time(message, "occurred_at")?,
        category: i16::from_be_bytes(array(message, "category")?),
        schema_version: i16::from_be_bytes(array(message, "schema_version")?),
        origin: i16::from_be_bytes(array(message, "origin")?),
        stream_id: Uuid::from_bytes(array(message, "stream_id")?),
        event_id: Uuid::from_bytes(array(message, "event_id")?),
        correlation_id: Uuid::from_bytes(array(message, "correlation_id")?),
        causation_id: match column(message, "causation_id")? {
            Some(id) => Some(Uuid::from_slice(&id).map_err(|_| Bad("causation_id"))?),
            None => None,
        },
        command_id: Uuid::from_bytes(array(message, "command_id")?),
        fingerprint: column(message, "fingerprint")?.ok_or(Bad("fingerprint"))?,
        event_type: text(message, "event_type")?,
        actor: text(message, "actor")?,
        traceparent: match column(message, "traceparent")? {
            Some(text) => Some(String::from_utf8(text.into()).map_err(|_| Bad("traceparent"))?),
            None => None,
        },
        payload: text(message, "payload")?,
        link: match column(message, "link")? {
            Some(link) => Some(Link::try_from(&*link).map_err(|_| Bad("link"))?),
            None => None,
        },
    })
}

/// The next column; `None` if it is NULL.
fn column(message: &mut Bytes, name: &'static str) -> Result<Option<Bytes>, Bad> {
    match message.try_get_i32() {
        Ok(-1) => Ok(None),
        Ok(length) => match usize::try_from(length) {
            Ok(length) if length <= message.len() => Ok(Some(message.split_to(length))),
            _ => Err(Bad(name)),
        },
        Err(_) => Err(Bad(name)),
    }
}

/// A column of a fixed length. It is copied at once, which is cheaper than a shared slice.
fn array<const N: usize>(message: &mut Bytes, name: &'static str) -> Result<[u8; N], Bad> {
    if message.try_get_i32().ok() != i32::try_from(N).ok() {
        return Err(Bad(name));
    }
    let mut bytes = [0; N];
    message.try_copy_to_slice(&mut bytes).map_err(|_| Bad(name))?;
    Ok(bytes)
}

fn time(message: &mut Bytes, name: &'static str) -> Result<DateTime<Utc>, Bad> {
    let micros = i64::from_be_bytes(array(message, name)?).checked_add(POSTGRES_EPOCH);
    micros.and_then(DateTime::from_timestamp_micros).ok_or(Bad(name))
}

fn text(message: &mut Bytes, name: &'static str) -> Result<ByteString, Bad> {
    let text = column(message, name)?.ok_or(Bad(name))?;
    ByteString::try_from(text).map_err(|_| Bad(name))
}
