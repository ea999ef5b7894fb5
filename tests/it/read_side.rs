//! Read models, what is parked, and the queries: invariants 13, 14, and 16 to 20.

mod dead_letters;
mod finding;
mod folding;
mod health;
mod poison;
mod projecting;
mod querying;
mod rebuilding;
mod replaying;
pub(crate) mod taking_over;
mod verifying;
mod waiting;
