//! The table of an import, computed straight from the CSV files: it shares no code with the import. Cells hold neither
//! commas nor line breaks, in these files.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The rows of a file, each as its cells by column name.
fn rows(dir: &Path, name: &str) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(dir.join(format!("olist_{name}_dataset.csv"))).unwrap();
    let cells = |line: &str| line.split(',').map(|cell| cell.trim_matches('"').to_owned()).collect::<Vec<_>>();
    let mut lines = text.trim_start_matches('\u{feff}').lines().filter(|line| !line.is_empty());
    let header = cells(lines.next().unwrap());
    lines.map(|line| header.iter().cloned().zip(cells(line)).collect()).collect()
}

/// The nearest amount: whole decimals are compared, and no float.
fn cents(text: &str) -> i64 {
    // What is left of a difference.
    if text.contains("e-") {
        return 0;
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let all: i128 = format!("{whole}{decimals:0<25}").parse().unwrap();
    let cent = 10_i128.pow(23);
    ((all + cent / 2) / cent) as i64
}

pub(crate) fn table(dir: &Path) -> Value {
    let (orders, items, payments) = (rows(dir, "orders"), rows(dir, "order_items"), rows(dir, "order_payments"));
    let mut months = BTreeMap::new();
    let mut by_status: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for order in &orders {
        let month = &order["order_purchase_timestamp"][..7];
        months.insert(&order["order_id"], month);
        *by_status.entry((&order["order_status"], month)).or_default() += 1;
    }
    let mut revenue: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for payment in &payments {
        let month = months[&payment["order_id"]];
        *revenue.entry((month, &payment["payment_type"])).or_default() += cents(&payment["payment_value"]);
    }
    let mut sellers: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    for item in &items {
        let (n, price) = sellers.entry(&item["seller_id"]).or_default();
        *n += 1;
        *price += cents(&item["price"]);
    }
    let orders = by_status.iter().map(|((s, m), n)| json!({ "status": s, "month": m, "orders": n }));
    let revenue = revenue.iter().map(|((m, t), a)| json!({ "month": m, "payment_type": t, "revenue": a }));
    let sellers = sellers.iter().map(|(s, (n, price))| json!({ "seller": s, "items": n, "price": price }));
    json!({
        "orders": orders.collect::<Vec<_>>(),
        "revenue": revenue.collect::<Vec<_>>(),
        "sellers": sellers.collect::<Vec<_>>(),
    })
}
