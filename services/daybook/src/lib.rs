//! The verbs of the `daybook` binary: one file a verb.

mod findings;
mod telemetry;
mod verbs;

pub use verbs::{command, main};
