//! What NATS does not carry: answers and events beyond its `max_payload`, whenever that is set.

use crate::binary::until;
use crate::harness::{System, database, daybook_on, order_of, start_nats};
use order_services::process::connect_to;
use order_services::queries;
use orders::order::PlaceOrder;
use runtime::health;
use runtime::message;
use runtime::process::Urls;
use runtime::process::{StartError, connect_nats, jetstream};
use runtime::relay::RelayError;
use runtime::step::Step;
use runtime::subject;
use runtime::wire::Code;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use servers::Nats;
use std::fs;
use store::Position;
use uuid::Uuid;

/// Has NATS carry so many bytes from now on, without a restart.
async fn set_max_payload(nats: &Nats, bytes: usize) {
    let file = nats.configuration_file();
    let settings = fs::read_to_string(&file).unwrap();
    let others = settings.lines().filter(|line| !line.starts_with("max_payload"));
    let settings: Vec<String> = others.map(str::to_owned).chain([format!("max_payload: {bytes}\n")]).collect();
    fs::write(&file, settings.join("\n")).unwrap();
    kill_process(Pid::from_raw(nats.pid() as i32).unwrap(), Signal::HUP).unwrap();
    until("NATS has read its configuration", async || {
        let client = connect_nats(&nats.url(), "test").await.unwrap();
        (client.max_payload() == bytes).then_some(())
    })
    .await;
}

/// An order of 200 lines, whose row is as large as one can be.
fn large_order() -> PlaceOrder {
    let skus: Vec<String> = (0..200).map(|n| format!("{n:0>64}")).collect();
    order_of(&skus.iter().map(|sku| (&**sku, 1, 1)).collect::<Vec<_>>())
}

/// The story: a list of 80 orders of 200 lines got no answer at all.
#[tokio::test]
async fn a_list_ends_where_a_message_is_full_and_says_where_it_goes_on() {
    let mut system = System::start().await;
    let service = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    let placed = (0..80).map(|_| system.place(large_order()));
    let mut placed: Vec<Uuid> = futures_util::future::join_all(placed).await.into_iter().map(|id| id.0).collect();
    system.project().await;
    let client = &system.parts.client;
    let mut data = json!({ "limit": 80 });
    let (mut pages, mut listed) = (0, Vec::new());
    loop {
        let subject = format!("{}.order_summary.list", subject::QUERIES);
        let answer = client.request(subject, json!({ "data": data }).to_string().into()).await.unwrap();
        assert!(answer.payload.len() <= client.max_payload());
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        let rows = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert!(rows.len() < 80);
        listed.extend(rows.iter().map(|row| row["order_id"].as_str().unwrap().parse::<Uuid>().unwrap()));
        pages += 1;
        match answer.get("next") {
            Some(next) => {
                let last = rows.last().unwrap();
                assert_eq!(*next, json!({ "placed_at": last["placed_at"], "order_id": last["order_id"] }));
                data["after"] = next.clone();
            }
            None => break,
        }
    }
    assert_eq!(pages, 2);
    placed.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, placed);
    // Who uses the command line notices nothing of it.
    let orders = daybook_on(&system.urls).args(["orders", "--limit", "79", "--json"]).output().await.unwrap();
    assert_eq!(String::from_utf8(orders.stdout).unwrap().lines().count(), 79);
    // One row alone may be too large: then it is said, to whoever asks for it.
    set_max_payload(&system.nats, 8_000).await;
    client.force_reconnect().await.unwrap();
    until("the client knows of it", async || (client.max_payload() == 8_000).then_some(())).await;
    client.flush().await.unwrap();
    let client = runtime::client::Client::new(client.clone(), "test");
    for (verb, data) in [("order_summary.list", json!({})), ("order_summary.get", json!({ "order_id": placed[0] }))] {
        let refused = client.query::<Value>(verb, data, None).await.unwrap_err();
        let runtime::client::ClientError::Refused(error) = refused else { panic!("{refused}") };
        assert_eq!((error.code, error.retry), (Code::TooLarge, false), "{verb}: {error}");
    }
    service.stop().await;
}

#[tokio::test]
async fn nothing_starts_on_a_nats_that_does_not_carry_every_event() {
    let (database_url, nats) = tokio::join!(database(), start_nats());
    let urls = Urls { database_url, nats_url: nats.url() };
    set_max_payload(&nats, message::MAX_MESSAGE - 1).await;
    match connect_to(&urls).await.err() {
        Some(StartError::MaxPayload { is, needed }) => {
            assert_eq!((is, needed), (message::MAX_MESSAGE - 1, message::MAX_MESSAGE));
        }
        other => panic!("{other:?}"),
    }
    let served = daybook_on(&urls).arg("serve").output().await.unwrap();
    let said = String::from_utf8(served.stderr).unwrap();
    let sentence = "daybook: NATS' max_payload is 133119 bytes, and an event's message may have 133120: set max_payload to \
                    133120 or more in the configuration of nats-server";
    assert_eq!((served.status.code(), said.lines().last()), (Some(3), Some(sentence)));
    set_max_payload(&nats, message::MAX_MESSAGE).await;
    assert!(connect_to(&urls).await.is_ok());
}

/// The fault: max_payload lowered. The relay stands at the event, and says so; once it is raised, it goes on.
#[tokio::test]
async fn the_relay_waits_for_a_max_payload_that_carries_the_next_event() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.relay().await;
    set_max_payload(&system.nats, 4_000).await;
    system.receive("mug", 1).await;
    system.place(large_order()).await;
    system.receive("mug", 1).await;
    let head = system.parts.log.head().await.unwrap();
    // The server ends the connection of who sends too much. Whoever connects is told the limit.
    let mut refused = None;
    for _ in 0..20 {
        match system.relay.step().await {
            Err(e @ RelayError::TooLarge { .. }) => {
                refused = Some(e);
                break;
            }
            Err(_) | Ok(_) => tokio::task::yield_now().await,
        }
    }
    let refused = refused.expect("it says what is too large");
    assert!(
        refused
            .to_string()
            .starts_with("the event at position 3 needs a message that is larger than NATS' max_payload")
    );
    assert!(refused.to_string().contains("4000 bytes: set it to 133120 or more"), "{refused}");
    let told = health::relay(&system.parts.read).await.unwrap();
    assert_eq!((told.state, told.position, told.lag_events), (health::State::Stopped, 2, head - 2));
    assert_eq!(told.last_error, Some(refused.to_string()));
    // It does not stop for ever.
    set_max_payload(&system.nats, 1024 * 1024).await;
    until("the relay has gone on", async || {
        _ = system.relay.step().await;
        let told = health::relay(&system.parts.read).await.unwrap();
        (told.position == head && told.last_error.is_none()).then_some(())
    })
    .await;
    let stream = jetstream(&system.parts.client).get_stream(subject::STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.last_sequence as Position, head);
    system.project().await;
    system.assert_verified().await;
}
