//! The log in JetStream: at the sequence that is its position, whatever happens to either.

use crate::binary::until;
use crate::harness::{System, cut_off, envelope, folder, order_of, run};
use async_nats::jetstream::stream::{Config, Stream};
use futures_util::{FutureExt, StreamExt};
use order_views::CATEGORIES;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use runtime::executor::Outcome as Executed;
use runtime::message;
use runtime::process::jetstream;
use runtime::relay::{Relay, RelayError};
use runtime::step::{Outcome, Step};
use runtime::subject;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use tokio::runtime::Runtime;
use tokio::sync::watch;

async fn stream(system: &System) -> Stream {
    jetstream(&system.parts.client).get_stream(subject::STREAM).await.unwrap()
}

/// First and last sequence, and how many messages there are.
async fn window(system: &System) -> (u64, u64, u64) {
    let state = stream(system).await.info().await.unwrap().state.clone();
    (state.first_sequence, state.last_sequence, state.messages)
}

async fn receive(system: &System, times: usize) {
    for _ in 0..times {
        system.receive("mug", 1).await;
    }
}

fn another_relay(system: &System) -> (Relay, watch::Sender<i64>) {
    let (hint, hinted) = watch::channel(0);
    let parts = &system.parts;
    (Relay::new(parts.log.clone(), parts.project.clone(), jetstream(&parts.client), hinted), hint)
}

/// Invariant 11.
#[tokio::test]
async fn an_events_sequence_is_its_position() {
    let mut system = System::start().await;
    receive(&system, 3).await;
    system.relay().await;
    receive(&system, 2).await;
    system.relay().await;
    assert_eq!(window(&system).await, (1, 5, 5));
    for event in system.parts.log.read_all(0, 10).await.unwrap() {
        let message = stream(&system).await.get_raw_message(event.position as u64).await.unwrap();
        assert_eq!(message.payload, event.payload.as_bytes());
        let recorded =
            message::recorded(CATEGORIES, &message.subject, &message.headers, message.payload.clone()).unwrap();
        assert_eq!(recorded, event);
    }
}

/// Invariant 12: whatever is retried and however many relays run, nothing is in JetStream twice.
#[tokio::test]
async fn two_relays_at_once_publish_nothing_twice() {
    let mut system = System::start().await;
    let (mut second, _hint) = another_relay(&system);
    for _ in 0..5 {
        receive(&system, 20).await;
        for _ in 0..4 {
            let (a, b) = tokio::join!(system.relay.step(), second.step());
            // Who comes too late is told so, and looks again.
            assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
        }
    }
    system.relay().await;
    assert_eq!(window(&system).await, (1, 100, 100));
    system.project().await;
    system.assert_verified().await;
}

/// A server alone keeps a stream once. That stops no relay, and is not asked for again and again.
#[tokio::test]
async fn replicas_that_cannot_be_had_stop_nothing() {
    let mut system = System::start().await;
    let (relay, _hint) = another_relay(&system);
    let mut relay = relay.with_replicas(Some(3));
    let mut asked = system.parts.client.subscribe("$JS.API.STREAM.UPDATE.>").await.unwrap();
    receive(&system, 1).await;
    while relay.step().await.unwrap() != Outcome::Idle {}
    assert_eq!(window(&system).await, (1, 1, 1));
    for _ in 0..20 {
        // Another one is faster: so this one looks at the stream.
        receive(&system, 1).await;
        system.relay().await;
        while relay.step().await.unwrap() != Outcome::Again {}
        while relay.step().await.unwrap() != Outcome::Idle {}
    }
    let mut updates = 0;
    while let Some(Some(_)) = asked.next().now_or_never() {
        updates += 1;
    }
    assert!(updates < 10, "{updates} tries");
    assert_eq!(window(&system).await, (1, 21, 21));
}

/// Only every hundredth message is acknowledged. What is wrong with one in between is told all the same.
#[tokio::test]
async fn a_message_that_jetstream_refuses_is_named() {
    let mut system = System::start().await;
    receive(&system, 1).await;
    system.relay().await;
    let limit = async |system: &System, bytes| {
        let config = Config { max_message_size: bytes, ..stream(system).await.cached_info().config.clone() };
        jetstream(&system.parts.client).update_stream(config).await.unwrap();
    };
    limit(&system, 2000).await;
    receive(&system, 150).await;
    let lines: Vec<(String, u32, u128)> = (0..30).map(|n| (format!("mug-{n}"), 1, 1)).collect();
    let lines: Vec<(&str, u32, u128)> = lines.iter().map(|(sku, count, seller)| (&**sku, *count, *seller)).collect();
    system.place(order_of(&lines)).await;
    receive(&system, 150).await;
    let mut refused = Ok(Outcome::Idle);
    // A few steps: not one for each time that it is refused without a word.
    for _ in 0..20 {
        refused = system.relay.step().await;
        if !matches!(refused, Ok(Outcome::Worked(_) | Outcome::Again)) {
            break;
        }
    }
    assert!(
        matches!(&refused, Err(RelayError::Publish { after: 151, source }) if source.to_string().contains("exceeds")),
        "{refused:?}"
    );
    limit(&system, -1).await;
    system.relay().await;
    assert_eq!(window(&system).await, (1, 302, 302));
    system.project().await;
    system.assert_verified().await;
}

/// Invariant 15, wholly: the window begins again with what is still needed.
#[tokio::test]
async fn a_wiped_stream_is_refilled_from_the_lowest_checkpoint() {
    let mut system = System::start().await;
    receive(&system, 5).await;
    system.project().await;
    receive(&system, 3).await;
    system.relay().await;
    jetstream(&system.parts.client).delete_stream(subject::STREAM).await.unwrap();
    receive(&system, 2).await;
    // The relay was in the middle: it finds that the stream is gone, and makes it anew.
    assert!(system.relay.step().await.is_ok(), "it is not acknowledged yet");
    let lost = system.relay.step().await;
    assert!(lost.is_err(), "{lost:?}");
    system.relay().await;
    assert_eq!(window(&system).await, (6, 10, 5));
    system.project().await;
    system.assert_verified().await;
}

/// Invariant 15: also when nothing happens that would have to be published.
#[tokio::test]
async fn an_idle_relay_notices_that_the_stream_is_gone() {
    let mut system = System::start().await;
    receive(&system, 5).await;
    system.relay().await;
    let jetstream = jetstream(&system.parts.client);
    jetstream.delete_stream(subject::STREAM).await.unwrap();
    while jetstream.get_stream(subject::STREAM).await.is_err() {
        system.relay.step().await.unwrap();
    }
    system.relay().await;
    assert_eq!(window(&system).await, (1, 5, 5));
}

/// The fault: Postgres restored to an older state under services that go on. What JetStream has more is not believed.
#[tokio::test]
async fn events_that_the_log_no_longer_has_reach_no_read_model() {
    let mut system = System::start().await;
    receive(&system, 3).await;
    system.project().await;
    receive(&system, 2).await;
    system.relay().await;
    while system.feed.position() < 5 {
        system.feed.step().await.unwrap();
    }
    let restore = "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
        DELETE FROM daybook.events WHERE position > 3;
        ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only";
    run(&system.urls.database_url, restore).await;
    system.receive("hat", 1).await;
    for projector in &mut system.projectors {
        while projector.step().await.unwrap() != Outcome::Idle {}
    }
    let level = async |sku| order_views::stock_level::get(&system.parts.read, sku).await.unwrap().unwrap().on_hand;
    assert_eq!((level("mug").await, level("hat").await), (3, 1));
}

/// Invariant 15, and the fault: NATS killed and its whole store wiped.
#[tokio::test]
async fn a_nats_server_that_comes_back_empty_loses_nothing() {
    let mut system = System::start().await;
    receive(&system, 5).await;
    system.project().await;
    system.nats.kill9().await;
    // Commands need NATS only to be asked; the log takes them.
    receive(&system, 3).await;
    let store = system.nats.store_dir().to_owned();
    std::fs::remove_dir_all(store.join("jetstream")).unwrap();
    system.nats.restart().await.unwrap();
    while system.relay.step().await.ok() != Some(Outcome::Idle) {}
    assert_eq!(window(&system).await, (6, 8, 3));
    system.project().await;
    system.assert_verified().await;
}

/// Kills NATS, and has what it stored be what was in `folder`.
async fn come_back_with(system: &mut System, stored: &Path) {
    system.nats.kill9().await;
    let jetstream = system.nats.store_dir().join("jetstream");
    fs::remove_dir_all(&jetstream).unwrap();
    copy(stored, &jetstream);
    system.nats.restart().await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => _ = fs::copy(entry.path(), to.join(entry.file_name())).unwrap(),
        }
    }
}

/// What JetStream stores now, as a crash may leave it.
async fn stored(system: &mut System) -> PathBuf {
    system.nats.kill9().await;
    let stored = folder("stored").await;
    copy(&system.nats.store_dir().join("jetstream"), &stored);
    system.nats.restart().await.unwrap();
    stored
}

/// Has a relay publish all that there is, whatever it has to find out before.
async fn relay_all(relay: &mut Relay) {
    until("all is published", async || match relay.step().await {
        Ok(Outcome::Idle) => Some(()),
        Err(RelayError::Diverged(why)) => panic!("{why}"),
        Ok(Outcome::Worked(_) | Outcome::Again) | Err(_) => None,
    })
    .await;
}

/// Invariant 15, its tail: JetStream had acknowledged it, and has forgotten it.
#[tokio::test]
async fn a_stream_that_has_lost_its_tail_is_completed() {
    let mut system = System::start().await;
    receive(&system, 5).await;
    system.project().await;
    let stored = stored(&mut system).await;
    receive(&system, 3).await;
    relay_all(&mut system.relay).await;
    assert_eq!(window(&system).await, (1, 8, 8));
    // The projections have taken them in, or not.
    while system.feed.position() < 8 {
        system.feed.step().await.unwrap();
    }
    while system.projectors[1].step().await.unwrap() != Outcome::Idle {}
    come_back_with(&mut system, &stored).await;
    assert_eq!(window(&system).await, (1, 5, 5));
    receive(&system, 2).await;
    relay_all(&mut system.relay).await;
    assert_eq!(window(&system).await, (1, 10, 10));
    system.project().await;
    system.assert_verified().await;
}

/// What can become of JetStream, and of those that publish.
#[derive(Debug, Clone, Copy)]
enum Act {
    Append(usize),
    /// One of two relays goes on.
    Relay(bool),
    /// Its process ends in the middle, after so many turns of its task; another one is started.
    Crash(bool, usize),
    /// All is taken into the read models: what JetStream is made anew with begins after that.
    Project,
    Wipe,
    /// NATS is killed, and has lost what was published since it was `Kept`.
    Keep,
    LoseTail,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..30usize).prop_map(Act::Append),
        4 => any::<bool>().prop_map(Act::Relay),
        3 => (any::<bool>(), 0..30usize).prop_map(|(which, turns)| Act::Crash(which, turns)),
        1 => Just(Act::Project),
        1 => Just(Act::Wipe),
        1 => Just(Act::Keep),
        1 => Just(Act::LoseTail),
    ]
}

/// Invariants 11 (in the end, every event of the window is at the sequence that is its position), 12 (and nothing else is
/// there) and 15 (JetStream is wiped, wholly or its tail, and nothing is lost).
#[test]
fn whatever_becomes_of_relays_and_jetstream_every_event_is_at_its_position() {
    let runtime = Runtime::new().unwrap();
    let system = runtime.block_on(System::start());
    // It goes on where the run before has left it.
    let state = Mutex::new((system, None::<PathBuf>));
    let cases = std::env::var("PROPTEST_CASES").map_or(12, |cases| cases.parse().unwrap());
    let mut runner =
        TestRunner::new(Cases { cases, max_shrink_iters: 50, failure_persistence: None, ..Cases::default() });
    let proved = runner.run(&prop::collection::vec(act(), 1..16), |acts| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (system, kept) = &mut *state;
        runtime.block_on(async {
            let (mut one, _hint) = another_relay(system);
            let (mut other, _hint) = another_relay(system);
            for act in acts {
                match act {
                    Act::Append(events) => receive(system, events).await,
                    // What it cannot do now it does later.
                    Act::Relay(which) => _ = if which { &mut one } else { &mut other }.step().await,
                    Act::Crash(which, turns) => {
                        let relay = if which { &mut one } else { &mut other };
                        _ = cut_off(relay.step(), turns).await;
                        (*relay, _) = another_relay(system);
                    }
                    Act::Project => {
                        relay_all(&mut system.relay).await;
                        system.project().await;
                    }
                    Act::Wipe => _ = jetstream(&system.parts.client).delete_stream(subject::STREAM).await,
                    Act::Keep => *kept = Some(stored(system).await),
                    Act::LoseTail => {
                        if let Some(kept) = kept.take() {
                            come_back_with(system, &kept).await;
                        }
                    }
                }
            }
            relay_all(&mut one).await;
            // They may have looked just before the stream went; who begins looks first.
            let (mut last, _hint) = another_relay(system);
            relay_all(&mut last).await;
            system.project().await;
            system.assert_verified().await;
            let (first, last, messages) = window(system).await;
            let head = system.parts.log.head().await.unwrap() as u64;
            assert_eq!((last, messages), (head, head + 1 - first));
        });
        Ok(())
    });
    if let Err(e) = proved {
        panic!("{e}");
    }
}

/// Invariant 12: a stream that carries another log, or more than the log has, stops the relay.
#[tokio::test]
async fn a_stream_that_is_not_this_logs_stops_the_relay() {
    let mut system = System::start().await;
    receive(&system, 5).await;
    system.relay().await;
    // Postgres was restored to an older state, and other things happened since.
    let restore = "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
        DELETE FROM daybook.events WHERE position > 3;
        ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only";
    run(&system.urls.database_url, restore).await;
    let diverged = |result: Result<Outcome, RelayError>| matches!(result, Err(RelayError::Diverged(_)));
    let (mut behind, _hint) = another_relay(&system);
    assert!(diverged(behind.step().await));
    receive(&system, 2).await;
    let (mut other_history, _hint) = another_relay(&system);
    assert!(diverged(other_history.step().await));
    // Nor does the relay that was running go on, once it has something to publish.
    receive(&system, 1).await;
    assert_eq!(system.relay.step().await.unwrap(), Outcome::Again, "it finds that the log has another history");
    assert!(diverged(system.relay.step().await));
    assert_eq!(window(&system).await, (1, 5, 5));
}

/// Who has begun an epoch may have been killed before it made the stream anew.
#[tokio::test]
async fn a_stream_of_an_earlier_epoch_is_made_anew() {
    let mut system = System::start().await;
    receive(&system, 3).await;
    system.relay().await;
    run(&system.urls.database_url, "UPDATE daybook.log SET epoch = 2").await;
    let (mut relay, _hint) = another_relay(&system);
    relay_all(&mut relay).await;
    assert_eq!(window(&system).await, (1, 3, 3));
    system.project().await;
    system.assert_verified().await;
}

/// The fault: Postgres restored to an older state behind JetStream. `reconcile` puts it right, and is harmless else.
#[tokio::test]
async fn reconcile_puts_jetstream_right_after_a_restore() {
    let mut system = System::start().await;
    receive(&system, 5).await;
    system.project().await;
    for projector in &mut system.projectors {
        projector.end().await;
    }
    let reconcile = async || {
        let output = crate::harness::daybook_on(&system.urls).args(["reconcile", "--json"]).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!(reconcile().await, serde_json::json!({ "epoch": 1, "diverged": null }));
    let restore = "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
        DELETE FROM daybook.events WHERE position > 3;
        ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only;
        UPDATE daybook.checkpoints SET position = 3;
        UPDATE daybook.stock_level SET on_hand = 3, version = 3,
            changed_at = (SELECT recorded_at FROM daybook.events WHERE position = 3);
        UPDATE daybook.event_index SET offsets = offsets[:3]";
    run(&system.urls.database_url, restore).await;
    let reconciled = reconcile().await;
    assert_eq!(reconciled["epoch"], 2);
    assert!(reconciled["diverged"].is_string(), "{reconciled}");
    assert_eq!(reconcile().await["diverged"], serde_json::Value::Null);
    // The services are started again, on what is there.
    let mut system = System::on(system.urls.clone(), system.nats).await;
    receive(&system, 2).await;
    system.project().await;
    assert_eq!(window(&system).await, (4, 5, 2));
    system.assert_verified().await;
}

/// The fault: SIGSTOP of a process that answers commands. The other one goes on, and what the stopped one was asked is
/// recorded once.
#[tokio::test]
async fn a_stopped_command_service_does_not_stop_another() {
    let system = System::start().await;
    let mut stopped = crate::harness::daybook_on(&system.urls)
        .args(["serve", "--role", "commands"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let client = runtime::client::Client::new(system.parts.client.clone(), "test");
    let body = |n: u32| {
        let sku = orders::id::Sku::new("mug").unwrap();
        client.body(order_services::verbs::Receive { sku, quantity: n })
    };
    // It is there once it has answered.
    let first = body(1);
    while client.send(&first).await.is_err() {}
    let asked: Vec<_> = (0..200).map(|_| body(1)).collect();
    let answers = futures_util::future::join_all(asked.iter().map(|body| client.send(body)));
    let pid = rustix::process::Pid::from_raw(stopped.id().unwrap() as i32).unwrap();
    let stop = async {
        // In the middle of it.
        while system.parts.log.head().await.unwrap() < 20 {}
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        for _ in 0..20 {
            system.receive("hat", 1).await;
        }
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    };
    let (answers, ()) = tokio::join!(answers, stop);
    for (body, answer) in asked.iter().zip(answers) {
        let answer = answer.unwrap();
        let command = runtime::commands::Verb::command(body.data.clone());
        let mut again = envelope(body.command_id, command);
        again.actor = "test".into();
        let recorded: Executed = system.executor.execute(&again).await.unwrap();
        assert_eq!(recorded.position, answer.position);
    }
    assert_eq!(system.parts.log.head().await.unwrap(), 221);
    stopped.kill().await.unwrap();
}
