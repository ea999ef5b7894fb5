//! 500 buyers and one piece: every service runs, and all is asked over NATS.

use crate::harness::{database, order_of, start_nats};
use futures_util::future::{join_all, try_join_all};
use order_services::policy::Timeouts;
use order_services::verbs::{Place, Receive};
use order_services::verify::verify;
use orders::id::{CustomerId, OrderId, Sku};
use runtime::client::Client;
use runtime::process::Urls;
use runtime::process::{connect_nats, jetstream};
use serde_json::{Value, json};
use sqlx::{PgPool, query_as, query_scalar};
use std::time::Duration;
use store::connect::{self, Role as Database};
use uuid::Uuid;

const BUYERS: usize = 500;
/// How long a client goes on asking, and `verify` waits for what is still on its way.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, by asking, until a query comes to `expected`.
async fn until(pool: &PgPool, query: &'static str, expected: i64) {
    while query_scalar::<_, i64>(query).fetch_one(pool).await.unwrap() != expected {
        tokio::task::yield_now().await;
    }
}

/// One confirmed order, 499 that are told that it is out of stock, no money kept from them. (The race "one unit, 500
/// buyers"; invariants 21, 22 and 25.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_hundred_buyers_one_gets_the_last_piece() {
    let (database_url, nats) = tokio::join!(database(), start_nats());
    let urls = Urls { database_url, nats_url: nats.url() };
    let process = dev::process::start(&urls, Timeouts::default()).await.unwrap();
    let shop = connect_nats(&urls.nats_url, "shop").await.unwrap();
    let client = Client::new(shop.clone(), "shop");
    let mug = Receive { sku: Sku::new("mug").unwrap(), quantity: 1 };
    client.command(mug, PATIENCE).await.unwrap();

    let buyers: Vec<(OrderId, CustomerId)> =
        (0..BUYERS).map(|_| (OrderId(Uuid::now_v7()), CustomerId(Uuid::now_v7()))).collect();
    let buys = |(order_id, customer_id): &(OrderId, CustomerId)| {
        let mut order = order_of(&[("mug", 1, 1)]);
        order.customer_id = *customer_id;
        client.command(Place { order_id: *order_id, order }, PATIENCE)
    };
    try_join_all(buyers.iter().map(buys)).await.unwrap();

    let pool = connect::pool(&urls.database_url, Database::Read, 2).unwrap();
    until(&pool, "SELECT count(*) FROM daybook.order_summary WHERE status IN ('confirmed', 'cancelled')", 500).await;
    until(&pool, "SELECT count(*) FROM daybook.follow_ups WHERE state = 'due'", 0).await;
    let head: i64 = query_scalar("SELECT max(position) FROM daybook.events").fetch_one(&pool).await.unwrap();

    let answer = async |id: &OrderId| {
        let asked = client.query::<Value>("order_summary.get", json!({ "order_id": id }), Some(head)).await;
        asked.unwrap().data
    };
    let orders = join_all(buyers.iter().map(|(id, _)| answer(id))).await;
    let confirmed: Vec<&Value> = orders.iter().filter(|order| order["status"] == "confirmed").collect();
    let told_so = |order: &&Value| order["status"] == "cancelled" && order["reason"] == "out_of_stock";
    assert_eq!((confirmed.len(), orders.iter().filter(told_so).count()), (1, BUYERS - 1));
    // The one pays on dispatch: what is held is held from that customer alone.
    let held_from: Vec<&Value> = orders.iter().filter(|order| order["authorised"] != 0).collect();
    assert_eq!(held_from, confirmed);
    assert!(orders.iter().all(|order| order["captured"] == 0));

    let notices = "SELECT customer_id, message::text FROM daybook.notices";
    let mut told: Vec<(Uuid, String)> = query_as(notices).fetch_all(&pool).await.unwrap();
    let out_of_stock = r#"{"order_cancelled": {"reason": "out_of_stock"}}"#;
    told.retain(|(_, message)| message == out_of_stock);
    told.sort_unstable();
    let without = |(_, customer): &&(OrderId, CustomerId)| confirmed[0]["customer_id"] != json!(customer);
    let mut to_be_told: Vec<(Uuid, String)> =
        buyers.iter().filter(without).map(|(_, customer)| (customer.0, out_of_stock.to_owned())).collect();
    to_be_told.sort_unstable();
    assert_eq!(told, to_be_told);

    let report = verify(&pool, Some(&jetstream(&shop)), PATIENCE).await.unwrap();
    assert!(report.agrees(), "{report}");
    process.stop().await;
}
