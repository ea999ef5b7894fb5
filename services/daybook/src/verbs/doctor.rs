//! `daybook doctor`: what is missing or misconfigured, and what to do about it.

use super::role::{Part, Parts};
use crate::findings;
use cli::config::Servers;
use cli::{Failure, output, target};
use store::Level;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The role to check for. Repeat the option for several roles. By default, all roles are checked.
    #[arg(long = "role", value_enum)]
    parts: Vec<Part>,
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let roles = Parts::of(&args.parts).roles;
    // With neither server named, both are those of the `daybook dev` that runs.
    let nats = match servers.database_url()? {
        Some(_) => target::nats_that_is_set(servers)?,
        None => Some(target::nats(servers)?),
    };
    let findings =
        findings::findings(&target::database_url(servers)?, nats.as_ref(), &roles, servers.clock_tolerance()).await;
    if json {
        for finding in &findings {
            output::line(&serde_json::to_string(finding)?);
        }
    } else {
        let row = |finding: &store::Finding| {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Wrong => "wrong",
            };
            vec![level.to_owned(), finding.subject.to_owned(), finding.to_string()]
        };
        let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
        output::line(&output::table(&["", "about", "finding"], &rows));
    }
    match findings.iter().filter(|finding| finding.is_wrong()).count() {
        0 => Ok(()),
        1 => Err(Failure::Differs("1 problem was found".into())),
        wrong => Err(Failure::Differs(format!("{wrong} problems were found"))),
    }
}
