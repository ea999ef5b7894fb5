//! The order: what was bought, from placement to its end, and back.

mod change;
mod command;
mod contents;
mod decide;
mod delivery;
mod display_status;
mod edit;
mod event;
mod history;
mod hold;
mod refund;
mod rejection;
mod reservation;
mod returns;
mod state;
#[cfg(test)]
mod tests;

pub use change::{Change, Changed};
pub use command::{Command, PlaceLine, PlaceOrder, PlacePayment, ProposeEdit};
pub use display_status::DisplayStatus;
pub use event::*;
pub use hold::MAX_APPROVAL_SECONDS;
pub use rejection::Rejection;
pub use state::{Approval, Order, Status};
