//! What `daybook reconcile --report` tells of events that the log has lost: what was done outside in their name. Provider and
//! notifier keep their books in a database of their own, as others do: it does not go back with the log.

use crate::harness::{System, card, database, daybook_on, envelope, order_of, run};
use dev::provider;
use order_services::Envelope;
use order_services::notifier;
use order_views::encode;
use order_views::stream as stream_of;
use orders::Command;
use orders::id::{OrderId, PaymentId};
use orders::money::Amount;
use orders::order::{self, CancelReason, PlaceOrder};
use orders::payment::{self, PaymentRequested};
use runtime::message;
use runtime::process::jetstream;
use runtime::relay::Relay;
use runtime::step::{Outcome, Step};
use runtime::subject::STREAM;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use store::RecordedEvent;
use store::connect::{self, Role};
use tokio::sync::watch;
use uuid::Uuid;

/// Copies all tables of the log's database, as a backup would.
const BACK_UP: &str = "
    CREATE SCHEMA backup;
    DO $$ DECLARE t regclass; BEGIN
        FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'daybook'::regnamespace AND relkind IN ('r', 'p')
                                            AND NOT relispartition LOOP
            EXECUTE format('CREATE TABLE backup.%I AS TABLE %s', (SELECT relname FROM pg_class WHERE oid = t), t);
        END LOOP;
    END $$";

/// Puts them back. Nobody has a lease then.
const RESTORE: &str = "
    SET session_replication_role = replica;
    ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
    DO $$ DECLARE t name; BEGIN
        FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'backup'::regnamespace AND relkind = 'r' LOOP
            EXECUTE format('DELETE FROM daybook.%I', t);
            EXECUTE format('INSERT INTO daybook.%I SELECT * FROM backup.%I', t, t);
        END LOOP;
    END $$;
    DELETE FROM daybook.leases;
    ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only";

/// A system whose log can go back, and the books of the outside, which cannot.
struct Shop {
    system: System,
    books: PgPool,
}

impl Shop {
    async fn start() -> Self {
        let books = connect::pool(&database().await, Role::Project, 4).unwrap();
        let mut shop = Self { system: System::start().await, books };
        shop.move_the_outside().await;
        shop.system.receive("mug", 20).await;
        shop.system.settle().await;
        run(&shop.system.urls.database_url, BACK_UP).await;
        shop
    }

    /// Has provider and notifier use their own books.
    async fn move_the_outside(&mut self) {
        self.close_the_outside().await;
        let client = &self.system.parts.client;
        self.system.outside = vec![
            provider::start(client, self.books.clone(), Duration::from_secs(1)).await.unwrap(),
            notifier::start(client, self.books.clone()).await.unwrap(),
        ];
        client.flush().await.unwrap();
    }

    async fn close_the_outside(&mut self) {
        for service in self.system.outside.drain(..) {
            service.stop().await;
        }
    }

    /// The services are stopped, and Postgres is restored.
    async fn go_back(&mut self) {
        self.close_the_outside().await;
        run(&self.system.urls.database_url, RESTORE).await;
    }

    async fn reconcile(&self) -> Value {
        let output = daybook_on(&self.system.urls).args(["reconcile", "--json"]).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A relay that has compared nothing yet.
    fn relay(&self) -> Relay {
        let parts = &self.system.parts;
        Relay::new(parts.log.clone(), parts.project.clone(), jetstream(&parts.client), watch::channel(0).1)
    }

    /// The services are started again.
    async fn open_again(self) -> Self {
        let System { urls, nats, .. } = self.system;
        let mut shop = Self { system: System::on(urls, nats).await, books: self.books };
        shop.move_the_outside().await;
        shop
    }

    async fn lose(mut self) -> Self {
        self.go_back().await;
        let reconciled = self.reconcile().await;
        assert_eq!(reconciled["epoch"], 2, "{reconciled}");
        self.open_again().await
    }

    /// The exit code, and what is printed for machines. People are told the same, and nobody a token.
    async fn report(&self) -> (i32, Vec<Value>) {
        let report = |arguments: &'static [&'static str]| {
            let mut command = daybook_on(&self.system.urls);
            command.args(arguments);
            async move {
                let output = command.output().await.unwrap();
                let (stdout, stderr) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
                let (stdout, stderr) = (stdout.unwrap(), stderr.unwrap());
                assert!(!format!("{stdout}{stderr}").contains("tok_"), "{stdout}{stderr}");
                (output.status.code().unwrap(), stdout, stderr)
            }
        };
        let (code, stdout, stderr) = report(&["reconcile", "--report", "--json"]).await;
        let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (code_for_people, told, why) = report(&["reconcile", "--report"]).await;
        assert_eq!((code_for_people, &why), (code, &stderr), "{told}");
        for line in &lines {
            let of_line = ["order_id", "reference"].iter().filter_map(|name| line[*name].as_str());
            of_line.for_each(|value| assert!(told.contains(value), "{value} is not in {told}"));
        }
        (code, lines)
    }

    async fn notices(&self) -> Vec<(Uuid, Uuid)> {
        let notices = "SELECT id, order_id FROM daybook.notices ORDER BY id";
        sqlx::query_as(notices).fetch_all(&self.books).await.unwrap()
    }
}

fn paid_by(token: &str) -> PlaceOrder {
    let mut order = order_of(&[("mug", 1, 1)]);
    order.payments[0].method = card(token);
    order
}

fn placed(id: OrderId, order: PlaceOrder) -> Envelope {
    envelope(Uuid::now_v7(), Command::Order { id, command: order::Command::Place(order) })
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

/// What a call is told as: order, call, amount, result.
fn calls(lines: &[Value]) -> Vec<(String, String, Value, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut calls: Vec<_> = of_kind(lines, "call")
        .into_iter()
        .map(|c| (text(&c["order_id"]), text(&c["call"]), c["amount"].clone(), text(&c["result"])))
        .collect();
    calls.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    calls
}

fn call(order: OrderId, call: &str, amount: i64, result: &str) -> (String, String, Value, String) {
    (order.to_string(), call.to_owned(), json!(amount), result.to_owned())
}

/// Invariant 26.
#[tokio::test]
async fn what_was_done_in_the_name_of_lost_events_is_listed_for_a_person() {
    let mut shop = Shop::start().await;
    assert_eq!(shop.report().await, (0, vec![]), "nothing is lost");
    let system = &mut shop.system;
    let approved = system.place(paid_by("tok_approve_secret")).await;
    let declined = system.place(paid_by("tok_decline_secret")).await;
    let cancelled = system.place(paid_by("tok_approve_secret")).await;
    let shipped = system.place(paid_by("tok_approve_secret")).await;
    system.settle().await;
    system.execute(Command::CancelOrder { id: cancelled, reason: CancelReason::CustomerRequest }).await.unwrap();
    system.ship(shipped).await;
    let sent = shop.notices().await;
    assert_eq!(sent.len(), 3, "{sent:?}");

    let shop = shop.lose().await;
    let (code, lines) = shop.report().await;
    assert_eq!(code, 1, "{lines:?}");
    let mut expected = vec![
        call(approved, "authorise", 1250, "done"),
        call(declined, "authorise", 1250, "declined"),
        call(cancelled, "authorise", 1250, "done"),
        call(cancelled, "void", 1250, "done"),
        call(shipped, "authorise", 1250, "done"),
        call(shipped, "capture", 1250, "done"),
    ];
    expected.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    assert_eq!(calls(&lines), expected);
    let payment = PaymentId::of_order(approved, 0);
    let told = of_kind(&lines, "call").into_iter().find(|call| call["order_id"] == json!(approved)).unwrap();
    let reference = format!("sim-authorise-{}", payment.0.simple());
    assert_eq!((&told["payment_id"], &told["reference"]), (&json!(payment), &json!(reference)), "{told}");
    assert_eq!(
        (&told["currency"], &told["is_ambiguous"], &told["is_linked"]),
        (&json!("EUR"), &json!(false), &json!(true))
    );

    let mut notices: Vec<(Uuid, Uuid)> = of_kind(&lines, "notice")
        .into_iter()
        .map(|n| (n["notice_id"].as_str().unwrap().parse().unwrap(), n["order_id"].as_str().unwrap().parse().unwrap()))
        .collect();
    notices.sort_unstable();
    assert_eq!(notices, sent);
    let epoch = of_kind(&lines, "epoch");
    assert_eq!(epoch.len(), 1);
    assert_eq!((&epoch[0]["epoch"], &epoch[0]["forked_after"], &epoch[0]["gone"]), (&json!(2), &json!(1), &json!([])));
    assert_eq!((&epoch[0]["foreign"], &epoch[0]["unlinked_from"]), (&json!(0), &Value::Null));
}

/// Invariant 26: the log has gone back twice, and each epoch has lost what is not in the other.
#[tokio::test]
async fn what_two_epochs_have_lost_is_listed_each_with_its_epoch() {
    let mut shop = Shop::start().await;
    let first = shop.system.place(paid_by("tok_decline")).await;
    shop.system.settle().await;
    let mut shop = shop.lose().await;
    // What is kept of the lost events goes back with the log: so this backup is of later.
    shop.system.receive("hat", 1).await;
    let kept = shop.system.place(paid_by("tok_approve")).await;
    shop.system.settle().await;
    run(&shop.system.urls.database_url, "DROP SCHEMA backup CASCADE").await;
    run(&shop.system.urls.database_url, BACK_UP).await;
    let head = shop.system.parts.log.head().await.unwrap();
    let second = shop.system.place(paid_by("tok_approve")).await;
    shop.system.settle().await;
    shop.system.ship(kept).await;
    shop.go_back().await;
    assert_eq!(shop.reconcile().await["epoch"], 3);
    let shop = shop.open_again().await;

    let (code, lines) = shop.report().await;
    assert_eq!(code, 1, "{lines:?}");
    let of_epochs: Vec<_> =
        of_kind(&lines, "epoch").iter().map(|e| (e["epoch"].clone(), e["forked_after"].clone())).collect();
    assert_eq!(of_epochs, [(json!(2), json!(1)), (json!(3), json!(head))]);
    let mut expected = vec![
        call(first, "authorise", 1250, "declined"),
        call(kept, "capture", 1250, "done"),
        call(second, "authorise", 1250, "done"),
    ];
    expected.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    assert_eq!(calls(&lines), expected);
    for kind in ["call", "notice"] {
        for line in of_kind(&lines, kind) {
            let epoch = if line["order_id"] == json!(first) { 2 } else { 3 };
            assert_eq!((&line["epoch"], &line["is_linked"]), (&json!(epoch), &json!(true)), "{line}");
        }
    }
    let mut told: Vec<Uuid> =
        of_kind(&lines, "notice").iter().map(|n| n["notice_id"].as_str().unwrap().parse().unwrap()).collect();
    told.sort_unstable();
    let sent: Vec<Uuid> = shop.notices().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!((told.len(), &told), (2, &sent));
}

/// The client has sent the same again, and that is lost as well: it was done once.
#[tokio::test]
async fn what_was_lost_twice_is_listed_once() {
    let mut shop = Shop::start().await;
    let id = OrderId(Uuid::now_v7());
    let order = placed(id, paid_by("tok_decline"));
    for epoch in [2, 3] {
        shop.system.executor.execute(&order).await.unwrap();
        shop.system.settle().await;
        shop.go_back().await;
        assert_eq!(shop.reconcile().await["epoch"], epoch);
        shop = shop.open_again().await;
        run(&shop.system.urls.database_url, "DROP SCHEMA backup CASCADE").await;
        run(&shop.system.urls.database_url, BACK_UP).await;
    }
    let (code, lines) = shop.report().await;
    assert_eq!((code, calls(&lines)), (1, vec![call(id, "authorise", 1250, "declined")]), "{lines:?}");
    assert_eq!(of_kind(&lines, "epoch").len(), 2);
    assert_eq!(of_kind(&lines, "call")[0]["is_ambiguous"], false);
    assert_eq!(of_kind(&lines, "notice").len(), 1, "{lines:?}");
}

/// Invariant 26: the present log asks for the same, under the same key, and knows what came of it.
#[tokio::test]
async fn what_the_client_has_sent_again_is_not_listed() {
    let mut shop = Shop::start().await;
    let orders = ["tok_approve", "tok_decline"].map(|token| placed(OrderId(Uuid::now_v7()), paid_by(token)));
    for order in &orders {
        shop.system.executor.execute(order).await.unwrap();
    }
    shop.system.settle().await;
    let mut shop = shop.lose().await;
    assert_eq!(shop.report().await.0, 1);
    shop.system.receive("hat", 1).await;
    for order in &orders {
        shop.system.executor.execute(order).await.unwrap();
    }
    shop.system.settle().await;
    let (code, lines) = shop.report().await;
    assert_eq!((code, lines.len()), (0, 1), "{lines:?}");
    assert_eq!(lines[0]["kind"], "epoch");
}

/// The same key for another amount: the provider has done what it was asked first, whatever the log says now.
#[tokio::test]
async fn what_is_asked_for_otherwise_under_the_same_key_is_listed() {
    let mut shop = Shop::start().await;
    let id = OrderId(Uuid::now_v7());
    shop.system.executor.execute(&placed(id, paid_by("tok_approve"))).await.unwrap();
    shop.system.settle().await;
    let mut shop = shop.lose().await;
    let mut two = order_of(&[("mug", 2, 1)]);
    two.payments[0] = order::PlacePayment { method: card("tok_approve"), amount: Amount(2250) };
    shop.system.executor.execute(&placed(id, two)).await.unwrap();
    shop.system.settle().await;
    let (code, lines) = shop.report().await;
    assert_eq!((code, calls(&lines)), (1, vec![call(id, "authorise", 1250, "done")]), "{lines:?}");
    assert_eq!(of_kind(&lines, "call")[0]["is_ambiguous"], true);
}

/// The events of a command may never have reached JetStream: its key is known all the same.
#[tokio::test]
async fn a_call_whose_own_event_was_not_distributed_is_looked_up_by_its_key() {
    let mut shop = Shop::start().await;
    let id = OrderId(Uuid::now_v7());
    shop.system.executor.execute(&placed(id, paid_by("tok_approve"))).await.unwrap();
    shop.system.settle().await;
    let shop = shop.lose().await;
    let only_the_order = "DELETE FROM daybook.lost_events WHERE subject NOT LIKE '%.OrderPlaced';
        UPDATE daybook.epochs SET distributed_to = 2, kept = 1 WHERE epoch = 2";
    run(&shop.system.urls.database_url, only_the_order).await;
    let (code, lines) = shop.report().await;
    assert_eq!((code, calls(&lines)), (1, vec![call(id, "authorise", 1250, "done")]), "{lines:?}");
}

#[tokio::test]
async fn that_the_provider_does_not_answer_or_never_saw_a_call_is_told() {
    let mut shop = Shop::start().await;
    shop.close_the_outside().await;
    let order = shop.system.place(paid_by("tok_approve")).await;
    // Nobody is there to be asked: the payment is requested, and not more.
    for _ in 0..2 {
        shop.system.project().await;
        shop.system.sender.step().await.ok();
    }
    shop.system.project().await;
    let mut shop = shop.lose().await;
    let (code, lines) = shop.report().await;
    assert_eq!((code, calls(&lines)), (0, vec![call(order, "authorise", 1250, "never_seen")]), "{lines:?}");
    shop.close_the_outside().await;
    let (code, lines) = shop.report().await;
    assert_eq!((code, calls(&lines)), (4, vec![call(order, "authorise", 1250, "no_answer")]), "{lines:?}");
}

#[tokio::test]
async fn that_the_lost_messages_are_gone_is_told() {
    let mut shop = Shop::start().await;
    shop.system.place(paid_by("tok_approve")).await;
    shop.system.settle().await;
    let jetstream = jetstream(&shop.system.parts.client);
    jetstream.delete_stream(STREAM).await.unwrap();
    shop.go_back().await;
    // As if on the timeline before.
    run(&shop.system.urls.database_url, "UPDATE daybook.epochs SET timeline = timeline - 1").await;
    assert_eq!(shop.reconcile().await["epoch"], 2);
    let (code, lines) = shop.report().await;
    assert_eq!((code, lines.len()), (1, 1), "{lines:?}");
    assert_eq!((&lines[0]["gone_is_known"], &lines[0]["forked_after"]), (&json!(false), &json!(1)));
}

async fn comes_to_rest(relay: &mut Relay) {
    let mut last = None;
    for _ in 0..100 {
        last = Some(relay.step().await);
        if let Some(Ok(Outcome::Idle)) = last {
            return;
        }
    }
    panic!("the relay does not come to rest: {last:?}");
}

/// The stream was made anew, and nothing was published since. Then a failover lost events that had been distributed before, and the
/// log has grown to where they were.
#[tokio::test]
async fn that_an_empty_stream_cannot_show_what_was_lost_is_told() {
    let mut shop = Shop::start().await;
    shop.system.place(paid_by("tok_approve")).await;
    shop.system.settle().await;
    let distributed_to = shop.system.parts.log.head().await.unwrap();
    let jetstream = jetstream(&shop.system.parts.client);
    jetstream.delete_stream(STREAM).await.unwrap();
    comes_to_rest(&mut shop.relay()).await;
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    let state = &stream.cached_info().state;
    assert_eq!((state.messages, state.last_sequence), (0, distributed_to as u64));
    // As if on the timeline before.
    let mut config = stream.cached_info().config.clone();
    let server = message::server(&config).unwrap();
    let before = store::Server { timeline: server.timeline - 1, ..server };
    config.metadata = message::metadata(message::identity(&config).unwrap(), before);
    jetstream.update_stream(config).await.unwrap();
    shop.go_back().await;
    while shop.system.parts.log.head().await.unwrap() < distributed_to {
        shop.system.receive("mug", 1).await;
    }
    comes_to_rest(&mut shop.relay()).await;
    let (code, lines) = shop.report().await;
    assert_eq!((code, lines.len()), (1, 1), "{lines:?}");
    assert_eq!(lines[0]["gone_is_known"], json!(false));
}

/// A relay has begun an epoch, and ended before it removed the stream. What the log has lost since then is kept, too.
#[tokio::test]
async fn what_is_lost_before_the_stream_of_an_earlier_epoch_goes_is_kept() {
    let mut shop = Shop::start().await;
    let order = shop.system.place(paid_by("tok_approve")).await;
    shop.system.settle().await;
    shop.go_back().await;
    let url = &shop.system.urls.database_url;
    run(url, "SELECT daybook.begin_epoch(epoch + 1, 1, 1, 0, 'a test') FROM daybook.log").await;
    let mut relay = shop.relay();
    comes_to_rest(&mut relay).await;
    let shop = shop.open_again().await;
    let (_, lines) = shop.report().await;
    assert_eq!(calls(&lines)[0], call(order, "authorise", 1250, "done"), "{lines:?}");
}

/// The stream was made anew after the fork: it begins above the end of the log.
#[tokio::test]
async fn which_of_the_lost_messages_are_gone_is_told() {
    let mut shop = Shop::start().await;
    let gone = shop.system.place(paid_by("tok_approve")).await;
    shop.system.settle().await;
    let wiped_at = shop.system.parts.log.head().await.unwrap();
    jetstream(&shop.system.parts.client).delete_stream(STREAM).await.unwrap();
    let System { urls, nats, .. } = shop.system;
    let mut shop = Shop { system: System::on(urls, nats).await, books: shop.books };
    shop.move_the_outside().await;
    run(&shop.system.urls.database_url, "DELETE FROM daybook.leases").await;
    let kept = shop.system.place(paid_by("tok_approve")).await;
    shop.system.settle().await;
    let shop = shop.lose().await;
    let (code, lines) = shop.report().await;
    assert_eq!(code, 1);
    let calls = calls(&lines);
    assert_eq!(calls, [call(kept, "authorise", 1250, "done")], "{gone} is gone");
    let epoch = of_kind(&lines, "epoch")[0];
    assert_eq!(
        (&epoch["forked_after"], &epoch["gone"]),
        (&json!(1), &json!([{ "from": 2, "to": wiped_at }])),
        "{epoch}"
    );
    assert_eq!(epoch["unlinked_from"], Value::Null, "nobody can tell");
}

/// Invariant 27: what others have published is named as that. What a forged event would have asked for was not done.
#[tokio::test]
async fn what_others_have_published_is_told_apart() {
    let mut shop = Shop::start().await;
    let last = shop.system.parts.log.read_all(0, 1).await.unwrap().remove(0);
    let payment = PaymentId(Uuid::now_v7());
    let forged = PaymentRequested {
        order_id: OrderId(Uuid::now_v7()),
        amount: Amount(1),
        currency: "EUR".parse().unwrap(),
        method: card("tok_approve"),
        idempotency_key: payment.0,
    };
    let forged = encode(&orders::Event::Payment(payment, payment::Event::from(forged)));
    let forged = RecordedEvent {
        position: 2,
        version: 1,
        stream: stream_of::<payment::Payment>(payment.0),
        event_id: Uuid::now_v7(),
        event_type: (*forged.event_type).into(),
        payload: forged.payload,
        ..last
    };
    let jetstream = jetstream(&shop.system.parts.client);
    let subject = runtime::subject::event(forged.stream, &forged.event_type);
    let published =
        jetstream.publish_with_headers(subject, message::headers(&forged, 1), forged.payload.to_string().into());
    published.await.unwrap().await.unwrap();
    let foreign = jetstream.publish("daybook.evt.v1.order.x.Y", "tok_secret".into()).await.unwrap();
    foreign.await.unwrap();
    shop.close_the_outside().await;
    assert_eq!(shop.reconcile().await["epoch"], 2);
    let shop = shop.open_again().await;
    let (code, lines) = shop.report().await;
    assert_eq!((code, lines.len()), (0, 2), "{lines:?}");
    let (epoch, call) = (of_kind(&lines, "epoch")[0], of_kind(&lines, "call")[0]);
    assert_eq!((&epoch["unlinked_from"], &epoch["foreign_positions"]), (&json!(2), &json!([3])), "{epoch}");
    assert_eq!((&call["result"], &call["is_linked"]), (&json!("never_seen"), &json!(false)), "{call}");
}
