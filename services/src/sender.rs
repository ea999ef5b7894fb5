//! Does what follow-ups say, and records what came of it.
//!
//! A command goes to [`Executor`], as one from the command API would; a call to the provider and a notice go over NATS.
//! Each is sent at least once and has its effect once: its id, or its idempotency key, comes from its cause.

use crate::execute::{Envelope, ExecuteError, Executor};
use crate::notifier::NoticeBody;
use crate::outside::{NoAnswer, request};
use crate::policy::{Pace, Policy, decline_is_foreseen};
use crate::projector::RENEW;
use crate::provider::{self, bounded};
use crate::step::{Outcome, Step};
use crate::subject;
use async_nats::Client;
use chrono::{DateTime, TimeDelta, Utc};
use domain::Command;
use domain::payment::Outcome as ProviderOutcome;
use domain::reaction::{
    Act, CALL_AGAIN, LookupAnswer, Operation, ProviderCall, answered, not_answered, not_found, react_to_rejection,
};
use projections::follow_up::{self, Due, Settlement};
use serde::Serialize;
use sqlx::PgPool;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::lease::{self, Lease};
use store::{Branch, clock};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

const LEASE: &str = "sender";
/// The actor of what follows from events. No client may call itself so.
pub(crate) const ACTOR: &str = "daybook";
/// How many follow-ups are under way at once.
const IN_FLIGHT: usize = 256;
/// How long to wait for a hint before looking.
const POLL: Duration = Duration::from_millis(200);
/// How often it is looked for all that is due, and not only for what was due about when that was which was started last.
const LOOK_FOR_ALL: Duration = Duration::from_secs(1);
/// How much later than others follow-ups may be committed that were due before them, to be found by the next look.
const LATE: TimeDelta = TimeDelta::milliseconds(250);

pub struct Sender {
    pool: PgPool,
    acts: Arc<Acts>,
    owner: Uuid,
    held: Option<(Lease, Instant)>,
    /// Each with the history of the log that it was read from.
    under_way: JoinSet<(Due, Branch, Settlement)>,
    ids: HashSet<Uuid>,
    /// When what was started last was due.
    started: Option<DateTime<Utc>>,
    /// When it was last looked for all that is due.
    looked_for_all: Instant,
    /// When the clocks were compared last, and what a wrong one has left was put right.
    checked: Option<Instant>,
    /// Told when follow-ups were written.
    written: Arc<Notify>,
}

impl Sender {
    pub fn new(
        pool: PgPool,
        executor: Executor,
        client: Client,
        owner: Uuid,
        written: Arc<Notify>,
        pace: Pace,
    ) -> Self {
        let acts = Arc::new(Acts { executor, client, pace });
        let (under_way, ids) = (JoinSet::new(), HashSet::new());
        Self {
            pool,
            acts,
            owner,
            held: None,
            under_way,
            ids,
            started: None,
            looked_for_all: Instant::now(),
            checked: None,
            written,
        }
    }

    async fn hold(&mut self) -> Result<Option<Lease>, sqlx::Error> {
        if let Some((lease, renewed)) = &self.held
            && renewed.elapsed() < RENEW
        {
            return Ok(Some(*lease));
        }
        let now = Instant::now();
        let lease = lease::acquire(&self.pool, LEASE, self.owner).await?;
        if self.held.is_some_and(|(before, _)| Some(before) != lease) {
            // Somebody else has had it meanwhile.
            self.hold_no_more();
        }
        self.held = lease.map(|lease| (lease, now));
        Ok(lease)
    }

    /// The lease is somebody else's: so is what is under way.
    fn hold_no_more(&mut self) {
        self.held = None;
        self.under_way.abort_all();
        self.ids.clear();
        self.started = None;
    }

    /// Starts what is due and not under way.
    async fn start(&mut self) -> Result<(), sqlx::Error> {
        let room = IN_FLIGHT - self.ids.len();
        if room < IN_FLIGHT / 4 {
            return Ok(());
        }
        let (found, branch) = self.look(room as i64).await?;
        for due in found {
            self.started = Some(due.due_at);
            self.ids.insert(due.id);
            let (acts, branch) = (self.acts.clone(), branch.clone());
            self.under_way.spawn(async move {
                let settlement = acts.perform(&due, &branch).await;
                (due, branch, settlement)
            });
        }
        Ok(())
    }

    /// What is due and not under way; of what was due long before that which was started last, not all at each look.
    async fn look(&mut self, limit: i64) -> Result<(Vec<Due>, Branch), sqlx::Error> {
        let ids: Vec<Uuid> = self.ids.iter().copied().collect();
        if let Some(started) = self.started
            && self.looked_for_all.elapsed() < LOOK_FOR_ALL
        {
            let (due, branch) = self.due(&ids, Some(started - LATE), limit).await?;
            if !(due.is_empty() && ids.is_empty()) {
                return Ok((due, branch));
            }
        }
        // What it sends is to be recorded, and no clock that is wrong says what is due.
        if self.checked.is_none_or(|checked| checked.elapsed() >= LOOK_FOR_ALL) {
            clock::check(&self.pool, self.acts.pace.clock_tolerance).await?;
            follow_up::hasten(&self.pool, Policy::LONGEST).await?;
            self.checked = Some(Instant::now());
        }
        let due = self.due(&ids, None, limit).await?;
        self.looked_for_all = Instant::now();
        Ok(due)
    }

    async fn due(
        &self,
        in_flight: &[Uuid],
        since: Option<DateTime<Utc>>,
        limit: i64,
    ) -> Result<(Vec<Due>, Branch), sqlx::Error> {
        let history = self.acts.executor.history();
        let seen = history.seen();
        let (due, found) = follow_up::due(&self.pool, &seen, in_flight, since, limit).await?;
        let branch = history.note(seen, found);
        // Somebody else has found another history meanwhile: which one this is of, the next look tells.
        Ok(if branch.is_lost() { (vec![], branch) } else { (due, branch) })
    }

    /// Everything that has come to an end. Waits for the first, but not when there may be more to start meanwhile.
    async fn finished(&mut self) -> Vec<(Due, Branch, Settlement)> {
        let mut finished = Vec::new();
        tokio::select! {
            first = self.under_way.join_next() => finished.extend(first),
            () = self.written.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        while let Some(next) = self.under_way.try_join_next() {
            finished.push(next);
        }
        // A task that panicked has no result: its follow-up stays due.
        finished.into_iter().filter_map(Result::ok).collect()
    }

    /// Records what came of follow-ups.
    async fn settle(&mut self, lease: &Lease, finished: Vec<(Due, Branch, Settlement)>) -> Result<(), sqlx::Error> {
        // Whether recorded or not: what is still due is started again, and has its effect once.
        finished.iter().for_each(|(due, ..)| _ = self.ids.remove(&due.id));
        let seen = self.acts.executor.history().seen();
        // What came of follow-ups that the log does not have any more settles nothing.
        let of_log = finished.into_iter().filter(|(_, branch, _)| branch.is_same(&seen.branch));
        let settled: Vec<_> = of_log.map(|(due, _, settlement)| (due, settlement)).collect();
        if settled.is_empty() {
            return Ok(());
        }
        if !follow_up::settle(&self.pool, lease, &seen, settled).await? {
            self.hold_no_more();
        }
        Ok(())
    }
}

impl Step for Sender {
    type Error = sqlx::Error;

    fn name(&self) -> &'static str {
        "sender"
    }

    async fn step(&mut self) -> Result<Outcome, sqlx::Error> {
        let Some(lease) = self.hold().await? else { return Ok(Outcome::Idle) };
        self.start().await?;
        if self.under_way.is_empty() {
            self.ids.clear();
            return Ok(Outcome::Idle);
        }
        let settled = self.finished().await;
        let count = settled.len();
        self.settle(&lease, settled).await?;
        Ok(Outcome::Worked(count))
    }

    async fn wait(&mut self) {
        _ = tokio::time::timeout(POLL, self.written.notified()).await;
    }

    async fn end(&mut self) {
        let Some((lease, _)) = self.held.take() else { return };
        while !self.under_way.is_empty() {
            let settled = self.finished().await;
            _ = self.settle(&lease, settled).await;
        }
        _ = lease::release(&self.pool, &lease).await;
    }
}

/// What a follow-up can reach.
struct Acts {
    executor: Executor,
    client: Client,
    pace: Pace,
}

impl Acts {
    /// `branch` is the history of the log that the follow-up was read from.
    async fn perform(&self, due: &Due, branch: &Branch) -> Settlement {
        if branch.is_lost() {
            return self.retry(due, "the log has gone on from an older state");
        }
        match &due.act.0 {
            Act::Command(command) => self.command(due, branch, command.clone()).await,
            Act::Provider(call) => self.provider(due, branch, call).await,
            Act::Notice(notice) => {
                let body = NoticeBody { notice_id: due.id, notice: notice.clone() };
                match self.request(subject::NOTIFY.into(), &body).await {
                    Ok(_) => Settlement::Accepted,
                    Err(NoAnswer::Silence) => self.retry(due, "the notifier did not answer in time"),
                    Err(NoAnswer::Failed(reason)) => self.retry(due, &reason),
                }
            }
        }
    }

    async fn command(&self, due: &Due, branch: &Branch, command: Command) -> Settlement {
        let envelope = Envelope {
            command_id: due.id,
            command,
            actor: ACTOR.into(),
            correlation_id: Some(due.correlation_id),
            causation_id: Some(due.event_id),
            occurred_at: Utc::now(),
            traceparent: None,
        };
        match self.executor.execute_on(&envelope, branch).await {
            Ok(_) => Settlement::Accepted,
            // It was done before; what was decided since then has changed its body.
            Err(ExecuteError::IdSpent) => Settlement::Accepted,
            Err(ExecuteError::Rejected(rejection)) if Policy::of(&due.act.0).refusal_is_parked => {
                park(due, rejection.to_string())
            }
            Err(ExecuteError::Rejected(rejection)) => {
                let next = react_to_rejection(&envelope.command, &rejection);
                Settlement::Refused { reason: rejection.to_string(), next }
            }
            // What is broken is not the follow-up.
            Err(e @ (ExecuteError::Conflict(_) | ExecuteError::Unavailable(_) | ExecuteError::Broken(_))) => {
                self.retry(due, &e.to_string())
            }
            Err(e @ (ExecuteError::Refused(_) | ExecuteError::Unreadable(_))) => park(due, e.to_string()),
        }
    }

    /// Asks the provider, and records its answer with the payment; or that there was none in time, which is no decline:
    /// the provider is then asked what it knows of the call.
    async fn provider(&self, due: &Due, branch: &Branch, call: &ProviderCall) -> Settlement {
        let subject = format!("{}.{}", subject::PROVIDER, provider::verb(&call.operation));
        let answer = match self.request(subject, call).await {
            Ok(answer) => answer,
            Err(NoAnswer::Silence) => {
                return match not_answered(call) {
                    // It knew nothing of the call when it was asked: the same key makes it safe to go on calling.
                    Some(unknown) if due.reaction != CALL_AGAIN => self.command(due, branch, unknown).await,
                    _ => self.retry(due, "the provider did not answer in time"),
                };
            }
            Err(NoAnswer::Failed(reason)) => return self.retry(due, &reason),
        };
        match (parse_answer(&call.operation, &answer), not_found(call)) {
            (Ok(LookupAnswer::Found(outcome)), _) => self.outcome(due, branch, call, bounded(outcome)).await,
            (Ok(LookupAnswer::NotFound), Some(never_seen)) => self.command(due, branch, never_seen).await,
            (Ok(LookupAnswer::NotFound), None) => self.retry(due, "the provider's answer is malformed"),
            (Err(e), _) => self.retry(due, &format!("the provider's answer is malformed: {e}")),
        }
    }

    /// Records what came of a call. A "no" that no order is prepared for is recorded, and parked to be seen.
    async fn outcome(&self, due: &Due, branch: &Branch, call: &ProviderCall, outcome: ProviderOutcome) -> Settlement {
        let declined = match &outcome {
            ProviderOutcome::Declined { reason } if !decline_is_foreseen(&call.operation) => Some(reason.clone()),
            ProviderOutcome::Declined { .. } | ProviderOutcome::Approved { .. } => None,
        };
        match (self.command(due, branch, answered(call, outcome)).await, declined) {
            (Settlement::Accepted, Some(reason)) => park(due, format!("the provider declined: {reason}")),
            (settlement, _) => settlement,
        }
    }

    async fn request(&self, subject: String, body: &impl Serialize) -> Result<bytes::Bytes, NoAnswer> {
        request(&self.client, subject, body, self.pace.answer).await
    }

    /// Again, after a while; unless it was tried often enough.
    fn retry(&self, due: &Due, reason: &str) -> Settlement {
        let policy = Policy::of(&due.act.0);
        let attempts = due.attempts.unsigned_abs().saturating_add(1);
        if attempts >= policy.attempts {
            return park(due, format!("given up after {attempts} attempts: {reason}"));
        }
        let after = policy.delay(attempts, rand::random_range(0.0..1.0)).min(self.pace.longest_wait);
        Settlement::Retry { reason: reason.to_owned(), after }
    }
}

fn park(due: &Due, reason: String) -> Settlement {
    tracing::error!(follow_up = %due.id, reaction = due.reaction, reason, "a follow-up is parked");
    Settlement::Parked { reason }
}

/// An answer to a lookup, or to a call: that is an outcome that was found.
fn parse_answer(operation: &Operation, answer: &[u8]) -> Result<LookupAnswer, serde_json::Error> {
    match operation {
        Operation::Lookup { .. } => serde_json::from_slice(answer),
        Operation::Authorise { .. } | Operation::Capture { .. } | Operation::Void | Operation::Refund { .. } => {
            serde_json::from_slice(answer).map(LookupAnswer::Found)
        }
    }
}
