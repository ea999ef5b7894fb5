//! `daybook doctor`: what is missing or misconfigured, and what to do about it.

use super::{Failure, output, target};
use crate::config::{Role, Servers};
use crate::doctor;
use store::Level;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The role to check for. Repeat the option for several roles. By default, all roles are checked.
    #[arg(long = "role", value_enum)]
    roles: Vec<Role>,
}

pub(super) async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let roles = if args.roles.is_empty() { Role::ALL.to_vec() } else { args.roles.clone() };
    // With neither server named, both are those of the `daybook dev` that runs.
    let nats = match servers.database_url()? {
        Some(_) => target::nats_that_is_set(servers)?,
        None => Some(target::nats(servers)?),
    };
    let findings =
        doctor::findings(&target::database_url(servers)?, nats.as_ref(), &roles, servers.clock_tolerance()).await;
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
