//! Which history the stream carries: that of the log, or another one.
//!
//! The log can go on from an older state: after a failover to a replica that lacked the last events, or a restore. What was
//! distributed of the lost events is kept in Postgres, the log goes on in its next epoch, and the stream is made anew. That
//! happens by itself only if it is safe: on the same system with a higher timeline, which is a promoted replica or a restore
//! to a point in time. A database with another system identifier is a copy that must not touch this stream, and one with a
//! lower timeline a former primary. Then the relay stops, and an operator decides.
//!
//! What others have published into the stream is removed in the same way.

use super::replicas::By;
use super::{Relay, RelayError, State};
use crate::{message, subject};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, Stream};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use std::time::{Duration, Instant};
use store::epoch::{self, Lost, NewEpoch};
use store::{Category, Chain, LogIdentity, Mark, Position, RecordedEvent, Server, checkpoint};

/// How many messages are compared with the log, or kept, at a time.
const PAGE: usize = 500;
/// How long to wait for messages that the stream says it has.
const EXPIRES: Duration = Duration::from_secs(5);
/// How many messages of one epoch are kept at most: others may publish without an end.
const MOST_KEPT: usize = 1_000_000;

/// Why an epoch begins of which it cannot be said what was lost.
const UNKNOWN: &str = "the log has gone on after a failover or a restore, and the stream has none of what had been \
                       distributed before: it is unknown what was lost";

/// What was last compared: a stream that was all the log's.
#[derive(Clone, Copy)]
pub(super) struct Compared {
    /// When the stream was made: it is the same one still.
    created: i128,
    /// Up to there, the stream had the log's events.
    mark: Mark,
}

/// What is not as it should be.
struct Difference {
    /// All before this position is the log's.
    from: Position,
    /// The last position that had been distributed; `None` if that is unknown.
    distributed_to: Option<Position>,
    /// For people.
    what: String,
}

/// What an operator is told of a reconciliation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    pub epoch: i64,
    /// What was found; `None` if there was nothing to do.
    pub diverged: Option<String>,
}

impl Relay {
    /// Looks where the stream ends, makes it if it is missing, and sees to it that it carries this log.
    pub(super) async fn resume(&mut self) -> Result<State, RelayError> {
        self.resume_if(false).await.map(|(state, _)| state)
    }

    /// Has the stream carry the log's history, whatever it carries now and whatever server the log is on.
    ///
    /// # Errors
    /// When the stream carries another log, or Postgres or JetStream does not answer.
    pub async fn reconcile(&mut self) -> Result<Reconciled, RelayError> {
        let (state, diverged) = self.resume_if(true).await?;
        Ok(Reconciled { epoch: state.identity.epoch, diverged })
    }

    /// `forced` says that an operator has decided.
    async fn resume_if(&mut self, forced: bool) -> Result<(State, Option<String>), RelayError> {
        let mut found = None;
        loop {
            let (identity, server) = (self.log.identity().await?, self.log.server().await?);
            let Some(stream) = self.find().await? else {
                if let Some(why) = self.create(identity, server).await? {
                    found.get_or_insert(why);
                }
                continue;
            };
            let info = stream.get_info().await.map_err(unanswered)?;
            let carried =
                message::identity(&info.config).ok_or_else(|| diverged("it does not say which log it carries"))?;
            let told = message::server(&info.config);
            if carried.log_id != identity.log_id {
                return Err(diverged(&format!("it carries the log {}, not {}", carried.log_id, identity.log_id)));
            }
            if !forced && let Some(why) = told.and_then(|told| refused(told, server)) {
                return Err(diverged(&why));
            }
            if carried.epoch < identity.epoch {
                // Another relay, or this one before it ended, has begun the next epoch, and kept what was lost. Since then
                // more may have been published, and lost.
                if let Some(difference) = self.compare(&stream, &info, server).await? {
                    let mut transaction = self.pool.begin().await?;
                    self.keep_lost(&mut transaction, &stream, &info, identity.epoch, &difference).await?;
                    transaction.commit().await?;
                }
                self.remove().await?;
                continue;
            }
            let difference = match self.compare(&stream, &info, server).await? {
                None if carried.epoch > identity.epoch => Some(Difference {
                    from: info.state.last_sequence as Position + 1,
                    distributed_to: Some(info.state.last_sequence as Position),
                    what: format!("it is of epoch {}, and the log does not know of it", carried.epoch),
                }),
                difference => difference,
            };
            let Some(difference) = difference else {
                let mut config = info.config.clone();
                if told != Some(server) {
                    config.metadata = message::metadata(identity, server);
                    self.jetstream.update_stream(config.clone()).await.map_err(unanswered)?;
                }
                self.keep_replicas(&config, if forced { By::Operator } else { By::Relay }).await;
                if epoch::confirmed(&self.pool).await? != Some(server) {
                    epoch::confirm_server(&self.pool).await?;
                }
                return Ok((self.begin_at(identity, &info).await?, found));
            };
            if !forced && !self.is_safe(&stream, &info, told, server, &difference).await? {
                return Err(diverged(&difference.what));
            }
            if !forced && !self.mending.may_begin() {
                return Err(RelayError::Disturbed);
            }
            let next = identity.epoch.max(carried.epoch) + 1;
            // If another relay was faster, it makes the stream anew as well.
            if self.begin_epoch(&stream, &info, next, &difference).await? {
                self.remove().await?;
            }
            found.get_or_insert(difference.what);
        }
    }

    /// The state of a stream that was compared.
    async fn begin_at(&mut self, identity: LogIdentity, info: &Info) -> Result<State, RelayError> {
        let last = info.state.last_sequence as Position;
        let mark = self.log.mark_before(last).await?;
        self.compared = Some(Compared { created: created(info), mark });
        self.stored = Some(last);
        tracing::debug!(position = last, "the relay goes on after this position");
        Ok(State { identity, last, mark, looked: Instant::now() })
    }

    /// Notes that all of what was published is stored.
    pub(super) fn all_stored(&mut self, state: State) {
        if let Some(compared) = &mut self.compared {
            compared.mark = state.mark;
        }
    }

    async fn find(&self) -> Result<Option<Stream>, RelayError> {
        match self.jetstream.get_stream(subject::STREAM).await {
            Ok(stream) => Ok(Some(stream)),
            Err(e) => match e.kind() {
                GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(unanswered(e)),
            },
        }
    }

    async fn remove(&self) -> Result<(), RelayError> {
        match self.jetstream.delete_stream(subject::STREAM).await {
            Ok(_) => Ok(()),
            // Another relay was faster.
            Err(_) if self.find().await?.is_none() => Ok(()),
            Err(e) => Err(unanswered(e)),
        }
    }

    /// The stream, beginning with the oldest event that a projection still needs, at most a window back. If the log is on
    /// another timeline than when it was last compared, it may have lost events that had been distributed: that is told.
    async fn create(&mut self, identity: LogIdentity, server: Server) -> Result<Option<String>, RelayError> {
        let head = self.log.head().await?;
        let confirmed = epoch::confirmed(&self.pool).await?;
        if confirmed.is_some_and(|confirmed| confirmed != server) {
            let new = NewEpoch {
                epoch: identity.epoch + 1,
                forked_after: head,
                distributed_to: None,
                kept: 0,
                why: UNKNOWN.to_owned(),
            };
            let mut transaction = self.pool.begin().await?;
            epoch::begin(&mut transaction, &new).await?;
            transaction.commit().await?;
            tracing::error!(epoch = new.epoch, "{UNKNOWN}: see `daybook reconcile --report`");
            return Ok(Some(UNKNOWN.to_owned()));
        }
        let needed = checkpoint::live(&self.pool).await?.into_iter().map(|(_, position)| position).min();
        let first = needed.unwrap_or(head).min(head).max(head - message::WINDOW) + 1;
        tracing::warn!(first, "the stream is missing: it is made anew from this position");
        self.create_stream(message::stream_config(identity, server, first)).await?;
        Ok(None)
    }

    /// Compares what the stream has with the log: all that was not compared before and that a projection may still need.
    async fn compare(
        &mut self,
        stream: &Stream,
        info: &Info,
        server: Server,
    ) -> Result<Option<Difference>, RelayError> {
        let (first, last) = (info.state.first_sequence as Position, info.state.last_sequence as Position);
        let head = self.log.head().await?;
        let needed = checkpoint::live(&self.pool).await?.into_iter().map(|(_, position)| position).min().unwrap_or(0);
        let compared = match self.compared {
            Some(Compared { created: made, mark }) if made == created(info) && mark.position <= last => {
                self.log.has(mark).await?.then_some(mark.position)
            }
            _ => None,
        };
        let is_later = message::server(&info.config).is_some_and(|told| told.timeline < server.timeline);
        if info.state.messages == 0 && (1..=head).contains(&last) && is_later && compared.is_none() {
            // It was made anew after events up to `last` had been distributed. It has none of them, so it cannot show that
            // the log still has them after the failover or the restore.
            return Ok(Some(Difference { from: head + 1, distributed_to: None, what: UNKNOWN.to_owned() }));
        }
        // What this relay has published since it last compared may stand beside what others have.
        let (known, from) = match compared {
            Some(position) => (first.max(position), first.max(position)),
            None => (first, first.max(needed + 1).min(last)),
        };
        if info.state.messages == 0 || from < first {
            // Nothing is left to compare but where it ends.
            let what = || format!("it has come to {last}, and the log to {head}");
            let difference = || Difference { from: head + 1, distributed_to: Some(last), what: what() };
            return Ok((last > head).then(difference));
        }
        match self.first_difference(stream, from, last, head).await? {
            // It may begin before: the projections have gone on without the stream.
            Some(difference) if difference.from == from && known < from => {
                self.first_difference(stream, known, last, head).await
            }
            difference => Ok(difference),
        }
    }

    async fn first_difference(
        &self,
        stream: &Stream,
        from: Position,
        last: Position,
        head: Position,
    ) -> Result<Option<Difference>, RelayError> {
        let (mut messages, mut expected) = (Messages::open(stream, from, last).await?, from);
        while let Some(page) = messages.next().await? {
            let events = self.log.read_all(expected - 1, page.len() as i64).await?;
            for (n, message) in page.iter().enumerate() {
                let (sequence, event) = (message.sequence, events.get(n));
                if sequence != expected {
                    // Unless the window has gone on meanwhile: then it is looked at again.
                    let first = stream.get_info().await.map_err(unanswered)?.state.first_sequence as Position;
                    let what = format!("sequence {expected} is missing");
                    return if first > expected {
                        Err(unanswered(what))
                    } else {
                        Ok(Some(Difference { from: expected, distributed_to: Some(last), what }))
                    };
                }
                expected += 1;
                if event
                    .is_none_or(|event| event.position != sequence || !message.is_of(self.log.all_categories(), event))
                {
                    let (from, what) = match event {
                        Some(_) => (sequence, format!("at {sequence} it has what is not the log's event")),
                        // The stream may begin after the log's end: what it had in between is gone.
                        None => (head.min(sequence - 1) + 1, format!("it has come to {last}, and the log to {head}")),
                    };
                    return Ok(Some(Difference { from, distributed_to: Some(last), what }));
                }
            }
        }
        Ok(None)
    }

    /// Whether what is not the log's may be removed without an operator.
    async fn is_safe(
        &self,
        stream: &Stream,
        info: &Info,
        told: Option<Server>,
        server: Server,
        difference: &Difference,
    ) -> Result<bool, RelayError> {
        if told.is_some_and(|told| told.timeline < server.timeline) {
            return Ok(true);
        }
        // The log still has all that this relay has seen it have: others have published the rest.
        if let Some(compared) = self.compared
            && self.log.has(compared.mark).await?
            && compared.created == created(info)
        {
            return Ok(true);
        }
        Ok(!self.is_history(stream, info, difference).await?)
    }

    /// Whether the messages from the difference on continue the log's chain: then they may be events that it has lost.
    async fn is_history(&self, stream: &Stream, info: &Info, difference: &Difference) -> Result<bool, RelayError> {
        let last = info.state.last_sequence as Position;
        let mark = self.log.mark_before(difference.from - 1).await?;
        let mut chain = Chain::after(mark);
        let first = (info.state.first_sequence as Position).max(mark.position + 1);
        if first > mark.position + 1 || info.state.messages == 0 {
            // What is between is gone.
            return Ok(true);
        }
        let mut messages = Messages::open(stream, first, last).await?;
        while let Some(page) = messages.next().await? {
            for message in page {
                let Ok(event) = message.recorded(self.log.all_categories()) else { return Ok(false) };
                match chain.advance(&event) {
                    Ok(completes) if completes && event.position >= difference.from => return Ok(true),
                    Ok(_) => {}
                    Err(_) => return Ok(false),
                }
            }
        }
        Ok(chain.position() > mark.position)
    }

    /// Begins an epoch, and keeps what the stream has from the difference on; `false`, if it has begun already.
    async fn begin_epoch(
        &self,
        stream: &Stream,
        info: &Info,
        next: i64,
        difference: &Difference,
    ) -> Result<bool, RelayError> {
        let mut transaction = self.pool.begin().await?;
        let kept = self.keep_lost(&mut transaction, stream, info, next, difference).await?;
        let new = NewEpoch {
            epoch: next,
            forked_after: difference.from - 1,
            distributed_to: difference.distributed_to,
            kept: kept as i64,
            why: difference.what.clone(),
        };
        let begun = epoch::begin(&mut transaction, &new).await?;
        if begun {
            transaction.commit().await?;
            tracing::error!(
                epoch = next,
                forked_after = new.forked_after,
                kept,
                why = new.why,
                "JetStream had what the log does not have: it is kept, and the stream is made anew. See `daybook \
                 reconcile --report`"
            );
        }
        Ok(begun)
    }

    /// Keeps what the stream has from the difference on, and returns how many messages these are. What is kept of them already
    /// stays as it is.
    async fn keep_lost(
        &self,
        transaction: &mut PgConnection,
        stream: &Stream,
        info: &Info,
        epoch: i64,
        difference: &Difference,
    ) -> Result<usize, RelayError> {
        sqlx::raw_sql("SET LOCAL transaction_timeout = 0").execute(&mut *transaction).await?;
        let (mut kept, last) = (0, info.state.last_sequence as Position);
        if info.state.messages > 0 && difference.from <= last {
            let first = difference.from.max(info.state.first_sequence as Position);
            let mut messages = Messages::open(stream, first, last).await?;
            while kept < MOST_KEPT
                && let Some(page) = messages.next().await?
            {
                let lost: Vec<Lost> = page.into_iter().map(Carried::lost).collect();
                epoch::save_lost(transaction, epoch, &lost).await?;
                kept += lost.len();
            }
        }
        Ok(kept)
    }
}

/// Why a log on `server` must not touch a stream that was last compared on `told`.
fn refused(told: Server, server: Server) -> Option<String> {
    let Server { system_identifier, timeline } = told;
    if system_identifier != server.system_identifier {
        let ours = server.system_identifier;
        return Some(format!(
            "it is of the database system {system_identifier}, and this one is {ours}: a copy, perhaps"
        ));
    }
    (timeline > server.timeline).then(|| {
        let ours = server.timeline;
        format!("it is of timeline {timeline}, and this database is on {ours}: a former primary, perhaps")
    })
}

fn created(info: &Info) -> i128 {
    info.created.unix_timestamp_nanos()
}

fn diverged(why: &str) -> RelayError {
    RelayError::Diverged(why.to_owned())
}

fn unanswered(error: impl std::fmt::Display) -> RelayError {
    RelayError::JetStream(error.to_string())
}

/// A message of the stream.
struct Carried {
    sequence: Position,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl From<StreamMessage> for Carried {
    fn from(StreamMessage { sequence, subject, headers, payload, .. }: StreamMessage) -> Self {
        Self { sequence: sequence as Position, subject: subject.to_string(), headers, payload }
    }
}

impl Carried {
    fn recorded(&self, categories: &[Category]) -> Result<RecordedEvent, message::BadMessage> {
        message::recorded(categories, &self.subject, &self.headers, self.payload.clone())
    }

    /// Whether it is the message of the event. Earlier builds have published without links.
    fn is_of(&self, categories: &[Category], event: &RecordedEvent) -> bool {
        self.recorded(categories).is_ok_and(|told| {
            let link = told.link.or(event.link.filter(|_| !message::is_packed(&self.headers)));
            RecordedEvent { link, ..told } == *event
        })
    }

    fn lost(self) -> Lost {
        let headers: Map<String, Value> = self
            .headers
            .iter()
            .map(|(name, values)| (name.to_string(), values.iter().map(|value| value.as_str().to_owned()).collect()))
            .collect();
        Lost {
            position: self.sequence,
            subject: self.subject.replace('\0', "\u{FFFD}"),
            headers: Value::Object(headers).to_string(),
            payload: self.payload.to_vec(),
        }
    }
}

/// The messages of a stream from one sequence to another, in order.
enum Messages {
    /// One alone is asked for, and nothing is left behind: an idle relay looks every two seconds.
    One(Option<Carried>),
    Many {
        messages: Box<pull::Stream>,
        next: Position,
        last: Position,
    },
}

impl Messages {
    async fn open(stream: &Stream, from: Position, last: Position) -> Result<Self, RelayError> {
        if from == last {
            let message = stream.get_raw_message(last as u64).await.map_err(unanswered)?;
            return Ok(Self::One(Some(message.into())));
        }
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from as u64 },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: EXPIRES * 4,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(unanswered)?;
        let messages = consumer.stream().max_messages_per_batch(PAGE * 2).expires(EXPIRES).messages().await;
        Ok(Self::Many { messages: Box::new(messages.map_err(unanswered)?), next: from, last })
    }

    /// The next ones, in order of their sequences; `None` after the last.
    async fn next(&mut self) -> Result<Option<Vec<Carried>>, RelayError> {
        let (messages, next, last) = match self {
            Self::One(message) => return Ok(message.take().map(|message| vec![message])),
            Self::Many { messages, next, last } => (messages, next, *last),
        };
        let mut page = Vec::new();
        while page.len() < PAGE && *next <= last {
            let message = tokio::time::timeout(EXPIRES, messages.next()).await.map_err(unanswered)?;
            let message = message.ok_or_else(|| unanswered("the stream ends"))?.map_err(unanswered)?;
            let sequence = message.info().map_err(unanswered)?.stream_sequence as Position;
            *next = sequence + 1;
            let Message { subject, headers, payload, .. } = message.message;
            let (subject, headers) = (subject.to_string(), headers.unwrap_or_default());
            page.push(Carried { sequence, subject, headers, payload });
        }
        Ok((!page.is_empty()).then_some(page))
    }
}
