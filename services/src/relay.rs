//! From the log to JetStream: the event at position P becomes the message with sequence P.
//!
//! Each message says which sequence must be the last before it, so nothing is published twice or out of order, whatever
//! is retried and however many relays run. JetStream's last sequence is the only checkpoint. It also makes each
//! acknowledgement one of all messages before it: so only some of them are asked for.

use crate::step::{Outcome, Step};
use crate::{js, subject};
use async_nats::header::NATS_EXPECTED_LAST_SEQUENCE;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Context, ErrorCode, stream};
use async_nats::{Client, HeaderMap};
use sqlx::PgPool;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use store::{Log, LogIdentity, Position, ReadError, RecordedEvent, checkpoint};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How many events are read at a time.
const PAGE: i64 = 500;
/// How many messages an acknowledgement is asked for.
const ACKED_AT_ONCE: usize = 100;
/// How many acknowledgements may be waited for: the next page is read and sent while they are.
const IN_FLIGHT: usize = 10;
/// How often the stream is looked at while there is nothing to publish.
const LOOK: Duration = Duration::from_secs(2);
/// How long to wait for a hint before looking.
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(
        "JetStream holds another log, or one that is ahead of this database ({0}): stop, and run `daybook reconcile`"
    )]
    Diverged(String),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("the checkpoints cannot be read: {0}")]
    Checkpoints(#[from] sqlx::Error),
    #[error("JetStream does not answer: {0}")]
    JetStream(String),
    #[error("publishing stopped after position {after}: {source}")]
    Publish { after: Position, source: PublishError },
}

/// Publishes the log. It needs no lease: two relays do no harm.
pub struct Relay {
    log: Log,
    /// For the checkpoints, when the stream has to be made.
    pool: PgPool,
    client: Client,
    jetstream: Context,
    hint: watch::Receiver<Position>,
    state: Option<State>,
    /// Something has been acknowledged since the stream was looked at.
    stores: bool,
    /// The acknowledgements that are waited for, each with the position after which something went wrong if it is none.
    in_flight: VecDeque<(Position, PublishAckFuture)>,
    /// The page after the one that was sent last, if that was a full one.
    next_page: Option<JoinHandle<Result<Vec<RecordedEvent>, ReadError>>>,
}

/// What is known once the stream has been looked at.
#[derive(Clone, Copy)]
struct State {
    identity: LogIdentity,
    /// The stream's last sequence, once all that is in flight is stored.
    last: Position,
    /// The log's event there; none before the first. Every page is read from it on, and it must not have changed.
    last_event: Option<Uuid>,
    /// When the stream was last looked at.
    looked: Instant,
}

impl Relay {
    /// `hint` changes when the log has grown.
    pub fn new(log: Log, pool: PgPool, jetstream: Context, hint: watch::Receiver<Position>) -> Self {
        Self {
            log,
            pool,
            client: jetstream.client(),
            jetstream,
            hint,
            state: None,
            stores: false,
            in_flight: VecDeque::new(),
            next_page: None,
        }
    }

    /// Whether JetStream carries another history than the log; and why it must be one.
    ///
    /// # Errors
    /// When either does not answer.
    pub async fn diverged(&self) -> Result<Option<String>, RelayError> {
        match self.resume().await {
            Ok(_) => Ok(None),
            Err(RelayError::Diverged(why)) => Ok(Some(why)),
            Err(e) => Err(e),
        }
    }

    /// Which log JetStream carries, and in which epoch, if it says so.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn distributed(&self) -> Result<Option<LogIdentity>, RelayError> {
        let stream = self.jetstream.get_stream(subject::STREAM).await;
        let stream = stream.map_err(|e| RelayError::JetStream(e.to_string()))?;
        Ok(js::identity(&stream.cached_info().config))
    }

    /// Looks where the stream ends, makes it if it is missing, and checks that it carries this log.
    async fn resume(&self) -> Result<State, RelayError> {
        let identity = self.log.identity().await?;
        let mut stream = match self.jetstream.get_stream(subject::STREAM).await {
            Ok(stream) => stream,
            Err(e) => match e.kind() {
                GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    self.create(identity).await?
                }
                _ => return Err(RelayError::JetStream(e.to_string())),
            },
        };
        let info = stream.info().await.map_err(|e| RelayError::JetStream(e.to_string()))?.clone();
        if js::identity(&info.config) != Some(identity) {
            return Err(RelayError::Diverged(format!("it says it carries {:?}", info.config.metadata)));
        }
        let last = info.state.last_sequence as Position;
        let last_event = self.log.read_all(last - 1, 1).await?.into_iter().next().map(|event| event.event_id);
        if last > 0 && last_event.is_none() {
            return Err(RelayError::Diverged(format!("it has come to {last}, and the log has not")));
        }
        if info.state.messages > 0 {
            let message = stream.get_raw_message(last as u64).await;
            let message = message.map_err(|e| RelayError::JetStream(e.to_string()))?;
            let published = message.headers.get(js::EVENT_ID).and_then(|id| id.as_str().parse::<Uuid>().ok());
            if published != last_event {
                return Err(diverged(last, published, last_event));
            }
        }
        tracing::debug!(position = last, "the relay goes on after this position");
        Ok(State { identity, last, last_event: last_event.filter(|_| last > 0), looked: Instant::now() })
    }

    /// The stream, beginning with the oldest event that a projection still needs, at most a window back.
    async fn create(&self, identity: LogIdentity) -> Result<stream::Stream, RelayError> {
        let head = self.log.head().await?;
        let needed = checkpoint::live(&self.pool).await?.into_iter().map(|(_, position)| position).min();
        let first = needed.unwrap_or(head).min(head).max(head - js::WINDOW) + 1;
        tracing::warn!(first, "the stream is missing: it is made anew from this position");
        let created = self.jetstream.create_stream(js::stream_config(identity, first)).await;
        created.map_err(|e| RelayError::JetStream(e.to_string()))
    }

    /// The events from the stream's last one on.
    async fn read(&mut self, state: State) -> Result<Vec<RecordedEvent>, RelayError> {
        let page = match self.next_page.take() {
            Some(page) => page.await.map_err(ReadError::Task)?,
            None => self.log.read_all(state.last - 1, PAGE).await,
        }?;
        if page.len() == PAGE as usize
            && let Some(last) = page.last()
        {
            let (log, after) = (self.log.clone(), last.position - 1);
            self.next_page = Some(tokio::spawn(async move { log.read_all(after, PAGE).await }));
        }
        Ok(page)
    }

    /// Sends a page, and waits for no more acknowledgements than it must.
    async fn publish(&mut self, state: State, page: &[RecordedEvent]) -> Result<(), RelayError> {
        let mut unsent = page;
        loop {
            // What is wrong with one message does not show in the acknowledgement of a later one, which says no more
            // than that it does not follow. Then the stream is looked at, and each acknowledged until one is stored.
            let at_once = if self.stores { ACKED_AT_ONCE } else { 1 };
            let (events, rest) = unsent.split_at(at_once.min(unsent.len()));
            let Some((last, others)) = events.split_last() else { return Ok(()) };
            unsent = rest;
            let after = last.position - events.len() as Position;
            for event in others {
                let (subject, headers) = (subject::event(event.stream, &event.event_type), headers(event, state));
                let sent = self.client.publish_with_headers(subject, headers, event.payload.clone().into()).await;
                sent.map_err(|e| RelayError::JetStream(e.to_string()))?;
            }
            if self.in_flight.len() >= IN_FLIGHT {
                self.acknowledged().await?;
            }
            let subject = subject::event(last.stream, &last.event_type);
            let message = PublishMessage::build().headers(headers(last, state)).payload(last.payload.clone().into());
            let sent = self.jetstream.send_publish(subject, message).await;
            self.in_flight.push_back((after, sent.map_err(|source| RelayError::Publish { after, source })?));
        }
    }

    /// Waits for the oldest acknowledgement; says whether there was one to wait for.
    async fn acknowledged(&mut self) -> Result<bool, RelayError> {
        let Some((after, ack)) = self.in_flight.pop_front() else { return Ok(false) };
        ack.await.map_err(|source| RelayError::Publish { after, source })?;
        self.stores = true;
        Ok(true)
    }

    /// A page, or what is left of the last ones.
    async fn relay(&mut self, state: State) -> Result<(Outcome, State), RelayError> {
        let page = self.read(state).await?;
        let page = match state.last_event {
            Some(expected) => match page.split_first() {
                Some((last, page)) if last.event_id == expected => page,
                other => return Err(diverged(state.last, Some(expected), other.map(|(last, _)| last.event_id))),
            },
            None => &page,
        };
        let Some(end) = page.last() else {
            if self.in_flight.is_empty() {
                return Ok((Outcome::Idle, state));
            }
            while self.acknowledged().await? {}
            return Ok((Outcome::Worked(0), state));
        };
        self.publish(state, page).await?;
        let state = State { last: end.position, last_event: Some(end.event_id), ..state };
        Ok((Outcome::Worked(page.len()), state))
    }
}

fn diverged(at: Position, published: Option<Uuid>, recorded: Option<Uuid>) -> RelayError {
    let event = |id: Option<Uuid>| id.map_or("no event".to_owned(), |id| format!("event {id}"));
    RelayError::Diverged(format!("at {at} it has {}, the log {}", event(published), event(recorded)))
}

fn headers(event: &RecordedEvent, State { identity, .. }: State) -> HeaderMap {
    let mut headers = js::headers(event, identity.epoch);
    headers.insert(NATS_EXPECTED_LAST_SEQUENCE, (event.position - 1).to_string());
    headers
}

impl Step for Relay {
    type Error = RelayError;

    fn name(&self) -> &'static str {
        "relay"
    }

    async fn step(&mut self) -> Result<Outcome, RelayError> {
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
                self.state = Some(state).filter(|state| state.looked.elapsed() < LOOK);
                Ok(Outcome::Idle)
            }
            Ok((worked, state)) => {
                self.state = Some(state);
                Ok(worked)
            }
            // Another relay was faster, or an acknowledgement was late.
            Err(RelayError::Publish { source, .. }) if source.kind() == PublishErrorKind::WrongLastSequence => {
                Ok(Outcome::Worked(0))
            }
            Err(e) => Err(e),
        }
    }

    async fn wait(&mut self) {
        _ = tokio::time::timeout(POLL, self.hint.changed()).await;
    }
}
