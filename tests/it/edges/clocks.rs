//! Clocks that go back, go ahead, or differ: what is stored of another time than now stops nothing, and nothing is stamped
//! with the future.
//!
//! That Postgres' clock has gone back by an hour is the same as that all stored stamps have gone on by one; so most stories
//! move the stamps.

use crate::binary::until;
use crate::harness::{
    Serving, System, append, binaries, database, daybook, daybook_on, executor, folder, migrate, new_order, order_of,
    receive, reserve, run, start_nats, stream, to,
};
use crate::read_side::taking_over::until_owned_by_another;
use chrono::{DateTime, TimeDelta, Utc};
use order_services::policy::Timeouts;
use order_services::verbs::Receive;
use order_views::CATEGORIES;
use order_views::Orders;
use order_views::Projection;
use orders::id::Sku;
use runtime::archive;
use runtime::client::Client;
use runtime::process::Urls;
use runtime::process::connect_nats;
use runtime::step::Step;
use runtime::sweeper::Sweeper;
use servers::{Binaries, Postgres, PostgresOptions, Program};
use sqlx::{AssertSqlSafe, PgPool, query_as, query_scalar};
use std::fs::{self, Permissions};
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::connect::{self, Role};
use store::{AppendError, Appender, ExpectedVersion, checkpoint, clock, lease};
use uuid::Uuid;

const HOUR: i64 = 60 * 60;

/// Postgres' clock has gone back by so many seconds: what is stored is later by as much.
async fn clock_goes_back(system: &System, seconds: i64) {
    let later = format!(
        "UPDATE daybook.leases SET expires_at = expires_at + interval '{seconds} s';
         UPDATE daybook.checkpoints SET moved_at = moved_at + interval '{seconds} s';
         UPDATE daybook.follow_ups SET due_at = due_at + interval '{seconds} s'"
    );
    run(&system.urls.database_url, &later).await;
}

/// The log was stamped by a clock that was ahead by so many seconds. Nobody has read it yet.
async fn stamps_are_ahead(url: &str, seconds: i64) {
    let later = format!(
        "ALTER TABLE daybook.events DISABLE TRIGGER ALL;
         UPDATE daybook.events SET recorded_at = recorded_at + interval '{seconds} s';
         DO $$
         DECLARE
             chained bytea := decode(repeat('00', 32), 'hex');
             before  bigint := 0;
             of_group record;
         BEGIN
             FOR of_group IN SELECT position FROM daybook.events WHERE link IS NOT NULL ORDER BY position LOOP
                 SELECT sha256(chained || int8send(before + 1) || timestamptz_send(min(e.recorded_at))
                               || string_agg(int8send(e.version) || daybook.event_digest(e), '' ORDER BY e.position))
                   INTO chained
                   FROM daybook.events AS e WHERE e.position > before AND e.position <= of_group.position;
                 UPDATE daybook.events SET link = chained WHERE position = of_group.position;
                 before := of_group.position;
             END LOOP;
         END
         $$;
         ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only"
    );
    run(url, &later).await;
}

/// In how many seconds the one timer that is set fires.
async fn fires_in(system: &System) -> f64 {
    let left = "SELECT extract(epoch FROM fires_at - clock_timestamp())::float8 FROM daybook.timers";
    query_scalar(left).fetch_one(&system.parts.read).await.unwrap()
}

/// Lets so many seconds pass, to leases.
async fn leases_pass(system: &System, seconds: i64) {
    let earlier = format!("UPDATE daybook.leases SET expires_at = expires_at - interval '{seconds} s'");
    run(&system.urls.database_url, &earlier).await;
}

/// For how many seconds a lease is still held, as it is stored.
async fn held_for(system: &System, name: &str) -> f64 {
    let left = "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM daybook.leases WHERE name = $1";
    query_scalar(left).bind(name).fetch_one(&system.parts.read).await.unwrap()
}

#[tokio::test]
async fn a_lease_ends_no_later_than_its_length_from_now_whatever_is_stored() {
    let system = System::start().await;
    let (pool, [a, b]) = (&system.parts.project, [1, 2].map(Uuid::from_u128));
    let length = lease::DURATION.as_secs_f64();
    let first = lease::acquire(pool, "test", a).await.unwrap().unwrap();
    for ahead in ["interval '1 h'", "interval '4 s'", "interval '100 years'", "'infinity'"] {
        let stored = format!("UPDATE daybook.leases SET expires_at = clock_timestamp() + {ahead}");
        let stored = stored.replace("clock_timestamp() + 'infinity'", "'infinity'");
        run(&system.urls.database_url, &stored).await;
        // It is not taken from an owner that may be alive and well: that has its time to renew it.
        assert_eq!(lease::acquire(pool, "test", b).await.unwrap(), None, "{ahead}");
        assert!(held_for(&system, "test").await <= length, "{ahead}");
        assert_eq!(lease::acquire(pool, "test", a).await.unwrap(), Some(first), "{ahead}");
        assert!(held_for(&system, "test").await <= length, "{ahead}");
    }
    // Who asks again and again does not make it longer.
    clock_goes_back(&system, HOUR).await;
    assert_eq!(lease::acquire(pool, "test", b).await.unwrap(), None);
    leases_pass(&system, 2).await;
    assert_eq!(lease::acquire(pool, "test", b).await.unwrap(), None);
    assert!(held_for(&system, "test").await <= length - 2.0);
    leases_pass(&system, 1).await;
    let second = lease::acquire(pool, "test", b).await.unwrap().unwrap();
    assert_eq!((second.owner, second.fence), (b, first.fence + 1));
    assert_eq!(lease::acquire(pool, "test", a).await.unwrap(), None);
}

/// The story: the owner is killed, and the clock goes back by an hour.
#[tokio::test]
async fn another_process_takes_over_from_an_owner_of_before_the_clock_went_back() {
    let mut killed = System::start().await;
    killed.receive("mug", 1).await;
    killed.settle().await;
    assert!(held_for(&killed, "stock_level").await > 0.0);
    clock_goes_back(&killed, HOUR).await;
    let System { urls, nats, .. } = killed;
    let mut system = System::on(urls, nats).await;
    system.receive("mug", 2).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    let step_all = async |system: &mut System| {
        for projector in &mut system.projectors {
            projector.step().await.unwrap();
        }
        system.sender.step().await.unwrap();
    };
    // They ask once. Then the leases end like any other.
    step_all(&mut system).await;
    leases_pass(&system, 3).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    system.assert_verified().await;
}

/// What was to be done at once, or after a short wait, before the clock went back.
#[tokio::test]
async fn what_follows_does_not_wait_for_the_clock_to_come_there() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.project().await;
    // One was tried before, and waits.
    run(&system.urls.database_url, "UPDATE daybook.follow_ups SET attempts = 3").await;
    clock_goes_back(&system, HOUR).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    system.assert_verified().await;
}

/// One event from the future, as after a jump of the clock: what is recorded later carries its time on. A timer that is set
/// by it counts from the present.
#[tokio::test]
async fn a_timer_is_not_late_by_as_much_as_a_stamp_is_ahead() {
    let mut system = System::start().await;
    let url = system.urls.database_url.clone();
    receive(&executor(&url), "mug", 5).await;
    stamps_are_ahead(&url, 64 * 365 * 24 * HOUR).await;
    system.executor.execute(&reserve(new_order(), "mug", 1)).await.unwrap();
    system.project().await;
    let stamps = "SELECT count(*) FROM daybook.events WHERE recorded_at > clock_timestamp() + interval '60 years'";
    assert_eq!(query_scalar::<_, i64>(stamps).fetch_one(&system.parts.read).await.unwrap(), 2);
    assert_eq!(system.sweep().await, 0);
    let left = fires_in(&system).await;
    assert!((0.0..=60.0).contains(&left), "{left}");
    system.assert_verified().await;
    // Also if it was written before the clock went back.
    let before =
        "UPDATE daybook.timers AS t SET counted_from = e.recorded_at, fires_at = e.recorded_at + interval '60 s'
                  FROM daybook.events AS e WHERE e.position = t.position";
    run(&url, before).await;
    assert_eq!(system.sweep().await, 0);
    let left = fires_in(&system).await;
    assert!((0.0..=60.0).contains(&left), "{left}");
    system.assert_verified().await;
    run(&url, "UPDATE daybook.timers SET fires_at = fires_at - interval '1 s'").await;
    assert!(!system.verify().await.agrees());
    system.pass(59).await;
    assert_eq!(system.sweep().await, 1);
    system.settle().await;
    assert_eq!(system.stock_of("mug").await, (5, 0));
    system.assert_verified().await;
    // It is told.
    let (code, said) = check(&system).await;
    assert!(code == Some(1) && said.contains("the last event is stamped 20"), "{said}");
}

/// What `daybook projections list --check` says.
async fn check(system: &System) -> (Option<i32>, String) {
    let output = daybook_on(&system.urls).args(["projections", "list", "--check"]).output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn the_check_finds_an_owner_whose_heartbeats_are_in_the_future() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    clock_goes_back(&system, HOUR).await;
    let (code, said) = check(&system).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stock_level is frozen"), "{said}");
}

#[tokio::test]
async fn the_check_knows_that_the_relay_stands_still() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    system.nats.stop().await;
    system.receive("mug", 1).await;
    // What is sent waits for the connection: that there is no answer, it notices later.
    while system.relay.step().await.is_ok() {}
    let (code, said) = check(&system).await;
    assert!(code == Some(1) && said.contains("the relay"), "{said}");
}

/// Nothing is stamped while the clocks differ, and nothing is left of the try.
#[tokio::test]
async fn an_append_is_refused_while_the_clocks_differ() {
    let system = System::start().await;
    let url = &system.urls.database_url;
    // No two clocks agree to the nanosecond.
    let strict = Appender::start_tolerating(url, Duration::ZERO).unwrap();
    let first = append(vec![to(stream(1), ExpectedVersion::NoStream, 1)]);
    for _ in 0..2 {
        match strict.append(first.clone()).await.unwrap_err() {
            AppendError::ClocksDiffer(why) => {
                assert!(why.to_string().starts_with("Postgres' clock is more than 0 s "), "{why}");
            }
            e => panic!("{e}"),
        }
    }
    assert_eq!(system.parts.log.head().await.unwrap(), 0);
    // Also of what is written while the log is held, and by the short way.
    let lenient = Appender::start(url).unwrap();
    lenient.append(first).await.unwrap();
    let held = strict.lock_log().await.unwrap();
    let second = append(vec![to(stream(1), ExpectedVersion::Exact(1), 1)]);
    let submitted = strict.submit(second.clone(), vec![]).await.unwrap();
    drop(held);
    assert!(matches!(submitted.written().await, Err(AppendError::ClocksDiffer(_))));
    lenient.append(second).await.unwrap();
    lenient.append(append(vec![to(stream(1), ExpectedVersion::Exact(2), 1)])).await.unwrap();
    assert_eq!(system.parts.log.head().await.unwrap(), 3);
    // Either way, and by the roles that need it.
    for (role, clock, refused) in [
        (Role::Append, "clock_timestamp() - interval '6 s'", true),
        (Role::Append, "clock_timestamp() + interval '6 s'", true),
        (Role::Project, "clock_timestamp() + interval '4 s'", false),
        (Role::Append, "NULL", true),
    ] {
        let pool = connect::pool(url, role, 1).unwrap();
        let checked = AssertSqlSafe(format!("SELECT daybook.check_clock({clock}, 5)"));
        let error = sqlx::query(checked).execute(&pool).await.err();
        assert_eq!(error.as_ref().is_some_and(clock::differ), refused, "{clock}: {error:?}");
    }
}

/// The fault: Postgres' clock jumps ahead. Nothing ends early, and nothing is tried in vain until it is given up.
#[tokio::test]
async fn nothing_fires_and_nothing_is_sent_while_the_clocks_differ() {
    let strict = Timeouts { clock_tolerance: Duration::ZERO, ..Timeouts::default() };
    let mut system = System::start_at(strict).await;
    system.receive("mug", 5).await;
    system.place(order_of(&[("mug", 1, 1)])).await;
    system.project().await;
    system.pass(24 * HOUR).await;
    let mut sweeper = Sweeper::<Orders>::new(system.parts.project.clone(), Arc::default()).tolerating(Duration::ZERO);
    for _ in 0..3 {
        assert!(sweeper.step().await.is_err_and(|e| clock::differ(&e)));
        assert!(system.sender.step().await.is_err_and(|e| clock::differ(&e)));
    }
    let left = "SELECT (SELECT count(*) FROM daybook.timers),
                       (SELECT count(*) FROM daybook.follow_ups WHERE state = 'due' AND attempts = 0)";
    let left: (i64, i64) = query_as(left).fetch_one(&system.parts.read).await.unwrap();
    assert_eq!(left, (1, 1));
    assert_eq!(system.sweep().await, 1);
}

#[tokio::test]
async fn an_import_refuses_events_from_the_future() {
    let (from, to) = tokio::join!(database(), database());
    let from_executor = executor(&from);
    for sku in ["mug", "hat", "cup"] {
        receive(&from_executor, sku, 1).await;
    }
    let export = async || {
        let output = daybook().env("DATABASE_URL", &from).args(["export", "-"]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        output.stdout
    };
    run(
        &from,
        "ALTER TABLE daybook.events DISABLE TRIGGER ALL;
                UPDATE daybook.events SET recorded_at = '2090-01-01' WHERE position > 1",
    )
    .await;
    stamps_are_ahead(&from, 0).await;
    let refused = archive::import(&to, CATEGORIES, &Projection::EFFECTS, Cursor::new(export().await), |_, _| {})
        .await
        .unwrap_err();
    let archive::ImportError::Line { line: 2, why } = &refused else { panic!("{refused}") };
    assert!(why.contains("position 2 was recorded at 2090-01-01") && why.ends_with("from the future"), "{why}");
    let pool = connect::pool(&to, Role::Read, 1).unwrap();
    assert_eq!(query_scalar::<_, i64>("SELECT count(*) FROM daybook.events").fetch_one(&pool).await.unwrap(), 0);
    // What two clocks may differ by is not the future.
    run(
        &from,
        "ALTER TABLE daybook.events DISABLE TRIGGER ALL;
                UPDATE daybook.events SET recorded_at = clock_timestamp() + interval '2 s'",
    )
    .await;
    stamps_are_ahead(&from, 0).await;
    assert_eq!(
        archive::import(&to, CATEGORIES, &Projection::EFFECTS, Cursor::new(export().await), |_, _| {}).await.unwrap(),
        3
    );
}

/// Where Debian has it.
fn libfaketime() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let found = libraries.map(|dir| dir.join("faketime/libfaketime.so.1")).find(|library| library.exists());
    found.expect("this story moves a server's clock by libfaketime: run `.ci/test-servers`")
}

/// A Postgres whose clock can be moved.
struct Moved {
    postgres: Postgres,
    offset: PathBuf,
}

impl Moved {
    async fn start() -> Self {
        let folder = folder("moved").await;
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o711)).unwrap();
        let (program, offset) = (folder.join("postgres"), folder.join("offset"));
        fs::write(&offset, "+0").unwrap();
        let binaries = binaries().await;
        let script = format!(
            "#!/bin/sh\nFAKETIME_TIMESTAMP_FILE='{}' FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 LD_PRELOAD='{}' \\\n\
             exec '{}' \"$@\"\n",
            offset.display(),
            libfaketime().display(),
            binaries.postgres.path.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&offset, Permissions::from_mode(0o644)).unwrap();
        let binaries = Binaries { postgres: Program { path: program, ..binaries.postgres }, ..binaries };
        let options = PostgresOptions { data_dir: folder.join("data"), durable: false };
        let postgres = Postgres::start(&binaries, options, &|_: &str| {}).await.unwrap();
        Self { postgres, offset }
    }

    /// Its clock is off by so many seconds from now on.
    fn is_off_by(&self, seconds: i64) {
        fs::write(&self.offset, format!("{seconds:+}")).unwrap();
    }
}

/// The fault, for real: Postgres' clock an hour back, and ahead, and its owner killed meanwhile.
#[tokio::test]
async fn an_hour_back_or_ahead_stops_nothing_for_longer_than_it_lasts() {
    let (moved, nats) = tokio::join!(Moved::start(), start_nats());
    let urls = Urls { database_url: moved.postgres.url("postgres"), nats_url: nats.url() };
    migrate(&urls.database_url).await;
    let superuser = PgPool::connect(&urls.database_url).await.unwrap();
    let client = Client::new(connect_nats(&urls.nats_url, "test").await.unwrap(), "test");
    let receive = async || {
        let body = client.body(Receive { sku: Sku::new("mug").unwrap(), quantity: 1 });
        client.send(&body).await.map(|reply| reply.position).map_err(|e| e.to_string())
    };
    let is_at = async |position: i64| {
        until("every projection is there", async || {
            let live = checkpoint::live(&superuser).await.unwrap();
            live.iter().all(|(_, at)| *at >= position).then_some(())
        })
        .await;
    };
    let check = async || {
        let output = daybook_on(&urls).args(["projections", "list", "--check"]).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let mut owner = None;
    let mut serving = Serving::start(&urls).await;
    for (offset, word) in [(-HOUR, "behind"), (HOUR, "ahead of")] {
        owner = Some(until_owned_by_another(&superuser, owner).await);
        let before = until("it takes commands", async || receive().await.ok()).await;
        is_at(before).await;
        // The clock jumps while the owner is killed. Another process goes on with what is there, and records nothing.
        moved.is_off_by(offset);
        if offset > 0 {
            // It is killed once it has a lease that ends in an hour.
            let ahead = "SELECT count(*) FROM daybook.leases WHERE expires_at > $1";
            until("it has renewed its leases", async || {
                let soon = Utc::now() + TimeDelta::minutes(30);
                (query_scalar::<_, i64>(ahead).bind(soon).fetch_one(&superuser).await.unwrap() > 0).then_some(())
            })
            .await;
        }
        serving.kill().await;
        serving = Serving::start(&urls).await;
        let refused = receive().await.unwrap_err();
        let differs =
            |seconds| refused.contains(&format!("clock is more than {seconds} s {word} that of this process"));
        assert!(differs(3599) || differs(3600), "{refused}");
        let (code, said) = check().await;
        assert!(code == Some(1) && said.contains(&format!("Postgres' clock is 3600.0 s {word} that of")), "{said}");
        owner = Some(until_owned_by_another(&superuser, owner).await);
        let head = "SELECT max(position), max(recorded_at) FROM daybook.events";
        let (head, last): (i64, DateTime<Utc>) = query_as(head).fetch_one(&superuser).await.unwrap();
        assert!(head == before && last <= Utc::now(), "{head} {last}");
        // It is set right while that owner is killed.
        moved.is_off_by(0);
        serving.kill().await;
        serving = Serving::start(&urls).await;
    }
    until_owned_by_another(&superuser, owner).await;
    is_at(until("it takes commands", async || receive().await.ok()).await).await;
    until("all is well", async || (check().await.0 == Some(0)).then_some(())).await;
    assert!(serving.end().await.success());
}
