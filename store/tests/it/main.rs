//! The proofs of the log, on a real Postgres with a database for each test. They need no NATS and no orders: the events
//! are those of a small bank.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod append_group;
mod appending;
mod appends;
mod audit;
mod bank;
mod by_hand;
mod crashing;
mod event_types;
mod examples;
mod harness;
mod hot_streams;
mod linearizable;
mod migrating;
mod model;
mod open_transactions;
mod reading;
mod roles;
mod snapshots;
mod subscribing;
