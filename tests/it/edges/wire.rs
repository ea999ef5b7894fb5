//! What is stored, sent and answered, as it is: these snapshots are the contract of `docs/wire.md`. What differs from run
//! to run is replaced by its meaning, after it was checked to have that meaning.

use crate::harness::{System, id, order_of, run};
use engine::Timer;
use futures_util::StreamExt;
use order_services::queries;
use order_services::verbs;
use order_views::Projection;
use orders::id::{OrderId, PaymentId, SellerId, ShipmentId};
use runtime::api::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Service};
use runtime::process::jetstream;
use runtime::step::{Outcome, Step};
use runtime::subject;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::{Mark, RecordedEvent, derive_id, event_id};
use uuid::Uuid;

/// A system whose APIs answer, with a client that sees what is sent.
struct Apis {
    system: System,
    _services: [Service; 2],
}

/// A command id that is the same in every run: version 7, of 2025.
fn command_id(n: u128) -> Uuid {
    Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 | n)
}

const ORDER: u128 = 0x0199_0000_0000_7000_8000_0000_0000_aaaa;

impl Apis {
    async fn start() -> Self {
        let system = System::start().await;
        let services = [
            verbs::start(&system.parts.client, system.executor.clone()).await.unwrap(),
            queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap(),
        ];
        system.parts.client.flush().await.unwrap();
        Self { system, _services: services }
    }

    /// Sends a body and shows what comes back: NATS' error headers, and the body.
    async fn ask(&self, subject: &str, body: impl Into<Vec<u8>>) -> Value {
        let answer = self.system.parts.client.request(subject.to_owned(), body.into().into()).await.unwrap();
        let header = |name: &str| answer.headers.as_ref().and_then(|h| h.get(name)).map(|v| v.to_string());
        let mut body: Value = serde_json::from_slice(&answer.payload).unwrap();
        if let Some(mark) = body.get_mut("mark") {
            let told: Mark = mark.as_str().unwrap().parse().unwrap();
            assert!(self.system.parts.log.has(told).await.unwrap());
            *mark = format!("{}:<link>", told.position).into();
        }
        match (header(NATS_SERVICE_ERROR_CODE), header(NATS_SERVICE_ERROR)) {
            (Some(code), Some(error)) => {
                assert_eq!(Some(error.as_str()), body["message"].as_str());
                json!({ "Nats-Service-Error-Code": code, "body": body })
            }
            _ => json!({ "body": body }),
        }
    }

    async fn command(&self, verb: &str, n: u128, data: Value) -> Value {
        let body = json!({ "command_id": command_id(n), "actor": "shop", "data": data });
        self.ask(&format!("{}.{verb}", subject::COMMANDS), body.to_string()).await
    }

    async fn query(&self, verb: &str, body: Value) -> Value {
        self.ask(&format!("{}.{verb}", subject::QUERIES), body.to_string()).await
    }
}

fn place() -> Value {
    json!({ "order_id": id(ORDER), "order": order_of(&[("mug", 2, 1), ("hat", 1, 2)]) })
}

/// A whole order: each event as it is stored, with its metadata, and how the events hang together.
#[tokio::test]
async fn stored_events() {
    let mut system = Apis::start().await;
    for (n, sku) in [(1, "mug"), (2, "hat")] {
        system.command("stock.receive", n, json!({ "sku": sku, "quantity": 5 })).await;
    }
    system.command("order.place", 3, place()).await;
    system.system.settle().await;
    // They were planned side by side.
    let mut shipments = system.system.shipments(OrderId(id(ORDER))).await;
    shipments.sort_unstable();
    for (n, shipment) in (4..).zip(shipments) {
        let dispatch = json!({ "shipment_id": shipment, "revision": 1, "tracking": format!("T{n}") });
        system.command("shipment.dispatch", n, dispatch).await;
        system.command("shipment.confirm_delivery", n + 100, json!({ "shipment_id": shipment })).await;
        system.system.settle().await;
    }
    let events = system.system.parts.log.read_all(0, 100).await.unwrap();
    let name = |e: &RecordedEvent| format!("{}@{} {}", e.stream, e.version, e.event_type);
    let names: BTreeMap<Uuid, String> = events.iter().map(|e| (e.event_id, name(e))).collect();
    // Follow-ups are done side by side, so the streams are shown one after the other.
    let mut sorted: Vec<&RecordedEvent> = events.iter().collect();
    sorted.sort_by_key(|e| (e.stream, e.version));
    let shown: Vec<String> = sorted.into_iter().map(|event| show(event, &events, &names)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

/// One event. An event id must be its command's; the time it was recorded, no earlier than the one before.
fn show(event: &RecordedEvent, all: &[RecordedEvent], names: &BTreeMap<Uuid, String>) -> String {
    let RecordedEvent { position, event_id: id, schema_version, payload, metadata, .. } = event;
    let index = all.iter().filter(|e| e.metadata.command_id == metadata.command_id && e.position < *position).count();
    assert_eq!(*id, event_id(metadata.command_id, index));
    assert!(all.iter().all(|e| e.position > *position || e.recorded_at <= event.recorded_at));
    let command = match metadata.causation_id {
        // A follow-up's command id is derived from the event that it follows from.
        Some(_) => {
            assert_eq!(metadata.command_id.get_version_num(), 8);
            "derived".to_owned()
        }
        None => metadata.command_id.to_string(),
    };
    let cause = metadata.causation_id.map_or("none", |cause| &names[&cause]);
    let (name, correlation, payload) = (&names[id], metadata.correlation_id, &**payload);
    let (actor, origin) = (&metadata.actor, metadata.origin.as_str());
    format!(
        "{name} v{schema_version}\n  cause {cause}\n  correlation {correlation}\n  \
         command {command}, event {index} of it, by {actor}, {origin}\n  {payload}"
    )
}

/// Every message of JetStream that the first events of an order are.
#[tokio::test]
async fn messages() {
    let apis = Apis::start().await;
    apis.command("order.place", 3, place()).await;
    let mut system = apis.system;
    system.project().await;
    // The payment is asked for; nothing more.
    while system.sender.step().await.unwrap() != Outcome::Worked(1) {}
    system.relay().await;
    let stream = jetstream(&system.parts.client).get_stream(subject::STREAM).await.unwrap();
    let events = system.parts.log.read_all(0, 10).await.unwrap();
    let mut shown = Vec::new();
    for event in &events {
        let message = stream.get_raw_message(event.position as u64).await.unwrap();
        let mut headers: Vec<String> = Vec::new();
        for (name, values) in message.headers.iter() {
            let value = values[0].as_str();
            let value = match name.to_string().as_str() {
                "Daybook" => {
                    let mut fields: Vec<&str> = value.split(' ').collect();
                    for (n, at) in [(5, event.recorded_at), (6, event.metadata.occurred_at)] {
                        assert_eq!(fields[n], at.timestamp_micros().to_string());
                        fields[n] = "<microseconds>";
                    }
                    if let Some(link) = event.link {
                        assert_eq!(fields[13], link.to_string());
                        fields[13] = "<link>";
                    }
                    fields.join(" ")
                }
                _ => value.to_owned(),
            };
            headers.push(format!("  {name}: {value}"));
        }
        headers.sort();
        let body = String::from_utf8(message.payload.to_vec()).unwrap();
        shown.push(format!("{} {}\n{}\n  {body}", message.sequence, message.subject, headers.join("\n")));
    }
    insta::assert_snapshot!(shown.join("\n"));
    let info = stream.cached_info();
    let mut config = json!(info.config);
    let log_id = system.parts.log.identity().await.unwrap().log_id.to_string();
    assert_eq!(config["metadata"]["daybook_log_id"], log_id);
    config["metadata"].as_object_mut().unwrap().retain(|key, _| !key.starts_with("_nats"));
    config["metadata"]["daybook_log_id"] = "<the log's id>".into();
    let server = system.parts.log.server().await.unwrap();
    assert_eq!(config["metadata"]["daybook_system_identifier"], server.system_identifier.to_string());
    config["metadata"]["daybook_system_identifier"] = "<of the database system>".into();
    insta::assert_json_snapshot!("stream_config", config);
}

/// A reply of each kind, and each error that a client can bring about.
#[tokio::test]
async fn replies() {
    let mut apis = Apis::start().await;
    let mut shown = Vec::new();
    let mut show =
        |what: &str, answer: Value| shown.push(format!("{what}\n{}", serde_json::to_string_pretty(&answer).unwrap()));
    show("recorded", apis.command("order.place", 1, place()).await);
    show("the same command again: the same reply", apis.command("order.place", 1, place()).await);
    show("already so: not recorded", apis.command("order.place", 2, place()).await);
    let cancel = json!({ "order_id": id(ORDER), "reason": "customer_request" });
    show("its id for another command", apis.command("order.cancel", 1, cancel.clone()).await);
    let mut other = place();
    other["order"]["lines"][0]["quantity"] = 1.into();
    other["order"]["payments"][0]["amount"] = 2250.into();
    show("rejected", apis.command("order.place", 3, other.clone()).await);
    other["order"]["lines"][0]["quantity"] = 0.into();
    other["order"]["lines"][1]["discount"] = 99_999.into();
    other["order"]["payments"][0]["method"]["token"] = "".into();
    show("invalid, with every field at fault", apis.command("order.place", 4, other).await);
    show("an unknown field", apis.command("order.cancel", 5, json!({ "order_id": id(ORDER), "why": "?" })).await);
    show("no JSON", apis.ask("daybook.cmd.v1.order.cancel", "{\"a\": tok_secret").await);
    let body = json!({ "command_id": id(5), "actor": "shop", "data": cancel });
    show("a command id that is none of a client's", apis.ask("daybook.cmd.v1.order.cancel", body.to_string()).await);
    let unknown = json!({ "order_id": id(7), "reason": "customer_request" });
    show("no such order", apis.command("order.cancel", 6, unknown).await);
    show("cancelled, with its position", apis.command("order.cancel", 7, cancel.clone()).await);
    // Nothing is projected yet.
    let get = json!({ "order_id": id(ORDER) });
    show(
        "a query that the read model has not come to",
        apis.query("order_summary.get", json!({ "at_least": 2, "wait_ms": 0, "data": get })).await,
    );
    apis.system.project().await;
    let mut found = apis.query("order_summary.get", json!({ "at_least": 2, "data": get })).await;
    for time in ["placed_at", "changed_at"] {
        let at = &mut found["body"]["data"][time];
        chrono::DateTime::parse_from_rfc3339(at.as_str().unwrap()).unwrap();
        *at = "<RFC 3339>".into();
    }
    show("a query that it has", found);
    let lost = json!({ "mark": format!("1:{}", "ab".repeat(32)), "data": get });
    show("a query with the mark of another history", apis.query("order_summary.get", lost).await);
    show(
        "a query for what is not there",
        apis.query("order_summary.get", json!({ "data": { "order_id": id(7) } })).await,
    );
    show(
        "a query with a wrong field",
        apis.query("order_summary.list", json!({ "data": { "state": "placed" } })).await,
    );
    let amount = json!({ "data": { "total_at_least": 1000 } });
    show("an amount without its currency", apis.query("order_summary.list", amount).await);
    let never = json!({ "placed_from": "2026-11-22T00:00:00Z", "placed_before": "2026-11-21T00:00:00Z" });
    show("an end before its beginning", apis.query("order_summary.list", json!({ "data": never })).await);
    insta::assert_snapshot!(shown.join("\n\n"));
}

/// Sends commands one after the other; shows of each what it tries, and what comes back.
async fn tell(apis: &Apis, shown: &mut Vec<String>, commands: impl IntoIterator<Item = (&str, &str, Value)>) {
    for (verb, what, data) in commands {
        let answer = apis.command(verb, 1000 + shown.len() as u128, data).await;
        shown.push(format!("{verb}: {what}\n{answer}"));
    }
}

/// Every verb on one order's way from an approval to a return: what it is answered where something new is to be seen, and
/// how it is refused where it comes too early or too late.
#[tokio::test]
async fn replies_to_every_verb() {
    let mut apis = Apis::start().await;
    let shown = &mut Vec::new();
    for (n, sku) in [(1, "mug"), (2, "hat")] {
        apis.command("stock.receive", n, json!({ "sku": sku, "quantity": 10 })).await;
    }
    let order = OrderId(id(ORDER));
    let [first, second] = [1, 2].map(|seller| ShipmentId::of_seller(order, SellerId(id(seller))));
    let of_order = |data: Value| {
        let mut with_id = json!({ "order_id": order });
        with_id.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        with_id
    };
    let approved_within = |seconds: Value| {
        let mut place = place();
        place["order"]["approval_within_seconds"] = seconds;
        place
    };
    let hold = |reason: &str| of_order(json!({ "reason": reason }));
    let approval = |approval: u32| of_order(json!({ "approval": approval }));
    let edit_no = |edit: u32| of_order(json!({ "edit": edit }));
    let edit = |edit: Value| of_order(json!({ "edit": edit }));
    let lines = |lines: Value| of_order(json!({ "lines": lines, "reason": "customer_request" }));
    let asks = |lines: Value| of_order(json!({ "lines": lines, "reason": "damaged" }));
    let came = |n: u128, lines: Value| of_order(json!({ "return_no": 1, "receipt_id": id(n), "lines": lines }));
    let parcel = |id: ShipmentId| json!({ "shipment_id": id });
    let packed = |id: ShipmentId, revision: u32| json!({ "shipment_id": id, "revision": revision });
    let sent = |id: ShipmentId, revision: u32| json!({ "shipment_id": id, "revision": revision, "tracking": "T1" });

    tell(
        &apis,
        shown,
        [
            ("order.place", "an approval within no time", approved_within(json!(0))),
            ("order.place", "an approval within no number", approved_within(json!("soon"))),
            ("order.place", "with an approval: two events", approved_within(json!(3600))),
            ("order.cancel", "a reason of the system's own", hold("out_of_stock")),
            ("order.cancel", "a reason of histories", hold("not_told")),
            ("order.cancel", "no reason that there is", hold("whim")),
            ("order.place_hold", "once for each reason", hold("fraud")),
            ("order.place_hold", "the same reason again", hold("fraud")),
            ("order.place_hold", "no reason that there is", hold("whim")),
            ("order.release_hold", "let go", hold("fraud")),
            ("order.request_approval", "one at a time", of_order(json!({ "within_seconds": 60 }))),
            ("order.request_approval", "more than five days", of_order(json!({ "within_seconds": 432_001 }))),
            ("order.grant_approval", "one that was not asked for", approval(2)),
            ("order.propose_edit", "too early", edit(json!({ "remove": [2] }))),
            ("order.request_return", "too early", asks(json!([{ "line": 1, "quantity": 1 }]))),
            ("order.grant_approval", "granted", approval(1)),
            ("order.deny_approval", "decided already", approval(1)),
        ],
    )
    .await;
    apis.system.settle().await;

    let mugs = json!([{ "sku": "mug", "seller_id": id(1), "quantity": 2, "unit_price": 1000 }]);
    let shipping = json!([{ "seller_id": id(1), "amount": 250 }]);
    let card = json!([{ "method": { "kind": "credit_card", "token": "tok_approve" }, "amount": 1000 }]);
    let no_mugs = json!([{ "sku": "mug", "seller_id": id(1), "quantity": 0, "unit_price": 1000 }]);
    let more = edit(json!({ "remove": [2], "add": mugs, "shipping": shipping, "payments": card }));
    let at_fault = edit(json!({ "remove": [9], "add": no_mugs, "shipping": [{ "seller_id": id(3), "amount": -1 }] }));
    tell(
        &apis,
        shown,
        [
            ("order.request_approval", "too late", of_order(json!({ "within_seconds": 60 }))),
            (
                "order.propose_edit",
                "what is missing is not paid",
                edit(json!({ "remove": [2], "add": mugs, "shipping": shipping })),
            ),
            ("order.propose_edit", "every field at fault", at_fault),
            ("order.propose_edit", "proposed", more),
            ("order.propose_edit", "another one", edit(json!({ "remove": [1] }))),
            ("order.cancel_lines", "while an edit is open", lines(json!([1]))),
            ("order.confirm_edit", "not yet paid and reserved", edit_no(1)),
            ("order.confirm_edit", "none that there is", edit_no(7)),
        ],
    )
    .await;
    apis.system.settle().await;
    tell(
        &apis,
        shown,
        [("order.place_hold", "of a confirmed order", hold("address")), ("order.confirm_edit", "on hold", edit_no(1))],
    )
    .await;
    apis.system.settle().await;
    let both = [("shipment.mark_ready", "held", packed(first, 1)), ("shipment.dispatch", "held", sent(first, 1))];
    tell(&apis, shown, both).await;
    let held = apis.query("order_summary.list", json!({ "data": { "status": "on_hold" } })).await;
    assert_eq!(held["body"]["data"].as_array().map(Vec::len), Some(1), "{held}");
    tell(&apis, shown, [("order.release_hold", "of a confirmed order", hold("address"))]).await;
    apis.system.settle().await;
    let cheaper = edit(json!({ "remove": [1], "shipping": shipping }));
    tell(
        &apis,
        shown,
        [
            ("order.confirm_edit", "with the shipments", edit_no(1)),
            ("order.discard_edit", "confirmed already", edit_no(1)),
            ("order.propose_edit", "a cheaper one, nothing to pay", cheaper),
            ("order.discard_edit", "discarded", edit_no(2)),
            ("order.confirm_edit", "discarded already", edit_no(2)),
            ("order.cancel_lines", "no line of the order", lines(json!([1, 9]))),
            ("order.cancel_lines", "with the shipments that change", lines(json!([1]))),
            ("order.cancel_lines", "the same again", lines(json!([1]))),
            ("order.change_address", "with the shipments", of_order(json!({ "address_id": id(0xB) }))),
        ],
    )
    .await;
    apis.system.settle().await;
    tell(
        &apis,
        shown,
        [
            ("shipment.report_lost", "too early", parcel(first)),
            ("shipment.mark_ready", "packed by the plan before the changes", packed(first, 1)),
            ("shipment.mark_ready", "packed", packed(first, 4)),
            ("shipment.dispatch", "of a seller who has no line left", sent(second, 1)),
            ("shipment.dispatch", "none that there is", sent(ShipmentId(id(7)), 1)),
            ("shipment.dispatch", "handed over", sent(first, 4)),
            ("order.change_address", "too late", of_order(json!({ "address_id": id(0xC) }))),
            ("shipment.confirm_delivery", "arrived", parcel(first)),
            ("shipment.report_lost", "too late", parcel(first)),
            ("shipment.report_returned", "too late", parcel(first)),
        ],
    )
    .await;
    apis.system.settle().await;

    let payment = PaymentId::of_order(order, 0);
    let notice = |call: Value| {
        let outcome = json!({ "approved": { "reference": "r" } });
        json!({ "payment_id": payment, "notice_id": id(5), "call": call, "outcome": outcome })
    };
    tell(
        &apis,
        shown,
        [
            ("order.place_hold", "too late", hold("manual")),
            ("order.request_return", "more than has arrived", asks(json!([{ "line": 3, "quantity": 3 }]))),
            ("order.request_return", "nothing", asks(json!([]))),
            ("order.request_return", "asked for", asks(json!([{ "line": 3, "quantity": 2 }]))),
            ("order.receive_return", "not yet approved", came(1, json!([{ "line": 3, "quantity": 1, "usable": 1 }]))),
            ("order.approve_return", "none that there is", of_order(json!({ "return_no": 2 }))),
            ("order.approve_return", "approved", of_order(json!({ "return_no": 1 }))),
            (
                "order.receive_return",
                "more usable than came",
                came(1, json!([{ "line": 3, "quantity": 1, "usable": 2 }])),
            ),
            ("order.receive_return", "a part", came(1, json!([{ "line": 3, "quantity": 1, "usable": 1 }]))),
            ("order.receive_return", "the same parcel", came(1, json!([{ "line": 3, "quantity": 1, "usable": 1 }]))),
            (
                "order.receive_return",
                "the same parcel with something else",
                came(1, json!([{ "line": 3, "quantity": 1, "usable": 0 }])),
            ),
            (
                "order.receive_return",
                "more than was approved",
                came(2, json!([{ "line": 3, "quantity": 2, "usable": 0 }])),
            ),
            ("stock.adjust", "by nothing", json!({ "sku": "mug", "by": 0, "reason": "count" })),
            ("stock.adjust", "below what there is", json!({ "sku": "mug", "by": -100, "reason": "theft" })),
            ("stock.adjust", "counted", json!({ "sku": "mug", "by": -1, "reason": "damage" })),
            ("payment.record_notice", "known already", notice(json!("authorise"))),
            ("payment.record_notice", "no capture", notice(json!({ "capture": { "capture_id": id(7) } }))),
            ("payment.record_notice", "no refund", notice(json!({ "refund": { "refund_id": id(7) } }))),
        ],
    )
    .await;
    insta::assert_snapshot!(shown.join("\n\n"));
}

/// What an operator asks for: the dead letters of both kinds, and how the projections do.
#[tokio::test]
async fn replies_to_an_operator() {
    let mut apis = Apis::start().await;
    apis.command("order.place", 3, place()).await;
    apis.command("stock.receive", 4, json!({ "sku": "mug", "quantity": 5 })).await;
    // Nobody could read the order in the history, and nobody could do what follows from it.
    let url = apis.system.urls.database_url.clone();
    run(&url, "UPDATE daybook.checkpoints SET position = 1 WHERE projection <> 'order_history'").await;
    let payload = "ALTER TABLE daybook.events DISABLE TRIGGER ALL;
                   UPDATE daybook.events SET payload = '{}' WHERE position = 1;
                   ALTER TABLE daybook.events ENABLE TRIGGER ALL";
    run(&url, payload).await;
    apis.system.project().await;
    let follow_up = "INSERT INTO daybook.follow_ups
                         (id, domain, event_id, position, correlation_id, reaction, target, act, state, attempts, reason,
                          settled_at)
                     SELECT '00000000-0000-0000-0000-000000000001', 'orders', event_id, 1, correlation_id, 'take_payment', stream_id,
                            '{\"command\": {\"token\": \"tok_secret\"}}', 'parked', 60, 'nobody answers', clock_timestamp()
                     FROM daybook.events WHERE position = 1";
    run(&url, follow_up).await;

    let mut shown = Vec::new();
    let mut show =
        |what: &str, answer: &Value| shown.push(format!("{what}\n{}", serde_json::to_string_pretty(answer).unwrap()));
    let mut listed = apis.query("dead_letters.list", json!({ "at_least": 2 })).await;
    let letters = listed["body"]["data"].as_array().unwrap().clone();
    assert!(letters[0]["since"].as_str() < letters[1]["since"].as_str());
    let hide_time = |of: &mut Value| {
        chrono::DateTime::parse_from_rfc3339(of["since"].as_str().unwrap()).unwrap();
        of["since"] = "<RFC 3339>".into();
    };
    listed["body"]["data"].as_array_mut().unwrap().iter_mut().for_each(hide_time);
    show("dead letters, the longest waiting first", &listed);
    for letter in &letters {
        let mut found = apis.query("dead_letters.get", json!({ "data": { "id": letter["id"] } })).await;
        assert_eq!(found["body"]["data"]["since"], letter["since"]);
        hide_time(&mut found["body"]["data"]);
        show("a dead letter", &found);
    }
    let after = json!({ "after": { "since": letters[0]["since"], "id": letters[0]["id"] } });
    let next = apis.query("dead_letters.list", json!({ "data": after })).await;
    assert_eq!(next["body"]["data"], json!(letters[1..]));
    show("none was given up", &apis.query("dead_letters.list", json!({ "data": { "discarded": true } })).await);

    run(&url, "UPDATE daybook.leases SET expires_at = clock_timestamp() + interval '5.9 s'").await;
    let mut projections = apis.query("projections.list", json!({})).await;
    let data = projections["body"]["data"].as_array_mut().unwrap();
    assert_eq!(data.len(), Projection::all().count());
    data.retain(|one| one["projection"] == "order_history");
    assert!(data[0]["heartbeat_seconds_ago"].is_f64());
    data[0]["heartbeat_seconds_ago"] = "<seconds>".into();
    show("projections: one of them", &projections);
    insta::assert_snapshot!(shown.join("\n\n"));
}

/// The services can be found and described by NATS' own means.
#[tokio::test]
async fn discovery() {
    let apis = Apis::start().await;
    let client = &apis.system.parts.client;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply("$SRV.INFO", inbox, "".into()).await.unwrap();
    let mut services = BTreeMap::new();
    while services.len() < 4 {
        let info: Value = serde_json::from_slice(&answers.next().await.unwrap().payload).unwrap();
        let endpoints = info["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| format!("  {} in {}", e["subject"].as_str().unwrap(), e["queue_group"].as_str().unwrap()));
        let mut endpoints: Vec<String> = endpoints.collect();
        endpoints.sort();
        let name = format!("{}: {}", info["name"].as_str().unwrap(), info["description"].as_str().unwrap());
        services.insert(name, endpoints.join("\n"));
    }
    let shown: Vec<String> = services.into_iter().map(|(name, endpoints)| format!("{name}\n{endpoints}")).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

/// What a follow-up's id is derived from: stored and looked up for ever.
#[test]
fn derived_ids_never_change() {
    let event = event_id(command_id(1), 0);
    let follow_up = engine::follow_up::follow_up_id(event, "take_payment", id(5));
    assert_eq!(follow_up, derive_id(event, &[b"follow-up", b"take_payment", id(5).as_bytes()]));
    let timer = Timer { kind: "expire_reservation", target: id(5), key: "1".into() };
    let timer = engine::timer::timer_id(event, &timer);
    assert_eq!(timer, derive_id(event, &[b"timer", b"expire_reservation", id(5).as_bytes(), b"1"]));
    let letter = engine::parked::letter_id(event, "stock_level");
    assert_eq!(letter, derive_id(event, &[b"parked", b"stock_level"]));
    insta::assert_snapshot!(format!("{event}\n{follow_up}\n{timer}\n{letter}"));
}
