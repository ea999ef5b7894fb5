//! Read models, follow-ups and timers, folded from the log.
//!
//! A read model can be thrown away and rebuilt: [`ReadModel`] is all that a replay can name. Follow-ups and timers
//! are acts to come, and no read models: nothing can replay them.

pub mod apply;
pub mod dead_letter;
pub mod distribution;
pub mod event_index;
pub mod follow_up;
pub mod fulfilment;
mod generation;
pub mod order_history;
pub mod order_summary;
pub mod parked;
pub mod rebuild;
pub mod revenue;
mod row;
pub mod schema;
pub mod status;
pub mod stock_level;
pub mod timer;
pub mod waiting;

pub use generation::{Comparison, Difference};

use domain::Event;
use parked::KeyedBy;
use row::Row;
use sqlx::PgConnection;
use std::sync::Arc;
use store::{Mark, RecordedEvent};

/// The domain whose events these are. Follow-ups and timers bear its name: another domain on the log has its own.
pub const DOMAIN: &str = "orders";

/// An event of the log, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub record: RecordedEvent,
    pub event: Event,
}

/// An event as it comes to a projection.
#[derive(Debug, Clone)]
pub enum Delivered {
    Event(Arc<Recorded>),
    /// It has not the shape of its type.
    Unreadable {
        record: Arc<RecordedEvent>,
        cause: String,
    },
}

impl Delivered {
    pub fn record(&self) -> &RecordedEvent {
        match self {
            Self::Event(event) => &event.record,
            Self::Unreadable { record, .. } => record,
        }
    }

    /// The event, if it can be read.
    pub fn event(&self) -> Option<&Recorded> {
        match self {
            Self::Event(event) => Some(event),
            Self::Unreadable { .. } => None,
        }
    }
}

/// Consecutive events, or those of them that matter, and the proof that they are the log's.
#[derive(Debug, Clone)]
pub struct Batch {
    pub events: Vec<Delivered>,
    /// A mark at or after the last of them: a log that has it has them all.
    pub proof: Mark,
}

/// Declares the read models: for each a name, and the type of its rows.
macro_rules! read_models {
    ($($name:ident($row:ty),)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ReadModel { $($name),+ }

        impl ReadModel {
            pub const ALL: [Self; [$(stringify!($name)),+].len()] = [$(Self::$name),+];

            /// The name of its table, and of its checkpoint.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => <$row as Row>::NAME),+ }
            }

            /// The name of the lease of whoever replays it.
            pub const fn replay_name(self) -> &'static str {
                match self { $(Self::$name => concat!("replay of ", stringify!($name))),+ }
            }

            /// Of the code that folds it. Rows of another version are not written, but rebuilt.
            pub const fn version(self) -> i16 {
                match self { $(Self::$name => <$row as Row>::VERSION),+ }
            }

            /// The categories of streams whose events change rows.
            pub const fn categories(self) -> &'static [&'static str] {
                match self { $(Self::$name => <$row as Row>::CATEGORIES),+ }
            }

            const fn keyed_by(self) -> KeyedBy {
                match self { $(Self::$name => <$row as Row>::KEYED_BY),+ }
            }

            fn rows(self, generation: i32, is_new: bool) -> Rows {
                match self { $(Self::$name => Rows::$name(row::Rows::new(generation, is_new))),+ }
            }
        }

        /// The rows of one of the read models that are in memory.
        enum Rows { $($name(row::Rows<$row>)),+ }

        impl Rows {
            fn changed(&self) -> usize {
                match self { $(Self::$name(rows) => rows.changed()),+ }
            }

            async fn take(&mut self, connection: &mut PgConnection, events: &[Delivered]) -> Result<(), sqlx::Error> {
                match self { $(Self::$name(rows) => rows.take(connection, events).await),+ }
            }

            async fn flush(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
                match self { $(Self::$name(rows) => rows.flush(connection).await),+ }
            }
        }
    };
}

// A new read model is a line here, a migration, a file and a test.
read_models! {
    OrderSummary(order_summary::OrderSummary),
    StockLevel(stock_level::StockLevel),
    EventIndex(event_index::Positions),
    Waiting(waiting::Waits),
    OrderHistory(order_history::Entry),
    Fulfilment(fulfilment::Fulfilment),
    Revenue(revenue::PaymentDay),
}

impl ReadModel {
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
    pub const ALL: [Self; ReadModel::ALL.len() + 2] = {
        let mut all = [Self::FollowUps; ReadModel::ALL.len() + 2];
        let mut i = 0;
        while i < ReadModel::ALL.len() {
            all[i] = Self::ReadModel(ReadModel::ALL[i]);
            i += 1;
        }
        all[i] = Self::Timers;
        all
    };

    /// Those whose rows are acts to come: nothing of them may be done a second time, elsewhere.
    pub const ACTS: [&'static str; 2] = [Self::FollowUps.name(), Self::Timers.name()];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.name() == name)
    }

    /// The name of its checkpoint, and of its lease.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadModel(model) => model.name(),
            Self::FollowUps => "follow_ups",
            Self::Timers => "timers",
        }
    }

    /// The version of its rows. Those of follow-ups and timers are never rebuilt.
    pub const fn version(self) -> i16 {
        match self {
            Self::ReadModel(model) => model.version(),
            Self::FollowUps | Self::Timers => 1,
        }
    }

    /// What waits together with an event of it that cannot be taken in.
    pub const fn keyed_by(self) -> KeyedBy {
        match self {
            Self::ReadModel(model) => model.keyed_by(),
            Self::FollowUps | Self::Timers => KeyedBy::Order,
        }
    }

    /// Whether an event may change its rows.
    fn concerns(self, record: &RecordedEvent) -> bool {
        match self {
            Self::ReadModel(model) => model.categories().contains(&record.stream.category.name),
            Self::FollowUps | Self::Timers => true,
        }
    }
}
