//! Appends and reads of a few streams, against the model of the log.

use super::checker::{Client, Clock, Sequential, is_linearizable};
use super::{seeded, seeds};
use crate::harness::{self, database};
use crate::model::{Event, Model, Outcome, Place, Try, Write};
use daybook_store::ExpectedVersion::{Any, Exact, Exists, NoStream};
use daybook_store::{Appender, Log, Position, Version};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) enum Op {
    Append(Try),
    /// A stream from its beginning.
    Read(u64),
    /// The log after a position.
    ReadAll(Position),
}

#[derive(Debug)]
pub(super) enum Answer {
    Appended(Outcome),
    Read(Vec<(Position, Event)>),
}

impl Sequential for Model {
    type Op = Op;
    type Answer = Answer;

    fn explains(&mut self, op: &Op, answer: Option<&Answer>) -> bool {
        let events = || (1..).zip(self.events.iter().copied());
        match (op, answer) {
            (Op::Append(append), Some(Answer::Appended(outcome))) => self.append(append) == *outcome,
            (Op::Read(stream), Some(Answer::Read(read))) => {
                events().filter(|(_, event)| event.stream == *stream).eq(read.iter().copied())
            }
            (Op::ReadAll(after), Some(Answer::Read(read))) => {
                events().filter(|(position, _)| position > after).eq(read.iter().copied())
            }
            (op, answer) => unreachable!("{op:?} is answered: {answer:?}"),
        }
    }
}

const STREAMS: u64 = 2;
const CALLS: usize = 8;

/// A client, and what it believes the versions to be.
struct Writer<'a> {
    appender: &'a Appender,
    place: Place,
    believed: [Version; STREAMS as usize],
    commands: &'a AtomicU64,
    random: StdRng,
}

impl Writer<'_> {
    /// Mostly, to a stream where it is believed to end.
    fn next(&mut self) -> Try {
        let random = &mut self.random;
        let mut streams: Vec<u64> = (0..STREAMS).collect();
        if random.random_bool(0.7) {
            streams.remove(random.random_range(0..streams.len()));
        }
        let streams = streams.into_iter().map(|stream| {
            let expected = match self.believed[stream as usize] {
                _ if random.random_bool(0.1) => *[NoStream, Exists, Any].choose(random).unwrap(),
                0 => NoStream,
                version => Exact(version),
            };
            Write { stream, expected, events: random.random_range(0..3) }
        });
        let streams = streams.collect();
        // An id of one that was sent before, by anybody, now and then.
        let next = self.commands.load(Ordering::SeqCst);
        let again = next > 0 && self.random.random_bool(0.15);
        let command = match again {
            true => self.random.random_range(0..next),
            false => self.commands.fetch_add(1, Ordering::SeqCst),
        };
        Try { command, streams, flaw: None, speculative: false }
    }

    async fn run(mut self, clock: &Clock) -> Client<Model> {
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            let append = self.next();
            let (appender, place) = (self.appender, self.place);
            let call = clock.call(Op::Append(append.clone()), async |_: &Op| {
                let outcome = appender.append(place.append(&append)).await;
                Some(Answer::Appended(place.outcome(&append, outcome)))
            });
            let call = call.await;
            match call.answer() {
                Some(Answer::Appended(Outcome::Written { versions, .. })) => {
                    for (write, version) in append.streams.iter().zip(versions).filter(|(w, _)| w.events > 0) {
                        self.believed[write.stream as usize] = *version;
                    }
                }
                Some(Answer::Appended(Outcome::Conflict { stream, actual, .. })) => {
                    self.believed[*stream as usize] = *actual;
                }
                _ => {}
            }
            calls.push(call);
        }
        calls
    }
}

async fn read(log: &Log, place: Place, clock: &Clock, mut random: StdRng) -> Client<Model> {
    let mut calls: Client<Model> = Vec::new();
    for _ in 0..CALLS {
        let op = match random.random_range(0..=STREAMS) {
            STREAMS => Op::ReadAll(random.random_range(0..10)),
            stream => Op::Read(stream),
        };
        let read = async |op: &Op| {
            let events = match op {
                Op::Read(stream) => log.read_stream(place.stream(*stream), 0, 1000).await,
                Op::ReadAll(after) => log.read_all(place.start + after, 1000).await,
                Op::Append(_) => unreachable!("it reads"),
            };
            Some(Answer::Read(events.unwrap().iter().map(|event| place.event(event)).collect()))
        };
        calls.push(clock.call(op, read).await);
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_reads_of_the_log_are_linearizable() {
    let url = database().await;
    let log = harness::log(&url);
    let appenders = [Appender::start(&url).unwrap(), Appender::start(&url).unwrap()];
    for seed in seeds() {
        let mut random = seeded(seed);
        let place = Place::after(&log).await;
        let (clock, commands) = (Clock::default(), AtomicU64::new(0));
        let mut writer = |n: usize| {
            let random = StdRng::from_rng(&mut random);
            Writer { appender: &appenders[n % 2], place, believed: [0; 2], commands: &commands, random }.run(&clock)
        };
        let writing = futures_util::future::join_all((0..5).map(&mut writer));
        let reading =
            futures_util::future::join_all((0..2).map(|_| read(&log, place, &clock, StdRng::from_rng(&mut random))));
        let (mut history, readers) = tokio::join!(writing, reading);
        history.extend(readers);
        assert!(is_linearizable(Model::default(), &history), "seed {seed}: {history:#?}");
    }
}
