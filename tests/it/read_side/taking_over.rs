//! Of several processes that project and send, one has the leases. Whatever becomes of it, another one goes on, and comes to
//! the head of the log.

use crate::binary::until;
use crate::harness::{Serving, database, envelope, executor, new_order, order_of, receive, start_nats};
use dev::provider;
use order_services::verify::verify;
use order_views::{Projection, order_summary, stock_level};
use orders::{Command, order};
use runtime::process::Urls;
use runtime::process::{connect_nats, jetstream};
use rustix::process::Signal;
use sqlx::{PgPool, query_as, query_scalar};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use store::{Position, checkpoint};
use uuid::Uuid;

/// The owner of every projection and of the sender, if that is one process.
async fn owner(superuser: &PgPool) -> Option<Uuid> {
    let held = "SELECT name, owner FROM daybook.leases WHERE expires_at > clock_timestamp()";
    let held = query_as::<_, (String, Uuid)>(held).fetch_all(superuser).await.unwrap();
    let held: BTreeMap<String, Uuid> = held.into_iter().collect();
    let owner = *held.get("sender")?;
    Projection::all().all(|projection| held.get(projection.name()) == Some(&owner)).then_some(owner)
}

pub(crate) async fn until_owned_by_another(superuser: &PgPool, before: Option<Uuid>) -> Uuid {
    until("another process has all leases", async || owner(superuser).await.filter(|now| Some(*now) != before)).await
}

async fn until_at(superuser: &PgPool, position: Position) {
    until("every projection is there", async || {
        let live = checkpoint::live(superuser).await.unwrap();
        live.iter().all(|(_, at)| *at >= position).then_some(())
    })
    .await;
}

async fn head(superuser: &PgPool) -> Position {
    query_scalar("SELECT max(position) FROM daybook.events").fetch_one(superuser).await.unwrap()
}

/// Invariants 13, 14 and 16, and the faults: kill -9, SIGSTOP and SIGTERM of the process that owns the projections, while
/// orders are placed.
#[tokio::test]
async fn whatever_becomes_of_the_owner_another_process_goes_on() {
    let (database_url, nats) = tokio::join!(database(), start_nats());
    let urls = Urls { database_url, nats_url: nats.url() };
    let superuser = PgPool::connect(&urls.database_url).await.unwrap();
    let executor = executor(&urls.database_url);
    receive(&executor, "mug", 1_000_000).await;
    let is_over = AtomicBool::new(false);
    let placing = async {
        let mut placed = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let orders = [new_order(), new_order(), new_order()];
            for id in orders {
                let command = order::Command::Place(order_of(&[("mug", 1, 1)]));
                executor.execute(&envelope(Uuid::now_v7(), Command::Order { id, command })).await.unwrap();
            }
            for id in orders {
                until("it is paid", async || {
                    let row = order_summary::get(&superuser, id.0).await.unwrap();
                    row.is_some_and(|row| row.status == "confirmed").then_some(())
                })
                .await;
                placed.push(id.0);
            }
        }
        placed
    };
    let faults = async {
        let first = Serving::start(&urls).await;
        let owner_1 = until_owned_by_another(&superuser, None).await;
        let second = Serving::start(&urls).await;
        until_at(&superuser, 20).await;
        assert_eq!(owner(&superuser).await, Some(owner_1), "who comes second waits");

        // It is killed.
        let (at_kill, killed) = (head(&superuser).await, Instant::now());
        first.kill().await;
        let owner_2 = until_owned_by_another(&superuser, Some(owner_1)).await;
        let taken_over = killed.elapsed();
        until_at(&superuser, at_kill).await;
        eprintln!("kill -9: taken over after {taken_over:?}, at the head after {:?}", killed.elapsed());

        // It is stopped, and goes on when it has been replaced.
        let third = Serving::start(&urls).await;
        second.signal(Signal::STOP);
        let owner_3 = until_owned_by_another(&superuser, Some(owner_2)).await;
        until_at(&superuser, head(&superuser).await).await;
        second.signal(Signal::CONT);
        until_at(&superuser, head(&superuser).await).await;
        let fences = "SELECT count(*) FROM daybook.checkpoints AS c JOIN daybook.leases AS l ON l.name = c.projection
                      WHERE c.live AND c.fence = l.fence AND l.owner = $1";
        let fenced: i64 = query_scalar(fences).bind(owner_3).fetch_one(&superuser).await.unwrap();
        assert_eq!(fenced, Projection::all().count() as i64);

        // It ends in order: what it held is free, and not because it has run out.
        assert_eq!(third.end().await.code(), Some(0));
        let kept = "SELECT count(*) FROM daybook.leases WHERE owner = $1 AND expires_at > '-infinity'";
        let kept = async |owner: Uuid| query_scalar::<_, i64>(kept).bind(owner).fetch_one(&superuser).await.unwrap();
        assert_eq!(kept(owner_3).await, 0);
        assert_eq!(until_owned_by_another(&superuser, Some(owner_3)).await, owner_2, "the one that was stopped");
        is_over.store(true, Ordering::Relaxed);
        (second, owner_2, kept(owner_2).await)
    };
    let ((second, owner_2, held), placed) = tokio::join!(faults, placing);
    assert!(held > 0);
    let client = connect_nats(&urls.nats_url, "test").await.unwrap();
    let report = verify(&superuser, Some(&jetstream(&client)), Duration::from_secs(60)).await.unwrap();
    assert!(report.agrees(), "{report}");
    // What follows from an order was done once: by the provider's books, and by what is reserved.
    let books = provider::moved(&superuser, &placed).await.unwrap();
    assert_eq!(books.len(), placed.len());
    assert!(books.iter().all(|book| (book.held, book.captured) == (1250, 0)), "{books:?}");
    let mugs = stock_level::get(&superuser, "mug").await.unwrap().unwrap();
    assert_eq!(mugs.reserved, placed.len() as i64);
    assert_eq!(second.end().await.code(), Some(0));
    let free = "SELECT bool_and(expires_at = '-infinity') FROM daybook.leases WHERE owner = $1";
    assert!(query_scalar::<_, bool>(free).bind(owner_2).fetch_one(&superuser).await.unwrap());
}
