//! The order domain's services, assembled into a process by its roles.

use crate::effects::Effects;
use crate::policy::{LONGEST_WAIT, Timeouts};
use crate::{Executor, notifier, queries, verbs};
use order_views::{CATEGORIES, Orders, Projection};
use runtime::nats::Nats;
use runtime::process::{Context, Process, StartError, Urls};
use runtime::readable;
use runtime::sender::Limits;
use std::collections::BTreeSet;
use std::time::Duration;
use store::clock;
use store::connect::{self, Role as Database};

/// A part of the system that a process can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
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
    /// Writes notices to customers into a table.
    Notifier,
}

impl Role {
    pub const ALL: [Self; 6] =
        [Self::Commands, Self::Queries, Self::Relay, Self::Projectors, Self::Sender, Self::Notifier];

    /// The name that it is run by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Queries => "queries",
            Self::Relay => "relay",
            Self::Projectors => "projectors",
            Self::Sender => "sender",
            Self::Notifier => "notifier",
        }
    }

    /// What it may do in Postgres.
    pub fn database(self) -> &'static [Database] {
        match self {
            // Who executes commands keeps snapshots of streams.
            Self::Commands | Self::Sender => &[Database::Append, Database::Project, Database::Read],
            Self::Queries => &[Database::Read],
            Self::Relay | Self::Projectors | Self::Notifier => &[Database::Project, Database::Read],
        }
    }

    /// What a process of these roles may do in Postgres.
    pub fn databases(roles: &[Self]) -> Vec<Database> {
        roles.iter().flat_map(|role| role.database()).copied().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Connects to servers at URLs that say all that has to be known of them.
///
/// # Errors
/// As those of [`connect()`].
pub async fn connect_to(urls: &Urls) -> Result<Context, StartError> {
    connect(&urls.database_url, &[Database::Read], Nats::at(&urls.nats_url)?, clock::TOLERANCE).await
}

/// Connects, and checks that the log is one that this build can use, in these roles. Postgres' clock and this process' may be
/// so far apart.
///
/// # Errors
/// When Postgres or NATS cannot be reached, the database is not Daybook's, or holds what this build cannot read.
pub async fn connect(
    database_url: &str,
    roles: &[Database],
    nats: Nats,
    clock_tolerance: Duration,
) -> Result<Context, StartError> {
    let projections = Projection::all().count();
    let context = Context::connect(database_url, roles, nats, CATEGORIES, clock_tolerance, projections).await?;
    readable::check::<Orders>(&context.read).await?;
    Ok(context)
}

/// Starts the services of `roles`. Nobody answers for the payment provider: that is another service.
///
/// # Errors
/// As those of [`connect()`].
pub async fn start(
    database_url: &str,
    nats: Nats,
    roles: &[Role],
    timeouts: Timeouts,
) -> Result<(Context, Process), StartError> {
    connect::check_pooler(database_url).await?;
    let context = connect(database_url, &Role::databases(roles), nats, timeouts.clock_tolerance).await?;
    let executor: Executor = context.executor().await?;
    let mut process = Process::start(&context);
    process.watch(&executor);
    for role in roles {
        match role {
            Role::Commands => process.serve(verbs::start(context.door(), executor.clone()).await?),
            Role::Queries => {
                // Queries may wait for their read model: they are not to keep connections from commands.
                let pool = connect::pool(database_url, Database::Read, 8)?;
                process.serve(queries::start(context.door(), pool.clone()).await?);
                process.close(pool);
            }
            Role::Relay => process.relay(&context).await?,
            Role::Projectors => process.project::<Orders>(&context).await?,
            Role::Sender => {
                let Timeouts { longest_wait, clock_tolerance, .. } = timeouts;
                let limits = Limits { longest_wait: longest_wait.min(LONGEST_WAIT), clock_tolerance };
                let effects = Effects::new(executor.clone(), context.client.clone(), timeouts);
                process.send(&context, effects, limits);
            }
            Role::Notifier => process.serve(notifier::start(context.door(), context.project.clone()).await?),
        }
    }
    process.ready().await?;
    Ok((context, process))
}
