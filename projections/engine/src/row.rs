//! What a row of a read model is, and how rows are folded: in memory, and written by thousands at once.

use crate::parked::KeyedBy;
use crate::{Delivered, Domain};
use sqlx::PgConnection;
use std::collections::HashMap;
use std::hash::Hash;
use store::Category;

/// A row of a read model: its table, its key, and how it is folded from events.
pub trait Row: Send + Sync + Sized + 'static {
    type Domain: Domain;
    /// The name of the table, and of the checkpoint.
    const NAME: &'static str;
    /// Raised with every change that has the same events come out as other rows: the rows of another version are not
    /// written, but rebuilt.
    const VERSION: i16;
    /// Whether a row is all that is known of its key. If not, it is what is new of it, and [`Row::store`] adds that.
    const IS_WHOLE: bool = true;
    /// Whether clients wait for it: its events are applied as they come, and not gathered for a while.
    const IS_AWAITED: bool = false;
    /// What waits together with an event that cannot be applied. All events that change a row have one such key.
    const KEYED_BY: KeyedBy;
    /// The categories of streams whose events change rows.
    const CATEGORIES: &'static [Category];
    type Key: Clone + Eq + Hash + Send + Sync;

    /// The keys of the rows that the event changes.
    fn keys(delivered: &Delivered<Self::Domain>) -> impl IntoIterator<Item = Self::Key>;

    /// Applies an event to the row of one of its keys; there is none before the event that begins it.
    fn fold(row: &mut Option<Self>, key: &Self::Key, delivered: &Delivered<Self::Domain>);

    /// The stored rows of these keys.
    fn load(
        connection: &mut PgConnection,
        generation: i32,
        keys: Vec<Self::Key>,
    ) -> impl Future<Output = Result<Vec<(Self::Key, Self)>, sqlx::Error>> + Send;

    /// Writes rows, whether they were there before or not.
    fn store(
        connection: &mut PgConnection,
        generation: i32,
        rows: &[(&Self::Key, &Self)],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Removes rows, whether they were there before or not. Most read models have none that goes.
    fn remove(
        _: &mut PgConnection,
        _generation: i32,
        _keys: Vec<Self::Key>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        async { Ok(()) }
    }
}

/// How many rows are kept in memory from one batch to the next.
const MOST: usize = 50_000;
/// How many rows one statement writes.
const CHUNK: usize = 2000;

/// Rows of a generation, of whichever read model of a domain.
pub trait Fold<D: Domain>: Send {
    /// How many rows are to be written.
    fn changed(&self) -> usize;

    /// Applies events, after reading the rows that they change and that are not in memory.
    fn apply(
        &mut self,
        connection: &mut PgConnection,
        events: &[Delivered<D>],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Writes what has changed.
    fn flush(&mut self, connection: &mut PgConnection) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// The rows of a generation that are in memory. Nobody else writes the generation as long as they are.
pub struct Rows<R: Row> {
    generation: i32,
    rows: HashMap<R::Key, Entry<R>>,
    /// The keys of those that have changed since they were written.
    changed: Vec<R::Key>,
    /// Whether there are no rows but these.
    is_all: bool,
}

struct Entry<R> {
    row: Option<R>,
    changed: bool,
}

impl<R: Row> Rows<R> {
    /// `is_new` says that the generation has no rows yet.
    pub fn new(generation: i32, is_new: bool) -> Self {
        Self { generation, rows: HashMap::new(), changed: Vec::new(), is_all: is_new }
    }

    /// See [`Fold::apply`].
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn apply(
        &mut self,
        connection: &mut PgConnection,
        events: &[Delivered<R::Domain>],
    ) -> Result<(), sqlx::Error> {
        if R::IS_WHOLE && !self.is_all {
            let mut unknown = Vec::new();
            for key in events.iter().filter(|event| Self::concerns(event)).flat_map(R::keys) {
                self.rows.entry(key).or_insert_with_key(|key| {
                    unknown.push(key.clone());
                    Entry { row: None, changed: false }
                });
            }
            if !unknown.is_empty() {
                for (key, row) in R::load(connection, self.generation, unknown).await? {
                    self.rows.insert(key, Entry { row: Some(row), changed: false });
                }
            }
        }
        self.fold(events);
        Ok(())
    }

    /// Applies events to rows that are in memory, or are none.
    pub fn fold(&mut self, events: &[Delivered<R::Domain>]) {
        for event in events.iter().filter(|event| Self::concerns(event)) {
            for key in R::keys(event) {
                let entry = self.rows.entry(key.clone()).or_insert(Entry { row: None, changed: false });
                R::fold(&mut entry.row, &key, event);
                if !std::mem::replace(&mut entry.changed, true) {
                    self.changed.push(key);
                }
            }
        }
    }

    fn concerns(event: &Delivered<R::Domain>) -> bool {
        R::CATEGORIES.contains(&event.record().stream.category)
    }

    /// How many rows are to be written.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// When Postgres fails or refuses a row.
    pub async fn flush(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (mut changed, mut gone) = (Vec::with_capacity(self.changed.len()), Vec::new());
        for key in &self.changed {
            match self.rows.get(key).and_then(|entry| entry.row.as_ref()) {
                Some(row) => changed.push((key, row)),
                None => gone.push(key.clone()),
            }
        }
        if !gone.is_empty() {
            R::remove(connection, self.generation, gone).await?;
        }
        for rows in changed.chunks(CHUNK) {
            R::store(connection, self.generation, rows).await?;
        }
        for key in self.changed.drain(..) {
            if let Some(entry) = self.rows.get_mut(&key) {
                entry.changed = false;
            }
        }
        if !R::IS_WHOLE || self.rows.len() > MOST {
            self.rows.clear();
            self.is_all = false;
        }
        Ok(())
    }
}
