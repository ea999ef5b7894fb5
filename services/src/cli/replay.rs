//! `daybook replay PROJECTION`: a read model, rebuilt from the log.

use super::{Failure, output, target};
use crate::config::Servers;
use crate::replay::replay;
use crate::{codec, readable};
use projections::ReadModel;
use store::Log;
use store::connect::{self, Role};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The read model: order_summary, stock_level or event_index.
    #[arg(value_parser = parse)]
    projection: ReadModel,
}

fn parse(name: &str) -> Result<ReadModel, String> {
    let names = || ReadModel::ALL.map(ReadModel::name).join(", ");
    ReadModel::from_name(name).ok_or_else(|| format!("the read models are {}", names()))
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let urls = target::urls(servers)?;
    let read = connect::pool(&urls.database_url, Role::Read, 1)?;
    let log = Log::new(read.clone(), codec::CATEGORIES);
    log.identity().await?;
    readable::check(&read).await?;
    let pool = connect::pool(&urls.database_url, Role::Project, 2)?;
    let bar = output::bar(0, args.projection.name());
    let replayed = replay(&log, &pool, args.projection, |position, target| {
        bar.set_length(target.max(position) as u64);
        bar.set_position(position as u64);
    });
    let replayed = replayed.await.map_err(|e| Failure::Unavailable(e.to_string()))?;
    bar.finish_and_clear();
    if json {
        output::line(&serde_json::to_string(&replayed)?);
    } else {
        let name = args.projection.name();
        output::line(&format!("{name}: {} rows from {} events", replayed.rows, replayed.events));
        output::line(&match replayed.differences {
            0 => "the live rows were the same".to_owned(),
            n => format!("{n} rows were different, and are right now"),
        });
    }
    Ok(())
}
