//! The log as a file, and back: a line an event (`docs/wire.md`, "The export file").
//!
//! Positions are dense and events never change, so what is read up to a position is a snapshot, however long that takes.
//! Neither way holds more than a few pages of events at once.

mod cloud_event;
mod lines;
mod writer;

pub use writer::Writer;

use cloud_event::CloudEvent;
use lines::Batch;
use std::io::{self, Read};
use store::{Category, Import, Log, Position, ReadError};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the log is empty")]
    Empty,
    #[error("the log ends at position {head}")]
    Beyond { head: Position },
    #[error("the log has no event at position {0}")]
    Gap(Position),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Writes the events from position `from` to `to`, or to where the log ends now, and returns the last position.
/// `progress` is told each position, and the one to come to.
///
/// # Errors
/// When there are no such events, or the log cannot be read or the file not written.
pub async fn export(
    log: &Log,
    from: Position,
    to: Option<Position>,
    mut writer: Writer,
    mut progress: impl FnMut(Position, Position),
) -> Result<Position, ExportError> {
    let (log_id, head) = (log.identity().await?.log_id, log.head().await?);
    let to = to.unwrap_or(head);
    if head == 0 {
        return Err(ExportError::Empty);
    }
    if from > head || to > head {
        return Err(ExportError::Beyond { head });
    }
    let mut after = from - 1;
    let mut pages = log.scan(after, to);
    while let Some(page) = pages.next().await? {
        if let Some((position, _)) =
            (after + 1..).zip(&page.events).find(|(position, event)| event.position != *position)
        {
            return Err(ExportError::Gap(position));
        }
        after += page.events.len() as Position;
        let written = spawn_blocking(move || {
            page.events.iter().try_for_each(|event| writer.line(&CloudEvent::of(event, log_id, to)))?;
            Ok::<_, io::Error>(writer)
        });
        writer = written.await.map_err(io::Error::other)??;
        progress(after, to);
    }
    if after < to {
        return Err(ExportError::Gap(after + 1));
    }
    spawn_blocking(move || writer.finish()).await.map_err(io::Error::other)??;
    Ok(to)
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("it holds no events")]
    Empty,
    #[error("it begins at position {first}: a part of a log can only follow the parts before it")]
    Part { first: Position },
    #[error("line {line}: {why}")]
    Line { line: i64, why: String },
    #[error("it is cut off: it ends after position {last}, and was to go on to {announced}")]
    CutOff { last: Position, announced: Position },
    #[error("it cannot be read after line {line}: {source}")]
    Read { line: i64, source: io::Error },
    #[error(transparent)]
    Log(store::ImportError),
}

impl From<store::ImportError> for ImportError {
    fn from(error: store::ImportError) -> Self {
        match error {
            // The first line is position 1.
            store::ImportError::Refused { position, why } => Self::Line { line: position, why },
            store::ImportError::FromTheFuture { position, .. } => Self::Line { line: position, why: error.to_string() },
            error => Self::Log(error),
        }
    }
}

/// Fills the empty log of `url` from an export of streams of `categories`, and returns its last position: all of it, or nothing.
/// The projections `effects` begin after it, so that nothing is done a second time. `progress` is told each position, and the
/// one to come to.
///
/// # Errors
/// When the log is not empty, when the file is not whole or something in it is not as a log must be, or Postgres fails.
pub async fn import(
    url: &str,
    categories: &'static [Category],
    effects: &[&'static str],
    input: impl Read + Send + 'static,
    mut progress: impl FnMut(Position, Position),
) -> Result<Position, ImportError> {
    let mut import = Import::begin(url).await?;
    let (sender, mut batches) = mpsc::channel(2);
    // A thread that nobody waits for: it may be left reading from a pipe that nobody writes to.
    std::thread::spawn(move || {
        if let Err(e) = lines::read(input, categories, |batch| sender.blocking_send(Ok(batch)).is_ok()) {
            _ = sender.blocking_send(Err(e));
        }
    });
    let (mut last, mut announced) = (0, 0);
    while let Some(batch) = batches.recv().await {
        let Batch { events, announced: to } = batch?;
        if let Some(first) = events.first().map(|event| event.position).filter(|first| last == 0 && *first > 1) {
            return Err(ImportError::Part { first });
        }
        (last, announced) = (last + events.len() as Position, to);
        import.insert(events).await?;
        progress(last, announced);
    }
    match last {
        0 => Err(ImportError::Empty),
        last if last < announced => Err(ImportError::CutOff { last, announced }),
        _ => Ok(import.commit(effects).await?),
    }
}
