//! The versions of streams that an appender knows because it wrote them: they save the database a lookup for each stream.

use crate::group::Group;
use crate::hash_chain::Mark;
use crate::stream::count;
use crate::{Append, AppendError, Appended, Position, StreamId, Version};
use std::collections::HashMap;

/// The versions of the streams that this process wrote to last, while it is the only one that writes.
#[derive(Default)]
pub(crate) struct VersionCache {
    /// The end of the log after the last group. Every event since `versions` was begun is this process's own.
    end: Option<Mark>,
    /// No other process has written between the last two groups.
    is_alone: bool,
    versions: HashMap<StreamId, Version>,
}

/// How many streams it has room for.
const MAX_STREAMS: usize = 200_000;

impl VersionCache {
    /// The mark of `seen` that confirms all versions which the group claims, provided that the log still ends there.
    pub(crate) fn confirms(&self, group: &Group, seen: &[Mark]) -> Option<Mark> {
        // A claim that a stream does not exist needs no lookup: if it does, a constraint refuses the insert.
        let fits = |(stream, claim): &(StreamId, Version)| *claim == 0 || self.versions.get(stream) == Some(claim);
        let end = self.end.filter(|end| seen.contains(end))?;
        group.claims()?.iter().all(fits).then_some(end)
    }

    /// Whether the next group is likely to follow on the last one.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Notes the outcomes of a group, after which the log ended at `end`.
    pub(crate) fn note(&mut self, appends: &[Append], outcomes: &[Result<Appended, AppendError>], end: Mark) {
        debug_assert_eq!(appends.len(), outcomes.len(), "an outcome for each append");
        let events = |append: &Append| append.streams.iter().map(|s| count(s.events.len())).sum::<i64>();
        let written = || appends.iter().zip(outcomes).filter_map(|(append, o)| Some((append, o.as_ref().ok()?)));
        let count: Position = written().map(|(append, _)| events(append)).sum();
        self.is_alone = self.end.is_some_and(|before| before.position + count == end.position);
        if !self.is_alone || self.versions.len() > MAX_STREAMS {
            // Another process has written in between, to whatever stream.
            self.versions.clear();
        }
        self.end = Some(end);
        for (append, appended) in written() {
            debug_assert_eq!(append.streams.len(), appended.versions.len(), "a version for each stream");
            let versions = append.streams.iter().zip(&appended.versions);
            self.versions
                .extend(versions.filter(|(s, _)| !s.events.is_empty()).map(|(s, version)| (s.stream, *version)));
        }
    }
}
