//! Folders in the public Olist CSV format, with all of its columns.

use crate::harness::folder;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const ORDERS: &str = "olist_orders_dataset.csv";
pub(crate) const ITEMS: &str = "olist_order_items_dataset.csv";
pub(crate) const PAYMENTS: &str = "olist_order_payments_dataset.csv";

const HEADERS: [(&str, &str); 3] = [
    (
        ORDERS,
        "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,order_delivered_carrier_date,\
         order_delivered_customer_date,order_estimated_delivery_date",
    ),
    (ITEMS, "order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,freight_value"),
    (PAYMENTS, "order_id,payment_sequential,payment_type,payment_installments,payment_value"),
];

/// An id of 32 hex digits.
pub(crate) fn id(n: u64) -> String {
    format!("{n:032x}")
}

/// Writes a file of the folder, `#7` standing for the id of that number. Lines end in CR LF, as Olist's do.
pub(crate) fn write(dir: &Path, file: &str, rows: &[&str]) {
    let (_, header) = HEADERS.iter().find(|(name, _)| *name == file).unwrap();
    let rows: Vec<String> = [&[*header], rows].concat().iter().map(|row| with_ids(row)).collect();
    fs::write(dir.join(file), rows.join("\r\n") + "\r\n").unwrap();
}

fn with_ids(row: &str) -> String {
    let cell = |cell: &str| cell.strip_prefix('#').map_or_else(|| cell.to_owned(), |n| id(n.parse().unwrap()));
    row.split(',').map(cell).collect::<Vec<_>>().join(",")
}

/// A folder with these orders, items and payments.
pub(crate) async fn of(orders: &[&str], items: &[&str], payments: &[&str]) -> PathBuf {
    let dir = folder("olist").await;
    fs::create_dir(&dir).unwrap();
    write(&dir, ORDERS, orders);
    write(&dir, ITEMS, items);
    write(&dir, PAYMENTS, payments);
    dir
}

/// A folder with so many orders, of every status and as untidy as real ones.
pub(crate) async fn many(orders: u64) -> PathBuf {
    let (mut order_rows, mut items, mut payments) = (Vec::new(), Vec::new(), Vec::new());
    let times = |n: u64, day: u64| format!("2017-{:02}-{:02} {:02}:00:00", 1 + n % 12, day, n % 24);
    for n in 1..=orders {
        // How many of its times an order has, and whether it has items.
        let (status, has, any_items) = match n % 20 {
            1 => ("shipped", 3, true),
            2 => ("invoiced", 2, true),
            3 => ("processing", 2, true),
            4 => ("canceled", 2, true),
            5 => ("canceled", 3, true),
            6 => ("canceled", 1, false),
            7 => ("unavailable", 2, false),
            8 => ("created", 1, true),
            9 => ("approved", 2, true),
            // In 10, the carrier had it before it was approved.
            _ => ("delivered", 4, true),
        };
        let days = if n % 20 == 10 { [1, 4, 3, 9] } else { [1, 2, 3, 9] };
        let times: Vec<String> = (0..4).map(|i| if i < has { times(n, days[i]) } else { String::new() }).collect();
        order_rows.push(format!("#{n},#{},{status},{},2017-12-31 00:00:00", 1_000_000 + n, times.join(",")));
        let (pieces, mut owed) = (if any_items { 1 + n % 3 } else { 0 }, 0);
        for item in 1..=pieces {
            let (price, freight) = (1000 + n % 977, n % 31);
            owed += price + freight;
            let seller = 2_000_000 + (n + item) % 40;
            items.push(format!(
                "#{n},{item},sku-{},#{seller},2017-12-30 00:00:00,{}.{:02},0.{freight:02}",
                n % 100,
                price / 100,
                price % 100
            ));
        }
        // Some are a centavo off, some are paid with vouchers as well, one of them of nothing.
        let paid = owed + u64::from(n % 50 == 0) + if any_items { 0 } else { 700 };
        let voucher = if n % 7 == 0 { paid / 3 } else { 0 };
        if n % 7 == 0 || n % 90 == 0 {
            payments.push(format!("#{n},2,voucher,1,{}.{:02}", voucher / 100, voucher % 100));
        }
        let (kind, rest) = (["credit_card", "boleto", "debit_card"][(n % 3) as usize], paid - voucher);
        payments.push(format!("#{n},1,{kind},{},{}.{:02}", 1 + n % 10, rest / 100, rest % 100));
    }
    let rows = |rows: &[String]| rows.join("\n");
    let (order_rows, items, payments) = (rows(&order_rows), rows(&items), rows(&payments));
    let [order_rows, items, payments] = [&order_rows, &items, &payments].map(|rows| rows.lines().collect::<Vec<_>>());
    of(&order_rows, &items, &payments).await
}
