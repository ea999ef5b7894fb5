//! Verification of what is the same in every domain: the log's own promises, the JetStream window, and whether all has caught
//! up. Each fact is read and computed a second time here, without the code that writes it.
//!
//! The checks of a domain build on it: they fold the same [`log::Row`]s.

pub mod caught_up;
mod chain;
pub mod log;
mod report;
pub mod window;

pub use report::{Check, Report};

use async_nats::jetstream;
use engine::Domain;
use log::Promises;
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use std::time::Duration;
use store::Failure;

/// Why nothing can be said: a server did not answer. What is wrong with the data is a difference, not an error.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the database cannot be read: {0}")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Log(#[from] store::ReadError),
    #[error("the window cannot be read: {0}")]
    JetStream(#[source] async_nats::Error),
    /// What a check of the domain's own could not ask, as a sentence.
    #[error("{0}")]
    OfDomain(String),
}

impl VerifyError {
    /// What can be done about it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Database(e) => Failure::of(e),
            Self::Log(e) => e.failure(),
            Self::JetStream(_) | Self::OfDomain(_) => Failure::Passing,
        }
    }
}

/// Checks what is the same in every domain: whether the domain's projections and the window have caught up within
/// `patience`, the log's promises, and the window against the log. `pool` is in the role that reads.
///
/// # Errors
/// When Postgres or NATS cannot be asked.
pub async fn verify<D: Domain>(
    pool: &PgPool,
    jetstream: &jetstream::Context,
    patience: Duration,
) -> Result<Report, VerifyError> {
    let mut checks = vec![caught_up::check::<D>(pool, Some(jetstream), patience).await?];
    let (mut snapshot, mut promises, mut after) = (snapshot(pool).await?, Promises::default(), 0);
    loop {
        let page = log::page(&mut snapshot, after).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        for row in &page {
            promises.take(row, &serde_json::from_str(&row.payload).unwrap_or(Value::Null));
        }
    }
    let events = promises.events();
    checks.extend(promises.finish());
    checks.push(window::check(pool, jetstream).await?);
    Ok(Report { events, checks })
}

/// What is stored at one moment, to be read for as long as that takes.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn snapshot(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut snapshot = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    // The pool's limits are for short work.
    sqlx::raw_sql("SET LOCAL transaction_timeout = 0; SET LOCAL statement_timeout = 0").execute(&mut *snapshot).await?;
    Ok(snapshot)
}
