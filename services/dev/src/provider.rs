//! The simulated payment provider, behind the contract that a real one would be reached by.
//!
//! It behaves by the payment token (`provider/rule.rs`), and keeps books of what it did (`provider/ledger.rs`): asked
//! again with the same key, it answers the same, also after a restart.

mod ledger;
mod rule;

pub use ledger::{Moved, moved};
pub use rule::{DECLINE, TIMEOUT_AFTER};

use ledger::Done;
use order_services::provider::{VERBS, verb};
use order_services::subject;
use orders::reaction::{LookupAnswer, ProviderCall};
use rule::Rule;
use runtime::api::{Door, Request, Service, respond};
use runtime::wire::{Code, ErrorBody, parse};
use sqlx::PgPool;
use std::time::Duration;

/// Starts the provider's endpoints; they answer until the service is stopped. An answer that is to be late comes after
/// `late`.
///
/// # Errors
/// When NATS cannot be reached.
pub async fn start(door: impl Into<Door>, pool: PgPool, late: Duration) -> Result<Service, async_nats::Error> {
    let mut service = Service::new(door.into(), "daybook-provider", "The simulated payment provider").await?;
    for verb in VERBS {
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
