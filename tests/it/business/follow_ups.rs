//! What follows from events is done once in effect, however often it is tried.

use crate::harness::{System, new_order, order_of, sender};
use async_nats::Subscriber;
use chrono::Utc;
use dev::provider;
use engine::follow_up::{self, Due, Settlement};
use engine::timer;
use order_services::policy::Timeouts;
use order_services::process::connect_to;
use order_views::Orders;
use orders::id::Sku;
use orders::order::{CancelReason, PlaceOrder, StockLine};
use orders::reaction::{Act, react_to_rejection};
use orders::{Command, Rejection, stock};
use runtime::step::{Outcome, Step};
use sqlx::types::Json;
use sqlx::{Row, query_as, query_scalar};
use std::sync::Arc;
use std::time::Duration;
use store::{Seen, lease};
use tokio::sync::Notify;
use uuid::Uuid;

async fn count(system: &System, sql: &'static str) -> i64 {
    query_scalar(sql).fetch_one(&system.superuser().await).await.unwrap()
}

async fn run_as_superuser(system: &System, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&system.superuser().await).await.unwrap();
}

/// Invariant 13: a sender that was killed after the act and before it was written down does it again, with no effect.
#[tokio::test]
async fn follow_ups_that_are_done_again_have_their_effect_once() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    system.ship(order).await;
    let events = system.parts.log.head().await.unwrap();
    let notices = count(&system, "SELECT count(*) FROM daybook.notices").await;
    for _ in 0..2 {
        run_as_superuser(&system, "UPDATE daybook.follow_ups SET state = 'due', settled_at = NULL").await;
        system.settle().await;
        assert_eq!(count(&system, "SELECT count(*) FROM daybook.follow_ups WHERE state <> 'accepted'").await, 0);
    }
    assert_eq!(system.parts.log.head().await.unwrap(), events);
    assert_eq!(count(&system, "SELECT count(*) FROM daybook.notices").await, notices);
    system.assert_verified().await;
}

/// Several domains may share a log: each one's sender and sweeper see to their own rows.
#[tokio::test]
async fn what_another_domain_has_to_do_is_left_to_it() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    run_as_superuser(
        &system,
        "INSERT INTO daybook.follow_ups
             (id, domain, event_id, position, correlation_id, reaction, target, act, attempts, due_at)
         SELECT gen_random_uuid(), 'machines', event_id, position, correlation_id, 'start', stream_id, '{}', 1, due_at
         FROM daybook.events, unnest(ARRAY[now() - interval '1 day', now() + interval '10 years']) AS due_at;
         INSERT INTO daybook.timers
             (domain, kind, target, key, id, event_id, position, correlation_id, act, fires_at, counted_from)
         SELECT 'machines', 'stop', stream_id, key, gen_random_uuid(), event_id, position, correlation_id, '{}',
                counted_from + interval '1 s', counted_from
         FROM daybook.events,
              (VALUES ('due', now() - interval '1 day'), ('ahead', now() + interval '1 day')) AS t (key, counted_from)",
    )
    .await;
    let theirs = async |system: &System| -> Vec<String> {
        let rows = "SELECT row_to_json(f)::text FROM daybook.follow_ups AS f WHERE domain = 'machines'
                    UNION ALL SELECT row_to_json(t)::text FROM daybook.timers AS t WHERE domain = 'machines' ORDER BY 1";
        query_scalar(rows).fetch_all(&system.superuser().await).await.unwrap()
    };
    let before = theirs(&system).await;
    assert_eq!(before.len(), 4);
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    let pool = &system.parts.project;
    assert_eq!(timer::fire::<Orders>(pool, 100).await.unwrap(), 0);
    follow_up::hasten::<Orders>(pool, Duration::from_secs(1)).await.unwrap();
    assert_eq!(theirs(&system).await, before);
    // A timer's name is its own domain's: what clears or sets one leaves another domain's alone.
    run_as_superuser(
        &system,
        "INSERT INTO daybook.timers SELECT 'machines', kind, target, key, gen_random_uuid(), event_id, position,
                correlation_id, '{}', fires_at, counted_from FROM daybook.timers WHERE domain = 'orders'",
    )
    .await;
    let (named_alike, ours) = (theirs(&system).await, "SELECT count(*) FROM daybook.timers WHERE domain = 'orders'");
    assert!(named_alike.len() > 4 && count(&system, ours).await > 0);
    system.ship(order).await;
    assert_eq!(count(&system, ours).await, 0, "the shipment has cleared them");
    assert_eq!(theirs(&system).await, named_alike);
    system.assert_verified().await;
    // A clock that has gone back: the log's last stamp is ahead of it.
    run_as_superuser(
        &system,
        "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
         UPDATE daybook.events SET recorded_at = now() + interval '2 days'
         WHERE position = (SELECT max(position) FROM daybook.events)",
    )
    .await;
    timer::recount::<Orders>(&system.parts.project).await.unwrap();
    assert_eq!(theirs(&system).await, named_alike);
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_asked_again() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    for service in system.outside.drain(..) {
        service.stop().await;
    }
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "placed");
    let waiting = "SELECT count(*) FROM daybook.follow_ups
        WHERE state = 'due' AND reaction = 'call_authorise' AND attempts > 0 AND reason IS NOT NULL";
    assert_eq!(count(&system, waiting).await, 1);
    system
        .outside
        .push(provider::start(&system.parts.client, system.parts.project.clone(), Duration::ZERO).await.unwrap());
    run_as_superuser(&system, "UPDATE daybook.follow_ups SET due_at = '-infinity'").await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    system.assert_verified().await;
}

/// A system with an order whose payment is asked for: the provider is there, and says nothing.
async fn waiting_for_the_provider() -> (System, Subscriber) {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    for service in system.outside.drain(..) {
        service.stop().await;
    }
    let silent = system.parts.client.subscribe("daybook.provider.v1.>").await.unwrap();
    system.parts.client.flush().await.unwrap();
    let waiting = system.place(order_of(&[("mug", 1, 1)])).await;
    while !system.events_of(waiting).await.iter().any(|e| e == "PaymentRequested") {
        system.project().await;
        system.sender.step().await.unwrap();
    }
    system.project().await;
    system.sender.step().await.unwrap();
    (system, silent)
}

/// Whether the provider's silence was not waited for.
async fn is_asking(system: &System) -> bool {
    let asked = "SELECT count(*) FROM daybook.follow_ups
        WHERE state = 'due' AND reaction = 'call_authorise' AND attempts = 0";
    count(system, asked).await == 1
}

fn free_order() -> PlaceOrder {
    let mut free = order_of(&[("mug", 1, 1)]);
    free.lines[0].unit_price = orders::money::Amount::ZERO;
    free.shipping.clear();
    free.payments.clear();
    free
}

/// An act that takes long holds up nothing else.
#[tokio::test]
async fn a_provider_that_is_silent_holds_up_its_own_order_alone() {
    let (mut system, _silent) = waiting_for_the_provider().await;
    let free = system.place(free_order()).await;
    while system.events_of(free).await.last().map(String::as_str) != Some("ShipmentPlanned") {
        system.project().await;
        system.sender.step().await.unwrap();
    }
    assert!(is_asking(&system).await);
}

/// It is looked for acts from those on that were started last; but now and then for all.
#[tokio::test]
async fn what_was_due_long_before_others_is_done_although_one_of_them_takes_long() {
    let (mut system, _silent) = waiting_for_the_provider().await;
    let free = system.place(free_order()).await;
    system.project().await;
    let late =
        "UPDATE daybook.follow_ups SET due_at = '-infinity' WHERE state = 'due' AND reaction <> 'call_authorise'";
    run_as_superuser(&system, late).await;
    let events = system.events_of(free).await.len();
    while system.events_of(free).await.len() == events {
        system.sender.step().await.unwrap();
    }
    assert!(is_asking(&system).await);
}

/// What came of an act that another sender has settled meanwhile is nobody's business any more.
#[tokio::test]
async fn a_late_refusal_of_what_was_accepted_leaves_nothing() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    // As the sender saw it that was stopped in the middle, when the stock had not come yet.
    let row = sqlx::query("SELECT * FROM daybook.follow_ups WHERE reaction = 'reserve_stock'");
    let row = row.fetch_one(&system.parts.read).await.unwrap();
    let act: Json<Act> = row.get("act");
    let reserve = Due {
        id: row.get("id"),
        event_id: row.get("event_id"),
        position: row.get("position"),
        correlation_id: row.get("correlation_id"),
        reaction: row.get("reaction"),
        attempts: 0,
        due_at: Utc::now(),
        effect: act.0.clone(),
    };
    let command = match act.0 {
        Act::Command(command) => command,
        other => panic!("{other:?}"),
    };
    let short = vec![stock::ShortLine { line: 1, sku: Sku::new("mug").unwrap(), wanted: 1, available: 0 }];
    let rejection = Rejection::Stock(stock::Rejection::OutOfStock { short });
    let next = react_to_rejection(&command, &rejection).map(order_views::follow_up);
    assert!(next.is_some());
    let late = Settlement::Refused { reason: rejection.to_string(), next };
    let lease = lease::acquire(&system.parts.project, "sender", system.parts.owner).await.unwrap().unwrap();
    assert!(
        follow_up::settle::<Orders>(&system.parts.project, &lease, &Seen::default(), vec![(reserve, late)])
            .await
            .unwrap()
    );
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    system.assert_verified().await;
}

/// One sender at a time; when it gives up its lease, the next one goes on at once.
#[tokio::test]
async fn one_sender_at_a_time_and_the_next_goes_on() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.project().await;
    assert!(matches!(system.sender.step().await.unwrap(), Outcome::Worked(_)));
    let parts = connect_to(&system.urls).await.unwrap();
    let (pool, executor, client) = (parts.project.clone(), parts.executor().await.unwrap(), parts.client.clone());
    let mut standby = sender(pool, executor, client, parts.owner, Arc::new(Notify::new()), Timeouts::default());
    system.project().await;
    assert_eq!(standby.step().await.unwrap(), Outcome::Idle);
    system.sender.end().await;
    assert!(matches!(standby.step().await.unwrap(), Outcome::Worked(_)));
    std::mem::swap(&mut system.sender, &mut standby);
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    system.assert_verified().await;
}

/// What one order gives back, another one may have waited for: what follows belongs to the one that waited.
#[tokio::test]
async fn what_follows_from_a_backorder_that_is_filled_belongs_to_the_order_that_waited() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let waits = new_order();
    let lines = vec![StockLine { line: 4, sku: Sku::new("mug").unwrap(), quantity: 1 }];
    let backorder = stock::Command::Backorder { order_id: waits, lines, hold_seconds: 60 };
    system.execute(Command::Stock(backorder)).await.unwrap();
    let reason = CancelReason::CustomerRequest;
    system.execute(Command::CancelOrder { id: order, reason }).await.unwrap();
    system.settle().await;
    let told = "SELECT target, correlation_id FROM daybook.follow_ups WHERE reaction = 'record_backorder_filled'";
    let told: Vec<(Uuid, Uuid)> = query_as(told).fetch_all(&system.parts.read).await.unwrap();
    assert_eq!(told, [(waits.0, waits.0)]);
    let timed = "SELECT correlation_id FROM daybook.timers WHERE kind = 'expire_reservation'";
    assert_eq!(query_scalar::<_, Uuid>(timed).fetch_all(&system.parts.read).await.unwrap(), [waits.0]);
    system.assert_verified().await;
}
