//! The parts of the system that a process can run, as the command line names them.

use clap::ValueEnum;
use order_services::process::Role;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Answers commands.
    Commands,
    /// Answers queries.
    Queries,
    /// Publishes the log to JetStream.
    Relay,
    /// Keeps the read models, the follow-ups and the timers up to date.
    Projectors,
    /// Carries out follow-ups, and timers once they are due.
    Sender,
    /// Simulates a payment provider.
    #[cfg(feature = "dev")]
    Provider,
    /// Writes notices to customers into a table.
    Notifier,
}

impl Part {
    /// The service that it is; `None` for the simulated payment provider.
    fn service(self) -> Option<Role> {
        Some(match self {
            Self::Commands => Role::Commands,
            Self::Queries => Role::Queries,
            Self::Relay => Role::Relay,
            Self::Projectors => Role::Projectors,
            Self::Sender => Role::Sender,
            #[cfg(feature = "dev")]
            Self::Provider => return None,
            Self::Notifier => Role::Notifier,
        })
    }
}

/// What a process runs.
pub(super) struct Parts {
    pub(super) roles: Vec<Role>,
    /// Whether it answers for the payment provider.
    pub(super) provider: bool,
}

impl Parts {
    /// The parts that are named; everything if none is.
    pub(super) fn of(named: &[Part]) -> Self {
        let parts = if named.is_empty() { Part::value_variants() } else { named };
        let roles: Vec<Role> = parts.iter().filter_map(|part| part.service()).collect();
        Self { provider: roles.len() < parts.len(), roles }
    }
}
