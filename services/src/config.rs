//! Where the servers are, and what is run: flags and environment, read here and nowhere else.

use crate::nats;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where the servers are.
#[derive(Clone, Args)]
pub struct Servers {
    /// Postgres, as postgresql://user@host/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, help_heading = "Global options")]
    pub database_url: Option<String>,
    /// NATS with JetStream, as nats://host:4222.
    #[arg(long, env = "NATS_URL", hide_env_values = true, global = true, help_heading = "Global options")]
    pub nats_url: Option<String>,
    #[command(flatten)]
    pub nats: nats::Args,
}

/// Both servers, named. URLs may hold passwords: they are left out of `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Urls {
    pub database_url: String,
    pub nats_url: String,
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Urls").finish_non_exhaustive()
    }
}

/// A part of the system that a process can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    /// Answers commands.
    Commands,
    /// Answers queries.
    Queries,
    /// Publishes the log to JetStream.
    Relay,
    /// Keeps the read models and the follow-ups current.
    Projectors,
    /// Does what follow-ups say, and what timers say once they are due.
    Sender,
    /// The simulated payment provider.
    Provider,
    /// Writes down what customers are told.
    Notifier,
}

impl Role {
    pub const ALL: [Self; 7] =
        [Self::Commands, Self::Queries, Self::Relay, Self::Projectors, Self::Sender, Self::Provider, Self::Notifier];
}
