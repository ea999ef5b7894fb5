//! The binary as people use it: its verbs, what they print, their exit codes; and that it takes its servers with it,
//! whatever ends it.

use crate::harness::{System, daybook, daybook_on, folder, id, order_of};
use order_services::verbs::Receive;
use order_views::Projection;
use orders::id::{OrderId, SellerId, ShipmentId};
use runtime::client::Client;
use runtime::process::Urls;
use runtime::process::connect_nats;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{PgPool, query_scalar};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use uuid::Uuid;

/// Asks until there is an answer; that there is none in time is a failure.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..6_000 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a minute, and it is not so: {what}");
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What it printed, each line a JSON object; it must have gone well.
fn lines(output: &Output) -> Vec<Value> {
    assert_eq!(code(output), 0, "{output:?}");
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn line(output: &Output) -> Value {
    let mut lines = lines(output);
    assert_eq!(lines.len(), 1, "{output:?}");
    lines.remove(0)
}

/// A new, empty folder, which a server that runs as somebody else may pass through.
async fn new_folder(name: &str) -> PathBuf {
    let folder = folder(name).await;
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

/// A process, told from a later one under its id by when it began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: u32,
    parent: u32,
    begun: u64,
    name: String,
}

/// proc_pid_stat(5): the name is in parentheses, the state third, the parent fourth, the start 22nd.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let alive = !["Z", "X"].contains(&fields[0]);
    alive.then_some(Process {
        pid,
        parent: fields[1].parse().ok()?,
        begun: fields[19].parse().ok()?,
        name: name.into(),
    })
}

fn processes() -> Vec<Process> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

/// The processes whose command line names the folder, but for those of Daybook itself.
fn servers_in(folder: &Path) -> Vec<Process> {
    let folder = folder.to_str().unwrap().as_bytes();
    let names = |p: &Process| {
        let command = fs::read(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
        command.windows(folder.len()).any(|part| part == folder)
    };
    let is_server = |p: &Process| ["postgres", "nats-server", "initdb"].contains(&&*p.name);
    processes().into_iter().filter(|p| is_server(p) && names(p)).collect()
}

/// The processes that come from this one: Postgres' own do not name their folder.
fn descendants(pid: u32) -> Vec<Process> {
    let all = processes();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|p| p.parent == parent) {
            parents.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}

async fn until_gone(what: &str, folder: &Path, family: &[Process]) {
    until(&format!("{what}: none of {family:?} is left"), async || {
        let alive = family.iter().any(|p| process(p.pid).is_some_and(|now| now.begun == p.begun));
        (!alive && servers_in(folder).is_empty()).then_some(())
    })
    .await;
}

/// A `daybook dev` that is ready, in a folder of its own.
struct Dev {
    dir: PathBuf,
    child: Child,
    stdout: BufReader<ChildStdout>,
    urls: Urls,
}

impl Dev {
    async fn start() -> Self {
        Self::start_in(&folder("dev").await).await
    }

    async fn start_in(dir: &Path) -> Self {
        let messages = File::create(dir.with_extension("messages")).unwrap();
        let mut command = daybook();
        command.args(["dev", "--json"]).env("DAYBOOK_DEV", dir).stdout(Stdio::piped()).stderr(messages);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).await.unwrap();
        let messages = || fs::read_to_string(dir.with_extension("messages")).unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap_or_else(|e| panic!("{ready:?}: {e}\n{}", messages()));
        assert_eq!(ready.as_object().unwrap().len(), 3, "{ready}");
        assert_eq!(ready["ready"], true);
        let url = |name: &str| ready[name].as_str().unwrap().to_owned();
        let urls = Urls { database_url: url("database_url"), nats_url: url("nats_url") };
        Self { dir: dir.to_owned(), child, stdout, urls }
    }

    /// A verb that finds this one.
    fn daybook<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = daybook();
        command.args(arguments).env("DAYBOOK_DEV", &self.dir);
        command
    }

    async fn run(&self, arguments: &str) -> Output {
        self.daybook(arguments.split(' ')).output().await.unwrap()
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Its servers, and all of theirs.
    fn family(&self) -> Vec<Process> {
        let family = descendants(self.pid());
        let names: BTreeSet<&str> = family.iter().map(|p| &*p.name).collect();
        assert_eq!(names, BTreeSet::from(["nats-server", "postgres"]), "{family:?}");
        // A backend has its parent's command line until it gives itself a title.
        assert!(servers_in(&self.dir).len() >= 2);
        family
    }

    async fn end(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_raw(self.pid() as i32).unwrap(), signal).unwrap();
        self.child.wait().await.unwrap()
    }

    fn messages(&self) -> String {
        fs::read_to_string(self.dir.with_extension("messages")).unwrap()
    }
}

/// What `demo` says of its orders, and whether that is as it must be.
fn assert_demo(demo: &Value, orders: u64) {
    let sum = |of: &Value| of.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!(demo["orders"], orders);
    assert_eq!(demo["expected"], demo["ended"]);
    assert_eq!((sum(&demo["expected"]), sum(&demo["ended"])), (orders, orders));
    assert_eq!((&demo["lag_events"], &demo["verified"]), (&json!(0), &json!(true)));
    assert!(demo["events"].as_u64().unwrap() > 5 * orders, "{demo}");
    assert!(demo["commands"].as_u64().unwrap() > orders, "{demo}");
    for positive in ["commands_per_second", "command_p50_ms", "command_p99_ms", "seconds"] {
        assert!(demo[positive].as_f64().unwrap() > 0.0, "{positive}: {demo}");
    }
}

const DEMO_FIELDS: [&str; 13] = [
    "balances",
    "command_p50_ms",
    "command_p99_ms",
    "commands",
    "commands_per_second",
    "ended",
    "events",
    "expected",
    "lag_events",
    "orders",
    "paths",
    "seconds",
    "verified",
];

#[tokio::test]
async fn a_demo_ends_as_its_seed_says_and_leaves_nothing_behind() {
    let temp = new_folder("temp").await;
    let output = daybook().args(["demo", "--orders", "60", "--json"]).env("TMPDIR", &temp).output().await.unwrap();
    let demo = line(&output);
    let fields: Vec<&str> = demo.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(DEMO_FIELDS));
    assert_demo(&demo, 60);
    assert!(demo["ended"]["completed"].as_u64().unwrap() >= 36, "{demo}");
    // Servers, sockets, data: all were in there.
    assert!(text(&output.stderr).contains("starting PostgreSQL"), "{output:?}");
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0);
    assert_eq!(servers_in(&temp), []);
}

#[tokio::test]
async fn a_demo_that_is_interrupted_takes_its_servers_with_it() {
    let temp = new_folder("temp").await;
    let mut command = daybook();
    command.args(["demo", "--orders", "20000"]).env("TMPDIR", &temp).stdout(Stdio::null()).stderr(Stdio::piped());
    let demo = command.spawn().unwrap();
    let pid = demo.id().unwrap();
    // Until Postgres has somebody to serve: then all runs.
    let family = until("the demo runs", async || {
        let family = descendants(pid);
        let servers = family.iter().filter(|p| p.name == "postgres").count();
        (servers > 8 && family.iter().any(|p| p.name == "nats-server")).then_some(family)
    })
    .await;
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::INT).unwrap();
    let output = demo.wait_with_output().await.unwrap();
    assert_eq!(code(&output), 5, "{output:?}");
    assert!(text(&output.stderr).ends_with("daybook: interrupted\n"), "{output:?}");
    until_gone("after an interrupt", &temp, &family).await;
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0);
}

/// A folder in the Olist format: three orders that can be placed and three that cannot.
async fn small_sample() -> PathBuf {
    let folder = new_folder("olist").await;
    let id = |kind: &str, n: u32| format!("{kind:0>24}{n:08}");
    let (order, customer, seller) = (|n| id("a", n), |n| id("c", n), |n| id("5", n));
    let mut orders = "order_id,customer_id,order_status\n".to_owned();
    for n in 1..=6 {
        orders += &format!("{},{},delivered\n", order(n), customer(n));
    }
    let mut items = "order_id,order_item_id,product_id,seller_id,price,freight_value\n".to_owned();
    for (n, item, product, by, price, freight) in [
        // One line; two sellers; two of the same.
        (1, 1, "mug", 1, "10.00", "1.50"),
        (2, 1, "mug", 1, "10.00", "2.00"),
        (2, 2, "hat", 2, "25.90", "0.00"),
        (3, 1, "hat", 2, "25.90", "3.10"),
        (3, 2, "hat", 2, "25.90", "3.10"),
        (5, 1, "mug", 1, "10.00", "1.50"),
        (6, 1, "mug", 1, "10.00", "1.50"),
    ] {
        items += &format!("{},{item},{product},{},{price},{freight}\n", order(n), seller(by));
    }
    let mut payments = "order_id,payment_sequential,payment_type,payment_value\n".to_owned();
    for (n, sequential, kind, amount) in [
        (3, 2, "voucher", "8.00"),
        (1, 1, "credit_card", "11.50"),
        (2, 1, "boleto", "37.90"),
        (2, 2, "voucher", "0.00"),
        (3, 1, "credit_card", "50.00"),
        // For order 4 there is nothing to send, for 5 a centavo too little; for 6 nothing was paid.
        (4, 1, "credit_card", "99.99"),
        (5, 1, "credit_card", "11.49"),
    ] {
        payments += &format!("{},{sequential},{kind},{amount}\n", order(n));
    }
    for (file, content) in [("orders", orders), ("order_items", items), ("order_payments", payments)] {
        fs::write(folder.join(format!("olist_{file}_dataset.csv")), content).unwrap();
    }
    folder
}

#[tokio::test]
async fn a_demo_of_real_orders_agrees_with_their_files() {
    let sample = small_sample().await;
    let output = daybook().args(["demo", "--json", "--orders-from"]).arg(&sample).output().await.unwrap();
    let mut demo = line(&output);
    let files = demo.as_object_mut().unwrap().remove("files").unwrap();
    assert_demo(&demo, 3);
    assert_eq!(demo["ended"], json!({ "completed": 3 }));
    let row = |what: &str, n: i64| json!({ "what": what, "in_files": n, "in_system": n });
    let order = |n: u32| format!("{:0>24}{n:08}", "a");
    let not_taken = |n: u32, reason: &str, why: &str| json!({ "order": order(n), "reason": reason, "why": why });
    let expected = json!({
        "rows": [
            row("orders", 3),
            row("lines", 5),
            row("lines delivered", 5),
            row("items and freight", 1150 + 3790 + 5800),
            row("captured by boleto", 3790),
            row("captured by credit_card", 1150 + 5000),
            row("captured by voucher", 800),
        ],
        "not_taken": [
            not_taken(4, "no_items", "has no items, though 99.99 BRL was paid"),
            not_taken(5, "payments_differ", "11.50 BRL is owed, but 11.49 BRL was paid"),
            not_taken(6, "no_payments", "has no payments, though 11.50 BRL is owed"),
        ],
        "zero_payments": 1,
    });
    assert_eq!(files, expected);
}

#[tokio::test]
async fn the_real_sample_ends_completed() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/olist-sample");
    if !sample.exists() {
        eprintln!("skipped: there is no {}; the test before this one tells the same story", sample.display());
        return;
    }
    let output = daybook().args(["demo", "--json", "--orders-from"]).arg(&sample).output().await.unwrap();
    let demo = line(&output);
    let rows = demo["files"]["rows"].as_array().unwrap();
    assert!(rows.len() > 4 && rows.iter().all(|row| row["in_files"] == row["in_system"]), "{rows:?}");
    let (taken, not_taken) = (demo["orders"].as_u64().unwrap(), demo["files"]["not_taken"].as_array().unwrap().len());
    let orders = fs::read_to_string(sample.join("olist_orders_dataset.csv")).unwrap();
    assert_eq!(taken as usize + not_taken, orders.lines().count() - 1);
    assert_demo(&demo, taken);
    assert_eq!(demo["ended"], json!({ "completed": taken }));
}

#[tokio::test]
async fn files_that_cannot_be_read_are_wrong_usage_and_named() {
    let sample = small_sample().await;
    let read = async || {
        let output = daybook().args(["demo", "--orders-from"]).arg(&sample).output().await.unwrap();
        assert_eq!((code(&output), text(&output.stdout)), (2, ""), "{output:?}");
        text(&output.stderr).to_owned()
    };
    let items = sample.join("olist_order_items_dataset.csv");
    let good = fs::read_to_string(&items).unwrap();
    fs::write(&items, good.replacen("25.90", "25,90", 1)).unwrap();
    let shown = items.display();
    assert_eq!(read().await, format!("daybook: {shown}, line 4: 7 fields, where the header has 6\n"));
    fs::write(&items, good.replacen("25.90", "-25.90", 1)).unwrap();
    let what = r#"line 4, column price: "-25.90" is not an amount such as 109.90"#;
    assert_eq!(read().await, format!("daybook: {shown}, {what}\n"));
    fs::remove_file(&items).unwrap();
    assert!(read().await.starts_with(&format!("daybook: cannot read {shown}: No such file")));
}

#[tokio::test]
async fn the_verbs_find_the_dev_that_runs() {
    let dev = Dev::start().await;
    let nats = connect_nats(&dev.urls.nats_url, "test").await.unwrap();
    let warehouse = Client::new(nats, "warehouse");
    let receive = Receive { sku: orders::id::Sku::new("mug").unwrap(), quantity: 10 };
    warehouse.command(receive, Duration::from_secs(10)).await.unwrap();
    let order = serde_json::to_string(&order_of(&[("mug", 2, 1)])).unwrap();
    let (file, first) = (dev.dir.with_extension("order.json"), Uuid::now_v7());
    fs::write(&file, &order).unwrap();

    // Placed from a file.
    let place = format!("order place --json --id {first} --file {}", file.display());
    let placed = line(&dev.run(&place).await);
    assert_eq!((&placed["recorded"], &placed["order_id"]), (&json!(true), &json!(first)));
    assert_eq!(placed["streams"], json!([{ "stream": format!("order-{first}"), "version": 1 }]));
    let position = &placed["position"];
    let shown = line(&dev.run(&format!("order show {first} --json --at-least {position}")).await);
    assert!(shown["position"].as_i64() >= position.as_i64(), "{shown}");
    assert_eq!((&shown["data"]["order_id"], &shown["data"]["total"]), (&json!(first), &json!(2250)));
    // Nothing, as long as the read model does not have the order.
    let status = async |id: Uuid| {
        let shown = dev.run(&format!("order show {id} --json")).await;
        if code(&shown) == 3 { Value::Null } else { line(&shown)["data"]["status"].clone() }
    };
    until("it is confirmed", async || (status(first).await == "confirmed").then_some(())).await;

    // Another command: for the same order there is nothing to do, for another one under its id it is too late.
    let again = line(&dev.run(&place).await);
    assert_eq!((&again["recorded"], &again["order_id"]), (&json!(false), &json!(first)));
    let other = dev.dir.with_extension("other.json");
    fs::write(&other, serde_json::to_string(&order_of(&[("mug", 3, 1)])).unwrap()).unwrap();
    let refused = dev.run(&format!("order place --id {first} --file {}", other.display())).await;
    assert_eq!((code(&refused), text(&refused.stdout)), (3, ""), "{refused:?}");

    // Placed from standard input, for people.
    let mut command = dev.daybook(["order", "place", "--file", "-"]);
    let mut placing = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    placing.stdin.take().unwrap().write_all(order.as_bytes()).await.unwrap();
    let placed = placing.wait_with_output().await.unwrap();
    assert_eq!(code(&placed), 0, "{placed:?}");
    let said = text(&placed.stdout).strip_prefix("order ").unwrap();
    let second: Uuid = said[..36].parse().unwrap();
    assert!(said[36..].starts_with(": recorded, position "), "{said}");
    until("it is confirmed", async || (status(second).await == "confirmed").then_some(())).await;

    // Cancelled, and cancelled again.
    let cancelled = line(&dev.run(&format!("order cancel {second} --json")).await);
    assert_eq!((&cancelled["recorded"], &cancelled["order_id"]), (&json!(true), &json!(second)));
    until("it is cancelled", async || (status(second).await == "cancelled").then_some(())).await;
    let again = dev.run(&format!("order cancel {second}")).await;
    let nothing = format!("order {second}: unchanged, position ");
    assert!(code(&again) == 0 && text(&again.stdout).starts_with(&nothing), "{again:?}");
    let shown = dev.run(&format!("order show {second}")).await;
    assert!(text(&shown.stdout).contains("\nstatus      cancelled (customer_request)\n"), "{shown:?}");
    assert!(text(&shown.stdout).contains("\ntotal       22.50 EUR\n"), "{shown:?}");

    // Listed, newest first.
    let ids = |output: &Output| -> Vec<Value> { lines(output).iter().map(|o| o["order_id"].clone()).collect() };
    assert_eq!(ids(&dev.run("orders --json").await), [json!(second), json!(first)]);
    assert_eq!(ids(&dev.run("orders --json --limit 1").await), [json!(second)]);
    assert_eq!(ids(&dev.run("orders --json --status confirmed").await), [json!(first)]);
    assert_eq!(ids(&dev.run(&format!("orders --json --customer {first}")).await), [] as [Value; 0]);
    let table = dev.run("orders").await;
    assert_eq!(text(&table.stdout).lines().count(), 3, "{table:?}");

    // The log, whole and by stream.
    let log = line_by_line(&dev, "events read --json --limit 500").await;
    let positions: Vec<i64> = log.iter().map(|e| e["position"].as_i64().unwrap()).collect();
    assert_eq!(positions, (1..=log.len() as i64).collect::<Vec<_>>());
    assert_eq!((&log[0]["event_type"], &log[0]["actor"]), (&json!("StockReceived"), &json!("warehouse")));
    assert_eq!(line_by_line(&dev, "events read --json --from 3 --limit 2").await, log[2..4]);
    let stream = format!("order-{first}");
    let of_first: Vec<Value> = log.iter().filter(|e| e["stream"] == stream).cloned().collect();
    assert!(of_first.len() > 2);
    assert_eq!(line_by_line(&dev, &format!("events read --json --stream {stream}")).await, of_first);
    assert_eq!(line_by_line(&dev, &format!("events read --json --stream {stream} --from 2")).await, of_first[1..]);
    let plain = dev.run(&format!("events read --stream {stream} --limit 1")).await;
    assert!(text(&plain.stdout).contains(&format!("{stream}@1  OrderPlaced  {{")), "{plain:?}");

    // Rebuilt and checked.
    let replayed = line(&dev.run("replay order_summary --json").await);
    let compared = &replayed["compared"];
    assert_eq!(
        (&compared["rows"], &compared["different"], &replayed["switched"]),
        (&json!(2), &json!(0), &json!(true))
    );
    let undone = line(&dev.run("replay order_summary --undo --json").await);
    assert_eq!((&undone["switched"], &undone["compared"]), (&json!(true), &Value::Null));
    let compared = dev.run("replay order_summary --dry-run").await;
    assert!(text(&compared.stdout).ends_with("2 rows, equal to the live ones\nnothing was changed\n"), "{compared:?}");
    let replayed = dev.run("replay stock_level").await;
    let same = "stock_level: ";
    assert!(text(&replayed.stdout).starts_with(same), "{replayed:?}");
    let kept = "--undo goes back to the rows from before\n";
    assert!(text(&replayed.stdout).ends_with(kept), "{replayed:?}");
    let states = async || {
        let listed = lines(&dev.run("projections list --json").await);
        assert_eq!(listed.last().unwrap()["relay"]["state"], "current");
        let state = |p: &Value| Some((p["projection"].as_str()?.to_owned(), p["state"].as_str()?.to_owned()));
        listed.iter().filter_map(state).collect::<Vec<_>>()
    };
    let current = |projection: Projection| (projection.name().to_owned(), "current".to_owned());
    let mut all: Vec<(String, String)> = Projection::all().map(current).collect();
    all.sort();
    assert_eq!(states().await, all);
    assert_eq!(line(&dev.run("projections pause timers --json").await)["paused"], true);
    assert!(states().await.contains(&("timers".to_owned(), "paused".to_owned())));
    assert_eq!(code(&dev.run("projections list").await), 0);
    let checked = dev.run("projections list --check").await;
    assert_eq!((code(&checked), text(&checked.stderr)), (1, "daybook: timers is paused\n"));
    let resumed = dev.run("projections resume timers").await;
    assert_eq!(text(&resumed.stdout), "timers goes on\n");
    until("it runs again", async || (states().await == all).then_some(())).await;
    assert_eq!(code(&dev.run("projections list --check --json").await), 0);
    let verified = line(&dev.run("verify --json").await);
    assert_eq!(verified["events"], log.len());

    // What is refused, and what is wrong usage.
    for (arguments, expected, says) in [
        (format!("order show {}", Uuid::now_v7()), 3, "daybook: "),
        (format!("order cancel {}", Uuid::now_v7()), 3, "daybook: "),
        ("order show not-an-id".into(), 2, "error: invalid value 'not-an-id'"),
        ("order place --file /does/not/exist".into(), 2, "daybook: /does/not/exist cannot be read: "),
        (format!("order place --file {}/dev.json", dev.dir.display()), 2, "holds no order: "),
        ("events read --stream order".into(), 2, "daybook: order is no stream: "),
        ("events read --limit 0".into(), 2, "error: invalid value '0'"),
        ("replay follow_ups".into(), 2, "the read models are order_summary, stock_level"),
        ("orders --limit 0".into(), 2, "error: invalid value '0'"),
        ("demo --orders 0".into(), 2, "error: invalid value '0'"),
        ("demo --orders 5 --orders-from /tmp".into(), 2, "cannot be used with"),
        ("nonsense".into(), 2, "error: unrecognized subcommand 'nonsense'"),
    ] {
        let output = dev.run(&arguments).await;
        assert_eq!((code(&output), text(&output.stdout)), (expected, ""), "{arguments}: {output:?}");
        assert!(text(&output.stderr).contains(says), "{arguments}: {output:?}");
    }
    // One that the domain refuses: it does not add up, and the fields at fault are named.
    let mut unpaid = order_of(&[("mug", 2, 1)]);
    unpaid.payments[0].amount = orders::money::Amount(1);
    fs::write(&file, serde_json::to_string(&unpaid).unwrap()).unwrap();
    let refused = dev.run(&format!("order place --file {}", file.display())).await;
    assert_eq!(code(&refused), 3, "{refused:?}");
    let at_fault = "\n  data.order.payments: amounts that add up to the total of 22.50\n";
    assert!(text(&refused.stderr).ends_with(at_fault), "{refused:?}");

    // A second one in the same folder is kept out.
    let second_dev = dev.run("dev").await;
    assert_eq!(code(&second_dev), 4, "{second_dev:?}");
    let in_use = format!("is in use by another daybook (pid {})", dev.pid());
    assert!(text(&second_dev.stderr).contains(&in_use), "{second_dev:?}");
}

/// An order on its way from an approval to a return, by the verbs alone.
#[tokio::test]
async fn the_verbs_take_an_order_through_holds_an_edit_and_a_return() {
    let dev = Dev::start().await;
    let order = Uuid::now_v7();
    let (file, edit) = (dev.dir.with_extension("order.json"), dev.dir.with_extension("edit.json"));
    let done = async |arguments: &str| assert_eq!(line(&dev.run(arguments).await)["recorded"], true, "{arguments}");
    let refused = async |expected: i32, arguments: &str, says: &str| {
        let output = dev.run(arguments).await;
        assert_eq!((code(&output), text(&output.stdout)), (expected, ""), "{arguments}: {output:?}");
        assert!(text(&output.stderr).contains(says), "{arguments}: {output:?}");
    };
    let shown = async || line(&dev.run(&format!("order show {order} --json")).await)["data"].clone();
    let is = async |status: &str| {
        until(status, async || {
            // At first, the read model has no such order.
            let output = dev.run(&format!("order show {order} --json")).await;
            (code(&output) == 0 && line(&output)["data"]["status"] == status).then_some(())
        })
        .await;
    };

    // Approved and let go, in whichever order.
    done("stock receive mug 20 --json").await;
    let mut placed = order_of(&[("mug", 2, 1)]);
    placed.approval_within_seconds = Some(3600);
    fs::write(&file, serde_json::to_string(&placed).unwrap()).unwrap();
    done(&format!("order place --json --id {order} --file {}", file.display())).await;
    done(&format!("order hold {order} --reason fraud --json")).await;
    let again = line(&dev.run(&format!("order hold {order} --reason fraud --json")).await);
    assert_eq!((&again["recorded"], &again["order_id"]), (&json!(false), &json!(order)));
    is("on_hold").await;
    assert_eq!(line(&dev.run("orders --status on_hold --json").await)["order_id"], json!(order));
    refused(2, &format!("order hold {order} --reason whim"), "error: invalid value 'whim'").await;
    done(&format!("order release {order} --reason fraud --json")).await;
    is("awaiting_approval").await;
    let approved = dev.run(&format!("order approve {order}")).await;
    assert!(text(&approved.stdout).starts_with(&format!("order {order}: recorded, position ")), "{approved:?}");
    refused(3, &format!("order deny {order}"), &format!("approval 1 of order {order} is granted")).await;
    is("confirmed").await;

    // Three mugs instead of two: another line, and the rest of the money.
    let mut proposed = json!({
        "remove": [1],
        "add": [{ "sku": "mug", "seller_id": id(1), "quantity": 3, "unit_price": 1000 }],
        "shipping": [{ "seller_id": id(1), "amount": 250 }],
    });
    let propose = format!("order edit {order} --json --file {}", edit.display());
    fs::write(&edit, proposed.to_string()).unwrap();
    refused(3, &propose, "\n  data.edit.payments: amounts that add up to 10.00\n").await;
    refused(2, &propose.replace("edit.json", "order.json"), "holds no edit: ").await;
    proposed["payments"] = json!([{ "method": { "kind": "credit_card", "token": "tok_approve" }, "amount": 1000 }]);
    fs::write(&edit, proposed.to_string()).unwrap();
    done(&propose).await;
    let confirmed = until("the edit is secured", async || {
        let output = dev.run(&format!("order confirm-edit {order} 1 --json")).await;
        (code(&output) != 3).then_some(output)
    })
    .await;
    assert_eq!(line(&confirmed)["recorded"], true);
    until("it costs more", async || (shown().await["total"] == 3250).then_some(())).await;
    refused(3, &format!("order discard-edit {order} 1"), &format!("edit 1 of order {order} is confirmed")).await;

    // Packed, sent, arrived.
    let parcel = ShipmentId::of_seller(OrderId(order), SellerId(id(1)));
    refused(3, &format!("shipment lost {parcel}"), "is not dispatched").await;
    refused(3, &format!("shipment ready {parcel}"), "was planned anew").await;
    let planned = until("its new plan is in the read model", async || {
        let shipments = lines(&dev.run(&format!("shipments --json --seller {}", id(1))).await);
        shipments.into_iter().find(|shipment| shipment["revision"] == 2)
    })
    .await;
    assert_eq!((&planned["shipment_id"], &planned["status"]), (&json!(parcel), &json!("planned")));
    assert_eq!((&planned["revision"], &planned["lines"][0]["quantity"]), (&json!(2), &json!(3)));
    let table = dev.run("shipments").await;
    assert!(text(&table.stdout).contains(&format!("{parcel}  planned         2  3 mug")), "{table:?}");
    refused(2, "shipments --status lost_in_space", "possible values: planned, ready, held").await;
    refused(3, &format!("shipment show {order}"), "there is nothing under this id").await;
    done(&format!("shipment ready {parcel} --revision 2 --json")).await;
    done(&format!("shipment dispatch {parcel} --revision 2 --tracking T-1 --json")).await;
    refused(3, &format!("order cancel-lines {order} --lines 2"), "is dispatched").await;
    done(&format!("shipment deliver {parcel} --json")).await;
    refused(3, &format!("shipment returned {parcel}"), "is delivered").await;
    is("completed").await;
    let show = format!("shipment show {parcel}");
    until("it is delivered", async || {
        let shown = dev.run(&show).await;
        text(&shown.stdout).contains("\nstatus    delivered\n").then_some(shown)
    })
    .await;
    let parcel_shown = line(&dev.run(&format!("{show} --json")).await);
    assert_eq!(parcel_shown["data"]["tracking"], "T-1");
    assert_eq!(lines(&dev.run("shipments --json").await), [] as [Value; 0]);

    // Two of the three come back, one of them whole.
    refused(2, &format!("order request-return {order} --line 2 --reason damaged"), "such as 1:2").await;
    done(&format!("order request-return {order} --line 2:2 --reason damaged --json")).await;
    refused(3, &format!("order receive-return {order} 1 --line 2:2:1"), "is not approved").await;
    done(&format!("order approve-return {order} 1 --json")).await;
    done(&format!("order receive-return {order} 1 --line 2:2:1 --json")).await;
    let refunded = async || -> i64 {
        shown().await["payments"].as_array().unwrap().iter().filter_map(|p| p["refunded"].as_i64()).sum()
    };
    until("two mugs are refunded", async || (refunded().await == 2000).then_some(())).await;
    let revenue = async |by: &str| lines(&dev.run(&format!("revenue --by {by} --json --currency EUR")).await);
    let month = until("they are in the books", async || {
        let rows = revenue("month").await;
        let refunded: i64 = rows.iter().filter_map(|row| row["refunded"].as_i64()).sum();
        (refunded == 2000).then_some(rows)
    })
    .await;
    let captured = |rows: &[Value]| -> i64 { rows.iter().filter_map(|row| row["captured"].as_i64()).sum() };
    assert_eq!((captured(&month), captured(&revenue("day").await)), (3250, 3250));
    assert_eq!(lines(&dev.run("revenue --json --to 2000-01-01").await), [] as [Value; 0]);
    let table = dev.run("revenue").await;
    assert!(text(&table.stdout).contains("  credit_card"), "{table:?}");
    refused(2, "revenue --from yesterday", "error: invalid value 'yesterday'").await;

    // What happened, in words.
    let history = dev.run(&format!("order history {order}")).await;
    for told in [
        "  order placed: lines 2 mug, total 22.50 EUR (cli)\n",
        "  hold placed: hold 1, reason fraud (cli)\n",
        "  shipment dispatched: lines 3 mug, tracking T-1 (cli)\n",
        "  return requested: lines 2 of line 2, reason damaged, return no 1 (cli)\n",
        "  payment refunded: amount ",
    ] {
        assert!(text(&history.stdout).contains(told), "{told}: {}", text(&history.stdout));
    }
    let all = line_by_line(&dev, &format!("order history {order} --json --limit 500")).await;
    let rest = format!("order history {order} --json --limit 2 --after {}", all[0]["position"]);
    assert_eq!(line_by_line(&dev, &rest).await, all[1..3]);
    assert!(all.iter().all(|entry| !entry.to_string().contains("tok_")));
    refused(3, &format!("order history {parcel}"), "there is nothing under this id").await;
    let on_hand = async || line(&dev.run("stock show mug --json").await)["data"]["on_hand"].clone();
    until("one of them is on hand again", async || (on_hand().await == 18).then_some(())).await;

    // Counted.
    refused(3, "stock adjust mug -100 --reason theft", "100 cannot be taken away").await;
    done("stock adjust mug -2 --reason count --json").await;
    until("what was counted is on hand", async || (on_hand().await == 16).then_some(())).await;
    let verified = dev.run("verify").await;
    assert_eq!(code(&verified), 0, "{verified:?}");
}

async fn line_by_line(dev: &Dev, arguments: &str) -> Vec<Value> {
    lines(&dev.run(arguments).await)
}

/// Exit code 4: a server is missing or does not answer.
#[tokio::test]
async fn servers_that_are_missing_have_an_exit_code_of_their_own() {
    let nowhere = new_folder("nowhere").await;
    let output = async |mut command: Command| {
        let output = command.env("DAYBOOK_DEV", &nowhere).output().await.unwrap();
        (code(&output), text(&output.stderr).to_owned(), text(&output.stdout).to_owned())
    };
    for verb in [
        "orders",
        "verify",
        "events read",
        "export -",
        "import log -",
        "replay stock_level",
        "migrate",
        "serve",
        "reconcile",
        "demo --attach",
    ] {
        let mut command = daybook();
        command.args(verb.split(' '));
        let (code, stderr, stdout) = output(command).await;
        assert_eq!((code, &*stdout), (4, ""), "{verb}: {stderr}");
        assert!(stderr.contains("start `daybook dev` (none is running)"), "{verb}: {stderr}");
    }
    // One that was, and is no more: its process id is nobody's.
    let gone = json!({ "pid": u32::MAX, "database_url": "postgresql://x", "nats_url": "nats://x", "nats_port": 1 });
    fs::write(nowhere.join("dev.json"), gone.to_string()).unwrap();
    let mut command = daybook();
    command.arg("orders");
    assert_eq!(output(command).await.0, 4);

    // Servers without services: nobody answers a command or a query.
    let System { urls, .. } = &System::start().await;
    let mut command = daybook_on(urls);
    command.arg("orders");
    let (code, stderr, _) = output(command).await;
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("Is `daybook serve` or `daybook dev` running?"), "{stderr}");

    // Half of them named is a mistake; both wrongly named are not there.
    let mut command = daybook_on(urls);
    command.arg("orders").env_remove("NATS_URL");
    let (code, stderr, _) = output(command).await;
    assert_eq!((code, &*stderr), (2, "daybook: DATABASE_URL is set, NATS_URL is not: set both, or neither\n"));
    let mut command = daybook_on(urls);
    command.arg("verify").env("DATABASE_URL", "postgresql://postgres@localhost/x?host=/nowhere&sslmode=disable");
    let (code, stderr, _) = output(command).await;
    assert_eq!(code, 4, "{stderr}");
}

/// Invariants 1, 3, 11, 16, under the first fault of the list: everything is killed in the middle of the work.
#[tokio::test]
async fn a_demo_goes_on_to_its_end_when_dev_is_killed_and_started_again() {
    let mut dev = Dev::start().await;
    let mut command = dev.daybook("demo --attach --orders 150 --json".split(' '));
    let mut demo = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let superuser = PgPool::connect(&dev.urls.database_url).await.unwrap();
    let placed = async || -> i64 {
        let placed = "SELECT count(*) FROM daybook.events WHERE event_type = 'OrderPlaced'";
        query_scalar(placed).fetch_one(&superuser).await.unwrap()
    };
    until("some orders are placed", async || (placed().await >= 20).then_some(())).await;
    assert!(!dev.end(Signal::KILL).await.success());
    assert!(demo.try_wait().unwrap().is_none(), "the demo was over before the middle");
    drop(superuser);

    let restarted = Dev::start_in(&dev.dir).await;
    assert_eq!(restarted.urls.nats_url, dev.urls.nats_url, "clients find it again where it was");
    assert_eq!(restarted.urls.database_url, dev.urls.database_url);
    let output = demo.wait_with_output().await.unwrap();
    assert_demo(&line(&output), 150);
    let verified = restarted.run("verify").await;
    assert_eq!(code(&verified), 0, "{verified:?}");
}

#[tokio::test]
async fn nothing_of_a_dev_that_is_killed_is_left_but_its_data() {
    let mut dev = Dev::start().await;
    let order = serde_json::to_string(&order_of(&[("mug", 1, 1)])).unwrap();
    let (file, id) = (dev.dir.with_extension("order.json"), Uuid::now_v7());
    fs::write(&file, order).unwrap();
    line(&dev.run(&format!("order place --json --id {id} --file {}", file.display())).await);
    let family = dev.family();
    assert!(family.len() > 8, "{family:?}");
    assert!(!dev.end(Signal::KILL).await.success());
    until_gone("after kill -9", &dev.dir, &family).await;
    assert_eq!(code(&dev.run("orders").await), 4);

    let restarted = Dev::start_in(&dev.dir).await;
    // Until then the projectors may have to wait for the leases of the one that was killed: 4, not yet.
    let shown = until("the order is there again", async || {
        let output = restarted.run(&format!("order show {id} --json --at-least 1")).await;
        (code(&output) != 4).then_some(output)
    });
    assert_eq!(line(&shown.await)["data"]["order_id"], json!(id));
}

#[tokio::test]
async fn ctrl_c_and_sigterm_end_a_dev_in_order() {
    let dir = folder("dev").await;
    for signal in [Signal::INT, Signal::TERM] {
        let mut dev = Dev::start_in(&dir).await;
        let family = dev.family();
        assert_eq!(dev.end(signal).await.code(), Some(0), "{signal:?}: {}", dev.messages());
        // In order: all is over before it is.
        until_gone(&format!("{signal:?}"), &dir, &family).await;
        let mut rest = String::new();
        dev.stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "", "the one line was all its data");
        assert!(dev.messages().contains("\nstopping…\n"), "{}", dev.messages());
        let log = fs::read_to_string(dir.join("postgres.log")).unwrap();
        assert!(log.trim_end().ends_with("database system is shut down"), "{log}");
        assert!(!log.contains("not properly shut down"), "{log}");
    }
}

/// From the first moment to the last, a signal is an end in order: before it is ready, and just when it says so.
#[tokio::test]
async fn a_dev_is_ended_in_order_while_it_starts() {
    let dir = folder("dev").await;
    let mut ready = Dev::start_in(&dir).await;
    assert_eq!(ready.end(Signal::TERM).await.code(), Some(0), "{}", ready.messages());
    for signal in [Signal::INT, Signal::TERM] {
        let mut command = daybook();
        let starting = command.args(["dev", "--dir"]).arg(&dir).stdout(Stdio::null()).stderr(Stdio::piped());
        let starting = starting.spawn().unwrap();
        let pid = starting.id().unwrap();
        let family = until("a server starts", async || Some(descendants(pid)).filter(|f| !f.is_empty())).await;
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
        let output = starting.wait_with_output().await.unwrap();
        assert_eq!(code(&output), 0, "{signal:?}: {output:?}");
        until_gone(&format!("{signal:?}"), &dir, &family).await;
    }
    // What it left can be used.
    Dev::start_in(&dir).await;
}

/// Each verb prints its help; `docs/cli.md`, which is made from it, has a heading for each.
#[tokio::test]
async fn every_verb_has_its_help() {
    let mut verbs: Vec<Vec<String>> = vec![vec![]];
    let mut seen = BTreeSet::new();
    while let Some(verb) = verbs.pop() {
        let output = daybook().args(&verb).arg("--help").output().await.unwrap();
        assert_eq!((code(&output), text(&output.stderr)), (0, ""), "{verb:?}");
        let help = text(&output.stdout);
        let name = [&["daybook".to_owned()], &verb[..]].concat().join(" ");
        assert!(help.contains(&format!("\n\nUsage: {name} ")), "{help}");
        let within = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
        for line in within.lines() {
            let inner = line.trim().split(' ').next().unwrap();
            if inner != "help" {
                verbs.push([&verb[..], &[inner.to_owned()]].concat());
            }
        }
        seen.insert(name);
    }
    assert!(seen.remove("daybook"));
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md")).unwrap();
    let headings = document.lines().filter(|line| line.starts_with("##"));
    let headings = headings.filter_map(|line| Some(line.split_once('`')?.1.trim_end_matches('`').to_owned()));
    assert_eq!(seen, headings.collect());
}
