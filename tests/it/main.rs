//! Stories on the real binary and real servers: one Postgres for the run with a database a test, a nats-server a test.

mod harness;
mod orders;
