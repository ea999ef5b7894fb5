//! What an appender knows of the log from what it wrote itself, which saves the log a look for each stream.

use crate::chain::Mark;
use crate::group::Group;
use crate::{Append, AppendError, Appended, Position, StreamId, Version};
use std::collections::HashMap;

/// The versions of the streams that this process wrote to last, while it is the only one that writes.
#[derive(Default)]
pub(crate) struct Known {
    /// The end of the log after the last group. Every event since `versions` was begun is this process's own.
    end: Option<Mark>,
    /// Nobody else has written between the last two groups.
    is_alone: bool,
    versions: HashMap<StreamId, Version>,
}

/// How many streams' versions are known at most.
const KNOWN_STREAMS: usize = 200_000;

impl Known {
    /// The mark of `seen` at which all versions that the group claims are known to fit, if the log ends there.
    pub(crate) fn vouches_for(&self, group: &Group, seen: &[Mark]) -> Option<Mark> {
        // Of a stream that does not exist, the first version is always the next one; if it does, a constraint says so.
        let fits = |(stream, claim): &(StreamId, Version)| *claim == 0 || self.versions.get(stream) == Some(claim);
        let end = self.end.filter(|end| seen.contains(end))?;
        group.claims()?.iter().all(fits).then_some(end)
    }

    /// Whether the next group is likely to follow on the last one.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Notes what came of a group, after which the log ended at `end`.
    pub(crate) fn note(&mut self, appends: &[Append], outcomes: &[Result<Appended, AppendError>], end: Mark) {
        let events = |append: &Append| append.streams.iter().map(|s| s.events.len()).sum::<usize>() as Position;
        let written = || appends.iter().zip(outcomes).filter_map(|(append, o)| Some((append, o.as_ref().ok()?)));
        let count: Position = written().map(|(append, _)| events(append)).sum();
        self.is_alone = self.end.is_some_and(|before| before.position + count == end.position);
        if !self.is_alone || self.versions.len() > KNOWN_STREAMS {
            // Somebody else has written in between, to any stream.
            self.versions.clear();
        }
        self.end = Some(end);
        for (append, appended) in written() {
            let versions = append.streams.iter().zip(&appended.versions);
            self.versions
                .extend(versions.filter(|(s, _)| !s.events.is_empty()).map(|(s, version)| (s.stream, *version)));
        }
    }
}
