//! `daybook dead-letters list|show|redrive|discard`: what could not be done, or not taken in, and waits for somebody. It
//! takes no service but Postgres.

use chrono::{DateTime, Utc};
use clap::builder::NonEmptyStringValueParser;
use cli::config::Servers;
use cli::{Failure, output, target};
use engine::dead_letter::{self, DeadLetter, Decision, Detail, Filter, Resolution};
use order_views::Orders;
use runtime::dead_letters::{ResolveError, Resolved, resolve};
use serde_json::json;
use sqlx::PgPool;
use store::connect::{self, Role};
use uuid::Uuid;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// List dead letters, oldest first.
    List(List),
    /// Show a dead letter: what failed, why, and what was decided.
    Show {
        /// The dead letter's id, as `list` prints it.
        id: Uuid,
    },
    /// Retry dead letters once their cause is gone. An effect that did take place is not repeated.
    Redrive(Redrive),
    /// Discard dead letters. A follow-up is kept and never sent; the projection that cannot apply an event skips it.
    Discard(Discard),
}

#[derive(clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    which: Which,
    /// List the discarded ones instead.
    #[arg(long)]
    discarded: bool,
    /// The maximum number of dead letters.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
}

#[derive(clap::Args)]
pub(super) struct Redrive {
    #[command(flatten)]
    chosen: Chosen,
    /// Why the retry should succeed now. It is stored with the decision.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Why it is not needed. It is stored with the decision.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

/// Which are listed, or chosen.
#[derive(clap::Args)]
struct Which {
    /// Only follow-ups of this reaction, such as call_capture.
    #[arg(long)]
    reaction: Option<String>,
    /// Only events that this projection cannot apply.
    #[arg(long)]
    projection: Option<String>,
    /// Only dead letters of this order.
    #[arg(long, value_name = "ID")]
    order: Option<Uuid>,
    /// Only dead letters whose reason contains this text.
    #[arg(long, value_name = "TEXT")]
    matching: Option<String>,
    /// Only dead letters since this time or later, such as 2026-11-22T08:39:56Z.
    #[arg(long, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// Only dead letters since this time or earlier.
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
}

/// Which are to be seen to, and who says so.
#[derive(clap::Args)]
struct Chosen {
    /// The ids of the dead letters, as `list` prints them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with_all = ["all", "Which"])]
    ids: Vec<Uuid>,
    /// All dead letters instead of single ids. The filters below restrict them.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Who decides. It is stored with the decision.
    #[arg(long, value_name = "NAME", default_value = "cli", value_parser = NonEmptyStringValueParser::new())]
    by: String,
}

impl Which {
    fn filter(self) -> Filter {
        let Self { reaction, projection, order, matching, since, until } = self;
        Filter { reaction, projection, correlation_id: order, matching, since, until, ..Filter::default() }
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
    let read = connect::checked_pool(&url, Role::Read, 2).await?;
    match verb {
        Verb::List(List { which, discarded, limit }) => {
            let filter = Filter { discarded, ..which.filter() };
            list(&dead_letter::list(&read, &filter, None, limit).await?, json)
        }
        Verb::Show { id } => {
            let found = dead_letter::get::<Orders>(&read, id).await?;
            show(&found.ok_or_else(|| Failure::Refused(format!("{id} is not the id of a dead letter")))?, json)
        }
        Verb::Redrive(Redrive { chosen, reason }) => {
            let by = chosen.by.clone();
            let decision = Decision::Redrive { by: &by, why: reason.as_deref() };
            decide(&read, &url, &chosen.filter(), &decision, json).await
        }
        Verb::Discard(Discard { chosen, reason }) => {
            let by = chosen.by.clone();
            decide(&read, &url, &chosen.filter(), &Decision::Discard { by: &by, why: &reason }, json).await
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
    output::line(&output::table(&["dead letter", "kind", "of", "order", "since", "reason"], &rows));
    Ok(())
}

fn row(letter: &DeadLetter) -> Vec<String> {
    vec![
        letter.id.to_string(),
        letter.kind.clone(),
        of(letter).to_owned(),
        letter.correlation_id.to_string(),
        letter.since.format("%Y-%m-%d %H:%M:%S").to_string(),
        letter.reason.clone(),
    ]
}

/// The reaction of a follow-up, the projection that cannot take an event in.
fn of(letter: &DeadLetter) -> &str {
    letter.reaction.as_deref().or(letter.projection.as_deref()).unwrap_or_default()
}

fn show(detail: &Detail, json: bool) -> Result<(), Failure> {
    if json {
        output::line(&serde_json::to_string(detail)?);
        return Ok(());
    }
    let letter = &detail.letter;
    let DeadLetter { id, kind, state, since, reason, correlation_id, target, event_id, .. } = letter;
    let event = format!("position {}, {} {event_id}", letter.position, letter.event_type);
    let mut lines = vec![
        format!("dead letter  {id}"),
        format!("kind         {kind}"),
        format!("state        {state} since {since}"),
        format!("reason       {}", if reason.is_empty() { "none" } else { reason }),
        format!("order        {correlation_id}"),
    ];
    if let Some(reaction) = &letter.reaction {
        lines.push(format!("follows      from {event}"));
        lines.push(format!("reaction     {reaction} of {target}"));
    }
    if let Some(projection) = &letter.projection {
        lines.push(format!("event        {event}"));
        lines.push(format!("projection   {projection}, of {target}"));
    }
    lines.extend(letter.attempts.map(|attempts| format!("attempts     {attempts}")));
    lines.extend(letter.waiting.map(|waiting| format!("waiting      {waiting} events behind it")));
    lines.extend(detail.act.as_ref().map(|act| format!("act          {act}")));
    lines.extend(detail.resolutions.iter().map(resolution));
    output::line(&lines.join("\n"));
    Ok(())
}

fn resolution(resolution: &Resolution) -> String {
    let Resolution { outcome, resolved_by, resolved_at, why, reason, .. } = resolution;
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let waited = reason.as_ref().map(|reason| format!(" (its reason was: {reason})")).unwrap_or_default();
    format!("{outcome:<12} {resolved_at} by {resolved_by}{why}{waited}")
}

/// Carries it out, and tells for which of them. That it cannot be for one, or that one that was asked for by its id does
/// not wait, is a refusal: it is told after the rest was seen to, and does no harm.
async fn decide(
    read: &PgPool,
    database_url: &str,
    filter: &Filter,
    decision: &Decision<'_>,
    json: bool,
) -> Result<(), Failure> {
    let project = connect::checked_pool(database_url, Role::Project, 1).await?;
    let resolved = resolve::<Orders>(read, &project, filter, decision).await.map_err(|e| match e {
        ResolveError::Log(e) => Failure::from(e),
        ResolveError::Database(e) => Failure::from(e),
    })?;
    let (outcome, Resolved { done, left }) = (decision.outcome(), resolved);
    output::line(&match json {
        true => json!({ outcome: done }).to_string(),
        false => format!("{} {outcome}", done.len()),
    });
    let asked = filter.ids.as_deref().unwrap_or_default();
    let is_told = |id: &Uuid| done.contains(id) || left.iter().any(|(left, _)| left == id);
    let missing: Vec<String> = asked.iter().filter(|id| !is_told(id)).map(Uuid::to_string).collect();
    let mut refused: Vec<String> = left.iter().map(|(id, reason)| format!("{id} is still parked: {reason}")).collect();
    if !missing.is_empty() {
        refused.push(format!("not parked, unchanged: {}", missing.join(", ")));
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::Refused(refused.join("\n"))) }
}
