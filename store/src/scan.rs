//! Much of the log, in order, with bounded memory.

use crate::Position;
use crate::event::RecordedEvent;
use crate::read::{Log, ReadError};
use tokio::sync::mpsc;

/// How many events a page has at least, even if they are large.
const LEAST: i64 = 50;
/// What the payloads of a page are to come to, in bytes; the pages that follow a larger one are shorter.
const BYTES: i64 = 4 * 1024 * 1024;

/// Pages of events, one after the other. Two at most are held that were not taken yet; reading ends when it is dropped.
#[derive(Debug)]
pub struct Scan {
    pages: mpsc::Receiver<Result<Vec<RecordedEvent>, ReadError>>,
}

impl Scan {
    /// How many events a page has at most.
    pub const MOST: i64 = 5000;

    pub(crate) fn start(log: Log, after: Position, to: Position) -> Self {
        let (sender, pages) = mpsc::channel(1);
        tokio::spawn(async move {
            let (mut after, mut limit) = (after, Self::MOST);
            while after < to {
                let page = log.read_all(after, limit.min(to - after)).await;
                if let Ok(page) = &page {
                    let Some(last) = page.last() else { return };
                    after = last.position;
                    let bytes: usize = page.iter().map(|event| event.payload.len()).sum();
                    limit = (page.len() as i64 * BYTES / (bytes as i64).max(1)).clamp(LEAST, Self::MOST);
                }
                let failed = page.is_err();
                if sender.send(page).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { pages }
    }

    /// The next page; `None` after the last.
    ///
    /// # Errors
    /// When the log cannot be read. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<Vec<RecordedEvent>>, ReadError> {
        self.pages.recv().await.transpose()
    }
}
