//! From the log to JetStream: the event at position P becomes the message with sequence P.
//!
//! Each message says which sequence must be the last before it, so nothing is published twice or out of order, whatever
//! is retried and however many relays run. JetStream's last sequence is the only checkpoint. It also makes each
//! acknowledgement one of all messages before it: so only some of them are asked for.
//!
//! Before it publishes, and whenever something was not as expected, the relay compares what the stream carries with the log
//! (`relay/history.rs`).

mod history;
mod mending;
mod replicas;

use crate::step::{Outcome, Step};
use crate::{message, subject};
use async_nats::header::NATS_EXPECTED_LAST_SEQUENCE;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::{Client, HeaderMap};
use engine::distribution;
use engine::follow_up::storable;
use history::Compared;
pub use history::Reconciled;
use mending::{EVERY, Mending};
use replicas::Replicas;
use sqlx::PgPool;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use store::{Log, LogIdentity, Mark, Page, Position, ReadError, RecordedEvent};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How many events are read at a time.
const PAGE: i64 = 500;
/// How many messages an acknowledgement is asked for.
const ACKED_AT_ONCE: usize = 100;
/// How many acknowledgements may be waited for: the next page is read and sent while they are.
const IN_FLIGHT: usize = 20;
/// How often the stream is looked at while there is nothing to publish.
const LOOK: Duration = Duration::from_secs(2);
/// How often it says how far it is.
const TELL: Duration = Duration::from_secs(1);
/// How long to wait for a hint before looking.
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("JetStream carries another history than the log ({0}): look, and run `daybook reconcile`")]
    Diverged(String),
    #[error(
        "others publish into the stream of events, again and again: what they publish is removed, no faster than every {} \
         s. Let nobody but the relay publish there: see deploy/nats/daybook.conf", EVERY.as_secs()
    )]
    Disturbed,
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("the database cannot be used: {0}")]
    Database(#[from] sqlx::Error),
    #[error("JetStream does not answer: {0}")]
    JetStream(String),
    #[error("publishing stopped after position {after}: {source}")]
    Publish { after: Position, source: PublishError },
    #[error(
        "the event at position {position} needs a message that is larger than NATS' max_payload, {max_payload} bytes: set it \
         to {} or more in the configuration of nats-server. The relay waits for that",
        message::MAX_MESSAGE
    )]
    TooLarge { position: Position, max_payload: usize },
}

/// Publishes the log. It needs no lease: two relays do no harm.
pub struct Relay {
    log: Log,
    /// For the checkpoints, when the stream has to be made, and for what is found in it that is not the log's.
    pool: PgPool,
    client: Client,
    jetstream: Context,
    hint: watch::Receiver<Position>,
    replicas: Replicas,
    mending: Mending,
    state: Option<State>,
    /// What was last compared; it is remembered when the state is not.
    compared: Option<Compared>,
    /// Something has been acknowledged since the stream was looked at.
    stores: bool,
    /// Outstanding acknowledgements, oldest first, each with the last position before what it acknowledges.
    in_flight: VecDeque<(Position, PublishAckFuture)>,
    /// The last position that is known to be stored.
    stored: Option<Position>,
    /// When it was last told how far it is.
    told: Option<Instant>,
    /// The page after the one that was sent last, if that was a full one.
    next_page: Option<JoinHandle<Result<Option<Page>, ReadError>>>,
}

/// What is known once the stream has been compared.
#[derive(Clone, Copy)]
struct State {
    identity: LogIdentity,
    /// The stream's last sequence, once all that is in flight is stored.
    last: Position,
    /// The log's last mark at or before it. Every page is read after it, and so from a log that still has it.
    mark: Mark,
    /// When the stream was last looked at.
    looked: Instant,
}

/// What there is to send.
enum Read {
    Page(Page),
    Nothing,
    /// The log has begun another epoch: the stream is another one.
    OtherEpoch,
}

impl Relay {
    /// `hint` changes when the log has grown. `pool` is in the role that projects.
    pub fn new(log: Log, pool: PgPool, jetstream: Context, hint: watch::Receiver<Position>) -> Self {
        Self {
            log,
            pool,
            client: jetstream.client(),
            jetstream,
            hint,
            replicas: Replicas::new(None),
            mending: Mending::default(),
            state: None,
            compared: None,
            stores: false,
            in_flight: VecDeque::new(),
            stored: None,
            told: None,
            next_page: None,
        }
    }

    /// Has the stream kept on so many servers of a cluster, if they can be had; `None` leaves it as it is.
    #[must_use]
    pub fn with_replicas(self, replicas: Option<usize>) -> Self {
        Self { replicas: Replicas::new(replicas), ..self }
    }

    /// Tells who looks after it how far it is: every second, and what went wrong.
    async fn tell(&mut self, error: Option<&RelayError>) {
        if error.is_none() && self.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        self.told = Some(Instant::now());
        let error = error.map(|e| storable(&e.to_string()));
        if let Err(e) = distribution::tell(&self.pool, self.stored, error.as_deref()).await {
            tracing::debug!(error = %e, "how far the relay is cannot be written down");
        }
    }

    /// The groups after the last one that was sent; without what the stream has of the first.
    async fn read(&mut self, state: State) -> Result<Read, RelayError> {
        let page = match self.next_page.take() {
            Some(page) => page.await.map_err(ReadError::Task)??,
            // While there was nothing to send, an epoch may have begun that has all that this relay knows of the log.
            None => {
                let (page, epoch) = tokio::join!(self.log.read_after(state.mark, PAGE), self.log.epoch());
                if epoch? != state.identity.epoch {
                    return Ok(Read::OtherEpoch);
                }
                page?
            }
        };
        let Some(mut page) = page else { return Ok(Read::Nothing) };
        if page.events.len() >= PAGE as usize {
            let (log, after) = (self.log.clone(), page.end);
            self.next_page = Some(tokio::spawn(async move { log.read_after(after, PAGE).await }));
        }
        if state.mark.position < state.last {
            page.events.retain(|event| event.position > state.last);
        }
        Ok(Read::Page(page))
    }

    /// Sends a page, and waits for no more acknowledgements than it must.
    async fn publish(&mut self, state: State, page: &[RecordedEvent]) -> Result<(), RelayError> {
        let mut unsent = page;
        loop {
            // What is wrong with one message does not show in the acknowledgement of a later one, which says no more
            // than that it does not follow. Then the stream is looked at, and each acknowledged until one is stored. The first
            // one of a page always is: if another relay has published a lost event in its place, the second one follows.
            let at_once = if self.stores && unsent.len() < page.len() { ACKED_AT_ONCE } else { 1 };
            let (events, rest) = unsent.split_at(at_once.min(unsent.len()));
            let Some((last, others)) = events.split_last() else { return Ok(()) };
            unsent = rest;
            let after = last.position - events.len() as Position;
            for event in others {
                let (subject, headers) = (subject::event(event.stream, &event.event_type), headers(event, state));
                let sent = self.client.publish_with_headers(subject, headers, event.payload.clone().into()).await;
                sent.map_err(|e| match e.kind() {
                    async_nats::client::PublishErrorKind::MaxPayloadExceeded => self.too_large(event),
                    _ => RelayError::JetStream(e.to_string()),
                })?;
            }
            if self.in_flight.len() >= IN_FLIGHT {
                self.acknowledged().await?;
            }
            let subject = subject::event(last.stream, &last.event_type);
            let message = PublishMessage::build().headers(headers(last, state)).payload(last.payload.clone().into());
            let sent = self.jetstream.send_publish(subject, message).await;
            let sent = sent.map_err(|source| match source.kind() {
                PublishErrorKind::MaxPayloadExceeded => self.too_large(last),
                _ => RelayError::Publish { after, source },
            })?;
            self.in_flight.push_back((after, sent));
        }
    }

    fn too_large(&self, event: &RecordedEvent) -> RelayError {
        RelayError::TooLarge { position: event.position, max_payload: self.client.max_payload() }
    }

    /// Waits for the oldest acknowledgement; says whether there was one to wait for.
    async fn acknowledged(&mut self) -> Result<bool, RelayError> {
        let Some((after, ack)) = self.in_flight.pop_front() else { return Ok(false) };
        let ack = ack.await.map_err(|source| RelayError::Publish { after, source })?;
        self.stores = true;
        self.stored = Some(ack.sequence as Position);
        Ok(true)
    }

    /// A page, or what is left of the last ones. Without a state, the stream is to be looked at.
    async fn relay(&mut self, state: State) -> Result<(Outcome, Option<State>), RelayError> {
        let page = match self.read(state).await? {
            Read::Page(page) => page,
            Read::Nothing if self.in_flight.is_empty() => {
                self.all_stored(state);
                return Ok((Outcome::Idle, Some(state)));
            }
            Read::Nothing => {
                while self.acknowledged().await? {}
                return Ok((Outcome::Worked(0), Some(state)));
            }
            Read::OtherEpoch => return Ok((Outcome::Again, None)),
        };
        self.publish(state, &page.events).await?;
        let state = State { last: page.end.position, mark: page.end, ..state };
        Ok((Outcome::Worked(page.events.len()), Some(state)))
    }
}

fn headers(event: &RecordedEvent, State { identity, .. }: State) -> HeaderMap {
    let mut headers = message::headers(event, identity.epoch);
    headers.insert(NATS_EXPECTED_LAST_SEQUENCE, (event.position - 1).to_string());
    headers
}

impl Step for Relay {
    type Error = RelayError;

    fn name(&self) -> &'static str {
        "relay"
    }

    async fn step(&mut self) -> Result<Outcome, RelayError> {
        let stepped = self.try_step().await;
        self.tell(stepped.as_ref().err()).await;
        stepped
    }

    async fn wait(&mut self) {
        _ = tokio::time::timeout(POLL, self.hint.changed()).await;
    }
}

impl Relay {
    async fn try_step(&mut self) -> Result<Outcome, RelayError> {
        self.hint.mark_unchanged();
        let state = match self.state {
            Some(state) => state,
            None => {
                // Also after a step that was given up.
                self.in_flight.clear();
                self.stores = false;
                self.next_page = None;
                self.resume().await?
            }
        };
        // Whatever goes wrong, or ends the step, the next one looks anew where the stream ends.
        self.state = None;
        match self.relay(state).await {
            // Once in a while the stream is looked at, also if there is nothing to publish: it may have been wiped.
            Ok((Outcome::Idle, state)) => {
                self.state = state.filter(|state| state.looked.elapsed() < LOOK);
                Ok(Outcome::Idle)
            }
            Ok((worked, state)) => {
                self.state = state;
                Ok(worked)
            }
            // The log has gone on from an older state: the next step finds out what that means for the stream.
            Err(RelayError::Log(ReadError::OtherHistory(position))) => {
                tracing::warn!(position, "the log does not have what was published up to this position");
                // What this relay has compared before says nothing of what it has published since.
                self.compared = None;
                Ok(Outcome::Again)
            }
            // Another relay was faster, or an acknowledgement was late; or somebody else has published.
            Err(RelayError::Publish { source, .. }) if source.kind() == PublishErrorKind::WrongLastSequence => {
                Ok(Outcome::Again)
            }
            Err(e @ RelayError::TooLarge { .. }) => {
                // A server tells its limit to who connects, and not when it is changed: so the next step asks anew.
                _ = self.client.force_reconnect().await;
                Err(e)
            }
            Err(e) => Err(e),
        }
    }
}
