//! What is written together, who waits for what comes of it, and what builds on what.

use crate::group::Group;
use crate::{Append, AppendError, Appended, Chain};
use std::collections::HashSet;
use tokio::sync::oneshot;

pub(crate) type Outcome = Result<Appended, AppendError>;

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) append: Append,
    /// As many as the append has streams; or none.
    pub(crate) chains: Vec<Chain>,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// Appends that are written together, and who waits for what comes of each.
#[derive(Default)]
pub(crate) struct Batch {
    group: Group,
    /// Of each append.
    chains: Vec<Vec<Chain>>,
    replies: Vec<oneshot::Sender<Outcome>>,
}

impl Batch {
    pub(crate) fn of(waiting: Waiting) -> Self {
        let mut batch = Self::default();
        batch.add(waiting);
        batch
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    pub(crate) fn len(&self) -> usize {
        self.replies.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    pub(crate) fn add(&mut self, Waiting { append, chains, reply }: Waiting) {
        self.group.add(append, &chains);
        self.chains.push(chains);
        self.replies.push(reply);
    }

    pub(crate) fn has_room_for(&self, next: &Waiting) -> bool {
        self.group.has_room_for(&next.append) && !self.bears(next)
    }

    /// Whether it writes to a stream that the next one was decided on, and that one only to others: in one call, nothing
    /// would tie that to this.
    fn bears(&self, next: &Waiting) -> bool {
        let is_continued = |chain: &Chain| {
            let mut batch = self.group.appends().iter().zip(&self.chains);
            batch.any(|(append, chains)| continued(append, chains).any(|other| other.key() == chain.key()))
        };
        let mut chained = next.append.streams.iter().zip(&next.chains);
        continued(&next.append, &next.chains).next().is_some()
            && chained.any(|(to, chain)| to.events.is_empty() && is_continued(chain))
    }

    pub(crate) fn into_waiting(self) -> impl Iterator<Item = Waiting> {
        let batch = self.group.into_appends().into_iter().zip(self.chains).zip(self.replies);
        batch.map(|((append, chains), reply)| Waiting { append, chains, reply })
    }

    /// Takes those out that were decided on what was not written. They are to be answered after the others: their own
    /// events were something to build on, too, but not for those before them.
    pub(crate) fn founded(self) -> (Self, Vec<Waiting>) {
        if !self.chains.iter().flatten().any(Chain::is_broken) {
            return (self, vec![]);
        }
        let (mut batch, mut unfounded, mut unwritten) = (Self::default(), Vec::new(), HashSet::new());
        for waiting in self.into_waiting() {
            if waiting.chains.iter().any(|chain| chain.is_broken() || unwritten.contains(&chain.key())) {
                unwritten.extend(continued(&waiting.append, &waiting.chains).map(Chain::key));
                unfounded.push(waiting);
            } else {
                batch.add(waiting);
            }
        }
        (batch, unfounded)
    }

    /// What each is answered, after what came of it.
    pub(crate) fn settled(self, outcomes: Vec<Outcome>) -> Answers {
        let appends = self.group.appends().iter().zip(&self.chains).zip(outcomes);
        let outcomes = appends.map(|((append, chains), outcome)| settled(append, chains, outcome));
        Answers(self.replies.into_iter().zip(outcomes).collect())
    }

    /// All that wait are refused.
    pub(crate) fn refused(self, error: &AppendError) -> Answers {
        let outcomes = vec![Err(error.clone()); self.len()];
        self.settled(outcomes)
    }
}

/// Of an append's chains, those that it adds to.
fn continued<'a>(append: &'a Append, chains: &'a [Chain]) -> impl Iterator<Item = &'a Chain> {
    append.streams.iter().zip(chains).filter(|(to, _)| !to.events.is_empty()).map(|(_, chain)| chain)
}

/// What an append is answered, in view of what came of those before it. If it was not written, no later one that was
/// decided on what it was to write is.
fn settled(append: &Append, chains: &[Chain], outcome: Outcome) -> Outcome {
    // Of events that were decided on what was refused, append_group writes none. But what is merely expected may be so,
    // by another's events.
    let outcome = if chains.iter().any(Chain::is_broken) { Err(AppendError::Unfounded) } else { outcome };
    if let Err(error) = &outcome {
        continued(append, chains).for_each(Chain::cut);
        if let AppendError::VersionConflict { stream, .. } = error {
            let behind = append.streams.iter().zip(chains).filter(|(to, _)| to.stream == *stream);
            behind.for_each(|(_, chain)| chain.overtake());
        }
    }
    outcome
}

/// What came of the appends of a batch, to be told to who waits for it.
#[derive(Default)]
pub(crate) struct Answers(Vec<(oneshot::Sender<Outcome>, Outcome)>);

impl Answers {
    /// Answers those that were not tried, for they were decided on what was not written.
    pub(crate) fn and_unfounded(mut self, unfounded: Vec<Waiting>) -> Self {
        let answered = |Waiting { append, chains, reply }: Waiting| {
            (reply, settled(&append, &chains, Err(AppendError::Unfounded)))
        };
        self.0.extend(unfounded.into_iter().map(answered));
        self
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(crate) fn tell(&mut self) {
        for (reply, outcome) in self.0.drain(..) {
            _ = reply.send(outcome);
        }
    }
}
