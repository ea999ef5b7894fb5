//! Two domains on one log: the orders, and the library of `examples/loans`. Each has its own projections, follow-ups and
//! timers, and neither reads the other's events.

use crate::binary::until;
use crate::harness::{Serving, append_as, database, daybook_on, order_of, run, start_nats};
use dev::provider;
use engine::{Domain, Projection};
use loans::books_out::{self, BookOut};
use loans::services::{AddBook, GiveBack, Lend, Queue};
use loans::{LOANS, Loans, ReadModel};
use order_services::decide::OrderDecider;
use order_services::effects::Effects;
use order_services::policy::{LONGEST_WAIT, Timeouts};
use order_services::verbs::{self, Place, Receive};
use order_services::{notifier, verify};
use order_views::{CATEGORIES, Orders};
use orders::id::{OrderId, Sku};
use runtime::client::{Client, ClientError};
use runtime::commands::Verb;
use runtime::nats::Nats;
use runtime::process::{Context, Process, Urls, jetstream};
use runtime::replay::{Mode, replay};
use runtime::sender::Limits;
use runtime::wire::Reply;
use servers::Nats as NatsServer;
use sqlx::query_scalar;
use std::time::Duration;
use store::connect::Role;
use store::{Category, ExpectedVersion, NewEvent, StreamAppend, StreamId, checkpoint, clock, schema};
use uuid::Uuid;

/// How long a command is sent again, and a projection waited for.
const PATIENCE: Duration = Duration::from_secs(60);

const BOOK: Category = Loans::CATEGORIES[0];
const LOAN: Category = Loans::CATEGORIES[1];
const BOTH: &[Category] = &[CATEGORIES[0], CATEGORIES[1], CATEGORIES[2], CATEGORIES[3], BOOK, LOAN];

/// Servers whose database has the schema of both domains.
async fn servers() -> (Urls, NatsServer) {
    let (database_url, nats) = tokio::join!(database(), start_nats());
    schema::migrate(&database_url, &[&LOANS]).await.unwrap();
    (Urls { database_url, nats_url: nats.url() }, nats)
}

/// A librarian, and what the library's story needs of a process.
struct Library<'a> {
    context: &'a Context,
    client: Client,
}

impl<'a> Library<'a> {
    fn of(context: &'a Context) -> Self {
        Self { context, client: Client::new(context.client.clone(), "librarian") }
    }

    async fn ask<V: Verb + Sync>(&self, verb: V) -> Result<Reply, ClientError> {
        self.client.command(verb, PATIENCE).await
    }

    async fn add(&self) -> Uuid {
        let book_id = Uuid::now_v7();
        self.ask(AddBook { book_id, title: "Emma".into() }).await.unwrap();
        book_id
    }

    async fn try_lend(&self, book_id: Uuid, reader: &str) -> Result<Uuid, String> {
        let loan_id = Uuid::now_v7();
        match self.ask(Lend { loan_id, book_id, reader: reader.into(), days: 14 }).await {
            Ok(_) => Ok(loan_id),
            Err(ClientError::Refused(error)) => Err(error.detail.unwrap()["reason"].as_str().unwrap().to_owned()),
            Err(other) => panic!("{other}"),
        }
    }

    async fn lend(&self, book_id: Uuid, reader: &str) -> Uuid {
        self.try_lend(book_id, reader).await.unwrap()
    }

    async fn is_in_log(&self, event_type: &str) {
        until(event_type, async || {
            let events = self.context.log.read_all(0, 10_000).await.unwrap();
            events.iter().any(|event| &*event.event_type == event_type).then_some(())
        })
        .await;
    }

    async fn out(&self) -> Vec<BookOut> {
        books_out::list(&self.context.read).await.unwrap()
    }

    /// Waits until the library's projections are at the log's end, and has the log checked.
    async fn assert_verified(&self) {
        let js = jetstream(&self.context.client);
        let report = runtime::verify::verify::<Loans>(&self.context.read, &js, PATIENCE).await.unwrap();
        assert!(report.agrees() && report.events > 0, "{report}");
    }
}

/// Appends an event of a type that no build knows.
async fn append_unknown(context: &Context, category: Category, event_type: &'static str) {
    let events = vec![NewEvent { event_type: event_type.into(), schema_version: 1, payload: "{}".into() }];
    let stream = StreamId { category, id: Uuid::now_v7() };
    let streams = vec![StreamAppend { stream, expected: ExpectedVersion::NoStream, events }];
    context.appender.append(append_as(Uuid::now_v7(), streams)).await.unwrap();
}

/// Waits until each of the domain's projections is at the log's end.
async fn goes_on<D: Domain>(context: &Context) {
    let head = context.log.head().await.unwrap();
    until("it goes on", async || {
        let live = checkpoint::live(&context.read).await.unwrap();
        let ours = live.iter().filter(|(name, _)| Projection::<D>::from_name(name).is_some());
        let there = ours.filter(|(_, position)| *position >= head).count();
        (there == Projection::<D>::all().count()).then_some(())
    })
    .await;
}

/// Waits until each of the domain's projections says that it does not know this type, and that no other projection does.
async fn stops<D: Domain>(context: &Context, event_type: &str) {
    let mut all: Vec<&str> = Projection::<D>::all().map(Projection::name).collect();
    all.sort_unstable();
    until("it stops", async || {
        let stopped = "SELECT projection FROM daybook.checkpoints WHERE live AND strpos(last_error, $1) > 0 ORDER BY 1";
        let stopped = query_scalar::<_, String>(stopped).bind(event_type).fetch_all(&context.read).await.unwrap();
        (stopped == all).then_some(())
    })
    .await;
}

/// Starts the orders' services in the process of `context`.
async fn start_orders(context: &Context, process: &mut Process) {
    let timeouts = Timeouts::default();
    let executor = context.executor::<OrderDecider>().await.unwrap();
    process.watch(&executor);
    process.serve(verbs::start(context.door(), executor.clone()).await.unwrap());
    process.serve(notifier::start(context.door(), context.project.clone()).await.unwrap());
    process.serve(provider::start(context.door(), context.project.clone(), timeouts.answer).await.unwrap());
    process.project::<Orders>(context).await.unwrap();
    let effects = Effects::new(executor, context.client.clone(), timeouts);
    process.send(context, effects, Limits { longest_wait: LONGEST_WAIT, clock_tolerance: clock::TOLERANCE });
}

#[tokio::test]
async fn one_process_runs_two_domains_on_one_log() {
    let (urls, _nats) = servers().await;
    let roles = [Role::Append, Role::Project, Role::Read];
    let projections = Projection::<Orders>::all().count() + Projection::<Loans>::all().count();
    let nats = Nats::at(&urls.nats_url).unwrap();
    let connected = Context::connect(&urls.database_url, &roles, nats, BOTH, clock::TOLERANCE, projections).await;
    let context = connected.unwrap();
    let mut process = Process::start(&context);
    process.relay(&context).await.unwrap();
    start_orders(&context, &mut process).await;
    loans::start(&context, &mut process).await.unwrap();
    let library = Library::of(&context);

    // Orders and loans come into the log by turns.
    let book = library.add().await;
    library.ask(Receive { sku: Sku::new("mug").unwrap(), quantity: 10 }).await.unwrap();
    let loan = library.lend(book, "Ann").await;
    let order_id = OrderId(Uuid::now_v7());
    library.ask(Place { order_id, order: order_of(&[("mug", 1, 1)]) }).await.unwrap();
    assert_eq!(library.try_lend(book, "Ben").await, Err("book_is_lent".to_owned()));

    // A book that is given back is kept for the reader who waits.
    library.ask(Queue { book_id: book, reader: "Ben".into() }).await.unwrap();
    library.ask(GiveBack { loan_id: loan }).await.unwrap();
    library.is_in_log("BookOffered").await;
    assert_eq!(library.try_lend(book, "Cal").await, Err("book_is_kept".to_owned()));
    let second = library.lend(book, "Ben").await;
    library.is_in_log("PaymentAuthorised").await;
    library.is_in_log("StockReserved").await;

    // Both come to the log's end, with the rows of their own domain alone.
    library.assert_verified().await;
    let js = jetstream(&context.client);
    let report = verify::verify(&context.read, Some(&js), PATIENCE).await.unwrap();
    assert!(report.agrees(), "{report}");
    let out: Vec<_> = library.out().await.into_iter().map(|row| (row.loan_id, row.book_id, row.reader)).collect();
    assert_eq!(out, [(second, book, "Ben".to_owned())]);
    let columns = async |sql: &'static str| query_scalar::<_, String>(sql).fetch_all(&context.read).await.unwrap();
    let domains =
        "SELECT DISTINCT domain FROM daybook.follow_ups UNION SELECT DISTINCT domain FROM daybook.timers ORDER BY 1";
    assert_eq!(columns(domains).await, ["loans", "orders"]);
    let returned = "SELECT DISTINCT domain FROM daybook.follow_ups WHERE reaction = 'return book'";
    assert_eq!(columns(returned).await, ["loans"]);
    assert!(columns("SELECT key FROM daybook.event_index WHERE key IN ('book', 'loan')").await.is_empty());
    let foreign = "SELECT event_type FROM daybook.order_history WHERE event_type ~ '^(Book|Loan|Reader)'";
    assert!(columns(foreign).await.is_empty());

    // The read model, replayed beside the live one, is the same.
    let before = library.out().await;
    let replayed = replay(&context.log, &context.project, ReadModel::BooksOut, Mode::Switch, |_, _| {}).await.unwrap();
    assert!(replayed.switched && replayed.compared.is_some_and(|compared| compared.differences() == 0));
    assert_eq!(library.out().await, before);

    // A reader is reminded of a loan that is overdue, and not of one that has ended.
    run(&urls.database_url, "UPDATE daybook.timers SET fires_at = now() WHERE domain = 'loans'").await;
    let reminded = until("a reminder", async || {
        let reminded = query_scalar::<_, Uuid>("SELECT loan_id FROM daybook.reminders").fetch_all(&context.read).await;
        Some(reminded.unwrap()).filter(|reminded| !reminded.is_empty())
    })
    .await;
    assert_eq!(reminded, [second]);

    // An event of the library that nobody knows stops the library's projections alone.
    append_unknown(&context, LOAN, "LoanForgotten").await;
    library.ask(Receive { sku: Sku::new("mug").unwrap(), quantity: 1 }).await.unwrap();
    goes_on::<Orders>(&context).await;
    stops::<Loans>(&context, "LoanForgotten").await;
    process.stop().await;
}

/// `daybook serve` has never heard of a library.
#[tokio::test]
async fn two_processes_run_a_domain_each_on_one_log() {
    let (urls, _nats) = servers().await;
    let context = loans::connect(&urls.database_url, &urls.nats_url).await.unwrap();
    let mut process = Process::start(&context);
    loans::start(&context, &mut process).await.unwrap();
    let library = Library::of(&context);
    let book = library.add().await;
    let loan = library.lend(book, "Ann").await;

    // It starts on a log that holds loans, and publishes them.
    let serving = Serving::start(&urls).await;
    library.ask(Receive { sku: Sku::new("mug").unwrap(), quantity: 10 }).await.unwrap();
    library.ask(GiveBack { loan_id: loan }).await.unwrap();
    library.is_in_log("BookReturned").await;
    library.assert_verified().await;
    assert!(library.out().await.is_empty());
    let verified = daybook_on(&urls).args(["verify", "--wait", "60"]).output().await.unwrap();
    assert!(verified.status.success(), "{verified:?}");
    // The event index has the orders' events alone: a search through all domains reads the log.
    let loan = loan.to_string();
    for arguments in [&["events", "read"][..], &["events", "read", "--correlation", &loan]] {
        let read = daybook_on(&urls).args(arguments).output().await.unwrap();
        assert!(String::from_utf8(read.stdout).unwrap().contains("LoanBegun"), "{arguments:?}");
    }

    // A newer build has given the orders a category that nobody here knows. It stops the orders' projections alone.
    run(&urls.database_url, "INSERT INTO daybook.categories (id, name, domain) VALUES (9, 'cart', 'orders')").await;
    append_unknown(&context, Category { id: 9, name: "cart", domain: "orders" }, "CartFilled").await;
    let second = library.lend(book, "Ben").await;
    goes_on::<Loans>(&context).await;
    assert_eq!(library.out().await.iter().map(|row| row.loan_id).collect::<Vec<_>>(), [second]);
    stops::<Orders>(&context, "CartFilled").await;
    serving.kill().await;
    process.stop().await;
}
