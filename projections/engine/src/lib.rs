//! The engine: folds a log into the rows of any domain.
//!
//! A [`Domain`] says how its events are decoded, what follows from them, and which read models it has. The engine does the
//! rest, in one transaction with the checkpoint: rows, parking, rebuilding, follow-ups, timers. It knows no order.
//!
//! A read model can be thrown away and rebuilt: a [`ReadModel`] is all that a replay can name. Follow-ups and timers are
//! effects to come, and no read models: nothing can replay them.

pub mod apply;
pub mod codec;
pub mod dead_letter;
mod delivered;
pub mod distribution;
mod domain;
pub mod event_index;
pub mod follow_up;
mod generation;
pub mod parked;
mod projection;
pub mod rebuild;
pub mod row;
pub mod schema;
pub mod status;
pub mod timer;

pub use delivered::{Batch, Delivered, Recorded};
pub use domain::{Domain, FollowUp, Timer, TimerChange};
pub use generation::{Comparison, Difference};
pub use projection::{Projection, ReadModel};
// What `read_models!` expands to.
pub use sqlx;
pub use store;
