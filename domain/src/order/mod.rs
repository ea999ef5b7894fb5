//! The order: what was bought, from placement to its end.

mod command;
mod decide;
mod event;
mod history;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Command, PlaceLine, PlaceOrder, PlacePayment};
pub use decide::{Cancellation, Rejection, cancel};
pub use event::*;
pub use state::{Order, Status};
