//! Whether somebody has to look at a projection: told by its heartbeat and by where it is, by Postgres' clock alone.

use crate::binary::until;
use crate::harness::{System, daybook_on, run};
use engine::ReadModel as _;
use order_services::queries;
use order_views::Orders;
use order_views::{Projection, ReadModel};
use runtime::client::Client;
use runtime::health::{self, Health, State, projections};
use runtime::projector::Projector;
use runtime::step::{Outcome, Step};
use serde_json::{Value, json};
use std::time::Duration;
use store::checkpoint;

async fn all(system: &System) -> Vec<Health> {
    projections::<Orders>(&system.parts.read, Duration::from_millis(1)).await.unwrap()
}

async fn stock(system: &System) -> Health {
    all(system).await.into_iter().find(|one| one.projection == "stock_level").unwrap()
}

/// Lets so many seconds pass, to leases, checkpoints and the log.
async fn pass(system: &System, seconds: u32) {
    let pass = format!(
        "UPDATE daybook.leases SET expires_at = expires_at - interval '{seconds} s';
         UPDATE daybook.checkpoints SET moved_at = moved_at - interval '{seconds} s';
         ALTER TABLE daybook.events DISABLE TRIGGER ALL;
         UPDATE daybook.events SET recorded_at = recorded_at - interval '{seconds} s';
         ALTER TABLE daybook.events ENABLE TRIGGER ALL"
    );
    run(&system.urls.database_url, &pass).await;
}

/// Its owner says that it is there, as it does every second, and does nothing else.
async fn beat(system: &System) {
    let renew = "UPDATE daybook.leases SET expires_at = clock_timestamp() + interval '3 s' WHERE isfinite(expires_at)";
    run(&system.urls.database_url, renew).await;
}

fn projector(system: &mut System) -> &mut Projector<Orders> {
    let stock = &mut system.projectors[1];
    assert_eq!(stock.name(), "stock_level");
    stock
}

/// Brings the log to the projectors, without a step of theirs.
async fn relay(system: &mut System) {
    system.relay().await;
    let head = system.parts.log.head().await.unwrap();
    while system.feed.position() < head {
        system.feed.step().await.unwrap();
    }
}

#[tokio::test]
async fn an_idle_projector_is_told_from_a_frozen_one() {
    let mut system = System::start().await;
    let unowned = stock(&system).await;
    assert_eq!((unowned.state, unowned.heartbeat_seconds_ago), (State::Unowned, None));
    system.receive("mug", 1).await;
    system.project().await;
    assert!(all(&system).await.iter().all(|one| one.state == State::Current));
    // For as long as there is nothing to do, it does nothing and is well; but it has to say that it is there.
    pass(&system, 3600).await;
    beat(&system).await;
    let idle = stock(&system).await;
    assert_eq!((idle.state, idle.lag_events, idle.seconds_left), (State::Current, 0, Some(0.0)));
    assert!(idle.heartbeat_seconds_ago.unwrap() < 3.0, "{idle:?}");
    pass(&system, 3).await;
    let killed = stock(&system).await;
    assert_eq!(killed.state, State::Frozen);
    assert!(killed.heartbeat_seconds_ago.unwrap() > 3.0, "{killed:?}");
    // Another process takes over, or this one wakes up; and in the end nobody runs it.
    let again = projector(&mut system);
    again.end().await;
    assert_eq!(stock(&system).await.state, State::Unowned);
    assert_eq!(projector(&mut system).step().await.unwrap(), Outcome::Idle);
    assert_eq!(stock(&system).await.state, State::Current);
}

#[tokio::test]
async fn one_that_renews_its_lease_and_does_not_move_is_frozen() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    // It has stood still for an hour, but there is something to do only since now.
    pass(&system, 3600).await;
    beat(&system).await;
    system.receive("mug", 1).await;
    let behind = stock(&system).await;
    assert_eq!((behind.state, behind.lag_events, behind.seconds_left), (State::CatchingUp, 1, None));
    pass(&system, 9).await;
    beat(&system).await;
    assert_eq!(stock(&system).await.state, State::CatchingUp);
    pass(&system, 1).await;
    beat(&system).await;
    let frozen = stock(&system).await;
    assert_eq!((frozen.state, frozen.lag_events), (State::Frozen, 1));
    assert!(frozen.lag_seconds > 10.0 && frozen.lag_seconds < 3600.0, "{frozen:?}");
    // However far behind it is, as long as it moves it is not.
    system.receive("mug", 1).await;
    pass(&system, 3600).await;
    beat(&system).await;
    let one_event = "UPDATE daybook.checkpoints SET position = 2, moved_at = clock_timestamp()
                     WHERE projection = 'stock_level'";
    run(&system.urls.database_url, one_event).await;
    let moving = stock(&system).await;
    assert_eq!((moving.state, moving.lag_events), (State::CatchingUp, 1));
    assert!(moving.lag_seconds > 3600.0, "{moving:?}");
}

#[tokio::test]
async fn one_that_is_paused_stopped_or_of_another_version_says_so() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    checkpoint::pause(&system.parts.project, "stock_level", true).await.unwrap();
    assert_eq!(stock(&system).await.state, State::Paused);
    checkpoint::pause(&system.parts.project, "stock_level", false).await.unwrap();

    let url = system.urls.database_url.clone();
    run(&url, "REVOKE UPDATE ON daybook.stock_level FROM daybook_project").await;
    system.receive("mug", 1).await;
    relay(&mut system).await;
    assert!(projector(&mut system).step().await.is_err());
    let stopped = stock(&system).await;
    assert_eq!(stopped.state, State::Stopped);
    assert!(stopped.last_error.unwrap().contains("permission denied"));
    run(&url, "GRANT UPDATE ON daybook.stock_level TO daybook_project").await;
    system.project().await;
    assert_eq!(stock(&system).await.state, State::Current);

    // As long as a process of that version runs it, all is well.
    run(&url, "UPDATE daybook.checkpoints SET version = 99 WHERE projection = 'stock_level'").await;
    assert_eq!((stock(&system).await.state, stock(&system).await.version), (State::Current, 99));
    projector(&mut system).end().await;
    assert_eq!(stock(&system).await.state, State::OtherVersion);
}

#[tokio::test]
async fn the_check_names_who_is_not_well_and_the_query_tells_the_same() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    // It says so once a second.
    until("the relay has said how far it is", async || {
        system.relay.step().await.unwrap();
        (health::relay(&system.parts.read).await.unwrap().position == 1).then_some(())
    })
    .await;
    let check = async |arguments: &str| {
        // As late as it counts as a beat: who asks takes a second, and more on a busy machine.
        let beat =
            "UPDATE daybook.leases SET expires_at = clock_timestamp() + interval '5.9 s' WHERE name <> 'revenue';
                    UPDATE daybook.relay SET told_at = clock_timestamp()";
        run(&system.urls.database_url, beat).await;
        let arguments = ["projections", "list"].into_iter().chain(arguments.split_whitespace());
        daybook_on(&system.urls).args(arguments).output().await.unwrap()
    };
    run(&system.urls.database_url, "UPDATE daybook.leases SET expires_at = clock_timestamp() + interval '5.9 s'").await;
    let well = check("--check").await;
    assert_eq!((well.status.code(), well.stderr.len()), (Some(0), 0), "{well:?}");
    checkpoint::pause(&system.parts.project, "waiting", true).await.unwrap();
    run(&system.urls.database_url, "UPDATE daybook.leases SET expires_at = '2026-01-01' WHERE name = 'revenue'").await;
    let ill = check("--check").await;
    let stderr = String::from_utf8(ill.stderr).unwrap();
    assert_eq!((ill.status.code(), &*stderr), (Some(1), "daybook: revenue is frozen, waiting is paused\n"));
    let table = String::from_utf8(ill.stdout).unwrap();
    assert_eq!(table.lines().count(), Projection::all().count() + 2, "{table}");
    let listed = check("--json").await;
    assert_eq!(listed.status.code(), Some(0));
    let mut listed: Vec<Value> =
        String::from_utf8(listed.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let relay = listed.pop().unwrap();
    assert_eq!((&relay["relay"]["state"], &relay["relay"]["position"]), (&json!("current"), &json!(1)));

    let api = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    system.parts.client.flush().await.unwrap();
    let client = Client::new(system.parts.client.clone(), "test");
    let answer = client.query::<Vec<Value>>("projections.list", json!({}), None).await.unwrap();
    assert_eq!(answer.position, 1);
    let steady = |mut one: Value| {
        // It goes on with the clock.
        assert!(one["heartbeat_seconds_ago"].is_f64(), "{one}");
        one.as_object_mut().unwrap().remove("heartbeat_seconds_ago");
        one
    };
    let answered: Vec<Value> = answer.data.into_iter().map(steady).collect();
    assert_eq!(answered, listed.into_iter().map(steady).collect::<Vec<_>>());
    assert!(answered.iter().any(|one| one["projection"] == ReadModel::Revenue.name() && one["state"] == "frozen"));
    api.stop().await;
}
