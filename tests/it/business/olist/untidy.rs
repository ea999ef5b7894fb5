//! Files of the Olist format that others have made: by a spreadsheet, and with ids of their own.

use super::expected;
use super::files::{ITEMS, ORDERS, PAYMENTS, id, of, write};
use super::{DELIVERED, count, events, import, imported, order_id, plain};
use crate::harness::{System, database, daybook, folder};
use serde_json::{Value, json};
use sqlx::{PgPool, query_as, query_scalar};
use std::fs;
use std::path::{Path, PathBuf};
use uuid::Uuid;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/business/olist/fixtures").join(name)
}

/// Orders of one item each, delivered, all alike but for the item's price and what was paid.
async fn delivered(amounts: &[(&str, &str)]) -> PathBuf {
    let numbered = || (1..).zip(amounts);
    let order = |n| format!("#{n},#{},delivered,2017-10-02 10:56:33,{DELIVERED},2017-10-18 00:00:00", 1000 + n);
    let orders: Vec<String> = numbered().map(|(n, _): (u64, _)| order(n)).collect();
    let items = numbered().map(|(n, (price, _)): (u64, _)| format!("#{n},1,mug,#999,x,{price},2.50"));
    let items: Vec<String> = items.collect();
    let payments: Vec<String> = numbered().map(|(n, (_, paid)): (u64, _)| format!("#{n},1,boleto,1,{paid}")).collect();
    let [orders, items, payments] =
        [&orders, &items, &payments].map(|rows| rows.iter().map(String::as_str).collect::<Vec<_>>());
    of(&orders, &items, &payments).await
}

/// The lines of the report that an import with `--json` writes, and its exit code.
async fn reported(url: &str, dir: &Path) -> (Vec<Value>, Option<i32>) {
    let file = folder("report").await;
    let output = import(url, dir).arg("--report").arg(&file).output().await.unwrap();
    let lines = fs::read_to_string(&file).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}

fn list(lines: &[Value], name: &str) -> Vec<Value> {
    lines.iter().filter(|line| line["list"] == name).cloned().collect()
}

#[tokio::test]
async fn amounts_that_a_spreadsheet_wrote_are_the_ones_that_were_meant() {
    let (dir, url) = (fixture("spreadsheet"), database().await);
    let output = import(&url, &dir).arg("--exact").output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["orders"], json!({ "in_file": 4, "recorded": 2, "found": 0, "left_out": 2 }));
    assert!(report["left_out"].as_array().unwrap().iter().all(|l| l["kind"] == "amount_inexact"), "{report}");
    assert_eq!(report["tidied"], 0);

    let report = imported(&url, &dir, 0).await;
    assert_eq!(report["orders"], json!({ "in_file": 4, "recorded": 2, "found": 2, "left_out": 0 }));
    assert_eq!((&report["tidied"], &report["untidy"]), (&json!(6), &json!({ "several_sellers": 1 })));
    assert_eq!(report["table"], expected::table(&dir));

    // Again, nothing is recorded anew, and all is told again.
    let before = events(&url).await;
    let (lines, code) = reported(&url, &dir).await;
    assert_eq!((code, events(&url).await), (Some(0), before.clone()));
    let tidied = |order: u64, file: &str, line: u64, column: &str, found: &str, amount: i64| {
        json!({ "list": "tidied_amount", "order": id(order), "file": file, "line": line, "column": column,
                "found": found, "amount": amount })
    };
    let expected = [
        tidied(1, ITEMS, 3, "freight_value", "2.8421709430404007e-14", 0),
        tidied(1, ITEMS, 3, "price", "29.990000000000002", 2999),
        tidied(2, ITEMS, 4, "freight_value", "3.0999999999999996", 310),
        tidied(2, ITEMS, 4, "price", "19.900000000000002", 1990),
        tidied(1, PAYMENTS, 2, "payment_value", "52.989999999999995", 5299),
        tidied(2, PAYMENTS, 3, "payment_value", "23.000000000000004", 2300),
    ];
    assert_eq!(list(&lines, "tidied_amount"), expected);

    // So does the same data in a tidy form.
    let tidy = folder("tidy").await;
    fs::create_dir(&tidy).unwrap();
    for file in [ORDERS, ITEMS, PAYMENTS] {
        let mut text = fs::read_to_string(dir.join(file)).unwrap();
        for line in &expected {
            let amount = line["amount"].as_i64().unwrap();
            text = text.replace(line["found"].as_str().unwrap(), &format!("{}.{:02}", amount / 100, amount % 100));
        }
        fs::write(tidy.join(file), text).unwrap();
    }
    let report = imported(&url, &tidy, 0).await;
    assert_eq!((&report["events"], &report["tidied"]), (&json!(0), &json!(0)));
    assert_eq!(events(&url).await, before);
}

#[tokio::test]
async fn an_amount_further_away_is_left_out() {
    let dir = delivered(&[("10.00", "12.50001"), ("10.00", "12.500011"), ("10.00", "12.495")]).await;
    let report = imported(&database().await, &dir, 1).await;
    assert_eq!((&report["tidied"], &report["orders"]["recorded"]), (&json!(1), &json!(1)));
    let kinds: Vec<_> = report["left_out"].as_array().unwrap().iter().map(|l| &l["kind"]).collect();
    assert_eq!(kinds, ["amount_inexact"; 2]);
}

/// What the last event of each order has of ids, by the file's own id of the order.
async fn kept(url: &str) -> Vec<(Uuid, Option<Value>)> {
    let pool = PgPool::connect(url).await.unwrap();
    let ids = "SELECT stream_id, payload::jsonb -> 'ids' FROM daybook.events
               WHERE event_type = 'HistoryRecorded' ORDER BY position";
    let kept: Vec<(Uuid, Option<sqlx::types::Json<Value>>)> = query_as(ids).fetch_all(&pool).await.unwrap();
    kept.into_iter().map(|(id, ids)| (id, ids.map(|ids| ids.0))).collect()
}

#[tokio::test]
async fn ids_of_another_kind_become_uuids_and_are_kept() {
    let mut system = System::start().await;
    let (dir, url) = (fixture("other-ids"), system.urls.database_url.clone());
    let report = imported(&url, &dir, 0).await;
    assert_eq!(report["orders"], json!({ "in_file": 3, "recorded": 3, "found": 0, "left_out": 0 }));
    assert_eq!(report["derived"], json!({ "order": 2, "customer": 2, "seller": 2 }));
    assert_eq!(report["table"], expected::table(&dir));
    system.settle().await;
    system.assert_verified().await;

    // The report says which is which, and so does the log, for ever.
    let (lines, code) = reported(&url, &dir).await;
    let derived = list(&lines, "derived_id");
    let uuid = |of: &str, name: &str| -> Uuid {
        let found = derived.iter().find(|d| d["of"] == of && d["name"] == name).unwrap();
        found["id"].as_str().unwrap().parse().unwrap()
    };
    assert_eq!((code, derived.len()), (Some(0), 6));
    let named = |of: &str, name: &str| json!({ "id": uuid(of, name), "name": name });
    let mut kept = kept(&url).await;
    kept.sort_by_key(|(order, _)| *order);
    let a_1 = json!([named("order", "A-1"), named("customer", "C.7"), named("seller", "S/1"), named("seller", "S/2")]);
    let a_2 = json!([named("order", "A-2"), named("customer", "C.7")]);
    let of_hex = json!([named("customer", "C.8"), named("seller", "S/2")]);
    let orders = [(uuid("order", "A-1"), a_1), (uuid("order", "A-2"), a_2), (order_id(1).0, of_hex)];
    let mut expected = orders.map(|(order, ids)| (order, Some(ids)));
    expected.sort_by_key(|(order, _)| *order);
    assert_eq!(kept, expected);

    // It is in the history that people see, as well.
    let history = "SELECT detail FROM daybook.order_history WHERE order_id = $1 AND event_type = 'HistoryRecorded'";
    let read = query_scalar(history).bind(uuid("order", "A-2"));
    let detail: Value = read.fetch_one(&system.superuser().await).await.unwrap();
    assert_eq!(detail["ids"][0]["name"], "A-2");

    // The same import again.
    let before = events(&url).await;
    let report = imported(&url, &dir, 0).await;
    assert_eq!((&report["events"], &report["orders"]["found"]), (&json!(0), &json!(3)));
    assert_eq!(events(&url).await, before);
}

#[tokio::test]
async fn two_ids_that_give_one_uuid_are_refused_in_a_folder_and_in_the_log() {
    let url = database().await;
    let dir = fixture("other-ids");
    imported(&url, &dir, 0).await;
    let (lines, _) = reported(&url, &dir).await;
    let derived = list(&lines, "derived_id");
    let hex = |of: &str| {
        let id = derived.iter().find(|d| d["of"] == of).unwrap()["id"].as_str().unwrap();
        id.replace('-', "")
    };
    let with = async |file: &str, row: &str| {
        let copy = folder("clash").await;
        fs::create_dir(&copy).unwrap();
        for file in [ORDERS, ITEMS, PAYMENTS] {
            fs::copy(dir.join(file), copy.join(file)).unwrap();
        }
        let text = fs::read_to_string(copy.join(file)).unwrap();
        fs::write(copy.join(file), format!("{text}{row}\n")).unwrap();
        copy
    };
    let before = events(&url).await;

    // An order's: it cannot be said whose the items are.
    let row = format!("created,{},C.9,2021-03-03 09:00:00,,,", hex("order"));
    let output = import(&url, &with(ORDERS, &row).await).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("is not an id with a UUID of its own") && said.contains("nothing is imported"), "{said}");

    // A customer's, and a seller's: the order is left out.
    for (file, row) in [
        (ORDERS, format!("created,A-3,{},2021-03-03 09:00:00,,,", hex("customer"))),
        (ITEMS, format!("{},1.00,0.00,A-2,2,hat", hex("seller"))),
    ] {
        let report = imported(&url, &with(file, &row).await, 1).await;
        assert_eq!(report["left_out"][0]["kind"], "same_uuid");
    }
    assert_eq!(events(&url).await, before);

    // The UUID itself, in a folder where nothing clashes: the log has the order from other rows.
    let order = format!("{},#9,created,2021-03-01 09:00:00,,,,", hex("order"));
    let report = imported(&url, &of(&[&order], &[], &[]).await, 1).await;
    assert_eq!(report["left_out"][0]["kind"], "in_log_from_other_rows");
    assert_eq!(events(&url).await, before);
}

/// The fingerprints of a build that knew nothing of other ids: what it recorded is found again.
#[tokio::test]
async fn what_an_older_build_has_recorded_is_found_again() {
    let url = database().await;
    imported(&url, &plain("delivered", DELIVERED).await, 0).await;
    let pool = PgPool::connect(&url).await.unwrap();
    let fingerprints = "SELECT DISTINCT encode(fingerprint, 'hex') FROM daybook.events WHERE category = 1 ORDER BY 1";
    let fingerprints: Vec<String> = query_scalar(fingerprints).fetch_all(&pool).await.unwrap();
    let expected = [
        "4b08245e1268b1e065509c50782f902d",
        "57b2f343e90e67f44b5b56bc372ce91a",
        "e06cf9f146149e8831789ba0657cde1a",
        "f1deb3dd3e6d460bd343b2bdb4a53cdc",
    ];
    assert_eq!(fingerprints, expected);
}

/// One row that is wrong in each way.
#[tokio::test]
async fn what_is_wrong_is_told_by_kind() {
    let order = |row: &str| format!("{row},2017-10-02 10:56:33,,,,2017-10-18 00:00:00");
    let orders = [
        "#1,,created",
        "#2,Zoe Doe,created",
        "#3,#900,lost",
        "#4,#900,created",
        "#4,#900,created",
        "#5,#900,created",
        "#6,#900,created",
        "#7,#900,created",
        "#8,#900,created",
        "#9,#900,created",
        "#10,#900,created",
        "#11,#900,created",
        "#12,#900,created",
        "#13,#900,created",
        "#14,#900,created",
        "#15,#900,created",
    ];
    let mut orders: Vec<String> = orders.into_iter().map(order).collect();
    orders.push("#16,#900,created,2.10.2017,,,,".to_owned());
    orders.push("#17,#900,created,,,,,".to_owned());
    let items = [
        "#5,1,,#999,x,1.00,0.00",
        "#6,1,a mug,#999,x,1.00,0.00",
        "#7,one,mug,#999,x,1.00,0.00",
        "#8,1,mug,the seller,x,1.00,0.00",
        "#9,1,mug,#999,x,\"1,00\",0.00",
        "#10,1,mug,#999,x,\"1,000.00\",0.00",
        "#11,1,mug,#999,x,R$ 1.00,0.00",
        "#12,1,mug,#999,x,-1.00,0.00",
        "#13,1,mug,#999,x,1.00,",
        "#14,1,mug,#999,x,1.005,0.00",
        "#15,1,mug,#999,x,92233720368547758.00,0.00",
        "#88,1,mug,#999,x,1.00,0.00",
    ];
    let (orders, dir) = (orders.iter().map(String::as_str).collect::<Vec<_>>(), of(&[], &[], &[]).await);
    write(&dir, ORDERS, &orders);
    write(&dir, ITEMS, &items);
    write(&dir, PAYMENTS, &["#89,1,boleto,1,1.00"]);
    let report = imported(&database().await, &dir, 1).await;
    let left_out = report["left_out"].as_array().unwrap();
    let kinds: Vec<&str> = left_out.iter().map(|l| l["kind"].as_str().unwrap()).collect();
    let expected = [
        "empty",
        "id",
        "status",
        "order_twice",
        "time",
        "empty",
        "empty",
        "sku",
        "number",
        "id",
        "amount_with_decimal_comma",
        "amount_with_thousands_separators",
        "amount_with_currency",
        "amount_negative",
        "empty",
        "amount_inexact",
        "amount_too_large",
        "item_without_order",
        "payment_without_order",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(report["orders"], json!({ "in_file": 18, "recorded": 0, "found": 0, "left_out": 18 }));
}

#[tokio::test]
async fn what_concerns_many_orders_is_summed_up_on_the_screen_and_whole_in_the_report() {
    let (comma, tidied) = (("10.00", "\"12,50\""), ("10.00", "12.500000000000002"));
    let amounts = [[comma; 15], [tidied; 15]].concat();
    let (dir, url) = (delivered(&amounts).await, database().await);
    // A person's data, of which nothing is read, and one in a column where it is.
    fs::write(dir.join("olist_customers_dataset.csv"), "customer_id,customer_city\n1,Zoe Doe of Porto\n").unwrap();
    let orders = fs::read_to_string(dir.join(ORDERS)).unwrap().replace(&id(1030), "Zoe Doe");
    fs::write(dir.join(ORDERS), orders).unwrap();
    let run = async |with_report: Option<&Path>| {
        let mut command = daybook();
        command.args(["import", "olist"]).arg(&dir).env("DATABASE_URL", &url);
        if let Some(file) = with_report {
            command.arg("--report").arg(file);
        }
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap().replace(&dir.display().to_string(), "DIR");
        // How wide a column is depends on where the folder is.
        let cells = |line: &str| {
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" | ")
        };
        shown.lines().map(cells).collect::<Vec<_>>().join("\n")
    };
    let shown = run(None).await;
    insta::assert_snapshot!(shown);
    let file = folder("report").await;
    let again = run(Some(&file)).await;
    assert!(again.contains("the report has all of them") && !again.contains("--report"), "{again}");
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!((of_kind("amount_with_decimal_comma"), of_kind("id")), (15, 1));
    assert_eq!(list(&lines, "tidied_amount").len(), 14);
    assert!(!text.contains("Zoe") && !shown.contains("Zoe"), "{text}");
}

#[tokio::test]
async fn untidy_files_are_placed_as_orders_too() {
    for (name, orders, tidied) in [("spreadsheet", 4, 6), ("other-ids", 3, 0)] {
        let output = daybook().args(["demo", "--json", "--orders-from"]).arg(fixture(name)).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let demo: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(demo["ended"], json!({ "completed": orders }));
        assert_eq!(demo["files"]["tidied"].as_array().map_or(0, Vec::len), tidied, "{name}");
    }
}

#[tokio::test]
async fn a_report_that_cannot_be_written_is_told_before_anything_is_recorded() {
    let (dir, url) = (plain("delivered", DELIVERED).await, database().await);
    let output = import(&url, &dir).args(["--report", "/does/not/exist"]).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("/does/not/exist cannot be written: "), "{said}");
    assert_eq!(count(&url).await, 0);
}

/// Files that others have made, if they are there.
#[tokio::test]
async fn the_real_untidy_files_are_recorded_whole() {
    for (name, tidied, derived) in
        [("untidy-amounts", 40, json!({})), ("other-ids", 0, json!({ "order": 60, "customer": 59, "seller": 90 }))]
    {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
        if !dir.exists() {
            eprintln!("skipped: there is no {}; the tests before this one tell the same story", dir.display());
            continue;
        }
        let url = database().await;
        let report = imported(&url, &dir, 0).await;
        assert_eq!(report["table"], expected::table(&dir), "{name}");
        assert_eq!((&report["tidied"], &report["derived"]), (&json!(tidied), &derived), "{name}");
        let again = imported(&url, &dir, 0).await;
        assert_eq!((&again["events"], &again["orders"]["left_out"]), (&json!(0), &json!(0)), "{name}");
    }
}
