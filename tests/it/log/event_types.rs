//! What types of events a log holds, and what a build makes of one that it does not know: it does not start.

use crate::harness::{database, daybook_on, id, run, start_nats};
use chrono::Utc;
use order_services::policy::Timeouts;
use order_services::process::connect_to;
use order_views::CATEGORIES;
use order_views::Orders;
use runtime::process::StartError;
use runtime::process::Urls;
use runtime::readable::{Shown, Unreadable, check, check_within};
use sqlx::{PgPool, query_as};
use std::time::Duration;
use store::{
    Append, AppendError, Appender, Category, ExpectedVersion, Fingerprint, Metadata, NewEvent, Origin, StreamAppend,
    StreamId, connect,
};
use uuid::Uuid;

/// A log that another build has appended to, too.
struct Log {
    url: String,
    superuser: PgPool,
    appender: Appender,
}

impl Log {
    async fn new() -> Self {
        let url = database().await;
        let superuser = PgPool::connect(&url).await.unwrap();
        let appender = Appender::start(&url).unwrap();
        Self { url, superuser, appender }
    }

    /// Appends an event to a stream of its own.
    async fn write(&self, category: Category, event_type: &'static str, version: i16) {
        self.try_write(&[(category, event_type, version)], ExpectedVersion::NoStream).await.unwrap();
    }

    async fn try_write(
        &self,
        events: &[(Category, &'static str, i16)],
        expected: ExpectedVersion,
    ) -> Result<(), AppendError> {
        self.appender.append(append(Uuid::now_v7(), events, expected)).await.map(|_| ())
    }

    /// Registers a type without writing it: the stream that the append expects is not there.
    async fn register(&self, category: Category, event_type: &'static str, version: i16) {
        let refused = self.try_write(&[(category, event_type, version)], ExpectedVersion::Exact(7)).await;
        assert!(matches!(refused, Err(AppendError::VersionConflict { .. })), "{refused:?}");
    }

    async fn registered(&self) -> Vec<(i16, String, i16)> {
        let registered = "SELECT category, event_type, schema_version FROM daybook.event_types ORDER BY 1, 2, 3";
        query_as(registered).fetch_all(&self.superuser).await.unwrap()
    }

    /// Why this build does not start on it.
    async fn refusal(&self) -> Option<Unreadable> {
        let read = connect::pool(&self.url, connect::Role::Read, 1).unwrap();
        unreadable(check::<Orders>(&read).await.map_err(StartError::from))
    }
}

fn append(command_id: Uuid, events: &[(Category, &'static str, i16)], expected: ExpectedVersion) -> Append {
    let streams = events.iter().map(|&(category, event_type, schema_version)| StreamAppend {
        stream: StreamId { category, id: Uuid::now_v7() },
        expected,
        events: vec![NewEvent { event_type: event_type.into(), schema_version, payload: "{}".into() }],
    });
    let metadata = Metadata {
        correlation_id: id(1),
        causation_id: None,
        command_id,
        fingerprint: Fingerprint([7; 16]),
        actor: "test".into(),
        origin: Origin::Live,
        occurred_at: Utc::now(),
        traceparent: None,
    };
    Append { metadata, streams: streams.collect() }
}

fn unreadable<T>(started: Result<T, StartError>) -> Option<Unreadable> {
    match started {
        Ok(_) => None,
        Err(StartError::Unreadable(why)) => Some(why),
        Err(other) => panic!("{other}"),
    }
}

fn of(category: Category, event_type: &str, schema_version: i16) -> Shown {
    Shown { category: category.name.to_owned(), event_type: event_type.into(), schema_version }
}

const ORDER: Category = CATEGORIES[0];
const PAYMENT: Category = CATEGORIES[1];
/// Of another domain.
const CART: Category = Category { id: 9, name: "cart", domain: "carts" };

/// A type and a version that this build does not know, of its own domain.
#[tokio::test]
async fn a_log_that_holds_what_this_build_does_not_know_is_refused() {
    for (category, event_type, version, shown) in [
        (ORDER, "OrderTeleported", 1, "OrderTeleported of schema version 1 (order)"),
        (PAYMENT, "OrderPlaced", 1, "OrderPlaced of schema version 1 (payment)"),
        (ORDER, "OrderPlaced", i16::MAX, "OrderPlaced of schema version 32767 (order)"),
        (ORDER, "OrderPlaced", 0, "OrderPlaced of schema version 0 (order)"),
    ] {
        let log = Log::new().await;
        log.write(ORDER, "OrderPlaced", 1).await;
        log.write(PAYMENT, "PaymentVoided", 1).await;
        assert_eq!(log.refusal().await, None);
        log.write(category, event_type, version).await;
        log.write(category, event_type, version).await;
        let refusal = log.refusal().await.unwrap_or_else(|| panic!("{shown} is not refused"));
        assert_eq!(refusal, Unreadable::Held { event_type: of(category, event_type, version), first: 3 });
        assert_eq!(
            refusal.to_string(),
            format!(
                "the log holds {shown}, first at position 3, which this build does not know: run a build that knows it"
            )
        );
    }
}

/// A newer build has given the domain a category: its events are not another domain's.
#[tokio::test]
async fn a_category_that_the_domain_has_gained_since_is_refused() {
    let log = Log::new().await;
    run(&log.url, "INSERT INTO daybook.categories (id, name, domain) VALUES (9, 'cart', 'orders')").await;
    let gained = Category { domain: "orders", ..CART };
    log.write(gained, "CartFilled", 1).await;
    let held = Unreadable::Held { event_type: of(gained, "CartFilled", 1), first: 1 };
    assert_eq!(log.refusal().await, Some(held));
}

/// The verbs that have to read what is in the log say so at once, with exit code 3; the one that shows it goes on.
#[tokio::test]
async fn no_verb_that_has_to_read_the_log_starts_on_one_that_it_cannot_read() {
    let (log, nats) = (Log::new().await, start_nats().await);
    log.write(ORDER, "OrderTeleported", 1).await;
    let urls = Urls { database_url: log.url.clone(), nats_url: nats.url() };
    let event_type = of(ORDER, "OrderTeleported", 1);
    let refusal = unreadable(connect_to(&urls).await.map(|_| ()));
    assert_eq!(refusal, Some(Unreadable::Held { event_type, first: 1 }));
    for verb in ["serve", "serve --role relay", "replay stock_level", "verify"] {
        let output = daybook_on(&urls).args(verb.split(' ')).output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{verb}: {stderr}");
        let last = stderr.lines().last().unwrap();
        assert_eq!(last, format!("daybook: {}", refusal.as_ref().unwrap()), "{verb}");
        assert!(output.stdout.is_empty(), "{verb}");
    }
    let read = daybook_on(&urls).args(["events", "read"]).output().await.unwrap();
    assert_eq!(read.status.code(), Some(0));
    assert!(String::from_utf8(read.stdout).unwrap().contains("OrderTeleported"));
}

#[tokio::test]
async fn a_type_that_was_registered_and_never_written_is_no_hindrance() {
    let (log, nats) = (Log::new().await, start_nats().await);
    log.write(ORDER, "Tested", 1).await;
    run(&log.url, "DELETE FROM daybook.event_types").await;
    log.register(ORDER, "OrderTeleported", 1).await;
    assert_eq!(log.registered().await.len(), 1);
    let urls = Urls { database_url: log.url.clone(), nats_url: nats.url() };
    dev::process::start(&urls, Timeouts::default()).await.unwrap().stop().await;
    // Until it is.
    log.write(ORDER, "OrderTeleported", 1).await;
    let held = Unreadable::Held { event_type: of(ORDER, "OrderTeleported", 1), first: 2 };
    assert_eq!(log.refusal().await, Some(held));
}

/// What the events of another domain are is not asked: nobody here decodes them.
#[tokio::test]
async fn a_log_that_holds_events_of_another_domain_is_started_on() {
    let (log, nats) = (Log::new().await, start_nats().await);
    run(&log.url, "INSERT INTO daybook.categories (id, name, domain) VALUES (9, 'cart', 'carts')").await;
    log.write(CART, "CartFilled", 2).await;
    assert_eq!(log.refusal().await, None);
    let urls = Urls { database_url: log.url.clone(), nats_url: nats.url() };
    dev::process::start(&urls, Timeouts::default()).await.unwrap().stop().await;
}

/// If the log cannot be looked through in time, it is not taken to be empty of it.
#[tokio::test]
async fn what_cannot_be_excluded_is_refused() {
    let log = Log::new().await;
    log.register(ORDER, "OrderTeleported", 1).await;
    let read = connect::pool(&log.url, connect::Role::Read, 1).unwrap();
    let mut lock = log.superuser.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE daybook.events IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let limit = Duration::from_millis(50);
    let refusal =
        unreadable(check_within::<Orders>(&read, limit).await.map_err(StartError::from)).expect("it is refused");
    assert_eq!(refusal, Unreadable::NotExcluded { event_type: of(ORDER, "OrderTeleported", 1), limit });
    assert_eq!(
        refusal.to_string(),
        "the log may hold OrderTeleported of schema version 1 (order), which this build does not know; whether it does \
         could not be found out within 0.05 s: run a build that knows it"
    );
    lock.rollback().await.unwrap();
    assert_eq!(
        unreadable(check_within::<Orders>(&read, limit.saturating_mul(100)).await.map_err(StartError::from)),
        None
    );
}
