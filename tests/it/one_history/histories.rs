//! Another history of the log: after a failover that loses events, a restore, or with a database that is only a copy. And
//! messages that are not the log's. Whatever becomes of it, nothing of the lost events has an effect.

use crate::binary::until;
use crate::harness::{
    Serving, System, daybook_on, envelope, new_order, order_of, receipt, run, start_nats, start_postgres,
};
use crate::one_history::failover::Primary;
use async_nats::HeaderMap;
use async_nats::jetstream::stream::Stream;
use engine::follow_up::{self, Settlement};
use order_services::ExecuteError;
use order_services::queries;
use order_services::verbs::Receive;
use order_views::CATEGORIES;
use order_views::Orders;
use order_views::stock_level;
use orders::id::Sku;
use orders::reaction::Act;
use orders::{Command, order};
use runtime::client::Client;
use runtime::message;
use runtime::process::Urls;
use runtime::process::{connect_nats, jetstream};
use runtime::relay::{Relay, RelayError};
use runtime::step::{Outcome, Step};
use runtime::subject;
use serde_json::json;
use servers::Nats;
use sqlx::{PgPool, query_as, query_scalar};
use std::time::Duration;
use store::connect::{self, Role};
use store::{Import, Log, Mark, Position, RecordedEvent, Seen, lease};
use tokio::sync::watch;
use uuid::Uuid;

/// What runs at the addresses of a primary and of NATS.
struct World {
    primary: Primary,
    /// Kept: it ends with its handle.
    _nats: Nats,
    urls: Urls,
    client: Client,
}

impl World {
    async fn start() -> Self {
        let (primary, nats) = tokio::join!(Primary::start(), start_nats());
        let urls = Urls { database_url: primary.url(), nats_url: nats.url() };
        let client = Client::new(connect_nats(&urls.nats_url, "test").await.unwrap(), "test");
        Self { primary, _nats: nats, urls, client }
    }

    /// Receives one piece of a SKU so many times, whatever has to be tried again; returns the last position.
    async fn receive(&self, sku: &str, times: usize) -> Position {
        let mut position = 0;
        for _ in 0..times {
            let receive = Receive { sku: Sku::new(sku).unwrap(), quantity: 1 };
            position = self.client.command(receive, Duration::from_secs(60)).await.unwrap().position;
        }
        position
    }

    /// Returns once all that the log has is relayed and projected, and nothing differs.
    async fn until_verified(&self) {
        until("all agrees", async || self.verify().await.status.success().then_some(())).await;
    }

    async fn verify(&self) -> std::process::Output {
        daybook_on(&self.urls).args(["verify", "--wait", "1"]).output().await.unwrap()
    }

    /// Pieces on hand, by the read model.
    async fn on_hand(&self, sku: &str) -> i64 {
        stock_level::get(&self.superuser().await, sku).await.unwrap().map_or(0, |level| level.on_hand)
    }

    async fn superuser(&self) -> PgPool {
        PgPool::connect(&self.urls.database_url).await.unwrap()
    }

    /// The positions of the messages that an epoch began without.
    async fn lost(&self, epoch: i64) -> Vec<Position> {
        let lost = query_scalar("SELECT position FROM daybook.lost_events WHERE epoch = $1 ORDER BY position");
        lost.bind(epoch).fetch_all(&self.superuser().await).await.unwrap()
    }

    async fn epoch(&self) -> i64 {
        query_scalar("SELECT epoch FROM daybook.log").fetch_one(&self.superuser().await).await.unwrap()
    }

    async fn stream(&self) -> Stream {
        let client = connect_nats(&self.urls.nats_url, "test").await.unwrap();
        jetstream(&client).get_stream(subject::STREAM).await.unwrap()
    }

    /// The log's history at another address than the services'.
    fn relay(&self, client: &async_nats::Client, database_url: &str) -> Relay {
        let pool = connect::pool(database_url, Role::Project, 2).unwrap();
        let log = Log::new(pool.clone(), CATEGORIES);
        Relay::new(log, pool, jetstream(client), watch::channel(0).1)
    }

    async fn reconcile(&self) -> String {
        let output = daybook_on(&self.urls).args(["reconcile"]).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }
}

/// Invariant 26, and the fault: failover to a replica that lacks the last events, services running. No operator is needed.
#[tokio::test]
async fn a_failover_under_live_services_leaves_no_trace_of_the_lost_events() {
    let mut world = World::start().await;
    let serving = Serving::start(&world.urls).await;
    world.receive("mug", 5).await;
    let replica = world.primary.replica().await;
    replica.catch_up(&world.primary).await;
    replica.cut_off().await;
    // Acknowledged, relayed and projected; and the replica never hears of it.
    let last = world.receive("mug", 3).await;
    until("they are projected", async || (world.on_hand("mug").await == 8).then_some(())).await;
    until("they are relayed", async || {
        let end = world.stream().await.cached_info().state.last_sequence as Position;
        (end == last).then_some(())
    })
    .await;
    world.primary.fail_over(replica).await;
    world.receive("hat", 4).await;
    world.until_verified().await;
    assert_eq!((world.on_hand("mug").await, world.on_hand("hat").await), (5, 4));
    assert_eq!((world.epoch().await, world.lost(2).await), (2, vec![6, 7, 8]));
    let info = world.stream().await;
    let server = message::server(&info.cached_info().config).unwrap();
    assert_eq!(server.timeline, 2, "the stream says on which timeline the log is");
    // What was kept can be read: it is the three receipts.
    let kept: Vec<String> = query_scalar("SELECT convert_from(payload, 'UTF8') FROM daybook.lost_events")
        .fetch_all(&world.superuser().await)
        .await
        .unwrap();
    assert!(kept.iter().all(|payload| payload.contains("mug")), "{kept:?}");
    assert!(serving.end().await.success());
}

/// Invariant 26: the same with services stopped; and a client sends again what it was told was recorded.
#[tokio::test]
async fn a_failover_with_services_stopped_leaves_no_trace_of_the_lost_events() {
    let mut world = World::start().await;
    let serving = Serving::start(&world.urls).await;
    world.receive("mug", 2).await;
    let replica = world.primary.replica().await;
    replica.catch_up(&world.primary).await;
    replica.cut_off().await;
    let lost = world.client.body(Receive { sku: Sku::new("mug").unwrap(), quantity: 10 });
    let before = world.client.send(&lost).await.unwrap();
    until("it is projected", async || (world.on_hand("mug").await == 12).then_some(())).await;
    assert!(serving.end().await.success());
    world.primary.fail_over(replica).await;
    let serving = Serving::start(&world.urls).await;
    // It is recorded where it was: with another event before it, and the id that it had.
    let again = world.client.send(&lost).await.unwrap();
    assert_eq!((again.recorded, again.position), (true, before.position));
    world.receive("hat", 1).await;
    world.until_verified().await;
    assert_eq!((world.on_hand("mug").await, world.on_hand("hat").await), (12, 1));
    assert!(serving.end().await.success());
}

/// Invariant 26, and the fault: Postgres restored to an older state behind JetStream, on the same timeline. That may be a
/// copy that must not touch this stream: so the relay stops, and the log goes on without it until an operator decides.
#[tokio::test]
async fn a_restore_of_the_same_timeline_waits_for_an_operator() {
    let mut world = World::start().await;
    world.receive_without_relay("mug", 2).await;
    let copy = world.primary.copy().await;
    let serving = Serving::start(&world.urls).await;
    world.receive("mug", 3).await;
    world.until_verified().await;
    assert!(serving.end().await.success());
    world.primary.replace(copy).await;
    let serving = Serving::start(&world.urls).await;
    world.receive("hat", 2).await;
    until("the relay says what to do", async || serving.messages().contains("run `daybook reconcile`").then_some(()))
        .await;
    // The read models go on from the log: JetStream's messages prove nothing.
    until("the hats are there", async || (world.on_hand("hat").await == 2).then_some(())).await;
    assert_eq!((world.on_hand("mug").await, world.epoch().await), (2, 1));
    assert!(!world.verify().await.status.success(), "JetStream carries another history");
    let told = world.reconcile().await;
    assert!(told.contains("the log goes on in epoch 2"), "{told}");
    world.until_verified().await;
    assert_eq!((world.on_hand("mug").await, world.on_hand("hat").await), (2, 2));
    assert_eq!(world.lost(2).await, [3, 4, 5]);
    assert!(serving.end().await.success());
}

/// Invariant 26, and the fault: the old primary comes back, behind a stream that the new one has filled.
#[tokio::test]
async fn an_old_primary_that_comes_back_publishes_nothing() {
    let mut world = World::start().await;
    let serving = Serving::start(&world.urls).await;
    world.receive("mug", 2).await;
    let replica = world.primary.replica().await;
    replica.catch_up(&world.primary).await;
    replica.cut_off().await;
    world.receive("mug", 1).await;
    until("it is projected", async || (world.on_hand("mug").await == 3).then_some(())).await;
    let old = world.primary.fail_over(replica).await;
    world.receive("hat", 3).await;
    world.until_verified().await;
    let before = world.stream().await.cached_info().clone();
    assert!(serving.end().await.success());

    let new = world.primary.replace(old).await;
    let nats = connect_nats(&world.urls.nats_url, "test").await.unwrap();
    let mut relay = world.relay(&nats, &world.urls.database_url);
    let refused = relay.step().await;
    assert!(matches!(&refused, Err(RelayError::Diverged(why)) if why.contains("a former primary")), "{refused:?}");
    let after = world.stream().await.cached_info().clone();
    assert_eq!((after.created, after.state.last_sequence), (before.created, before.state.last_sequence));
    assert_eq!(after.config.metadata, before.config.metadata);
    // The new one is put back: nothing has happened to it.
    world.primary.replace(new).await;
    world.until_verified_by(Serving::start(&world.urls).await).await;
}

/// Invariant 12: a copy of the database in another system, for staging, that was given production's NATS.
#[tokio::test]
async fn a_copy_in_another_system_does_not_touch_the_stream() {
    let world = World::start().await;
    let serving = Serving::start(&world.urls).await;
    world.receive("mug", 3).await;
    world.until_verified().await;
    let copy = start_postgres().await;
    let url = copy.url("postgres");
    crate::harness::migrate(&url).await;
    let log = Log::new(connect::pool(&world.urls.database_url, Role::Read, 1).unwrap(), CATEGORIES);
    let mut import = Import::begin(&url).await.unwrap();
    import.insert(log.read_all(0, 10).await.unwrap()).await.unwrap();
    import.commit(&[]).await.unwrap();
    let log_id = log.identity().await.unwrap().log_id;
    run(&url, &format!("UPDATE daybook.log SET log_id = '{log_id}'")).await;
    let before = world.stream().await.cached_info().clone();
    let nats = connect_nats(&world.urls.nats_url, "test").await.unwrap();
    let mut relay = world.relay(&nats, &url);
    let refused = relay.step().await;
    assert!(matches!(&refused, Err(RelayError::Diverged(why)) if why.contains("a copy")), "{refused:?}");
    assert_eq!(world.stream().await.cached_info().created, before.created);
    world.receive("mug", 1).await;
    world.until_verified().await;
    assert!(serving.end().await.success());
}

impl World {
    /// Before there are services.
    async fn receive_without_relay(&self, sku: &str, times: usize) {
        let executor = crate::harness::executor(&self.urls.database_url);
        for _ in 0..times {
            executor.execute(&receipt(sku, 1)).await.unwrap();
        }
    }

    async fn until_verified_by(&self, serving: Serving) {
        self.until_verified().await;
        assert!(serving.end().await.success());
    }
}

/// Receives one piece so many times.
async fn receive(system: &System, times: usize) {
    for _ in 0..times {
        system.receive("mug", 1).await;
    }
}

/// A message as nobody but the relay should publish it.
async fn publish(system: &System, subject: String, headers: HeaderMap, payload: String) {
    let jetstream = jetstream(&system.parts.client);
    jetstream.publish_with_headers(subject, headers, payload.into()).await.unwrap().await.unwrap();
}

/// What the log would have of a command, were it executed next; and it is not.
async fn foreseen(system: &System, envelope: &order_services::Envelope) -> RecordedEvent {
    let mut other = System::start().await;
    other.execute_as(envelope).await;
    let event = other.parts.log.read_all(0, 10).await.unwrap().pop().unwrap();
    let position = system.parts.log.head().await.unwrap() + 1;
    other.relay().await;
    RecordedEvent { position, ..event }
}

impl System {
    async fn execute_as(&self, envelope: &order_services::Envelope) {
        self.executor.execute(envelope).await.unwrap();
    }
}

/// The link that follows for one event at the end of the log, as anybody can compute who reads the stream.
async fn link_of(system: &System, event: &RecordedEvent) -> store::Link {
    let link = "SELECT sha256(coalesce((SELECT link FROM daybook.events ORDER BY position DESC LIMIT 1),
                                       decode(repeat('00', 32), 'hex'))
                              || int8send($1) || timestamptz_send($2) || int8send($3)
                              || daybook.event_digest(ROW($1, $3, $2, $4, (SELECT id FROM daybook.categories WHERE name = $5),
                                     $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17::json, NULL)::daybook.events))";
    let metadata = &event.metadata;
    let link: Vec<u8> = query_scalar(link)
        .bind(event.position)
        .bind(event.recorded_at)
        .bind(event.version)
        .bind(metadata.occurred_at)
        .bind(event.stream.category.name)
        .bind(event.schema_version)
        .bind(0_i16)
        .bind(event.stream.id)
        .bind(event.event_id)
        .bind(metadata.correlation_id)
        .bind(metadata.causation_id)
        .bind(metadata.command_id)
        .bind(&metadata.fingerprint.0[..])
        .bind(&*event.event_type)
        .bind(&*metadata.actor)
        .bind(metadata.traceparent.as_deref())
        .bind(&*event.payload)
        .fetch_one(&system.superuser().await)
        .await
        .unwrap();
    store::Link::try_from(&link[..]).unwrap()
}

/// Publishes an event that the log does not have, behind its last one.
pub(crate) async fn publish_forged(system: &System, fits_the_chain: bool) {
    let mut forged = foreseen(system, &crate::harness::receipt("mug", 100)).await;
    forged.link = Some(if fits_the_chain { link_of(system, &forged).await } else { store::Link([7; 32]) });
    let subject = subject::event(forged.stream, &forged.event_type);
    publish(system, subject, message::headers(&forged, 1), forged.payload.to_string()).await;
}

/// Invariant 27: who may publish, and knows a command's id in advance, publishes its event with another payload.
#[tokio::test]
async fn a_forged_message_moves_no_money() {
    for fits_the_chain in [false, true] {
        let mut system = System::start().await;
        system.receive("mug", 10).await;
        system.project().await;
        let id = new_order();
        let place = Command::Order { id, command: order::Command::Place(order_of(&[("mug", 1, 1)])) };
        let envelope = envelope(Uuid::now_v7(), place);
        let genuine = foreseen(&system, &envelope).await;
        // 12.50 EUR are owed, and one cent is asked for.
        let payload = genuine.payload.replace("1250", "1").replace("1000", "1").replace("250", "0");
        let mut forged = RecordedEvent { payload: payload.into(), ..genuine };
        forged.link = Some(if fits_the_chain { link_of(&system, &forged).await } else { store::Link([7; 32]) });
        let headers = message::headers(&forged, 1);
        let subject = subject::event(forged.stream, &forged.event_type);
        publish(&system, subject, headers, forged.payload.to_string()).await;
        // It arrives before the command.
        for _ in 0..3 {
            system.feed.step().await.unwrap();
        }
        assert_eq!(
            system.feed.position() == 2,
            fits_the_chain,
            "a link proves no more than that events follow each other"
        );
        for projector in &mut system.projectors {
            while projector.step().await.unwrap() != Outcome::Idle {}
        }
        let rows: i64 =
            query_scalar("SELECT count(*) FROM daybook.follow_ups").fetch_one(&system.parts.read).await.unwrap();
        assert_eq!(rows, 0, "it is in no row");
        assert_eq!(stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap().version, 1);

        system.execute_as(&envelope).await;
        system.settle().await;
        assert_eq!(system.status(id).await, "confirmed");
        assert_eq!(system.moved(id).await, (1250, 0, 0), "held in full");
        let kept: Vec<(i64, String)> =
            query_as("SELECT position, convert_from(payload, 'UTF8') FROM daybook.lost_events")
                .fetch_all(&system.parts.read)
                .await
                .unwrap();
        assert_eq!(kept, [(2, forged.payload.to_string())], "the relay has removed it");
        system.assert_verified().await;
    }
}

/// Invariant 27: what is no event at all stops nothing, and is removed.
#[tokio::test]
async fn a_foreign_message_stops_nothing() {
    let mut system = System::start().await;
    receive(&system, 2).await;
    system.project().await;
    let mut headers = HeaderMap::new();
    headers.insert("Daybook", "1 1 3");
    for (subject, headers, payload) in
        [("daybook.evt.v1.order.x.Y", HeaderMap::new(), "\0\u{202E}not JSON"), ("daybook.evt.v1.stock", headers, "{}")]
    {
        publish(&system, subject.into(), headers, payload.to_owned()).await;
    }
    receive(&system, 1).await;
    system.project().await;
    receive(&system, 1).await;
    system.project().await;
    assert_eq!(system.stock_of("mug").await, (4, 0));
    let kept = "SELECT position, subject FROM daybook.lost_events ORDER BY position";
    let kept: Vec<(i64, String)> = query_as(kept).fetch_all(&system.parts.read).await.unwrap();
    assert_eq!(kept, [(3, "daybook.evt.v1.order.x.Y".to_owned()), (4, "daybook.evt.v1.stock".to_owned())]);
    system.assert_verified().await;
}

/// A foreign message in the middle of the window, which a relay that begins meets behind what is the log's.
#[tokio::test]
async fn a_foreign_message_is_found_by_a_relay_that_begins() {
    let mut system = System::start().await;
    receive(&system, 2).await;
    system.relay().await;
    publish(&system, "daybook.evt.v1.order.x.Y".into(), HeaderMap::new(), "{}".into()).await;
    // The log's fourth event, as it is to be, behind it.
    receive(&system, 2).await;
    let event = system.parts.log.read_all(3, 1).await.unwrap().remove(0);
    let subject = subject::event(event.stream, &event.event_type);
    publish(&system, subject, message::headers(&event, 1), event.payload.to_string()).await;
    let mut relay = Relay::new(
        system.parts.log.clone(),
        system.parts.project.clone(),
        jetstream(&system.parts.client),
        watch::channel(0).1,
    );
    while relay.step().await.unwrap() != Outcome::Idle {}
    system.project().await;
    assert_eq!(system.stock_of("mug").await, (4, 0));
    system.assert_verified().await;
}

/// Invariant 11: what was removed from the middle of the stream, by somebody who may do that, is there again.
#[tokio::test]
async fn a_message_that_was_removed_comes_back() {
    let mut system = System::start().await;
    receive(&system, 5).await;
    system.relay().await;
    let jetstream = jetstream(&system.parts.client);
    let stream = jetstream.get_stream(subject::STREAM).await.unwrap();
    let config = stream.cached_info().config.clone();
    jetstream.delete_stream(subject::STREAM).await.unwrap();
    let config = async_nats::jetstream::stream::Config { deny_delete: false, ..config };
    jetstream.create_stream(config).await.unwrap();
    let relay = || {
        let parts = &system.parts;
        Relay::new(parts.log.clone(), parts.project.clone(), jetstream.clone(), watch::channel(0).1)
    };
    let (mut first, mut second) = (relay(), relay());
    while first.step().await.unwrap() != Outcome::Idle {}
    let stream = jetstream.get_stream(subject::STREAM).await.unwrap();
    assert!(stream.delete_message(3).await.unwrap());
    while second.step().await.unwrap() != Outcome::Idle {}
    system.project().await;
    assert_eq!(system.stock_of("mug").await, (5, 0));
    system.assert_verified().await;
}

/// The format of earlier builds, with a header for each column.
fn headers_of_columns(event: &RecordedEvent, epoch: i64) -> HeaderMap {
    let metadata = &event.metadata;
    let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Daybook-Position", event.position.to_string()),
        ("Daybook-Epoch", epoch.to_string()),
        ("Daybook-Version", event.version.to_string()),
        ("Daybook-Event-Id", event.event_id.to_string()),
        ("Daybook-Schema-Version", event.schema_version.to_string()),
        ("Daybook-Recorded-At", time(event.recorded_at)),
        ("Daybook-Occurred-At", time(metadata.occurred_at)),
        ("Daybook-Correlation-Id", metadata.correlation_id.to_string()),
        ("Daybook-Command-Id", metadata.command_id.to_string()),
        ("Daybook-Fingerprint", metadata.fingerprint.to_string()),
        ("Daybook-Actor", metadata.actor.to_string()),
        ("Daybook-Origin", metadata.origin.as_str().to_owned()),
    ] {
        headers.insert(name, value);
    }
    headers
}

/// A stream that an earlier build has begun is gone on with: its messages are read, and prove nothing.
#[tokio::test]
async fn a_stream_of_an_earlier_build_is_gone_on_with() {
    let mut system = System::start().await;
    receive(&system, 3).await;
    let (identity, server) = (system.parts.log.identity().await.unwrap(), system.parts.log.server().await.unwrap());
    let mut config = message::stream_config(identity, server, 1);
    config.metadata.retain(|key, _| ["daybook_log_id", "daybook_epoch"].contains(&&**key));
    jetstream(&system.parts.client).create_stream(config).await.unwrap();
    for event in system.parts.log.read_all(0, 10).await.unwrap() {
        let (subject, headers) = (subject::event(event.stream, &event.event_type), headers_of_columns(&event, 1));
        publish(&system, subject, headers, event.payload.to_string()).await;
    }
    system.receive("mug", 1).await;
    system.project().await;
    assert_eq!(system.stock_of("mug").await, (4, 0));
    let stream = jetstream(&system.parts.client).get_stream(subject::STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.last_sequence, 4);
    assert_eq!(message::server(&stream.cached_info().config), Some(server), "it says now on which server the log is");
    system.assert_verified().await;
}

/// Goes back to the log's first `head` events, under live connections, as a pooler lets a restore go unnoticed: with all that
/// is folded from it.
async fn go_back(system: &System, head: Position) {
    let back = format!(
        "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
         DELETE FROM daybook.events WHERE position > {head};
         ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only;
         DELETE FROM daybook.follow_ups WHERE position > {head};
         DELETE FROM daybook.timers; DELETE FROM daybook.order_summary; DELETE FROM daybook.waiting;
         DELETE FROM daybook.order_history WHERE position > {head};
         DELETE FROM daybook.leases;
         UPDATE daybook.checkpoints SET position = {head}"
    );
    run(&system.urls.database_url, &back).await;
}

/// Invariant 26: a follow-up that was read before the log went back does nothing afterwards, though it was under way.
#[tokio::test]
async fn a_follow_up_of_a_lost_event_does_nothing_any_more() {
    let mut system = System::start().await;
    system.receive("mug", 5).await;
    system.project().await;
    let id = system.place(order_of(&[("mug", 1, 1)])).await;
    // Paid; what is due next is the reservation.
    while !system.events_of(id).await.contains(&"PaymentsSecured".to_owned()) {
        system.project().await;
        system.sender.step().await.unwrap();
    }
    system.project().await;
    let history = system.executor.history();
    let seen = history.seen();
    let (due, found) = follow_up::due::<Orders>(&system.parts.project, &seen, &[], None, 10).await.unwrap();
    let branch = history.note(seen, found);
    let reserve = due.into_iter().find(|due| due.reaction == "reserve_stock").unwrap();
    go_back(&system, 1).await;
    let Act::Command(command) = reserve.effect.clone() else { panic!("it is a command") };
    let executed = system.executor.execute_on(&envelope(reserve.id, command), &branch).await;
    assert!(matches!(executed, Err(ExecuteError::Conflict(_))), "{executed:?}");
    assert_eq!(system.parts.log.head().await.unwrap(), 1, "nothing is reserved for an order that is not in the log");
    // Nor does what came of it settle the follow-up that another history has under the same id.
    let lease = lease::acquire(&system.parts.project, "sender", system.parts.owner).await.unwrap().unwrap();
    let settled = vec![(reserve, Settlement::Accepted)];
    assert!(branch.is_lost());
    system.receive("mug", 1).await;
    let lost = Seen { marks: vec![Mark { position: 2, link: store::Link([7; 32]) }], ..Seen::default() };
    assert!(!follow_up::settle::<Orders>(&system.parts.project, &lease, &lost, settled).await.unwrap());
}

/// Invariants 19 and 26: no answer at a position that another history has come to.
#[tokio::test]
async fn a_query_with_the_mark_of_a_lost_command_is_not_answered() {
    let mut system = System::start().await;
    let _api = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    let client = system.parts.client.clone();
    let ask = async |body: serde_json::Value| {
        let request = async_nats::Request::new().payload(body.to_string().into());
        let answer = client.send_request("daybook.qry.v1.stock_level.get", request).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&answer.payload).unwrap()
    };
    let kept = system.executor.execute(&receipt("mug", 1)).await.unwrap();
    let again = receipt("mug", 2);
    let lost = system.executor.execute(&again).await.unwrap();
    assert_eq!(system.executor.execute(&again).await.unwrap(), lost, "the same reply, with its mark");
    let body = |mark: Option<Mark>| json!({ "mark": mark, "wait_ms": 0, "data": { "sku": "mug" } });
    assert_eq!(ask(body(lost.mark)).await["code"], "not_yet");
    system.relay().await;
    while system.feed.position() < 2 {
        system.feed.step().await.unwrap();
    }
    for projector in &mut system.projectors {
        while projector.step().await.unwrap() != Outcome::Idle {}
    }
    assert_eq!(ask(body(lost.mark)).await["data"]["on_hand"], 3);
    let back = "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
        DELETE FROM daybook.events WHERE position > 1;
        ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only";
    run(&system.urls.database_url, back).await;
    for _ in 0..2 {
        let answer = ask(body(lost.mark)).await;
        assert_eq!((&answer["code"], &answer["retry"]), (&json!("other_history"), &json!(false)), "{answer}");
        assert_eq!(ask(body(kept.mark)).await["data"]["sku"], "mug");
        // The position is reached again.
        system.receive("mug", 1).await;
    }
    let bad = ask(json!({ "mark": "2:7", "data": { "sku": "mug" } })).await;
    assert_eq!((&bad["code"], &bad["fields"][0]["field"]), (&json!("invalid"), &json!("mark")), "{bad}");
}
