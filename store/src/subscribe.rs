//! A subscription to the log: the events after a position, and then the new ones.
//!
//! Positions are dense and in commit order, so there are no two modes to switch between: catching up and tailing both read
//! on from a position. A hint only saves the wait until the log is asked again.

use crate::event::RecordedEvent;
use crate::hash_chain::Mark;
use crate::read::{Log, Page, ReadError};
use crate::scan::Scan;
use crate::stream::count;
use crate::{Filter, Position};
use std::time::Duration;
use tokio::sync::watch;

/// How many events are asked for while the subscription is not far behind.
const PAGE: i64 = 500;
/// How long to wait for a hint before the log is asked again.
const POLL: Duration = Duration::from_millis(100);

/// Events after a position, in order, each once: see [`Log::subscribe`].
#[derive(Debug)]
pub struct Subscription {
    log: Log,
    filter: Filter,
    position: Position,
    /// The end of what was read, once something was.
    end: Option<Mark>,
    hint: watch::Receiver<Position>,
    /// Reads pages ahead while the subscription is far behind.
    behind: Option<Scan>,
}

impl Log {
    /// Subscribes to the events after `after` that match `filter`. `hint` changes when there may be more events, as
    /// [`Appender::head`](crate::Appender::head) does. Without hints, new events come up to a tenth of a second later.
    ///
    /// The caller remembers [`Subscription::position`], best in the transaction of what it makes of the events, and
    /// subscribes again from there: `examples/resume.rs` does.
    ///
    /// ```no_run
    /// # use daybook_store::{Appender, Category, Filter, Log};
    /// # async fn example(log: Log, appender: Appender) -> Result<(), Box<dyn std::error::Error>> {
    /// let filter = Filter { event_types: vec!["Added".into()], ..Filter::default() };
    /// let mut subscription = log.subscribe(0, filter, appender.head());
    /// loop {
    ///     for event in subscription.next().await? {
    ///         println!("{}: {}", event.position, event.stream);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn subscribe(&self, after: Position, filter: Filter, hint: watch::Receiver<Position>) -> Subscription {
        Subscription { log: self.clone(), filter, position: after, end: None, hint, behind: None }
    }
}

impl Subscription {
    /// The next events, at least one. It waits until there are any. The future may be dropped at any time; nothing is lost.
    ///
    /// # Errors
    /// When the log cannot be read: the next call goes on from the same position. [`ReadError::OtherHistory`] when the log no
    /// longer has the events that were returned before: subscribe again from what it has.
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

    /// The position up to which all matching events have been returned.
    pub fn position(&self) -> Position {
        self.position
    }

    async fn page(&mut self) -> Result<Vec<RecordedEvent>, ReadError> {
        if let Some(scan) = &mut self.behind {
            match scan.next().await {
                Ok(Some(page)) => return Ok(self.advance(page)),
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
        if count(page.events.len()) >= PAGE {
            self.behind = Some(self.log.scan_after(page.end));
        }
        Ok(self.advance(page))
    }

    fn advance(&mut self, page: Page) -> Vec<RecordedEvent> {
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
