//! The library on the engine: how its events are stored, what follows from them, and its read model.

use crate::ReadModel;
use crate::library::{BOOK, Command, Event, LOAN};
use engine::{Domain, FollowUp, Timer, TimerChange};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::LazyLock;
use store::schema::Part;
use store::{Category, StreamId};
use uuid::Uuid;

/// The library's part of the schema.
pub static LOANS: LazyLock<Part> = LazyLock::new(|| Part::new("loans", sqlx::migrate!("./migrations")));

const DAY: u32 = 24 * 60 * 60;

/// What follows from an event, at once or after a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    Command(Command),
    Remind { loan_id: Uuid, reader: String },
}

/// The domain of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loans {}

impl Domain for Loans {
    type Event = Event;
    type Effect = Effect;
    type ReadModel = ReadModel;

    const NAME: &'static str = "loans";
    const CATEGORIES: &'static [Category] = &[BOOK, LOAN];
    const FOLLOW_UPS: &'static str = "loans_follow_ups";
    const TIMERS: &'static str = "loans_timers";
    const SENDER: &'static str = "loans_sender";

    fn current_version(category: &str, event_type: &str) -> Option<i16> {
        Event::is_known(category, event_type).then_some(1)
    }

    fn from_payload(stream: StreamId, event_type: &str, payload: &str) -> Result<Option<Event>, serde_json::Error> {
        Event::from_payload(stream.category.name, event_type, payload)
    }

    /// Effects hold no secrets.
    fn redact(_: &mut Value) {}

    /// A loan that has ended brings its book back.
    fn react(event: &Event) -> Vec<FollowUp<Effect>> {
        match *event {
            Event::LoanEnded { loan_id, book_id } => {
                let effect = Effect::Command(Command::Return { book_id, loan_id });
                vec![FollowUp { reaction: "return book", target: book_id, effect }]
            }
            Event::BookAdded { .. }
            | Event::BookLent { .. }
            | Event::BookReturned { .. }
            | Event::ReaderQueued { .. }
            | Event::BookOffered { .. }
            | Event::LoanBegun { .. } => vec![],
        }
    }

    /// A reader is reminded of a loan that is overdue.
    fn timers(event: &Event) -> Vec<TimerChange<Effect>> {
        let timer = |loan_id| Timer { kind: "overdue", target: loan_id, key: String::new() };
        match event {
            Event::LoanBegun { loan_id, reader, days, .. } => {
                let effect = Effect::Remind { loan_id: *loan_id, reader: reader.clone() };
                vec![TimerChange::Set { timer: timer(*loan_id), after_seconds: u32::from(*days) * DAY, effect }]
            }
            Event::LoanEnded { loan_id, .. } => vec![TimerChange::Clear(timer(*loan_id))],
            Event::BookAdded { .. }
            | Event::BookLent { .. }
            | Event::BookReturned { .. }
            | Event::ReaderQueued { .. }
            | Event::BookOffered { .. } => vec![],
        }
    }
}
