//! A subscription that goes on where it was, however its process ended.
//!
//! It counts the events of each type in a table of its own. The counts and the position that they come to are written in
//! one transaction, so every event is counted once. It ends at the position that it is given, if it is given one.
//!
//! ```sh
//! DATABASE_URL=postgresql://user@host/database cargo run --example resume -- 1000
//! ```

use daybook_store::connect::{self, Role};
use daybook_store::{Category, Filter, Log, Position, RecordedEvent, migrate};
use sqlx::PgPool;
use std::error::Error;
use tokio::sync::watch;

/// All kinds of streams that the log has: to read an event of another one is an error.
const CATEGORIES: &[Category] = &[Category { id: 21, name: "cart", domain: "shop" }];

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS events_by_type (event_type text PRIMARY KEY, events bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS counted (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), position bigint);
    INSERT INTO counted (position) VALUES (0) ON CONFLICT DO NOTHING";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let end: Position = std::env::args().nth(1).map_or(Ok(Position::MAX), |end| end.parse())?;
    migrate(&url, CATEGORIES).await?;

    let own = PgPool::connect(&url).await?;
    sqlx::raw_sql(TABLES).execute(&own).await?;
    let from: Position = sqlx::query_scalar("SELECT position FROM counted").fetch_one(&own).await?;
    println!("counting from position {from}");

    let log = Log::new(connect::pool(&url, Role::Read, 2)?, CATEGORIES);
    // Nothing in this process appends, so there are no hints: the log is asked every tenth of a second.
    let (_hint, no_hints) = watch::channel(0);
    let mut subscription = log.subscribe(from, Filter::default(), no_hints);
    while subscription.position() < end {
        let events = subscription.next().await?;
        count(&own, &events, subscription.position()).await?;
        println!("counted to position {}", subscription.position());
    }
    Ok(())
}

async fn count(own: &PgPool, events: &[RecordedEvent], position: Position) -> Result<(), sqlx::Error> {
    let mut transaction = own.begin().await?;
    for event in events {
        sqlx::query(
            "INSERT INTO events_by_type AS t (event_type, events) VALUES ($1, 1)
             ON CONFLICT (event_type) DO UPDATE SET events = t.events + 1",
        )
        .bind(&*event.event_type)
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query("UPDATE counted SET position = $1").bind(position).execute(&mut *transaction).await?;
    transaction.commit().await
}
