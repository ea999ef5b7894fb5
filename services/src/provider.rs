//! The simulated payment provider, behind the contract that a real one would be reached by.
//!
//! It behaves by the payment token (`provider/rule.rs`), and keeps books of what it did (`provider/ledger.rs`): asked
//! again with the same key, it answers the same, also after a restart.

mod ledger;
mod rule;

pub use ledger::{Moved, moved};
pub use rule::{DECLINE, TIMEOUT_AFTER};

use crate::api::{Service, respond};
use crate::subject;
use crate::wire::{Code, ErrorBody, parse};
use async_nats::Client;
use async_nats::service::Request;
use domain::payment::Outcome;
use domain::reaction::{LookupAnswer, Operation, ProviderCall};
use ledger::Done;
use rule::Rule;
use sqlx::PgPool;
use std::time::Duration;

/// Starts the provider's endpoints; they answer until the service is stopped. An answer that is to be late comes after
/// `late`.
///
/// # Errors
/// When NATS cannot be reached.
pub async fn start(client: &Client, pool: PgPool, late: Duration) -> Result<Service, async_nats::Error> {
    let mut service = Service::new(client, "daybook-provider", "The simulated payment provider").await?;
    for verb in ["authorise", "capture", "void", "refund", "lookup"] {
        let pool = pool.clone();
        service
            .endpoint(subject::PROVIDER, verb, move |request| {
                let pool = pool.clone();
                async move {
                    match verb {
                        "lookup" => respond(&request, look_up(&pool, &request).await).await,
                        _ => perform(&pool, verb, &request, late).await,
                    }
                }
            })
            .await?;
    }
    Ok(service)
}

/// The verb that an operation is asked with.
pub(crate) fn verb(operation: &Operation) -> &'static str {
    match operation {
        Operation::Authorise { .. } => "authorise",
        Operation::Capture { .. } => "capture",
        Operation::Void => "void",
        Operation::Refund { .. } => "refund",
        Operation::Lookup { .. } => "lookup",
    }
}

/// The longest text of the provider's that goes into an event, in characters.
const MAX_TEXT: usize = 200;

/// The provider's answer as an event can hold it: its texts are somebody else's, of any length and with anything in them.
pub(crate) fn bounded(outcome: Outcome) -> Outcome {
    let text = |text: String| text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
    match outcome {
        Outcome::Approved { reference } => Outcome::Approved { reference: text(reference) },
        Outcome::Declined { reason } => Outcome::Declined { reason: text(reason) },
    }
}

fn parse_call(asked: &str, request: &Request) -> Result<ProviderCall, ErrorBody> {
    let call: ProviderCall = parse(&request.message.payload)?;
    if verb(&call.operation) == asked {
        Ok(call)
    } else {
        Err(ErrorBody::new(Code::Invalid, format!("this is not what {asked} is asked with")))
    }
}

async fn look_up(pool: &PgPool, request: &Request) -> Result<LookupAnswer, ErrorBody> {
    let call = parse_call("lookup", request)?;
    let found = ledger::look_up(pool, call.idempotency_key).await.map_err(|e| unavailable(&e))?;
    Ok(found.map_or(LookupAnswer::NotFound, LookupAnswer::Found))
}

/// Does what is asked, and answers as its rule says.
async fn perform(pool: &PgPool, verb: &str, request: &Request, late: Duration) {
    let done = match parse_call(verb, request) {
        Ok(call) => ledger::perform(pool, &call).await.map_err(|e| unavailable(&e)),
        Err(error) => Err(error),
    };
    let Done { outcome, rule, is_new } = match done {
        Ok(Some(done)) => done,
        Ok(None) => return,
        Err(error) => return respond(request, Err::<(), _>(error)).await,
    };
    match rule {
        Rule::TimeoutAfter if is_new => return,
        Rule::Late if is_new => tokio::time::sleep(late).await,
        Rule::Twice => respond(request, Ok(&outcome)).await,
        Rule::Approve
        | Rule::Decline
        | Rule::DeclineCapture
        | Rule::TimeoutAfter
        | Rule::TimeoutBefore
        | Rule::Late => {}
    }
    respond(request, Ok(outcome)).await;
}

fn unavailable(error: &sqlx::Error) -> ErrorBody {
    ErrorBody::of_database("the provider's books cannot be used", error)
}
