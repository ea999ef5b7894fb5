//! Stories of finding orders: by who ordered, what, when, for how much, and how that stands.

use crate::harness::{System, append_as, database, daybook_on, id, order_of, run};
use chrono::{DateTime, TimeDelta, Utc};
use order_services::queries;
use order_views::order_summary::{self, Filter, OrderSummary};
use order_views::{CATEGORIES, encode, stream as stream_of};
use order_views::{Projection, ReadModel};
use orders::id::{AddressId, CustomerId, OrderId, SellerId, Sku};
use orders::money::Amount;
use orders::order::DisplayStatus;
use orders::order::{
    self, CancelReason, Order, OrderCompleted, OrderLine, OrderPlaced, OrderTotals, PlaceLine, ProposeEdit,
    SellerShipping,
};
use orders::{Command, Event};
use runtime::replay::{Mode, replay};
use runtime::step::{Outcome, Step};
use runtime::subject;
use serde_json::{Value, json};
use sqlx::{query_as, query_scalar};
use store::ExpectedVersion::NoStream;
use store::checkpoint::{self, AdvanceError};
use store::connect::{self, Role};
use store::{Append, Appender, Log, Metadata, Origin, StreamAppend, lease};
use uuid::Uuid;

fn sku(sku: &str) -> Option<Sku> {
    Some(Sku::new(sku).unwrap())
}

/// What the answers to a filter are, in pages of this size.
async fn found(system: &System, filter: Filter, limit: i64) -> Vec<OrderSummary> {
    let mut found: Vec<OrderSummary> = Vec::new();
    loop {
        let after = found.last().map(|row| (row.placed_at, row.order_id));
        let filter = Filter { after, limit, ..filter.clone() };
        let page = order_summary::list(&system.parts.read, &filter).await.unwrap();
        let is_last = (page.len() as i64) < limit;
        found.extend(page);
        if is_last {
            return found;
        }
    }
}

/// Of a customer, in a currency, of these SKUs at this price each, placed so many hours ago and perhaps completed.
struct Placed {
    id: OrderId,
    customer: u128,
    currency: &'static str,
    skus: Vec<&'static str>,
    total: i64,
    at: DateTime<Utc>,
    completed: bool,
}

impl Placed {
    fn events(&self) -> Vec<Event> {
        let line = |(line, sku): (u32, &&str)| OrderLine {
            line,
            sku: Sku::new(*sku).unwrap(),
            seller_id: SellerId(id(1)),
            quantity: 1,
            unit_price: Amount(self.total),
            discount: Amount::ZERO,
            tax: Amount::ZERO,
        };
        let total = Amount(self.total);
        let placed = OrderPlaced {
            customer_id: CustomerId(id(self.customer)),
            currency: self.currency.parse().unwrap(),
            shipping_address_id: AddressId(id(0xA)),
            billing_address_id: None,
            lines: (1..).zip(&self.skus).map(line).collect(),
            shipping: vec![],
            payments: vec![],
            totals: OrderTotals {
                goods: total,
                discount: Amount::ZERO,
                tax: Amount::ZERO,
                shipping: Amount::ZERO,
                total,
            },
            rounding: order::Rounding::default(),
            backorder: false,
            approval_within_seconds: None,
        };
        let completed = self.completed.then(|| Event::Order(self.id, OrderCompleted {}.into()));
        [Event::Order(self.id, placed.into())].into_iter().chain(completed).collect()
    }

    fn status(&self) -> &'static str {
        if self.completed { "completed" } else { "placed" }
    }
}

/// History of so many orders, of which several were placed at the same time.
async fn with_history(system: &mut System, orders: u16) -> Vec<Placed> {
    let appender = Appender::start(&system.urls.database_url).unwrap();
    let begun: DateTime<Utc> = "2024-01-01T00:00:00Z".parse().unwrap();
    let skus: [&[&str]; 4] = [&["mug"], &["hat", "mug"], &["mug", "mug", "pin"], &["hat"]];
    let mut placed = Vec::new();
    for n in 0..orders {
        let order = Placed {
            id: OrderId(Uuid::from_u128(1000 + u128::from(n) * 89 % 4096)),
            customer: u128::from(n % 7),
            currency: ["EUR", "EUR", "JPY"][usize::from(n % 3)],
            skus: skus[usize::from(n / 5 % 4)].to_vec(),
            total: i64::from(n % 11) * 100,
            at: begun + TimeDelta::hours(i64::from(n % 13)),
            completed: n % 4 == 1,
        };
        let events = order.events().iter().map(encode).collect();
        let streams = vec![StreamAppend { stream: stream_of::<Order>(order.id.0), expected: NoStream, events }];
        let Append { metadata, streams } = append_as(Uuid::now_v7(), streams);
        let metadata =
            Metadata { correlation_id: order.id.0, origin: Origin::Import, occurred_at: order.at, ..metadata };
        appender.append(Append { metadata, streams }).await.unwrap();
        placed.push(order);
    }
    system.project().await;
    placed.sort_by(|a, b| b.at.cmp(&a.at).then(a.id.cmp(&b.id)));
    placed
}

/// Whatever is asked for at once, and in pages of any size, it is what a look at every order finds.
#[tokio::test]
async fn orders_are_found_by_all_that_is_asked_for_at_once() {
    let mut system = System::start().await;
    let orders = with_history(&mut system, 120).await;
    let (third, ninth) = (orders[0].at - TimeDelta::hours(10), orders[0].at - TimeDelta::hours(4));
    let (mut asked, mut answered) = (0, 0);
    for customer in [None, Some(3)] {
        for status in [None, Some("placed"), Some("completed"), Some("cancelled")] {
            for sku in [None, Some("mug"), Some("pin"), Some("none")] {
                for (from, before) in
                    [(None, None), (Some(third), Some(ninth)), (None, Some(third)), (Some(ninth), None)]
                {
                    for (currency, least, most) in [
                        (None, None, None),
                        (Some("JPY"), None, None),
                        (Some("EUR"), Some(300), None),
                        (Some("EUR"), None, Some(300)),
                        (Some("EUR"), Some(300), Some(800)),
                    ] {
                        let filter = Filter {
                            customer_id: customer.map(id),
                            status: status
                                .map(|word| *DisplayStatus::ALL.iter().find(|one| one.as_str() == word).unwrap()),
                            sku: sku.map(|sku| Sku::new(sku).unwrap()),
                            placed_from: from,
                            placed_before: before,
                            currency: currency.map(|currency| currency.parse().unwrap()),
                            total_at_least: least,
                            total_at_most: most,
                            ..Filter::default()
                        };
                        let is_asked_for = |o: &&Placed| {
                            customer.is_none_or(|customer| o.customer == customer)
                                && status.is_none_or(|status| o.status() == status)
                                && sku.is_none_or(|sku| o.skus.contains(&sku))
                                && from.is_none_or(|from| o.at >= from)
                                && before.is_none_or(|before| o.at < before)
                                && currency.is_none_or(|currency| o.currency == currency)
                                && least.is_none_or(|least| o.total >= least)
                                && most.is_none_or(|most| o.total <= most)
                        };
                        let expected: Vec<Uuid> = orders.iter().filter(is_asked_for).map(|o| o.id.0).collect();
                        asked += 1;
                        answered += usize::from(!expected.is_empty());
                        let limit = [1, 2, 3, 7, 500][asked % 5];
                        let rows = found(&system, filter.clone(), limit).await;
                        let ids: Vec<Uuid> = rows.into_iter().map(|row| row.order_id).collect();
                        assert_eq!(ids, expected, "{filter:?}");
                    }
                }
            }
        }
    }
    assert!(asked == 640 && answered > 200, "{answered} of {asked} have an answer");
}

/// Whether an order is found by a SKU follows its lines: as they are now, and as they were when it ended.
#[tokio::test]
async fn an_order_is_found_by_the_skus_of_the_lines_that_it_has_now() {
    let mut system = System::start().await;
    for sku in ["mug", "hat", "pin"] {
        system.receive(sku, 10).await;
    }
    let with = async |system: &System, sku| -> Vec<Uuid> {
        let rows = found(system, Filter { sku, ..Filter::default() }, 500).await;
        rows.into_iter().map(|row| row.order_id).collect()
    };
    let skus = async |system: &System, order: OrderId| {
        let row = order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap();
        assert_eq!(row.lines as usize, row.skus.len());
        row.skus
    };
    let first = system.place(order_of(&[("mug", 1, 1), ("hat", 1, 2), ("mug", 2, 1)])).await;
    let second = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    assert_eq!(
        (with(&system, sku("mug")).await, with(&system, sku("hat")).await),
        (vec![second.0, first.0], vec![first.0])
    );

    // One of two lines of a SKU goes, and the SKU stays; the only one goes, and it is found no more.
    let cancel = |lines| Command::CancelLines { id: first, lines, reason: CancelReason::CustomerRequest };
    system.execute(cancel(vec![1])).await.unwrap();
    system.settle().await;
    assert_eq!(
        (with(&system, sku("mug")).await.len(), skus(&system, first).await),
        (2, vec!["hat".into(), "mug".into()])
    );
    system.execute(cancel(vec![2])).await.unwrap();
    system.settle().await;
    assert_eq!((with(&system, sku("hat")).await, skus(&system, first).await), (vec![], vec!["mug".to_owned()]));

    // What an edit is to do shows once it is confirmed, and never if it is discarded.
    let edit = |remove, sku: &str| {
        let add: Vec<PlaceLine> = order_of(&[(sku, 1, 1)]).lines;
        let shipping = vec![SellerShipping { seller_id: SellerId(id(1)), amount: Amount(250) }];
        order::Command::ProposeEdit(ProposeEdit { remove, add, shipping, payments: vec![] })
    };
    let tell = async |system: &mut System, command| {
        assert!(system.execute(command).await.unwrap().recorded);
        system.settle().await;
    };
    tell(&mut system, Command::Order { id: second, command: edit(vec![1], "hat") }).await;
    tell(&mut system, Command::Order { id: second, command: order::Command::DiscardEdit { edit: 1 } }).await;
    tell(&mut system, Command::Order { id: second, command: edit(vec![1], "pin") }).await;
    assert_eq!((with(&system, sku("pin")).await, skus(&system, second).await), (vec![], vec!["mug".to_owned()]));
    tell(&mut system, Command::ConfirmEdit { id: second, edit: 2 }).await;
    assert_eq!((with(&system, sku("pin")).await, with(&system, sku("hat")).await), (vec![second.0], vec![]));
    assert_eq!(with(&system, sku("mug")).await, [first.0]);

    // Whether it is cancelled or completed: that is its status, and its lines are what was ordered.
    tell(&mut system, Command::CancelOrder { id: first, reason: CancelReason::CustomerRequest }).await;
    system.ship(second).await;
    assert_eq!((with(&system, sku("mug")).await, with(&system, sku("pin")).await), (vec![first.0], vec![second.0]));
    let filter = Filter { sku: sku("mug"), status: Some(DisplayStatus::Cancelled), ..Filter::default() };
    assert_eq!(found(&system, filter, 500).await.len(), 1);
    system.assert_verified().await;
}

/// As the rows were before orders were found by their SKUs: version 1 of the code left these columns at their defaults.
const BEFORE: &str = "
    UPDATE daybook.order_summary SET skus = DEFAULT, line_nos = DEFAULT, edit = DEFAULT;
    UPDATE daybook.checkpoints SET version = 1 WHERE projection = 'order_summary'";
/// What a migration does that comes with a new version of the code (docs/read-models.md).
const RAISED: &str = "
    UPDATE daybook.checkpoints SET version = 2, edits = edits + 1
    WHERE projection = 'order_summary' AND live AND position = 0";
/// What a build of version 1 writes.
const WRITTEN_BEFORE: &str = "
    INSERT INTO daybook.order_summary
    SELECT generation, $1, customer_id, status, reason, currency, total, authorised, captured, lines, delivered, payments,
           placed_at, changed_at, version
    FROM daybook.order_summary LIMIT 1";

async fn ask(system: &System, data: Value) -> Value {
    let subject = format!("{}.order_summary.list", subject::QUERIES);
    let answer = system.parts.client.request(subject, json!({ "data": data }).to_string().into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Rows of version 1 are served as they are until they are replayed: only what they cannot answer is refused.
#[tokio::test]
async fn rows_without_skus_are_not_searched_by_sku_until_they_are_replayed() {
    let mut system = System::start().await;
    let _api = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    system.receive("mug", 5).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    run(&system.urls.database_url, BEFORE).await;
    run(&system.urls.database_url, RAISED).await;
    let live = checkpoint::live_rows(&system.parts.read, "order_summary").await.unwrap().unwrap();
    assert_eq!(live.version, 1, "rows were written");
    sqlx::query(WRITTEN_BEFORE).bind(id(7)).execute(&system.superuser().await).await.unwrap();

    // This build leaves them alone.
    let later = system.place(order_of(&[("mug", 1, 1)])).await;
    system.relay().await;
    let summaries = &mut system.projectors[0];
    assert_eq!(summaries.name(), "order_summary");
    summaries.end().await;
    assert_eq!(summaries.step().await.unwrap(), Outcome::Idle);
    let all = ask(&system, json!({})).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 2, "{all}");
    let refused = ask(&system, json!({ "sku": "mug" })).await;
    assert_eq!(refused["code"], "unavailable");
    assert!(refused["message"].as_str().unwrap().ends_with("run `daybook replay order_summary`"), "{refused}");

    let (log, pool) = (&system.parts.log, &system.parts.project);
    let replayed = replay(log, pool, ReadModel::OrderSummary, Mode::Switch, |_, _| {}).await.unwrap();
    assert!(replayed.switched);
    system.settle().await;
    let with_mugs = ask(&system, json!({ "sku": "mug" })).await;
    let ids: Vec<&Value> = with_mugs["data"].as_array().unwrap().iter().map(|row| &row["order_id"]).collect();
    assert_eq!(ids, [&json!(later), &json!(order)]);
    system.assert_verified().await;
}

/// Where nothing is projected yet there is nothing to replay; a build of version 1 that was about to begin does not.
#[tokio::test]
async fn on_an_empty_log_a_migration_raises_the_version_and_an_older_build_finds_that() {
    let url = database().await;
    let pool = connect::pool(&url, Role::Project, 2).unwrap();
    let name = Projection::ReadModel(ReadModel::OrderSummary).name();
    let version = "SELECT version, edits FROM daybook.checkpoints WHERE projection = 'order_summary'";
    assert_eq!(query_as::<_, (i16, i64)>(version).fetch_all(&pool).await.unwrap(), [(2, 0)], "as it is installed");
    run(&url, BEFORE).await;
    let lease = lease::acquire(&pool, name, id(1)).await.unwrap().unwrap();
    let old = checkpoint::acquire(&pool, name, 1, &lease).await.unwrap();
    run(&url, RAISED).await;

    let log = Log::new(connect::pool(&url, Role::Read, 1).unwrap(), CATEGORIES);
    crate::harness::receive(&crate::harness::executor(&url), "mug", 1).await;
    let end = log.end().await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    let advanced = checkpoint::advance(&mut transaction, name, old, 1, end, lease.fence).await;
    assert!(matches!(advanced, Err(AdvanceError::Fenced("order_summary"))), "{advanced:?}");
    drop(transaction);
    let again = checkpoint::acquire(&pool, name, 1, &lease).await;
    assert!(matches!(again, Err(AdvanceError::OtherVersion { live: 2, ours: 1, .. })), "{again:?}");
    checkpoint::acquire(&pool, name, 2, &lease).await.unwrap();
    let rows: i64 = query_scalar("SELECT count(*) FROM daybook.order_summary").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn the_verb_finds_orders_and_says_what_it_cannot_be_asked() {
    let mut system = System::start().await;
    let _api = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    let orders = with_history(&mut system, 510).await;
    let daybook = async |arguments: &str| {
        let output = daybook_on(&system.urls).arg("orders").args(arguments.split(' ')).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let ids = async |arguments: &str| -> Vec<Value> {
        let (code, lines, errors) = daybook(&format!("--json {arguments}")).await;
        assert_eq!((code, &*errors), (Some(0), ""));
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["order_id"].clone()).collect()
    };
    let expected = |is_asked_for: &dyn Fn(&&Placed) -> bool| -> Vec<Value> {
        orders.iter().filter(is_asked_for).map(|o| json!(o.id)).collect()
    };
    // More than a reply may have.
    assert_eq!(ids("--limit 1000").await, expected(&|_| true));
    assert_eq!(ids("--limit 505").await, expected(&|_| true)[..505]);
    // All that a customer ordered.
    let of_customer = expected(&|o| o.customer == 3);
    assert!(of_customer.len() > 15);
    assert_eq!(ids(&format!("--customer {} --limit 1000", id(3))).await, of_customer);
    assert_eq!(ids(&format!("--customer {} --limit 5", id(3))).await, of_customer[..5]);
    let day = ids("--placed-from 2024-01-01 --placed-before 2024-01-01T06:00:00Z --limit 1000").await;
    assert_eq!(day, expected(&|o| o.at < "2024-01-01T06:00:00Z".parse::<DateTime<Utc>>().unwrap()));
    assert_eq!(ids("--placed-from 2024-01-02").await, [] as [Value; 0]);
    let all = "--sku pin --status placed --currency JPY --total-at-least 200 --total-at-most 700 --limit 1000";
    let is_all =
        |o: &&Placed| o.skus.contains(&"pin") && !o.completed && o.currency == "JPY" && (200..=700).contains(&o.total);
    assert!(!expected(&is_all).is_empty());
    assert_eq!(ids(all).await, expected(&is_all));
    for (arguments, code, says) in [
        ("--total-at-least 5", 2, "the following required arguments were not provided:\n  --currency"),
        ("--currency Euro", 2, "invalid value 'Euro' for '--currency"),
        ("--sku a\tb", 2, "a sku is 1 to 64 printable ASCII characters without blanks"),
        ("--placed-from yesterday", 2, "a day such as 2026-11-22, or a time such as"),
        ("--limit 0", 2, "invalid value '0' for '--limit"),
        ("--status gone", 2, "awaiting_approval"),
        ("--currency EUR --total-at-least 5 --total-at-most 4", 3, "data.total_at_most: total_at_least or more"),
        ("--placed-from 2024-01-02 --placed-before 2024-01-01", 3, "data.placed_before: placed_from or later"),
    ] {
        let (exit, out, errors) = daybook(arguments).await;
        assert_eq!((exit, &*out), (Some(code), ""), "{arguments}: {errors}");
        assert!(errors.contains(says), "{arguments}: {errors}");
    }
}
