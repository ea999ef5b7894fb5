//! The rules of the library: its events, what they make of a book and of a loan, and what may happen next. Nothing here
//! reads a clock, a database or a network.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use store::Category;
use uuid::Uuid;

// The same stands in the table `daybook.categories`: the migration adds them.
pub const BOOK: Category = Category { id: 100, name: "book", domain: "loans" };
pub const LOAN: Category = Category { id: 101, name: "loan", domain: "loans" };

/// Declares the events: the category, the type, and the fields, which are the payload.
macro_rules! events {
    ($($category:ident: $name:ident { $($field:ident: $type:ty),+ })+) => {
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Event { $($name { $($field: $type),+ }),+ }

        impl Event {
            pub fn event_type(&self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name)),+ }
            }

            pub fn is_known(category: &str, event_type: &str) -> bool {
                [$(($category.name, stringify!($name))),+].contains(&(category, event_type))
            }

            /// `None` for a type that is not declared.
            pub fn from_payload(
                category: &str,
                event_type: &str,
                payload: &str,
            ) -> Result<Option<Self>, serde_json::Error> {
                $(if (category, event_type) == ($category.name, stringify!($name)) {
                    #[derive(Deserialize)]
                    struct Fields { $($field: $type),+ }
                    let Fields { $($field),+ } = serde_json::from_str(payload)?;
                    return Ok(Some(Self::$name { $($field),+ }));
                })+
                Ok(None)
            }
        }
    };
}

events! {
    BOOK: BookAdded { title: String }
    BOOK: BookLent { loan_id: Uuid, reader: String }
    BOOK: BookReturned { loan_id: Uuid }
    BOOK: ReaderQueued { reader: String }
    BOOK: BookOffered { reader: String }
    LOAN: LoanBegun { loan_id: Uuid, book_id: Uuid, reader: String, days: u8 }
    LOAN: LoanEnded { loan_id: Uuid, book_id: Uuid }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    AddBook {
        book_id: Uuid,
        title: String,
    },
    Lend {
        loan_id: Uuid,
        book_id: Uuid,
        reader: String,
        days: u8,
    },
    GiveBack {
        loan_id: Uuid,
    },
    Queue {
        book_id: Uuid,
        reader: String,
    },
    /// Not a client's: it follows from the end of a loan.
    Return {
        book_id: Uuid,
        loan_id: Uuid,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Rejection {
    #[error("there is no such book")]
    NoSuchBook,
    #[error("there is another book of this id")]
    OtherBook,
    #[error("the book is lent")]
    BookIsLent,
    #[error("the book is kept for another reader, who has waited for it")]
    BookIsKept,
    #[error("the book is on the shelf: borrow it")]
    BookIsIn,
    #[error("there is no such loan")]
    NoSuchLoan,
    #[error("there is another loan of this id")]
    OtherLoan,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Book {
    title: Option<String>,
    lent: Option<Uuid>,
    kept_for: Option<String>,
    waiting: VecDeque<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Loan {
    book_id: Option<Uuid>,
    has_ended: bool,
}

/// What a command comes to. No events: it is so already.
type Decided = Result<Vec<Event>, Rejection>;

impl Book {
    pub fn evolve(&mut self, event: &Event) {
        match event {
            Event::BookAdded { title } => self.title = Some(title.clone()),
            Event::BookLent { loan_id, .. } => (self.lent, self.kept_for) = (Some(*loan_id), None),
            Event::BookReturned { .. } => self.lent = None,
            Event::ReaderQueued { reader } => self.waiting.push_back(reader.clone()),
            Event::BookOffered { .. } => self.kept_for = self.waiting.pop_front(),
            Event::LoanBegun { .. } | Event::LoanEnded { .. } => {}
        }
    }

    pub fn add(&self, title: &str) -> Decided {
        match &self.title {
            None => Ok(vec![Event::BookAdded { title: title.to_owned() }]),
            Some(known) if known == title => Ok(vec![]),
            Some(_) => Err(Rejection::OtherBook),
        }
    }

    pub fn lend(&self, loan_id: Uuid, reader: &str) -> Decided {
        match self {
            Self { title: None, .. } => Err(Rejection::NoSuchBook),
            Self { lent: Some(lent), .. } if *lent == loan_id => Ok(vec![]),
            Self { lent: Some(_), .. } => Err(Rejection::BookIsLent),
            Self { kept_for: Some(other), .. } if other != reader => Err(Rejection::BookIsKept),
            Self { .. } => Ok(vec![Event::BookLent { loan_id, reader: reader.to_owned() }]),
        }
    }

    pub fn queue(&self, reader: &str) -> Decided {
        match self {
            Self { title: None, .. } => Err(Rejection::NoSuchBook),
            Self { lent: None, kept_for: None, .. } => Err(Rejection::BookIsIn),
            Self { waiting, .. } if waiting.iter().any(|waits| waits == reader) => Ok(vec![]),
            Self { .. } => Ok(vec![Event::ReaderQueued { reader: reader.to_owned() }]),
        }
    }

    /// The next reader who waits is offered the book.
    pub fn take_back(&self, loan_id: Uuid) -> Decided {
        if self.lent != Some(loan_id) {
            return Ok(vec![]);
        }
        let offered = self.waiting.front().map(|reader| Event::BookOffered { reader: reader.clone() });
        Ok([Event::BookReturned { loan_id }].into_iter().chain(offered).collect())
    }
}

impl Loan {
    pub fn evolve(&mut self, event: &Event) {
        match event {
            Event::LoanBegun { book_id, .. } => self.book_id = Some(*book_id),
            Event::LoanEnded { .. } => self.has_ended = true,
            Event::BookAdded { .. }
            | Event::BookLent { .. }
            | Event::BookReturned { .. }
            | Event::ReaderQueued { .. }
            | Event::BookOffered { .. } => {}
        }
    }

    pub fn begin(&self, loan_id: Uuid, book_id: Uuid, reader: &str, days: u8) -> Decided {
        match self {
            Self { book_id: None, .. } => {
                Ok(vec![Event::LoanBegun { loan_id, book_id, reader: reader.to_owned(), days }])
            }
            Self { book_id: Some(book), has_ended: false } if *book == book_id => Ok(vec![]),
            Self { .. } => Err(Rejection::OtherLoan),
        }
    }

    pub fn end(&self, loan_id: Uuid) -> Decided {
        match self {
            Self { book_id: None, .. } => Err(Rejection::NoSuchLoan),
            Self { has_ended: true, .. } => Ok(vec![]),
            Self { book_id: Some(book_id), .. } => Ok(vec![Event::LoanEnded { loan_id, book_id: *book_id }]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(events: &[Event]) -> Book {
        let mut book = Book::default();
        events.iter().for_each(|event| book.evolve(event));
        book
    }

    #[test]
    fn a_book_that_comes_back_is_kept_for_the_reader_who_has_waited_longest() {
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let queued = |reader: &str| Event::ReaderQueued { reader: reader.into() };
        let lent = Event::BookLent { loan_id: first, reader: "Ann".into() };
        let out = book(&[Event::BookAdded { title: "Emma".into() }, lent, queued("Ben"), queued("Cal")]);
        assert_eq!(out.lend(second, "Ben"), Err(Rejection::BookIsLent));
        assert_eq!(
            (out.lend(first, "Ann"), out.queue("Cal"), out.take_back(second)),
            (Ok(vec![]), Ok(vec![]), Ok(vec![]))
        );
        let mut kept = out.clone();
        out.take_back(first).unwrap().iter().for_each(|event| kept.evolve(event));
        assert_eq!(kept.lend(second, "Cal"), Err(Rejection::BookIsKept));
        assert_eq!(kept.lend(second, "Ben"), Ok(vec![Event::BookLent { loan_id: second, reader: "Ben".into() }]));
    }

    #[test]
    fn an_event_comes_back_as_it_was_stored() {
        let event = Event::LoanEnded { loan_id: Uuid::from_u128(1), book_id: Uuid::from_u128(2) };
        let payload = serde_json::to_string(&event).unwrap();
        assert_eq!(Event::from_payload("loan", event.event_type(), &payload).unwrap(), Some(event));
        assert_eq!(Event::from_payload("book", "LoanEnded", &payload).unwrap(), None);
    }
}
