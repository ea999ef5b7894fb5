//! Commands over NATS request/reply: one endpoint a verb. Only what a client may ask for is here; what the system tells
//! itself (that stock was reserved, that a payment is to be captured) goes through the sender alone.

use crate::api::{Service, respond};
use crate::execute::{Envelope, Executor};
use crate::js::TRACEPARENT;
use crate::provider::bounded;
use crate::subject;
use crate::wire::{CommandBody, ErrorBody, Reply, parse};
use async_nats::service::Request;
use async_nats::{Client, Message};
use bytestring::ByteString;
use chrono::Utc;
use domain::Command;
use domain::id::{OrderId, PaymentId, ShipmentId, Sku};
use domain::order::{self, CancelReason, PlaceOrder};
use domain::payment::{Call, Outcome, ProviderNotice};
use domain::{payment, shipment, stock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `order.place`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Made by the client, so that placing the order twice is placing it once.
    pub order_id: OrderId,
    pub order: PlaceOrder,
}

/// `order.cancel`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    pub order_id: OrderId,
    pub reason: CancelReason,
}

/// `stock.receive`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receive {
    pub sku: Sku,
    pub quantity: u32,
}

/// `shipment.dispatch`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    pub shipment_id: ShipmentId,
    pub tracking: String,
}

/// `shipment.confirm_delivery`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmDelivery {
    pub shipment_id: ShipmentId,
}

/// `payment.record_notice`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordNotice {
    pub payment_id: PaymentId,
    /// The provider's, or made of it: which of its notices it is.
    pub notice_id: Uuid,
    /// What the provider was asked for, and what came of it.
    pub call: Call,
    pub outcome: Outcome,
}

/// The data of a verb, and the command that it is.
pub trait Verb: Serialize + DeserializeOwned + Send {
    /// `order.place`: the end of the subject.
    const NAME: &'static str;
    /// Where in the body the fields are that the domain may find fault with.
    const FIELDS: &'static str = "data";
    fn command(self) -> Command;
}

impl Verb for Place {
    const NAME: &'static str = "order.place";
    const FIELDS: &'static str = "data.order";
    fn command(self) -> Command {
        Command::Order { id: self.order_id, command: order::Command::Place(self.order) }
    }
}

impl Verb for Cancel {
    const NAME: &'static str = "order.cancel";
    fn command(self) -> Command {
        Command::CancelOrder { id: self.order_id, reason: self.reason }
    }
}

impl Verb for Receive {
    const NAME: &'static str = "stock.receive";
    fn command(self) -> Command {
        Command::Stock(stock::Command::Receive { sku: self.sku, quantity: self.quantity })
    }
}

impl Verb for Dispatch {
    const NAME: &'static str = "shipment.dispatch";
    fn command(self) -> Command {
        let command = shipment::Command::Dispatch { tracking: self.tracking };
        Command::Shipment { id: self.shipment_id, command }
    }
}

impl Verb for ConfirmDelivery {
    const NAME: &'static str = "shipment.confirm_delivery";
    fn command(self) -> Command {
        Command::Shipment { id: self.shipment_id, command: shipment::Command::ConfirmDelivery }
    }
}

impl Verb for RecordNotice {
    const NAME: &'static str = "payment.record_notice";
    fn command(self) -> Command {
        let notice = ProviderNotice { call: self.call, outcome: bounded(self.outcome) };
        let command = payment::Command::RecordNotice { notice_id: self.notice_id, notice };
        Command::Payment { id: self.payment_id, command }
    }
}

/// Starts the command endpoints; they answer until the service is stopped.
///
/// # Errors
/// When NATS cannot be reached.
pub async fn start(client: &Client, executor: Executor) -> Result<Service, async_nats::Error> {
    let mut service = Service::new(client, "daybook-commands", "Daybook's command API").await?;
    verb::<Place>(&mut service, &executor).await?;
    verb::<Cancel>(&mut service, &executor).await?;
    verb::<Receive>(&mut service, &executor).await?;
    verb::<Dispatch>(&mut service, &executor).await?;
    verb::<ConfirmDelivery>(&mut service, &executor).await?;
    verb::<RecordNotice>(&mut service, &executor).await?;
    Ok(service)
}

async fn verb<V: Verb + 'static>(service: &mut Service, executor: &Executor) -> Result<(), async_nats::Error> {
    let executor = executor.clone();
    let handle = move |request: Request| {
        let executor = executor.clone();
        async move {
            let reply = handle::<V>(&executor, &request.message).await;
            respond(&request, reply).await;
        }
    };
    service.endpoint(subject::COMMANDS, V::NAME, handle).await
}

async fn handle<V: Verb>(executor: &Executor, message: &Message) -> Result<Reply, ErrorBody> {
    let envelope = envelope::<V>(message)?;
    let executed = executor.execute(&envelope).await;
    Ok(executed.map_err(|e| ErrorBody::from(e).within(V::FIELDS))?.into())
}

/// What a client's message asks for.
fn envelope<V: Verb>(message: &Message) -> Result<Envelope, ErrorBody> {
    let body: CommandBody<V> = parse(&message.payload)?;
    if body.command_id.get_version_num() != 7 {
        return Err(ErrorBody::invalid("command_id", "a UUID of version 7 (RFC 9562), new for every command"));
    }
    let actor = body.actor.as_str();
    if !(1..=64).contains(&actor.len()) || actor.trim() != actor || actor.contains(char::is_control) {
        return Err(ErrorBody::invalid("actor", "1 to 64 bytes without control characters or blanks at the ends"));
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
