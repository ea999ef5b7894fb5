//! Many commands about one stream at once: decided one after the other on what is not written yet, written together,
//! and answered only by what is.

use crate::harness::{
    Gate, database, executor, migrate, new_order, receipt, reserve, reserve_all, run, start_postgres,
};
use engine::codec;
use order_services::{Envelope, ExecuteError, Executor};
use order_views::Orders;
use order_views::{CATEGORIES, stream as stream_of};
use orders::id::{Sku, StockId};
use orders::stock::{self, Stock};
use orders::{Aggregate, Event, Rejection};
use runtime::executor::Outcome;
use sqlx::{PgPool, query_scalar};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use store::Log;
use store::connect::{self, Role};
use tokio::task::{JoinHandle, JoinSet};

/// What the log says of the SKU: on hand and reserved, after each of its events.
async fn stocks(url: &str, sku: &str) -> Vec<(u64, u64)> {
    let log = Log::new(connect::pool(url, Role::Read, 1).unwrap(), CATEGORIES);
    let stream = stream_of::<Stock>(StockId::from(&Sku::new(sku).unwrap()).0);
    let mut stock = Stock::default();
    let mut stocks = Vec::new();
    for event in log.read_stream(stream, 0, 100_000).await.unwrap() {
        let Event::Stock(_, event) = codec::decode::<Orders>(event).unwrap().event else { unreachable!() };
        stock.evolve(&event);
        stocks.push((stock.on_hand(), stock.reserved()));
    }
    stocks
}

fn spawned(executor: &Executor, command: Envelope) -> JoinHandle<Result<Outcome, ExecuteError>> {
    let executor = executor.clone();
    tokio::spawn(async move { executor.execute(&command).await })
}

fn is_out_of_stock(outcome: &Result<Outcome, ExecuteError>) -> bool {
    matches!(outcome, Err(ExecuteError::Rejected(Rejection::Stock(stock::Rejection::OutOfStock { .. }))))
}

/// How often a function of the database was called, by all who have gone. It is counted from `count_calls` on.
async fn calls(url: &str, function: &str) -> i64 {
    let superuser = PgPool::connect(url).await.unwrap();
    let here = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'daybook_append'";
    // A session hands in what it has counted when it ends, at the latest.
    while query_scalar::<_, i64>(here).fetch_one(&superuser).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    let calls = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_user_functions WHERE funcname = $1";
    query_scalar(calls).bind(function).fetch_one(&superuser).await.unwrap()
}

async fn count_calls(url: &str) {
    run(url, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET track_functions = pl', current_database()); END $$")
        .await;
}

/// Every conflict of a command makes its process hold the log, which is counted: of one process there is none, though
/// its 64 clients all write to one stream.
#[tokio::test]
async fn many_clients_of_one_process_on_one_stream_never_conflict() {
    const EACH: u32 = 20;
    let url = database().await;
    count_calls(&url).await;
    let process = executor(&url);
    let client = |n: u32| {
        let process = process.clone();
        async move {
            for _ in 0..EACH {
                let order = new_order();
                process.execute(&receipt("mug", 1)).await.unwrap();
                // Every other one asks for more than there is, and is answered by the log all the same.
                let wanted = if n.is_multiple_of(2) { 1 } else { 10_000 };
                let reserved = process.execute(&reserve(order, "mug", wanted)).await;
                assert_eq!(is_out_of_stock(&reserved), wanted > 1, "{reserved:?}");
            }
        }
    };
    futures_util::future::join_all((0..64).map(client)).await;
    drop(process);
    let (received, reserved) = (64 * EACH, 32 * EACH);
    let stocks = stocks(&url, "mug").await;
    assert_eq!(stocks.len() as u32, received + reserved);
    assert_eq!(stocks.last(), Some(&(u64::from(received), u64::from(reserved))));
    assert_eq!(calls(&url, "hold_log").await, 0);
    // They were written together.
    let groups = calls(&url, "append_group").await;
    assert!((1..=i64::from(received)).contains(&groups), "{groups} groups");
}

/// Two processes write to one stream without a pause, one of them for many clients, the other for one: neither keeps the
/// other from going on. (A command that loses 32 times, or waits for 14 s, fails.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_on_one_stream_neither_starves() {
    const EACH: u32 = 60;
    let url = database().await;
    count_calls(&url).await;
    let done = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let processes = [executor(&url), executor(&url)];
    let client = |n: usize| {
        let n = usize::from(n == 0);
        let (process, done) = (processes[n].clone(), done.clone());
        async move {
            // Neither stops before the other has done its part.
            while done.iter().any(|done| done.load(Ordering::Relaxed) < EACH) {
                process.execute(&receipt("mug", 1)).await.unwrap();
                done[n].fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let mut clients: JoinSet<()> = (0..64).map(client).collect();
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let all: u32 = done.iter().map(|done| done.load(Ordering::Relaxed)).sum();
    assert_eq!(stocks(&url, "mug").await.last(), Some(&(u64::from(all), 0)));
    drop(processes);
    // They were in each other's way, and it shows where the test before this one looks.
    assert!(calls(&url, "hold_log").await > 0);
}

/// Invariants 7 and 21: a command that was decided on what another one was to write, and that was not written for
/// another process was faster, is decided again: though what that one wrote took the stream to just the version that the
/// command expects.
#[tokio::test]
async fn what_was_decided_on_what_was_not_written_is_decided_again() {
    type Commands = [Envelope; 3];
    let order = new_order();
    let cases: [(&str, Commands, bool, (u64, u64)); 4] = [
        // B takes the last piece. A takes another one in, and gives away both.
        ("an event", [reserve(new_order(), "mug", 1), receipt("mug", 1), reserve(order, "mug", 2)], false, (2, 1)),
        // B takes ten in. A gives away the last piece, as it takes it to be, and has no other.
        ("a refusal", [receipt("mug", 10), reserve(new_order(), "mug", 1), reserve(order, "mug", 1)], true, (11, 2)),
        // B takes the last piece. A gives it away, and has done so already.
        (
            "already so",
            [reserve(new_order(), "mug", 1), reserve(order, "mug", 1), reserve(order, "mug", 1)],
            false,
            (1, 1),
        ),
        // B takes the last piece. A gives it away; and what has it, gets another thing, too.
        (
            "an event in another stream",
            [reserve(new_order(), "mug", 1), reserve(order, "mug", 1), reserve_all(order, &[("mug", 1), ("hat", 1)])],
            false,
            (1, 1),
        ),
    ];
    for (what, [of_b, first, second], is_written, mugs) in cases {
        // What A submits is one group, or two.
        for in_one_group in [false, true] {
            let url = database().await;
            let (a, b) = (executor(&url), executor(&url));
            a.execute(&receipt("mug", 1)).await.unwrap();
            a.execute(&receipt("hat", 1)).await.unwrap();
            b.execute(&receipt("cup", 1)).await.unwrap();

            let gate = Gate::close(&url).await;
            let of_b = spawned(&b, of_b.clone());
            gate.waiting(1).await;
            let ahead = in_one_group.then(|| spawned(&a, receipt("cap", 1)));
            if ahead.is_some() {
                gate.waiting(2).await;
            }
            let second = async {
                if !in_one_group {
                    gate.waiting(2).await;
                }
                // Nothing of it has to be waited for before it is submitted.
                tokio::join!(biased; a.execute(&second), gate.open()).0
            };
            let (_, second) = tokio::join!(biased; a.execute(&first), second);
            of_b.await.unwrap().unwrap();
            let is_right = match &second {
                Ok(outcome) => is_written && outcome.recorded,
                refused => !is_written && is_out_of_stock(refused),
            };
            assert!(is_right, "{what}, in one group: {in_one_group}: {second:?}");
            let stocks = stocks(&url, "mug").await;
            assert!(stocks.iter().all(|(on_hand, reserved)| reserved <= on_hand), "{what}: {stocks:?}");
            assert_eq!(stocks.last(), Some(&mugs), "{what}, in one group: {in_one_group}");
        }
    }
}

/// Invariant 7, and the fault: Postgres is killed with an append in its hands. What was decided on that append was not so,
/// and nobody is told that it is.
#[tokio::test]
async fn no_answer_rests_on_what_postgres_has_lost() {
    let mut postgres = start_postgres().await;
    let url = postgres.url("postgres");
    migrate(&url).await;
    let process = executor(&url);
    process.execute(&receipt("mug", 1)).await.unwrap();
    let gate = Gate::close(&url).await;
    let order = new_order();
    let (last, again, other) = (reserve(order, "mug", 1), reserve(order, "mug", 1), reserve(new_order(), "mug", 1));
    let kill = async {
        gate.waiting(1).await;
        postgres.kill9().await;
    };
    let execute = |command| process.execute(command);
    let (last, already_so, out_of_stock, ()) =
        tokio::join!(biased; execute(&last), execute(&again), execute(&other), kill);
    for outcome in [last, already_so, out_of_stock] {
        assert!(matches!(outcome, Err(ExecuteError::Unavailable(_))), "{outcome:?}");
    }
    postgres.restart().await.unwrap();
    assert!(process.execute(&other).await.unwrap().recorded);
    assert_eq!(stocks(&url, "mug").await, [(1, 0), (1, 1)]);
}

/// The fault: Postgres restored to an older state under services that go on. Two processes write to one stream, so each
/// reads on from what it last read; of a stream that has become another, it reads all.
#[tokio::test]
async fn a_stream_that_has_become_another_is_not_read_on() {
    let url = database().await;
    let [a, b] = [executor(&url), executor(&url)];
    for process in [&a, &b, &a, &b, &a] {
        process.execute(&receipt("mug", 1)).await.unwrap();
    }
    run(
        &url,
        "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
         DELETE FROM daybook.events WHERE position > 1;
         ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only",
    )
    .await;
    // What takes the place of what was lost has the same positions and versions.
    let restored = executor(&url);
    for _ in 0..6 {
        restored.execute(&receipt("mug", 100)).await.unwrap();
    }
    // As it was, there were no more than five.
    a.execute(&reserve(new_order(), "mug", 601)).await.unwrap();
    b.execute(&receipt("mug", 1)).await.unwrap();
    assert_eq!(stocks(&url, "mug").await.last(), Some(&(602, 601)));
}
