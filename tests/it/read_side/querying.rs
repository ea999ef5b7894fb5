//! Stories of read models: what an order team, a warehouse and an accountant are told, and how it is asked for in pages.

use crate::harness::{System, append_as, card, envelope, id, order_of, start_nats};
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::StreamExt;
use futures_util::future::join_all;
use order_services::Envelope;
use order_services::queries::{self, ListStock};
use order_views::encode;
use order_views::fulfilment::{self, Fulfilment, Status};
use order_views::order_history::{self, Entry};
use order_views::revenue::{self, Revenue};
use order_views::stream as stream_of;
use orders::id::{AddressId, CaptureId, OrderId, PaymentId, RefundId, SellerId, ShipmentId};
use orders::money::Amount;
use orders::order::{CancelReason, HoldReason, PaymentMethod, PlaceOrder, PlacePayment, ReturnLine, ReturnReason};
use orders::payment::{PaymentCaptured, PaymentRefunded, PaymentRequested};
use orders::{Command, Event, order, shipment};
use runtime::client::{Client, ClientError};
use runtime::process::connect_nats;
use runtime::subject;
use serde_json::{Value, json};
use sqlx::{query_as, query_scalar};
use std::collections::BTreeMap;
use store::ExpectedVersion::{Exact, NoStream};
use store::{Append, Appender, Metadata, Origin, StreamAppend};
use uuid::Uuid;

async fn tell(system: &mut System, id: OrderId, command: order::Command) {
    assert!(system.execute(Command::Order { id, command }).await.unwrap().recorded);
    system.settle().await;
}

/// Every query with which projection it is answered from, and what it asks for, of an order in a fresh system.
fn queries(order: OrderId) -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("order_summary.get", "order_summary", json!({ "order_id": order })),
        ("order_summary.list", "order_summary", json!({})),
        ("stock_level.get", "stock_level", json!({ "sku": "mug" })),
        ("stock_level.list", "stock_level", json!({})),
        ("waiting.list", "waiting", json!({})),
        ("order_history.list", "order_history", json!({ "order_id": order })),
        ("fulfilment.get", "fulfilment", json!({ "shipment_id": ShipmentId::of_seller(order, SellerId(id(1))) })),
        ("fulfilment.list", "fulfilment", json!({})),
        ("revenue.by_day", "revenue", json!({})),
        ("revenue.by_month", "revenue", json!({})),
        // These are from all of them, and of those that are furthest behind one is named.
        ("dead_letters.list", "event_index", json!({})),
        ("projections.list", "event_index", json!({})),
    ]
}

/// Invariant 19: a query that names a position answers at or after it, or says that it cannot yet.
#[tokio::test]
async fn a_query_answers_at_the_position_that_it_names_or_says_that_it_cannot_yet() {
    let mut system = System::start().await;
    let service = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    system.parts.client.flush().await.unwrap();
    let client = system.parts.client.clone();
    let ask = async |verb: &str, body: Value| -> Value {
        let subject = format!("{}.{verb}", subject::QUERIES);
        let answer = client.request(subject, body.to_string().into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    system.receive("mug", 10).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let before = system.parts.log.head().await.unwrap();
    let all = Client::new(client.clone(), "test").query::<Value>("waiting.list", json!({}), None).await.unwrap();
    assert!(all.position <= before);
    // What comes then, no read model has.
    system.ship_without_settling(order).await;
    let head = system.parts.log.head().await.unwrap();
    assert!(head > before);
    for (verb, projection, data) in queries(order) {
        for at_least in [before + 1, head, head + 1000] {
            let refused = ask(verb, json!({ "at_least": at_least, "wait_ms": 0, "data": data })).await;
            assert_eq!((&refused["code"], &refused["retry"]), (&json!("not_yet"), &json!(true)), "{verb}: {refused}");
            assert_eq!(refused["detail"]["position"], before, "{verb}");
            let message = format!("{projection} is at position {before}, not yet at {at_least}");
            assert_eq!(refused["message"], message);
        }
        let old = ask(verb, json!({ "at_least": before, "wait_ms": 0, "data": data })).await;
        assert_eq!(old["position"], before, "{verb}: {old}");
    }
    // Who waits is answered once it is there; each as of then, and not of what was there when it was asked.
    let queries = queries(order);
    let answers = join_all(
        queries.iter().map(|(verb, _, data)| ask(verb, json!({ "at_least": head, "wait_ms": 30_000, "data": data }))),
    );
    let (answers, ()) = tokio::join!(answers, system.project());
    let shown: BTreeMap<&str, &Value> = queries.iter().map(|(verb, ..)| *verb).zip(&answers).collect();
    for (verb, answer) in &shown {
        assert!(answer["position"].as_i64() >= Some(head), "{verb}: {answer}");
    }
    let data = |verb| &shown[verb]["data"];
    assert_eq!((&data("fulfilment.get")["status"], data("fulfilment.list")), (&json!("delivered"), &json!([])));
    let last = data("order_history.list").as_array().unwrap().last().unwrap();
    assert_eq!((&last["event_type"], &last["position"]), (&json!("ShipmentDelivered"), &json!(head)));
    // Beyond the log nobody can be.
    let beyond = ask("stock_level.list", json!({ "at_least": head + 1, "wait_ms": 0 })).await;
    assert_eq!(beyond["code"], "not_yet");
    service.stop().await;
}

/// An order that waits for stock, is held, shipped and in part returned.
#[tokio::test]
async fn an_order_has_a_history_of_all_that_is_about_it() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    system.receive("hat", 2).await;
    let order = system.place(PlaceOrder { backorder: true, ..order_of(&[("mug", 12, 1), ("hat", 1, 2)]) }).await;
    let other = system.place(order_of(&[("hat", 1, 1)])).await;
    system.settle().await;
    // What it waits for comes with somebody else's command.
    system.receive("mug", 2).await;
    system.settle().await;
    tell(&mut system, order, order::Command::PlaceHold { reason: HoldReason::Manual }).await;
    tell(&mut system, order, order::Command::ReleaseHold { reason: HoldReason::Manual }).await;
    system.ship(order).await;
    let lines = vec![ReturnLine { line: 1, quantity: 2 }];
    tell(&mut system, order, order::Command::RequestReturn { lines, reason: ReturnReason::Damaged }).await;
    assert_eq!(system.status(order).await, "completed");

    let history = order_history::list(&system.parts.read, order.0, 0, 500).await.unwrap();
    let about = "SELECT position, event_type, recorded_at FROM daybook.events
                 WHERE stream_id = $1 OR payload->>'order_id' = $1::text ORDER BY position";
    let about: Vec<(i64, String, DateTime<Utc>)> =
        query_as(about).bind(order.0).fetch_all(&system.parts.read).await.unwrap();
    let told: Vec<_> = history.iter().map(|e| (e.position, e.event_type.clone(), e.recorded_at)).collect();
    assert_eq!(told, about);
    assert!(history.iter().all(|e| e.order_id == order.0));
    let belonging = system.events_of(order).await;
    assert_eq!(about.len(), belonging.len() + 1, "and the reservation that belongs to the receipt");

    let find = |event_type: &str| history.iter().find(|e| e.event_type == event_type).unwrap();
    let detail = |event_type: &str| find(event_type).detail.clone();
    assert_eq!((&*find("OrderPlaced").actor, &*find("OrderPlaced").category), ("test", "order"));
    assert_eq!(detail("OrderPlaced")["lines"][0]["quantity"], 12);
    assert_eq!(
        detail("PaymentRequested"),
        json!({ "amount": 13_250, "currency": "EUR", "kind": "credit_card" }),
        "and no token"
    );
    assert_eq!(detail("HoldPlaced"), json!({ "reason": "manual", "hold": 1 }));
    let piece =
        |sku: &str, quantity| json!({ "line": if sku == "mug" { 1 } else { 2 }, "sku": sku, "quantity": quantity });
    assert_eq!(detail("LinesBackordered"), json!({ "short": [piece("mug", 12)], "rest": [piece("hat", 1)] }),);
    let planned = history.iter().filter(|e| e.event_type == "ShipmentPlanned").map(|e| e.detail.clone());
    let planned: Vec<Value> = planned.collect();
    let plan =
        |seller, line: Value| json!({ "revision": 1, "seller_id": id(seller), "address_id": id(0xA), "lines": [line] });
    assert!(planned.contains(&plan(1, piece("mug", 12))) && planned.contains(&plan(2, piece("hat", 1))), "{planned:?}");
    assert_eq!(detail("ShipmentDispatched")["tracking"], "T1");
    let returned = json!({ "return_no": 1, "reason": "damaged", "lines": [{ "line": 1, "quantity": 2 }] });
    assert_eq!(detail("ReturnRequested"), returned);
    assert_eq!(detail("OrderCompleted"), json!({}));

    // Page by page it is the same, and nothing of it is another order's.
    let mut pages: Vec<Entry> = Vec::new();
    loop {
        let after = pages.last().map_or(0, |e| e.position);
        let page = order_history::list(&system.parts.read, order.0, after, 7).await.unwrap();
        let is_last = page.len() < 7;
        pages.extend(page);
        if is_last {
            break;
        }
    }
    assert_eq!(pages, history);
    let others = order_history::list(&system.parts.read, other.0, 0, 500).await.unwrap();
    assert!(others.len() > 3 && others.iter().all(|e| e.order_id == other.0));
    let holds = async |table: &str| {
        let sql = format!("SELECT count(*) FROM daybook.{table} t WHERE t::text LIKE '%tok_%'");
        query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(&system.parts.read).await.unwrap()
    };
    assert!(holds("events").await > 0);
    assert_eq!(holds("order_history").await, 0);
    system.assert_verified().await;
}

async fn shown(system: &mut System, id: ShipmentId) -> Option<(String, i64)> {
    system.project().await;
    let row = fulfilment::get(&system.parts.read, id.0).await.unwrap();
    row.map(|row| (row.status, row.revision))
}

async fn listed(system: &System, filter: fulfilment::Filter) -> Vec<Uuid> {
    let filter = fulfilment::Filter { limit: 500, ..filter };
    let page = fulfilment::list(&system.parts.read, &filter).await.unwrap();
    assert!(page.is_sorted_by_key(|row| (row.planned_at.unwrap(), row.shipment_id)));
    page.into_iter().map(|row| row.shipment_id).collect()
}

#[tokio::test]
async fn a_warehouse_sees_what_is_to_be_shipped_and_by_which_plan() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    system.receive("hat", 10).await;
    let order = system.place(order_of(&[("mug", 2, 1), ("hat", 1, 2)])).await;
    let [first, second] = [1, 2].map(|seller| ShipmentId::of_seller(order, SellerId(id(seller))));
    let does = async |system: &System, id: ShipmentId, command| {
        assert!(system.execute(Command::Shipment { id, command }).await.unwrap().recorded);
    };
    let hold = |hold| shipment::Command::Hold { order_id: order, hold };
    let release = |hold| shipment::Command::Release { order_id: order, hold };
    let is = |status: &str, revision| Some((status.to_owned(), revision));
    // Held before there is a plan, as a follow-up may do it, and so is the plan when it comes.
    let early = envelope(Uuid::now_v7(), Command::Shipment { id: first, command: hold(1) });
    system.executor.execute(&Envelope { correlation_id: Some(order.0), ..early }).await.unwrap();
    assert_eq!(shown(&mut system, first).await, None);
    assert_eq!(listed(&system, fulfilment::Filter::default()).await, [] as [Uuid; 0]);
    system.settle().await;
    assert_eq!((shown(&mut system, first).await, shown(&mut system, second).await), (is("held", 1), is("planned", 1)));
    does(&system, first, release(1)).await;
    assert_eq!(shown(&mut system, first).await, is("planned", 1));
    // Packed, it stays packed through a hold; the release may even come first.
    does(&system, first, shipment::Command::MarkReady { revision: 1 }).await;
    assert_eq!(shown(&mut system, first).await, is("ready", 1));
    does(&system, first, hold(2)).await;
    assert_eq!(shown(&mut system, first).await, is("held", 1));
    let of = |status| fulfilment::Filter { status: Some(status), ..Default::default() };
    assert_eq!(listed(&system, of(Status::Held)).await, [first.0]);
    does(&system, first, release(2)).await;
    assert_eq!(shown(&mut system, first).await, is("ready", 1));
    does(&system, first, release(3)).await;
    assert_eq!(shown(&mut system, first).await, is("ready", 1));

    // Another address is another plan, in the same place of the list.
    let before = listed(&system, fulfilment::Filter::default()).await;
    system.execute(Command::ChangeAddress { id: order, address_id: AddressId(id(0xB)) }).await.unwrap();
    system.settle().await;
    assert_eq!(
        (shown(&mut system, first).await, shown(&mut system, second).await),
        (is("planned", 2), is("planned", 2))
    );
    assert_eq!((before.len(), listed(&system, fulfilment::Filter::default()).await), (2, before));
    let Fulfilment { order_id, seller_id, customer_id, address_id, lines, tracking, .. } =
        fulfilment::get(&system.parts.read, first.0).await.unwrap().unwrap();
    let ids = (order_id, seller_id, customer_id, address_id);
    assert_eq!(ids, (Some(order.0), Some(id(1)), Some(id(0xC)), Some(id(0xB))));
    assert_eq!((json!(lines), tracking), (json!([{ "line": 1, "sku": "mug", "quantity": 2 }]), None));
    let of_second = || fulfilment::Filter { seller_id: Some(id(2)), ..Default::default() };
    assert_eq!(listed(&system, of_second()).await, [second.0]);

    // What is on its way, has arrived or will never is listed only if it is asked for.
    system.execute(system.dispatch(first).await).await.unwrap();
    assert_eq!(shown(&mut system, first).await, is("dispatched", 2));
    assert_eq!(listed(&system, fulfilment::Filter::default()).await, [second.0]);
    does(&system, first, shipment::Command::ReportLost).await;
    system.execute(system.dispatch(second).await).await.unwrap();
    does(&system, second, shipment::Command::ConfirmDelivery).await;
    let cancelled = system.place(order_of(&[("mug", 1, 1)])).await;
    let returned = system.place(order_of(&[("mug", 1, 2)])).await;
    system.settle().await;
    system.execute(Command::CancelOrder { id: cancelled, reason: CancelReason::CustomerRequest }).await.unwrap();
    let [way_back] = system.shipments(returned).await[..] else { panic!("one shipment") };
    system.execute(system.dispatch(way_back).await).await.unwrap();
    does(&system, way_back, shipment::Command::ReportReturned).await;
    system.settle().await;
    assert_eq!(listed(&system, fulfilment::Filter::default()).await, [] as [Uuid; 0]);
    let row = fulfilment::get(&system.parts.read, first.0).await.unwrap().unwrap();
    assert_eq!((&*row.status, row.tracking.as_deref(), row.lines.len()), ("lost", Some("T1"), 1));
    let cancelled = ShipmentId::of_seller(cancelled, SellerId(id(1)));
    for (status, shipment) in [
        (Status::Lost, first),
        (Status::Delivered, second),
        (Status::Cancelled, cancelled),
        (Status::ReturnedToSender, way_back),
    ] {
        assert_eq!(listed(&system, of(status)).await, [shipment.0], "{status:?}");
    }
    system.assert_verified().await;
}

#[tokio::test]
async fn shipments_are_listed_in_pages() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    for _ in 0..3 {
        system.place(order_of(&[("mug", 1, 1), ("mug", 1, 2)])).await;
        system.settle().await;
    }
    let all = listed(&system, fulfilment::Filter::default()).await;
    let mut pages = Vec::new();
    let mut filter = fulfilment::Filter { limit: 4, ..Default::default() };
    for expected in [4, 2] {
        let page = fulfilment::list(&system.parts.read, &filter).await.unwrap();
        assert_eq!(page.len(), expected);
        filter.after = page.last().map(|row| (row.planned_at.unwrap(), row.shipment_id));
        pages.extend(page.into_iter().map(|row| row.shipment_id));
    }
    assert_eq!((pages.len(), pages), (6, all));
}

fn moved(period: &str, currency: &str, kind: &str, captured: (i64, i64), refunded: (i64, i64)) -> Revenue {
    Revenue {
        period: period.to_owned(),
        currency: currency.to_owned(),
        kind: kind.to_owned(),
        captured: captured.0,
        captures: captured.1,
        refunded: refunded.0,
        refunds: refunded.1,
    }
}

/// A payment in another system, which asks for the money in one month, and gives some back in the next.
async fn import_payment(system: &System) {
    let (order_id, payment) = (OrderId(id(0x0D)), PaymentId(id(0x9A)));
    let (currency, reference) = ("BRL".parse().unwrap(), String::new());
    let method = PaymentMethod { kind: "boleto".into(), token: "tok_old".into() };
    let idempotency_key = payment.0;
    let requested = PaymentRequested { order_id, amount: Amount(150), currency, method, idempotency_key };
    let captured = |n, amount, left| PaymentCaptured {
        order_id,
        capture_id: CaptureId(id(n)),
        amount: Amount(amount),
        left: Amount(left),
        currency,
        reference: reference.clone(),
    };
    let (refund_id, capture_id) = (RefundId(id(3)), CaptureId(id(1)));
    let refunded =
        PaymentRefunded { order_id, refund_id, capture_id, amount: Amount(30), currency, reference: reference.clone() };
    let steps = [
        ("2024-01-30T10:00:00Z", requested.into()),
        ("2024-01-31T23:59:59Z", captured(1, 100, 50).into()),
        ("2024-02-01T00:00:00Z", captured(2, 50, 0).into()),
        ("2024-02-01T09:00:00Z", refunded.into()),
    ];
    let appender = Appender::start(&system.urls.database_url).unwrap();
    let stream = stream_of::<orders::payment::Payment>(payment.0);
    for (version, (occurred_at, event)) in (0..).zip(steps) {
        let expected = if version == 0 { NoStream } else { Exact(version) };
        let events = vec![encode(&Event::Payment(payment, event))];
        let Append { metadata, streams } = append_as(Uuid::now_v7(), vec![StreamAppend { stream, expected, events }]);
        let occurred_at = occurred_at.parse().unwrap();
        let metadata = Metadata { correlation_id: order_id.0, origin: Origin::Import, occurred_at, ..metadata };
        appender.append(Append { metadata, streams }).await.unwrap();
    }
}

#[tokio::test]
async fn an_accountant_sees_the_money_of_days_and_months() {
    let mut system = System::start().await;
    system.receive("mug", 10).await;
    import_payment(&system).await;
    let mut by_two = order_of(&[("mug", 2, 1)]);
    by_two.payments[0].amount = Amount(1250);
    let voucher = PaymentMethod { kind: "voucher".into(), ..card("tok_approve_voucher") };
    by_two.payments.push(PlacePayment { method: voucher, amount: Amount(1000) });
    let order = system.place(by_two).await;
    // Held, but not captured: it is nobody's revenue.
    system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let [parcel] = system.shipments(order).await[..] else { panic!("one shipment") };
    system.execute(system.dispatch(parcel).await).await.unwrap();
    system.settle().await;
    let lost = Command::Shipment { id: parcel, command: shipment::Command::ReportLost };
    system.execute(lost).await.unwrap();
    system.settle().await;

    let date = |date: &str| Some(date.parse::<NaiveDate>().unwrap());
    let filter = |from, to| revenue::Filter { from, to, limit: 500, ..Default::default() };
    let by_day = async |filter| revenue::by_day(&system.parts.read, &filter).await.unwrap();
    let by_month = async |filter| revenue::by_month(&system.parts.read, &filter).await.unwrap();
    let imported_days = [
        moved("2024-01-31", "BRL", "boleto", (100, 1), (0, 0)),
        moved("2024-02-01", "BRL", "boleto", (50, 1), (30, 1)),
    ];
    let past = filter(None, date("2024-12-31"));
    assert_eq!(by_day(past.clone()).await, imported_days);
    assert_eq!(by_day(filter(date("2024-02-01"), date("2024-02-01"))).await, imported_days[1..]);
    let imported_months =
        [moved("2024-01", "BRL", "boleto", (100, 1), (0, 0)), moved("2024-02", "BRL", "boleto", (50, 1), (30, 1))];
    assert_eq!(by_month(past).await, imported_months);

    // What is recorded here is of the day that Postgres recorded it on, which may have ended meanwhile.
    let days = "SELECT DISTINCT to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM daybook.events
                WHERE event_type IN ('PaymentCaptured', 'PaymentRefunded') AND origin = 0";
    let days: Vec<String> = query_scalar(days).fetch_all(&system.parts.read).await.unwrap();
    let euros = revenue::Filter { currency: Some("EUR".parse().unwrap()), ..filter(None, None) };
    let live = by_day(euros.clone()).await;
    assert!(live.iter().all(|row| days.contains(&row.period)), "{live:?}");
    let sum = |rows: &[Revenue], kind: &str| {
        let of_kind = rows.iter().filter(|row| row.kind == kind);
        of_kind.fold((0, 0, 0, 0), |(a, b, c, d), r| (a + r.captured, b + r.captures, c + r.refunded, d + r.refunds))
    };
    for rows in [live, by_month(euros).await] {
        assert_eq!(sum(&rows, "credit_card"), (1250, 1, 1250, 1), "{rows:?}");
        assert_eq!(sum(&rows, "voucher"), (1000, 1, 1000, 1), "{rows:?}");
    }

    // Page by page it is the same.
    let all = by_day(filter(None, None)).await;
    let mut pages: Vec<Revenue> = Vec::new();
    while pages.len() < all.len() {
        let after = pages.last().map(|r| (r.period.clone(), r.currency.clone(), r.kind.clone()));
        let page = by_day(revenue::Filter { after, limit: 1, ..Default::default() }).await;
        assert_eq!(page.len(), 1);
        pages.extend(page);
    }
    assert_eq!(pages, all);
    system.assert_verified().await;
}

/// Services of earlier builds do not say where a list goes on. Such a list is not taken for whole where it may not be.
#[tokio::test]
async fn a_list_that_may_go_on_is_not_taken_for_whole() {
    let mut system = System::start().await;
    let service = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    let skus: Vec<String> = (0..500).map(|n| format!("mug-{n}")).collect();
    join_all(skus.iter().map(|sku| system.receive(sku, 1))).await;
    system.project().await;
    // The same service, as earlier builds answered.
    let older = start_nats().await;
    let asked = connect_nats(&older.url(), "test").await.unwrap();
    let (mut requests, answering) = (asked.subscribe("daybook.qry.v1.>").await.unwrap(), system.parts.client.clone());
    let responder = asked.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let answer = answering.request(request.subject, request.payload).await.unwrap();
            let mut answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            answer.as_object_mut().unwrap().remove("next");
            responder.publish(request.reply.unwrap(), answer.to_string().into()).await.unwrap();
        }
    });
    let list = async |client: &async_nats::Client, limit| {
        let client = Client::new(client.clone(), "test");
        let rows = client.list(ListStock::default(), limit).unwrap().all().await;
        rows.map(|rows| rows.len())
    };
    assert_eq!(list(&system.parts.client, 1000).await.unwrap(), 500);
    for limit in [1, 500] {
        assert_eq!(list(&asked, limit).await.unwrap(), limit as usize);
    }
    let error = list(&asked, 501).await.unwrap_err();
    assert!(matches!(error, ClientError::MayGoOn(500)), "{error}");
    service.stop().await;
}
