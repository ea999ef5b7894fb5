//! What came of an import: how many rows were recorded, what was left out and why, and what is untidy in what was not.

use super::history::Untidy;
use orders::id::OrderId;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub orders: Rows,
    pub items: Rows,
    pub payments: Rows,
    /// How many events this import has written.
    pub events: usize,
    pub left_out: Vec<LeftOut>,
    /// How many of the orders in the log are untidy, by what it is.
    pub untidy: BTreeMap<Untidy, usize>,
    pub notes: Vec<Note>,
    pub not_taken: Vec<NotTaken>,
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
    pub what: What,
    /// The order's id, as the files write it.
    pub order: String,
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl LeftOut {
    pub(super) fn new(what: What, order: OrderId, why: String, remedy: &'static str) -> Self {
        Self { what, order: order.0.simple().to_string(), why, remedy }
    }
}

/// Something about a recorded order that its events do not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    pub order: String,
    pub note: String,
}

/// What of a file is not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    pub file: String,
    /// By name; `all`, if nothing of it is read.
    pub columns: Vec<String>,
}
