//! A process: loops and endpoints of one domain or several, on one Postgres and one NATS, from start to an orderly end.

use crate::api::{Door, Service};
use crate::executor::{Decide, Executor};
use crate::feed::Feed;
use crate::nats::{Nats, NatsError, SettingsError};
use crate::projector::Projector;
use crate::readable::{self, CheckError, Unreadable};
use crate::relay::Relay;
use crate::sender::{Effects, Limits, Sender};
use crate::step::{Step, run};
use crate::sweeper::Sweeper;
use crate::{message, subject};
use async_nats::Client;
use async_nats::jetstream;
use engine::{Domain, Projection};
use futures_util::{FutureExt, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::connect::{self, Role as Database, Unusable};
use store::{Appender, Category, Loader, Log, Position, ReadError, checkpoint};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Both servers, named. URLs may hold passwords: they are left out of `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Urls {
    pub database_url: String,
    pub nats_url: String,
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Urls").finish_non_exhaustive()
    }
}

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

impl From<CheckError> for StartError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Unreadable(unreadable) => Self::Unreadable(unreadable),
            CheckError::Log(error) => Self::Log(error),
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
    match (client.max_payload(), message::MAX_MESSAGE) {
        (is, needed) if is < needed => Err(StartError::MaxPayload { is, needed }),
        _ => Ok(()),
    }
}

pub fn jetstream(client: &Client) -> jetstream::Context {
    jetstream::new(client.clone())
}

/// What loops and endpoints are made from.
pub struct Context {
    pub client: Client,
    /// How the client is connected, and how others are to be.
    pub nats: Nats,
    pub read: PgPool,
    pub project: PgPool,
    pub log: Log,
    pub appender: Appender,
    /// This process, to leases.
    pub owner: Uuid,
    database_url: String,
}

impl Context {
    /// Connects, and checks that the log can be used in these roles. Its streams are of `categories`. Postgres' clock and this
    /// process' may be so far apart. `projections` is how many projections the process keeps current.
    ///
    /// # Errors
    /// When Postgres or NATS cannot be reached, the database is not Daybook's, or NATS does not carry each event.
    pub async fn connect(
        database_url: &str,
        roles: &[Database],
        nats: Nats,
        categories: &'static [Category],
        clock_tolerance: Duration,
        projections: usize,
    ) -> Result<Self, StartError> {
        for warning in connect::check(database_url, roles).await? {
            tracing::warn!("{warning}");
        }
        let read = connect::pool(database_url, Database::Read, 16)?;
        let log = Log::new(read.clone(), categories);
        log.identity().await?;
        let client = nats.process.connect("daybook").await?;
        check_max_payload(&client)?;
        Ok(Self {
            client,
            nats,
            // One for each projection, and some for relay, sender, sweeper, provider and notifier.
            project: connect::pool(database_url, Database::Project, projections as u32 + 5)?,
            appender: Appender::start_tolerating(database_url, clock_tolerance)?,
            owner: Uuid::now_v7(),
            log,
            read,
            database_url: database_url.to_owned(),
        })
    }

    /// An executor of a domain's commands, after checking that this build reads the domain's events.
    ///
    /// # Errors
    /// When it does not, or Postgres fails.
    pub async fn executor<D: Decide>(&self) -> Result<Executor<D>, StartError> {
        readable::check::<D::Domain>(&self.read).await?;
        let loader = Loader::start(&self.database_url, D::SNAPSHOT_VERSION, self.appender.history())?;
        Ok(Executor::new(self.log.clone(), loader, self.appender.clone()))
    }

    /// A feed of what the projection of the domain that has come furthest does not have yet; the others read the log up to there.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn feed<D: Domain>(&self) -> Result<Feed<D>, sqlx::Error> {
        let live = checkpoint::live(&self.read).await?;
        let ours = live.into_iter().filter(|(name, _)| Projection::<D>::from_name(name).is_some());
        let furthest = ours.map(|(_, position)| position).max().unwrap_or(0);
        Ok(Feed::new(self.log.clone(), jetstream(&self.client), furthest))
    }

    /// Where requests come in, and where their answers may go.
    pub fn door(&self) -> Door {
        Door { client: self.client.clone(), replies: self.nats.replies.clone() }
    }
}

/// The running loops and endpoints of a process.
pub struct Process {
    services: Vec<Service>,
    loops: TaskTracker,
    stopping: CancellationToken,
    failed: CancellationToken,
    clients: Vec<Client>,
    pools: Vec<PgPool>,
    /// Told when follow-ups of a domain were written, by the domain's name: one for each, because it wakes one sender.
    written: Mutex<HashMap<&'static str, Arc<Notify>>>,
    /// How far the log has grown, as this process and others tell.
    grown: watch::Sender<Position>,
}

impl Process {
    /// A process that tells others when it appends, and does nothing else yet.
    pub fn start(context: &Context) -> Self {
        let process = Self {
            services: vec![],
            loops: TaskTracker::new(),
            stopping: CancellationToken::new(),
            failed: CancellationToken::new(),
            clients: vec![context.client.clone()],
            pools: vec![context.read.clone(), context.project.clone()],
            written: Mutex::default(),
            grown: watch::channel(0).0,
        };
        let appender = context.appender.clone();
        process.ends_with(async move { appender.ended().await });
        let (head, client, grown) = (context.appender.head(), context.client.clone(), process.grown.clone());
        process.loops.spawn(tell_hints(head, client, grown, process.stopping.clone()));
        process
    }

    /// Ends the process, to be started again, when something has ended that should not have.
    fn ends_with(&self, ended: impl Future<Output = ()> + Send + 'static) {
        let (ending, broken) = (self.stopping.clone(), self.failed.clone());
        self.loops.spawn(async move {
            if ending.run_until_cancelled(ended).await.is_some() {
                tracing::error!(
                    "the appender or a loader has ended by a defect: the process ends, to be started again"
                );
                broken.cancel();
            }
        });
    }

    /// What tells the sender of a domain that there are follow-ups.
    fn written<D: Domain>(&self) -> Arc<Notify> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).entry(D::NAME).or_default().clone()
    }

    /// Runs a loop until the process stops.
    pub fn run(&self, looped: impl Step + 'static) {
        let (name, failed) = (looped.name(), self.failed.clone());
        let running = self.loops.spawn(run(looped, self.stopping.clone()));
        self.loops.spawn(async move {
            if running.await.is_err() {
                tracing::error!(name, "a loop has ended by a defect: the process ends, to be started again");
                failed.cancel();
            }
        });
    }

    /// Serves endpoints until the process stops.
    pub fn serve(&mut self, service: Service) {
        self.services.push(service);
    }

    /// Closes a pool when the process stops.
    pub fn close(&mut self, pool: PgPool) {
        self.pools.push(pool);
    }

    /// Ends the process if the executor's loader ends by a defect.
    pub fn watch<D: Decide>(&self, executor: &Executor<D>) {
        let loader = executor.loader();
        self.ends_with(async move { loader.ended().await });
    }

    /// Publishes the log to JetStream.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn relay(&mut self, context: &Context) -> Result<(), StartError> {
        // A connection of its own: the only one that may publish events, and not held up by answers.
        let client = context.nats.relay.connect("daybook relay").await?;
        let others = client.subscribe(subject::HEAD_HINT).await.map_err(async_nats::Error::from)?;
        let (stopping, grown, hint) = (self.stopping.clone(), self.grown.clone(), self.grown.subscribe());
        self.loops.spawn(async move { _ = stopping.run_until_cancelled(hear_hints(others, grown)).await });
        // From the primary: a replica that lags looks like a log that has lost events.
        let log = Log::new(context.project.clone(), context.log.categories());
        let relay = Relay::new(log, context.project.clone(), jetstream(&client), hint);
        self.run(relay.with_replicas(context.nats.replicas));
        self.clients.push(client);
        Ok(())
    }

    /// Keeps all projections of a domain current.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn project<D: Domain>(&self, context: &Context) -> Result<(), StartError> {
        let feed = context.feed::<D>().await?;
        for projection in Projection::all() {
            let (pool, owner) = (context.project.clone(), context.owner);
            self.run(Projector::new(pool, projection, feed.reader(), owner, self.written::<D>()));
        }
        self.run(feed);
        Ok(())
    }

    /// Carries out the follow-ups of a domain, and makes follow-ups of its timers that are due.
    pub fn send<E: Effects>(&self, context: &Context, effects: E, limits: Limits) {
        let (pool, written) = (context.project.clone(), self.written::<E::Domain>());
        self.run(Sweeper::<E::Domain>::new(pool.clone(), written.clone()).tolerating(limits.clock_tolerance));
        self.run(Sender::new(pool, effects, context.appender.history(), context.owner, written, limits));
    }

    /// Returns when what was subscribed is in place: when the servers have answered.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn ready(&self) -> Result<(), StartError> {
        for client in &self.clients {
            client.flush().await.map_err(async_nats::Error::from)?;
        }
        Ok(())
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
pub async fn hear_hints<T>(mut others: impl Stream<Item = T> + Unpin, grown: watch::Sender<Position>) {
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
