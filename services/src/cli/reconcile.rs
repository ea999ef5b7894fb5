//! `daybook reconcile`: after a restore of Postgres, JetStream holds a history that the log does not have. The log goes
//! on in its next epoch, and the stream is filled again from it.

use super::{Failure, output, target};
use crate::codec;
use crate::config::Servers;
use crate::process::{connect_nats, jetstream};
use crate::relay::{Relay, RelayError};
use crate::subject;
use serde_json::json;
use store::connect::{self, Role};
use store::{Log, begin_epoch};
use tokio::sync::watch;

pub(super) async fn run(servers: &Servers, json: bool) -> Result<(), Failure> {
    let urls = target::urls(servers)?;
    let pool = connect::pool(&urls.database_url, Role::Read, 2)?;
    let log = Log::new(pool.clone(), codec::CATEGORIES);
    let nats = connect_nats(&urls.nats_url, "daybook reconcile").await?;
    let jetstream = jetstream(&nats);
    let (_hint, hinted) = watch::channel(0);
    let relay = Relay::new(log.clone(), pool, jetstream.clone(), hinted);
    let unavailable = |e: RelayError| Failure::Unavailable(e.to_string());
    let diverged = relay.diverged().await.map_err(unavailable)?;
    if let Some(why) = &diverged {
        output::say(&format!("JetStream carries another history: {why}"));
        // The epoch first: a stream of the old one is never taken for this one's, whatever happens in between.
        let distributed = relay.distributed().await.map_err(unavailable)?;
        begin_epoch(&urls.database_url, distributed.map_or(0, |identity| identity.epoch)).await?;
        let deleted = jetstream.delete_stream(subject::STREAM).await;
        deleted.map_err(|e| Failure::Unavailable(format!("the stream cannot be removed: {e}")))?;
        // Made anew, from the oldest event that is still needed; the services' relay fills it.
        relay.diverged().await.map_err(unavailable)?;
    }
    let epoch = log.identity().await?.epoch;
    match (json, diverged) {
        (true, diverged) => output::line(&json!({ "epoch": epoch, "diverged": diverged }).to_string()),
        (false, Some(_)) => output::line(&format!("the log goes on in epoch {epoch}; start the services again")),
        (false, None) => output::line("JetStream carries this log: there is nothing to do"),
    }
    Ok(())
}
