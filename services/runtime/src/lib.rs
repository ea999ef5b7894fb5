//! What runs a domain: the loops between Postgres and NATS, and the endpoints that clients reach it by. It knows no order.
//!
//! - commands: [`commands`] takes them from NATS, [`executor`] decides and appends them;
//! - queries: [`queries`] answers them from the read models;
//! - distribution: [`relay`] publishes the log to JetStream, [`feed`] brings it to the projections of a process;
//! - projections: [`projector`] keeps one current, [`replay`] rebuilds one;
//! - verification: [`verify`] checks what is the same in every domain;
//! - effects: [`sender`] carries out follow-ups, [`sweeper`] makes follow-ups of timers that are due.

mod alarm;
pub mod api;
pub mod archive;
mod backoff;
mod cache;
pub mod client;
pub mod commands;
#[cfg(test)]
mod counts;
pub mod dead_letters;
pub mod executor;
pub mod feed;
pub mod health;
pub mod lease;
pub mod message;
pub mod nats;
pub mod percent;
pub mod process;
pub mod projector;
pub mod queries;
pub mod readable;
pub mod relay;
pub mod replay;
pub mod search;
pub mod sender;
pub mod step;
mod strict;
pub mod subject;
pub mod subscription;
pub mod sweeper;
pub mod text;
pub mod verify;
pub mod wire;
