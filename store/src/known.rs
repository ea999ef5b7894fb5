//! What an appender knows of the log from what it wrote itself, which saves the log a look for each stream.

use crate::group::Group;
use crate::{Append, AppendError, Appended, Position, StreamId, Version};
use std::collections::HashMap;

/// The versions of the streams that this process wrote to last, while it is the only one that writes.
#[derive(Default)]
pub(crate) struct Known {
    /// The end of the log after the last group. Every event since `versions` was begun is this process's own.
    head: Position,
    versions: HashMap<StreamId, Version>,
}

/// How many streams' versions are known at most.
const KNOWN_STREAMS: usize = 200_000;

impl Known {
    /// The head of the log at which all versions that the group claims are known to fit, if there is one.
    pub(crate) fn vouches_for(&self, group: &Group) -> Option<Position> {
        self.fits(group).then_some(self.head)
    }

    fn fits(&self, group: &Group) -> bool {
        // Of a stream that does not exist, the first version is always the next one; if it does, a constraint says so.
        let fits = |(stream, claim): &(StreamId, Version)| *claim == 0 || self.versions.get(stream) == Some(claim);
        group.claims().is_some_and(|claims| claims.iter().all(fits))
    }

    pub(crate) fn take_in(&mut self, appends: &[Append], outcomes: &[Result<Appended, AppendError>]) {
        let written =
            appends.iter().zip(outcomes).filter_map(|(append, outcome)| Some((append, outcome.as_ref().ok()?)));
        let written: Vec<_> =
            written.filter(|(append, _)| append.streams.iter().any(|s| !s.events.is_empty())).collect();
        let Some((append, appended)) = written.first() else { return };
        let events: usize = append.streams.iter().map(|s| s.events.len()).sum();
        if appended.position - events as Position != self.head || self.versions.len() > KNOWN_STREAMS {
            // Somebody else has written in between, to any stream.
            self.versions.clear();
        }
        for (append, appended) in written {
            self.head = appended.position;
            let versions = append.streams.iter().zip(&appended.versions);
            self.versions
                .extend(versions.filter(|(s, _)| !s.events.is_empty()).map(|(s, version)| (s.stream, *version)));
        }
    }
}
