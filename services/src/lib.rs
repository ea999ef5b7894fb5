//! The `daybook` binary: every loop, subject, endpoint and verb.
//!
//! Rules of the domain are not here: a handler decodes, calls `execute` and encodes.

mod aggregates;
mod alarm;
pub mod api;
pub mod archive;
pub mod cli;
pub mod client;
pub mod codec;
pub mod command_api;
pub mod config;
pub mod dead_letters;
pub mod distribution;
pub mod doctor;
pub mod execute;
pub mod feed;
pub mod health;
pub mod js;
pub mod logins;
pub mod lost;
pub mod nats;
pub mod notifier;
pub mod olist;
pub mod outside;
mod percent;
pub mod policy;
pub mod process;
pub mod projector;
pub mod provider;
pub mod query_api;
pub mod readable;
pub mod relay;
pub mod replay;
pub mod search;
pub mod sender;
pub mod shutdown;
pub mod step;
mod strict;
pub mod subject;
pub mod subscription;
pub mod telemetry;
pub mod time_travel;
pub mod timers;
pub mod verify;
pub mod wire;
