//! One attempt to take money: `Requested → Authorised → captured, shipment by shipment → refunded`; or `Declined`, or
//! `Voided`, or expired.
//!
//! What the provider is to do is an event first, with the key that makes it happen once; what came of it is another.

mod capture;
mod command;
mod decide;
mod event;
mod history;
mod refund;
mod state;
#[cfg(test)]
mod tests;
mod unknown;
mod void;

pub use command::{Call, Command, Outcome, ProviderNotice};
pub use decide::Rejection;
pub use event::*;
pub use state::{Payment, Status};
