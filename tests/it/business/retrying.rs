//! Commands that come twice, late, or to several processes at once.

use crate::harness::{System, envelope, migrate, new_order, order_of, release, reserve, start_nats, start_postgres};
use order_services::process::connect_to;
use order_services::{Envelope, ExecuteError, Executor};
use orders::id::{OrderId, Sku};
use orders::order::CancelReason;
use orders::{Command, Rejection, order, stock};
use runtime::executor::Outcome;
use runtime::process::Urls;
use uuid::Uuid;

fn place(order: order::PlaceOrder) -> Envelope {
    let id = OrderId(Uuid::now_v7());
    envelope(Uuid::now_v7(), Command::Order { id, command: order::Command::Place(order) })
}

fn out_of_stock(outcome: &Result<Outcome, ExecuteError>) -> bool {
    let is = |r: &Rejection| matches!(r, Rejection::Stock(stock::Rejection::OutOfStock { .. }));
    matches!(outcome, Err(ExecuteError::Rejected(r)) if is(r))
}

/// Invariant 10: same id and same body, same reply.
#[tokio::test]
async fn a_command_that_is_sent_again_is_answered_as_the_first_time() {
    let system = System::start().await;
    let command = place(order_of(&[("mug", 1, 1)]));
    let first = system.executor.execute(&command).await.unwrap();
    assert!(first.recorded);
    // Time and trace do not make it another command.
    let mut again = command.clone();
    again.occurred_at += chrono::TimeDelta::hours(1);
    again.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    assert_eq!(system.executor.execute(&again).await.unwrap(), first);
    // Nor does another process, which has nothing cached, or what has happened since.
    let other: Executor = connect_to(&system.urls).await.unwrap().executor().await.unwrap();
    let Command::Order { id, .. } = command.command else { unreachable!() };
    system.execute(Command::CancelOrder { id, reason: CancelReason::CustomerRequest }).await.unwrap();
    assert_eq!(other.execute(&command).await.unwrap(), first);
    assert_eq!(system.events_of(id).await, ["OrderPlaced", "OrderCancelled"]);
}

/// Invariant 10: same id and another body, refused without effect.
#[tokio::test]
async fn an_id_that_is_spent_is_refused_for_another_command() {
    let system = System::start().await;
    let first = place(order_of(&[("mug", 1, 1)]));
    system.executor.execute(&first).await.unwrap();
    let other_body = Envelope { command: place(order_of(&[("hat", 1, 1)])).command, ..first.clone() };
    let other_actor = Envelope { actor: "somebody else".into(), ..first.clone() };
    // One that would be refused anyhow, and one that there is nothing to do for.
    let Command::Order { id, .. } = first.command else { unreachable!() };
    let unknown = Command::CancelOrder { id: new_order(), reason: CancelReason::CustomerRequest };
    system.execute(Command::CancelOrder { id, reason: CancelReason::CustomerRequest }).await.unwrap();
    let no_op = Command::CancelOrder { id, reason: CancelReason::CustomerRequest };
    let before = system.parts.log.head().await.unwrap();
    for command in [
        other_body,
        other_actor,
        Envelope { command: unknown, ..first.clone() },
        Envelope { command: no_op, ..first.clone() },
    ] {
        let refused = system.executor.execute(&command).await;
        assert!(matches!(refused, Err(ExecuteError::IdSpent)), "{refused:?}");
    }
    assert_eq!(system.parts.log.head().await.unwrap(), before);
}

/// Invariant 10: what was not recorded says so, and its id is not spent. Invariant 2: it leaves nothing.
#[tokio::test]
async fn a_refusal_leaves_nothing_and_does_not_spend_its_id() {
    let system = System::start().await;
    let order = new_order();
    let command = reserve(order, "mug", 1);
    assert!(out_of_stock(&system.executor.execute(&command).await));
    assert_eq!(system.parts.log.head().await.unwrap(), 0);
    system.receive("mug", 1).await;
    assert!(system.executor.execute(&command).await.unwrap().recorded);
}

/// Invariant 3: whichever sending is answered, one outcome is recorded.
#[tokio::test]
async fn a_command_that_is_sent_many_times_at_once_is_recorded_once() {
    let system = System::start().await;
    let other: Executor = connect_to(&system.urls).await.unwrap().executor().await.unwrap();
    for _ in 0..10 {
        let receive = stock::Command::Receive { sku: Sku::new("mug").unwrap(), quantity: 1 };
        let command = envelope(Uuid::now_v7(), Command::Stock(receive));
        let sendings = (0..8).map(|n| if n % 2 == 0 { &system.executor } else { &other }.execute(&command));
        let outcomes = futures_util::future::join_all(sendings).await;
        let first = outcomes[0].as_ref().unwrap();
        assert!(first.recorded);
        assert!(outcomes.iter().all(|o| o.as_ref().unwrap() == first), "{outcomes:?}");
    }
    assert_eq!(system.parts.log.head().await.unwrap(), 10);
}

/// Invariant 7: no answer from a stale cache, neither a yes nor a no.
#[tokio::test]
async fn two_processes_on_one_sold_out_sku_never_answer_from_a_stale_cache() {
    let system = System::start().await;
    let (a, b) = (&system.executor, &connect_to(&system.urls).await.unwrap().executor().await.unwrap());
    system.receive("mug", 1).await;
    for _ in 0..5 {
        let (first, second, third, fourth) = (new_order(), new_order(), new_order(), new_order());
        // Both know that one piece is there. A takes it; B, which has not heard of that, must not.
        assert!(out_of_stock(&b.execute(&reserve(first, "mug", 2)).await));
        a.execute(&reserve(first, "mug", 1)).await.unwrap();
        assert!(out_of_stock(&b.execute(&reserve(second, "mug", 1)).await));
        // Both know that it is gone. A gives it back; B, which has not heard of that, must not refuse it.
        a.execute(&release(first, "mug", 1)).await.unwrap();
        assert!(b.execute(&reserve(second, "mug", 1)).await.unwrap().recorded);
        // A, which has not heard that it is taken again, says what is so.
        assert!(out_of_stock(&a.execute(&reserve(third, "mug", 1)).await));
        // Nor "already so": A does not know that B has reserved what it is to give back.
        b.execute(&release(second, "mug", 1)).await.unwrap();
        b.execute(&reserve(fourth, "mug", 1)).await.unwrap();
        assert!(a.execute(&release(fourth, "mug", 1)).await.unwrap().recorded);
    }
}

/// Invariant 21, and the fault: one unit of stock, many buyers, two processes.
#[tokio::test]
async fn of_many_buyers_of_one_unit_one_gets_it() {
    let system = System::start().await;
    let other: Executor = connect_to(&system.urls).await.unwrap().executor().await.unwrap();
    system.receive("mug", 1).await;
    let commands: Vec<Envelope> = (0..50).map(|_| reserve(new_order(), "mug", 1)).collect();
    let buyers = commands.iter().enumerate();
    let buyers = buyers.map(|(n, command)| if n % 2 == 0 { &system.executor } else { &other }.execute(command));
    let outcomes = futures_util::future::join_all(buyers).await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|o| out_of_stock(o)).count(), 49, "{outcomes:?}");
}

/// Invariants 1 and 3, and the fault: Postgres is killed in the middle of load and comes back.
#[tokio::test]
async fn a_postgres_that_is_killed_and_comes_back_loses_nothing_acknowledged() {
    let mut postgres = start_postgres().await;
    let database_url = postgres.url("postgres");
    migrate(&database_url).await;
    let nats = start_nats().await;
    let system = System::on(Urls { database_url, nats_url: nats.url() }, nats).await;
    let commands: Vec<Envelope> = (0..3000)
        .map(|n| {
            let receive = stock::Command::Receive { sku: Sku::new(format!("sku-{}", n % 20)).unwrap(), quantity: 1 };
            envelope(Uuid::now_v7(), Command::Stock(receive))
        })
        .collect();
    let load = futures_util::future::join_all(commands.iter().map(|command| system.executor.execute(command)));
    let kill = async {
        // In the middle of it.
        while *system.parts.appender.head().borrow() < 50 {
            tokio::task::yield_now().await;
        }
        postgres.kill9().await;
    };
    let (first, ()) = tokio::join!(load, kill);
    assert!(first.iter().any(Result::is_ok));
    let is_typed = |o: &Result<Outcome, ExecuteError>| matches!(o, Ok(_) | Err(ExecuteError::Unavailable(_)));
    assert!(first.iter().all(is_typed), "{first:?}");
    assert!(first.iter().any(Result::is_err), "it was killed too late for this test");

    postgres.restart().await.unwrap();
    let again = futures_util::future::join_all(commands.iter().map(|command| system.executor.execute(command))).await;
    for (again, before) in again.into_iter().zip(first) {
        let again = again.unwrap();
        assert!(again.recorded);
        if let Ok(before) = before {
            assert_eq!(again, before);
        }
    }
    assert_eq!(system.parts.log.head().await.unwrap(), 3000);
}
