//! Much of the log, in order, with bounded memory.

use crate::Position;
use crate::chain::Mark;
use crate::read::{Log, Page, ReadError};
use tokio::sync::mpsc;

/// How many events a page has at least, even if they are large.
const LEAST: i64 = 50;
/// What the payloads of a page are to come to, in bytes; the pages that follow a larger one are shorter.
const BYTES: i64 = 4 * 1024 * 1024;

/// Pages of events, one after the other, of one history. Two at most are held that were not taken yet; reading ends when it
/// is dropped.
#[derive(Debug)]
pub struct Scan {
    pages: mpsc::Receiver<Result<Page, ReadError>>,
}

/// What the first page follows. Each other one follows the end of the one before.
pub(crate) enum From {
    Position(Position),
    Mark(Mark),
}

impl Scan {
    /// How many events a page has at most, but for the rest of the last one's group.
    pub const MOST: i64 = 5000;

    pub(crate) fn start(log: Log, from: From, to: Position) -> Self {
        let (sender, pages) = mpsc::channel(1);
        tokio::spawn(async move {
            let (mut from, mut limit) = (from, Self::MOST);
            loop {
                let page = match from {
                    From::Position(after) if after >= to => return,
                    From::Mark(mark) if mark.position >= to => return,
                    From::Position(after) => log.read_groups(after, limit.min(to - after)).await,
                    From::Mark(mark) => log.read_after(mark, limit.min(to - mark.position)).await,
                };
                let page = match page {
                    Ok(Some(page)) => Ok(page),
                    Ok(None) => return,
                    Err(e) => Err(e),
                };
                let page = page.map(|page| {
                    from = From::Mark(page.end);
                    let bytes: usize = page.events.iter().map(|event| event.payload.len()).sum();
                    limit = (page.events.len() as i64 * BYTES / (bytes as i64).max(1)).clamp(LEAST, Self::MOST);
                    page.up_to(to)
                });
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
    /// When the log cannot be read, or has another history than the pages before. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<Page>, ReadError> {
        self.pages.recv().await.transpose()
    }
}

impl Page {
    fn up_to(mut self, to: Position) -> Self {
        self.events.truncate(self.events.partition_point(|event| event.position <= to));
        self
    }
}
