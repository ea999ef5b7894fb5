//! Read model: the books that are out. Its row, its fold, its query.

use crate::domain::Loans;
use crate::library::{Event, LOAN};
use chrono::{DateTime, TimeDelta, Utc};
use engine::parked::KeyedBy;
use engine::row::Row;
use engine::{Delivered, Recorded};
use sqlx::{PgConnection, PgPool};
use store::Category;
use uuid::Uuid;

/// A loan that has not ended.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct BookOut {
    pub loan_id: Uuid,
    pub book_id: Uuid,
    pub reader: String,
    pub lent_at: DateTime<Utc>,
    pub due_at: DateTime<Utc>,
}

impl Row for BookOut {
    type Domain = Loans;
    const NAME: &'static str = "books_out";
    const VERSION: i16 = 1;
    const KEYED_BY: KeyedBy = KeyedBy::Stream;
    const CATEGORIES: &'static [Category] = &[LOAN];
    type Key = Uuid;

    fn keys(delivered: &Delivered<Loans>) -> impl IntoIterator<Item = Uuid> {
        [delivered.record().stream.id]
    }

    fn fold(row: &mut Option<Self>, _: &Uuid, delivered: &Delivered<Loans>) {
        let Some(Recorded { record, event }) = delivered.event() else { return };
        match event {
            Event::LoanBegun { loan_id, book_id, reader, days } => {
                let (lent_at, reader) = (record.recorded_at, reader.clone());
                let due_at = lent_at + TimeDelta::days((*days).into());
                *row = Some(Self { loan_id: *loan_id, book_id: *book_id, reader, lent_at, due_at });
            }
            Event::LoanEnded { .. } => *row = None,
            _ => {}
        }
    }

    async fn load(
        connection: &mut PgConnection,
        generation: i32,
        loans: Vec<Uuid>,
    ) -> Result<Vec<(Uuid, Self)>, sqlx::Error> {
        let stored = sqlx::query_as::<_, Self>(
            "SELECT loan_id, book_id, reader, lent_at, due_at FROM daybook.books_out
             WHERE generation = $1 AND loan_id = ANY($2)",
        );
        let rows = stored.bind(generation).bind(loans).fetch_all(connection).await?;
        Ok(rows.into_iter().map(|row| (row.loan_id, row)).collect())
    }

    async fn store(connection: &mut PgConnection, generation: i32, rows: &[(&Uuid, &Self)]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO daybook.books_out (generation, loan_id, book_id, reader, lent_at, due_at)
             SELECT $1, * FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[])
             ON CONFLICT ON CONSTRAINT books_out_loan DO UPDATE
             SET book_id = excluded.book_id, reader = excluded.reader, lent_at = excluded.lent_at, due_at = excluded.due_at",
        )
        .bind(generation)
        .bind(rows.iter().map(|(loan, _)| **loan).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.book_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.reader.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.lent_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.due_at).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
    }

    async fn remove(connection: &mut PgConnection, generation: i32, loans: Vec<Uuid>) -> Result<(), sqlx::Error> {
        let remove = sqlx::query("DELETE FROM daybook.books_out WHERE generation = $1 AND loan_id = ANY($2)");
        remove.bind(generation).bind(loans).execute(connection).await.map(drop)
    }
}

/// The books that are out, in the live generation; the one that is due first, first.
///
/// # Errors
/// When Postgres fails.
pub async fn list(pool: &PgPool) -> Result<Vec<BookOut>, sqlx::Error> {
    let list = "SELECT loan_id, book_id, reader, lent_at, due_at FROM daybook.books_out
                WHERE generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'books_out' AND live)
                ORDER BY due_at, loan_id";
    sqlx::query_as(list).fetch_all(pool).await
}
