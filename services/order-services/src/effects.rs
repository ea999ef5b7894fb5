//! Carries out the follow-ups of orders.
//!
//! A command goes to the executor, as one from the command API would. A call to the provider and a notice go over NATS.

use crate::notifier::NoticeBody;
use crate::outside::{NoAnswer, request};
use crate::policy::{Timeouts, decline_is_foreseen, policy, refusal_is_parked};
use crate::provider::{self, bounded};
use crate::{Executor, subject};
use async_nats::Client;
use engine::follow_up::{self, Settlement};
use order_views::{Orders, follow_up as recorded};
use orders::Command;
use orders::payment::Outcome as ProviderOutcome;
use orders::reaction::{
    Act, CALL_AGAIN, LookupAnswer, Operation, ProviderCall, answered, not_answered, not_found, react_to_rejection,
};
use runtime::sender::{self, NotExecuted, execute, park};
use serde::Serialize;
use store::Branch;

type Due = follow_up::Due<Act>;

/// What the follow-ups of orders can reach.
pub struct Effects {
    executor: Executor,
    client: Client,
    timeouts: Timeouts,
}

impl sender::Effects for Effects {
    type Domain = Orders;

    async fn perform(&self, due: &Due, branch: &Branch) -> Settlement<Act> {
        if branch.is_lost() {
            return self.retry(due, "the log has gone on from an older state");
        }
        match &due.effect {
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
}

impl Effects {
    pub fn new(executor: Executor, client: Client, timeouts: Timeouts) -> Self {
        Self { executor, client, timeouts }
    }

    async fn command(&self, due: &Due, branch: &Branch, command: Command) -> Settlement<Act> {
        match execute(&self.executor, due, branch, command.clone()).await {
            Ok(()) => Settlement::Accepted,
            Err(NotExecuted::Rejected(rejection)) if refusal_is_parked(&due.effect) => park(due, rejection.to_string()),
            Err(NotExecuted::Rejected(rejection)) => {
                let next = react_to_rejection(&command, &rejection).map(recorded);
                Settlement::Refused { reason: rejection.to_string(), next }
            }
            Err(NotExecuted::Failed(reason)) => self.retry(due, &reason),
            Err(NotExecuted::Unfit(reason)) => park(due, reason),
        }
    }

    /// Asks the provider, and records its answer with the payment; or that there was none in time, which is no decline:
    /// the provider is then asked what it knows of the call.
    async fn provider(&self, due: &Due, branch: &Branch, call: &ProviderCall) -> Settlement<Act> {
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
    async fn outcome(
        &self,
        due: &Due,
        branch: &Branch,
        call: &ProviderCall,
        outcome: ProviderOutcome,
    ) -> Settlement<Act> {
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
        request(&self.client, subject, body, self.timeouts.answer).await
    }

    fn retry(&self, due: &Due, reason: &str) -> Settlement<Act> {
        policy(&due.effect).retry(due, reason, self.timeouts.longest_wait)
    }
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
