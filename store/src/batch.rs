//! What is written together, who waits for what comes of it, and what builds on what.

use crate::group::{Group, Prepared};
use crate::{Append, AppendError, Appended, Speculation};
use std::collections::HashSet;
use tokio::sync::oneshot;

pub(crate) type Outcome = Result<Appended, AppendError>;

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) append: Prepared,
    /// As many as the append has streams; or none.
    pub(crate) speculations: Vec<Speculation>,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// Appends that are written together, and who waits for what comes of each.
#[derive(Default)]
pub(crate) struct Batch {
    group: Group,
    /// Of each append.
    speculations: Vec<Vec<Speculation>>,
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

    pub(crate) fn add(&mut self, Waiting { append, speculations, reply }: Waiting) {
        self.group.add(append, &speculations);
        self.speculations.push(speculations);
        self.replies.push(reply);
    }

    pub(crate) fn has_room_for(&self, next: &Waiting) -> bool {
        self.group.has_room_for(next.append.as_ref()) && !self.bears(next)
    }

    /// Whether it writes to a stream that the next one was decided on, and that one only to others: in one call, nothing
    /// would tie that to this.
    fn bears(&self, next: &Waiting) -> bool {
        let is_continued = |speculation: &Speculation| {
            let mut batch = self.group.appends().iter().zip(&self.speculations);
            batch.any(|(append, speculations)| {
                continued(append, speculations).any(|other| other.key() == speculation.key())
            })
        };
        let append = next.append.as_ref();
        let mut speculative = append.streams.iter().zip(&next.speculations);
        continued(append, &next.speculations).next().is_some()
            && speculative.any(|(to, speculation)| to.events.is_empty() && is_continued(speculation))
    }

    pub(crate) fn into_waiting(self) -> impl Iterator<Item = Waiting> {
        let batch = self.group.into_appends().into_iter().zip(self.speculations).zip(self.replies);
        batch.map(|((append, speculations), reply)| Waiting { append: Prepared::new(append), speculations, reply })
    }

    /// Takes those out that were decided on what was not written, or is no longer in the log. They are to be answered after
    /// the others: their own events were something to build on, too, but not for those before them.
    pub(crate) fn without_aborted(self) -> (Self, Vec<Waiting>) {
        if !self.speculations.iter().flatten().any(Speculation::is_aborted) {
            return (self, vec![]);
        }
        let (mut batch, mut aborted, mut unwritten) = (Self::default(), Vec::new(), HashSet::new());
        for waiting in self.into_waiting() {
            if waiting
                .speculations
                .iter()
                .any(|speculation| speculation.is_aborted() || unwritten.contains(&speculation.key()))
            {
                unwritten.extend(continued(waiting.append.as_ref(), &waiting.speculations).map(Speculation::key));
                aborted.push(waiting);
            } else {
                batch.add(waiting);
            }
        }
        (batch, aborted)
    }

    /// What each is answered, after what came of it.
    pub(crate) fn settled(self, outcomes: Vec<Outcome>) -> Answers {
        let appends = self.group.appends().iter().zip(&self.speculations).zip(outcomes);
        let outcomes = appends.map(|((append, speculations), outcome)| settled(append, speculations, outcome));
        Answers(self.replies.into_iter().zip(outcomes).collect())
    }

    /// All that wait are refused.
    pub(crate) fn refused(self, error: &AppendError) -> Answers {
        let outcomes = vec![Err(error.clone()); self.len()];
        self.settled(outcomes)
    }
}

/// Of an append's speculations, those that it adds to.
fn continued<'a>(append: &'a Append, speculations: &'a [Speculation]) -> impl Iterator<Item = &'a Speculation> {
    append.streams.iter().zip(speculations).filter(|(to, _)| !to.events.is_empty()).map(|(_, speculation)| speculation)
}

/// What an append is answered, in view of what came of those before it. If it was not written, no later one that was
/// decided on what it was to write is.
fn settled(append: &Append, speculations: &[Speculation], outcome: Outcome) -> Outcome {
    // Of events that were decided on what was refused, append_group writes none. But what is merely expected may be so,
    // by another's events.
    let outcome =
        if speculations.iter().any(Speculation::is_aborted) { Err(AppendError::DependencyAborted) } else { outcome };
    if let Err(error) = &outcome {
        continued(append, speculations).for_each(Speculation::abort);
        if let AppendError::VersionConflict { stream, .. } = error {
            let behind = append.streams.iter().zip(speculations).filter(|(to, _)| to.stream == *stream);
            behind.for_each(|(_, speculation)| speculation.lose_race());
        }
    }
    outcome
}

/// What came of the appends of a batch, to be told to who waits for it.
#[derive(Default)]
pub(crate) struct Answers(Vec<(oneshot::Sender<Outcome>, Outcome)>);

impl Answers {
    /// Answers those that were not tried, for they were decided on what was not written.
    pub(crate) fn and_aborted(mut self, aborted: Vec<Waiting>) -> Self {
        let answered = |Waiting { append, speculations, reply }: Waiting| {
            (reply, settled(append.as_ref(), &speculations, Err(AppendError::DependencyAborted)))
        };
        self.0.extend(aborted.into_iter().map(answered));
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
