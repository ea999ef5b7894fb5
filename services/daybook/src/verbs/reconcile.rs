//! `daybook reconcile`: after a restore of Postgres, JetStream holds a history that the log does not have. The log goes
//! on in its next epoch, and the stream is filled again from it. `--report` tells what may have been done outside in the
//! name of the lost events (`report.rs`).

mod report;

use cli::config::Servers;
use cli::{Failure, output, target};
use order_views::CATEGORIES;
use runtime::process::{StartError, jetstream};
use runtime::relay::{Reconciled, Relay};
use serde_json::json;
use store::Log;
use store::connect::{self, Role};
use tokio::sync::watch;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Change nothing. List the outside effects of events that the log has lost: money that the provider moved, and
    /// notices that customers may have received. Services may run.
    #[arg(long)]
    report: bool,
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    if args.report {
        return report::run(servers, json).await;
    }
    let pool = connect::checked_pool(&target::database_url(servers)?, Role::Project, 2).await?;
    let log = Log::new(pool.clone(), CATEGORIES);
    let nats = target::nats(servers)?;
    let client = nats.relay.connect("daybook reconcile").await.map_err(StartError::from)?;
    let (_hint, hinted) = watch::channel(0);
    let mut relay = Relay::new(log, pool, jetstream(&client), hinted).with_replicas(nats.replicas);
    let reconciled = relay.reconcile().await.map_err(|e| Failure::Unavailable(e.to_string()))?;
    let Reconciled { epoch, diverged } = reconciled;
    match (json, diverged) {
        (true, diverged) => output::line(&json!({ "epoch": epoch, "diverged": diverged }).to_string()),
        (false, Some(why)) => {
            output::say(&format!("JetStream carried another history: {why}"));
            output::line(&format!(
                "the log goes on in epoch {epoch}; `daybook reconcile --report` tells what was lost"
            ));
        }
        (false, None) => output::line("JetStream carries this log: there is nothing to do"),
    }
    Ok(())
}
