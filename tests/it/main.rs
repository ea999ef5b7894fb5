//! Stories on the real binary and real servers: one Postgres for the run with a database a test, a nats-server a test.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod appends;
mod archive;
mod binary;
mod buyers;
mod changes;
mod choreography;
mod crashing;
mod dead_letters;
mod event_types;
mod evolution;
mod follow_ups;
mod harness;
mod holding;
mod hot;
mod linearizable;
mod long_streams;
mod model;
mod olist;
mod orders;
mod payments;
mod poison;
mod postgres_roles;
mod projecting;
mod querying;
mod races;
mod reading;
mod relaying;
mod replaying;
mod retrying;
mod subscribing;
mod timers;
mod verifying;
mod waiting;
mod wire;
