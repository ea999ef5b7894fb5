//! JetStream's window against the log: the sequence is the position, the body is the payload byte for byte, and the
//! headers are the event's other columns. An own reading of the wire, not the relay's.

use super::log::{self, Row};
use super::{Check, VerifyError};
use crate::subject;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{HeaderMap, Message};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::StreamExt;
use sqlx::PgPool;
use std::collections::HashMap;
use std::time::Duration;

pub const NAME: &str = "window";

/// How many messages are asked for at once: with the largest payloads, some 64 MiB.
const BATCH: usize = 500;
/// How long JetStream may take for the first of them, or for the next.
const EXPIRES: Duration = Duration::from_secs(5);

/// The stream; none if there is none, which an election may make it seem as well.
pub async fn find(jetstream: &jetstream::Context) -> Result<Option<Stream>, VerifyError> {
    match jetstream.get_stream(subject::STREAM).await {
        Ok(stream) => Ok(Some(stream)),
        Err(e) => match e.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(unreadable(e)),
        },
    }
}

pub async fn check(pool: &PgPool, jetstream: &jetstream::Context) -> Result<Check, VerifyError> {
    let mut check = Check::new(NAME);
    let Some(stream) = find(jetstream).await? else {
        check.differs(|| format!("the stream {} does not exist", subject::STREAM));
        return Ok(check);
    };
    let info = stream.cached_info();
    let (first, end) = (info.state.first_sequence.max(1), info.state.last_sequence);
    // After the window's end is known: what is in it then is in the log by now.
    let log = sqlx::query!(
        r#"SELECT log_id, epoch, (SELECT coalesce(max(position), 0) FROM daybook.events) AS "head!" FROM daybook.log"#
    );
    let Some(log) = log.fetch_optional(pool).await? else {
        check.differs(|| "the log has lost its id and epoch: daybook.log has no row".to_owned());
        return Ok(check);
    };
    for (key, value) in [("daybook_log_id", log.log_id.to_string()), ("daybook_epoch", log.epoch.to_string())] {
        let stored = info.config.metadata.get(key);
        if stored != Some(&value) {
            check.differs(|| format!("the stream's {key} is {}, the log's is {value}", shown(stored.map(|s| &**s))));
        }
    }
    let head = log.head.cast_unsigned();
    if end > head {
        check.differs(|| format!("the window ends at {end}, ahead of the log, which ends at {head}"));
    }
    let reading = Reading { pool, epoch: log.epoch, check, next: first, last: end.min(head), holes: vec![] };
    let Reading { mut check, holes, .. } = reading.read(&stream).await?;
    // What retention has dropped in the meantime is no hole.
    let first = stream.get_info().await.map_err(unreadable)?.state.first_sequence;
    for (from, to) in holes.into_iter().filter(|(_, to)| *to >= first) {
        let from = from.max(first);
        check.differs(|| match to {
            to if to == from => format!("sequence {from} is missing"),
            to => format!("sequences {from} to {to} are missing"),
        });
    }
    Ok(check)
}

struct Reading<'a> {
    pool: &'a PgPool,
    epoch: i64,
    check: Check,
    /// The next sequence to come, and the last that is looked at.
    next: u64,
    last: u64,
    /// What is missing, from and to.
    holes: Vec<(u64, u64)>,
}

impl Reading<'_> {
    async fn read(mut self, stream: &Stream) -> Result<Self, VerifyError> {
        while self.next <= self.last {
            let consumer = consumer(stream, self.next).await.map_err(unreadable)?;
            let complete = self.consume(&consumer).await;
            // If that fails, it goes by itself, a while after its last use.
            let _ = stream.delete_consumer(&consumer.cached_info().name).await;
            if complete? && self.next <= self.last {
                self.holes.push((self.next, self.last));
                break;
            }
        }
        Ok(self)
    }

    /// Reads to the end; `false`, if messages were lost on the way and reading is to start again after the last good one.
    async fn consume(&mut self, consumer: &PullConsumer) -> Result<bool, VerifyError> {
        let mut pending = consumer.cached_info().num_pending;
        let mut delivered = 0;
        let mut lost = false;
        while pending > 0 && !lost && self.next <= self.last {
            let batch = consumer.batch().max_messages(BATCH).expires(EXPIRES).messages().await;
            let mut batch = batch.map_err(unreadable)?;
            let mut messages = Vec::with_capacity(BATCH);
            while let Some(message) = batch.next().await {
                let message = message.map_err(VerifyError::JetStream)?;
                let info = message.info().map_err(VerifyError::JetStream)?;
                delivered += 1;
                // The consumer numbers what it delivers: so a loss on the way is not taken for a hole.
                lost = info.consumer_sequence != delivered;
                pending = info.pending;
                let sequence = info.stream_sequence;
                if lost || sequence > self.last {
                    break;
                }
                messages.push((sequence, message.message));
                if pending == 0 || sequence == self.last {
                    break;
                }
            }
            // Beyond `last` there is nothing to look at.
            let beyond = messages.is_empty() && delivered > 0 && !lost;
            if messages.is_empty() && !beyond {
                let what = format!("JetStream does not deliver sequence {} and those after it", self.next);
                return Err(VerifyError::JetStream(what.into()));
            }
            self.compare(messages).await?;
            if beyond {
                break;
            }
        }
        Ok(!lost)
    }

    async fn compare(&mut self, messages: Vec<(u64, Message)>) -> Result<(), VerifyError> {
        let positions: Vec<i64> = messages.iter().map(|(sequence, _)| sequence.cast_signed()).collect();
        let rows = log::at(self.pool, &positions).await?;
        let rows: HashMap<u64, Row> = rows.into_iter().map(|row| (row.position.cast_unsigned(), row)).collect();
        for (sequence, message) in messages {
            if sequence > self.next {
                self.holes.push((self.next, sequence - 1));
            }
            self.next = sequence + 1;
            self.check.checked += 1;
            match rows.get(&sequence) {
                Some(row) => message_differs(&mut self.check, &message, row, self.epoch),
                None => self.check.differs(|| format!("sequence {sequence} is of no event in the log")),
            }
        }
        Ok(())
    }
}

async fn consumer(stream: &Stream, start_sequence: u64) -> Result<PullConsumer, jetstream::stream::ConsumerError> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
        ack_policy: AckPolicy::None,
        inactive_threshold: Duration::from_secs(60),
        memory_storage: true,
        num_replicas: 1,
        ..Default::default()
    };
    stream.create_consumer(config).await
}

fn message_differs(check: &mut Check, message: &Message, row: &Row, epoch: i64) {
    let sequence = row.position;
    let category = row.category_name.as_deref().unwrap_or_default();
    let subject = format!("daybook.evt.v1.{category}.{}.{}", row.stream_id, row.event_type);
    if *message.subject != *subject {
        check.differs(|| format!("sequence {sequence}: the subject is {}, the log says {subject}", message.subject));
    }
    // Not shown: it may hold the provider's token for a payment method.
    if message.payload != row.payload.as_bytes() {
        let at = message.payload.iter().zip(row.payload.bytes()).take_while(|(a, b)| **a == *b).count();
        check.differs(|| format!("sequence {sequence}: the body differs from the stored payload from byte {at} on"));
    }
    let mut headers = headers(message.headers.as_ref());
    let packed = headers.remove("Daybook");
    let traceparent = headers.remove("traceparent");
    let mut compare = |name: &str, value: Option<String>, expected: Option<String>| {
        if value != expected {
            let (value, expected) = (shown(value.as_deref()), shown(expected.as_deref()));
            check.differs(|| format!("sequence {sequence}: {name} is {value}, the log says {expected}"));
        }
    };
    compare("traceparent", traceparent, row.traceparent.clone());
    match packed {
        Some(packed) => {
            let mut fields = packed.split(' ').map(str::to_owned);
            for (name, expected) in packed_fields(row, epoch) {
                compare(name, fields.next(), Some(expected));
            }
        }
        // Earlier builds have published a header for each column.
        None => {
            for (name, expected) in headers_of_columns(row, epoch) {
                compare(name, headers.remove(name), expected);
            }
        }
    }
    for (name, value) in headers {
        check.differs(|| format!("sequence {sequence}: {name} is {value}, of which the log knows nothing"));
    }
}

/// The headers that are not NATS' own.
fn headers(headers: Option<&HeaderMap>) -> HashMap<String, String> {
    let all = headers.into_iter().flat_map(HeaderMap::iter).map(|(name, values)| {
        let values: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
        (name.to_string(), values.join(", "))
    });
    all.filter(|(name, _)| !name.starts_with("Nats-")).collect()
}

/// The fields of the packed header, in their order.
fn packed_fields(row: &Row, epoch: i64) -> [(&'static str, String); 15] {
    let some = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let micros = |t: DateTime<Utc>| t.timestamp_micros().to_string();
    let escaped = |byte: u8| match byte {
        b'!'..=b'$' | b'&'..=b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    [
        ("its format", "1".to_owned()),
        ("epoch", epoch.to_string()),
        ("position", row.position.to_string()),
        ("version", row.version.to_string()),
        ("schema version", row.schema_version.to_string()),
        ("recorded_at", micros(row.recorded_at)),
        ("occurred_at", micros(row.occurred_at)),
        ("event id", row.event_id.to_string()),
        ("correlation id", row.correlation_id.to_string()),
        ("causation id", some(row.causation_id.map(|id| id.to_string()))),
        ("command id", row.command_id.to_string()),
        ("fingerprint", hex(&row.fingerprint)),
        ("origin", some(row.origin_name().map(str::to_owned))),
        ("link", some(row.link.as_deref().map(hex))),
        ("actor", row.actor.bytes().map(escaped).collect()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn headers_of_columns(row: &Row, epoch: i64) -> [(&'static str, Option<String>); 13] {
    let time = |t: DateTime<Utc>| t.to_rfc3339_opts(SecondsFormat::Micros, true);
    [
        ("Daybook-Position", Some(row.position.to_string())),
        ("Daybook-Epoch", Some(epoch.to_string())),
        ("Daybook-Version", Some(row.version.to_string())),
        ("Daybook-Event-Id", Some(row.event_id.to_string())),
        ("Daybook-Schema-Version", Some(row.schema_version.to_string())),
        ("Daybook-Recorded-At", Some(time(row.recorded_at))),
        ("Daybook-Occurred-At", Some(time(row.occurred_at))),
        ("Daybook-Correlation-Id", Some(row.correlation_id.to_string())),
        ("Daybook-Causation-Id", row.causation_id.map(|id| id.to_string())),
        ("Daybook-Command-Id", Some(row.command_id.to_string())),
        ("Daybook-Fingerprint", Some(hex(&row.fingerprint))),
        ("Daybook-Actor", Some(row.actor.clone())),
        ("Daybook-Origin", row.origin_name().map(str::to_owned)),
    ]
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| format!("{value:?}"))
}

fn unreadable(error: impl Into<async_nats::Error>) -> VerifyError {
    VerifyError::JetStream(error.into())
}
