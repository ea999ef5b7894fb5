//! The order domain: pure functions over orders, payments, stock and shipments.
//!
//! No I/O, no clock, no randomness: time and new ids arrive with the command. What an aggregate may do stands in its
//! own file; what follows from an event elsewhere stands in [`reaction`], and what follows
//! if nothing does for a while in [`timer`].

mod aggregate;
mod command;
mod event;
mod fault;
pub mod id;
pub mod money;
pub mod order;
pub mod payment;
pub mod reaction;
mod rejection;
#[cfg(test)]
mod schemas;
pub mod shipment;
pub mod stock;
#[cfg(test)]
mod testing;
pub mod timer;
mod words;

pub use aggregate::Aggregate;
pub use command::Command;
pub use event::Event;
pub use fault::Fault;
pub use rejection::Rejection;
