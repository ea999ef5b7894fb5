//! Every service of the order domain in one process, the simulated payment provider too.

use crate::provider;
use order_services::policy::Timeouts;
use order_services::process::{self, Role};
use runtime::nats::Nats;
use runtime::process::{Context, Process, StartError, Urls};

/// Starts everything on servers at URLs that say all that has to be known of them.
///
/// # Errors
/// When Postgres or NATS cannot be reached, or the log cannot be used.
pub async fn start(urls: &Urls, timeouts: Timeouts) -> Result<Process, StartError> {
    start_on(&urls.database_url, Nats::at(&urls.nats_url)?, timeouts).await
}

/// Starts everything.
///
/// # Errors
/// As those of [`start`].
pub async fn start_on(database_url: &str, nats: Nats, timeouts: Timeouts) -> Result<Process, StartError> {
    let (context, mut process) = process::start(database_url, nats, &Role::ALL, timeouts).await?;
    add_provider(&context, &mut process, timeouts).await?;
    Ok(process)
}

/// Has the process answer for the payment provider as well.
///
/// # Errors
/// When NATS cannot be reached.
pub async fn add_provider(context: &Context, process: &mut Process, timeouts: Timeouts) -> Result<(), StartError> {
    // What is late comes when the sender has given up.
    let late = timeouts.answer.mul_f64(1.5);
    process.serve(provider::start(context.door(), context.project.clone(), late).await?);
    process.ready().await
}
