//! Read models are rebuilt while orders come in and customers look; and whatever is killed in the middle, nobody sees a row
//! that is missing, unfinished or older than one that was seen before.

use crate::binary::until;
use crate::harness::{
    Serving, append, append_orders, daybook_on, envelope, executor, id, migrate, new_order, order_of, receive,
    start_nats, start_postgres,
};
use chrono::{DateTime, Utc};
use engine::ReadModel as _;
use order_services::verify::verify;
use order_services::{ExecuteError, Executor};
use order_views::ReadModel;
use order_views::encode;
use order_views::order_summary::{self, Filter, OrderSummary};
use order_views::stream as stream_of;
use orders::id::{OrderId, Sku, StockId};
use orders::stock::{Stock, StockReceived};
use orders::{Command, Event, order};
use runtime::client::{Client, ClientError};
use runtime::process::Urls;
use runtime::process::{connect_nats, jetstream};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::{PgPool, query_scalar};
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::connect::{self, Role};
use store::{Appender, ExpectedVersion, Origin, Position, StreamAppend, checkpoint};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use uuid::Uuid;

/// A `daybook replay`.
struct Replaying {
    child: Child,
    told: Lines<BufReader<ChildStderr>>,
}

impl Replaying {
    fn start(urls: &Urls, model: ReadModel) -> Self {
        let mut command = daybook_on(urls);
        command.args(["replay", model.name(), "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let told = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, told }
    }

    /// The position that it tells next, when it is in the middle. It tells the first one at once, and then one a second.
    async fn tells(&mut self) -> Position {
        let line = self.told.next_line().await.unwrap().expect("it was over before the middle");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(told["position"].as_i64() < told["target"].as_i64(), "{told}");
        told["position"].as_i64().unwrap()
    }

    /// Returns when it has written what it has built, which it does once a second: for so long it is stopped. So it needs no
    /// log that takes it seconds.
    async fn writes(&mut self) -> Position {
        self.tells().await;
        let (stopped, pid) = (Instant::now(), Pid::from_raw(self.child.id().unwrap() as i32).unwrap());
        kill_process(pid, Signal::STOP).unwrap();
        until("a second is over", async || (stopped.elapsed() > Duration::from_secs(1)).then_some(())).await;
        kill_process(pid, Signal::CONT).unwrap();
        self.tells().await
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// What it came to.
    async fn end(self) -> (Option<i32>, Value) {
        let output = self.child.wait_with_output().await.unwrap();
        let code = output.status.code();
        (code, serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}

/// What every row of an order has from its first version on.
fn whole(row: &OrderSummary) -> (Uuid, i64, i32, usize, DateTime<Utc>) {
    (row.customer_id, row.total, row.lines, row.payments.len(), row.placed_at)
}

/// What is done and seen all the while.
struct Shop {
    urls: Urls,
    executor: Executor,
    client: Client,
    read: PgPool,
    /// Orders of which nothing happens any more.
    settled: Vec<OrderId>,
    is_over: AtomicBool,
    /// How many orders were placed and paid, and how often all of them were looked at.
    sold: AtomicUsize,
    looks: AtomicUsize,
}

impl Shop {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Places orders, one after the other: each is placed until that is acknowledged, asked for as of then, and paid.
    async fn sell(&self) {
        while !self.is_over() {
            let (id, command) = (new_order(), order::Command::Place(order_of(&[("mug", 1, 1)])));
            let place = envelope(Uuid::now_v7(), Command::Order { id, command });
            let position = until("it is acknowledged", async || match self.executor.execute(&place).await {
                Ok(outcome) => Some(outcome.position),
                Err(ExecuteError::Unavailable(_)) => None,
                Err(e) => panic!("{e}"),
            })
            .await;
            self.ask(id, position).await;
            until("it is paid", async || {
                let row = order_summary::get(&self.read, id.0).await.ok()?.expect("it was there");
                (row.status == "confirmed").then_some(())
            })
            .await;
            self.sold.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn ask(&self, id: OrderId, position: Position) {
        loop {
            let data = serde_json::json!({ "order_id": id });
            let asked = self.client.query::<OrderSummary>("order_summary.get", data, Some(position));
            // Who was asked may have been killed.
            let Ok(answer) = tokio::time::timeout(Duration::from_secs(3), asked).await else { continue };
            match answer {
                Ok(reply) => {
                    assert!(reply.position >= position && reply.data.order_id == id.0 && reply.data.version >= 1);
                    return;
                }
                // Not yet, or not now: "there is nothing" would be wrong.
                Err(ClientError::NoAnswer(_)) => {}
                Err(ClientError::Refused(body)) => {
                    let code = serde_json::to_value(&body).unwrap()["code"].clone();
                    assert!(code == "not_yet" || code == "unavailable", "{body:?}");
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Looks at all orders, over and over: a row that was seen is never missing, and never in part or older.
    async fn look(&self) {
        let mut seen: HashMap<Uuid, OrderSummary> = HashMap::new();
        for OrderId(id) in &self.settled {
            seen.insert(*id, order_summary::get(&self.read, *id).await.unwrap().expect("it was taken in"));
        }
        while !self.is_over() {
            let all = Filter { limit: i64::MAX, ..Filter::default() };
            // Postgres may be away.
            let Ok(rows) = order_summary::list(&self.read, &all).await else { continue };
            let mut rows: HashMap<Uuid, OrderSummary> = rows.into_iter().map(|row| (row.order_id, row)).collect();
            for (id, before) in seen {
                let now = rows.get(&id).unwrap_or_else(|| panic!("{id} is missing; it was {before:?}"));
                let is_no_older = now.version >= before.version && now.changed_at >= before.changed_at;
                assert!(is_no_older && whole(now) == whole(&before), "{before:?} became {now:?}");
                if self.settled.contains(&OrderId(id)) {
                    assert_eq!(*now, before);
                }
            }
            seen = std::mem::take(&mut rows);
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns when more orders were sold, and all looked at, since.
    async fn goes_on(&self) {
        let (sold, looks) = (self.sold.load(Ordering::Relaxed), self.looks.load(Ordering::Relaxed));
        until("the shop goes on", async || {
            let more = self.sold.load(Ordering::Relaxed) > sold && self.looks.load(Ordering::Relaxed) > looks + 1;
            more.then_some(())
        })
        .await;
    }
}

/// Starts it again, once the lease of the one that was killed has run out.
async fn again(shop: &Shop, model: ReadModel) -> Replaying {
    let held = "SELECT EXISTS (SELECT FROM daybook.leases WHERE name = $1 AND expires_at > clock_timestamp())";
    until("nobody replays it", async || {
        let held = query_scalar::<_, bool>(held).bind(model.replay_name()).fetch_one(&shop.read).await;
        (!held.unwrap()).then_some(())
    })
    .await;
    Replaying::start(&shop.urls, model)
}

/// Some orders, a log that is several pages to a replay, and more orders; of none of these orders anything will happen.
async fn fill(url: &str) -> Vec<OrderId> {
    let appender = Appender::start(url).unwrap();
    let mut orders = append_orders(&appender, 100, 2, Origin::Import).await;
    for n in 1..=24 {
        let received = StockReceived { sku: Sku::new(format!("sku-{n}")).unwrap(), quantity: 1 };
        let received = encode(&Event::Stock(StockId(id(n)), received.into()));
        let (stream, events) = (stream_of::<Stock>(id(n)), vec![received; 1000]);
        let written = append(vec![StreamAppend { stream, expected: ExpectedVersion::NoStream, events }]);
        appender.append(written).await.unwrap();
    }
    orders.extend(append_orders(&appender, 100, 2, Origin::Import).await);
    orders
}

/// Invariants 16 and 17: what is rebuilt equals the fold of the log, and what was live, whatever is killed meanwhile; and 19:
/// whoever asks for an order as of its reply is never told that there is none.
#[tokio::test]
async fn whoever_looks_sees_whole_rows_whatever_is_killed_while_they_are_rebuilt() {
    let (mut postgres, nats) = tokio::join!(start_postgres(), start_nats());
    let urls = Urls { database_url: postgres.url("postgres"), nats_url: nats.url() };
    migrate(&urls.database_url).await;
    let settled = fill(&urls.database_url).await;
    let read = connect::pool(&urls.database_url, Role::Read, 4).unwrap();
    let executor = executor(&urls.database_url);
    receive(&executor, "mug", 1_000_000).await;
    let mut serving = Serving::start(&urls).await;
    let nats_client = connect_nats(&urls.nats_url, "test").await.unwrap();
    until("they are taken in", async || {
        let live = checkpoint::live(&read).await.unwrap();
        live.iter().all(|(_, at)| *at > 24_000).then_some(())
    })
    .await;
    let shop = Shop {
        urls: urls.clone(),
        executor,
        client: Client::new(nats_client.clone(), "test"),
        read: read.clone(),
        settled,
        is_over: AtomicBool::new(false),
        sold: AtomicUsize::new(0),
        looks: AtomicUsize::new(0),
    };
    let faults = async {
        shop.goes_on().await;
        // A replay is killed in the middle, and gone on with.
        let mut replaying = Replaying::start(&shop.urls, ReadModel::OrderSummary);
        let came_to = replaying.writes().await;
        replaying.kill().await;
        shop.goes_on().await;
        let mut replaying = again(&shop, ReadModel::OrderSummary).await;
        // The projectors are killed in the middle of it, and others take over.
        let goes_on_at = replaying.tells().await;
        assert!(goes_on_at > came_to / 2, "it has begun anew: {goes_on_at} after {came_to}");
        serving.kill().await;
        serving = Serving::start(&shop.urls).await;
        let (code, replayed) = replaying.end().await;
        assert_eq!((code, &replayed["switched"]), (Some(0), &Value::Bool(true)));
        assert!(replayed["events"].as_i64() < replayed["position"].as_i64(), "it has begun anew: {replayed}");
        shop.goes_on().await;
        // Postgres is killed in the middle of one.
        let mut replaying = Replaying::start(&shop.urls, ReadModel::StockLevel);
        let came_to = replaying.writes().await;
        postgres.kill9().await;
        let (code, _) = replaying.end().await;
        assert_ne!(code, Some(0));
        postgres.restart().await.unwrap();
        shop.goes_on().await;
        let mut replaying = again(&shop, ReadModel::StockLevel).await;
        let goes_on_at = replaying.tells().await;
        assert!(goes_on_at > came_to / 2, "it has begun anew: {goes_on_at} after {came_to}");
        let (code, replayed) = replaying.end().await;
        assert_eq!((code, &replayed["switched"]), (Some(0), &Value::Bool(true)));
        assert!(replayed["events"].as_i64() < replayed["position"].as_i64(), "it has begun anew: {replayed}");
        shop.goes_on().await;
        shop.is_over.store(true, Ordering::Relaxed);
        serving
    };
    let (serving, (), ()) = tokio::join!(faults, shop.sell(), shop.look());
    let report = verify(&read, Some(&jetstream(&nats_client)), Duration::from_secs(60)).await.unwrap();
    assert!(report.agrees(), "{report}");
    drop(serving);
}
