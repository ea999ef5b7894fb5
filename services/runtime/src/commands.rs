//! Commands over NATS request/reply: one endpoint a verb.

use crate::api::{Door, Request, Service, respond};
use crate::executor::{Decide, Envelope, Executor};
use crate::message::TRACEPARENT;
use crate::text::{folded, is_invisible};
use crate::wire::{CommandBody, ErrorBody, Reply, parse};
use crate::{sender, subject};
use async_nats::Message;
use bytestring::ByteString;
use chrono::Utc;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The data of a verb, and the command that it is. Only what a client may ask for is a verb.
pub trait Verb: Serialize + DeserializeOwned + Send + 'static {
    type Decider: Decide;
    /// `order.place`: the end of the subject.
    const NAME: &'static str;
    /// Where in the body the fields are that the domain may find fault with.
    const FIELDS: &'static str = "data";

    fn command(self) -> <Self::Decider as Decide>::Command;
}

/// The command endpoints of a domain.
pub struct Commands<D: Decide> {
    service: Service,
    executor: Executor<D>,
}

impl<D: Decide> Commands<D> {
    /// A NATS service of this name, without endpoints yet.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn new(
        door: Door,
        name: &str,
        description: &str,
        executor: Executor<D>,
    ) -> Result<Self, async_nats::Error> {
        Ok(Self { service: Service::new(door, name, description).await?, executor })
    }

    /// Starts the endpoint of a verb.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn verb<V: Verb<Decider = D>>(&mut self) -> Result<(), async_nats::Error> {
        let executor = self.executor.clone();
        let handle = move |request: Request| {
            let executor = executor.clone();
            async move {
                let reply = handle::<V>(&executor, &request.message).await;
                respond(&request, reply).await;
            }
        };
        self.service.endpoint(subject::COMMANDS, V::NAME, handle).await
    }

    /// The endpoints answer until the service is stopped.
    pub fn into_service(self) -> Service {
        self.service
    }
}

async fn handle<V: Verb>(executor: &Executor<V::Decider>, message: &Message) -> Result<Reply, ErrorBody> {
    let envelope = envelope::<V>(message)?;
    let executed = executor.execute(&envelope).await;
    Ok(executed.map_err(|e| ErrorBody::from(e).within(V::FIELDS))?.into())
}

/// What a client's message asks for.
fn envelope<V: Verb>(message: &Message) -> Result<Envelope<<V::Decider as Decide>::Command>, ErrorBody> {
    let body: CommandBody<V> = parse(&message.payload)?;
    if body.command_id.get_version_num() != 7 {
        return Err(ErrorBody::invalid("command_id", "a UUID of version 7 (RFC 9562), new for every command"));
    }
    let actor = body.actor.as_str();
    if !(1..=64).contains(&actor.len()) || actor.trim() != actor || actor.contains(is_invisible) {
        return Err(ErrorBody::invalid("actor", "1 to 64 bytes that all show, without blanks at the ends"));
    }
    if is_reserved::<V::Decider>(actor) {
        return Err(ErrorBody::invalid("actor", "a name of yours: this one is the system's own"));
    }
    let traceparent = message.headers.as_ref().and_then(|h| h.get(TRACEPARENT));
    Ok(Envelope {
        command_id: body.command_id,
        command: body.data.command(),
        actor: body.actor.into(),
        correlation_id: None,
        causation_id: None,
        occurred_at: body.occurred_at.unwrap_or_else(Utc::now),
        traceparent: traceparent.map(|t| t.as_str().into()).filter(|t: &ByteString| is_traceparent(t)),
    })
}

/// Whether the name is one that the system acts under, in whatever form it is written.
fn is_reserved<D: Decide>(actor: &str) -> bool {
    D::RESERVED_ACTORS.iter().chain([&sender::ACTOR]).any(|reserved| *reserved == folded(actor))
}

/// Version 00 of W3C Trace Context, section 3.2; anything else is not passed on.
fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = text.split('-').collect();
    match parts[..] {
        ["00", trace, parent, flags] => {
            (trace.len(), parent.len(), flags.len()) == (32, 16, 2)
                && [trace, parent, flags].into_iter().all(is_hex)
                && [trace, parent].into_iter().all(|id| id.bytes().any(|b| b != b'0'))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_passed_on() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for bad in [
            "",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
