//! A cluster of three nats-servers that keep the stream together, whose leader is killed while orders come in.

use crate::binary::until;
use crate::harness::{database, folder, receipt, start_nats_in};
use futures_util::future::join_all;
use order_services::policy::Timeouts;
use order_services::process::{self, Role};
use order_services::verbs::Receive;
use order_services::verify::verify;
use runtime::nats::Nats as Settings;
use runtime::process::jetstream;
use runtime::relay::Relay;
use runtime::step::{Outcome, Step};
use runtime::subject;
use servers::{Configuration, Nats};
use sqlx::{PgPool, query_scalar};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How often the leader is killed; `LEADER_KILLS` may say otherwise.
const KILLS: u32 = 2;
/// How many clients go on sending.
const CLIENTS: usize = 8;
/// How long a client goes on asking, and `verify` waits.
const PATIENCE: Duration = Duration::from_secs(90);

struct Cluster {
    /// By the number in its name.
    servers: Vec<Nats>,
}

impl Cluster {
    /// Each server has an address of its own for the others, which no other process takes: so they find each other again.
    async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = |n: u32| format!("127.{}.{}.{}", 1 + pid / 256 % 250, pid % 256, number * 3 + n + 1);
        let routes: Vec<String> = (0..3).map(|n| format!("\"nats://{}:6222\"", address(n))).collect();
        let servers = (0..3).map(async |n| {
            let dir = folder("cluster").await;
            let file = dir.with_extension("conf");
            let configuration = format!(
                "server_name: n{n}\ncluster {{ name: daybook, listen: \"{}:6222\", routes: [{}] }}\n",
                address(n),
                routes.join(", ")
            );
            fs::write(&file, configuration).unwrap();
            start_nats_in(dir, Some(Configuration { file, environment: vec![], login: None })).await
        });
        Self { servers: join_all(servers).await }
    }

    fn url(&self) -> String {
        self.servers.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// The number of the server that leads the stream, once all three have all of it.
    async fn leader(&self, client: &async_nats::Client) -> usize {
        until("the stream has a leader, and all keep up", async || {
            let stream = jetstream(client).get_stream(subject::STREAM).await.ok()?;
            let cluster = stream.cached_info().cluster.as_ref()?;
            let keeps_up = cluster.replicas.len() == 2 && cluster.replicas.iter().all(|replica| replica.current);
            let leader = cluster.leader.as_ref().filter(|_| keeps_up)?;
            leader.strip_prefix('n')?.parse().ok()
        })
        .await
    }
}

/// Invariants 11 to 15: whichever server is killed, nothing is lost, doubled or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_loses_nothing() {
    let (cluster, database_url) = tokio::join!(Cluster::start(), database());
    let mut cluster = cluster;
    let mut settings = Settings::at(&cluster.url()).unwrap();
    settings.replicas = Some(3);
    let process = dev::process::start_on(&database_url, settings.clone(), Timeouts::default()).await.unwrap();
    let client = settings.process.connect("shop").await.unwrap();
    let shop = runtime::client::Client::new(client.clone(), "shop");

    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU32::new(0));
    let sending = join_all((0..CLIENTS).map(async |n| {
        while !stop.load(Ordering::Relaxed) {
            let receive = Receive { sku: orders::id::Sku::new(format!("mug-{n}")).unwrap(), quantity: 1 };
            assert!(shop.command(receive, PATIENCE).await.unwrap().recorded);
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let kills = std::env::var("LEADER_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let killing = async {
        for _ in 0..kills {
            let leader = cluster.leader(&client).await;
            let (before, head) = (acknowledged.load(Ordering::Relaxed), stored(&client).await);
            cluster.servers[leader].kill9().await;
            until("commands are answered, and the relay publishes", async || {
                let answered = acknowledged.load(Ordering::Relaxed) > before + 100;
                (answered && stored(&client).await > head + 100).then_some(())
            })
            .await;
            cluster.servers[leader].restart().await.unwrap();
        }
        cluster.leader(&client).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(sending, killing);

    let pool = PgPool::connect(&database_url).await.unwrap();
    let in_log = query_scalar::<_, i64>("SELECT count(*) FROM daybook.events").fetch_one(&pool).await.unwrap();
    assert_eq!(in_log, i64::from(acknowledged.load(Ordering::Relaxed)), "each command once");
    let report = verify(&pool, Some(&jetstream(&client)), PATIENCE).await.unwrap();
    assert!(report.agrees(), "{report}");
    let epochs: i64 = query_scalar("SELECT epoch FROM daybook.log").fetch_one(&pool).await.unwrap();
    assert_eq!(epochs, 1, "no history was taken for another one");
    process.stop().await;
}

/// The last sequence of the stream, as far as is known.
async fn stored(client: &async_nats::Client) -> u64 {
    let stream = jetstream(client).get_stream(subject::STREAM).await;
    stream.map_or(0, |stream| stream.cached_info().state.last_sequence)
}

/// Returns once the stream is kept on so many servers, and its last sequence is `last`.
async fn is_kept_on(client: &async_nats::Client, replicas: usize, last: u64) {
    until(&format!("the stream has {replicas} replicas, and {last} events"), async || {
        let stream = jetstream(client).get_stream(subject::STREAM).await.ok()?;
        let info = stream.cached_info();
        (info.config.num_replicas == replicas && info.state.last_sequence == last).then_some(())
    })
    .await;
}

/// A stream that was made for one server is kept by three, once that is said; and a number that the cluster does not have
/// stops nothing.
#[tokio::test]
async fn the_number_of_replicas_is_a_setting() {
    let cluster = Cluster::start().await;
    let database_url = database().await;
    let mut settings = Settings::at(&cluster.url()).unwrap();
    let client = settings.process.connect("test").await.unwrap();
    for (replicas, found, last) in [(None, 1, 1), (Some(3), 3, 2), (Some(5), 3, 3)] {
        settings.replicas = replicas;
        let started = process::start(&database_url, settings.clone(), &[Role::Relay], Timeouts::default());
        let (_, process) = started.await.unwrap();
        crate::harness::executor(&database_url).execute(&receipt("mug", 1)).await.unwrap();
        is_kept_on(&client, found, last).await;
        process.stop().await;
    }
    // Another relay, of another setting, does not undo it; an operator does.
    let pool = store::connect::pool(&database_url, store::connect::Role::Project, 2).unwrap();
    let (_hint, hinted) = watch::channel(0);
    let log = store::Log::new(pool.clone(), order_views::CATEGORIES);
    let mut relay = Relay::new(log, pool, jetstream(&client), hinted).with_replicas(Some(1));
    until("it has looked", async || (relay.step().await.ok()? == Outcome::Idle).then_some(())).await;
    is_kept_on(&client, 3, 3).await;
    relay.reconcile().await.unwrap();
    is_kept_on(&client, 1, 3).await;
}
