//! The verbs of the command API: what each is sent with, and the command that it is.

use crate::api::Service;
use crate::execute::Executor;
use crate::provider::bounded;
use domain::Command;
use domain::id::{AddressId, LineNo, OrderId, PaymentId, ReceiptId, ShipmentId, Sku};
use domain::order::{self, CancelReason, HoldReason, PlaceOrder, ReceivedLine, ReturnLine, ReturnReason};
use domain::payment::{self, Call, Outcome, ProviderNotice};
use domain::shipment;
use domain::stock::{self, AdjustReason};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// The data of a verb, and the command that it is.
pub trait Verb: Serialize + DeserializeOwned + Send {
    /// `order.place`: the end of the subject.
    const NAME: &'static str;
    /// Where in the body the fields are that the domain may find fault with.
    const FIELDS: &'static str = "data";
    fn command(self) -> Command;
}

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
                const NAME: &'static str = $verb;
                $(const FIELDS: &'static str = $fields;)?
                fn command(self) -> Command {
                    let Self { $($field),+ } = self;
                    $command
                }
            }
        )+

        /// Starts an endpoint for each verb.
        pub(super) async fn start_all(service: &mut Service, executor: &Executor) -> Result<(), async_nats::Error> {
            $(super::start_verb::<$name>(service, executor).await?;)+
            Ok(())
        }
    };
}

verbs! {
    /// The id is made by the client, so that placing the order twice is placing it once.
    Place = "order.place" in "data.order" { order_id: OrderId, order: PlaceOrder } =>
        to_order(order_id, order::Command::Place(order));

    Cancel = "order.cancel" {
        order_id: OrderId,
        #[serde(deserialize_with = "somebodys_reason")] reason: CancelReason,
    } =>
        Command::CancelOrder { id: order_id, reason };

    CancelLines = "order.cancel_lines" {
        order_id: OrderId,
        lines: Vec<LineNo>,
        #[serde(deserialize_with = "somebodys_reason")] reason: CancelReason,
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

/// A reason that somebody can have; the others are the system's own.
fn somebodys_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CancelReason, D::Error> {
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
