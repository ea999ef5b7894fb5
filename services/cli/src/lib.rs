//! What the verbs of the command line share: configuration, the servers that a verb is about, exit codes, tables.
//!
//! Data goes to stdout, messages and progress to stderr; `--json` gives one JSON object a line.

pub mod config;
mod failure;
pub mod logins;
pub mod migrate;
pub mod output;
pub mod serve;
pub mod shutdown;
pub mod target;

pub use failure::Failure;
