//! Appends events to a stream, and tails the log meanwhile.
//!
//! ```sh
//! DATABASE_URL=postgresql://user@host/database cargo run --example append_and_tail
//! ```

use daybook_store::connect::{self, Role};
use daybook_store::{
    Append, AppendError, Appender, Category, ExpectedVersion, Filter, Fingerprint, Log, Metadata, NewEvent,
    StreamAppend, StreamId, migrate,
};
use std::error::Error;
use uuid::Uuid;

/// The kinds of streams of this program. The id is stored with every event, so it never changes.
const CATEGORIES: &[Category] = &[Category { id: 21, name: "cart", domain: "shop" }];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")?;
    migrate(&url, CATEGORIES).await?;

    let log = Log::new(connect::pool(&url, Role::Read, 4)?, CATEGORIES);
    let appender = Appender::start(&url)?;
    let mut tail = log.subscribe(log.head().await?, Filter::default(), appender.head());

    // A new cart gets two events at once; then a third one, which expects the version that the first two led to.
    let cart = StreamId { category: CATEGORIES[0], id: Uuid::now_v7() };
    let opened = [added("mug"), added("hat")];
    let appended = appender.append(command(Uuid::now_v7(), cart, ExpectedVersion::NoStream, &opened)).await?;
    let expected = ExpectedVersion::Exact(appended.versions[0]);
    let removed = command(Uuid::now_v7(), cart, expected, &[event("Removed", r#"{"item": "mug"}"#)]);
    let appended = appender.append(removed.clone()).await?;

    // A command that is sent again has its events once.
    match appender.append(removed).await {
        Err(AppendError::AlreadyRecorded { position }) => println!("recorded before, at position {position}"),
        other => println!("unexpected: {other:?}"),
    }
    // Somebody who has seen an older version is refused.
    let late = command(Uuid::now_v7(), cart, ExpectedVersion::Exact(1), &[added("pen")]);
    if let Err(conflict @ AppendError::VersionConflict { .. }) = appender.append(late).await {
        println!("{}", conflict.to_string().replace(&cart.to_string(), "the cart"));
    }

    while tail.position() < appended.position {
        for event in tail.next().await? {
            println!("{}: {} {}", event.position, event.event_type, &*event.payload);
        }
    }
    Ok(())
}

fn event(event_type: &'static str, payload: &str) -> NewEvent {
    NewEvent { event_type: event_type.into(), schema_version: 1, payload: payload.to_owned().into() }
}

fn added(item: &str) -> NewEvent {
    event("Added", &format!(r#"{{"item": "{item}"}}"#))
}

/// The append of a command that changes one stream.
fn command(id: Uuid, stream: StreamId, expected: ExpectedVersion, events: &[NewEvent]) -> Append {
    let body: String = events.iter().map(|event| &*event.payload).collect();
    let metadata = Metadata::new(id, Fingerprint::of(body.as_bytes()), "append_and_tail");
    Append { metadata, streams: vec![StreamAppend { stream, expected, events: events.to_vec() }] }
}
