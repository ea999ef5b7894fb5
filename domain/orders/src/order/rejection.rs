//! Why a command is refused to an order.

use super::state::{Approval, Status};
use crate::Fault;
use crate::id::{LineNo, OrderId, PaymentId, ReceiptId, ShipmentId};
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Rejection {
    #[error("the order is malformed")]
    Invalid { faults: Vec<Fault> },
    #[error("order {order_id} exists already, with other contents")]
    AlreadyPlaced { order_id: OrderId },
    #[error("there is no order {order_id}")]
    NotPlaced { order_id: OrderId },
    #[error("order {order_id} has ended: it is {status}")]
    Ended { order_id: OrderId, status: Status },
    #[error(
        "shipment {shipment_id} is dispatched{}: what is under way can only be returned",
        if waiting.is_empty() { "" } else { ", others of the order are not" }
    )]
    AlreadyDispatched {
        shipment_id: ShipmentId,
        /// The order's shipments that are not, as far as is known.
        waiting: Vec<ShipmentId>,
    },
    #[error("order {order_id} has no payment {payment_id}")]
    UnknownPayment { order_id: OrderId, payment_id: PaymentId },
    #[error(
        "order {order_id} was placed and paid elsewhere: it can be shipped, cancelled and returned here, but not edited"
    )]
    Imported { order_id: OrderId },
    #[error("order {order_id} is not confirmed")]
    NotConfirmed { order_id: OrderId },
    #[error("order {order_id} is confirmed already")]
    AlreadyConfirmed { order_id: OrderId },
    #[error("the payments of order {order_id} are not secured: nothing can have been reserved for it")]
    PaymentsNotSecured { order_id: OrderId },
    #[error("a payment of order {order_id} has an outcome: it does not expire")]
    PaymentAttempted { order_id: OrderId },
    #[error("the stock of order {order_id} is being reserved: try again")]
    BeingReserved { order_id: OrderId },
    #[error("order {order_id} is on hold")]
    OnHold { order_id: OrderId },
    #[error("approval {approval} of order {order_id} is waited for already")]
    ApprovalPending { order_id: OrderId, approval: u32 },
    #[error("order {order_id} has no approval {approval}")]
    UnknownApproval { order_id: OrderId, approval: u32 },
    #[error("approval {approval} of order {order_id} is {decided}")]
    ApprovalDecided { order_id: OrderId, approval: u32, decided: Approval },
    #[error("edit {edit} of order {order_id} is neither confirmed nor discarded")]
    EditOpen { order_id: OrderId, edit: u32 },
    #[error("order {order_id} has no edit {edit}")]
    UnknownEdit { order_id: OrderId, edit: u32 },
    #[error("edit {edit} of order {order_id} is confirmed")]
    EditConfirmed { order_id: OrderId, edit: u32 },
    #[error("edit {edit} of order {order_id} is discarded")]
    EditDiscarded { order_id: OrderId, edit: u32 },
    #[error("edit {edit} of order {order_id} waits for its payments or its stock")]
    EditNotSecured {
        order_id: OrderId,
        edit: u32,
        /// Those that are not authorised.
        payments: Vec<PaymentId>,
        stock_secured: bool,
    },
    #[error("of line {line} of order {order_id}, {returnable} can be returned")]
    NotReturnable { order_id: OrderId, line: LineNo, returnable: u32 },
    #[error("order {order_id} has no return {return_no}")]
    UnknownReturn { order_id: OrderId, return_no: u32 },
    #[error("return {return_no} of order {order_id} is not approved")]
    ReturnNotApproved { order_id: OrderId, return_no: u32 },
    #[error("parcel {receipt_id} of order {order_id} was taken in already, with something else in it")]
    ReceiptIdSpent { order_id: OrderId, receipt_id: ReceiptId },
}

impl Rejection {
    /// Whether it is about something that ends by itself, so that the same command may succeed a little later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::BeingReserved { .. } | Self::EditNotSecured { .. })
    }
}
