//! The hash chain, told a second time: digests and links from the rows alone.

use super::Check;
use super::log::Row;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// 2000-01-01 in seconds of Unix time: Postgres counts microseconds from there.
const POSTGRES_EPOCH: i64 = 946_684_800;

/// The links of the log, in order of position.
pub(super) struct Chain {
    check: Check,
    /// Of the last group that is complete.
    link: Vec<u8>,
    /// What the next link is made of.
    group: Option<Group>,
}

struct Group {
    hash: Sha256,
    recorded_at: DateTime<Utc>,
    last: i64,
}

impl Default for Chain {
    fn default() -> Self {
        Self { check: Check::new("chain"), link: vec![0; 32], group: None }
    }
}

impl Chain {
    /// Takes the next event.
    pub(super) fn take(&mut self, row: &Row) {
        self.check.checked += 1;
        let position = row.position;
        let Self { check, link, group } = self;
        let open = group.get_or_insert_with(|| {
            let mut hash = Sha256::new_with_prefix(&*link);
            hash.update(position.to_be_bytes());
            hash.update(micros(row.recorded_at).to_be_bytes());
            Group { hash, recorded_at: row.recorded_at, last: position }
        });
        if open.recorded_at != row.recorded_at {
            check.differs(|| format!("the group of position {} has no link at its end", open.last));
            open.recorded_at = row.recorded_at;
        }
        open.hash.update(row.version.to_be_bytes());
        open.hash.update(digest(row));
        open.last = position;
        let Some(stored) = &row.link else { return };
        let folded = open.hash.clone().finalize();
        if folded[..] != stored[..] {
            check.differs(|| {
                format!("the link at position {position} does not follow from the events: one up to there was altered")
            });
        }
        // From what is stored: what comes later is not to blame.
        *link = stored.clone();
        *group = None;
    }

    pub(super) fn finish(mut self) -> Check {
        if let Some(Group { last, .. }) = self.group {
            self.check.differs(|| format!("the log ends at position {last} without a link"));
        }
        self.check
    }
}

fn digest(row: &Row) -> impl AsRef<[u8]> {
    let mut hash = Sha256::new();
    let mut field = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(-1, |bytes| bytes.len() as i32);
        hash.update(length.to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    field(row.category_name.as_deref().map(str::as_bytes));
    field(Some(row.stream_id.as_bytes()));
    field(Some(row.event_id.as_bytes()));
    field(Some(row.event_type.as_bytes()));
    field(Some(&row.schema_version.to_be_bytes()));
    field(Some(&row.origin.to_be_bytes()));
    field(Some(&micros(row.occurred_at).to_be_bytes()));
    field(Some(row.correlation_id.as_bytes()));
    field(row.causation_id.as_ref().map(|id| &id.as_bytes()[..]));
    field(Some(row.command_id.as_bytes()));
    field(Some(&row.fingerprint));
    field(Some(row.actor.as_bytes()));
    field(row.traceparent.as_deref().map(str::as_bytes));
    field(Some(row.payload.as_bytes()));
    hash.finalize()
}

fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros() - POSTGRES_EPOCH * 1_000_000
}
