//! `daybook reconcile --report`: what was done outside in the name of events that the log has lost, for a person.
//!
//! Payment tokens, and what notices say of persons, are never printed.

use cli::config::Servers;
use cli::{Failure, output, target};
use engine::codec;
use futures_util::{StreamExt, stream};
use order_services::lost::{Collected, InLog, LostCall, LostNotice, Messages, Reader, word};
use order_services::outside::{AT_ONCE, Provider};
use order_services::policy::Timeouts;
use order_services::provider::bounded;
use order_views::{CATEGORIES, Orders, Recorded, stream as stream_of};
use orders::money::{Amount, Currency};
use orders::payment::{Outcome, Payment};
use orders::reaction::LookupAnswer;
use runtime::readable;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::HashMap;
use store::connect::{self, Role};
use store::epoch::{self, Epoch};
use store::{Chain, Log, Position, RecordedEvent};

/// How many lost messages are read at a time.
const PAGE: i64 = 500;
/// No payment has more events.
const MOST_EVENTS: i64 = 100_000;
/// How many positions of one kind are printed; the rest is counted.
const TOLD: usize = 20;

/// What this report cannot tell.
const UNSEEN: &str =
    "Events that never reached JetStream are not in this report, and neither is what followed from them.";

pub(super) async fn run(servers: &Servers, json: bool) -> Result<(), Failure> {
    let pool = connect::checked_pool(&target::database_url(servers)?, Role::Read, 4).await?;
    readable::check::<Orders>(&pool).await?;
    let log = Log::new(pool.clone(), CATEGORIES);
    let epochs = epoch::all(&pool).await?;
    let mut collected = Collected::default();
    let mut lost = Vec::new();
    for epoch in &epochs {
        lost.push((epoch, read(&pool, &log, &epochs, epoch, &mut collected).await?));
    }
    let forks: HashMap<i64, Position> = epochs.iter().map(|epoch| (epoch.epoch, epoch.forked_after)).collect();
    let mut calls = Vec::new();
    for call in collected.calls {
        calls.extend(not_in_log(&log, &forks, call).await?);
    }
    let mut notices = Vec::new();
    for notice in collected.notices {
        let command = decoded(log.read_command(notice.command_id).await?);
        if !notice.is_in_log(&command) {
            notices.push(notice);
        }
    }
    let answered = if calls.is_empty() {
        vec![]
    } else {
        let provider = Provider::new(target::connect(servers, "daybook reconcile").await?, Timeouts::default().answer);
        ask(&provider, calls).await
    };
    let report = Report { epochs: lost, calls: answered, notices };
    report.print(json);
    report.verdict()
}

/// Reads what an epoch began without.
async fn read(
    pool: &PgPool,
    log: &Log,
    epochs: &[Epoch],
    epoch: &Epoch,
    collected: &mut Collected,
) -> Result<Messages, Failure> {
    let mut reader = Reader::new(epoch.epoch, epoch.forked_after, chain(log, epochs, epoch).await?);
    let mut after = Position::MIN;
    loop {
        let page = epoch::lost(pool, epoch.epoch, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        page.iter().for_each(|lost| reader.take(lost, collected));
    }
    Ok(reader.finish(epoch.distributed_to))
}

/// The log's chain at the fork; `None` if the log has gone back further since, and does not have it any more.
async fn chain(log: &Log, epochs: &[Epoch], epoch: &Epoch) -> Result<Option<Chain>, Failure> {
    let is_earlier = |later: &Epoch| later.epoch > epoch.epoch && later.forked_after < epoch.forked_after;
    if epochs.iter().any(is_earlier) {
        return Ok(None);
    }
    let mark = log.mark_before(epoch.forked_after).await?;
    let mut chain = Chain::after(mark);
    let rest = epoch.forked_after - mark.position;
    if rest > 0 {
        let events = log.read_all(mark.position, rest).await?;
        let fit = events.iter().all(|event| chain.advance(event).is_ok());
        if !fit || chain.position() != epoch.forked_after {
            return Ok(None);
        }
    }
    Ok(Some(chain))
}

/// A call that the present log does not ask for, or not so.
struct Open {
    call: LostCall,
    amount: Option<(Amount, Currency)>,
    in_log: InLog,
}

async fn not_in_log(log: &Log, forks: &HashMap<i64, Position>, call: LostCall) -> Result<Option<Open>, Failure> {
    let stream = stream_of::<Payment>(call.asked.payment_id.0);
    let mut payment = decoded(log.read_stream(stream, 0, MOST_EVENTS).await?);
    let in_log = call.in_log(&payment);
    let forked_after = forks.get(&call.epoch).copied().unwrap_or(0);
    payment.retain(|recorded| recorded.record.position <= forked_after);
    let amount = call.amount(&payment);
    Ok((in_log != InLog::Same).then_some(Open { call, amount, in_log }))
}

/// Without what this build cannot read, from which nothing can be told.
fn decoded(events: Vec<RecordedEvent>) -> Vec<Recorded> {
    events.into_iter().filter_map(|event| codec::decode::<Orders>(event).ok()).collect()
}

/// In the order of the calls. The provider was not asked to do what only a command would have led to, if it does not know
/// of it: that is left out.
async fn ask(provider: &Provider, calls: Vec<Open>) -> Vec<(Open, Result<LookupAnswer, String>)> {
    let asked = stream::iter(calls).map(async |open| {
        let LostCall { asked, key, .. } = &open.call;
        let answer = provider.look_up(asked.payment_id, asked.call, *key).await;
        (open, answer)
    });
    let answered = asked.buffered(AT_ONCE).collect::<Vec<_>>().await;
    let is_told = |(open, answer): &(Open, Result<LookupAnswer, String>)| {
        open.call.requested || !matches!(answer, Ok(LookupAnswer::NotFound))
    };
    answered.into_iter().filter(is_told).collect()
}

struct Report<'a> {
    epochs: Vec<(&'a Epoch, Messages)>,
    calls: Vec<(Open, Result<LookupAnswer, String>)>,
    notices: Vec<LostNotice>,
}

/// What came of a call: a word, and in the provider's words its reference or the reason.
fn result(answer: &Result<LookupAnswer, String>) -> (&'static str, Option<String>) {
    match answer.clone() {
        Ok(LookupAnswer::Found(outcome)) => match bounded(outcome) {
            Outcome::Approved { reference } => ("done", Some(reference)),
            Outcome::Declined { reason } => ("declined", Some(reason)),
        },
        Ok(LookupAnswer::NotFound) => ("never_seen", None),
        Err(reason) => ("no_answer", Some(reason)),
    }
}

impl Report<'_> {
    fn print(&self, json: bool) {
        if json {
            self.epochs.iter().for_each(|(epoch, messages)| output::line(&epoch_json(epoch, messages).to_string()));
            self.calls.iter().for_each(|(open, answer)| output::line(&self.call_json(open, answer).to_string()));
            self.notices.iter().for_each(|notice| output::line(&self.notice_json(notice).to_string()));
            return;
        }
        if self.epochs.is_empty() {
            output::line("the log is in its first epoch: it has lost nothing that JetStream had");
            return;
        }
        for (epoch, messages) in &self.epochs {
            epoch_lines(epoch, messages).iter().for_each(|line| output::line(line));
        }
        let rows: Vec<Vec<String>> = self.calls.iter().map(|(open, answer)| self.call_row(open, answer)).collect();
        if !rows.is_empty() {
            output::line("");
            let headings = ["epoch", "position", "call", "amount", "order", "payment", "at the provider"];
            output::line(&output::table(&headings, &rows));
        }
        let rows: Vec<Vec<String>> = self.notices.iter().map(|notice| self.notice_row(notice)).collect();
        if !rows.is_empty() {
            output::line("");
            output::line(&output::table(&["epoch", "position", "notice", "order", "id", "result"], &rows));
            output::line("Whoever sends the notices may know by its id whether one was sent.");
        }
        output::line("");
        output::line(UNSEEN);
    }

    fn call_json(&self, open: &Open, answer: &Result<LookupAnswer, String>) -> Value {
        let (result, said) = result(answer);
        let LostCall { epoch, position, order_id, key, asked, .. } = &open.call;
        json!({
            "kind": "call",
            "call": word(asked.call),
            "result": result,
            "amount": open.amount.map(|(amount, _)| amount),
            "currency": open.amount.map(|(_, currency)| currency),
            "order_id": order_id,
            "payment_id": asked.payment_id,
            "idempotency_key": key,
            "reference": said.as_ref().filter(|_| result == "done"),
            "reason": said.as_ref().filter(|_| result != "done"),
            "is_ambiguous": is_ambiguous(open),
            "is_linked": self.is_linked(*epoch, *position),
            "epoch": epoch,
            "position": position,
        })
    }

    fn notice_json(&self, notice: &LostNotice) -> Value {
        let LostNotice { epoch, position, notice_id, .. } = notice;
        json!({
            "kind": "notice",
            "message": notice.message(),
            "result": "may_have_been_sent",
            "order_id": notice.order_id(),
            "notice_id": notice_id,
            "is_linked": self.is_linked(*epoch, *position),
            "epoch": epoch,
            "position": position,
        })
    }

    fn call_row(&self, open: &Open, answer: &Result<LookupAnswer, String>) -> Vec<String> {
        let LostCall { epoch, position, order_id, asked, .. } = &open.call;
        let (result, said) = result(answer);
        let mut told = match said {
            Some(said) => format!("{}: {said}", result.replace('_', " ")),
            None => result.replace('_', " "),
        };
        if is_ambiguous(open) {
            told.push_str(" (another event asks for something else under the same key: the provider did one of them)");
        }
        told.push_str(self.doubt(*epoch, *position));
        let amount = open.amount.map(|(amount, currency)| format!("{} {currency}", amount.display(currency)));
        vec![
            epoch.to_string(),
            position.to_string(),
            word(asked.call).to_owned(),
            amount.unwrap_or_default(),
            order_id.to_string(),
            asked.payment_id.to_string(),
            told,
        ]
    }

    fn notice_row(&self, notice: &LostNotice) -> Vec<String> {
        let LostNotice { epoch, position, notice_id, .. } = notice;
        vec![
            epoch.to_string(),
            position.to_string(),
            notice.message().to_owned(),
            notice.order_id().to_string(),
            notice_id.to_string(),
            format!("may have been sent{}", self.doubt(*epoch, *position)),
        ]
    }

    fn is_linked(&self, epoch: i64, position: Position) -> bool {
        let messages = self.epochs.iter().find(|(e, _)| e.epoch == epoch).map(|(_, messages)| messages);
        messages.and_then(|messages| messages.unlinked_from).is_none_or(|from| position < from)
    }

    fn doubt(&self, epoch: i64, position: Position) -> &'static str {
        if self.is_linked(epoch, position) { "" } else { " (the event may be forged)" }
    }

    fn verdict(&self) -> Result<(), Failure> {
        let answers = self.calls.iter().map(|(_, answer)| answer);
        let unanswered = answers.clone().filter(|answer| answer.is_err()).count();
        let done = answers.filter(|answer| matches!(answer, Ok(LookupAnswer::Found(Outcome::Approved { .. })))).count();
        let notices = self.notices.len();
        let is_incomplete = |(epoch, messages): &(&Epoch, Messages)| {
            epoch.distributed_to.is_none() || !messages.gone.is_empty() || !messages.unreadable.is_empty()
        };
        if unanswered > 0 {
            return Err(Failure::Unavailable(format!(
                "{unanswered} calls could not be asked for: run the report again when the provider answers"
            )));
        }
        if done > 0 || notices > 0 {
            return Err(Failure::Differs(format!(
                "in the name of lost events, {done} calls were done and {notices} notices may have been sent"
            )));
        }
        if self.epochs.iter().any(is_incomplete) {
            return Err(Failure::Differs("what was done in the name of all lost events cannot be told".into()));
        }
        Ok(())
    }
}

fn is_ambiguous(open: &Open) -> bool {
    open.call.is_ambiguous || open.in_log == InLog::Other
}

fn epoch_json(epoch: &Epoch, messages: &Messages) -> Value {
    let Epoch { epoch, began_at, forked_after, distributed_to, kept, why } = epoch;
    let range = |(from, to): &(Position, Position)| json!({ "from": from, "to": to });
    let unreadable = |(position, reason): &(Position, String)| json!({ "position": position, "reason": reason });
    json!({
        "kind": "epoch",
        "epoch": epoch,
        "began_at": began_at,
        "forked_after": forked_after,
        "distributed_to": distributed_to,
        "kept": kept,
        "why": why,
        "events": messages.events,
        "foreign": messages.foreign.len(),
        "foreign_positions": messages.foreign.iter().take(TOLD).collect::<Vec<_>>(),
        "unlinked_from": messages.unlinked_from,
        "unreadable": messages.unreadable.iter().map(unreadable).collect::<Vec<_>>(),
        "gone": messages.gone.iter().map(range).collect::<Vec<_>>(),
        "gone_is_known": distributed_to.is_some(),
        "not_included": UNSEEN,
    })
}

fn epoch_lines(epoch: &Epoch, messages: &Messages) -> Vec<String> {
    let Epoch { epoch, began_at, forked_after, distributed_to, kept, why } = epoch;
    let mut lines = vec![format!("epoch {epoch}, since {}: {why}", began_at.format("%Y-%m-%d %H:%M:%S"))];
    match distributed_to {
        Some(last) => lines.push(format!(
            "  after position {forked_after} the log goes on without what JetStream had up to {last}; {kept} messages are \
             kept, {} of them events",
            messages.events
        )),
        None => lines.push(format!(
            "  the stream was gone. What it had after position {forked_after} is not known, and neither is what followed \
             from that"
        )),
    }
    for (from, to) in &messages.gone {
        lines.push(format!("  the messages {from} to {to} are gone: what followed from them is not known"));
    }
    if !messages.foreign.is_empty() {
        lines.push(format!("  no messages of a relay's: {}", positions(&messages.foreign)));
    }
    if let Some(from) = messages.unlinked_from {
        lines.push(format!(
            "  from {from} on the messages do not continue the log: others have published them, or more was lost before them"
        ));
    }
    for (_, reason) in messages.unreadable.iter().take(TOLD) {
        lines.push(format!("  what followed from it is not known: {reason}"));
    }
    let untold = messages.unreadable.len().saturating_sub(TOLD);
    if untold > 0 {
        lines.push(format!("  and {untold} more that cannot be read"));
    }
    lines
}

/// `3 (at 7, 8, 9)`
fn positions(positions: &[Position]) -> String {
    let told: Vec<String> = positions.iter().take(TOLD).map(Position::to_string).collect();
    let more = if positions.len() > TOLD { ", …" } else { "" };
    format!("{} (at {}{more})", positions.len(), told.join(", "))
}
