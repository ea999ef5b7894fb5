//! Read model: where in the log the events of a category, of an event type and of a correlation id are. Its rows, their
//! fold, its queries.
//!
//! A row has the positions of one list within one block of the log (the table `event_index`): a batch of
//! events touches a row for each list, not one for each event.

use crate::parked::KeyedBy;
use crate::row::Row;
use crate::{Delivered, Domain};
use sqlx::{PgConnection, PgPool};
use std::fmt;
use std::marker::PhantomData;
use store::{Category, Filter, Position, RecordedEvent, checkpoint};
use uuid::Uuid;

/// What a list of positions is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key<'a> {
    Category(&'static str),
    /// A category, and an event type in it.
    Type(&'static str, &'a str),
    Correlation(Uuid),
}

/// As it is stored.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Category(category) => f.write_str(category),
            Self::Type(category, event_type) => write!(f, "{category}/{event_type}"),
            Self::Correlation(id) => write!(f, "{id}"),
        }
    }
}

impl Key<'_> {
    /// The lists that an event is in.
    fn of(event: &RecordedEvent) -> [Key<'_>; 3] {
        let category = event.stream.category.name;
        [
            Key::Category(category),
            Key::Type(category, &event.event_type),
            Key::Correlation(event.metadata.correlation_id),
        ]
    }

    /// Where the block begins that a position is in.
    fn base(&self, position: Position) -> Position {
        let block = match self {
            Self::Category(_) | Self::Type(..) => 1024,
            Self::Correlation(_) => 32_768,
        };
        position - position % block
    }
}

/// The fewest lists that together have every event that `filter` lets through, of these categories; none, if the index
/// has no such lists. They have events that it does not let through, too.
pub fn keys<'a>(filter: &'a Filter, categories: &[Category]) -> Vec<Key<'a>> {
    if let Some(id) = filter.correlation_id {
        return vec![Key::Correlation(id)];
    }
    if filter.event_types.is_empty() {
        return filter.category.iter().map(|category| Key::Category(category.name)).collect();
    }
    let mut types: Vec<&str> = filter.event_types.iter().map(|name| &**name).collect();
    types.sort_unstable();
    types.dedup();
    let categories = categories.iter().filter(|c| filter.category.is_none_or(|category| category == **c));
    categories.flat_map(|category| types.iter().map(|name| Key::Type(category.name, name))).collect()
}

/// The positions that are new in a block of a list, from its beginning.
pub struct Positions<D>(Vec<i16>, PhantomData<D>);

/// The name of its table, and of its checkpoint.
const NAME: &str = "event_index";

impl<D: Domain> Row for Positions<D> {
    type Domain = D;
    const NAME: &'static str = NAME;
    const VERSION: i16 = 1;
    const KEYED_BY: KeyedBy = KeyedBy::Nothing;
    const IS_WHOLE: bool = false;
    const CATEGORIES: &'static [Category] = D::CATEGORIES;
    /// A list, and where the block begins.
    type Key = (String, Position);

    fn keys(delivered: &Delivered<D>) -> impl IntoIterator<Item = (String, Position)> {
        let record = delivered.record();
        Key::of(record).map(|key| (key.to_string(), key.base(record.position)))
    }

    fn fold(row: &mut Option<Self>, (_, base): &(String, Position), delivered: &Delivered<D>) {
        // A block is shorter than 2^15.
        let offset = (delivered.record().position - base) as i16;
        row.get_or_insert_with(|| Self(Vec::new(), PhantomData)).0.push(offset);
    }

    async fn load(
        _: &mut PgConnection,
        _: i32,
        _: Vec<(String, Position)>,
    ) -> Result<Vec<((String, Position), Self)>, sqlx::Error> {
        Ok(vec![])
    }

    async fn store(
        connection: &mut PgConnection,
        generation: i32,
        rows: &[(&(String, Position), &Self)],
    ) -> Result<(), sqlx::Error> {
        let keys: Vec<String> = rows.iter().map(|((key, _), _)| key.clone()).collect();
        let bases: Vec<Position> = rows.iter().map(|((_, base), _)| *base).collect();
        // An array as Postgres writes it: lists of different lengths cannot be parameters.
        let list = |offsets: &[i16]| offsets.iter().map(i16::to_string).collect::<Vec<_>>().join(",");
        let offsets: Vec<String> = rows.iter().map(|(_, row)| format!("{{{}}}", list(&row.0))).collect();
        sqlx::query!(
            "INSERT INTO daybook.event_index AS stored (generation, key, base, offsets)
             SELECT $1, key, base, offsets::smallint[] FROM unnest($2::text[], $3::bigint[], $4::text[])
                 AS r (key, base, offsets)
             ON CONFLICT ON CONSTRAINT event_index_block DO UPDATE SET offsets = stored.offsets || excluded.offsets",
            generation,
            &keys,
            &bases,
            &offsets
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The position up to which the index is complete: what comes after it is in the log alone. It never falls.
///
/// # Errors
/// When Postgres fails.
pub async fn complete_to(pool: &PgPool) -> Result<Position, sqlx::Error> {
    let live = checkpoint::live(pool).await?;
    Ok(live.into_iter().find(|(projection, _)| projection == NAME).map_or(0, |(_, position)| position))
}

/// Positions that are in any of the lists, in a direction.
macro_rules! positions {
    ($direction:literal, $keys:expr, $after:expr, $to:expr, $limit:expr) => {
        sqlx::query_scalar!(
            r#"SELECT p.position AS "position!"
               FROM unnest($1::text[], $2::bigint[]) AS k (key, base)
               CROSS JOIN LATERAL (
                   SELECT i.base + o.value AS position
                   FROM daybook.event_index AS i CROSS JOIN unnest(i.offsets) AS o (value)
                   WHERE i.generation = (
                             SELECT generation FROM daybook.checkpoints WHERE projection = 'event_index' AND live)
                     AND i.key = k.key AND i.base BETWEEN k.base AND $4
                     AND i.base + o.value > $3 AND i.base + o.value <= $4
                   ORDER BY i.base "#
                + $direction
                + ", o.value "
                + $direction
                + " LIMIT $5) AS p
               ORDER BY p.position "
                + $direction
                + " LIMIT $5",
            &$keys.iter().map(Key::to_string).collect::<Vec<_>>(),
            &$keys.iter().map(|key| key.base($after)).collect::<Vec<_>>(),
            $after,
            $to,
            $limit
        )
    };
}

/// Up to `limit` positions that are in any of these lists, in order, from the one after `after` up to `to`; in the live
/// generation.
///
/// # Errors
/// When Postgres fails.
pub async fn positions(
    pool: &PgPool,
    keys: &[Key<'_>],
    after: Position,
    to: Position,
    limit: i64,
) -> Result<Vec<Position>, sqlx::Error> {
    positions!("ASC", keys, after, to, limit).fetch_all(pool).await
}

/// The same positions, but the last `limit` of them, newest first.
///
/// # Errors
/// When Postgres fails.
pub async fn positions_backward(
    pool: &PgPool,
    keys: &[Key<'_>],
    after: Position,
    to: Position,
    limit: i64,
) -> Result<Vec<Position>, sqlx::Error> {
    positions!("DESC", keys, after, to, limit).fetch_all(pool).await
}
