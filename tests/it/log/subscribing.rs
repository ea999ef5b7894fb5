//! Subscriptions: from any position on, first what there is and then what comes; no event left out, none twice.

use crate::harness::{System, order_of, receive};
use order_views::CATEGORIES;
use orders::Aggregate;
use orders::stock::Stock;
use runtime::process::jetstream;
use runtime::step::Step;
use runtime::subject;
use runtime::subscription;
use store::{Filter, Position};

fn of_stock() -> Filter {
    let category = CATEGORIES.iter().find(|c| c.name == Stock::CATEGORY).copied();
    Filter { category, event_types: vec!["StockReceived".into()], ..Filter::default() }
}

/// What a filter lets through of what the log has.
async fn filtered(system: &System, after: Position, filter: &Filter) -> Vec<Position> {
    let events = system.parts.log.read_all(after, 100_000).await.unwrap();
    events.iter().filter(|event| filter.matches(event)).map(|event| event.position).collect()
}

/// Appends of orders and of stock, each an event, so many of each.
async fn append(system: &System, count: usize) {
    let received = (0..count).map(|n| async move { system.receive(&format!("sku-{}", n % 7), 1).await });
    let placed = (0..count).map(|_| system.place(order_of(&[("mug", 1, 1)])));
    tokio::join!(futures_util::future::join_all(received), futures_util::future::join_all(placed));
}

/// JetStream's stream vanishes in the middle: what it does not bring is read from the log.
#[tokio::test]
async fn a_subscription_to_the_feed_catches_up_and_goes_on_without_a_gap_or_a_double() {
    let mut system = System::start().await;
    append(&system, 100).await;
    system.relay().await;
    let head = 400;
    let mut subscription = subscription::Subscription::new(system.feed.reader(), 50, of_stock());
    let mut seen = Vec::new();
    let (feed, relay, parts) = (&mut system.feed, &mut system.relay, &system.parts);
    let stepping = async {
        while feed.position() < head {
            feed.step().await.unwrap();
        }
    };
    let reading = async {
        while subscription.position() < head {
            seen.extend(subscription.next().await.unwrap().into_iter().map(|event| event.record().position));
        }
    };
    let writing = async {
        let execute = |n: usize| {
            let executor = &system.executor;
            async move { receive(executor, &format!("sku-{}", n % 7), 1).await }
        };
        futures_util::future::join_all((0..100).map(execute)).await;
        jetstream(&parts.client).delete_stream(subject::STREAM).await.unwrap();
        futures_util::future::join_all((0..100).map(execute)).await;
        while parts.log.head().await.unwrap() > relayed(parts).await {
            _ = relay.step().await;
        }
    };
    tokio::join!(stepping, reading, writing);
    assert_eq!(seen, filtered(&system, 50, &of_stock()).await);
}

/// The stream's last sequence.
async fn relayed(parts: &runtime::process::Context) -> Position {
    match jetstream(&parts.client).get_stream(subject::STREAM).await {
        Ok(stream) => stream.cached_info().state.last_sequence as Position,
        Err(_) => 0,
    }
}
