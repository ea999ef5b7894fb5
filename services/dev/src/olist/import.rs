//! Orders in the public Olist CSV format, as recorded history: what `daybook import olist DIR` does.
//!
//! What the rows of an order prove becomes events of origin `import`, from which nothing follows. Ids are derived from
//! Olist's, so an import that was killed is run again, and writes what is missing. What is not recorded is told.

mod history;
mod report;
mod rows;
mod table;

pub use history::Untidy;
pub use report::{DerivedId, LeftOut, NotTaken, Note, NoteKind, Report, Rows, What};
pub use table::{Items, Table, TableError, table};

use super::{Amounts, OlistError, Problem};
use chrono::SecondsFormat;
use futures_util::{StreamExt, stream};
use history::{History, Step};
use order_services::decide::IMPORT_ACTOR;
use order_views::encode;
use orders::id::OrderId;
use orders::{Event, order};
use rows::{Files, OrderRow};
use std::collections::HashMap;
use std::path::Path;
use store::{
    Append, AppendError, Appender, ExpectedVersion, Fingerprint, Log, Metadata, Origin, ReadError, StreamAppend,
    StreamId, Version, derive_id,
};
use uuid::Uuid;

/// How many orders are looked up in the log at once, and are then in flight: the appender writes 256 appends at a time.
const IN_FLIGHT: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Files(#[from] OlistError),
    #[error("what is recorded already cannot be looked up: {0}")]
    Log(#[from] ReadError),
    #[error("{0}")]
    Unavailable(AppendError),
}

/// Records what the files of `dir` prove, as far as the log does not have it yet. `progress` is told how many orders are
/// done, of how many.
///
/// # Errors
/// When the files cannot be read: then nothing is recorded. When Postgres fails: then what was recorded stays, and the
/// next import goes on from there.
pub async fn import(
    log: &Log,
    appender: &Appender,
    dir: &Path,
    amounts: Amounts,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report, ImportError> {
    let files = Files::read(dir, amounts)?;
    let currency = "BRL".parse().map_err(OlistError::from)?;
    let mut report = Report::default();
    let mut done = 0;
    for orders in files.orders.chunks(IN_FLIGHT) {
        let (mut histories, mut ids) = (Vec::new(), Vec::new());
        for order in orders {
            match History::of(order, files.items(order.id), files.payments(order.id), currency) {
                Ok(history) => {
                    ids.extend(history.steps.iter().map(|step| command_id(order.id, step)));
                    histories.push((order, history));
                }
                Err(faults) => {
                    let faults = faults.into_iter().map(|f| format!("{} is not {}", f.field, f.expected));
                    let why = format!("it is no history: {}", faults.collect::<Vec<_>>().join("; "));
                    let remedy = "mend its rows, and import again";
                    report.left_out.push(left_out(order, Problem::NoHistory, why, remedy));
                }
            }
        }
        let before = log.recorded_commands(&ids).await?;
        let recorded = stream::iter(histories).map(async |(order, history)| {
            let recorded = record(log, appender, &history, &before).await;
            (order, history, recorded)
        });
        let mut recorded = std::pin::pin!(recorded.buffer_unordered(IN_FLIGHT));
        while let Some((order, history, outcome)) = recorded.next().await {
            done += 1;
            progress(done, files.orders.len());
            take_in(&mut report, &files, order, history, outcome)?;
        }
    }
    let Report { orders, items, payments, .. } = &mut report;
    for (rows, in_file) in [orders, items, payments].into_iter().zip(files.rows) {
        rows.in_file = in_file;
        rows.left_out = in_file - rows.recorded - rows.found;
    }
    report.left_out.splice(0..0, files.left_out);
    // They come as they are recorded, which is in no order.
    report.notes.sort_by(|a, b| a.order.cmp(&b.order));
    report.tidied.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    report.untidy.values_mut().for_each(|orders| orders.sort_unstable());
    report.not_taken = files.not_taken;
    Ok(report)
}

/// Why an order is not recorded, or not all of it.
enum NotRecorded {
    LeftOut { kind: Problem, why: String, remedy: &'static str },
    Failed(ImportError),
}

impl From<ReadError> for NotRecorded {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

/// Writes the steps that the log does not have, and returns how many events these are.
async fn record(
    log: &Log,
    appender: &Appender,
    history: &History,
    before: &HashMap<Uuid, Fingerprint>,
) -> Result<usize, NotRecorded> {
    let mut versions: HashMap<StreamId, Version> = HashMap::new();
    let mut written = 0;
    for step in &history.steps {
        let append = append(history.order_id, step, &mut versions);
        let Metadata { command_id, fingerprint, .. } = append.metadata;
        let events: usize = append.streams.iter().map(|s| s.events.len()).sum();
        let recorded = match before.get(&command_id) {
            Some(recorded) => Some(*recorded),
            None => match appender.append(append).await {
                Ok(_) => {
                    written += events;
                    None
                }
                // By another import, which is under way.
                Err(AppendError::AlreadyRecorded { .. }) => {
                    log.recorded_commands(&[command_id]).await?.remove(&command_id)
                }
                Err(e @ (AppendError::VersionConflict { .. } | AppendError::DependencyAborted)) => {
                    let why = format!("the log has something else of it: {e}");
                    let remedy = "what is in the log stays; this order's history has no place in it";
                    return Err(NotRecorded::LeftOut { kind: Problem::InLogFromElsewhere, why, remedy });
                }
                Err(AppendError::Refused(why)) => {
                    let remedy = "it cannot be stored as it is";
                    return Err(NotRecorded::LeftOut { kind: Problem::NotStorable, why, remedy });
                }
                Err(e) => return Err(NotRecorded::Failed(ImportError::Unavailable(e))),
            },
        };
        if recorded.is_some_and(|recorded| recorded != fingerprint) {
            let why = format!("it was recorded from other rows: what was {} is not what they say now", step.name);
            let remedy = "what is in the log stays; compare the files";
            return Err(NotRecorded::LeftOut { kind: Problem::InLogFromOtherRows, why, remedy });
        }
    }
    Ok(written)
}

/// The append of a step, after `versions`, which it adds to.
fn append(order_id: OrderId, step: &Step, versions: &mut HashMap<StreamId, Version>) -> Append {
    let mut streams = Vec::new();
    let mut told = step.occurred_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    for (stream, events) in &step.streams {
        let version = versions.entry(*stream).or_default();
        let expected = if *version == 0 { ExpectedVersion::NoStream } else { ExpectedVersion::Exact(*version) };
        *version += events.len() as Version;
        let mut encoded = Vec::with_capacity(events.len());
        for event in events {
            let version = told_version(event);
            let event = encode(event);
            told += &format!("\n{stream} {} {version} {}", event.event_type, &*event.payload);
            encoded.push(event);
        }
        streams.push(StreamAppend { stream: *stream, expected, events: encoded });
    }
    let metadata = Metadata {
        correlation_id: order_id.0,
        causation_id: None,
        command_id: command_id(order_id, step),
        fingerprint: Fingerprint::of(told.as_bytes()),
        actor: IMPORT_ACTOR.into(),
        origin: Origin::Import,
        occurred_at: step.occurred_at,
        traceparent: None,
    };
    Append { metadata, streams }
}

/// The schema version in the fingerprint: the first one that could hold the event. So an order that an older build has
/// recorded is found again, and not taken for another.
fn told_version(event: &Event) -> i16 {
    match event {
        // Version 2 may have ids.
        Event::Order(_, order::Event::HistoryRecorded(e)) if e.ids.is_empty() => 1,
        event => event.schema_version(),
    }
}

/// The same for the same step of the same order, in every import. No client's: theirs are of version 7.
fn command_id(order_id: OrderId, step: &Step) -> Uuid {
    derive_id(order_id.0, &[b"import", history::SOURCE.as_bytes(), step.name.as_bytes()])
}

fn take_in(
    report: &mut Report,
    files: &Files,
    order: &OrderRow,
    history: History,
    outcome: Result<usize, NotRecorded>,
) -> Result<(), ImportError> {
    let events = match outcome {
        Ok(events) => events,
        Err(NotRecorded::Failed(error)) => return Err(error),
        Err(NotRecorded::LeftOut { kind, why, remedy }) => {
            report.left_out.push(left_out(order, kind, why, remedy));
            return Ok(());
        }
    };
    report.events += events;
    let (items, payments) = (files.items(order.id), files.payments(order.id));
    let rows = [1, items.len(), payments.len()];
    for (count, rows) in [&mut report.orders, &mut report.items, &mut report.payments].into_iter().zip(rows) {
        *(if events > 0 { &mut count.recorded } else { &mut count.found }) += rows;
    }
    let tidied = items.iter().flat_map(|i| &i.tidied).chain(payments.iter().flat_map(|p| &p.tidied));
    report.tidied.extend(tidied.cloned());
    report.derived.extend(history.derived);
    for what in history.untidy {
        report.untidy.entry(what).or_default().push(order.olist_id.clone());
    }
    report.notes.extend(history.notes);
    Ok(())
}

fn left_out(order: &OrderRow, kind: Problem, why: String, remedy: &'static str) -> LeftOut {
    LeftOut { kind, what: What::Order, order: order.olist_id.clone(), why, remedy }
}
