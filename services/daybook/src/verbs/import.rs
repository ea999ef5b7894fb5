//! `daybook import log FILE`: an export becomes the log of an empty database. `daybook import olist DIR` is in `olist.rs`.

use cli::config::Servers;
use cli::{Failure, output, target};
use order_views::{CATEGORIES, Projection};
use runtime::archive::{self, ImportError};
use serde_json::json;
use std::fs::File;
use std::io::{self, Read};
use store::checkpoint::AdvanceError;
use store::connect::{self, Role};
use store::{ImportError as NotImported, Log, Position};

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Fill the empty log with an export: all of it, or nothing. Nothing follows from its events here: no payment is
    /// taken and no notice sent again.
    Log {
        /// The file, compressed with zstd or not; - for standard input.
        file: String,
    },
    /// Record the orders of a folder as history: the public Olist data set, as CSV files. Ids need not be UUIDs. Nothing
    /// follows from these events. If an import was interrupted, run it again: it records the rest.
    #[cfg(feature = "dev")]
    Olist(::dev::import::Args),
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    match verb {
        Verb::Log { file } => log(&file, servers, json).await,
        #[cfg(feature = "dev")]
        Verb::Olist(args) => ::dev::import::run(&args, servers, json).await,
    }
}

async fn log(file: &str, servers: &Servers, json: bool) -> Result<(), Failure> {
    let url = target::database_url(servers)?;
    Log::new(connect::checked_pool(&url, Role::Read, 1).await?, CATEGORIES).identity().await?;
    let input: Box<dyn Read + Send> = match file {
        "-" => Box::new(io::stdin()),
        file => Box::new(File::open(file).map_err(|e| Failure::Usage(format!("{file} cannot be read: {e}")))?),
    };
    let bar = output::bar(0, "events");
    let imported =
        archive::import(&url, CATEGORIES, &Projection::EFFECTS, input, |position: Position, last: Position| {
            bar.set_length(last as u64);
            bar.set_position(position as u64);
        });
    let imported = imported.await;
    bar.finish_and_clear();
    let last = imported.map_err(|e| match e {
        ImportError::Log(NotImported::Database(e) | NotImported::Checkpoint(AdvanceError::Database(e))) => e.into(),
        ImportError::Log(e) => Failure::Refused(format!("{e}: nothing is imported")),
        e => Failure::Usage(format!("{file}: {e}; nothing is imported")),
    })?;
    match json {
        true => output::line(&json!({ "events": last, "position": last }).to_string()),
        false => output::line(&format!("{last} events, positions 1 to {last}")),
    }
    output::say("nothing follows from them here: what was still due where they come from is not done");
    Ok(())
}
