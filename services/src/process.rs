//! A process: the services of its roles, on one Postgres and one NATS, from start to an orderly end.

use crate::aggregates::FOLD;
use crate::api::{Door, Service};
use crate::config::{Role, Urls};
use crate::execute::Executor;
use crate::feed::Feed;
use crate::nats::{Nats, NatsError, SettingsError};
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
use futures_util::{FutureExt, Stream, StreamExt};
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

/// How long nobody is told of others' hints again.
const HINTED: Duration = Duration::from_millis(1);
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
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error("NATS cannot be used: {0}")]
    Subscribe(String),
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

impl From<SettingsError> for StartError {
    fn from(error: SettingsError) -> Self {
        Self::Nats(error.into())
    }
}

impl From<async_nats::Error> for StartError {
    fn from(error: async_nats::Error) -> Self {
        Self::Subscribe(error.to_string())
    }
}

/// Connects to NATS at a URL, as whom that names; reconnects for ever, should the connection be lost.
///
/// # Errors
/// When it cannot be reached now.
pub async fn connect_nats(url: &str, name: &str) -> Result<Client, StartError> {
    Ok(Nats::at(url)?.process.connect(name).await?)
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
    /// How the client is connected, and how others are to be.
    pub nats: Nats,
    pub read: PgPool,
    pub project: PgPool,
    pub log: Log,
    pub loader: Loader,
    pub appender: Appender,
    /// This process, to leases.
    pub owner: Uuid,
}

impl Parts {
    /// Connects to servers at URLs that say all that has to be known of them.
    ///
    /// # Errors
    /// As those of [`Parts::connect_on`].
    pub async fn connect(urls: &Urls) -> Result<Self, StartError> {
        Self::connect_on(&urls.database_url, &[Database::Read], Nats::at(&urls.nats_url)?, clock::TOLERANCE).await
    }

    /// Connects, and checks that the log is one that this build can use, in these roles; Postgres' clock and this process' may
    /// be so far apart.
    ///
    /// # Errors
    /// When Postgres or NATS cannot be reached, the database is not Daybook's, or holds what this build cannot read.
    pub async fn connect_on(
        database_url: &str,
        roles: &[Database],
        nats: Nats,
        clock_tolerance: Duration,
    ) -> Result<Self, StartError> {
        for warning in connect::check(database_url, roles).await? {
            tracing::warn!("{warning}");
        }
        let read = connect::pool(database_url, Database::Read, 16)?;
        let log = Log::new(read.clone(), codec::CATEGORIES);
        log.identity().await?;
        readable::check(&read).await?;
        let client = nats.process.connect("daybook").await?;
        check_max_payload(&client)?;
        let appender = Appender::start_tolerating(database_url, clock_tolerance)?;
        Ok(Self {
            client,
            nats,
            // One for each projection, and some for relay, sender, sweeper, provider and notifier.
            project: connect::pool(database_url, Database::Project, Projection::ALL.len() as u32 + 5)?,
            loader: Loader::start(database_url, FOLD, appender.history())?,
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
        Ok(Feed::new(self.log.clone(), jetstream(&self.client), self.furthest().await?))
    }

    /// How far the projection has come that has come furthest.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn furthest(&self) -> Result<Position, sqlx::Error> {
        let live = checkpoint::live(&self.read).await?;
        Ok(live.into_iter().map(|(_, position)| position).max().unwrap_or(0))
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
    clients: Vec<Client>,
    pools: Vec<PgPool>,
}

impl Process {
    /// Starts the services of `roles` on servers at URLs that say all that has to be known of them.
    ///
    /// # Errors
    /// As those of [`Parts::connect_on`].
    pub async fn start(urls: &Urls, roles: &[Role], pace: Pace) -> Result<Self, StartError> {
        Self::start_on(&urls.database_url, Nats::at(&urls.nats_url)?, roles, pace).await
    }

    /// Starts the services of `roles`.
    ///
    /// # Errors
    /// As those of [`Parts::connect_on`].
    pub async fn start_on(database_url: &str, nats: Nats, roles: &[Role], pace: Pace) -> Result<Self, StartError> {
        connect::check_pooler(database_url).await?;
        let parts = Parts::connect_on(database_url, &Role::databases(roles), nats, pace.clock_tolerance).await?;
        let (loops, stopping, failed) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let start = Loops { loops: &loops, stopping: &stopping, failed: &failed };
        let has = |role| roles.contains(&role);
        let (mut services, mut relay_client) = (Vec::new(), None);
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
        let (grown, hint) = watch::channel(0);
        loops.spawn(tell_hints(parts.appender.head(), parts.client.clone(), grown.clone(), stopping.clone()));
        let door = Door { client: parts.client.clone(), replies: parts.nats.replies.clone() };
        if has(Role::Provider) {
            // What is late comes when the sender has given up.
            let late = pace.answer.mul_f64(1.5);
            services.push(provider::start(door.clone(), parts.project.clone(), late).await?);
        }
        if has(Role::Notifier) {
            services.push(notifier::start(door.clone(), parts.project.clone()).await?);
        }
        if has(Role::Relay) {
            // A connection of its own: the only one that may publish events, and not held up by answers.
            let client = parts.nats.relay.connect("daybook relay").await?;
            let others = client.subscribe(subject::HEAD_HINT).await.map_err(async_nats::Error::from)?;
            let stopping = stopping.clone();
            loops.spawn(async move { _ = stopping.run_until_cancelled(hear_hints(others, grown)).await });
            // From the primary: a replica that lags looks like a log that has lost events.
            let log = Log::new(parts.project.clone(), codec::CATEGORIES);
            let relay = Relay::new(log, parts.project.clone(), jetstream(&client), hint);
            start.run(relay.with_replicas(parts.nats.replicas));
            relay_client = Some(client);
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
            let pool = connect::pool(database_url, Database::Read, 8)?;
            services.push(query_api::start(door.clone(), pool.clone()).await?);
            pools.push(pool);
        }
        if has(Role::Commands) {
            services.push(command_api::start(door, executor).await?);
        }
        // What was subscribed is in place once the server has answered.
        let clients: Vec<Client> = [parts.client].into_iter().chain(relay_client).collect();
        for client in &clients {
            client.flush().await.map_err(async_nats::Error::from)?;
        }
        Ok(Self { services, loops, stopping, failed, clients, pools })
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
        for client in self.clients {
            _ = client.flush().await;
        }
        for pool in self.pools {
            pool.close().await;
        }
    }
}

/// Tells other processes, and this one's relay, that this one has appended.
async fn tell_hints(
    mut head: watch::Receiver<Position>,
    client: Client,
    grown: watch::Sender<Position>,
    stopping: CancellationToken,
) {
    while let Some(Ok(())) = stopping.run_until_cancelled(head.changed()).await {
        let head = *head.borrow_and_update();
        grown.send_replace(head);
        _ = client.publish(subject::HEAD_HINT, head.to_string().into()).await;
    }
}

/// Tells whoever looks at `grown` that others have appended, as they say. Hints may come as often as their senders like.
pub(crate) async fn hear_hints<T>(mut others: impl Stream<Item = T> + Unpin, grown: watch::Sender<Position>) {
    while others.next().await.is_some() {
        let mut more = true;
        while more {
            grown.send_modify(|_| {});
            tokio::time::sleep(HINTED).await;
            // One look is as good for all of them, if it comes after the last one.
            more = false;
            while let Some(Some(_)) = others.next().now_or_never() {
                more = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream::poll_fn;
    use tokio::sync::mpsc;

    /// What the first hint was of may have been looked at before the second one came.
    #[tokio::test(start_paused = true)]
    async fn a_hint_that_comes_during_the_rest_is_passed_on() {
        let (hint, mut hints) = mpsc::unbounded_channel();
        let (grown, mut looks) = watch::channel(0);
        let hearing = tokio::spawn(hear_hints(poll_fn(move |context| hints.poll_recv(context)), grown));
        for n in 0..3 {
            hint.send(()).unwrap();
            // The clock goes on by itself once nobody has anything to do.
            let looked = tokio::time::timeout(HINTED * 100, looks.changed()).await;
            looked.unwrap_or_else(|_| panic!("hint {n} was not passed on")).unwrap();
        }
        // However many come meanwhile, one look is enough for them.
        (0..100).for_each(|_| hint.send(()).unwrap());
        looks.changed().await.unwrap();
        drop(hint);
        hearing.await.unwrap();
        assert!(looks.changed().await.is_err(), "one look for all of them");
    }
}
