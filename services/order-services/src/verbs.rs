//! The verbs of the command API: what each is sent with, and the command that it is.

use crate::Executor;
use crate::decide::OrderDecider;
use crate::provider::bounded;
use orders::Command;
use orders::id::{AddressId, LineNo, OrderId, PaymentId, ReceiptId, ShipmentId, Sku};
use orders::order::{self, CancelReason, HoldReason, PlaceOrder, ReceivedLine, ReturnLine, ReturnReason};
use orders::payment::{self, Call, Outcome, ProviderNotice};
use orders::shipment;
use orders::stock::{self, AdjustReason};
use runtime::api::{Door, Service};
use runtime::commands::{Commands, Verb};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// Declares a verb: its name, where its faults are if not in `data`, its fields, and the command that they make.
macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $verb:literal $(in $fields:literal)?
        { $($(#[$attribute:meta])* $field:ident: $type:ty),+ $(,)? } => $command:expr;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $($(#[$attribute])* pub $field: $type),+ }

            impl Verb for $name {
                type Decider = OrderDecider;
                const NAME: &'static str = $verb;
                $(const FIELDS: &'static str = $fields;)?
                fn command(self) -> Command {
                    let Self { $($field),+ } = self;
                    $command
                }
            }
        )+

        /// Starts the command endpoints; they answer until the service is stopped.
        ///
        /// # Errors
        /// When NATS cannot be reached.
        pub async fn start(door: impl Into<Door>, executor: Executor) -> Result<Service, async_nats::Error> {
            let mut commands =
                Commands::new(door.into(), "daybook-commands", "Daybook's command API", executor).await?;
            $(commands.verb::<$name>().await?;)+
            Ok(commands.into_service())
        }
    };
}

verbs! {
    /// The id is made by the client, so that placing the order twice is placing it once.
    Place = "order.place" in "data.order" { order_id: OrderId, order: PlaceOrder } =>
        to_order(order_id, order::Command::Place(order));

    Cancel = "order.cancel" {
        order_id: OrderId,
        #[serde(deserialize_with = "client_reason")] reason: CancelReason,
    } =>
        Command::CancelOrder { id: order_id, reason };

    CancelLines = "order.cancel_lines" {
        order_id: OrderId,
        lines: Vec<LineNo>,
        #[serde(deserialize_with = "client_reason")] reason: CancelReason,
    } =>
        Command::CancelLines { id: order_id, lines, reason };

    ChangeAddress = "order.change_address" { order_id: OrderId, address_id: AddressId } =>
        Command::ChangeAddress { id: order_id, address_id };

    PlaceHold = "order.place_hold" { order_id: OrderId, reason: HoldReason } =>
        to_order(order_id, order::Command::PlaceHold { reason });

    ReleaseHold = "order.release_hold" { order_id: OrderId, reason: HoldReason } =>
        to_order(order_id, order::Command::ReleaseHold { reason });

    /// An answer is awaited for so many seconds, then the order is cancelled.
    RequestApproval = "order.request_approval" { order_id: OrderId, within_seconds: u32 } =>
        to_order(order_id, order::Command::RequestApproval { within_seconds });

    GrantApproval = "order.grant_approval" { order_id: OrderId, approval: u32 } =>
        to_order(order_id, order::Command::GrantApproval { approval });

    DenyApproval = "order.deny_approval" { order_id: OrderId, approval: u32 } =>
        to_order(order_id, order::Command::DenyApproval { approval });

    ProposeEdit = "order.propose_edit" in "data.edit" { order_id: OrderId, edit: order::ProposeEdit } =>
        to_order(order_id, order::Command::ProposeEdit(edit));

    ConfirmEdit = "order.confirm_edit" { order_id: OrderId, edit: u32 } =>
        Command::ConfirmEdit { id: order_id, edit };

    DiscardEdit = "order.discard_edit" { order_id: OrderId, edit: u32 } =>
        to_order(order_id, order::Command::DiscardEdit { edit });

    RequestReturn = "order.request_return" { order_id: OrderId, lines: Vec<ReturnLine>, reason: ReturnReason } =>
        to_order(order_id, order::Command::RequestReturn { lines, reason });

    ApproveReturn = "order.approve_return" { order_id: OrderId, return_no: u32 } =>
        to_order(order_id, order::Command::ApproveReturn { return_no });

    ReceiveReturn = "order.receive_return" {
        order_id: OrderId, return_no: u32, receipt_id: ReceiptId, lines: Vec<ReceivedLine>
    } => to_order(order_id, order::Command::ReceiveReturn { return_no, receipt_id, lines });

    /// What the payment provider tells unasked: what it was asked for, and what came of it. The same id is the same notice.
    RecordNotice = "payment.record_notice" {
        payment_id: PaymentId, notice_id: Uuid, call: Call, outcome: Outcome
    } => {
        let notice = ProviderNotice { call, outcome: bounded(outcome) };
        Command::Payment { id: payment_id, command: payment::Command::RecordNotice { notice_id, notice } }
    };

    Receive = "stock.receive" { sku: Sku, quantity: u32 } =>
        Command::Stock(stock::Command::Receive { sku, quantity });

    /// So many pieces more, or less, were found than there should be.
    Adjust = "stock.adjust" { sku: Sku, by: i64, reason: AdjustReason } =>
        Command::Stock(stock::Command::Adjust { sku, by, reason });

    MarkReady = "shipment.mark_ready" { shipment_id: ShipmentId, revision: u32 } =>
        to_shipment(shipment_id, shipment::Command::MarkReady { revision });

    Dispatch = "shipment.dispatch" { shipment_id: ShipmentId, revision: u32, tracking: String } =>
        to_shipment(shipment_id, shipment::Command::Dispatch { revision, tracking });

    ConfirmDelivery = "shipment.confirm_delivery" { shipment_id: ShipmentId } =>
        to_shipment(shipment_id, shipment::Command::ConfirmDelivery);

    ReportLost = "shipment.report_lost" { shipment_id: ShipmentId } =>
        to_shipment(shipment_id, shipment::Command::ReportLost);

    ReportReturned = "shipment.report_returned" { shipment_id: ShipmentId } =>
        to_shipment(shipment_id, shipment::Command::ReportReturned);
}

/// A reason that a client can give; the others are the system's own.
fn client_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CancelReason, D::Error> {
    match CancelReason::deserialize(deserializer) {
        Ok(reason @ (CancelReason::CustomerRequest | CancelReason::SellerRequest | CancelReason::Fraud)) => Ok(reason),
        _ => Err(D::Error::custom("customer_request, seller_request or fraud")),
    }
}

fn to_order(id: OrderId, command: order::Command) -> Command {
    Command::Order { id, command }
}

fn to_shipment(id: ShipmentId, command: shipment::Command) -> Command {
    Command::Shipment { id, command }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::wire::{CommandBody, Fault, parse};

    /// Where it is wrong, and what would be right; never the value.
    #[test]
    fn a_malformed_body_is_told_by_its_field_and_without_its_value() {
        let command = |data: &str| {
            let body = format!(r#"{{"command_id":"{}","actor":"a","data":{data}}}"#, Uuid::nil());
            let error = parse::<CommandBody<Place>>(body.as_bytes()).unwrap_err();
            let Fault { field, expected } = error.fields.into_iter().next().unwrap();
            assert!(!format!("{field} {expected} {}", error.message).contains("tok_secret"), "{expected}");
            (field, expected)
        };
        let told = |field: &str, expected: &str| (field.to_owned(), expected.to_owned());
        assert_eq!(command(r#""tok_secret""#), told("data", "a JSON object"));
        assert_eq!(command("{}"), told("data", "missing field `order_id`"));
        assert_eq!(command(r#""tok_secret, expected tok_secret at line tok_secret""#), told("data", "a JSON object"));
        assert_eq!(command(r#"{"order_id":"tok_secret"}"#), told("data.order_id", "a UUID"));
        let method = |method: &str| {
            let line = r#"{"sku":"a","seller_id":"00000000-0000-0000-0000-000000000000","quantity":1,"unit_price":1}"#;
            let id = Uuid::nil();
            command(&format!(
                r#"{{"order_id":"{id}","order":{{"customer_id":"{id}","currency":"EUR","shipping_address_id":"{id}",
                "lines":[{line}],"payments":[{{"method":{method},"amount":1}}]}}}}"#
            ))
        };
        assert_eq!(method(r#""tok_secret""#), told("data.order.payments[0].method", "a JSON object"));
        let token = "data.order.payments[0].method.token";
        assert_eq!(method(r#"{"kind":"card","token":["tok_secret"]}"#), told(token, "a string"));
        assert_eq!(method(r#"["card","tok_secret"]"#), told("data.order.payments[0].method", "a JSON object"));
        assert_eq!(method(r#"{"kind":"\u0000"}"#).0, "data.order.payments[0].method.kind");
        assert_eq!(method(r#"{"kind":"a","kind":"a"}"#), told("data.order.payments[0].method.kind", "each field once"));
        assert_eq!(method("{\"a\u{202E}b\":1}").0, "data.order.payments[0].method.a\u{fffd}b");
        assert_eq!(method(&format!(r#"{{"{}":1}}"#, "k".repeat(1000))).0.chars().count(), 201);
        assert_eq!(method(r#"{"kind":tok_secret}"#), told("data.order.payments[0].method.kind", "well-formed JSON"));
    }
}
