//! Orders in the Olist format as history: nothing invented, nothing dropped in silence, nothing that follows.

mod expected;
mod files;
mod untidy;

use crate::binary::until;
use crate::harness::{System, card, database, daybook, order_of};
use files::{ITEMS, ORDERS, PAYMENTS, id, many, of, write};
use orders::Command;
use orders::id::{OrderId, SellerId, ShipmentId};
use orders::order::{self, CancelReason, PlacePayment};
use orders::shipment;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, query_as, query_scalar};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

fn import(url: &str, dir: &Path) -> tokio::process::Command {
    let mut command = daybook();
    command.args(["import", "olist", "--json"]).arg(dir).env("DATABASE_URL", url);
    command
}

/// What an import prints that ends with this exit code.
async fn imported(url: &str, dir: &Path, exit_code: i32) -> Value {
    let output = import(url, dir).output().await.unwrap();
    assert_eq!(output.status.code(), Some(exit_code), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The events of the log, without their positions and times of recording: in the order of their ids.
async fn events(url: &str) -> Vec<String> {
    let pool = PgPool::connect(url).await.unwrap();
    let columns = "SELECT concat_ws(' ', event_id, category, stream_id, version, occurred_at, origin, correlation_id,
                                    command_id, fingerprint, event_type, schema_version, actor, payload::text)
                   FROM daybook.events ORDER BY event_id";
    query_scalar(columns).fetch_all(&pool).await.unwrap()
}

async fn count(url: &str) -> i64 {
    let pool = PgPool::connect(url).await.unwrap();
    let count = query_scalar("SELECT count(*) FROM daybook.events").fetch_one(&pool).await.unwrap();
    pool.close().await;
    count
}

fn order_id(n: u64) -> OrderId {
    OrderId(id(n).parse().unwrap())
}

/// One order of one item, paid by card.
async fn plain(status: &str, times: &str) -> PathBuf {
    let order = format!("#1,#2,{status},2017-10-02 10:56:33,{times},2017-10-18 00:00:00");
    of(&[&order], &["#1,1,mug,#4,2017-10-06 11:07:15,10.00,2.50"], &["#1,1,credit_card,3,12.50"]).await
}

const DELIVERED: &str = "2017-10-02 11:07:15,2017-10-04 19:55:00,2017-10-10 21:25:13";

/// The types of the events of order 1 as they stand in the log, with the time of each.
async fn history(url: &str) -> Vec<(String, String)> {
    let pool = PgPool::connect(url).await.unwrap();
    let types = "SELECT event_type, to_char(occurred_at AT TIME ZONE 'UTC', 'DD HH24:MI')
                 FROM daybook.events WHERE correlation_id = $1 AND origin = 1 ORDER BY position";
    query_as(types).bind(order_id(1).0).fetch_all(&pool).await.unwrap()
}

#[tokio::test]
async fn the_table_is_what_another_program_makes_of_the_files() {
    let (dir, url) = (many(400).await, database().await);
    let report = imported(&url, &dir, 0).await;
    assert_eq!(report["table"], expected::table(&dir));
    let orders = report["table"]["orders"].as_array().unwrap();
    let statuses: BTreeMap<&str, ()> = orders.iter().map(|o| (o["status"].as_str().unwrap(), ())).collect();
    assert_eq!(statuses.len(), 8, "every status");
    assert_eq!(report["orders"], json!({ "in_file": 400, "recorded": 400, "found": 0, "left_out": 0 }));
    let untidy: Vec<_> = report["untidy"].as_object().unwrap().keys().collect();
    let all = ["no_items", "payment_of_zero", "payments_differ", "several_payments", "several_sellers"];
    assert_eq!(untidy, [&all[..], &["times_out_of_order"]].concat());
}

#[tokio::test]
async fn the_table_of_the_real_sample_is_what_another_program_makes_of_its_files() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/olist-sample");
    if !sample.exists() {
        eprintln!("skipped: there is no {}; the test before this one tells the same story", sample.display());
        return;
    }
    let url = database().await;
    let report = imported(&url, &sample, 0).await;
    assert_eq!(report["table"], expected::table(&sample));
    let rows = |name: &str| fs::read_to_string(sample.join(name)).unwrap().lines().count() - 1;
    for (what, file) in [("orders", ORDERS), ("items", ITEMS), ("payments", PAYMENTS)] {
        let all = rows(file);
        assert_eq!(report[what], json!({ "in_file": all, "recorded": all, "found": 0, "left_out": 0 }), "{what}");
    }
    let untidy = &report["untidy"];
    assert_eq!((&untidy["several_sellers"], &untidy["times_out_of_order"]), (&json!(20), &json!(11)), "{untidy}");
    assert_eq!((&untidy["payments_differ"], &untidy["payment_of_zero"]), (&json!(4), &json!(1)), "{untidy}");
}

#[tokio::test]
async fn an_import_that_is_killed_goes_on_without_a_double() {
    let dir = many(2_500).await;
    let (whole, killed) = (database().await, database().await);
    let all = imported(&whole, &dir, 0).await["events"].as_i64().unwrap();
    let mut seen = 0;
    for _ in 0..3 {
        let mut child = import(&killed, &dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("it has written more", async || (count(&killed).await > seen).then_some(())).await;
        kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::KILL).unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(9), "it was done before it was killed");
        seen = count(&killed).await;
        assert!((1..all).contains(&seen), "{seen} of {all}");
    }
    let report = imported(&killed, &dir, 0).await;
    assert!(report["events"].as_i64().unwrap() <= all - seen, "{report}");
    assert_eq!(events(&killed).await, events(&whole).await);
    // Once more: all is there.
    let again = imported(&killed, &dir, 0).await;
    assert_eq!(again["events"], 0);
    assert_eq!(again["orders"], json!({ "in_file": 2_500, "recorded": 0, "found": 2_500, "left_out": 0 }));
    assert_eq!((count(&killed).await, &again["table"]), (all, &report["table"]));
}

#[tokio::test]
async fn columns_may_stand_in_any_order() {
    let dir = many(60).await;
    let (one, other) = (database().await, database().await);
    imported(&one, &dir, 0).await;
    for file in [ORDERS, ITEMS, PAYMENTS] {
        let text = fs::read_to_string(dir.join(file)).unwrap();
        let reversed =
            |line: &str| line.split(',').rev().map(|cell| format!("\"{cell}\"")).collect::<Vec<_>>().join(",");
        let lines: Vec<String> = text.lines().map(reversed).collect();
        fs::write(dir.join(file), format!("\u{feff}{}\n", lines.join("\n"))).unwrap();
    }
    imported(&other, &dir, 0).await;
    assert_eq!(events(&other).await, events(&one).await);
}

#[tokio::test]
async fn nothing_follows_from_history_and_what_the_system_shows_agrees_with_the_log() {
    let mut system = System::start().await;
    imported(&system.urls.database_url, &many(100).await, 0).await;
    system.settle().await;
    for table in ["follow_ups", "notices", "timers", "provider_ledger"] {
        let count = AssertSqlSafe(format!("SELECT count(*) FROM daybook.{table}"));
        let rows: i64 = query_scalar(count).fetch_one(&system.superuser().await).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    system.assert_verified().await;
    let statuses = "SELECT status, count(*) FROM daybook.order_summary GROUP BY 1 ORDER BY 1";
    let statuses: Vec<(String, i64)> = query_as(statuses).fetch_all(&system.superuser().await).await.unwrap();
    let statuses: Vec<_> = statuses.iter().map(|(status, n)| (status.as_str(), *n)).collect();
    assert_eq!(statuses, [("cancelled", 20), ("completed", 55), ("confirmed", 15), ("placed", 10)]);
    // It was placed when the file says.
    let row = order_views::order_summary::get(&system.parts.read, order_id(1).0).await.unwrap().unwrap();
    assert_eq!(row.placed_at.to_rfc3339(), "2017-02-01T01:00:00+00:00");
    assert_eq!((row.captured, row.authorised), (row.total, row.total));
}

#[tokio::test]
async fn an_imported_order_is_lived_on_from_where_its_history_ends() {
    let mut system = System::start().await;
    let dir = plain("shipped", "2017-10-02 11:07:15,2017-10-04 19:55:00,").await;
    imported(&system.urls.database_url, &dir, 0).await;
    system.settle().await;
    let order = order_id(1);
    assert_eq!(system.status(order).await, "confirmed");
    let cancel = Command::CancelOrder { id: order, reason: CancelReason::CustomerRequest };
    let refused = system.execute(cancel).await.unwrap_err().to_string();
    assert!(refused.ends_with("what is under way can only be returned"), "{refused}");
    let shipment = ShipmentId::of_seller(order, SellerId(id(4).parse().unwrap()));
    let deliver = Command::Shipment { id: shipment, command: shipment::Command::ConfirmDelivery };
    system.execute(deliver).await.unwrap();
    system.settle().await;
    assert_eq!(system.status(order).await, "completed");
    // The history is what it was, and is found again.
    let again = imported(&system.urls.database_url, &dir, 0).await;
    assert_eq!((&again["events"], &again["orders"]["found"]), (&json!(0), &json!(1)));
    system.assert_verified().await;
}

#[tokio::test]
async fn an_order_that_was_not_sent_is_sent_without_taking_its_money_again() {
    let mut system = System::start().await;
    imported(&system.urls.database_url, &plain("processing", "2017-10-02 11:07:15,,").await, 0).await;
    system.settle().await;
    let order = order_id(1);
    let shipment = ShipmentId::of_seller(order, SellerId(id(4).parse().unwrap()));
    // What was agreed elsewhere is not changed here.
    let edit = order::Command::ProposeEdit(order::ProposeEdit {
        remove: vec![1],
        add: vec![],
        shipping: vec![],
        payments: vec![],
    });
    let refused = system.execute(Command::Order { id: order, command: edit }).await.unwrap_err().to_string();
    assert!(refused.contains("was placed and paid elsewhere"), "{refused}");
    let dispatch = shipment::Command::Dispatch { revision: 1, tracking: "T1".into() };
    system.execute(Command::Shipment { id: shipment, command: dispatch }).await.unwrap();
    system.settle().await;
    assert!(!system.events_of(order).await[8..].contains(&"CaptureRequested".to_owned()));
    // Nor is stock taken out that was never reserved here.
    let parked: i64 = query_scalar("SELECT count(*) FROM daybook.follow_ups WHERE state NOT IN ('due', 'accepted')")
        .fetch_one(&system.parts.read)
        .await
        .unwrap();
    assert_eq!(parked, 0);
    let row = order_views::order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap();
    assert_eq!((row.captured, row.total), (1250, 1250));
    system.assert_verified().await;
}

/// What an order of one item and one payment becomes, by its status and times.
#[tokio::test]
async fn each_status_is_the_events_that_it_proves() {
    let placed = ["OrderPlaced", "PaymentRequested"];
    let secured = ["PaymentAuthorised", "PaymentAuthorisedRecorded", "PaymentsSecured"];
    let captured = ["PaymentAuthorised", "CaptureRequested", "PaymentCaptured", "PaymentAuthorisedRecorded"];
    let confirmed = [&placed[..], &captured, &["PaymentsSecured", "OrderConfirmed"]].concat();
    let end = "HistoryRecorded";
    let approved = "2017-10-02 11:07:15,,";
    let in_carriers_hands = "2017-10-02 11:07:15,2017-10-04 19:55:00,";
    let sent = [&confirmed[..], &["ShipmentPlanned", "ShipmentDispatched"]].concat();
    let arrived = [&sent[..], &["ShipmentDelivered", "LinesDelivered"]].concat();
    let cases = [
        ("created", ",,", [&placed[..], &[end]].concat()),
        ("approved", approved, [&placed[..], &secured, &[end]].concat()),
        ("invoiced", approved, [&confirmed[..], &["ShipmentPlanned", end]].concat()),
        ("processing", approved, [&confirmed[..], &["ShipmentPlanned", end]].concat()),
        ("shipped", in_carriers_hands, [&sent[..], &[end]].concat()),
        ("delivered", DELIVERED, [&arrived[..], &["OrderCompleted", end]].concat()),
        ("canceled", ",,", [&placed[..], &["OrderCancelled", end]].concat()),
        ("canceled", approved, [&placed[..], &secured, &["OrderCancelled", end]].concat()),
        ("canceled", in_carriers_hands, [&sent[..], &["OrderCancelled", end]].concat()),
        ("canceled", DELIVERED, [&arrived[..], &["OrderCancelled", end]].concat()),
        ("unavailable", approved, [&placed[..], &secured, &["OrderCancelled", end]].concat()),
    ];
    for (status, times, expected) in cases {
        let url = database().await;
        let report = imported(&url, &plain(status, times).await, 0).await;
        let types: Vec<String> = history(&url).await.into_iter().map(|(event_type, _)| event_type).collect();
        assert_eq!(types, expected, "{status} {times}");
        assert_eq!((&report["notes"], &report["untidy"]), (&json!([]), &json!({})), "{status} {times}");
    }
}

#[tokio::test]
async fn what_happened_has_the_times_of_the_files_even_out_of_order() {
    // Handed to the carrier before it was approved.
    let dir = plain("delivered", "2017-10-05 09:00:00,2017-10-04 19:55:00,2017-10-10 21:25:13").await;
    let url = database().await;
    let report = imported(&url, &dir, 0).await;
    assert_eq!(report["untidy"], json!({ "times_out_of_order": 1 }));
    let times: BTreeMap<String, String> = history(&url).await.into_iter().collect();
    let at = |event_type: &str| times[event_type].as_str();
    assert_eq!([at("OrderPlaced"), at("PaymentRequested")], ["02 10:56"; 2]);
    assert_eq!([at("PaymentCaptured"), at("OrderConfirmed"), at("ShipmentPlanned")], ["05 09:00"; 3]);
    assert_eq!(at("ShipmentDispatched"), "04 19:55");
    assert_eq!([at("ShipmentDelivered"), at("LinesDelivered"), at("OrderCompleted")], ["10 21:25"; 3]);
}

#[tokio::test]
async fn a_time_that_is_missing_is_not_made_up_but_told() {
    for (times, event, at, what) in [
        (",2017-10-04 19:55:00,2017-10-10 21:25:13", "PaymentsSecured", "04 19:55", "approval"),
        ("2017-10-02 11:07:15,,2017-10-10 21:25:13", "ShipmentDispatched", "10 21:25", "handover to the carrier"),
        ("2017-10-02 11:07:15,2017-10-04 19:55:00,", "OrderCompleted", "04 19:55", "delivery"),
    ] {
        let url = database().await;
        let report = imported(&url, &plain("delivered", times).await, 0).await;
        let told: BTreeMap<String, String> = history(&url).await.into_iter().collect();
        assert_eq!(told[event], at);
        assert_eq!(report["untidy"], json!({ "time_missing": 1 }));
        let note = report["notes"][0]["note"].as_str().unwrap();
        assert!(note.starts_with(&format!("its {what} has no time in the files: 2017-10-")), "{note}");
    }
}

/// What is captured of each payment, by payment type, as the read model has it.
async fn captured(system: &mut System, dir: &Path) -> (i64, Vec<(String, i64, i64)>) {
    imported(&system.urls.database_url, dir, 0).await;
    system.settle().await;
    system.assert_verified().await;
    let row = order_views::order_summary::get(&system.parts.read, order_id(1).0).await.unwrap().unwrap();
    let payments = row.payments.0.into_iter().map(|p| (p.kind, p.amount, p.captured));
    (row.total, payments.collect())
}

#[tokio::test]
async fn what_was_paid_is_captured_to_the_centavo_whatever_was_owed() {
    let order = format!("#1,#2,delivered,2017-10-02 10:56:33,{DELIVERED},2017-10-18 00:00:00");
    // Two sellers of three items; two vouchers, one of nothing, and a card.
    let items = ["#1,1,mug,#4,x,10.00,1.00", "#1,2,hat,#5,x,20.00,2.00", "#1,3,mug,#4,x,10.00,1.00"];
    let payments = |card: &str| {
        ["#1,3,voucher,1,0.00".to_owned(), format!("#1,1,credit_card,1,{card}"), "#1,2,voucher,1,5.00".to_owned()]
    };
    for (card, cents) in [("39.00", 3900), ("38.98", 3898), ("39.03", 3903)] {
        let mut system = System::start().await;
        let payments = payments(card);
        let dir = of(&[&order], &items, &payments.each_ref().map(String::as_str)).await;
        let all = |kind: &str, amount: i64| (kind.to_owned(), amount, amount);
        let expected = vec![all("credit_card", cents), all("voucher", 500), all("voucher", 0)];
        assert_eq!(captured(&mut system, &dir).await, (4400, expected));
        let shipped = system.events_of(order_id(1)).await;
        assert_eq!(shipped.iter().filter(|e| *e == "ShipmentDelivered").count(), 2);
    }
}

#[tokio::test]
async fn orders_without_items_or_payments_are_history_too() {
    let mut system = System::start().await;
    let order = "#1,#2,shipped,2017-10-02 10:56:33,2017-10-02 11:07:15,2017-10-04 19:55:00,,2017-10-18 00:00:00";
    let dir = of(&[order], &[], &["#1,1,boleto,1,12.50"]).await;
    // Nothing of it can be shipped, so nothing is captured.
    assert_eq!(captured(&mut system, &dir).await, (0, vec![("boleto".to_owned(), 1250, 0)]));
    let report = imported(&system.urls.database_url, &dir, 0).await;
    let note = "handed to the carrier at 2017-10-04 19:55:00 UTC, but without items there is no shipment";
    assert_eq!(report["notes"], json!([{ "kind": "sent_without_items", "order": id(1), "note": note }]));

    let mut system = System::start().await;
    let dir = plain("delivered", DELIVERED).await;
    write(&dir, PAYMENTS, &[]);
    assert_eq!(captured(&mut system, &dir).await, (1250, vec![]));
    assert_eq!(system.status(order_id(1)).await, "completed");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_told_and_recorded_once_it_is_mended() {
    let order = |n: u64| format!("#{n},#9,delivered,2017-10-02 10:56:33,{DELIVERED},2017-10-18 00:00:00");
    let orders: Vec<String> = (1..=4).map(order).collect();
    let mut orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    let bad = "#5,#9,lost,2017-10-02 10:56:33,,,,";
    orders.push(bad);
    let item = |n: u64, price: &str| format!("#{n},1,mug,#8,x,{price},2.50");
    let mut items = vec![item(1, "10.00"), item(2, "ten"), item(3, "10.00"), item(4, "10.00"), item(6, "10.00")];
    // The same number again.
    items.push(item(4, "11.00"));
    let payments = ["#1,1,boleto,1,12.50", "#2,1,boleto,1,12.50", "#3,1,Boleto!,1,12.50", "#7,1,boleto,1,1.00"];
    let dir = of(&orders, &items.iter().map(String::as_str).collect::<Vec<_>>(), &payments).await;
    let url = database().await;
    let report = imported(&url, &dir, 1).await;
    let told = |kind: &str, order: u64, file: &str, line: u64, why: &str| {
        let why = format!("{}, line {line}, column {why}", dir.join(file).display());
        let (what, remedy) = match kind {
            "item_without_order" => ("item", "add the order's row"),
            "payment_without_order" => ("payment", "add the order's row"),
            _ => ("order", "mend the row"),
        };
        let remedy = format!("{remedy}, and import again");
        json!({ "kind": kind, "what": what, "order": id(order), "why": why, "remedy": remedy })
    };
    let statuses = "created, approved, processing, invoiced, shipped, delivered, canceled or unavailable";
    let no_order = |n: u64| format!("order_id: \"{}\" is not an order of the orders file", id(n));
    let expected = json!([
        told("status", 5, ORDERS, 6, &format!("order_status: \"lost\" is not {statuses}")),
        told("amount", 2, ITEMS, 3, "price: \"ten\" is not an amount such as 109.90"),
        told("item_without_order", 6, ITEMS, 6, &no_order(6)),
        told("number_twice", 4, ITEMS, 7, "order_item_id: \"1\" is not a number that no line of its order has"),
        told("payment_type", 3, PAYMENTS, 4, "payment_type: \"Boleto!\" is not 1 to 32 of a-z, 0-9 and underscore"),
        told("payment_without_order", 7, PAYMENTS, 5, &no_order(7)),
    ]);
    assert_eq!(report["left_out"], expected);
    assert_eq!(report["orders"], json!({ "in_file": 5, "recorded": 1, "found": 0, "left_out": 4 }));
    assert_eq!(report["items"], json!({ "in_file": 6, "recorded": 1, "found": 0, "left_out": 5 }));
    assert_eq!(report["payments"], json!({ "in_file": 4, "recorded": 1, "found": 0, "left_out": 3 }));

    // Mended: what is missing is added, and nothing else.
    write(&dir, ORDERS, &orders[..4]);
    let items: Vec<String> = (1..=4).map(|n| item(n, "10.00")).collect();
    write(&dir, ITEMS, &items.iter().map(String::as_str).collect::<Vec<_>>());
    write(
        &dir,
        PAYMENTS,
        &["#1,1,boleto,1,12.50", "#2,1,boleto,1,12.50", "#3,1,boleto,1,12.50", "#4,1,boleto,1,12.50"],
    );
    let report = imported(&url, &dir, 0).await;
    assert_eq!(report["orders"], json!({ "in_file": 4, "recorded": 3, "found": 1, "left_out": 0 }));
    assert_eq!(report["table"], expected::table(&dir));
}

#[tokio::test]
async fn files_without_what_is_needed_leave_the_log_as_it_was() {
    let (dir, url) = (plain("delivered", DELIVERED).await, database().await);
    let refused = async |why: &str| {
        let Output { status, stdout, stderr } = import(&url, &dir).output().await.unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.len()), (Some(2), 0), "{said}");
        assert!(said.contains(why) && said.ends_with("nothing is imported: mend it, and import again\n"), "{said}");
        assert_eq!(count(&url).await, 0);
    };
    let items = dir.join(ITEMS);
    let good = fs::read_to_string(&items).unwrap();
    fs::write(&items, good.replace("freight_value", "freight")).unwrap();
    refused("line 1: there is no column freight_value").await;
    fs::write(&items, good.replace("10.00", "10,00")).unwrap();
    refused("line 2: 8 fields, where the header has 7").await;
    // Whose item it is, it does not tell: so it cannot be said which order to leave out.
    fs::write(&items, good.replace(&id(1), "number 1")).unwrap();
    refused("line 2, column order_id: \"number 1\" is not an id: ").await;
    fs::remove_file(&items).unwrap();
    refused("cannot read").await;
}

#[tokio::test]
async fn what_the_log_has_already_is_neither_changed_nor_doubled() {
    let system = System::start().await;
    let url = &system.urls.database_url;
    // An order of that id lives here.
    let mut place = order_of(&[("mug", 1, 4)]);
    place.payments = vec![PlacePayment { method: card("tok_approve_card"), amount: place.payments[0].amount }];
    let live = Command::Order { id: order_id(1), command: order::Command::Place(place) };
    system.execute(live).await.unwrap();
    let dir = plain("delivered", DELIVERED).await;
    let report = imported(url, &dir, 1).await;
    let why = format!(
        "the log has something else of it: version conflict on order-{}: expected no stream, found 1",
        order_id(1)
    );
    assert_eq!(report["left_out"][0]["why"], why);
    assert_eq!(count(url).await, 1);

    // Recorded from other rows before.
    let url = database().await;
    imported(&url, &dir, 0).await;
    let before = events(&url).await;
    for (from, to) in [("10.00", "10.01"), ("mug", "hat")] {
        let items = dir.join(ITEMS);
        let good = fs::read_to_string(&items).unwrap();
        fs::write(&items, good.replace(from, to)).unwrap();
        let report = imported(&url, &dir, 1).await;
        let why = "it was recorded from other rows: what was placed is not what they say now";
        assert_eq!(report["left_out"][0]["why"], why);
        fs::write(&items, good).unwrap();
    }
    assert_eq!(events(&url).await, before);
}

#[tokio::test]
async fn people_are_told_in_tables_what_was_taken_and_what_was_not() {
    let (dir, url) = (plain("delivered", DELIVERED).await, database().await);
    fs::write(dir.join("olist_customers_dataset.csv"), "customer_id,customer_city\n").unwrap();
    let output = daybook().args(["import", "olist"]).arg(&dir).env("DATABASE_URL", &url).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}
