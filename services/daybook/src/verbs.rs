//! The command line: one file a verb.

mod dead_letters;
mod diff;
mod doctor;
mod events;
mod export;
mod history;
mod import;
mod order;
mod orders;
mod projections;
mod reconcile;
mod replay;
mod revenue;
mod role;
mod serve;
mod shipment;
mod shipments;
mod stock;
mod verify;
mod waiting;

use crate::telemetry;
use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use cli::{Failure, config, migrate, output};
use runtime::client::ClientError;
use runtime::wire::Fault;
use std::process::ExitCode;

/// An event-sourced order backend on Postgres and NATS JetStream.
#[derive(Parser)]
#[command(name = "daybook", version, after_help = after_help())]
struct Cli {
    #[command(flatten)]
    servers: config::Servers,
    /// Print one JSON object per line instead of text.
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// How a verb ends.
const EXIT_CODES: &str = "\
A command uses the servers at DATABASE_URL and NATS_URL. If neither is set, it uses the `daybook dev` that runs.
Data goes to stdout, messages go to stderr. RUST_LOG sets what is logged; NO_COLOR turns colours off.

Exit codes:
  0  success
  1  a check has found a problem
  2  wrong usage
  3  refused, or not found; or this build cannot rely on the server, or cannot read its log
  4  a server is missing or does not answer; try again
  5  any other error";

fn after_help() -> String {
    format!("{EXIT_CODES}\n\n{}", runtime::nats::help().trim_end())
}

#[derive(Subcommand)]
enum Verb {
    /// Run sample orders on a private Postgres and NATS, and check how each of them ends.
    #[cfg(feature = "dev")]
    Demo(::dev::demo::Args),
    /// Run a private Postgres and NATS with every service, until Ctrl-C.
    #[cfg(feature = "dev")]
    Dev(::dev::private::Args),
    /// Run the services on DATABASE_URL and NATS_URL, until Ctrl-C or SIGTERM.
    Serve(serve::Args),
    /// Create or update the schema and the database roles in DATABASE_URL.
    Migrate(migrate::Args),
    /// Check the settings of Postgres and NATS, and say how to correct them.
    Doctor(doctor::Args),
    /// Place, show or change an order.
    #[command(subcommand)]
    Order(order::Verb),
    /// List orders, newest first.
    Orders(orders::Args),
    /// List the orders that wait: for what, since when, and which of their follow-ups failed.
    Waiting(waiting::Args),
    /// Receive, correct or show stock.
    #[command(subcommand)]
    Stock(stock::Verb),
    /// Show a shipment, or record what the warehouse or the carrier did with it.
    #[command(subcommand)]
    Shipment(shipment::Verb),
    /// List, retry or discard dead letters: follow-ups that failed, and events that a projection cannot apply.
    #[command(subcommand)]
    DeadLetters(dead_letters::Verb),
    /// List shipments, oldest first. By default, those that are not dispatched yet.
    Shipments(shipments::Args),
    /// Show captured and refunded amounts by day or month.
    Revenue(revenue::Args),
    /// Read the log.
    #[command(subcommand)]
    Events(events::Verb),
    /// Export the log to a file, one CloudEvent per line.
    Export(export::Args),
    /// Import an exported log, or the orders of another system.
    #[command(subcommand)]
    Import(import::Verb),
    /// Rebuild a read model from the log beside the live one, compare both, and switch to the new one.
    Replay(replay::Args),
    /// List, pause or resume the projections.
    #[command(subcommand)]
    Projections(projections::Verb),
    /// Make JetStream follow the log again after the database was restored to an older state. Stop every service first.
    Reconcile(reconcile::Args),
    /// Measure the throughput of the log on this machine, next to an upper bound measured in the same run.
    #[cfg(feature = "dev")]
    Bench(::dev::bench::Args),
    /// Check the invariants of the log and of the business, and that log, JetStream and read models agree.
    Verify(verify::Args),
}

/// The command line, with all its help: `docs/cli.md` is made from it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the verb that the command line names.
pub fn main() -> ExitCode {
    let matches = without_empty_variables(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    migrate::parts().into_iter().for_each(store::schema::rely_on);
    let serves = match cli.verb {
        Verb::Serve(_) => true,
        #[cfg(feature = "dev")]
        Verb::Dev(_) => true,
        _ => false,
    };
    telemetry::start(if serves { "info,async_nats=warn" } else { "off,daybook::nats=warn" });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            output::say(&format!("daybook: the runtime cannot be started: {e}"));
            return ExitCode::from(5);
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::say(&format!("daybook: {}", failure.chain()));
            if let Failure::Client(ClientError::Refused(body)) = &failure {
                let say =
                    |fault: &Fault| output::say(&output::one_line(&format!("  {}: {}", fault.field, fault.expected)));
                body.fields.iter().for_each(say);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// A variable that is empty is not set: files for containers often name every variable, with and without a value.
fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg });
    command.mut_subcommands(without_empty_variables)
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { servers, json, verb } = cli;
    match verb {
        #[cfg(feature = "dev")]
        Verb::Demo(args) => ::dev::demo::run(args, &servers, json).await,
        #[cfg(feature = "dev")]
        Verb::Dev(args) => ::dev::private::run(args, json).await,
        Verb::Serve(args) => serve::run(&args, &servers).await,
        Verb::Migrate(args) => migrate::run(&args, &servers).await,
        Verb::Doctor(args) => doctor::run(&args, &servers, json).await,
        Verb::Order(verb) => order::run(verb, &servers, json).await,
        Verb::Orders(args) => orders::run(args, &servers, json).await,
        Verb::Waiting(args) => waiting::run(args, &servers, json).await,
        Verb::Stock(verb) => stock::run(verb, &servers, json).await,
        Verb::Shipment(verb) => shipment::run(verb, &servers, json).await,
        Verb::DeadLetters(verb) => dead_letters::run(verb, &servers, json).await,
        Verb::Shipments(args) => shipments::run(args, &servers, json).await,
        Verb::Revenue(args) => revenue::run(args, &servers, json).await,
        Verb::Events(verb) => events::run(verb, &servers, json).await,
        Verb::Export(args) => export::run(&args, &servers, json).await,
        Verb::Import(verb) => import::run(verb, &servers, json).await,
        Verb::Replay(args) => replay::run(&args, &servers, json).await,
        Verb::Projections(verb) => projections::run(verb, &servers, json).await,
        Verb::Reconcile(args) => reconcile::run(&args, &servers, json).await,
        #[cfg(feature = "dev")]
        Verb::Bench(args) => ::dev::bench::run(args, json).await,
        Verb::Verify(args) => verify::run(&args, &servers, json).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::orders::order::MAX_APPROVAL_SECONDS;

    /// The command line takes as many hours as the domain does, and no more.
    #[test]
    fn an_approval_may_take_as_long_as_the_domain_lets_it() {
        let hours = MAX_APPROVAL_SECONDS / 3600;
        let asked = |hours: u32| {
            let (id, hours) = (uuid::Uuid::nil().to_string(), hours.to_string());
            Cli::try_parse_from(["daybook", "order", "request-approval", &id, "--within-hours", &hours]).is_ok()
        };
        assert_eq!([0, 1, hours, hours + 1].map(asked), [false, true, true, false]);
    }
}
