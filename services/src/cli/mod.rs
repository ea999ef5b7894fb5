//! The command line: one file a verb.
//!
//! Data goes to stdout, messages and progress to stderr; `--json` gives one JSON object a line.

mod bench;
mod dead_letters;
mod demo;
mod dev;
mod diff;
mod doctor;
mod events;
mod export;
mod history;
mod import;
mod migrate;
mod order;
mod orders;
mod output;
mod projections;
mod reconcile;
mod replay;
mod revenue;
mod serve;
mod shipment;
mod shipments;
mod stock;
mod target;
mod verify;
mod waiting;

use crate::client::ClientError;
use crate::process::StartError;
use crate::time_travel::StateAtError;
use crate::wire::Code;
use crate::{config, telemetry};
use clap::{CommandFactory, Parser, Subcommand};
use domain::Fault;
use std::process::ExitCode;
use store::connect::Unusable;

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
    format!("{EXIT_CODES}\n\n{}", crate::nats::help().trim_end())
}

#[derive(Subcommand)]
enum Verb {
    /// Run sample orders on a private Postgres and NATS, and check how each of them ends.
    Demo(demo::Args),
    /// Run a private Postgres and NATS with every service, until Ctrl-C.
    Dev(dev::Args),
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
    Bench(bench::Args),
    /// Check the invariants of the log and of the business, and that log, JetStream and read models agree.
    Verify(verify::Args),
}

/// Why a verb did not do what it was asked to; each kind has an exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// What was to be checked was, and is not as it should be. What is wrong has been printed.
    #[error("{0}")]
    Differs(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Servers(#[from] servers::ServersError),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Differs(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Client(ClientError::Refused(body)) => match body.code {
                Code::Unavailable | Code::NotYet | Code::Conflict => 4,
                Code::Internal => 5,
                Code::Rejected
                | Code::Invalid
                | Code::IdSpent
                | Code::NotFound
                | Code::OtherHistory
                | Code::TooLarge => 3,
            },
            Self::Start(
                StartError::Unreadable(_) | StartError::MaxPayload { .. } | StartError::Unusable(Unusable::Unfit(_)),
            ) => 3,
            Self::Client(ClientError::NoAnswer(_)) | Self::Start(_) | Self::Servers(_) | Self::Unavailable(_) => 4,
            Self::Client(ClientError::Malformed(_)) | Self::Other(_) => 5,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let error = StartError::from(error);
        match &error {
            StartError::Database(e) if store::Failure::of(e) != store::Failure::Passing => {
                Self::Other(error.to_string())
            }
            _ => Self::Start(error),
        }
    }
}

impl From<store::ReadError> for Failure {
    fn from(error: store::ReadError) -> Self {
        Self::Start(error.into())
    }
}

impl From<StateAtError> for Failure {
    fn from(error: StateAtError) -> Self {
        match error {
            StateAtError::NoStream(_) | StateAtError::NoVersion { .. } | StateAtError::NotBegun { .. } => {
                Self::Refused(error.to_string())
            }
            StateAtError::Log(error) => error.into(),
            StateAtError::Decode(error) => Self::Other(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(error.to_string())
    }
}

/// The command line, with all its help: `docs/cli.md` is made from it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the verb that the command line names.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let quiet = !matches!(cli.verb, Verb::Serve(_) | Verb::Dev(_));
    telemetry::start(if quiet { "off,daybook::nats=warn" } else { "info,async_nats=warn" });
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
            output::say(&format!("daybook: {}", chain(&failure)));
            if let Failure::Client(ClientError::Refused(body)) = &failure {
                let say =
                    |fault: &Fault| output::say(&output::one_line(&format!("  {}: {}", fault.field, fault.expected)));
                body.fields.iter().for_each(say);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// An error with what brought it about, as far as it does not say so itself.
fn chain(failure: &Failure) -> String {
    let mut text = match failure {
        // The message is a service's, and may quote a stranger.
        Failure::Client(error) => output::one_line(&error.to_string()),
        failure => failure.to_string(),
    };
    let error: &dyn std::error::Error = failure;
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { servers, json, verb } = cli;
    match verb {
        Verb::Demo(args) => demo::run(args, &servers, json).await,
        Verb::Dev(args) => dev::run(args, json).await,
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
        Verb::Bench(args) => bench::run(args, json).await,
        Verb::Verify(args) => verify::run(&args, &servers, json).await,
    }
}
