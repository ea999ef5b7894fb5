//! The appends that are written in one call: who waits for each outcome, and which depend on others.

use crate::group::{Group, Prepared};
use crate::{Append, AppendError, Appended, Speculation};
use std::collections::HashSet;
use tokio::sync::oneshot;

pub(crate) type Outcome = Result<Appended, AppendError>;

/// An append, and the caller that waits for its outcome.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) append: Prepared,
    /// As many as the append has streams, or none.
    pub(crate) speculations: Vec<Speculation>,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// Appends that are written in one call, with the caller of each.
#[derive(Default)]
pub(crate) struct Batch {
    group: Group,
    /// One list for each append.
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
        debug_assert_eq!(self.group.appends().len(), self.replies.len(), "a reply for each append");
    }

    pub(crate) fn has_room_for(&self, next: &Waiting) -> bool {
        self.group.has_room_for(next.append.as_ref()) && !self.is_only_read_by(next)
    }

    /// Whether `next` writes, and only reads a stream that this batch writes to. The two must not share a call: within one,
    /// nothing would make `next` depend on the outcome of this batch.
    fn is_only_read_by(&self, next: &Waiting) -> bool {
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

    /// Splits off the appends that were decided on what was not written or is no longer in the log. They have to be answered
    /// after the rest: later appends may depend on theirs, and earlier ones cannot.
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

    /// The answer to each append, by its outcome.
    pub(crate) fn settled(self, outcomes: Vec<Outcome>) -> Answers {
        debug_assert_eq!(self.len(), outcomes.len(), "an outcome for each append");
        let appends = self.group.appends().iter().zip(&self.speculations).zip(outcomes);
        let outcomes = appends.map(|((append, speculations), outcome)| settled(append, speculations, outcome));
        Answers(self.replies.into_iter().zip(outcomes).collect())
    }

    /// The same error for all.
    pub(crate) fn refused(self, error: &AppendError) -> Answers {
        let outcomes = vec![Err(error.clone()); self.len()];
        self.settled(outcomes)
    }
}

/// Those of an append's speculations that it adds events to.
fn continued<'a>(append: &'a Append, speculations: &'a [Speculation]) -> impl Iterator<Item = &'a Speculation> {
    debug_assert!(
        speculations.is_empty() || speculations.len() == append.streams.len(),
        "one for each stream, or none"
    );
    append.streams.iter().zip(speculations).filter(|(to, _)| !to.events.is_empty()).map(|(_, speculation)| speculation)
}

/// The answer to an append, after the outcomes of those before it. If it was not written, its speculations are aborted:
/// no later append that was decided on it is written either.
fn settled(append: &Append, speculations: &[Speculation], outcome: Outcome) -> Outcome {
    // append_group writes no events that were decided on refused ones. But an append without events may find its expectations
    // met by another process's events.
    let outcome =
        if speculations.iter().any(Speculation::is_aborted) { Err(AppendError::DependencyAborted) } else { outcome };
    if let Err(error) = &outcome {
        continued(append, speculations).for_each(Speculation::abort);
        if let AppendError::VersionConflict { stream, .. } = error {
            let lost = append.streams.iter().zip(speculations).filter(|(to, _)| to.stream == *stream);
            lost.for_each(|(_, speculation)| speculation.lose_race());
        }
    }
    outcome
}

/// Outcomes, each with the caller that it is for.
#[derive(Default)]
pub(crate) struct Answers(Vec<(oneshot::Sender<Outcome>, Outcome)>);

impl Answers {
    /// Adds the appends that were not tried because what they were decided on was not written.
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
