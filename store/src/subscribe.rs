//! A subscription to the log: what there is after a position, and then what comes.
//!
//! Positions are dense and in commit order, so there is nothing to switch between: catching up and waiting read on from
//! the same position. A hint only saves the wait for the next look.

use crate::chain::Mark;
use crate::event::RecordedEvent;
use crate::read::{Log, Page, ReadError};
use crate::scan::Scan;
use crate::{Filter, Position};
use std::time::Duration;
use tokio::sync::watch;

/// How many events a page has at most while nothing is behind.
const PAGE: i64 = 500;
/// How long to wait for a hint before looking.
const POLL: Duration = Duration::from_millis(100);

/// Events after a position, in order, each once.
#[derive(Debug)]
pub struct Subscription {
    log: Log,
    filter: Filter,
    position: Position,
    /// The same with its link, once something was read.
    end: Option<Mark>,
    hint: watch::Receiver<Position>,
    /// Pages that are being read ahead, while it is far behind.
    behind: Option<Scan>,
}

impl Log {
    /// Subscribes to the events after `after` that `filter` lets through. `hint` changes when there may be more, as
    /// [`Appender::head`](crate::Appender::head) does; one that never changes, or has ended, costs a tenth of a second.
    pub fn subscribe(&self, after: Position, filter: Filter, hint: watch::Receiver<Position>) -> Subscription {
        Subscription { log: self.clone(), filter, position: after, end: None, hint, behind: None }
    }
}

impl Subscription {
    /// The next events, one or more; waits until there are any. It may be dropped at any time, and nothing is lost.
    ///
    /// # Errors
    /// When the log cannot be read: the next call goes on where this one would have. When the log has gone on from an older
    /// state than was returned: then it must be subscribed to anew.
    pub async fn next(&mut self) -> Result<Vec<RecordedEvent>, ReadError> {
        loop {
            self.hint.mark_unchanged();
            let page = self.page().await?;
            match page.last() {
                Some(last) => self.position = last.position,
                None => self.wait().await,
            }
            let wanted: Vec<_> = page.into_iter().filter(|event| self.filter.matches(event)).collect();
            if !wanted.is_empty() {
                return Ok(wanted);
            }
        }
    }

    /// All events up to it have been returned, or were not let through.
    pub fn position(&self) -> Position {
        self.position
    }

    async fn page(&mut self) -> Result<Vec<RecordedEvent>, ReadError> {
        if let Some(scan) = &mut self.behind {
            match scan.next().await {
                Ok(Some(page)) => return Ok(self.come_to(page)),
                Ok(None) => self.behind = None,
                Err(e) => {
                    self.behind = None;
                    return Err(e);
                }
            }
        }
        let page = match self.end {
            Some(end) => self.log.read_after(end, PAGE).await?,
            None => self.log.read_groups(self.position, PAGE).await?,
        };
        let Some(page) = page else { return Ok(vec![]) };
        if page.events.len() >= PAGE as usize {
            self.behind = Some(self.log.scan_after(page.end));
        }
        Ok(self.come_to(page))
    }

    fn come_to(&mut self, page: Page) -> Vec<RecordedEvent> {
        self.end = Some(page.end);
        page.events
    }

    async fn wait(&mut self) {
        let hinted = async {
            if self.hint.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        _ = tokio::time::timeout(POLL, hinted).await;
    }
}
