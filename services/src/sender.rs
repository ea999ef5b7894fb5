//! Does what follow-ups say, and records what came of it.
//!
//! A command goes to [`Executor`], as one from the command API would; a call to the provider and a notice go over NATS.
//! Each is sent at least once and has its effect once: its id, or its idempotency key, comes from its cause.

use crate::execute::{Envelope, ExecuteError, Executor};
use crate::notifier::NoticeBody;
use crate::projector::RENEW;
use crate::step::{Outcome, Step};
use crate::subject;
use async_nats::Client;
use async_nats::service::NATS_SERVICE_ERROR;
use chrono::Utc;
use domain::Command;
use domain::payment::Outcome as ProviderOutcome;
use domain::reaction::{Act, Operation, ProviderCall, answered, react_to_rejection};
use projections::follow_up::{self, Due, Settlement};
use serde::Serialize;
use sqlx::PgPool;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::lease::{self, Lease};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

const LEASE: &str = "sender";
/// The actor of what follows from events.
const ACTOR: &str = "daybook";
/// How many follow-ups are under way at once.
const IN_FLIGHT: usize = 256;
/// How long the provider or the notifier may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait for a hint before looking.
const POLL: Duration = Duration::from_millis(200);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

pub struct Sender {
    pool: PgPool,
    acts: Arc<Acts>,
    owner: Uuid,
    held: Option<(Lease, Instant)>,
    under_way: JoinSet<(Due, Settlement)>,
    ids: HashSet<Uuid>,
    /// Told when follow-ups were written.
    written: Arc<Notify>,
}

impl Sender {
    pub fn new(pool: PgPool, executor: Executor, client: Client, owner: Uuid, written: Arc<Notify>) -> Self {
        let acts = Arc::new(Acts { executor, client });
        Self { pool, acts, owner, held: None, under_way: JoinSet::new(), ids: HashSet::new(), written }
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
    }

    /// Starts what is due and not under way.
    async fn start(&mut self) -> Result<(), sqlx::Error> {
        let room = IN_FLIGHT - self.ids.len();
        if room < IN_FLIGHT / 4 {
            return Ok(());
        }
        let ids: Vec<Uuid> = self.ids.iter().copied().collect();
        for due in follow_up::due(&self.pool, &ids, room as i64).await? {
            self.ids.insert(due.id);
            let acts = self.acts.clone();
            self.under_way.spawn(async move {
                let settlement = acts.perform(&due).await;
                (due, settlement)
            });
        }
        Ok(())
    }

    /// Everything that has come to an end. Waits for the first, but not when there may be more to start meanwhile.
    async fn finished(&mut self) -> Vec<(Due, Settlement)> {
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
    async fn settle(&mut self, lease: &Lease, settled: Vec<(Due, Settlement)>) -> Result<(), sqlx::Error> {
        if settled.is_empty() {
            return Ok(());
        }
        // Whether recorded or not: what is still due is started again, and has its effect once.
        settled.iter().for_each(|(due, _)| _ = self.ids.remove(&due.id));
        if !follow_up::settle(&self.pool, lease, settled).await? {
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
}

impl Acts {
    async fn perform(&self, due: &Due) -> Settlement {
        match &due.act.0 {
            Act::Command(command) => self.command(due, command.clone()).await,
            Act::Provider(call) => self.provider(due, call).await,
            Act::Notice(notice) => {
                let body = NoticeBody { notice_id: due.id, notice: notice.clone() };
                match self.request(subject::NOTIFY.into(), &body).await {
                    Ok(_) => Settlement::Accepted,
                    Err(reason) => retry(due, reason),
                }
            }
        }
    }

    async fn command(&self, due: &Due, command: Command) -> Settlement {
        let envelope = Envelope {
            command_id: due.id,
            command,
            actor: ACTOR.into(),
            correlation_id: Some(due.correlation_id),
            causation_id: Some(due.event_id),
            occurred_at: Utc::now(),
            traceparent: None,
        };
        match self.executor.execute(&envelope).await {
            Ok(_) => Settlement::Accepted,
            // It was done before; what was decided since then has changed its body.
            Err(ExecuteError::IdSpent) => Settlement::Accepted,
            Err(ExecuteError::Rejected(rejection)) => {
                let next = react_to_rejection(&envelope.command, &rejection);
                Settlement::Refused { reason: rejection.to_string(), next }
            }
            Err(e @ (ExecuteError::Conflict(_) | ExecuteError::Unavailable(_))) => retry(due, e.to_string()),
            Err(e @ (ExecuteError::Refused(_) | ExecuteError::Unreadable(_))) => {
                tracing::error!(follow_up = %due.id, reaction = due.reaction, error = %e, "a follow-up is parked");
                Settlement::Parked { reason: e.to_string() }
            }
        }
    }

    /// Asks the provider, and records its answer with the payment.
    async fn provider(&self, due: &Due, call: &ProviderCall) -> Settlement {
        let verb = match call.operation {
            Operation::Authorise { .. } => "authorise",
            Operation::Capture { .. } => "capture",
            Operation::Void => "void",
        };
        let answer = match self.request(format!("{}.{verb}", subject::PROVIDER), call).await {
            Ok(answer) => answer,
            Err(reason) => return retry(due, reason),
        };
        match serde_json::from_slice::<ProviderOutcome>(&answer) {
            Ok(outcome) => self.command(due, answered(call, bounded(outcome))).await,
            Err(e) => retry(due, format!("the provider's answer is malformed: {e}")),
        }
    }

    async fn request(&self, subject: String, body: &impl Serialize) -> Result<bytes::Bytes, String> {
        let body = serde_json::to_vec(body).map_err(|e| e.to_string())?;
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(ANSWER));
        let answer = self.client.send_request(subject, request).await.map_err(|e| e.to_string())?;
        match answer.headers.as_ref().and_then(|headers| headers.get(NATS_SERVICE_ERROR)) {
            Some(error) => Err(error.to_string()),
            None => Ok(answer.payload),
        }
    }
}

/// The longest text of the provider's that goes into an event, in characters.
const MAX_TEXT: usize = 200;

/// The provider's answer as an event can hold it: its texts are somebody else's, of any length and with anything in them.
fn bounded(outcome: ProviderOutcome) -> ProviderOutcome {
    let text = |text: String| text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
    match outcome {
        ProviderOutcome::Approved { reference } => ProviderOutcome::Approved { reference: text(reference) },
        ProviderOutcome::Declined { reason } => ProviderOutcome::Declined { reason: text(reason) },
    }
}

/// Again, after twice as long as the last time, with up to a half of it at random less.
fn retry(due: &Due, reason: String) -> Settlement {
    let doubled = FIRST_RETRY.saturating_mul(1 << due.attempts.clamp(0, 16));
    let after = doubled.min(LAST_RETRY).mul_f64(rand::random_range(0.5..1.0));
    Settlement::Retry { reason, after }
}
