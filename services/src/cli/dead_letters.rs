//! `daybook dead-letters list|show|redrive|discard`: what could not be done, and waits for somebody. It takes no service
//! but Postgres.

use super::{Failure, output, target};
use crate::config::Servers;
use chrono::{DateTime, Utc};
use clap::builder::NonEmptyStringValueParser;
use projections::dead_letter::{self, DeadLetter, Detail, Filter, Resolution};
use serde_json::json;
use store::connect::{self, Role};
use uuid::Uuid;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// List what waits, the longest first.
    List(List),
    /// Show all that is known of one: what it is to do, why it waits or waited, and what was decided.
    Show {
        /// As `list` names it.
        id: Uuid,
    },
    /// Have it sent again, its cause being gone. What was done in truth is not done a second time.
    Redrive(Redrive),
    /// Give it up: it is kept, and never sent.
    Discard(Discard),
}

#[derive(clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    which: Which,
    /// How many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
}

#[derive(clap::Args)]
pub(super) struct Redrive {
    #[command(flatten)]
    chosen: Chosen,
    /// Why it will go now.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Why it need not be done.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

/// Which are listed, or chosen.
#[derive(clap::Args)]
struct Which {
    /// Only those of this reaction, such as call_capture.
    #[arg(long)]
    reaction: Option<String>,
    /// Only those of this order.
    #[arg(long, value_name = "ID")]
    order: Option<Uuid>,
    /// Only those with this text in the reason why they wait.
    #[arg(long, value_name = "TEXT")]
    matching: Option<String>,
    /// Only those that wait since this time or later, such as 2026-11-22T08:39:56Z.
    #[arg(long, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// Only those that wait since this time or before.
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
}

/// Which are to be seen to, and who says so.
#[derive(clap::Args)]
struct Chosen {
    /// As `list` names them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with_all = ["all", "Which"])]
    ids: Vec<Uuid>,
    /// Instead of ids: all that wait, or those of them that the next options name.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Who says so; it is kept, with the reason.
    #[arg(long, value_name = "NAME", default_value = "cli", value_parser = NonEmptyStringValueParser::new())]
    by: String,
}

impl Which {
    fn filter(self) -> Filter {
        let Self { reaction, order, matching, since, until } = self;
        Filter { ids: None, reaction, correlation_id: order, matching, since, until }
    }
}

impl Chosen {
    fn filter(self) -> Filter {
        let ids = (!self.all).then_some(self.ids);
        Filter { ids, ..self.which.filter() }
    }
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    let url = target::database_url(servers)?;
    let role = match verb {
        Verb::List(_) | Verb::Show { .. } => Role::Read,
        Verb::Redrive(_) | Verb::Discard(_) => Role::Project,
    };
    let pool = connect::pool(&url, role, 1)?;
    match verb {
        Verb::List(List { which, limit }) => list(&dead_letter::list(&pool, &which.filter(), None, limit).await?, json),
        Verb::Show { id } => {
            let found = dead_letter::get(&pool, id).await?;
            show(&found.ok_or_else(|| Failure::Refused(format!("{id} is no dead letter, and was none")))?, json)
        }
        Verb::Redrive(Redrive { chosen, reason }) => {
            let by = chosen.by.clone();
            let filter = chosen.filter();
            let redriven = dead_letter::redrive(&pool, &filter, &by, reason.as_deref()).await?;
            seen_to("redriven", &filter, &redriven, json)
        }
        Verb::Discard(Discard { chosen, reason }) => {
            let by = chosen.by.clone();
            let filter = chosen.filter();
            let discarded = dead_letter::discard(&pool, &filter, &by, &reason).await?;
            seen_to("discarded", &filter, &discarded, json)
        }
    }
}

fn list(letters: &[DeadLetter], json: bool) -> Result<(), Failure> {
    if json {
        for letter in letters {
            output::line(&serde_json::to_string(letter)?);
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
    output::line(&output::table(&["dead letter", "reaction", "order", "attempts", "since", "reason"], &rows));
    Ok(())
}

fn row(letter: &DeadLetter) -> Vec<String> {
    vec![
        letter.id.to_string(),
        letter.reaction.clone(),
        letter.correlation_id.to_string(),
        letter.attempts.to_string(),
        letter.parked_at.format("%Y-%m-%d %H:%M:%S").to_string(),
        letter.reason.clone(),
    ]
}

fn show(detail: &Detail, json: bool) -> Result<(), Failure> {
    if json {
        output::line(&serde_json::to_string(detail)?);
        return Ok(());
    }
    let since = detail.settled_at.map(|at| format!(" since {at}")).unwrap_or_default();
    let mut lines = vec![
        format!("dead letter  {}", detail.id),
        format!("source       {}", detail.source),
        format!("state        {}{since}", detail.state),
        format!("reason       {}", detail.reason.as_deref().unwrap_or("none")),
        format!("attempts     {}", detail.attempts),
        format!("order        {}", detail.correlation_id),
        format!("follows      from position {}, event {}", detail.position, detail.event_id),
        format!("reaction     {} of {}", detail.reaction, detail.target),
        format!("act          {}", detail.act),
    ];
    lines.extend(detail.resolutions.iter().map(resolution));
    output::line(&lines.join("\n"));
    Ok(())
}

fn resolution(resolution: &Resolution) -> String {
    let Resolution { outcome, resolved_by, resolved_at, why, reason, .. } = resolution;
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let waited = reason.as_ref().map(|reason| format!(" (it had waited: {reason})")).unwrap_or_default();
    format!("{outcome:<12} {resolved_at} by {resolved_by}{why}{waited}")
}

/// Tells what was seen to. That something asked for by its id does not wait is a refusal: it is told after the rest was
/// seen to, and does no harm.
fn seen_to(outcome: &str, filter: &Filter, ids: &[Uuid], json: bool) -> Result<(), Failure> {
    output::line(&match json {
        true => json!({ outcome: ids }).to_string(),
        false => format!("{} {outcome}", ids.len()),
    });
    let asked = filter.ids.as_deref().unwrap_or_default();
    let missing: Vec<String> = asked.iter().filter(|id| !ids.contains(id)).map(Uuid::to_string).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::Refused(format!("not parked, so left as it is: {}", missing.join(", ")))),
    }
}
