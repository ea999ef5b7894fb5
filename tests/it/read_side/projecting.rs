//! Read models and follow-ups keep up with the log, whatever is delivered, lost or taken over.

use crate::harness::{System, append, id, order_of, stream};
use engine::ReadModel as _;
use engine::apply::Applier;
use engine::status;
use order_views::encode;
use order_views::stream as stream_of;
use order_views::{Projection, ReadModel};
use orders::Event;
use orders::id::{Sku, StockId};
use orders::stock::{Stock, StockReceived};
use runtime::feed::Feed;
use runtime::process::jetstream;
use runtime::projector::Projector;
use runtime::step::{Outcome, Step};
use sqlx::{AssertSqlSafe, query_scalar};
use std::sync::Arc;
use store::checkpoint::{self, AdvanceError, Checkpoint};
use store::{ExpectedVersion, NewEvent, StreamAppend, lease};
use tokio::sync::Notify;
use uuid::Uuid;

/// All rows that are folded from the log, as text.
async fn rows(system: &System) -> Vec<String> {
    let mut all = Vec::new();
    for table in Projection::all().map(Projection::name) {
        let sql = format!("SELECT (to_jsonb(t) - 'due_at')::text FROM daybook.{table} t ORDER BY 1");
        all.extend(query_scalar::<_, String>(AssertSqlSafe(sql)).fetch_all(&system.parts.read).await.unwrap());
    }
    all
}

async fn with_orders() -> System {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    for _ in 0..3 {
        let order = system.place(order_of(&[("mug", 1, 1)])).await;
        system.settle().await;
        system.ship(order).await;
    }
    system
}

/// Invariants 13, 14 and 16: what is delivered again changes nothing.
#[tokio::test]
async fn events_that_are_delivered_again_change_nothing() {
    let system = with_orders().await;
    let before = rows(&system).await;
    let mut feed = Feed::new(system.parts.log.clone(), jetstream(&system.parts.client), 0);
    let head = system.parts.log.head().await.unwrap();
    while feed.position() < head {
        feed.step().await.unwrap();
    }
    let all = feed.reader().next(0, 10_000).await.unwrap().unwrap();
    for projection in Projection::all() {
        // The same owner, with the checkpoint that it has: all of it is below.
        let owner = system.parts.owner;
        let lease = lease::acquire(&system.parts.project, projection.name(), owner).await.unwrap().unwrap();
        let at =
            checkpoint::acquire(&system.parts.project, projection.name(), projection.version(), &lease).await.unwrap();
        assert_eq!(at.position, head);
        let mut applier = Applier::new(projection);
        for _ in 0..3 {
            let moved = applier.apply(&system.parts.project, at, lease.fence, &all).await.unwrap();
            assert_eq!(moved, at);
        }
        // With a checkpoint that is too old, it finds that somebody has moved on, and writes nothing.
        let old = Checkpoint { position: 5, ..at };
        let fenced = applier.apply(&system.parts.project, old, lease.fence, &all).await;
        assert!(matches!(fenced, Err(AdvanceError::Fenced(_))), "{fenced:?}");
    }
    assert_eq!(rows(&system).await, before);
    system.assert_verified().await;
}

/// Invariant 18: rows and checkpoint move together, or not at all.
#[tokio::test]
async fn a_batch_that_cannot_be_written_moves_no_checkpoint() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    system.project().await;
    let at = checkpoint::live(&system.parts.read).await.unwrap();
    let superuser = system.superuser().await;
    sqlx::raw_sql("REVOKE UPDATE ON daybook.stock_level FROM daybook_project").execute(&superuser).await.unwrap();
    system.receive("mug", 10).await;
    system.relay().await;
    while system.feed.position() < 2 {
        system.feed.step().await.unwrap();
    }
    let stock = &mut system.projectors[1];
    assert_eq!(stock.name(), "stock_level");
    assert!(stock.step().await.is_err());
    assert_eq!(checkpoint::live(&system.parts.read).await.unwrap(), at);
    let error = "SELECT last_error FROM daybook.checkpoints WHERE projection = 'stock_level'";
    let error: String = query_scalar(error).fetch_one(&superuser).await.unwrap();
    assert!(error.contains("permission denied"), "{error}");
    sqlx::raw_sql("GRANT UPDATE ON daybook.stock_level TO daybook_project").execute(&superuser).await.unwrap();
    system.project().await;
    system.assert_verified().await;
}

/// The fault: SIGSTOP for a minute, then CONT. The stale owner changes nothing.
#[tokio::test]
async fn an_owner_that_was_stopped_and_replaced_changes_nothing() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    system.project().await;
    let name = ReadModel::StockLevel.name();
    // While it was stopped, its lease ran out and another process took over.
    let expire = "UPDATE daybook.leases SET expires_at = '-infinity'";
    sqlx::raw_sql(expire).execute(&system.superuser().await).await.unwrap();
    let successor = lease::acquire(&system.parts.project, name, Uuid::now_v7()).await.unwrap().unwrap();
    let taken = checkpoint::acquire(&system.parts.project, name, 1, &successor).await.unwrap();
    system.receive("mug", 1).await;
    system.relay().await;
    while system.feed.position() < 2 {
        system.feed.step().await.unwrap();
    }
    let stale = &mut system.projectors[1];
    // It finds that it has been replaced, and then that somebody else has the lease.
    while stale.step().await.unwrap() != Outcome::Idle {}
    let live = checkpoint::live(&system.parts.read).await.unwrap();
    assert!(live.contains(&(name.to_owned(), taken.position)));
    let level = order_views::stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap();
    assert_eq!(level.on_hand, 10);
    // The successor goes on where the checkpoint is.
    let events = system.feed.reader().next(taken.position, 10).await.unwrap().unwrap();
    let model = Projection::ReadModel(ReadModel::StockLevel);
    Applier::new(model).apply(&system.parts.project, taken, successor.fence, &events).await.unwrap();
    let level = order_views::stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap();
    assert_eq!(level.on_hand, 11);
}

#[tokio::test]
async fn a_lease_has_one_owner_and_is_free_at_once_when_it_is_given_back() {
    let system = System::start().await;
    let (pool, a, b) = (&system.parts.project, Uuid::now_v7(), Uuid::now_v7());
    let first = lease::acquire(pool, "test", a).await.unwrap().unwrap();
    assert_eq!(lease::acquire(pool, "test", b).await.unwrap(), None);
    assert_eq!(lease::acquire(pool, "test", a).await.unwrap(), Some(first));
    lease::release(pool, &first).await.unwrap();
    let second = lease::acquire(pool, "test", b).await.unwrap().unwrap();
    assert!(second.fence > first.fence);
    // Giving back what is another's has no effect.
    lease::release(pool, &first).await.unwrap();
    assert_eq!(lease::acquire(pool, "test", a).await.unwrap(), None);
}

/// A projection that was away for longer than the feed remembers reads the log.
#[tokio::test]
async fn a_gap_or_a_missing_stream_is_answered_by_the_log() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    // Nothing was relayed: JetStream has no stream at all.
    while system.feed.position() < 1 {
        system.feed.step().await.unwrap();
    }
    assert_eq!(system.feed.gaps(), 1);
    for _ in 0..3 {
        system.receive("mug", 1).await;
    }
    system.relay().await;
    // A projector of another process begins at the start, a feed in the middle.
    let mut late = Feed::new(system.parts.log.clone(), jetstream(&system.parts.client), 2);
    while late.position() < 4 {
        late.step().await.unwrap();
    }
    assert_eq!(late.gaps(), 0);
    let written = Arc::new(Notify::new());
    let model = Projection::ReadModel(ReadModel::StockLevel);
    let (pool, owner) = (system.parts.project.clone(), Uuid::now_v7());
    let mut projector = Projector::new(pool, model, late.reader(), owner, written);
    while projector.step().await.unwrap() != Outcome::Idle {}
    let level = order_views::stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap();
    assert_eq!((level.on_hand, level.version), (4, 4));
}

/// Heartbeats say that JetStream is there: a feed that waits keeps its subscription.
#[tokio::test]
async fn a_feed_that_waits_makes_no_new_consumer() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.relay().await;
    while system.feed.position() < 1 {
        system.feed.step().await.unwrap();
    }
    let stream = jetstream(&system.parts.client).get_stream(runtime::subject::STREAM).await.unwrap();
    let consumers = async || stream.get_info().await.unwrap().state.consumer_count;
    let before = consumers().await;
    // Longer than a silence may be.
    for _ in 0..2 {
        assert_eq!(system.feed.step().await.unwrap(), Outcome::Idle);
    }
    assert_eq!((consumers().await, system.feed.gaps()), (before, 0));
    // What the relay does not bring is read from the log.
    system.receive("mug", 1).await;
    while system.feed.position() < 2 {
        system.feed.step().await.unwrap();
    }
    assert_eq!((consumers().await, system.feed.gaps()), (before, 1));
}

/// Lets the log grow by so many times 500 events, past the relay.
async fn grow(system: &System, times: usize) {
    let received = Event::Stock(StockId(id(1)), StockReceived { sku: Sku::new("cup").unwrap(), quantity: 1 }.into());
    for _ in 0..times {
        let events = vec![encode(&received); 500];
        let stream = stream_of::<Stock>(id(1));
        let grown = vec![StreamAppend { stream, expected: ExpectedVersion::Any, events }];
        system.parts.appender.append(append(grown)).await.unwrap();
    }
}

/// What the relay has left behind is read from the log page after page, not a page for each silence.
#[tokio::test]
async fn a_log_that_is_far_ahead_of_jetstream_is_read_in_one_go() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.relay().await;
    while system.feed.position() < 1 {
        system.feed.step().await.unwrap();
    }
    grow(&system, 5).await;
    while system.feed.position() == 1 {
        system.feed.step().await.unwrap();
    }
    assert_eq!((system.feed.position(), system.feed.gaps()), (2501, 1));
}

/// A projection that goes on finds in memory what it takes in next; one that stands still keeps the feed from nothing.
#[tokio::test]
async fn a_feed_that_reads_the_log_does_not_run_away_from_a_projection_that_goes_on() {
    let mut system = System::start().await;
    grow(&system, 60).await;
    let mut reader = system.feed.reader();
    for taken in 0..100 {
        let next = reader.next(taken, 1).await.unwrap();
        system.feed.step().await.unwrap();
        assert!(system.feed.position() <= 20_000 + taken, "{taken}: {}", system.feed.position());
        let expected = if taken == 0 { None } else { Some(taken + 1) };
        assert_eq!(next.map(|batch| batch.events[0].record().position), expected);
    }
    assert!(system.feed.position() > 15_000);
    while system.feed.position() < 30_000 {
        system.feed.step().await.unwrap();
    }
    // It is still given what comes next, from the log.
    assert_eq!(reader.next(100, 1).await.unwrap().unwrap().events[0].record().position, 101);
}

/// An event of a newer build: this one stops before it, and leaves the leases to instances that know it.
#[tokio::test]
async fn who_meets_an_event_that_it_does_not_know_keeps_the_lease_from_nobody() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    system.receive("mug", 1).await;
    let of_tomorrow = NewEvent { event_type: "OrderTeleported".into(), schema_version: 1, payload: "{}".into() };
    let streams =
        vec![StreamAppend { stream: stream(7), expected: ExpectedVersion::NoStream, events: vec![of_tomorrow] }];
    system.parts.appender.append(append(streams)).await.unwrap();
    system.receive("mug", 1).await;
    system.relay().await;
    let mut last = system.feed.step().await;
    while last.is_ok() {
        last = system.feed.step().await;
    }
    let unknown = last.unwrap_err().to_string();
    assert!(unknown.contains("at position 3 is a OrderTeleported"), "{unknown}");
    // However often it is tried, it is not passed over.
    for _ in 0..3 {
        assert!(system.feed.step().await.is_err());
    }
    // One of them reads the log itself: its feed remembers nothing.
    let behind = Feed::new(system.parts.log.clone(), jetstream(&system.parts.client), 4);
    let (pool, model) = (system.parts.project.clone(), Projection::ReadModel(ReadModel::StockLevel));
    system.projectors[1] = Projector::new(pool, model, behind.reader(), system.parts.owner, Arc::new(Notify::new()));
    let newer = Uuid::now_v7();
    for (projector, projection) in system.projectors.iter_mut().zip(Projection::all()) {
        // What comes before it is taken in.
        while let Ok(Outcome::Worked(_)) = projector.step().await {}
        let live = checkpoint::live(&system.parts.read).await.unwrap();
        assert!(live.contains(&(projection.name().to_owned(), 2)), "{live:?}");
        let status = status::projections(&system.parts.read).await.unwrap();
        let status = status.into_iter().find(|status| status.projection == projection.name()).unwrap();
        assert_eq!(
            (status.last_error.as_deref(), status.heartbeat_seconds_ago),
            (Some(&*unknown), None),
            "{projection:?}"
        );
        // It does not come back for the lease, whether somebody has that or not.
        assert!(projector.step().await.is_err());
        let lease = lease::acquire(&system.parts.project, projection.name(), newer).await.unwrap().unwrap();
        checkpoint::acquire(&system.parts.project, projection.name(), projection.version(), &lease).await.unwrap();
        assert!(projector.step().await.is_err());
        lease::release(&system.parts.project, &lease).await.unwrap();
        assert!(projector.step().await.is_err());
        assert!(lease::acquire(&system.parts.project, projection.name(), newer).await.unwrap().is_some());
    }
}
