//! What came of an import: how many rows were recorded, what was left out and why, and what is untidy in what was not.

use super::history::Untidy;
use crate::olist::ids::FileId;
use crate::olist::{CellError, IdOf, Problem, TidiedAmount};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use uuid::Uuid;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub orders: Rows,
    pub items: Rows,
    pub payments: Rows,
    /// How many events this import has written.
    pub events: usize,
    pub left_out: Vec<LeftOut>,
    /// Of the orders in the log, the amounts that a spreadsheet had written. In JSON, how many.
    #[serde(serialize_with = "how_many")]
    pub tidied: Vec<TidiedAmount>,
    /// Of the orders in the log, the ids that are derived from the files'. In JSON, how many.
    #[serde(serialize_with = "how_many_ids")]
    pub derived: BTreeSet<DerivedId>,
    /// The orders in the log that are untidy, by what it is. In JSON, how many.
    #[serde(serialize_with = "how_many_by_kind")]
    pub untidy: BTreeMap<Untidy, Vec<String>>,
    pub notes: Vec<Note>,
    pub not_taken: Vec<NotTaken>,
}

fn how_many<S: Serializer>(all: &[TidiedAmount], serializer: S) -> Result<S::Ok, S::Error> {
    all.len().serialize(serializer)
}

fn how_many_ids<S: Serializer>(all: &BTreeSet<DerivedId>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut by_kind = BTreeMap::<IdOf, usize>::new();
    all.iter().for_each(|id| *by_kind.entry(id.of).or_default() += 1);
    by_kind.serialize(serializer)
}

fn how_many_by_kind<S: Serializer>(all: &BTreeMap<Untidy, Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(all.iter().map(|(kind, orders)| (kind, orders.len())))
}

/// The rows of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Rows {
    pub in_file: usize,
    /// By this import.
    pub recorded: usize,
    /// By an import before.
    pub found: usize,
    pub left_out: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// With all of its items and payments.
    Order,
    Item,
    Payment,
}

impl What {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Item => "item",
            Self::Payment => "payment",
        }
    }
}

/// Something that is not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub kind: Problem,
    pub what: What,
    /// The order's id, as the files write it.
    pub order: String,
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl LeftOut {
    pub(super) fn of_cell(what: What, order: &FileId, error: &CellError, remedy: &'static str) -> Self {
        Self { kind: error.problem, what, order: order.written(), why: error.to_string(), remedy }
    }
}

/// An id that is derived from the files', and what these write for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DerivedId {
    pub of: IdOf,
    pub name: String,
    pub id: Uuid,
}

impl DerivedId {
    pub(super) fn of(of: IdOf, id: Uuid, name: Option<&String>) -> Option<Self> {
        name.map(|name| Self { of, name: name.clone(), id })
    }
}

/// Something about a recorded order that its events do not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    pub kind: NoteKind,
    pub order: String,
    pub note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    TimeMissing,
    /// It was sent, but has no items that could be.
    SentWithoutItems,
}

impl NoteKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimeMissing => "a time is missing",
            Self::SentWithoutItems => "sent without items",
        }
    }
}

/// What of a file is not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    pub file: String,
    /// By name; `all`, if nothing of it is read.
    pub columns: Vec<String>,
}

/// One thing that is to be told, of one of the lists of a report.
#[derive(Serialize)]
#[serde(tag = "list", rename_all = "snake_case")]
enum Line<'a> {
    LeftOut(&'a LeftOut),
    TidiedAmount(&'a TidiedAmount),
    DerivedId(&'a DerivedId),
    Untidy { kind: Untidy, order: &'a str },
    Note(&'a Note),
    NotTaken(&'a NotTaken),
}

impl Report {
    /// Writes all that is to be told, one JSON object a line.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let untidy = self
            .untidy
            .iter()
            .flat_map(|(kind, orders)| orders.iter().map(|order| Line::Untidy { kind: *kind, order }));
        let lines = self
            .left_out
            .iter()
            .map(Line::LeftOut)
            .chain(self.tidied.iter().map(Line::TidiedAmount))
            .chain(self.derived.iter().map(Line::DerivedId))
            .chain(untidy)
            .chain(self.notes.iter().map(Line::Note))
            .chain(self.not_taken.iter().map(Line::NotTaken));
        for line in lines {
            serde_json::to_writer(&mut to, &line)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }
}
