//! Events as they come to projections.

use crate::Domain;
use std::sync::Arc;
use store::{Mark, RecordedEvent};

/// An event of the log, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<D: Domain> {
    pub record: RecordedEvent,
    pub event: D::Event,
}

/// An event as it comes to a projection.
#[derive(Debug, Clone)]
pub enum Delivered<D: Domain> {
    Event(Arc<Recorded<D>>),
    /// It has not the shape of its type.
    Unreadable {
        record: Arc<RecordedEvent>,
        cause: String,
    },
    /// Another domain's: it was not decoded.
    Foreign(Arc<RecordedEvent>),
}

impl<D: Domain> Delivered<D> {
    pub fn record(&self) -> &RecordedEvent {
        match self {
            Self::Event(event) => &event.record,
            Self::Unreadable { record, .. } | Self::Foreign(record) => record,
        }
    }

    /// The event, if it is the domain's and can be read.
    pub fn event(&self) -> Option<&Recorded<D>> {
        match self {
            Self::Event(event) => Some(event),
            Self::Unreadable { .. } | Self::Foreign(_) => None,
        }
    }
}

/// Consecutive events, or those of them that matter, and the proof that they are the log's.
#[derive(Debug, Clone)]
pub struct Batch<D: Domain> {
    pub events: Vec<Delivered<D>>,
    /// A mark at or after the last of them: a log that has it has them all.
    pub proof: Mark,
}
