//! What every story needs: servers of its own, a system to drive step by step, and orders to put into it.

use crate::binary::until;
use dev::provider;
use futures_util::future::join_all;
use order_services::effects::Effects;
use order_services::notifier;
use order_services::policy::LONGEST_WAIT;
use order_services::policy::Timeouts;
use order_services::process::connect_to;
use order_services::verify::{Report, verify};
use order_services::{Envelope, ExecuteError, Executor};
use order_views::Orders;
use order_views::Projection;
use order_views::{CATEGORIES, encode, stream as stream_of};
use orders::id::{AddressId, CustomerId, OrderId, SellerId, ShipmentId, Sku};
use orders::money::Amount;
use orders::order::{PaymentMethod, PlaceLine, PlaceOrder, PlacePayment, Rounding, SellerShipping};
use orders::{Aggregate, Command, order, shipment, stock};
use runtime::api::Service;
use runtime::executor::Outcome as Executed;
use runtime::feed::Feed;
use runtime::process::Context;
use runtime::process::Urls;
use runtime::process::jetstream;
use runtime::projector::Projector;
use runtime::relay::Relay;
use runtime::sender::{Limits, Sender};
use runtime::step::{Outcome, Step};
use runtime::sweeper::Sweeper;
use rustix::process::{Pid, Signal, kill_process};
use servers::{Binaries, Configuration, Nats, NatsOptions, Postgres, PostgresOptions, Servers, ServersOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, query_scalar};
use std::fs::{self, File};
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;
use store::connect::{self, Role};
use store::{
    Append, Appender, ExpectedVersion, Fingerprint, Loader, Log, Metadata, NewEvent, Origin, Position, StreamAppend,
    StreamId, checkpoint,
};
use tokio::sync::{Notify, OnceCell, watch};
use uuid::Uuid;

/// The servers that a test run shares: one Postgres, with a migrated database to copy.
struct Shared {
    servers: Servers,
    binaries: Binaries,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);
const TEMPLATE: &str = "template_daybook";

async fn shared() -> &'static Shared {
    SHARED
        .get_or_init(|| async {
            let quiet = |_: &str| {};
            let servers = Servers::start(ServersOptions::default(), &quiet).await.unwrap();
            run(&servers.postgres.url("postgres"), &format!("CREATE DATABASE {TEMPLATE}")).await;
            migrate(&servers.postgres.url(TEMPLATE)).await;
            Shared { servers, binaries: Binaries::locate(&quiet).await.unwrap() }
        })
        .await
}

/// Gives an empty database its schema.
pub(crate) async fn migrate(url: &str) {
    store::schema::migrate(url, &cli::migrate::parts()).await.unwrap();
}

/// Runs SQL as the superuser.
pub(crate) async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The URL of a new, migrated database.
pub(crate) async fn database() -> String {
    copy_of(TEMPLATE).await
}

/// The URL of a new database without a schema.
pub(crate) async fn empty_database() -> String {
    copy_of("template1").await
}

async fn copy_of(template: &str) -> String {
    let shared = shared().await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
    run(&shared.servers.postgres.url("postgres"), &create).await;
    shared.servers.postgres.url(&name)
}

/// A folder of this test's own, below the shared one, which is removed when the run is over.
pub(crate) async fn folder(name: &str) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    shared().await.servers.dir().join(format!("{name}-{number}"))
}

pub(crate) async fn start_nats() -> Nats {
    if is_secured() { secured_nats().await } else { start_nats_with(None).await }
}

pub(crate) async fn start_nats_with(configuration: Option<Configuration>) -> Nats {
    start_nats_in(folder("nats").await, configuration).await
}

pub(crate) async fn start_nats_in(store_dir: PathBuf, configuration: Option<Configuration>) -> Nats {
    let options = NatsOptions { store_dir, port: None, configuration };
    Nats::start(&shared().await.binaries, options, &|_: &str| {}).await.unwrap()
}

/// The configuration of NATS that Daybook is shipped with.
pub(crate) const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/nats/daybook.conf");

/// The users of the shipped configuration.
pub(crate) const USERS: [&str; 9] =
    ["client", "operator", "commands", "queries", "relay", "projectors", "sender", "provider", "notifier"];

/// A user's password in tests.
pub(crate) fn password(user: &str) -> String {
    format!("secret_of_{user}")
}

/// A file's configuration with a password for each user of the shipped one.
pub(crate) fn configured_by(file: PathBuf) -> Configuration {
    let variable = |user: &str| (format!("DAYBOOK_{}_PASSWORD", user.to_uppercase()), password(user));
    Configuration { file, environment: USERS.map(variable).into(), login: None }
}

/// A nats-server on the configuration that Daybook is shipped with.
pub(crate) async fn shipped_nats() -> Nats {
    start_nats_with(Some(configured_by(SHIPPED.into()))).await
}

/// The NATS of a role's user, as the shipped configuration has it.
pub(crate) fn nats_as(port: u16, user: &str) -> runtime::nats::Nats {
    let mut nats = runtime::nats::Nats::at(&format!("nats://{user}:{}@127.0.0.1:{port}", password(user))).unwrap();
    nats.process = nats.process.with_inbox_prefix(format!("_INBOX_{user}"));
    nats.relay = nats.process.clone();
    nats
}

/// Whether all stories run under the shipped configuration, each part as its own user: `DAYBOOK_TEST_NATS=secured`.
fn is_secured() -> bool {
    std::env::var("DAYBOOK_TEST_NATS").is_ok_and(|nats| nats == "secured")
}

/// The shipped configuration, and one user more: the test, which may do everything.
async fn secured_nats() -> Nats {
    let shipped = fs::read_to_string(SHIPPED).unwrap();
    let users = "    users: [\n";
    assert_eq!(shipped.matches(users).count(), 1, "the test's own user is added there");
    let shipped = shipped.replace(users, &format!("{users}{{ user: test, password: {} }}\n", password("test")));
    // The test asks as well.
    let shipped = shipped.replace("\"_INBOX_client.>\"", "\"_INBOX_client.>\", \"_INBOX.>\"");
    let shipped = shipped.replace("\"_INBOX_sender.>\",", "\"_INBOX_sender.>\", \"_INBOX.>\",");
    let file = folder("nats").await.with_extension("conf");
    fs::write(&file, shipped).unwrap();
    let configuration = Configuration { login: Some(("test".into(), password("test"))), ..configured_by(file) };
    start_nats_with(Some(configuration)).await
}

/// A connection as one of the users, if they are told apart; else `parts`' own.
async fn client_as(nats: &Nats, parts: &Context, user: &str) -> async_nats::Client {
    if !is_secured() {
        return parts.client.clone();
    }
    nats_as(nats.port(), user).process.connect(user).await.unwrap()
}

/// A Postgres of the test's own, to be killed.
pub(crate) async fn start_postgres() -> Postgres {
    start_postgres_on(folder("postgres").await).await
}

/// A durable Postgres on this data folder, which is made if there is none.
pub(crate) async fn start_postgres_on(data_dir: PathBuf) -> Postgres {
    let options = PostgresOptions { data_dir, durable: true };
    Postgres::start(&shared().await.binaries, options, &|_: &str| {}).await.unwrap()
}

/// The servers' programs that the tests run.
pub(crate) async fn binaries() -> Binaries {
    shared().await.binaries.clone()
}

/// A program that belongs to the PostgreSQL which the tests run.
pub(crate) async fn postgres_program(name: &str) -> PathBuf {
    shared().await.binaries.initdb.with_file_name(name)
}

/// A system whose loops the test drives. Provider and notifier answer on their own, as others would.
pub(crate) struct System {
    pub(crate) urls: Urls,
    pub(crate) nats: Nats,
    pub(crate) parts: Context,
    pub(crate) executor: Executor,
    pub(crate) relay: Relay,
    pub(crate) feed: Feed<Orders>,
    pub(crate) projectors: Vec<Projector<Orders>>,
    pub(crate) sender: Sender<Effects>,
    pub(crate) sweeper: Sweeper<Orders>,
    pub(crate) outside: Vec<Service>,
    /// Kept: the relay waits on its other end.
    _hint: watch::Sender<i64>,
}

impl System {
    pub(crate) async fn start() -> Self {
        Self::start_at(Timeouts::default()).await
    }

    pub(crate) async fn start_at(timeouts: Timeouts) -> Self {
        let (database_url, nats) = tokio::join!(database(), start_nats());
        Self::on_at(Urls { database_url, nats_url: nats.url() }, nats, timeouts).await
    }

    pub(crate) async fn on(urls: Urls, nats: Nats) -> Self {
        Self::on_at(urls, nats, Timeouts::default()).await
    }

    async fn on_at(urls: Urls, nats: Nats, timeouts: Timeouts) -> Self {
        let parts = connect_to(&urls).await.unwrap();
        let clients =
            ["relay", "projectors", "sender", "provider", "notifier"].map(|user| client_as(&nats, &parts, user));
        let [relaying, projecting, sending, provides, notifies] = &join_all(clients).await[..] else { unreachable!() };
        let executor = parts.executor().await.unwrap();
        let written = Arc::new(Notify::new());
        let (hint, hinted) = watch::channel(0);
        let relay = Relay::new(parts.log.clone(), parts.project.clone(), jetstream(relaying), hinted);
        let feed = Feed::new(parts.log.clone(), jetstream(projecting), furthest(&parts.read).await);
        let projector =
            |projection| Projector::new(parts.project.clone(), projection, feed.reader(), parts.owner, written.clone());
        let projectors = Projection::all().map(projector).collect();
        let sweeper = Sweeper::<Orders>::new(parts.project.clone(), written.clone());
        let sender = sender(parts.project.clone(), executor.clone(), sending.clone(), parts.owner, written, timeouts);
        let outside = vec![
            provider::start(provides, parts.project.clone(), timeouts.answer.mul_f64(1.5)).await.unwrap(),
            notifier::start(notifies, parts.project.clone()).await.unwrap(),
        ];
        for client in [provides, notifies, &parts.client] {
            client.flush().await.unwrap();
        }
        Self { urls, nats, parts, executor, relay, feed, projectors, sender, sweeper, outside, _hint: hint }
    }

    /// The superuser's connections to the test's database, for what no role of Daybook's may do.
    pub(crate) async fn superuser(&self) -> PgPool {
        PgPool::connect(&self.urls.database_url).await.unwrap()
    }

    pub(crate) async fn execute(&self, command: Command) -> Result<Executed, ExecuteError> {
        self.executor.execute(&envelope(Uuid::now_v7(), command)).await
    }

    /// Publishes all that the log has.
    pub(crate) async fn relay(&mut self) {
        while self.relay.step().await.unwrap() != Outcome::Idle {}
    }

    /// Brings every projection to the end of the log, through JetStream.
    pub(crate) async fn project(&mut self) {
        self.relay().await;
        let head = self.parts.log.head().await.unwrap();
        while self.feed.position() < head {
            self.feed.step().await.unwrap();
        }
        for projector in &mut self.projectors {
            while projector.step().await.unwrap() != Outcome::Idle {}
        }
    }

    /// Makes follow-ups of all timers that are due, and returns how many they were.
    pub(crate) async fn sweep(&mut self) -> usize {
        let mut fired = 0;
        while let Outcome::Worked(n) = self.sweeper.step().await.unwrap() {
            fired += n;
        }
        fired
    }

    /// Does everything that follows, until nothing more does.
    pub(crate) async fn settle(&mut self) {
        loop {
            self.project().await;
            let mut sent = 0;
            while let Outcome::Worked(n) = self.sender.step().await.unwrap() {
                sent += n;
            }
            if sent == 0 {
                return;
            }
        }
    }

    pub(crate) async fn receive(&self, sku: &str, quantity: u32) {
        receive(&self.executor, sku, quantity).await;
    }

    pub(crate) async fn place(&self, order: PlaceOrder) -> OrderId {
        let id = OrderId(Uuid::now_v7());
        self.execute(Command::Order { id, command: order::Command::Place(order) }).await.unwrap();
        id
    }

    /// Hands all shipments of an order to the carrier, and has them delivered.
    pub(crate) async fn ship(&mut self, order: OrderId) {
        self.ship_without_settling(order).await;
        self.settle().await;
    }

    /// The same, and nothing that follows.
    pub(crate) async fn ship_without_settling(&self, order: OrderId) {
        for id in self.shipments(order).await {
            self.execute(self.dispatch(id).await).await.unwrap();
            let deliver = shipment::Command::ConfirmDelivery;
            self.execute(Command::Shipment { id, command: deliver }).await.unwrap();
        }
    }

    /// Of what the shipment is by its last plan.
    pub(crate) async fn dispatch(&self, id: ShipmentId) -> Command {
        let events = self.parts.log.read_all(0, 10_000).await.unwrap();
        let is_plan = |e: &&store::RecordedEvent| e.stream.id == id.0 && e.event_type.ends_with("lanned");
        let revision = events.iter().filter(is_plan).count() as u32;
        let command = shipment::Command::Dispatch { revision, tracking: "T1".into() };
        Command::Shipment { id, command }
    }

    pub(crate) async fn shipments(&self, order: OrderId) -> Vec<ShipmentId> {
        let events = self.parts.log.read_all(0, 10_000).await.unwrap();
        let planned = events.iter().filter(|e| e.event_type == "ShipmentPlanned");
        planned.filter(|e| e.metadata.correlation_id == order.0).map(|e| ShipmentId(e.stream.id)).collect()
    }

    /// The status of an order in the read model, with the reason if there is one.
    pub(crate) async fn status(&self, order: OrderId) -> String {
        let row =
            order_views::order_summary::get(&self.parts.read, order.0).await.unwrap().expect("the order has a row");
        match row.reason {
            Some(reason) => format!("{}: {reason}", row.status),
            None => row.status,
        }
    }

    /// What is on hand of a SKU, and reserved of that.
    pub(crate) async fn stock_of(&self, sku: &str) -> (i64, i64) {
        let level = order_views::stock_level::get(&self.parts.read, sku).await.unwrap().expect("the sku has a row");
        (level.on_hand, level.reserved)
    }

    /// What customers were told, in the order they were told it.
    pub(crate) async fn notices(&self) -> Vec<String> {
        let messages = query_scalar::<_, String>("SELECT message::text FROM daybook.notices ORDER BY received_at, id");
        messages.fetch_all(&self.parts.read).await.unwrap()
    }

    /// What the provider's own books say of an order in EUR: what it holds, has captured and has given back.
    pub(crate) async fn moved(&self, order: OrderId) -> (i64, i64, i64) {
        let books = provider::moved(&self.parts.read, &[order.0]).await.unwrap();
        assert!(books.len() <= 1 && books.iter().all(|m| m.currency == "EUR"), "{books:?}");
        books.first().map_or((0, 0, 0), |m| (m.held, m.captured, m.refunded))
    }

    /// Lets so many seconds pass, to the timers.
    pub(crate) async fn pass(&self, seconds: i64) {
        let pass = "UPDATE daybook.timers SET fires_at = fires_at - make_interval(secs => $1)";
        sqlx::query(pass).bind(seconds as f64).execute(&self.superuser().await).await.unwrap();
    }

    /// The types of the events that belong to an order, in order of position.
    pub(crate) async fn events_of(&self, order: OrderId) -> Vec<String> {
        let events = self.parts.log.read_all(0, 10_000).await.unwrap();
        events.into_iter().filter(|e| e.metadata.correlation_id == order.0).map(|e| e.event_type.to_string()).collect()
    }

    pub(crate) async fn verify(&self) -> Report {
        verify(&self.parts.read, Some(&jetstream(&self.parts.client)), Duration::ZERO).await.unwrap()
    }

    pub(crate) async fn assert_verified(&self) {
        let report = self.verify().await;
        assert!(report.agrees(), "{report}");
    }
}

/// How far the projection has come that has come furthest.
pub(crate) async fn furthest(read: &PgPool) -> Position {
    checkpoint::live(read).await.unwrap().into_iter().map(|(_, position)| position).max().unwrap_or(0)
}

/// What carries out the follow-ups of orders.
pub(crate) fn sender(
    pool: PgPool,
    executor: Executor,
    client: async_nats::Client,
    owner: Uuid,
    written: Arc<Notify>,
    timeouts: Timeouts,
) -> Sender<Effects> {
    let Timeouts { longest_wait, clock_tolerance, .. } = timeouts;
    let limits = Limits { longest_wait: longest_wait.min(LONGEST_WAIT), clock_tolerance };
    let history = executor.history();
    Sender::new(pool, Effects::new(executor, client, timeouts), history, owner, written, limits)
}

/// What executes commands in another process: with an appender, a connection and a cache of its own.
pub(crate) fn executor(url: &str) -> Executor {
    let log = Log::new(connect::pool(url, Role::Read, 4).unwrap(), CATEGORIES);
    let appender = Appender::start(url).unwrap();
    Executor::new(log, Loader::start(url, 0, appender.history()).unwrap(), appender)
}

/// The stream of that number.
pub(crate) fn stream(n: u128) -> StreamId {
    stream_of::<orders::order::Order>(id(n))
}

pub(crate) fn event(payload: &str) -> NewEvent {
    NewEvent { event_type: "Tested".into(), schema_version: 1, payload: payload.into() }
}

pub(crate) fn to(stream: StreamId, expected: ExpectedVersion, events: usize) -> StreamAppend {
    StreamAppend { stream, expected, events: vec![event(r#"{"a": 1}"#); events] }
}

pub(crate) fn append(streams: Vec<StreamAppend>) -> Append {
    append_as(Uuid::now_v7(), streams)
}

pub(crate) fn append_as(command_id: Uuid, streams: Vec<StreamAppend>) -> Append {
    let metadata = Metadata {
        correlation_id: id(1),
        causation_id: None,
        command_id,
        fingerprint: Fingerprint([7; 16]),
        actor: "test".into(),
        origin: Origin::Live,
        occurred_at: chrono::Utc::now(),
        traceparent: None,
    };
    Append { metadata, streams }
}

/// Returns once so many appenders wait for the log. They are let in in the order in which they came.
pub(crate) async fn appenders_waiting(url: &str, appenders: i64) {
    let mut watcher = PgConnection::connect(url).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while query_scalar::<_, i64>(waiting).fetch_one(&mut watcher).await.unwrap() < appenders {
        tokio::task::yield_now().await;
    }
}

/// Keeps every appender of a database waiting until it is opened.
pub(crate) struct Gate {
    holder: PgConnection,
    url: String,
}

impl Gate {
    pub(crate) async fn close(url: &str) -> Self {
        let mut holder = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT FROM daybook.log FOR UPDATE").execute(&mut holder).await.unwrap();
        Self { holder, url: url.to_owned() }
    }

    /// Returns once so many appenders stand before it.
    pub(crate) async fn waiting(&self, appenders: i64) {
        appenders_waiting(&self.url, appenders).await;
    }

    pub(crate) async fn open(mut self) {
        sqlx::raw_sql("COMMIT").execute(&mut self.holder).await.unwrap();
    }
}

pub(crate) fn receipt(sku: &str, quantity: u32) -> Envelope {
    let command = stock::Command::Receive { sku: Sku::new(sku).unwrap(), quantity };
    envelope(Uuid::now_v7(), Command::Stock(command))
}

pub(crate) fn reserve(order: OrderId, sku: &str, quantity: u32) -> Envelope {
    reserve_all(order, &[(sku, quantity)])
}

pub(crate) fn reserve_all(order: OrderId, wanted: &[(&str, u32)]) -> Envelope {
    let command = stock::Command::Reserve { order_id: order, lines: stock_lines(wanted), hold_seconds: 60, edit: None };
    envelope(Uuid::now_v7(), Command::Stock(command))
}

pub(crate) fn release(order: OrderId, sku: &str, quantity: u32) -> Envelope {
    let command = stock::Command::Release { order_id: order, lines: stock_lines(&[(sku, quantity)]) };
    envelope(Uuid::now_v7(), Command::Stock(command))
}

fn stock_lines(wanted: &[(&str, u32)]) -> Vec<order::StockLine> {
    let line = |(line, (sku, quantity)): (_, &(&str, _))| order::StockLine {
        line,
        sku: Sku::new(*sku).unwrap(),
        quantity: *quantity,
    };
    (1..).zip(wanted).map(line).collect()
}

pub(crate) fn new_order() -> OrderId {
    OrderId(Uuid::now_v7())
}

pub(crate) fn envelope(command_id: Uuid, command: Command) -> Envelope {
    Envelope {
        command_id,
        command,
        actor: "test".into(),
        correlation_id: None,
        causation_id: None,
        occurred_at: chrono::Utc::now(),
        traceparent: None,
    }
}

pub(crate) async fn receive(executor: &Executor, sku: &str, quantity: u32) {
    executor.execute(&receipt(sku, quantity)).await.unwrap();
}

/// The same id for the same number, in every run.
pub(crate) fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// An order of pieces of SKUs, each from the seller of that number, at 10.00 EUR a piece, paid by one card.
pub(crate) fn order_of(lines: &[(&str, u32, u128)]) -> PlaceOrder {
    let line = |&(sku, quantity, seller): &(&str, u32, u128)| PlaceLine {
        sku: Sku::new(sku).unwrap(),
        seller_id: SellerId(id(seller)),
        quantity,
        unit_price: Amount(1000),
        discount: Amount::ZERO,
        tax: Amount::ZERO,
    };
    let lines: Vec<PlaceLine> = lines.iter().map(line).collect();
    let goods: i64 = lines.iter().map(|l| 1000 * i64::from(l.quantity)).sum();
    let shipping = vec![SellerShipping { seller_id: lines[0].seller_id, amount: Amount(250) }];
    PlaceOrder {
        customer_id: CustomerId(id(0xC)),
        currency: "EUR".parse().unwrap(),
        shipping_address_id: AddressId(id(0xA)),
        billing_address_id: None,
        shipping,
        payments: vec![PlacePayment { method: card("tok_approve_card"), amount: Amount(goods + 250) }],
        lines,
        rounding: Rounding::default(),
        backorder: false,
        approval_within_seconds: None,
    }
}

pub(crate) fn card(token: &str) -> PaymentMethod {
    PaymentMethod { kind: "credit_card".into(), token: token.into() }
}

/// The daybook binary, to be run; it is killed when its handle is dropped.
pub(crate) fn daybook() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_daybook-under-test"));
    command.kill_on_drop(true).env_remove("DATABASE_URL").env_remove("NATS_URL").env("NO_COLOR", "1");
    command.env_remove("DAYBOOK_DEV").stdin(std::process::Stdio::null()).arg0("daybook");
    command
}

/// The daybook binary, to be run on these servers.
pub(crate) fn daybook_on(urls: &Urls) -> tokio::process::Command {
    let mut command = daybook();
    command.env("DATABASE_URL", &urls.database_url).env("NATS_URL", &urls.nats_url);
    command
}

/// A `daybook serve` of all services, in a process of its own.
pub(crate) struct Serving {
    child: tokio::process::Child,
    messages: PathBuf,
}

impl Serving {
    /// Returns once it is ready.
    pub(crate) async fn start(urls: &Urls) -> Self {
        let messages = folder("serve").await.with_extension("messages");
        let child = daybook_on(urls).arg("serve").stderr(File::create(&messages).unwrap()).spawn().unwrap();
        let serving = Self { child, messages };
        until("it serves", async || serving.messages().contains("ready").then_some(())).await;
        serving
    }

    /// What it has told so far.
    pub(crate) fn messages(&self) -> String {
        fs::read_to_string(&self.messages).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().unwrap() as i32).unwrap(), signal).unwrap();
    }

    /// Kills it, and returns when it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Ends it in order.
    pub(crate) async fn end(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().await.unwrap()
    }
}

/// Appends the events of many orders at once: each is placed, and held and released `holds` times. Nothing follows from
/// them if they are of `Origin::Import`.
pub(crate) async fn append_orders(appender: &Appender, orders: usize, holds: usize, origin: Origin) -> Vec<OrderId> {
    let ids: Vec<OrderId> = (0..orders).map(|_| new_order()).collect();
    let hold = order::Command::PlaceHold { reason: order::HoldReason::Fraud };
    let release = order::Command::ReleaseHold { reason: order::HoldReason::Fraud };
    let mut commands = vec![order::Command::Place(order_of(&[("mug", 1, 1)]))];
    commands.extend((0..holds).flat_map(|_| [hold.clone(), release.clone()]));
    let appends = ids.iter().map(|order| {
        let (mut state, mut events) = (order::Order::default(), Vec::new());
        for command in &commands {
            for event in state.decide(*order, command).unwrap() {
                state.evolve(&event);
                events.push(encode(&order::Order::event(order.0, event)));
            }
        }
        let stream = stream_of::<order::Order>(order.0);
        let mut append = append(vec![StreamAppend { stream, expected: ExpectedVersion::NoStream, events }]);
        (append.metadata.correlation_id, append.metadata.origin) = (order.0, origin);
        appender.append(append)
    });
    for appended in futures_util::future::join_all(appends).await {
        appended.unwrap();
    }
    ids
}

/// Lets a future take so many turns, and no more.
pub(crate) async fn cut_off<T>(future: impl Future<Output = T>, mut turns: usize) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if turns == 0 {
            return Poll::Ready(None);
        }
        turns -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
