//! Subscriptions: from any position on, first what there is and then what comes; no event left out, none twice.

use crate::bank::CATEGORIES;
use crate::harness::{append, database, log, stream, to};
use daybook_store::ExpectedVersion::Any;
use daybook_store::{Appender, Filter, Log, Position, StreamAppend, StreamId};
use futures_util::future::join_all;
use tokio::sync::watch;
use uuid::Uuid;

/// What is never told that there is more.
fn no_hint() -> watch::Receiver<Position> {
    watch::channel(0).1
}

fn filled() -> Filter {
    Filter { category: Some(CATEGORIES[1]), event_types: vec!["Filled".into()], ..Filter::default() }
}

/// What a filter lets through of what the log has.
async fn filtered(log: &Log, after: Position, filter: &Filter) -> Vec<Position> {
    let events = log.read_all(after, 100_000).await.unwrap();
    events.iter().filter(|event| filter.matches(event)).map(|event| event.position).collect()
}

/// Fills one of seven vaults.
async fn fill(appender: &Appender, n: usize) {
    let vault = StreamId { category: CATEGORIES[1], id: Uuid::from_u128(n as u128 % 7) };
    let mut write: StreamAppend = to(vault, Any, 1);
    write.events[0].event_type = "Filled".into();
    appender.append(append(vec![write])).await.unwrap();
}

/// Appends to accounts and to vaults, each of one event, so many of each.
async fn write(appender: &Appender, count: usize) {
    let filled = (0..count).map(|n| fill(appender, n));
    let opened = (0..count).map(|_| async {
        let account = stream(Uuid::now_v7().as_u128());
        appender.append(append(vec![to(account, Any, 1)])).await.unwrap();
    });
    tokio::join!(join_all(filled), join_all(opened));
}

#[tokio::test]
async fn a_subscription_catches_up_and_goes_on_without_a_gap_or_a_double() {
    let url = database().await;
    let (log, appender) = (log(&url), Appender::start(&url).unwrap());
    // More than the pages that are read while nothing is behind.
    write(&appender, 700).await;
    for (after, filter, hint) in
        [(0, Filter::default(), appender.head()), (0, filled(), no_hint()), (650, filled(), appender.head())]
    {
        let head = log.head().await.unwrap();
        let mut subscription = log.subscribe(after, filter.clone(), hint);
        let mut seen = Vec::new();
        let reading = async {
            while subscription.position() < head + 100 {
                seen.extend(subscription.next().await.unwrap().into_iter().map(|event| event.position));
            }
        };
        // The last event of all is one that every filter lets through.
        let writing = async {
            write(&appender, 49).await;
            fill(&appender, 1).await;
            fill(&appender, 1).await;
        };
        tokio::join!(reading, writing);
        assert_eq!(seen, filtered(&log, after, &filter).await);
    }
}

#[tokio::test]
async fn a_subscription_that_is_dropped_while_it_waits_loses_nothing() {
    let url = database().await;
    let (log, appender) = (log(&url), Appender::start(&url).unwrap());
    write(&appender, 300).await;
    let mut subscription = log.subscribe(0, Filter::default(), appender.head());
    let (mut seen, mut dropped) = (Vec::new(), 0);
    while seen.len() < 600 {
        tokio::select! {
            biased;
            events = subscription.next() => seen.extend(events.unwrap().into_iter().map(|event| event.position)),
            // After it was polled once: in the middle of whatever it does.
            () = std::future::ready(()), if dropped % 5 != 4 => {}
        }
        dropped += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(seen, (1..=600).collect::<Vec<_>>());
}
