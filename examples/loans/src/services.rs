//! The library's services: how its commands are decided, its command API, and how its effects are carried out.

use crate::domain::{Effect, Loans};
use crate::library::{BOOK, Book, Command, Event, LOAN, Loan, Rejection};
use engine::codec;
use engine::follow_up::{Due, Settlement};
use runtime::api::{Door, Service};
use runtime::commands::{Commands, Verb};
use runtime::executor::{self, Decide, ExecuteError, Executor, Session};
use runtime::process::StartError;
use runtime::sender::{self, NotExecuted, Policy, execute, park};
use runtime::wire::{Code, ErrorBody};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;
use store::{Branch, NewEvent, StreamId};
use uuid::Uuid;

/// Decides the commands of the library.
#[derive(Debug, Clone, Copy)]
pub enum Librarian {}

/// The state of a stream of the library.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    Book(Book),
    Loan(Loan),
}

impl executor::State for State {
    type Event = Event;

    fn new(stream: StreamId) -> Self {
        if stream.category == BOOK { Self::Book(Book::default()) } else { Self::Loan(Loan::default()) }
    }

    fn evolve(&mut self, event: &Event) {
        match self {
            Self::Book(book) => book.evolve(event),
            Self::Loan(loan) => loan.evolve(event),
        }
    }

    fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    fn from_json(_: StreamId, json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

impl Decide for Librarian {
    type Domain = Loans;
    type Command = Command;
    type Rejection = Rejection;
    type State = State;

    const SNAPSHOT_VERSION: i64 = 1;

    fn encode(event: &Event) -> NewEvent {
        codec::encode(event.event_type(), 1, event)
    }

    /// Streams are loaded in one order: a book before a loan.
    async fn decide(command: &Command, session: &mut Session<'_, Self>) -> Result<(), ExecuteError<Self>> {
        match command {
            Command::AddBook { book_id, title } => {
                let book = load_book(session, *book_id).await?.add(title)?;
                session.append(0, book);
                session.correlate(*book_id);
            }
            Command::Queue { book_id, reader } => {
                let book = load_book(session, *book_id).await?.queue(reader)?;
                session.append(0, book);
                session.correlate(*book_id);
            }
            Command::Return { book_id, loan_id } => {
                let book = load_book(session, *book_id).await?.take_back(*loan_id)?;
                session.append(0, book);
                session.correlate(*loan_id);
            }
            Command::Lend { loan_id, book_id, reader, days } => {
                let book = load_book(session, *book_id).await?.lend(*loan_id, reader)?;
                let loan = load_loan(session, *loan_id).await?.begin(*loan_id, *book_id, reader, *days)?;
                session.append(0, book);
                session.append(1, loan);
                session.correlate(*loan_id);
            }
            Command::GiveBack { loan_id } => {
                let loan = load_loan(session, *loan_id).await?.end(*loan_id)?;
                session.append(0, loan);
                session.correlate(*loan_id);
            }
        }
        Ok(())
    }

    fn refusal(rejection: &Rejection, message: String) -> ErrorBody {
        ErrorBody { detail: Some(json!(rejection)), ..ErrorBody::new(Code::Rejected, message) }
    }
}

impl From<Rejection> for ExecuteError<Librarian> {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

async fn load_book<'a>(session: &'a mut Session<'_, Librarian>, id: Uuid) -> Result<&'a Book, ExecuteError<Librarian>> {
    match session.load(StreamId { category: BOOK, id }).await? {
        State::Book(book) => Ok(book),
        State::Loan(_) => unreachable!("the state of a book's stream is a book's"),
    }
}

async fn load_loan<'a>(session: &'a mut Session<'_, Librarian>, id: Uuid) -> Result<&'a Loan, ExecuteError<Librarian>> {
    match session.load(StreamId { category: LOAN, id }).await? {
        State::Loan(loan) => Ok(loan),
        State::Book(_) => unreachable!("the state of a loan's stream is a loan's"),
    }
}

/// Declares a verb of the command API: its name, its fields, and the command that they make.
macro_rules! verbs {
    ($($name:ident = $verb:literal { $($field:ident: $type:ty),+ })+) => {
        $(#[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $(pub $field: $type),+ }

        impl Verb for $name {
            type Decider = Librarian;
            const NAME: &'static str = $verb;

            fn command(self) -> Command {
                let Self { $($field),+ } = self;
                Command::$name { $($field),+ }
            }
        })+

        /// Starts the command API.
        ///
        /// # Errors
        /// When NATS cannot be reached.
        pub async fn start_verbs(door: Door, executor: Executor<Librarian>) -> Result<Service, StartError> {
            let mut commands = Commands::new(door, "loans-commands", "The library's command API", executor).await?;
            $(commands.verb::<$name>().await?;)+
            Ok(commands.into_service())
        }
    };
}

verbs! {
    AddBook = "book.add" { book_id: Uuid, title: String }
    Queue = "book.queue" { book_id: Uuid, reader: String }
    Lend = "loan.lend" { loan_id: Uuid, book_id: Uuid, reader: String, days: u8 }
    GiveBack = "loan.give_back" { loan_id: Uuid }
}

/// The longest wait between two attempts of an effect.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);
const AGAIN: Policy = Policy { attempts: 100, first: Duration::from_millis(100), last: LONGEST_WAIT };

/// What effects can reach.
pub struct Effects {
    pub executor: Executor<Librarian>,
    pub pool: PgPool,
}

impl sender::Effects for Effects {
    type Domain = Loans;

    async fn perform(&self, due: &Due<Effect>, branch: &Branch) -> Settlement<Effect> {
        if branch.is_lost() {
            return AGAIN.retry(due, "the log has gone on from an older state", LONGEST_WAIT);
        }
        let done = match &due.effect {
            Effect::Command(command) => execute(&self.executor, due, branch, command.clone()).await,
            Effect::Remind { loan_id, reader } => self.remind(due.id, *loan_id, reader).await,
        };
        match done {
            Ok(()) => Settlement::Accepted,
            Err(NotExecuted::Failed(reason)) => AGAIN.retry(due, &reason, LONGEST_WAIT),
            Err(NotExecuted::Rejected(rejection)) => park(due, rejection.to_string()),
            Err(NotExecuted::Unfit(reason)) => park(due, reason),
        }
    }
}

impl Effects {
    /// Sends a reminder, once for its id. This library writes it down; another would send a letter.
    async fn remind(&self, id: Uuid, loan_id: Uuid, reader: &str) -> Result<(), NotExecuted<Librarian>> {
        let remind = "INSERT INTO daybook.reminders (id, loan_id, reader) VALUES ($1, $2, $3)
                      ON CONFLICT ON CONSTRAINT reminders_id DO NOTHING";
        let reminded = sqlx::query(remind).bind(id).bind(loan_id).bind(reader).execute(&self.pool).await;
        reminded.map(drop).map_err(|e| NotExecuted::Failed(e.to_string()))
    }
}
