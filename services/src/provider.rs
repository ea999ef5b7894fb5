//! The simulated payment provider, behind the contract that a real one would be reached by.
//!
//! It decides by the payment token alone, and names what it did after the idempotency key: asked again with the same
//! key, it answers the same, also after a restart.

use crate::api::{Service, respond};
use crate::subject;
use crate::wire::{Code, ErrorBody, parse};
use async_nats::Client;
use bytes::Bytes;
use domain::payment::Outcome;
use domain::reaction::{Operation, ProviderCall};

/// A payment whose token begins so is declined; every other one is approved.
pub const DECLINE: &str = "tok_decline";

/// Starts the provider's endpoints; they answer until the service is stopped.
///
/// # Errors
/// When NATS cannot be reached.
pub async fn start(client: &Client) -> Result<Service, async_nats::Error> {
    let mut service = Service::new(client, "daybook-provider", "The simulated payment provider").await?;
    for verb in ["authorise", "capture", "void"] {
        service
            .endpoint(subject::PROVIDER, verb, move |request| async move {
                let answer = answer(verb, &request.message.payload);
                respond(&request, answer).await;
            })
            .await?;
    }
    Ok(service)
}

fn answer(verb: &str, body: &Bytes) -> Result<Outcome, ErrorBody> {
    let call: ProviderCall = parse(body)?;
    let approved = || Outcome::Approved { reference: format!("sim-{verb}-{}", call.idempotency_key.simple()) };
    match (verb, &call.operation) {
        ("authorise", Operation::Authorise { method, .. }) if method.token.starts_with(DECLINE) => {
            Ok(Outcome::Declined { reason: "card declined".into() })
        }
        ("authorise", Operation::Authorise { .. })
        | ("capture", Operation::Capture { .. })
        | ("void", Operation::Void) => Ok(approved()),
        _ => Err(ErrorBody::new(Code::Invalid, format!("this is not what {verb} is asked with"))),
    }
}
