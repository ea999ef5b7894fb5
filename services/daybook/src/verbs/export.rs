//! `daybook export FILE`: the log, or a part of it, as a file that can be imported again.

use cli::config::Servers;
use cli::shutdown;
use cli::{Failure, output, target};
use order_views::CATEGORIES;
use runtime::archive::{self, ExportError, Writer};
use serde_json::json;
use std::path::Path;
use store::connect::{self, Role};
use store::{Log, Position};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The file to write; - for standard output. An existing file is replaced once the export is complete.
    file: String,
    /// The first position. A part that begins after 1 can be imported only together with the parts before it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    from: Position,
    /// The last position. By default, the present end of the log.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    to: Option<Position>,
    /// Compress with zstd. A FILE that ends with .zst is always compressed.
    #[arg(long)]
    zstd: bool,
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let Args { file, from, to, zstd } = args;
    if to.is_some_and(|to| to < *from) {
        return Err(Failure::Usage("--to is before --from".into()));
    }
    let pool = connect::checked_pool(&target::database_url(servers)?, Role::Read, 1).await?;
    let log = Log::new(pool, CATEGORIES);
    let bar = output::bar(0, "events");
    let progress = |position: Position, last: Position| {
        bar.set_length((last - from + 1) as u64);
        bar.set_position((position - from + 1) as u64);
    };
    let exported = if file == "-" {
        archive::export(&log, *from, *to, Writer::to_stdout(*zstd)?, progress).await
    } else {
        // Asked for first: what is half written does not stay, whenever it is interrupted.
        let interrupted = shutdown::requested();
        let unwritable = |e| Failure::Usage(format!("{file} cannot be written: {e}"));
        let writer = Writer::to_file(Path::new(file), *zstd || file.ends_with(".zst")).map_err(unwritable)?;
        tokio::select! {
            exported = archive::export(&log, *from, *to, writer, progress) => exported,
            () = interrupted => return Err(Failure::Other("interrupted".into())),
        }
    };
    bar.finish_and_clear();
    let last = exported.map_err(|e| match e {
        ExportError::Empty => Failure::Refused(format!("{e}: there is nothing to export")),
        ExportError::Beyond { .. } => Failure::Usage(e.to_string()),
        ExportError::Log(e) => e.into(),
        ExportError::Gap(_) | ExportError::Write(_) => Failure::Other(e.to_string()),
    })?;
    let events = last - from + 1;
    match (file.as_str(), json) {
        ("-", _) => output::say(&format!("{events} events, positions {from} to {last}")),
        (_, true) => output::line(&json!({ "events": events, "from": from, "to": last }).to_string()),
        (_, false) => output::line(&format!("{file}: {events} events, positions {from} to {last}")),
    }
    Ok(())
}
