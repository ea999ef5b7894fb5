//! The two generations of a read model's rows, whatever columns they have.

use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

/// What two generations of a read model have to do with each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The rows of the new one.
    pub rows: i64,
    /// The keys that only the new one has a row for, or only the old one, or both another.
    pub missing: i64,
    pub surplus: i64,
    pub different: i64,
    /// Some of these, in order of their keys.
    pub examples: Vec<Difference>,
}

/// A key whose rows are not the same: as it was, and as it is rebuilt, each without its generation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The columns of the key.
    pub key: Value,
    pub before: Option<Value>,
    pub rebuilt: Option<Value>,
}

impl Comparison {
    /// How many keys have rows that are not the same.
    pub fn differences(&self) -> i64 {
        self.missing + self.surplus + self.different
    }
}

/// Compares all columns of all rows of two generations, with up to `examples` of those that differ.
pub(crate) async fn compare(
    connection: &mut PgConnection,
    table: &'static str,
    (before, rebuilt): (i32, i32),
    examples: i64,
) -> Result<Comparison, sqlx::Error> {
    // The columns of the primary key but the generation, and the others.
    let columns = sqlx::query_as::<_, (Option<String>, Option<String>)>(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FILTER (WHERE attnum = ANY(conkey)),
                string_agg(quote_ident(attname), ', ' ORDER BY attnum) FILTER (WHERE attnum <> ALL(conkey))
         FROM pg_attribute JOIN pg_constraint ON conrelid = attrelid AND contype = 'p'
         WHERE attrelid = ('daybook.' || $1)::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'generation'",
    );
    let (key, others) = columns.bind(table).fetch_one(&mut *connection).await?;
    let (key, others) = (key.unwrap_or_default(), others.unwrap_or_default());
    let of = |side: &str| others.split(", ").map(|c| format!("{side}.{c}")).collect::<Vec<_>>().join(", ");
    // Which side a row comes from is told by a column that is never null.
    let differing = format!(
        "FROM (SELECT * FROM daybook.{table} WHERE generation = {before}) AS a
         FULL JOIN (SELECT * FROM daybook.{table} WHERE generation = {rebuilt}) AS b USING ({key})
         WHERE a.generation IS NULL OR b.generation IS NULL OR ({}) IS DISTINCT FROM ({})",
        of("a"),
        of("b")
    );
    let counts = format!(
        "SELECT count(*) FILTER (WHERE a.generation IS NULL), count(*) FILTER (WHERE b.generation IS NULL),
                count(*) FILTER (WHERE a.generation IS NOT NULL AND b.generation IS NOT NULL),
                (SELECT count(*) FROM daybook.{table} WHERE generation = {rebuilt})
         {differing}"
    );
    let counts = sqlx::query(AssertSqlSafe(counts)).fetch_one(&mut *connection).await?;
    let (missing, surplus, different, rows) =
        (counts.try_get(0)?, counts.try_get(1)?, counts.try_get(2)?, counts.try_get(3)?);
    let mut differences = Vec::new();
    if missing + surplus + different > 0_i64 {
        let some = format!(
            "SELECT (SELECT to_jsonb(k) FROM (SELECT {key}) AS k), to_jsonb(a) - 'generation', to_jsonb(b) - 'generation'
             {differing} ORDER BY {key} LIMIT {examples}"
        );
        let some = sqlx::query_as::<_, (Value, Option<Value>, Option<Value>)>(AssertSqlSafe(some));
        let some = some.fetch_all(connection).await?;
        differences = some.into_iter().map(|(key, before, rebuilt)| Difference { key, before, rebuilt }).collect();
    }
    Ok(Comparison { rows, missing, surplus, different, examples: differences })
}

/// Keeps the rows of a generation as a table of their own, `daybook_copies.{name}`, which whoever may read may read; tells
/// how many they are. The name is one that needs no quotes.
pub(crate) async fn copy(
    connection: &mut PgConnection,
    table: &'static str,
    generation: i32,
    name: &str,
) -> Result<u64, sqlx::Error> {
    let columns = sqlx::query_scalar::<_, Option<String>>(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
         WHERE attrelid = ('daybook.' || $1)::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'generation'",
    );
    let columns = columns.bind(table).fetch_one(&mut *connection).await?.unwrap_or_default();
    let copy = format!(
        "CREATE TABLE daybook_copies.{name} AS SELECT {columns} FROM daybook.{table} WHERE generation = {generation}"
    );
    let rows = sqlx::query(AssertSqlSafe(copy)).execute(&mut *connection).await?.rows_affected();
    let readable = format!("GRANT SELECT ON daybook_copies.{name} TO daybook_read");
    sqlx::raw_sql(AssertSqlSafe(readable)).execute(connection).await?;
    Ok(rows)
}

/// Whether there is a copy of this name.
pub(crate) async fn is_copied(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    let copied = sqlx::query_scalar("SELECT to_regclass('daybook_copies.' || $1) IS NOT NULL");
    copied.bind(name).fetch_one(connection).await
}

/// Removes all rows of a generation at once.
pub(crate) async fn empty(
    connection: &mut PgConnection,
    table: &'static str,
    generation: i32,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!("TRUNCATE daybook.{table}_{generation}"))).execute(connection).await?;
    Ok(())
}
