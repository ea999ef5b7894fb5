//! A subscription to what the process's feed brings: decoded events after a position, first from the log as far as the
//! feed does not reach back, then as they come from JetStream.

use crate::feed::{FeedError, Reader};
use engine::{Delivered, Domain};
use store::{Filter, Mark, Position};

/// How many events are looked at at a time.
const PAGE: usize = 500;

/// Events after a position, in order, each once.
pub struct Subscription<D: Domain> {
    reader: Reader<D>,
    filter: Filter,
    position: Position,
    /// Of what was returned.
    proof: Option<Mark>,
}

impl<D: Domain> Subscription<D> {
    /// Subscribes to the events after `after` that `filter` lets through. The feed has to be stepped by somebody.
    pub fn new(reader: Reader<D>, after: Position, filter: Filter) -> Self {
        Self { reader, filter, position: after, proof: None }
    }

    /// The next events, one or more; waits until there are any. It may be dropped at any time, and nothing is lost.
    ///
    /// # Errors
    /// When it is further behind than the feed reaches back, and the log cannot be read. The next call goes on where
    /// this one would have.
    pub async fn next(&mut self) -> Result<Vec<Delivered<D>>, FeedError> {
        loop {
            let Some(mut batch) = self.reader.next(self.position, PAGE).await? else {
                self.reader.grown().await;
                continue;
            };
            if let Some(proof) = self.proof
                && !self.reader.has(proof).await?
            {
                return Err(FeedError::OtherHistory);
            }
            if !self.reader.has(batch.proof).await? {
                continue;
            }
            self.proof = Some(batch.proof);
            if let Some(last) = batch.events.last() {
                self.position = last.record().position;
            }
            batch.events.retain(|one| self.filter.matches(one.record()));
            if !batch.events.is_empty() {
                return Ok(batch.events);
            }
        }
    }

    /// All events up to it have been returned, or were not let through.
    pub fn position(&self) -> Position {
        self.position
    }
}
