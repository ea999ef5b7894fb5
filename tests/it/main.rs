//! Stories on the real binary and real servers: one Postgres for the run with a database a test, a nats-server a test.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod binary;
mod business;
mod distribution;
mod docs;
mod edges;
mod harness;
mod log;
mod one_history;
mod read_side;
mod two_domains;
