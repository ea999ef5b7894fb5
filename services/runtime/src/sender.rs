//! Carries out follow-ups, and records what came of each.
//!
//! Each is carried out at least once and has its effect once: its command id, or its idempotency key, comes from its cause.

use crate::executor::{Decide, Envelope, ExecuteError, Executor};
use crate::lease::Keeper;
use crate::step::{Outcome, Step};
use chrono::{DateTime, TimeDelta, Utc};
use engine::Domain;
use engine::follow_up::{self, Due, Settlement};
use sqlx::PgPool;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::lease::Lease;
use store::{Branch, History, clock};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

/// The actor of what follows from events. No client may call itself so.
pub const ACTOR: &str = "daybook";
/// How many follow-ups are under way at once.
const IN_FLIGHT: usize = 256;
/// How long to wait for a hint before looking.
const POLL: Duration = Duration::from_millis(200);
/// How often all due follow-ups are scanned. In between, only those since the last one started.
const LOOK_FOR_ALL: Duration = Duration::from_secs(1);
/// How much later than others follow-ups may be committed that were due before them, to be found by the next look.
const LATE: TimeDelta = TimeDelta::milliseconds(250);

/// Carries out the follow-ups of a domain.
pub trait Effects: Send + Sync + 'static {
    type Domain: Domain;

    /// Carries out one, which was read from `branch`, and says what came of it.
    fn perform(
        &self,
        due: &Due<Effect<Self>>,
        branch: &Branch,
    ) -> impl Future<Output = Settlement<Effect<Self>>> + Send;
}

type Effect<E> = <<E as Effects>::Domain as Domain>::Effect;

/// A follow-up that has come to an end, with the history of the log that it was read from.
type Finished<E> = (Due<Effect<E>>, Branch, Settlement<Effect<E>>);

/// How the sender goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest wait between two attempts of any follow-up. What is due later than that is due at once.
    pub longest_wait: Duration,
    /// While Postgres' clock and this process' are further apart, nothing is sent.
    pub clock_tolerance: Duration,
}

pub struct Sender<E: Effects> {
    pool: PgPool,
    effects: Arc<E>,
    /// What the process has seen of the log.
    history: History,
    limits: Limits,
    keeper: Keeper,
    under_way: JoinSet<Finished<E>>,
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

impl<E: Effects> Sender<E> {
    /// `owner` is this process; `written` tells of new follow-ups.
    pub fn new(pool: PgPool, effects: E, history: History, owner: Uuid, written: Arc<Notify>, limits: Limits) -> Self {
        let effects = Arc::new(effects);
        let (under_way, ids) = (JoinSet::new(), HashSet::new());
        Self {
            pool,
            effects,
            history,
            limits,
            keeper: Keeper::new(<E::Domain as Domain>::SENDER, owner),
            under_way,
            ids,
            started: None,
            looked_for_all: Instant::now(),
            checked: None,
            written,
        }
    }

    async fn hold(&mut self) -> Result<Option<Lease>, sqlx::Error> {
        let before = self.keeper.last();
        let lease = self.keeper.keep(&self.pool).await?;
        if before.is_some() && before != lease {
            // Another process has owned it meanwhile.
            self.abandon();
        }
        Ok(lease)
    }

    /// Another process owns the lease, and so what is under way.
    fn abandon(&mut self) {
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
            let (effects, branch) = (self.effects.clone(), branch.clone());
            self.under_way.spawn(async move {
                let settlement = effects.perform(&due, &branch).await;
                (due, branch, settlement)
            });
        }
        Ok(())
    }

    /// What is due and not under way; of what was due long before that which was started last, not all at each look.
    async fn look(&mut self, limit: i64) -> Result<(Vec<Due<Effect<E>>>, Branch), sqlx::Error> {
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
            clock::check(&self.pool, self.limits.clock_tolerance).await?;
            follow_up::hasten::<E::Domain>(&self.pool, self.limits.longest_wait).await?;
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
    ) -> Result<(Vec<Due<Effect<E>>>, Branch), sqlx::Error> {
        let seen = self.history.seen();
        let (due, found) = follow_up::due::<E::Domain>(&self.pool, &seen, in_flight, since, limit).await?;
        let branch = self.history.note(seen, found);
        // Another history was found meanwhile: the next look tells which one this is of.
        Ok(if branch.is_lost() { (vec![], branch) } else { (due, branch) })
    }

    /// Everything that has come to an end. Waits for the first, but not when there may be more to start meanwhile.
    async fn finished(&mut self) -> Vec<Finished<E>> {
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
    async fn settle(&mut self, lease: &Lease, finished: Vec<Finished<E>>) -> Result<(), sqlx::Error> {
        // Whether recorded or not: what is still due is started again, and has its effect once.
        finished.iter().for_each(|(due, ..)| _ = self.ids.remove(&due.id));
        let seen = self.history.seen();
        // What came of follow-ups that the log does not have any more settles nothing.
        let of_log = finished.into_iter().filter(|(_, branch, _)| branch.is_same(&seen.branch));
        let settled: Vec<_> = of_log.map(|(due, _, settlement)| (due, settlement)).collect();
        if settled.is_empty() {
            return Ok(());
        }
        if !follow_up::settle::<E::Domain>(&self.pool, lease, &seen, settled).await? {
            self.keeper.forget();
            self.abandon();
        }
        Ok(())
    }
}

impl<E: Effects> Step for Sender<E> {
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
        let Some(lease) = self.keeper.last() else { return };
        while !self.under_way.is_empty() {
            let settled = self.finished().await;
            _ = self.settle(&lease, settled).await;
        }
        _ = self.keeper.release(&self.pool).await;
    }
}

/// Why a command that follows from an event was not executed.
#[derive(Debug)]
pub enum NotExecuted<D: Decide> {
    Rejected(D::Rejection),
    /// It can be sent again as it is.
    Failed(String),
    /// It will never be executed as it is.
    Unfit(String),
}

/// Executes the command of a follow-up that was read from `branch`, once for the id of the follow-up.
///
/// # Errors
/// When it was not executed, or may not have been.
pub async fn execute<D: Decide, E>(
    executor: &Executor<D>,
    due: &Due<E>,
    branch: &Branch,
    command: D::Command,
) -> Result<(), NotExecuted<D>> {
    let envelope = Envelope {
        command_id: due.id,
        command,
        actor: ACTOR.into(),
        correlation_id: Some(due.correlation_id),
        causation_id: Some(due.event_id),
        occurred_at: Utc::now(),
        traceparent: None,
    };
    match executor.execute_on(&envelope, branch).await {
        Ok(_) => Ok(()),
        // It was executed before. What was decided since then has changed its body.
        Err(ExecuteError::IdSpent) => Ok(()),
        Err(ExecuteError::Rejected(rejection)) => Err(NotExecuted::Rejected(rejection)),
        // What is broken is not the follow-up.
        Err(e @ (ExecuteError::Conflict(_) | ExecuteError::Unavailable(_) | ExecuteError::Broken(_))) => {
            Err(NotExecuted::Failed(e.to_string()))
        }
        Err(e @ (ExecuteError::Refused(_) | ExecuteError::Unreadable(_))) => Err(NotExecuted::Unfit(e.to_string())),
    }
}

/// What becomes of a follow-up that cannot be carried out at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// How often it is tried. After the last time it is parked, with its reason.
    pub attempts: u32,
    /// The upper bound of the wait after the first attempt. It doubles with every attempt …
    pub first: Duration,
    /// … up to this.
    pub last: Duration,
}

impl Policy {
    /// How long to wait after `attempts` attempts: exponential backoff with full jitter, a fraction `random` (0 to 1)
    /// of the whole bound, so that those who failed together do not come back together.
    pub fn delay(&self, attempts: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(30));
        doubled.min(self.last).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Again, after a while and no later than after `longest_wait`; parked, if it was tried often enough.
    pub fn retry<E>(&self, due: &Due<E>, reason: &str, longest_wait: Duration) -> Settlement<E> {
        let attempts = due.attempts.unsigned_abs().saturating_add(1);
        if attempts >= self.attempts {
            return park(due, format!("given up after {attempts} attempts: {reason}"));
        }
        let after = self.delay(attempts, rand::random_range(0.0..1.0)).min(longest_wait);
        Settlement::Retry { reason: reason.to_owned(), after }
    }
}

/// Leaves it to a person.
pub fn park<E>(due: &Due<E>, reason: String) -> Settlement<E> {
    tracing::error!(follow_up = %due.id, reaction = due.reaction, reason, "a follow-up is parked");
    Settlement::Parked { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { attempts: 60, first: Duration::from_millis(100), last: Duration::from_secs(1) };

    #[test]
    fn waits_are_bounded_by_twice_as_long_each_time_up_to_the_last() {
        let bounds = [1, 2, 3, 4, 5, 6].map(|attempts| POLICY.delay(attempts, 1.0).as_millis());
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(POLICY.delay(u32::MAX, 1.0), POLICY.last);
    }

    #[test]
    fn waits_are_anything_from_nothing_to_the_bound() {
        assert_eq!(POLICY.delay(7, 0.0), Duration::ZERO);
        assert_eq!(POLICY.delay(2, 0.25), Duration::from_millis(50));
        assert_eq!(POLICY.delay(60, 0.5), POLICY.last / 2);
    }
}
