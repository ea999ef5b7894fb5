//! A group of appends as the arrays that the database function `append_group` takes, and its answer as outcomes.

use crate::branch::Seen;
use crate::check::MAX_BYTES;
use crate::event::event_id;
use crate::hash_chain::{self, Digest, Link, Mark};
use crate::stream::count;
use crate::{Append, AppendError, Appended, ExpectedVersion, NewEvent, Position, Speculation, StreamId, Version};
use chrono::{DateTime, SubsecRound, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// How many appends one group has at most.
const MAX_GROUP: usize = 256;
/// Tells the function to expect at least one event.
const MUST_EXIST: Version = -1;

/// An append with what is derived from it. The caller derives it, not the task that all callers wait for.
#[derive(Debug)]
pub(crate) struct Prepared {
    append: Append,
    /// An id and a digest for each event, in order.
    event_ids: Vec<Uuid>,
    digests: Vec<Digest>,
}

impl Prepared {
    pub(crate) fn new(mut append: Append) -> Self {
        // As it will be stored: Postgres has no nanoseconds.
        append.metadata.occurred_at = append.metadata.occurred_at.trunc_subsecs(6);
        let events = || append.streams.iter().flat_map(|s| s.events.iter().map(|event| (s.stream, event)));
        let event_ids: Vec<Uuid> =
            events().enumerate().map(|(index, _)| event_id(append.metadata.command_id, index)).collect();
        let digest = |((stream, event), id): ((StreamId, &NewEvent), &Uuid)| {
            Digest::of(stream, *id, &event.event_type, event.schema_version, &append.metadata, &event.payload)
        };
        let digests: Vec<Digest> = events().zip(&event_ids).map(digest).collect();
        debug_assert!(event_ids.len() == events().count() && digests.len() == event_ids.len(), "one for each event");
        Self { append, event_ids, digests }
    }
}

impl AsRef<Append> for Prepared {
    fn as_ref(&self) -> &Append {
        &self.append
    }
}

/// The appends of one call. The migration of `append_group` says what the arrays mean.
#[derive(Default)]
pub(crate) struct Group {
    appends: Vec<Append>,
    /// The bytes of all payloads.
    bytes: usize,
    streams: Vec<StreamId>,
    numbers: HashMap<StreamId, i32>,
    /// The last event of each speculation so far, for `event_previous`. (A speculation is about one stream.)
    last_event: HashMap<usize, i32>,
    event_append: Vec<i32>,
    event_stream: Vec<i32>,
    event_version: Vec<Option<Version>>,
    event_previous: Vec<Option<i32>>,
    event_ids: Vec<Uuid>,
    schema_versions: Vec<i16>,
    /// What the group's link covers of each event: see [`hash_chain::entry`].
    entries: Vec<u8>,
    expect_append: Vec<i32>,
    expect_stream: Vec<i32>,
    expect_version: Vec<Version>,
}

/// A row of the function's answer.
pub(crate) struct Row {
    append: Option<i32>,
    outcome: Option<String>,
    first_position: Option<Position>,
    group_recorded_at: Option<DateTime<Utc>>,
    event_versions: Option<Vec<Version>>,
    stream: Option<i32>,
    expected_version: Option<Version>,
    actual_version: Option<Version>,
    end_position: Option<Position>,
    end_link: Option<Link>,
}

impl Group {
    pub(crate) fn appends(&self) -> &[Append] {
        &self.appends
    }

    pub(crate) fn into_appends(self) -> Vec<Append> {
        self.appends
    }

    /// Whether the append may be added. To an empty group, any one may.
    pub(crate) fn has_room_for(&self, append: &Append) -> bool {
        self.appends.is_empty() || fits(self.appends.len() + 1, self.bytes + bytes(append))
    }

    /// Adds an append with the speculations of its streams, or with none.
    pub(crate) fn add(&mut self, append: Prepared, speculations: &[Speculation]) {
        let Prepared { append, event_ids, digests } = append;
        let number = next_number(self.appends.len());
        debug_assert!(
            speculations.is_empty() || speculations.len() == append.streams.len(),
            "one for each stream, or none"
        );
        let mut digests = digests.iter();
        for (n, write) in append.streams.iter().enumerate() {
            let stream = self.stream_number(write.stream);
            let claimed = write.expected.version();
            match (write.expected, claimed) {
                // The versions of its events say it.
                (_, Some(_)) if !write.events.is_empty() => {}
                (_, Some(version)) => self.expect(number, stream, version),
                (ExpectedVersion::Exists, None) => self.expect(number, stream, MUST_EXIST),
                (_, None) => {}
            }
            // Without a speculation, it does not depend on an append before it.
            let speculation = speculations.get(n).map(Speculation::key);
            let mut previous = speculation.and_then(|speculation| self.last_event.get(&speculation).copied());
            for (version, event) in (1..).zip(&write.events) {
                self.event_append.push(number);
                self.event_stream.push(stream);
                self.event_version.push(claimed.map(|claimed| claimed + version));
                self.event_previous.push(previous.replace(next_number(self.event_append.len() - 1)));
                self.schema_versions.push(event.schema_version);
                // A version that is not claimed is filled in by the function.
                let version = claimed.map_or(0, |claimed| claimed + version);
                self.entries.extend(digests.next().into_iter().flat_map(|digest| hash_chain::entry(version, digest)));
            }
            if let (Some(speculation), Some(last)) = (speculation, previous) {
                self.last_event.insert(speculation, last);
            }
        }
        self.event_ids.extend(event_ids);
        debug_assert!(digests.next().is_none(), "a digest for each event");
        debug_assert!(
            [self.event_stream.len(), self.event_version.len(), self.event_previous.len(), self.event_ids.len()]
                == [self.event_append.len(); 4]
                && self.schema_versions.len() == self.event_append.len()
                && self.entries.len() == 40 * self.event_append.len(),
            "all arrays of events are as long as each other"
        );
        self.bytes += bytes(&append);
        self.appends.push(append);
    }

    fn stream_number(&mut self, stream: StreamId) -> i32 {
        *self.numbers.entry(stream).or_insert_with(|| {
            let number = next_number(self.streams.len());
            self.streams.push(stream);
            number
        })
    }

    fn expect(&mut self, append: i32, stream: i32, version: Version) {
        self.expect_append.push(append);
        self.expect_stream.push(stream);
        self.expect_version.push(version);
    }

    /// Calls the function: one statement, one transaction. It refuses the group if the log lacks a mark of `seen`, or if the
    /// clocks of Postgres and of this process differ by more than `tolerance`. If the log ends at `vouched_at`, all claimed
    /// versions fit, and it looks none up. With `check`, it looks the event ids up first.
    pub(crate) async fn call(
        &self,
        connection: &mut PgConnection,
        seen: &Seen,
        vouched_at: Option<Position>,
        check: bool,
        tolerance: Duration,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let (seen_positions, seen_links) = seen.columns();
        let metadata = || self.appends.iter().map(|a| &a.metadata);
        let events = || self.appends.iter().flat_map(|a| &a.streams).flat_map(|s| &s.events);
        sqlx::query_as!(
            Row,
            r#"SELECT append, outcome, first_position, group_recorded_at, event_versions, stream, expected_version,
                    actual_version, end_position, end_link AS "end_link: Link"
             FROM daybook.append_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                                       $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)"#,
            &self.streams.iter().map(|s| s.category.id).collect::<Vec<_>>(),
            &self.streams.iter().map(|s| s.id).collect::<Vec<_>>(),
            &metadata().map(|m| m.correlation_id).collect::<Vec<_>>(),
            &metadata().map(|m| m.causation_id).collect::<Vec<_>>() as &[Option<Uuid>],
            &metadata().map(|m| m.command_id).collect::<Vec<_>>(),
            &metadata().map(|m| &m.fingerprint.0[..]).collect::<Vec<_>>() as &[&[u8]],
            &metadata().map(|m| &*m.actor).collect::<Vec<_>>() as &[&str],
            &metadata().map(|m| m.origin.code()).collect::<Vec<_>>(),
            &metadata().map(|m| m.occurred_at).collect::<Vec<_>>(),
            &metadata().map(|m| m.traceparent.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
            &self.event_append,
            &self.event_stream,
            &self.event_version as &[Option<Version>],
            &self.event_previous as &[Option<i32>],
            &self.event_ids,
            &events().map(|e| &*e.event_type).collect::<Vec<_>>() as &[&str],
            &self.schema_versions,
            &events().map(|e| &*e.payload).collect::<Vec<_>>() as &[&str],
            &self.entries,
            &self.expect_append,
            &self.expect_stream,
            &self.expect_version,
            &seen_positions,
            &seen_links as &[&[u8]],
            vouched_at,
            check,
            Utc::now(),
            tolerance.as_secs_f64()
        )
        .fetch_all(connection)
        .await
    }

    /// The same for a group of one event whose version is known to fit if the log ends at the mark `seen`. `None` if it is no
    /// such group, the log does not have the mark, or the clocks differ.
    pub(crate) async fn call_one(
        &self,
        connection: &mut PgConnection,
        seen: Mark,
        tolerance: Duration,
    ) -> Result<Option<Row>, sqlx::Error> {
        let ([append], [event_id], [Some(version)], []) =
            (&self.appends[..], &self.event_ids[..], &self.event_version[..], &self.expect_append[..])
        else {
            return Ok(None);
        };
        let Some((stream, event)) = append.streams.iter().find_map(|s| Some((s.stream, s.events.first()?))) else {
            return Ok(None);
        };
        let metadata = &append.metadata;
        let written = sqlx::query!(
            r#"SELECT recorded, event_link AS "event_link: Link"
               FROM daybook.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                                       $19, $20)"#,
            seen.position,
            &seen.link.0[..],
            stream.category.id,
            stream.id,
            version,
            metadata.correlation_id,
            metadata.causation_id,
            metadata.command_id,
            &metadata.fingerprint.0[..],
            &*metadata.actor,
            metadata.origin.code(),
            metadata.occurred_at,
            metadata.traceparent.as_deref(),
            event_id,
            &*event.event_type,
            event.schema_version,
            &*event.payload,
            &self.entries,
            Utc::now(),
            tolerance.as_secs_f64()
        );
        let written = written.fetch_one(connection).await?;
        let position = Some(seen.position + 1);
        Ok(written.recorded.zip(written.event_link).map(|(recorded_at, link)| Row {
            append: None,
            outcome: None,
            first_position: position,
            group_recorded_at: Some(recorded_at),
            event_versions: None,
            stream: None,
            expected_version: None,
            actual_version: None,
            end_position: position,
            end_link: Some(link),
        }))
    }

    /// The streams that the group writes to, with the version that it claims each to be at. `None` if it does not claim one
    /// for each, or contradicts itself.
    pub(crate) fn claims(&self) -> Option<Vec<(StreamId, Version)>> {
        let mut claims = Vec::new();
        for (event, previous) in self.event_previous.iter().enumerate() {
            let version = self.event_version[event]?;
            match previous {
                None => claims.push((self.streams[index(self.event_stream[event])?], version - 1)),
                Some(previous) if self.event_version[index(*previous)?] == Some(version - 1) => {}
                Some(_) => return None,
            }
        }
        Some(claims)
    }

    /// The end of the log, as the answer says it. `None` if this build does not understand the answer.
    pub(crate) fn end(rows: &[Row]) -> Option<Mark> {
        let row = rows.first()?;
        Some(Mark { position: row.end_position?, link: row.end_link? })
    }

    /// The outcome of each append, in their order.
    pub(crate) fn outcomes(&self, rows: Vec<Row>) -> Vec<Result<Appended, AppendError>> {
        let Some(end) = Self::end(&rows) else { return vec![Err(unknown_answer()); self.appends.len()] };
        match &rows[..] {
            [Row { append: None, first_position: Some(first), group_recorded_at: Some(at), .. }] => {
                self.all_written(*first, *at, end)
            }
            _ if rows.len() != self.appends.len() => vec![Err(unknown_answer()); self.appends.len()],
            _ => self.appends.iter().zip(rows).map(|(append, row)| self.outcome(append, row, end)).collect(),
        }
    }

    /// Every append is written as its versions claimed, from position `first` on.
    fn all_written(
        &self,
        first: Position,
        recorded_at: DateTime<Utc>,
        end: Mark,
    ) -> Vec<Result<Appended, AppendError>> {
        let mut position = first - 1;
        let written = |append: &Append| {
            position += append.streams.iter().map(|s| count(s.events.len())).sum::<Position>();
            let version = |s: &crate::StreamAppend| s.expected.version().unwrap_or(0) + count(s.events.len());
            Ok(Appended { position, recorded_at, versions: append.streams.iter().map(version).collect(), end })
        };
        self.appends.iter().map(written).collect()
    }

    fn outcome(&self, append: &Append, row: Row, end: Mark) -> Result<Appended, AppendError> {
        let stream = row.stream.and_then(index).and_then(|n| self.streams.get(n)).copied();
        match (row.outcome.as_deref(), row.first_position, row.group_recorded_at) {
            (Some("written"), first, Some(recorded_at)) => {
                let versions = row.event_versions.unwrap_or_default();
                Ok(written(append, first, recorded_at, &versions, end))
            }
            (Some("duplicate"), Some(position), _) => Err(AppendError::AlreadyRecorded { position }),
            (Some("id_taken"), ..) => {
                Err(AppendError::Refused("an event id of the append is another command's".into()))
            }
            (Some("conflict"), ..) => match (stream, row.actual_version) {
                (Some(stream), Some(actual)) => {
                    let expected = match row.expected_version {
                        Some(MUST_EXIST) => ExpectedVersion::Exists,
                        Some(0) => ExpectedVersion::NoStream,
                        Some(version) => ExpectedVersion::Exact(version),
                        None => ExpectedVersion::Any,
                    };
                    Err(AppendError::VersionConflict { stream, expected, actual })
                }
                _ => Err(unknown_answer()),
            },
            _ => Err(unknown_answer()),
        }
    }
}

/// The function counts appends, streams and events from 1, and a group has far fewer than 2³¹ of them.
fn next_number(length: usize) -> i32 {
    i32::try_from(length + 1).unwrap_or(i32::MAX)
}

/// The place of what has that number; `None` if it is no number.
fn index(number: i32) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

/// Whether a group may have so many appends, with so many bytes of payload.
pub(crate) fn fits(appends: usize, bytes: usize) -> bool {
    appends <= MAX_GROUP && bytes <= MAX_BYTES
}

/// The bytes of an append's payloads.
fn bytes(append: &Append) -> usize {
    append.streams.iter().flat_map(|s| &s.events).map(|e| e.payload.len()).sum()
}

fn unknown_answer() -> AppendError {
    AppendError::Unavailable("append_group gave an answer that this build does not know".into())
}

fn written(
    append: &Append,
    first: Option<Position>,
    recorded_at: DateTime<Utc>,
    event_versions: &[Version],
    end: Mark,
) -> Appended {
    let mut events = 0;
    let version = |s: &crate::StreamAppend| {
        events += s.events.len();
        match s.events.last() {
            Some(_) => event_versions.get(events - 1).copied().unwrap_or(0),
            None => s.expected.version().unwrap_or(0),
        }
    };
    let versions = append.streams.iter().map(version).collect();
    Appended { position: first.unwrap_or(1) - 1 + count(events), recorded_at, versions, end }
}
