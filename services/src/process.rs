//! A process: the services of its roles, on one Postgres and one NATS, from start to an orderly end.

use crate::aggregates::FOLD;
use crate::api::Service;
use crate::config::{Role, Urls};
use crate::execute::Executor;
use crate::feed::Feed;
use crate::policy::Pace;
use crate::projector::Projector;
use crate::readable::{self, Unreadable};
use crate::relay::Relay;
use crate::sender::Sender;
use crate::step::{Step, run};
use crate::timers::Sweeper;
use crate::{codec, command_api, js, notifier, provider, query_api, subject};
use async_nats::Client;
use async_nats::jetstream;
use futures_util::StreamExt;
use projections::Projection;
use sqlx::PgPool;
use std::sync::Arc;
use std::time::Duration;
use store::connect::{self, Role as Database, Unusable};
use store::{Appender, Loader, Log, Position, ReadError, checkpoint, clock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How long an orderly end may take.
const STOP: Duration = Duration::from_secs(25);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("Postgres cannot be used: {0}")]
    Database(sqlx::Error),
    #[error("Postgres cannot be used: {0}")]
    Unusable(Unusable),
    #[error("the log cannot be used: {0}. Has `daybook migrate` been run?")]
    Log(#[from] ReadError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("NATS cannot be reached: {0}")]
    Nats(String),
    /// An event may be recorded that NATS does not carry.
    #[error(
        "NATS' max_payload is {is} bytes, and an event's message may have {needed}: set max_payload to {needed} or more in the \
         configuration of nats-server"
    )]
    MaxPayload { is: usize, needed: usize },
}

impl From<sqlx::Error> for StartError {
    fn from(error: sqlx::Error) -> Self {
        match Unusable::of(&error) {
            Some(unusable) => Self::Unusable(unusable.clone()),
            None => Self::Database(error),
        }
    }
}

impl From<async_nats::ConnectError> for StartError {
    fn from(error: async_nats::ConnectError) -> Self {
        Self::Nats(error.to_string())
    }
}

impl From<async_nats::Error> for StartError {
    fn from(error: async_nats::Error) -> Self {
        Self::Nats(error.to_string())
    }
}

/// Connects to NATS; reconnects for ever, should the connection be lost.
///
/// # Errors
/// When it cannot be reached now.
pub async fn connect_nats(url: &str, name: &str) -> Result<Client, StartError> {
    let options = async_nats::ConnectOptions::new().name(name).max_reconnects(None);
    Ok(options.reconnect_delay_callback(|_| Duration::from_millis(250)).connect(url).await?)
}

/// Whether the server carries whatever event can be recorded.
fn check_max_payload(client: &Client) -> Result<(), StartError> {
    match (client.max_payload(), js::MAX_MESSAGE) {
        (is, needed) if is < needed => Err(StartError::MaxPayload { is, needed }),
        _ => Ok(()),
    }
}

pub fn jetstream(client: &Client) -> jetstream::Context {
    jetstream::new(client.clone())
}

/// What every service is made from.
pub struct Parts {
    pub client: Client,
    pub read: PgPool,
    pub project: PgPool,
    pub log: Log,
    pub loader: Loader,
    pub appender: Appender,
    /// This process, to leases.
    pub owner: Uuid,
}

impl Parts {
    /// Connects, and checks that the log is one that this build can use.
    ///
    /// # Errors
    /// When Postgres or NATS cannot be reached, the database is not Daybook's, or holds what this build cannot read.
    pub async fn connect(urls: &Urls) -> Result<Self, StartError> {
        Self::connect_tolerating(urls, clock::TOLERANCE).await
    }

    /// The same, where Postgres' clock and this process' may be so far apart.
    ///
    /// # Errors
    /// As those of [`Self::connect`].
    pub async fn connect_tolerating(urls: &Urls, clock_tolerance: Duration) -> Result<Self, StartError> {
        for warning in connect::check(&urls.database_url, &[Database::Read]).await? {
            tracing::warn!("{warning}");
        }
        let read = connect::pool(&urls.database_url, Database::Read, 16)?;
        let log = Log::new(read.clone(), codec::CATEGORIES);
        log.identity().await?;
        readable::check(&read).await?;
        let client = connect_nats(&urls.nats_url, "daybook").await?;
        check_max_payload(&client)?;
        let appender = Appender::start_tolerating(&urls.database_url, clock_tolerance)?;
        Ok(Self {
            client,
            // One for each projection, and some for sender, sweeper, provider and notifier.
            project: connect::pool(&urls.database_url, Database::Project, Projection::ALL.len() as u32 + 3)?,
            loader: Loader::start(&urls.database_url, FOLD, appender.history())?,
            appender,
            owner: Uuid::now_v7(),
            log,
            read,
        })
    }

    pub fn executor(&self) -> Executor {
        Executor::new(self.log.clone(), self.loader.clone(), self.appender.clone())
    }

    /// A feed of what the projection that has come furthest does not have yet; the others read the log up to there.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn feed(&self) -> Result<Feed, sqlx::Error> {
        let furthest = checkpoint::live(&self.read).await?.into_iter().map(|(_, position)| position).max();
        Ok(Feed::new(self.log.clone(), jetstream(&self.client), furthest.unwrap_or(0)))
    }
}

/// Where loops are started, and what becomes of them.
struct Loops<'a> {
    loops: &'a TaskTracker,
    stopping: &'a CancellationToken,
    failed: &'a CancellationToken,
}

impl Loops<'_> {
    fn run(&self, looped: impl Step + 'static) {
        let (name, failed) = (looped.name(), self.failed.clone());
        let running = self.loops.spawn(run(looped, self.stopping.clone()));
        self.loops.spawn(async move {
            if running.await.is_err() {
                tracing::error!(name, "a loop has ended by a defect: the process ends, to be started again");
                failed.cancel();
            }
        });
    }
}

/// The running services of a process.
pub struct Process {
    services: Vec<Service>,
    loops: TaskTracker,
    stopping: CancellationToken,
    failed: CancellationToken,
    client: Client,
    pools: Vec<PgPool>,
}

impl Process {
    /// Starts the services of `roles`.
    ///
    /// # Errors
    /// As those of [`Parts::connect`].
    pub async fn start(urls: &Urls, roles: &[Role], pace: Pace) -> Result<Self, StartError> {
        connect::check_pooler(&urls.database_url).await?;
        connect::check(&urls.database_url, &Role::databases(roles)).await?;
        let parts = Parts::connect_tolerating(urls, pace.clock_tolerance).await?;
        let (loops, stopping, failed) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let start = Loops { loops: &loops, stopping: &stopping, failed: &failed };
        let has = |role| roles.contains(&role);
        let mut services = Vec::new();
        let mut pools = vec![parts.read.clone(), parts.project.clone()];
        let executor = parts.executor();
        let written = Arc::new(Notify::new());
        let (appender, loader) = (parts.appender.clone(), parts.loader.clone());
        let (ending, broken) = (stopping.clone(), failed.clone());
        loops.spawn(async move {
            let ended = async {
                tokio::select! {
                    () = appender.ended() => {}
                    () = loader.ended() => {}
                }
            };
            if ending.run_until_cancelled(ended).await.is_some() {
                tracing::error!(
                    "the appender or the loader has ended by a defect: the process ends, to be started again"
                );
                broken.cancel();
            }
        });
        let hint = share_hints(&parts, &loops, &stopping).await?;
        if has(Role::Provider) {
            // What is late comes when the sender has given up.
            let late = pace.answer.mul_f64(1.5);
            services.push(provider::start(&parts.client, parts.project.clone(), late).await?);
        }
        if has(Role::Notifier) {
            services.push(notifier::start(&parts.client, parts.project.clone()).await?);
        }
        if has(Role::Relay) {
            let relay = Relay::new(parts.log.clone(), parts.project.clone(), jetstream(&parts.client), hint);
            start.run(relay);
        }
        if has(Role::Projectors) {
            let feed = parts.feed().await?;
            for projection in Projection::ALL {
                let (pool, owner) = (parts.project.clone(), parts.owner);
                let projector = Projector::new(pool, projection, feed.reader(), owner, written.clone());
                start.run(projector);
            }
            start.run(feed);
        }
        if has(Role::Sender) {
            let (pool, client) = (parts.project.clone(), parts.client.clone());
            start.run(Sweeper::new(pool.clone(), written.clone()).tolerating(pace.clock_tolerance));
            let sender = Sender::new(pool, executor.clone(), client, parts.owner, written, pace);
            start.run(sender);
        }
        if has(Role::Queries) {
            // Queries may wait for their read model: they are not to keep connections from commands.
            let pool = connect::pool(&urls.database_url, Database::Read, 8)?;
            services.push(query_api::start(&parts.client, pool.clone()).await?);
            pools.push(pool);
        }
        if has(Role::Commands) {
            services.push(command_api::start(&parts.client, executor).await?);
        }
        // What was subscribed is in place once the server has answered.
        parts.client.flush().await.map_err(|e| StartError::Nats(e.to_string()))?;
        Ok(Self { services, loops, stopping, failed, client: parts.client, pools })
    }

    /// Returns if a loop has come to an end that it should not have: the process has to end, and be started again.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Takes nothing new, finishes what is under way, and gives back what is held; within a time that a supervisor waits.
    pub async fn stop(self) {
        if tokio::time::timeout(STOP, self.stop_in_order()).await.is_err() {
            tracing::warn!("a server does not answer: what was under way is left to its time-outs");
        }
    }

    async fn stop_in_order(self) {
        for service in self.services {
            service.stop().await;
        }
        self.stopping.cancel();
        self.loops.close();
        self.loops.wait().await;
        _ = self.client.flush().await;
        for pool in self.pools {
            pool.close().await;
        }
    }
}

/// Tells other processes that this one has appended, and this one's relay that anybody has.
async fn share_hints(
    parts: &Parts,
    loops: &TaskTracker,
    stopping: &CancellationToken,
) -> Result<watch::Receiver<Position>, StartError> {
    let (grown, hint) = watch::channel(0);
    let mut others = parts.client.subscribe(subject::HEAD_HINT).await.map_err(|e| StartError::Nats(e.to_string()))?;
    let mut own = parts.appender.head();
    let client = parts.client.clone();
    let shared = async move {
        loop {
            tokio::select! {
                changed = own.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let head = *own.borrow_and_update();
                    grown.send_replace(head);
                    _ = client.publish(subject::HEAD_HINT, head.to_string().into()).await;
                }
                Some(_) = others.next() => grown.send_modify(|_| {}),
            }
        }
    };
    let stopping = stopping.clone();
    loops.spawn(async move { _ = stopping.run_until_cancelled(shared).await });
    Ok(hint)
}
