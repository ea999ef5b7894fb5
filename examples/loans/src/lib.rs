//! A second domain on the engine: a library lends books. `docs/your-own-domain.md` goes through it file by file.
//!
//! Two aggregates (book, loan), one read model (the books that are out), one reaction (a loan that ends brings its book
//! back, and the next reader who waits is offered it), one timer (a reminder of a loan that is overdue). It knows nothing
//! of orders, and can live on one log with them.

pub mod books_out;
pub mod domain;
pub mod library;
pub mod services;

pub use domain::{LOANS, Loans};

use engine::schema::ENGINE;
use engine::{Domain, Projection};
use runtime::nats::Nats;
use runtime::process::{Context, Process, StartError};
use runtime::sender::Limits;
use services::{Effects, LONGEST_WAIT, Librarian, start_verbs};
use store::clock;
use store::connect::Role;
use store::schema::{self, MigrateError};

// All read models of the domain: one line each.
engine::read_models! { Loans:
    BooksOut(books_out::BookOut),
}

/// Gives a database the schema that the library needs: the log's, the engine's and its own.
///
/// # Errors
/// When the database cannot have it.
pub async fn migrate(database_url: &str) -> Result<(), MigrateError> {
    schema::migrate(database_url, &[&ENGINE, &LOANS]).await
}

/// Connects to both servers.
///
/// # Errors
/// When one cannot be reached, or the database lacks a migration.
pub async fn connect(database_url: &str, nats_url: &str) -> Result<Context, StartError> {
    let roles = [Role::Append, Role::Project, Role::Read];
    let (nats, projections) = (Nats::at(nats_url)?, Projection::<Loans>::all().count());
    Context::connect(database_url, &roles, nats, Loans::CATEGORIES, clock::TOLERANCE, projections).await
}

/// Starts the library in a process: its command API, its projections, and what follows from its events.
///
/// # Errors
/// When the log holds events of the library that this build does not know, or a server cannot be reached.
pub async fn start(context: &Context, process: &mut Process) -> Result<(), StartError> {
    let executor = context.executor::<Librarian>().await?;
    process.watch(&executor);
    process.serve(start_verbs(context.door(), executor.clone()).await?);
    process.project::<Loans>(context).await?;
    let effects = Effects { executor, pool: context.project.clone() };
    process.send(context, effects, Limits { longest_wait: LONGEST_WAIT, clock_tolerance: clock::TOLERANCE });
    process.ready().await
}
