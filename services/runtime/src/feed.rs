//! The events of the log, decoded once a process, for all its projections.
//!
//! They come from JetStream, one after the other, and are passed on group by group, when the group's link proves them. A
//! gap, a silence, a stream that is gone or a message that does not fit is answered by reading the log instead, and
//! counted. A projection that is further behind than the buffer reaches reads the log itself.
//!
//! A link proves that events belong together. That they are the log's is proved where they have an effect: the transaction
//! that moves a checkpoint compares the link with the log.

use crate::backoff::Backoff;
use crate::step::{Outcome, Step};
use crate::{message, subject};
use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use engine::codec::{self, DecodeError};
use engine::{Batch, Delivered, Domain};
use futures_util::{FutureExt, StreamExt};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use store::{Category, Chain, Log, Mark, Page, Position, ReadError, RecordedEvent, Scan};
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
/// How often the log is read while JetStream has no stream, or one that is not believed.
const WITHOUT_STREAM: Duration = Duration::from_millis(250);
/// How long JetStream is not asked after it was of no use: it brought nothing, or what is not the log's, which the relay is
/// to remove first. From the first time to the longest.
const FIRST_DISTRUST: Duration = Duration::from_millis(250);
const LAST_DISTRUST: Duration = Duration::from_secs(8);

#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// What was taken before may not be in the log any more.
    #[error("the log has gone on from an older state")]
    OtherHistory,
}

/// Takes events in. One a process.
pub struct Feed<D: Domain> {
    log: Log,
    jetstream: Context,
    buffer: Arc<Buffer<D>>,
    messages: Option<pull::Stream>,
    /// The log, being read to its end because JetStream failed: it is left for later.
    reading: Option<Scan>,
    /// What has been passed on, and the group that is arriving; `None` until the log was asked where that is.
    chain: Option<Chain>,
    /// The events of the group that is arriving.
    arriving: Vec<Delivered<D>>,
    trust: Trust,
}

/// How far JetStream is believed. Each time it is asked costs it a consumer: so it is not asked without a rest.
struct Trust {
    /// It is not asked before.
    asked_after: Option<tokio::time::Instant>,
    pauses: Backoff,
}

impl Default for Trust {
    fn default() -> Self {
        Self { asked_after: None, pauses: Backoff::new(FIRST_DISTRUST, FIRST_DISTRUST, LAST_DISTRUST) }
    }
}

impl Trust {
    fn may_ask(&self) -> bool {
        self.asked_after.is_none_or(|after| after <= tokio::time::Instant::now())
    }

    /// It has brought what can be used.
    fn was_right(&mut self) {
        self.pauses.went_well();
    }

    fn was_wrong(&mut self) {
        self.asked_after = Some(tokio::time::Instant::now() + self.pauses.pause());
    }
}

/// Where a projection takes events from.
pub struct Reader<D: Domain> {
    log: Log,
    buffer: Arc<Buffer<D>>,
    place: Arc<Place>,
    grown: watch::Receiver<Position>,
    /// Which of the log's histories it reads.
    history: u64,
}

/// How far a reader has come, and when it came there.
type Place = Mutex<(Position, Instant)>;

struct Buffer<D: Domain> {
    kept: Mutex<Kept<D>>,
    /// The position of the last event.
    last: watch::Sender<Position>,
    /// How often the log had to be asked because JetStream left something out, or was silent.
    gaps: AtomicU64,
    /// How often JetStream has sent what is not the log's.
    foreign: AtomicU64,
    /// How often the log was found to have another history.
    histories: AtomicU64,
    /// What is kept may not be the log's: the log is read instead.
    is_doubted: AtomicBool,
    /// What comes after the last event is not known to this build.
    is_stuck: AtomicBool,
    readers: Mutex<Vec<Weak<Place>>>,
    /// A reader has gone on.
    taken: Notify,
}

struct Kept<D: Domain> {
    /// Consecutive.
    events: VecDeque<Delivered<D>>,
    /// The marks that prove them: each proves the events up to it.
    proofs: VecDeque<Mark>,
}

impl<D: Domain> Default for Kept<D> {
    fn default() -> Self {
        Self { events: VecDeque::new(), proofs: VecDeque::new() }
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: Domain> Buffer<D> {
    fn last(&self) -> Position {
        *self.last.borrow()
    }

    /// Takes in events that follow the last one without a gap.
    fn push(&self, Batch { events: new, proof }: Batch<D>) {
        let Some(last) = new.last().map(|e| e.record().position) else { return };
        let mut kept = lock(&self.kept);
        // Whoever reads counts from the first event on: a hole would be passed over.
        let before = kept.events.back().map(|e| e.record().position);
        if before.is_some_and(|before| new.first().is_none_or(|e| e.record().position != before + 1)) {
            *kept = Kept::default();
        }
        let Kept { events, proofs } = &mut *kept;
        events.extend(new);
        proofs.push_back(proof);
        let excess = events.len().saturating_sub(BUFFER);
        events.drain(..excess);
        if let Some(first) = events.front().map(|e| e.record().position) {
            let useless = proofs.partition_point(|proof| proof.position < first);
            proofs.drain(..useless);
        }
        drop(kept);
        self.is_stuck.store(false, Ordering::Relaxed);
        self.last.send_replace(last);
    }

    /// Forgets what is kept. What follows is after `position`.
    fn begin_after(&self, position: Position) {
        *lock(&self.kept) = Kept::default();
        self.is_doubted.store(false, Ordering::Release);
        self.last.send_replace(position);
    }

    /// Whether a page more would push out what a reader that goes on has still to take: it would have to read and decode
    /// that by itself.
    fn is_awaited(&self) -> bool {
        let kept = lock(&self.kept);
        let events = &kept.events;
        let Some(first) =
            events.front().map(|e| e.record().position).filter(|_| events.len() + Scan::MOST as usize > BUFFER)
        else {
            return false;
        };
        drop(kept);
        let kept = self.last() + Scan::MOST - BUFFER as Position + 1;
        let mut readers = lock(&self.readers);
        readers.retain(|place| place.strong_count() > 0);
        readers.iter().filter_map(Weak::upgrade).any(|place| {
            let (taken, at) = *lock(&place);
            at.elapsed() < SLOW && (first..kept).contains(&(taken + 1))
        })
    }
}

impl<D: Domain> Feed<D> {
    /// A feed of what comes after position `after`.
    pub fn new(log: Log, jetstream: Context, after: Position) -> Self {
        let buffer = Buffer {
            kept: Mutex::default(),
            last: watch::Sender::new(after),
            gaps: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            histories: AtomicU64::new(0),
            is_doubted: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            readers: Mutex::default(),
            taken: Notify::new(),
        };
        Self {
            log,
            jetstream,
            buffer: Arc::new(buffer),
            messages: None,
            reading: None,
            chain: None,
            arriving: vec![],
            trust: Trust::default(),
        }
    }

    pub fn reader(&self) -> Reader<D> {
        let place = Arc::new(Place::new((0, Instant::now())));
        lock(&self.buffer.readers).push(Arc::downgrade(&place));
        let (buffer, grown) = (self.buffer.clone(), self.buffer.last.subscribe());
        let history = buffer.histories.load(Ordering::Acquire);
        Reader { log: self.log.clone(), buffer, place, grown, history }
    }

    /// The position of the last event that was taken in.
    pub fn position(&self) -> Position {
        self.buffer.last()
    }

    /// How often the log had to be asked instead of JetStream.
    pub fn gaps(&self) -> u64 {
        self.buffer.gaps.load(Ordering::Relaxed)
    }

    /// How often JetStream has sent what is not the log's.
    pub fn foreign(&self) -> u64 {
        self.buffer.foreign.load(Ordering::Relaxed)
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

    /// Takes in the groups that are complete of the messages that have arrived, up to the first that does not fit; waits for
    /// the first one.
    async fn receive(&mut self) -> Received {
        let mut received = Received::default();
        if self.messages.is_none() && self.trust.may_ask() {
            self.messages = tokio::time::timeout(SUBSCRIBE, self.subscribe()).await.ok().flatten();
            if self.messages.is_none() {
                self.trust.was_wrong();
            }
        }
        let (Some(messages), Some(chain)) = (&mut self.messages, &mut self.chain) else {
            tokio::time::sleep(WITHOUT_STREAM).await;
            received.broken = true;
            return received;
        };
        // Missing heartbeats come as an error. Where there are heartbeats and no messages, the relay may be away.
        let Ok(mut next) = tokio::time::timeout(SILENCE, messages.next()).await else {
            received.silent = true;
            return received;
        };
        let mut events = Vec::new();
        loop {
            let taken = match next {
                Some(Ok(message)) => take(self.log.all_categories(), chain, &mut self.arriving, &mut events, &message),
                Some(Err(_)) | None => Err(Unusable::Lost),
            };
            match taken {
                Ok(()) => {}
                Err(Unusable::Lost) => received.broken = true,
                Err(Unusable::Unknown(e)) => {
                    received.error = Some(e);
                    received.broken = true;
                }
                Err(Unusable::Foreign(why)) => {
                    self.buffer.foreign.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%why, "JetStream has sent what is not the log's: the log is read instead");
                    received.broken = true;
                    received.foreign = true;
                }
            }
            if received.broken || events.len() >= PAGE {
                break;
            }
            match messages.next().now_or_never() {
                Some(message) => next = message,
                None => break,
            }
        }
        received.count = events.len();
        if received.foreign || (received.broken && received.count == 0) {
            self.trust.was_wrong();
        } else if received.count > 0 {
            self.trust.was_right();
        }
        let proof = chain.end();
        self.buffer.push(Batch { events, proof });
        received
    }

    /// Takes in a page of the log; says how many events that are. It is fewer than the page has, if one is not known.
    fn take_page(&mut self, page: Page) -> Result<usize, FeedError> {
        let (length, proof) = (page.events.len(), page.end);
        let events = decoded(page.events)?;
        let count = events.len();
        self.chain = (count == length).then(|| Chain::after(proof));
        self.arriving.clear();
        self.buffer.push(Batch { events, proof });
        Ok(count)
    }

    /// Takes in the next page of the log that is being read; 0 at its end, or if it is not being read.
    async fn read_on(&mut self) -> Result<usize, FeedError> {
        let Some(mut scan) = self.reading.take() else { return Ok(0) };
        let page = match scan.next().await {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(0),
            Err(ReadError::OtherHistory(_)) => return self.begin_on_other_history().await.map(|()| 0),
            Err(e) => return Err(e.into()),
        };
        let count = self.take_page(page)?;
        if count > PAGE {
            // Far ahead of JetStream: what that still has to bring of it is not waited for.
            self.messages = None;
        }
        if self.chain.is_some() {
            self.reading = Some(scan);
        }
        Ok(count)
    }

    /// Finds the place in the log where what was passed on ends.
    async fn begin(&mut self) -> Result<(), FeedError> {
        let after = self.position();
        let proof = lock(&self.buffer.kept).proofs.back().copied();
        if let Some(proof) = proof
            && !self.log.has(proof).await?
        {
            return self.begin_on_other_history().await;
        }
        if let Some(mark) = self.log.mark(after).await? {
            self.chain = Some(Chain::after(mark));
        } else if let Some(page) = self.log.read_groups(after, PAGE as i64).await? {
            // In the middle of a group: the rest of it comes from the log.
            self.take_page(page)?;
        } else {
            self.begin_on_other_history().await?;
        }
        Ok(())
    }

    /// The log does not have what was passed on. What it has, the readers read themselves; what comes is passed on.
    async fn begin_on_other_history(&mut self) -> Result<(), FeedError> {
        let end = self.log.end().await?;
        tracing::error!(
            had = self.position(),
            ends_at = end.position,
            "the log has gone on from an older state: what was read of the lost events is thrown away"
        );
        self.begin_after(end);
        self.buffer.histories.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn begin_after(&mut self, mark: Mark) {
        (self.messages, self.reading, self.chain) = (None, None, Some(Chain::after(mark)));
        self.arriving.clear();
        self.buffer.begin_after(mark.position);
    }

    /// A reader found that what is kept is not the log's.
    async fn look_at_log(&mut self) -> Result<(), FeedError> {
        // It came from JetStream, and would come again at once.
        self.trust.was_wrong();
        match self.chain.as_ref().map(Chain::end) {
            Some(end) if self.log.has(end).await? => self.begin_after(end),
            _ => self.begin_on_other_history().await?,
        }
        Ok(())
    }

    async fn take_in(&mut self) -> Result<Outcome, FeedError> {
        if self.buffer.is_doubted.load(Ordering::Acquire) {
            self.look_at_log().await?;
        }
        if self.chain.is_none() {
            self.begin().await?;
        }
        if self.reading.is_some() && self.buffer.is_awaited() {
            _ = tokio::time::timeout(SLOW / 10, self.buffer.taken.notified()).await;
            return Ok(Outcome::Idle);
        }
        let mut count = self.read_on().await?;
        if count > 0 {
            return Ok(Outcome::Worked(count));
        }
        let received = self.receive().await;
        count = received.count;
        if received.broken {
            self.messages = None;
            self.arriving.clear();
            self.chain = self.chain.take().map(|chain| Chain::after(chain.end()));
        }
        if let Some(e) = received.error {
            // It has been taken into the chain, and not into the buffer.
            self.chain = None;
            return Err(e.into());
        }
        if (received.broken || received.silent)
            && let Some(chain) = &self.chain
        {
            self.arriving.clear();
            self.reading = Some(self.log.scan_after(chain.end()));
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

/// Takes a message into its group; when that is complete, its events are added to `events`.
fn take<D: Domain>(
    categories: &[Category],
    chain: &mut Chain,
    arriving: &mut Vec<Delivered<D>>,
    events: &mut Vec<Delivered<D>>,
    message: &async_nats::Message,
) -> Result<(), Unusable> {
    let none = HeaderMap::new();
    let headers = message.headers.as_ref().unwrap_or(&none);
    let record = message::recorded(categories, &message.subject, headers, message.payload.clone());
    let record = record.map_err(|e| Unusable::Foreign(e.to_string()))?;
    if record.position <= chain.position() {
        return Ok(());
    }
    // A message of an earlier build has no link: the log is read.
    if record.position > chain.position() + 1 || !message::is_packed(headers) {
        return Err(Unusable::Lost);
    }
    let completes = chain.advance(&record).map_err(|e| Unusable::Foreign(e.to_string()))?;
    arriving.push(codec::deliver(record).map_err(Unusable::Unknown)?);
    if completes {
        events.append(arriving);
    }
    Ok(())
}

/// Why a message is not taken.
enum Unusable {
    /// Others are missing before it.
    Lost,
    /// It is not the log's.
    Foreign(String),
    /// This build does not know it.
    Unknown(DecodeError),
}

#[derive(Default)]
struct Received {
    /// How many events were taken in.
    count: usize,
    /// JetStream is there, and has nothing.
    silent: bool,
    /// It is not, left something out, or has sent what cannot be used.
    broken: bool,
    /// It has sent what is no event of the log.
    foreign: bool,
    error: Option<DecodeError>,
}

impl<D: Domain> Step for Feed<D> {
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

impl<D: Domain> Reader<D> {
    /// Up to `limit` events that follow position `after`, without a gap; `None` if there are none yet.
    ///
    /// # Errors
    /// When the next one is not known to this build. When the log was found to have another history: once; what was taken
    /// before may be lost. When it is further behind than the buffer reaches, and the log cannot be read.
    pub async fn next(&mut self, after: Position, limit: usize) -> Result<Option<Batch<D>>, FeedError> {
        self.come_to(after);
        let history = self.buffer.histories.load(Ordering::Acquire);
        if std::mem::replace(&mut self.history, history) != history {
            return Err(FeedError::OtherHistory);
        }
        if self.buffer.is_doubted.load(Ordering::Acquire) {
            return self.read_log(after, limit).await;
        }
        if self.grown.borrow_and_update().le(&after) {
            // What it is that is not known, the log says.
            let is_stuck = self.buffer.is_stuck.load(Ordering::Relaxed);
            return if is_stuck { self.read_log(after, limit).await } else { Ok(None) };
        }
        match self.kept(after, limit) {
            Some(batch) => Ok(Some(batch)),
            None => self.read_log(after, limit).await,
        }
    }

    /// What is kept of the events that follow `after`; `None` if the next one is not.
    fn kept(&self, after: Position, limit: usize) -> Option<Batch<D>> {
        let Kept { events, proofs } = &*lock(&self.buffer.kept);
        let first = events.front()?.record().position;
        let skipped = usize::try_from(after + 1 - first).ok()?;
        let events: Vec<_> = events.iter().skip(skipped).take(limit).cloned().collect();
        let last = events.last()?.record().position;
        let proof = *proofs.get(proofs.partition_point(|proof| proof.position < last))?;
        Some(Batch { events, proof })
    }

    /// Some `limit` of them, and of 2,000, with what else the last one's group has: read from the log, whatever has come
    /// from JetStream.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn read_log(&self, after: Position, limit: usize) -> Result<Option<Batch<D>>, FeedError> {
        let Some(page) = self.log.read_groups(after, limit.min(READ) as i64).await? else { return Ok(None) };
        Ok(Some(Batch { events: decoded(page.events)?, proof: page.end }))
    }

    /// Whether the log has the events that a mark proves, now. If not, what is kept is not returned again.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn has(&self, proof: Mark) -> Result<bool, FeedError> {
        let has = self.log.has(proof).await?;
        if !has {
            self.doubt();
        }
        Ok(has)
    }

    /// Says that the log does not have what was returned: it is not returned again.
    pub fn doubt(&self) {
        self.buffer.is_doubted.store(true, Ordering::Release);
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
fn decoded<D: Domain>(page: Vec<RecordedEvent>) -> Result<Vec<Delivered<D>>, FeedError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_of_no_use_is_asked_less_and_less_often() {
        let (mut trust, moment) = (Trust::default(), Duration::from_millis(1));
        assert!(trust.may_ask());
        for pause in [250, 500, 1000, 2000, 4000, 8000, 8000] {
            trust.was_wrong();
            tokio::time::advance(Duration::from_millis(pause) - moment).await;
            assert!(!trust.may_ask(), "{pause}");
            tokio::time::advance(moment).await;
            assert!(trust.may_ask(), "{pause}");
            // It is right for a moment.
            trust.was_right();
        }
    }
}
