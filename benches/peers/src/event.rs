//! The event that every library records, as each of them wants it described: about 250 bytes of JSON.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of the aggregate's type, where a library stores one.
pub const AGGREGATE: &str = "note";

/// Fills the JSON up to 250 bytes.
const TEXT: &str = "The goods were left with the neighbour on the second floor, who has signed for them and asks to be called \
                    before the next parcel is brought, at whatever time of day.";

/// `stream_id` is in the payload because disintegrate finds a stream's events by a field of theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, disintegrate::Event)]
pub enum NoteEvent {
    Noted {
        #[id]
        stream_id: Uuid,
        /// 1, 2, 3 … in its stream: what `main.rs` checks after the last run.
        number: u32,
        text: String,
    },
}

impl NoteEvent {
    /// What every command decides on a stream that has `notes` events.
    pub fn after(notes: u32, stream_id: Uuid) -> Self {
        Self::Noted { stream_id, number: notes + 1, text: TEXT.to_owned() }
    }
}

impl cqrs_es::DomainEvent for NoteEvent {
    fn event_type(&self) -> String {
        "Noted".to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}
