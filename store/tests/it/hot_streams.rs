//! Commands of one process about one stream: decided one after the other on what is not written yet, written together,
//! and answered only by what is.

use crate::bank::{Answer, Bank, Command, Unavailable, balances, deposit, withdraw};
use crate::harness::{Gate, database, forge, id, log, run, start_postgres};
use sqlx::{PgPool, query_scalar};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

const RENT: Uuid = id(1);
const FOOD: Uuid = id(2);
const TRAVEL: Uuid = id(3);
const GIFTS: Uuid = id(4);

type Sent = (Uuid, Command);

async fn execute(bank: &Bank, sent: &Sent) -> Result<Answer, Unavailable> {
    bank.execute(sent.0, &sent.1).await
}

fn spawned(bank: &Bank, sent: Sent) -> JoinHandle<Result<Answer, Unavailable>> {
    let bank = bank.clone();
    tokio::spawn(async move { execute(&bank, &sent).await })
}

async fn put_in(bank: &Bank, account: Uuid, amount: i64) {
    let answer = execute(bank, &deposit(account, amount)).await.unwrap();
    assert!(matches!(answer, Answer::Recorded { .. }), "{answer:?}");
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

/// Every conflict of a command makes its process lock the log, which is counted: of one process there is none, though
/// its 64 clients all write to one stream.
#[tokio::test]
async fn many_clients_of_one_account_never_conflict() {
    const EACH: i64 = 20;
    let url = database().await;
    count_calls(&url).await;
    let bank = Bank::start(&url, 0);
    let client = |n: i64| {
        let bank = bank.clone();
        async move {
            for _ in 0..EACH {
                put_in(&bank, RENT, 1).await;
                // Every other one asks for more than there is, and is answered by the log all the same.
                let amount = if n % 2 == 0 { 1 } else { 10_000 };
                let answer = execute(&bank, &withdraw(&[RENT], amount, Uuid::now_v7())).await.unwrap();
                assert_eq!(matches!(answer, Answer::Short(_)), amount > 1, "{answer:?}");
            }
        }
    };
    futures_util::future::join_all((0..64).map(client)).await;
    drop(bank);
    let (deposits, withdrawals) = (64 * EACH, 32 * EACH);
    let balances = balances(&log(&url), RENT).await;
    assert_eq!(balances.len() as i64, deposits + withdrawals);
    assert_eq!(balances.last(), Some(&(deposits - withdrawals)));
    assert_eq!(calls(&url, "hold_log").await, 0);
    // They were written together.
    let groups = calls(&url, "append_group").await;
    assert!((1..=deposits).contains(&groups), "{groups} groups");
}

/// Two processes write to one stream without a pause, one of them for many clients, the other for one: neither keeps the
/// other from going on. (A command that loses 32 times fails.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_on_one_account_neither_starves() {
    const EACH: u32 = 60;
    let url = database().await;
    count_calls(&url).await;
    let done = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let processes = [Bank::start(&url, 0), Bank::start(&url, 0)];
    let client = |n: usize| {
        let n = usize::from(n == 0);
        let (bank, done) = (processes[n].clone(), done.clone());
        async move {
            // Neither stops before the other has done its part.
            while done.iter().any(|done| done.load(Ordering::Relaxed) < EACH) {
                put_in(&bank, RENT, 1).await;
                done[n].fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let mut clients: JoinSet<()> = (0..64).map(client).collect();
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let all: u32 = done.iter().map(|done| done.load(Ordering::Relaxed)).sum();
    assert_eq!(balances(&log(&url), RENT).await.last(), Some(&i64::from(all)));
    drop(processes);
    // They were in each other's way, and it shows where the test before this one looks.
    assert!(calls(&url, "hold_log").await > 0);
}

/// Invariants 7 and 21: a command that was decided on what another one was to write, and that was not written because
/// another process was faster, is decided again: though what that one wrote took the stream to just the version that the
/// command expects.
#[tokio::test]
async fn what_was_decided_on_an_append_that_was_not_written_is_decided_again() {
    let (other, first, second) = (id(10), id(11), id(12));
    let cases: [(&str, [Sent; 3], bool, i64); 4] = [
        // B takes the last coin. A puts another one in, and takes both.
        ("an event", [withdraw(&[RENT], 1, other), deposit(RENT, 1), withdraw(&[RENT], 2, second)], false, 1),
        // B puts ten in. A takes the last coin, as it believes it to be, and there is no other.
        ("a refusal", [deposit(RENT, 10), withdraw(&[RENT], 1, first), withdraw(&[RENT], 1, second)], true, 9),
        // B takes the last coin. A takes it, and has done so already.
        (
            "unchanged",
            [withdraw(&[RENT], 1, other), withdraw(&[RENT], 1, first), withdraw(&[RENT], 1, first)],
            false,
            0,
        ),
        // B takes the last coin. A takes it; and for what has taken it, a coin of another account, too.
        (
            "an event in another stream",
            [withdraw(&[RENT], 1, other), withdraw(&[RENT], 1, first), withdraw(&[RENT, FOOD], 1, first)],
            false,
            0,
        ),
    ];
    for (what, [of_b, first, second], is_recorded, left) in cases {
        // What A submits is one group, or two.
        for in_one_group in [false, true] {
            let url = database().await;
            let (a, b) = (Bank::start(&url, 0), Bank::start(&url, 0));
            put_in(&a, RENT, 1).await;
            put_in(&a, FOOD, 1).await;
            put_in(&b, TRAVEL, 1).await;

            let gate = Gate::close(&url).await;
            let of_b = spawned(&b, of_b.clone());
            gate.waiting(1).await;
            let ahead = in_one_group.then(|| spawned(&a, deposit(GIFTS, 1)));
            if ahead.is_some() {
                gate.waiting(2).await;
            }
            let second = async {
                if !in_one_group {
                    gate.waiting(2).await;
                }
                // Nothing of it has to be waited for before it is submitted.
                tokio::join!(biased; execute(&a, &second), gate.open()).0
            };
            let (_, second) = tokio::join!(biased; execute(&a, &first), second);
            of_b.await.unwrap().unwrap();
            let is_right = match second.as_ref().unwrap() {
                Answer::Recorded { .. } => is_recorded,
                Answer::Short(_) => !is_recorded,
                _ => false,
            };
            assert!(is_right, "{what}, in one group: {in_one_group}: {second:?}");
            let balances = balances(&log(&url), RENT).await;
            assert!(balances.iter().all(|balance| *balance >= 0), "{what}: {balances:?}");
            assert_eq!(balances.last(), Some(&left), "{what}, in one group: {in_one_group}");
        }
    }
}

/// Invariant 7, and the fault: Postgres is killed with an append in its hands. What was decided on that append was not so,
/// and nobody is told that it is.
#[tokio::test]
async fn no_answer_rests_on_an_append_that_postgres_has_lost() {
    let (mut postgres, url) = start_postgres().await;
    let bank = Bank::start(&url, 0);
    put_in(&bank, RENT, 1).await;
    let gate = Gate::close(&url).await;
    let purchase = id(10);
    let (last, again) = (withdraw(&[RENT], 1, purchase), withdraw(&[RENT], 1, purchase));
    let other = withdraw(&[RENT], 1, id(11));
    let kill = async {
        gate.waiting(1).await;
        postgres.kill9().await;
    };
    let (last, unchanged, short, ()) = tokio::join!(
        biased;
        execute(&bank, &last),
        execute(&bank, &again),
        execute(&bank, &other),
        kill
    );
    for answer in [last, unchanged, short] {
        assert!(answer.is_err(), "{answer:?}");
    }
    postgres.restart().await.unwrap();
    let answer = execute(&bank, &other).await.unwrap();
    assert!(matches!(answer, Answer::Recorded { .. }), "{answer:?}");
    assert_eq!(balances(&log(&url), RENT).await, [1, 0]);
}

/// The fault: Postgres is restored to an older state under processes that go on. What they have cached of a stream counts
/// no more, though its version fits.
#[tokio::test]
async fn a_stream_that_has_become_another_is_not_decided_on() {
    let url = database().await;
    let [a, b] = [Bank::start(&url, 0), Bank::start(&url, 0)];
    for bank in [&a, &b, &a, &b, &a] {
        put_in(bank, RENT, 1).await;
    }
    forge(&url, "DELETE FROM daybook.events WHERE position > 1").await;
    // What takes the place of what was lost has the same positions and versions.
    let restored = Bank::start(&url, 0);
    for _ in 0..4 {
        put_in(&restored, RENT, 100).await;
    }
    // As it was, there were five.
    let answer = execute(&a, &withdraw(&[RENT], 401, id(10))).await.unwrap();
    assert!(matches!(answer, Answer::Recorded { .. }), "{answer:?}");
    put_in(&b, RENT, 1).await;
    let answer = execute(&b, &withdraw(&[RENT], 2, id(11))).await.unwrap();
    assert_eq!(answer, Answer::Short(vec![(RENT, 1)]));
    assert_eq!(balances(&log(&url), RENT).await.last(), Some(&1));
}
