//! Read models, follow-ups and timers, folded from the log.
//!
//! A read model can be thrown away and rebuilt: [`ReadModel`] is all that a replay can name. Follow-ups and timers
//! are acts to come, and no read models: nothing can replay them.

pub mod apply;
pub mod event_index;
pub mod follow_up;
pub mod order_summary;
pub mod stock_level;
pub mod timer;

use domain::Event;
use store::RecordedEvent;

/// An event of the log, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub record: RecordedEvent,
    pub event: Event,
}

/// What two generations of a read model have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// The rows of the new one.
    pub rows: i64,
    /// The rows that only one of the two has, or has so: a row that is otherwise counts twice.
    pub differences: i64,
}

/// The read models. A new one is a variant here, a migration, a file and a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadModel {
    OrderSummary,
    StockLevel,
    EventIndex,
}

impl ReadModel {
    pub const ALL: [Self; 3] = [Self::OrderSummary, Self::StockLevel, Self::EventIndex];

    /// The name of its table, and of its checkpoint.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OrderSummary => "order_summary",
            Self::StockLevel => "stock_level",
            Self::EventIndex => "event_index",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.name() == name)
    }
}

/// All that is folded from the log, each with a checkpoint of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Projection {
    ReadModel(ReadModel),
    FollowUps,
    Timers,
}

impl Projection {
    pub const ALL: [Self; 5] = [
        Self::ReadModel(ReadModel::OrderSummary),
        Self::ReadModel(ReadModel::StockLevel),
        Self::ReadModel(ReadModel::EventIndex),
        Self::FollowUps,
        Self::Timers,
    ];

    /// Those whose rows are acts to come: nothing of them may be done a second time, elsewhere.
    pub const ACTS: [&'static str; 2] = [Self::FollowUps.name(), Self::Timers.name()];

    /// The name of its checkpoint, and of its lease.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadModel(model) => model.name(),
            Self::FollowUps => "follow_ups",
            Self::Timers => "timers",
        }
    }
}
