//! What is folded from the log: the read models of a domain, its follow-ups and its timers.

use crate::Domain;
use crate::parked::KeyedBy;
use crate::row::Fold;
use std::fmt::Debug;
use std::hash::Hash;
use store::{Category, RecordedEvent};

/// One of a domain's read models. `read_models!` declares them all, each once.
pub trait ReadModel: Copy + Debug + Eq + Hash + Send + Sync + 'static {
    type Domain: Domain<ReadModel = Self>;
    /// The rows that are in memory of one of them.
    type Rows: Fold<Self::Domain> + Sync;
    const ALL: &'static [Self];

    /// The name of its table, and of its checkpoint.
    fn name(self) -> &'static str;
    /// The name of the lease of whoever replays it.
    fn replay_name(self) -> &'static str;
    /// Of the code that folds it. Rows of another version are not written, but rebuilt.
    fn version(self) -> i16;
    /// The categories of streams whose events change rows.
    fn categories(self) -> &'static [Category];
    /// What waits together with an event that cannot be applied.
    fn keyed_by(self) -> KeyedBy;
    /// Whether clients wait for it: its events are applied as they come, and not gathered for a while.
    fn is_awaited(self) -> bool;
    /// Rows of a generation; `is_new` says that it has none yet.
    fn rows(self, generation: i32, is_new: bool) -> Self::Rows;

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|model| model.name() == name)
    }
}

/// Declares the read models of a domain as `enum ReadModel`: for each a name, and the type of its rows.
#[macro_export]
macro_rules! read_models {
    ($domain:ty: $($name:ident($row:ty),)+) => {
        /// The domain's read models.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ReadModel { $($name),+ }

        impl $crate::ReadModel for ReadModel {
            type Domain = $domain;
            type Rows = Rows;
            const ALL: &'static [Self] = &[$(Self::$name),+];

            fn name(self) -> &'static str {
                match self { $(Self::$name => <$row as $crate::row::Row>::NAME),+ }
            }

            fn replay_name(self) -> &'static str {
                match self { $(Self::$name => concat!("replay of ", stringify!($name))),+ }
            }

            fn version(self) -> i16 {
                match self { $(Self::$name => <$row as $crate::row::Row>::VERSION),+ }
            }

            fn categories(self) -> &'static [$crate::store::Category] {
                match self { $(Self::$name => <$row as $crate::row::Row>::CATEGORIES),+ }
            }

            fn keyed_by(self) -> $crate::parked::KeyedBy {
                match self { $(Self::$name => <$row as $crate::row::Row>::KEYED_BY),+ }
            }

            fn is_awaited(self) -> bool {
                match self { $(Self::$name => <$row as $crate::row::Row>::IS_AWAITED),+ }
            }

            fn rows(self, generation: i32, is_new: bool) -> Rows {
                match self { $(Self::$name => Rows::$name($crate::row::Rows::new(generation, is_new))),+ }
            }
        }

        /// The rows of one of the read models that are in memory.
        #[doc(hidden)]
        pub enum Rows { $($name($crate::row::Rows<$row>)),+ }

        impl $crate::row::Fold<$domain> for Rows {
            fn changed(&self) -> usize {
                match self { $(Self::$name(rows) => rows.changed()),+ }
            }

            async fn apply(
                &mut self,
                connection: &mut $crate::sqlx::PgConnection,
                events: &[$crate::Delivered<$domain>],
            ) -> Result<(), $crate::sqlx::Error> {
                match self { $(Self::$name(rows) => rows.apply(connection, events).await),+ }
            }

            async fn flush(
                &mut self,
                connection: &mut $crate::sqlx::PgConnection,
            ) -> Result<(), $crate::sqlx::Error> {
                match self { $(Self::$name(rows) => rows.flush(connection).await),+ }
            }
        }
    };
}

/// All that is folded from the log for a domain, each with a checkpoint of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Projection<D: Domain> {
    ReadModel(D::ReadModel),
    FollowUps,
    Timers,
}

impl<D: Domain> Projection<D> {
    pub fn all() -> impl Iterator<Item = Self> {
        let read_models = <D::ReadModel as ReadModel>::ALL.iter().map(|model| Self::ReadModel(*model));
        read_models.chain([Self::FollowUps, Self::Timers])
    }

    /// Those whose rows are effects to come: nothing of them may be done a second time, elsewhere.
    pub const EFFECTS: [&'static str; 2] = [D::FOLLOW_UPS, D::TIMERS];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|projection| projection.name() == name)
    }

    /// The name of its checkpoint, and of its lease.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadModel(model) => model.name(),
            Self::FollowUps => D::FOLLOW_UPS,
            Self::Timers => D::TIMERS,
        }
    }

    /// The version of its rows. Those of follow-ups and timers are never rebuilt.
    pub fn version(self) -> i16 {
        match self {
            Self::ReadModel(model) => model.version(),
            Self::FollowUps | Self::Timers => 1,
        }
    }

    /// What waits together with an event of it that cannot be applied.
    pub fn keyed_by(self) -> KeyedBy {
        match self {
            Self::ReadModel(model) => model.keyed_by(),
            Self::FollowUps | Self::Timers => KeyedBy::Correlation,
        }
    }

    /// Whether its events are applied as they come, and not gathered for a while.
    pub fn is_awaited(self) -> bool {
        match self {
            Self::ReadModel(model) => model.is_awaited(),
            Self::FollowUps => true,
            Self::Timers => false,
        }
    }

    /// Whether an event may change its rows.
    pub(crate) fn concerns(self, record: &RecordedEvent) -> bool {
        let categories = match self {
            Self::ReadModel(model) => model.categories(),
            Self::FollowUps | Self::Timers => D::CATEGORIES,
        };
        categories.contains(&record.stream.category)
    }
}
