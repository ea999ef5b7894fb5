//! Requests that no client of ours would send, to every endpoint of the command and query APIs: each gets a typed answer, none
//! is recorded, and the service goes on.
//!
//! They are made from what is right: each place in the body of a right request is replaced by what is wrong there.

use crate::harness::{System, id, order_of};
use async_nats::{Client, HeaderMap, Message, Request};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use order_services::queries;
use order_services::verbs;
use runtime::api::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use runtime::wire::{Code, ErrorBody};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// For who hears nothing at all.
const NO_ANSWER: Duration = Duration::from_secs(30);

/// The data of a right request to each endpoint, by the end of its subject.
fn right(verb: &str) -> Value {
    let with = |of: &str, more: Value| {
        let mut data = Map::from_iter([(of.to_owned(), json!(id(7)))]);
        data.extend(more.as_object().unwrap().clone());
        Value::Object(data)
    };
    let order = |more: Value| with("order_id", more);
    let line = json!([{ "line": 1, "quantity": 1 }]);
    let cursor = |time: &str, of: &str| json!({ time: "2026-11-22T08:39:56Z", of: id(7) });
    match verb {
        "order.place" => order(json!({ "order": order_of(&[("mug", 2, 1)]) })),
        "order.cancel" => order(json!({ "reason": "fraud" })),
        "order.cancel_lines" => order(json!({ "lines": [1], "reason": "fraud" })),
        "order.change_address" => order(json!({ "address_id": id(8) })),
        "order.place_hold" | "order.release_hold" => order(json!({ "reason": "fraud" })),
        "order.request_approval" => order(json!({ "within_seconds": 60 })),
        "order.grant_approval" | "order.deny_approval" => order(json!({ "approval": 1 })),
        "order.propose_edit" => order(json!({ "edit": {
            "remove": [1],
            "add": [{ "sku": "mug", "seller_id": id(1), "quantity": 1, "unit_price": 1 }],
            "shipping": [{ "seller_id": id(1), "amount": 1 }],
            "payments": [{ "method": { "kind": "card", "token": "tok" }, "amount": 1 }],
        } })),
        "order.confirm_edit" | "order.discard_edit" => order(json!({ "edit": 1 })),
        "order.request_return" => order(json!({ "lines": line, "reason": "damaged" })),
        "order.approve_return" => order(json!({ "return_no": 1 })),
        "order.receive_return" => order(json!({
            "return_no": 1, "receipt_id": id(9), "lines": [{ "line": 1, "quantity": 1, "usable": 1 }],
        })),
        "payment.record_notice" => with(
            "payment_id",
            json!({
                "notice_id": id(9), "call": { "capture": { "capture_id": id(3) } }, "outcome": { "approved": { "reference": "r" } },
            }),
        ),
        "stock.receive" => json!({ "sku": "mug", "quantity": 1 }),
        "stock.adjust" => json!({ "sku": "mug", "by": 1, "reason": "count" }),
        "shipment.mark_ready" => with("shipment_id", json!({ "revision": 1 })),
        "shipment.dispatch" => with("shipment_id", json!({ "revision": 1, "tracking": "T1" })),
        "shipment.confirm_delivery" | "shipment.report_lost" | "shipment.report_returned" | "fulfilment.get" => {
            with("shipment_id", json!({}))
        }
        "order_summary.get" => order(json!({})),
        "order_summary.list" => json!({
            "customer_id": id(1), "status": "placed", "sku": "mug", "placed_from": "2026-11-22T08:39:56Z",
            "placed_before": "2026-11-23T08:39:56Z", "currency": "EUR", "total_at_least": 1, "total_at_most": 2,
            "after": cursor("placed_at", "order_id"), "limit": 1,
        }),
        "stock_level.get" => json!({ "sku": "mug" }),
        "stock_level.list" => json!({ "after": "mug", "limit": 1 }),
        "waiting.list" => json!({
            "for": "stock", "longer_than_seconds": 1, "after": cursor("since", "order_id"), "limit": 1,
        }),
        "dead_letters.get" => json!({ "id": id(1) }),
        "dead_letters.list" => json!({
            "reaction": "take_payment", "projection": "waiting", "correlation_id": id(1), "matching": "x",
            "since": "2026-11-22T08:39:56Z", "until": "2026-11-22T08:39:56Z", "discarded": true,
            "after": cursor("since", "id"), "limit": 1,
        }),
        "projections.list" => json!({}),
        "order_history.list" => order(json!({ "after": 1, "limit": 1 })),
        "fulfilment.list" => json!({
            "seller_id": id(1), "status": "ready", "after": cursor("planned_at", "shipment_id"), "limit": 1,
        }),
        "revenue.by_day" | "revenue.by_month" => json!({
            "from": "2026-11-22", "to": "2026-11-22", "currency": "EUR",
            "after": { "period": "2026-11", "currency": "EUR", "kind": "card" }, "limit": 1,
        }),
        new => panic!("{new} is an endpoint: what is it asked with?"),
    }
}

/// The endpoints, as NATS' own means list them: whether each takes commands, by its subject.
async fn endpoints(client: &Client) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    for (service, commands) in [("daybook-commands", true), ("daybook-queries", false)] {
        let info = client.request(format!("$SRV.INFO.{service}"), "".into()).await.unwrap();
        let info: Value = serde_json::from_slice(&info.payload).unwrap();
        let subjects = info["endpoints"].as_array().unwrap().iter().map(|e| e["subject"].as_str().unwrap().to_owned());
        found.extend(subjects.map(|subject| (subject, commands)));
    }
    found
}

fn body(commands: bool, data: &Value) -> Value {
    match commands {
        true => {
            json!({ "command_id": Uuid::now_v7(), "actor": "shop", "occurred_at": "2026-11-22T08:39:56Z", "data": data })
        }
        false => json!({ "at_least": 0, "wait_ms": 0, "data": data }),
    }
}

/// The path of every value in `value`.
fn paths(value: &Value, path: &str, into: &mut Vec<String>) {
    into.push(path.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, v)| paths(v, &format!("{path}/{name}"), into)),
        Value::Array(values) => values.iter().enumerate().for_each(|(n, v)| paths(v, &format!("{path}/{n}"), into)),
        _ => {}
    }
}

/// JSON text with `text` in the place of the value at `path`.
fn replaced(body: &Value, path: &str, text: &str) -> String {
    let mut body = body.clone();
    *body.pointer_mut(path).unwrap() = "<here>".into();
    body.to_string().replace(r#""<here>""#, text)
}

/// What can be wrong at a place, of its kind: as JSON text, which need not be well-formed.
fn wrong(value: &Value) -> Vec<String> {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(500), close.repeat(500));
    let mut wrong = vec![r#""\ud800""#.to_owned(), r#"{"\u0000":1}"#.to_owned(), r#"{"a":1,"a":1}"#.to_owned()];
    match value {
        Value::Object(fields) => {
            // The same values in a list; each field twice; one too many; with what is no field at all.
            wrong.push(Value::Array(fields.values().cloned().collect()).to_string());
            let field = |(name, value): (&String, &Value)| format!("{}:{value}", json!(name));
            let all: Vec<String> = fields.iter().map(field).collect();
            wrong.extend(all.iter().map(|one| format!("{{{},{one}}}", all.join(","))));
            wrong.push(format!("{{{}}}", [&all[..], &[r#""unknown":1"#.into()]].concat().join(",")));
            wrong.push(r#""text""#.into());
        }
        Value::Array(_) => wrong.extend([deep("[", "]"), deep(r#"[{"a":"#, "}]"), "1".into()]),
        Value::String(_) => wrong.extend([r#""a\u0000b""#.into(), "[\"a\"]".into(), "1".into()]),
        Value::Number(_) => {
            wrong.extend(["1e400".into(), "1.5".into(), "99999999999999999999".into(), r#""1""#.into()]);
        }
        Value::Bool(_) => wrong.extend(["1".into(), r#""true""#.into()]),
        Value::Null => {}
    }
    if value.as_str().is_some_and(|text| text.starts_with("2026-11-2")) {
        let days = ["-262000-01-01", "+262000-01-01", "0000-01-01", "2026-13-01"];
        wrong.extend(days.map(|day| format!("\"{day}\"")));
        wrong.extend(days.map(|day| format!("\"{day}T00:00:00Z\"")));
    }
    wrong
}

/// Bodies that are wrong as a whole.
fn wholly_wrong(right: &Value) -> Vec<Vec<u8>> {
    let text = right.to_string();
    let mut wrong: Vec<Vec<u8>> = ["null", "[]", "1", "\"a\"", "{", "\u{feff}{}", "{}{}"].map(Vec::from).into();
    wrong.extend([
        text[..text.len() - 1].into(),
        [text.as_bytes(), b"x"].concat(),
        b"{\"data\":\"\xff\xfe\"}".to_vec(),
    ]);
    wrong
}

/// The same, as large as NATS carries.
fn large() -> Vec<Bytes> {
    let text = |of: &str| format!(r#"{{"data":"{}"}}"#, of.repeat(1_000_000 / of.len()));
    let many = (0..80_000).map(|n| format!("\"{n}\":1")).collect::<Vec<_>>().join(",");
    let bodies = [text("a"), text("\\u0000"), "[".repeat(1_000_000), "\0".repeat(1_000_000), format!("{{{many}}}")];
    bodies.map(Bytes::from).into()
}

fn error(answer: &Message) -> Option<ErrorBody> {
    let headers = answer.headers.as_ref()?;
    let code = headers.get(NATS_SERVICE_ERROR_CODE)?;
    let error: ErrorBody = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(code.as_str(), error.code.status().to_string());
    assert!(headers.get(NATS_SERVICE_ERROR).is_some_and(|told| !told.as_str().is_empty()));
    Some(error)
}

/// INVARIANTS 29: what is let in is answered; what is not is refused, typed, before anything is done.
#[tokio::test]
async fn hostile_requests_are_refused_and_harm_nothing() {
    let system = System::start().await;
    let client = &system.parts.client;
    let services = [
        verbs::start(client, system.executor.clone()).await.unwrap(),
        queries::start(client, system.parts.read.clone()).await.unwrap(),
    ];
    client.flush().await.unwrap();
    let endpoints = endpoints(client).await;
    assert!(endpoints.len() >= 30, "{endpoints:?}");

    let mut requests: Vec<(&str, Bytes)> = Vec::new();
    let large = large();
    for (subject, commands) in &endpoints {
        let verb = subject.splitn(4, '.').nth(3).unwrap();
        let right = body(*commands, &right(verb));
        requests.extend(wholly_wrong(&right).into_iter().map(|body| (&**subject, body.into())));
        requests.extend(large.iter().map(|body| (&**subject, body.clone())));
        let mut places = Vec::new();
        paths(&right, "", &mut places);
        for place in places {
            let value = right.pointer(&place).unwrap();
            requests.extend(wrong(value).into_iter().map(|text| (&**subject, replaced(&right, &place, &text).into())));
        }
    }
    assert!(requests.len() > 3_000, "{}", requests.len());
    let ask = async |subject: &str, headers: HeaderMap, body: Bytes| {
        let request = Request::new().headers(headers).payload(body).timeout(Some(NO_ANSWER));
        client.send_request(subject.to_owned(), request).await
    };
    let ask = &ask;
    let outcomes = stream::iter(&requests).map(|(subject, body)| async move {
        let shown = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let answer = ask(subject, HeaderMap::new(), body.clone()).await;
        let answer = answer.unwrap_or_else(|e| panic!("{subject} {}: {e}", shown()));
        let Some(error) = error(&answer) else { panic!("{subject} has taken {}: {answer:?}", shown()) };
        assert_eq!(
            (error.code, error.retry, error.recorded),
            (Code::Invalid, false, Some(false)),
            "{subject} {}",
            shown()
        );
        assert!(!error.fields.is_empty() && error.fields.len() <= 50, "{subject} {}: {error:?}", shown());
        assert!(error.fields.iter().all(|fault| fault.field.len() < 1000 && fault.expected.len() < 1000), "{error:?}");
    });
    outcomes.buffer_unordered(8).collect::<Vec<()>>().await;
    assert_eq!(system.parts.log.head().await.unwrap(), 0);

    // Headers are not the request. What is right with thousands of them is answered as ever, and what is wrong as well.
    for (subject, commands) in &endpoints {
        let flood: HeaderMap =
            (0..4000).map(|n| (format!("X-{n}"), "v".repeat(100))).fold(HeaderMap::new(), |mut all, (n, v)| {
                all.insert(n, v);
                all
            });
        let answer = ask(subject, flood, Bytes::from("[]")).await.unwrap();
        assert_eq!(error(&answer).unwrap().code, Code::Invalid, "{subject}");
        let verb = subject.splitn(4, '.').nth(3).unwrap();
        if !commands {
            let answer = ask(subject, HeaderMap::new(), body(false, &right(verb)).to_string().into()).await.unwrap();
            let error = error(&answer);
            assert!(error.as_ref().is_none_or(|e| e.code == Code::NotFound), "{subject}: {error:?}");
        }
    }
    assert_eq!(system.parts.log.head().await.unwrap(), 0);
    let received =
        ask("daybook.cmd.v1.stock.receive", HeaderMap::new(), body(true, &right("stock.receive")).to_string().into());
    assert!(error(&received.await.unwrap()).is_none());
    assert_eq!(system.parts.log.head().await.unwrap(), 1);
    for service in services {
        service.stop().await;
    }
}
