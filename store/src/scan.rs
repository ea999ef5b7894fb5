//! Much of the log, in order, with bounded memory.

use crate::Position;
use crate::hash_chain::Mark;
use crate::read::{Log, Page, ReadError};
use crate::stream::count;
use tokio::sync::mpsc;

/// How many events a page has at least, even if they are large.
const LEAST: i64 = 50;
/// How many bytes the payloads of a page should have. After a larger page, the next ones have fewer events.
const BYTES: i64 = 4 * 1024 * 1024;

/// Pages of events of one history, one after the other: see [`Log::scan`]. At most two pages wait in memory. Reading ends when
/// it is dropped.
#[derive(Debug)]
pub struct Scan {
    pages: mpsc::Receiver<Result<Page, ReadError>>,
}

/// Where the first page begins. Each other page follows the end of the one before.
pub(crate) enum From {
    Position(Position),
    Mark(Mark),
}

impl Scan {
    /// How many events a page has at most, not counting the rest of the last one's group.
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
                    limit = (count(page.events.len()) * BYTES / count(bytes).max(1)).clamp(LEAST, Self::MOST);
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
