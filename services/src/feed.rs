//! The events of the log, decoded once a process, for all its projections.
//!
//! They come from JetStream, one after the other. A gap, a silence or a stream that is gone is answered by reading the
//! log instead, and counted. A projection that is further behind than the buffer reaches reads the log itself.

use crate::codec::{self, DecodeError};
use crate::step::{Outcome, Step};
use crate::{js, subject};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::{FutureExt, StreamExt};
use projections::Delivered;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use store::{Log, Position, ReadError, RecordedEvent, Scan};
use tokio::sync::{Notify, watch};

/// How many events are kept for projections that are behind.
const BUFFER: usize = 20_000;
/// How many events are taken in at a time.
const PAGE: usize = 1000;
/// How many events a projection reads of the log at a time, when it is further behind than the buffer reaches.
const READ: usize = 2000;
/// How long nothing, not even a heartbeat, may be heard of JetStream before the log is asked.
const SILENCE: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(1);
const EXPIRES: Duration = Duration::from_secs(30);
/// How long subscribing may take before the log is read instead.
const SUBSCRIBE: Duration = Duration::from_secs(1);
/// How long a projection may take for its batch while the feed, reading the log, waits for it not to fall out of the buffer.
const SLOW: Duration = Duration::from_millis(500);
/// How often the log is read while JetStream has no stream.
const WITHOUT_STREAM: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Takes events in. One a process.
pub struct Feed {
    log: Log,
    jetstream: Context,
    buffer: Arc<Buffer>,
    messages: Option<pull::Stream>,
    /// The log, being read to its end because JetStream failed: it is left for later.
    reading: Option<Scan>,
}

/// Where a projection takes events from.
pub struct Reader {
    log: Log,
    buffer: Arc<Buffer>,
    place: Arc<Place>,
    grown: watch::Receiver<Position>,
}

/// How far a reader has come, and when it came there.
type Place = Mutex<(Position, Instant)>;

struct Buffer {
    /// Consecutive.
    events: Mutex<VecDeque<Delivered>>,
    /// The position of the last event.
    last: watch::Sender<Position>,
    /// How often the log had to be asked because JetStream left something out, or was silent.
    gaps: AtomicU64,
    /// What comes after the last event is not known to this build.
    is_stuck: AtomicBool,
    readers: Mutex<Vec<Weak<Place>>>,
    /// A reader has gone on.
    taken: Notify,
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Buffer {
    fn last(&self) -> Position {
        *self.last.borrow()
    }

    /// Takes in events that follow the last one without a gap.
    fn push(&self, new: Vec<Delivered>) {
        let Some(last) = new.last().map(|e| e.record().position) else { return };
        let mut events = lock(&self.events);
        events.extend(new);
        let excess = events.len().saturating_sub(BUFFER);
        events.drain(..excess);
        drop(events);
        self.is_stuck.store(false, Ordering::Relaxed);
        self.last.send_replace(last);
    }

    /// Whether a page more would push out what a reader that goes on has still to take: it would have to read and decode
    /// that by itself.
    fn is_awaited(&self) -> bool {
        let events = lock(&self.events);
        let Some(first) =
            events.front().map(|e| e.record().position).filter(|_| events.len() + Scan::MOST as usize > BUFFER)
        else {
            return false;
        };
        let kept = self.last() + Scan::MOST - BUFFER as Position + 1;
        drop(events);
        let mut readers = lock(&self.readers);
        readers.retain(|place| place.strong_count() > 0);
        readers.iter().filter_map(Weak::upgrade).any(|place| {
            let (taken, at) = *lock(&place);
            at.elapsed() < SLOW && (first..kept).contains(&(taken + 1))
        })
    }
}

impl Feed {
    /// A feed of what comes after position `after`.
    pub fn new(log: Log, jetstream: Context, after: Position) -> Self {
        let buffer = Buffer {
            events: Mutex::default(),
            last: watch::Sender::new(after),
            gaps: AtomicU64::new(0),
            is_stuck: AtomicBool::new(false),
            readers: Mutex::default(),
            taken: Notify::new(),
        };
        Self { log, jetstream, buffer: Arc::new(buffer), messages: None, reading: None }
    }

    pub fn reader(&self) -> Reader {
        let place = Arc::new(Place::new((0, Instant::now())));
        lock(&self.buffer.readers).push(Arc::downgrade(&place));
        Reader { log: self.log.clone(), buffer: self.buffer.clone(), place, grown: self.buffer.last.subscribe() }
    }

    /// The position of the last event that was taken in.
    pub fn position(&self) -> Position {
        self.buffer.last()
    }

    /// How often the log had to be asked instead of JetStream.
    pub fn gaps(&self) -> u64 {
        self.buffer.gaps.load(Ordering::Relaxed)
    }

    /// Messages from the one after the last event on; `None` if JetStream gives none now.
    async fn subscribe(&self) -> Option<pull::Stream> {
        let stream = self.jetstream.get_stream_no_info(subject::STREAM).await.ok()?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.position() as u64 + 1 },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            inactive_threshold: EXPIRES * 2,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.ok()?;
        let messages = consumer.stream().max_messages_per_batch(PAGE * 2).heartbeat(HEARTBEAT).expires(EXPIRES);
        messages.messages().await.ok()
    }

    /// The events of the messages that have arrived, up to the first that does not follow; waits for the first one.
    async fn receive(&mut self) -> Received {
        let mut received = Received::default();
        if self.messages.is_none() {
            self.messages = tokio::time::timeout(SUBSCRIBE, self.subscribe()).await.ok().flatten();
        }
        let Some(messages) = &mut self.messages else {
            tokio::time::sleep(WITHOUT_STREAM).await;
            received.broken = true;
            return received;
        };
        // Missing heartbeats come as an error. Where there are heartbeats and no messages, the relay may be away.
        let Ok(mut next) = tokio::time::timeout(SILENCE, messages.next()).await else {
            received.silent = true;
            return received;
        };
        let mut last = self.buffer.last();
        loop {
            match next.map(|message| message.map(|message| js::recorded(&message))) {
                Some(Ok(Ok(record))) if record.position <= last => {}
                Some(Ok(Ok(record))) if record.position == last + 1 => match codec::deliver(record) {
                    Ok(event) => {
                        last += 1;
                        received.events.push(event);
                    }
                    Err(e) => {
                        received.error = Some(e);
                        received.broken = true;
                    }
                },
                _ => received.broken = true,
            }
            if received.broken || received.events.len() >= PAGE {
                return received;
            }
            match messages.next().now_or_never() {
                Some(message) => next = message,
                None => return received,
            }
        }
    }

    /// Takes in the next page of the log that is being read; 0 at its end, or if it is not being read.
    async fn read_on(&mut self) -> Result<usize, FeedError> {
        let Some(mut scan) = self.reading.take() else { return Ok(0) };
        let Some(page) = scan.next().await? else { return Ok(0) };
        let length = page.len();
        let events = decoded(page)?;
        let count = events.len();
        self.buffer.push(events);
        if count > PAGE {
            // Far ahead of JetStream: what that still has to bring of it is not waited for.
            self.messages = None;
        }
        if count == length {
            self.reading = Some(scan);
        }
        Ok(count)
    }

    async fn take_in(&mut self) -> Result<Outcome, FeedError> {
        if self.reading.is_some() && self.buffer.is_awaited() {
            _ = tokio::time::timeout(SLOW / 10, self.buffer.taken.notified()).await;
            return Ok(Outcome::Idle);
        }
        let mut count = self.read_on().await?;
        if count > 0 {
            return Ok(Outcome::Worked(count));
        }
        let received = self.receive().await;
        count = received.events.len();
        self.buffer.push(received.events);
        if let Some(e) = received.error {
            return Err(e.into());
        }
        if received.broken {
            self.messages = None;
        }
        if received.broken || received.silent {
            self.reading = Some(self.log.scan(self.position(), Position::MAX));
            let missed = self.read_on().await?;
            if missed > 0 {
                self.buffer.gaps.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(events = missed, "read from the log what JetStream did not bring");
            }
            count += missed;
        }
        Ok(if count > 0 { Outcome::Worked(count) } else { Outcome::Idle })
    }
}

#[derive(Default)]
struct Received {
    events: Vec<Delivered>,
    /// JetStream is there, and has nothing.
    silent: bool,
    /// It is not, left something out, or sent what is no event.
    broken: bool,
    error: Option<DecodeError>,
}

impl Step for Feed {
    type Error = FeedError;

    fn name(&self) -> &'static str {
        "feed"
    }

    /// Waits for a message, for two seconds at most.
    async fn step(&mut self) -> Result<Outcome, FeedError> {
        let taken_in = self.take_in().await;
        if let Err(FeedError::Decode(_)) = taken_in {
            self.buffer.is_stuck.store(true, Ordering::Relaxed);
        }
        taken_in
    }

    async fn wait(&mut self) {}
}

impl Reader {
    /// Up to `limit` events that follow position `after`, without a gap; none if there are none yet.
    ///
    /// # Errors
    /// When the next one is not known to this build. When it is further behind than the buffer reaches, and the log cannot
    /// be read.
    pub async fn next(&mut self, after: Position, limit: usize) -> Result<Vec<Delivered>, FeedError> {
        self.come_to(after);
        if self.grown.borrow_and_update().le(&after) {
            // What it is that is not known, the log says.
            let is_stuck = self.buffer.is_stuck.load(Ordering::Relaxed);
            return if is_stuck { self.read_log(after, limit).await } else { Ok(vec![]) };
        }
        {
            let events = lock(&self.buffer.events);
            if let Some(first) = events.front().map(|e| e.record().position)
                && first <= after + 1
            {
                let skipped = (after + 1 - first) as usize;
                return Ok(events.iter().skip(skipped).take(limit).cloned().collect());
            }
        }
        self.read_log(after, limit).await
    }

    /// The same, or the first 2,000 of them, read from the log, whatever has come from JetStream.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<Delivered>, FeedError> {
        decoded(self.log.read_all(after, limit.min(READ) as i64).await?)
    }

    fn come_to(&self, position: Position) {
        let mut place = lock(&self.place);
        if place.0 != position {
            *place = (position, Instant::now());
            self.buffer.taken.notify_one();
        }
    }

    /// Returns when there may be events after `after`.
    pub async fn grown(&mut self) {
        _ = self.grown.changed().await;
    }
}

/// The events up to the first that this build does not know; an error if that is the first of them.
fn decoded(page: Vec<RecordedEvent>) -> Result<Vec<Delivered>, FeedError> {
    let mut events = Vec::with_capacity(page.len());
    for record in page {
        match codec::deliver(record) {
            Ok(event) => events.push(event),
            Err(e) if events.is_empty() => return Err(e.into()),
            // What is before it can be taken in.
            Err(_) => break,
        }
    }
    Ok(events)
}
