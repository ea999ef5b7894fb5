//! Prepares a database for a log.

use crate::{Category, connect, schema};
use sqlx::{Connection, PgConnection};

/// Why a database is no place for this log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// Postgres cannot be reached, or is none that a log can be on: see [`Unusable`](connect::Unusable).
    #[error("the database cannot be migrated: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration has failed, or the schema is of another build.
    #[error("the schema cannot be brought up to date: {0}")]
    Schema(#[from] schema::MigrateError),
    /// The id or the name of this category is another one's already: the database is of another program.
    #[error(
        "the database has another category with the id {} or the name {}, or it is of another domain than {}: it is another \
         program's log",
        .0.id,
        .0.name,
        .0.domain
    )]
    OtherCategory(Category),
}

/// Creates the log's schema (`daybook`) and roles, or brings them up to date, and names the categories of its streams.
/// It may be called by every process at its start: what is there already stays.
///
/// The login of `url` must be allowed to create roles and a schema. It becomes a member of the roles.
///
/// # Errors
/// See [`MigrateError`]. Nothing of a migration that fails stays.
pub async fn migrate(url: &str, categories: &[Category]) -> Result<(), MigrateError> {
    schema::migrate(url, &[]).await?;
    let mut connection = connect::to_migrate(url).await?;
    name_categories(&mut connection, categories).await?;
    connection.close().await?;
    Ok(())
}

async fn name_categories(connection: &mut PgConnection, categories: &[Category]) -> Result<(), MigrateError> {
    let ids: Vec<i16> = categories.iter().map(|category| category.id).collect();
    let names: Vec<&str> = categories.iter().map(|category| category.name).collect();
    let domains: Vec<&str> = categories.iter().map(|category| category.domain).collect();
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql("SET LOCAL ROLE daybook_owner").execute(&mut *transaction).await?;
    sqlx::query!(
        "INSERT INTO daybook.categories (id, name, domain)
         SELECT id, name, domain FROM unnest($1::smallint[], $2::text[], $3::text[]) AS c(id, name, domain)
         ON CONFLICT DO NOTHING",
        &ids,
        &names as &[&str],
        &domains as &[&str]
    )
    .execute(&mut *transaction)
    .await?;
    let named = sqlx::query!("SELECT id, name, domain FROM daybook.categories").fetch_all(&mut *transaction).await?;
    let is_named = |category: &&Category| {
        named.iter().any(|row| (row.id, &*row.name, &*row.domain) == (category.id, category.name, category.domain))
    };
    if let Some(&category) = categories.iter().find(|category| !is_named(category)) {
        return Err(MigrateError::OtherCategory(category));
    }
    transaction.commit().await?;
    Ok(())
}
