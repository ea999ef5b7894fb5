//! What happens to an order between its placement and its end, and after it: stories through every part of the system.
//! Each looks at the read models, at the provider's own books, and at what the customer was told.

use crate::harness::{System, card, envelope, id, order_of};
use order_services::ExecuteError;
use order_views::order_summary::{self, OrderSummary};
use orders::id::{AddressId, OrderId, PaymentId, ReceiptId, SellerId, ShipmentId};
use orders::money::Amount;
use orders::order::{
    CancelReason, HoldReason, PlaceLine, PlaceOrder, PlacePayment, ProposeEdit, ReceivedLine, ReturnLine, ReturnReason,
    SellerShipping,
};
use orders::{Command, Rejection, order, payment, shipment};
use runtime::executor::Outcome as Executed;
use runtime::step::Step;
use sqlx::{query_as, query_scalar};
use uuid::Uuid;

const HOUR: u32 = 60 * 60;
const DISPATCHED: &str = r#"{"shipment_dispatched": {"tracking": "T1"}}"#;

/// Ten mugs, ten hats, and an order of two mugs and a hat from two sellers, for 32.50: 22.50 of them for the first, who
/// takes the shipping.
fn two_sellers() -> PlaceOrder {
    order_of(&[("mug", 2, 1), ("hat", 1, 2)])
}

async fn start() -> System {
    let system = System::start().await;
    system.receive("mug", 10).await;
    system.receive("hat", 10).await;
    system
}

async fn confirmed(order: PlaceOrder) -> (System, OrderId) {
    let mut system = start().await;
    let order = system.place(order).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    (system, order)
}

async fn tell(system: &System, id: OrderId, command: order::Command) -> Result<Executed, ExecuteError> {
    system.execute(Command::Order { id, command }).await
}

/// Tells the order, and does everything that follows.
async fn told(system: &mut System, id: OrderId, command: order::Command) {
    assert!(tell(system, id, command).await.unwrap().recorded);
    system.settle().await;
}

/// Changes the order with its shipments, and does everything that follows.
async fn changed(system: &mut System, command: Command) {
    assert!(system.execute(command).await.unwrap().recorded);
    system.settle().await;
}

/// Tells the shipment of the seller of that number.
async fn carry(
    system: &System,
    order: OrderId,
    seller: u128,
    command: shipment::Command,
) -> Result<Executed, ExecuteError> {
    system.execute(Command::Shipment { id: ShipmentId::of_seller(order, SellerId(id(seller))), command }).await
}

async fn dispatch(system: &System, order: OrderId, seller: u128) -> Result<Executed, ExecuteError> {
    system.execute(system.dispatch(ShipmentId::of_seller(order, SellerId(id(seller)))).await).await
}

async fn deliver(system: &System, order: OrderId, seller: u128) {
    dispatch(system, order, seller).await.unwrap();
    carry(system, order, seller, shipment::Command::ConfirmDelivery).await.unwrap();
}

async fn row(system: &System, order: OrderId) -> OrderSummary {
    order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap()
}

/// What follow-ups wait for somebody to look at: the reaction and the reason.
async fn parked(system: &System) -> Vec<(String, String)> {
    let parked = "SELECT reaction, reason FROM daybook.follow_ups WHERE state = 'parked' ORDER BY 1";
    query_as(parked).fetch_all(&system.parts.read).await.unwrap()
}

fn is_refused(result: &Result<Executed, ExecuteError>, reason: impl FnOnce(&Rejection) -> bool) -> bool {
    matches!(result, Err(ExecuteError::Rejected(rejection)) if reason(rejection))
}

#[tokio::test]
async fn an_order_on_hold_before_it_is_confirmed_waits_with_its_money_and_its_stock() {
    let mut system = start().await;
    let order = system.place(two_sellers()).await;
    for reason in [HoldReason::Fraud, HoldReason::Address] {
        tell(&system, order, order::Command::PlaceHold { reason }).await.unwrap();
    }
    system.settle().await;
    assert_eq!(system.status(order).await, "on_hold");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((10, 2), (3250, 0, 0)));
    assert_eq!(system.shipments(order).await, []);
    told(&mut system, order, order::Command::ReleaseHold { reason: HoldReason::Fraud }).await;
    assert_eq!(system.status(order).await, "on_hold");
    told(&mut system, order, order::Command::ReleaseHold { reason: HoldReason::Address }).await;
    assert_eq!(system.status(order).await, "confirmed");
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((8, 0), (0, 3250, 0)));
    assert_eq!(system.notices().await, [DISPATCHED, DISPATCHED]);
    system.assert_verified().await;
}

#[tokio::test]
async fn nothing_of_an_order_on_hold_is_dispatched_until_it_is_released() {
    let (mut system, order) = confirmed(two_sellers()).await;
    told(&mut system, order, order::Command::PlaceHold { reason: HoldReason::Manual }).await;
    assert_eq!(system.status(order).await, "on_hold");
    for seller in [1, 2] {
        let refused = dispatch(&system, order, seller).await;
        let held = |r: &Rejection| matches!(r, Rejection::Shipment(shipment::Rejection::Held { .. }));
        assert!(is_refused(&refused, held), "{refused:?}");
    }
    system.settle().await;
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((10, 2), (3250, 0, 0)));
    assert!(system.notices().await.is_empty());
    told(&mut system, order, order::Command::ReleaseHold { reason: HoldReason::Manual }).await;
    assert_eq!(system.status(order).await, "confirmed");
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((8, 0), (0, 3250, 0)));
    assert_eq!(system.notices().await, [DISPATCHED, DISPATCHED]);
    system.assert_verified().await;
}

/// Placed, paid and reserved, and a person has an hour to say whether it may go on.
async fn awaiting_approval() -> (System, OrderId) {
    let mut system = start().await;
    let order = system.place(PlaceOrder { approval_within_seconds: Some(HOUR), ..two_sellers() }).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "awaiting_approval");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((10, 2), (3250, 0, 0)));
    assert_eq!(system.shipments(order).await, []);
    (system, order)
}

#[tokio::test]
async fn an_order_that_is_approved_goes_on_and_its_deadline_is_called_off() {
    let (mut system, order) = awaiting_approval().await;
    system.pass(i64::from(HOUR) - 60).await;
    assert_eq!(system.sweep().await, 0);
    told(&mut system, order, order::Command::GrantApproval { approval: 1 }).await;
    assert_eq!(system.status(order).await, "confirmed");
    system.pass(60).await;
    assert_eq!(system.sweep().await, 0);
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((8, 0), (0, 3250, 0)));
    assert_eq!(system.notices().await, [DISPATCHED, DISPATCHED]);
    system.assert_verified().await;
}

/// Invariant 25: a cancelled order nets to no money taken and no stock held.
async fn assert_called_off(system: &System, order: OrderId, reason: &str) {
    assert_eq!(system.status(order).await, format!("cancelled: {reason}"));
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((10, 0), (10, 0)));
    assert_eq!(system.moved(order).await, (0, 0, 0));
    assert_eq!((row(system, order).await.authorised, row(system, order).await.captured), (0, 0));
    assert_eq!(system.notices().await, [format!(r#"{{"order_cancelled": {{"reason": "{reason}"}}}}"#)]);
    system.assert_verified().await;
}

#[tokio::test]
async fn an_order_that_is_not_approved_is_cancelled() {
    let (mut system, order) = awaiting_approval().await;
    told(&mut system, order, order::Command::DenyApproval { approval: 1 }).await;
    assert_called_off(&system, order, "approval_denied").await;
}

#[tokio::test]
async fn an_order_that_nobody_approves_in_time_is_cancelled_by_its_timer() {
    let (mut system, order) = awaiting_approval().await;
    system.pass(i64::from(HOUR)).await;
    assert_eq!(system.sweep().await, 1);
    system.settle().await;
    assert_called_off(&system, order, "approval_timed_out").await;
    let late = tell(&system, order, order::Command::GrantApproval { approval: 1 }).await;
    assert!(is_refused(&late, |r| matches!(r, Rejection::Order(order::Rejection::ApprovalDecided { .. }))), "{late:?}");
}

/// The two mugs become so many, and what they cost more is paid by this card.
fn mugs_instead(quantity: u32, more: &[(&str, i64)]) -> order::Command {
    let add: Vec<PlaceLine> = order_of(&[("mug", quantity, 1)]).lines;
    let payment = |&(token, amount): &(&str, i64)| PlacePayment { method: card(token), amount: Amount(amount) };
    let shipping = vec![SellerShipping { seller_id: SellerId(id(1)), amount: Amount(250) }];
    let payments = more.iter().map(payment).collect();
    order::Command::ProposeEdit(ProposeEdit { remove: vec![1], add, shipping, payments })
}

#[tokio::test]
async fn an_edit_that_costs_more_is_confirmed_once_the_difference_is_secured() {
    let (mut system, order) = confirmed(two_sellers()).await;
    tell(&system, order, mugs_instead(3, &[("tok_approve_more", 1000)])).await.unwrap();
    let early = system.execute(Command::ConfirmEdit { id: order, edit: 1 }).await;
    let not_secured = |r: &Rejection| matches!(r, Rejection::Order(order::Rejection::EditNotSecured { .. }));
    assert!(is_refused(&early, not_secured), "{early:?}");
    system.settle().await;
    // Both are held, for nothing has changed yet.
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((10, 5), (4250, 0, 0)));
    assert_eq!(row(&system, order).await.total, 3250);
    changed(&mut system, Command::ConfirmEdit { id: order, edit: 1 }).await;
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((10, 3), (4250, 0, 0)));
    assert_eq!((row(&system, order).await.total, row(&system, order).await.lines), (4250, 2));
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((7, 0), (0, 4250, 0)));
    assert_eq!(system.notices().await, [DISPATCHED, DISPATCHED]);
    system.assert_verified().await;
}

#[tokio::test]
async fn an_edit_that_costs_less_takes_less() {
    let (mut system, order) = confirmed(two_sellers()).await;
    told(&mut system, order, mugs_instead(1, &[])).await;
    changed(&mut system, Command::ConfirmEdit { id: order, edit: 1 }).await;
    assert_eq!((system.status(order).await.as_str(), row(&system, order).await.total), ("confirmed", 2250));
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((10, 1), (3250, 0, 0)));
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    // The rest of the card's authorisation is the provider's to let go: it was captured, and expires there.
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((9, 0), (1000, 2250, 0)));
    assert_eq!(row(&system, order).await.captured, 2250);
    system.assert_verified().await;
}

/// The order is as if there had been no edit: it is completed, and pays what it always cost.
async fn assert_as_before(mut system: System, order: OrderId) {
    assert_eq!(system.status(order).await, "confirmed");
    assert_eq!((row(&system, order).await.total, row(&system, order).await.lines), (3250, 2));
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((10, 2), (3250, 0, 0)));
    assert!(system.notices().await.is_empty());
    let confirm = system.execute(Command::ConfirmEdit { id: order, edit: 1 }).await;
    let discarded = |r: &Rejection| matches!(r, Rejection::Order(order::Rejection::EditDiscarded { .. }));
    assert!(is_refused(&confirm, discarded), "{confirm:?}");
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((8, 0), (0, 3250, 0)));
    system.assert_verified().await;
}

#[tokio::test]
async fn an_edit_whose_payment_is_declined_leaves_the_order_as_it_was() {
    let (mut system, order) = confirmed(two_sellers()).await;
    told(&mut system, order, mugs_instead(4, &[("tok_approve_more", 500), ("tok_decline", 1500)])).await;
    assert_as_before(system, order).await;
}

#[tokio::test]
async fn an_edit_that_there_is_too_little_stock_for_leaves_the_order_as_it_was() {
    let (mut system, order) = confirmed(two_sellers()).await;
    told(&mut system, order, mugs_instead(9, &[("tok_approve_more", 7000)])).await;
    assert_as_before(system, order).await;
}

#[tokio::test]
async fn an_edit_that_is_discarded_leaves_the_order_as_it_was() {
    for milestone in ["EditProposed", "PaymentAuthorised", "EditStockSecured"] {
        let (mut system, order) = confirmed(two_sellers()).await;
        let before = system.events_of(order).await.len();
        tell(&system, order, mugs_instead(3, &[("tok_approve_more", 1000)])).await.unwrap();
        while !system.events_of(order).await[before..].iter().any(|e| e == milestone) {
            system.project().await;
            system.sender.step().await.unwrap();
        }
        told(&mut system, order, order::Command::DiscardEdit { edit: 1 }).await;
        assert_as_before(system, order).await;
    }
}

/// Nobody discards it, and it can no longer be confirmed: what it holds goes back with the end of the order.
#[tokio::test]
async fn an_edit_that_is_still_open_ends_with_its_order() {
    let (mut system, order) = confirmed(two_sellers()).await;
    told(&mut system, order, mugs_instead(3, &[("tok_approve_more", 1000)])).await;
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((8, 0), (0, 3250, 0)));
    let late = system.execute(Command::ConfirmEdit { id: order, edit: 1 }).await;
    assert!(is_refused(&late, |r| matches!(r, Rejection::Order(order::Rejection::Ended { .. }))), "{late:?}");
    system.assert_verified().await;
}

#[tokio::test]
async fn the_lines_of_one_of_two_sellers_are_cancelled_with_the_payment_that_was_for_them() {
    let mut placed = two_sellers();
    placed.payments[0].amount = Amount(2250);
    placed.payments.push(PlacePayment { method: card("tok_approve_voucher"), amount: Amount(1000) });
    let (mut system, order) = confirmed(placed).await;
    let reason = CancelReason::SellerRequest;
    changed(&mut system, Command::CancelLines { id: order, lines: vec![2], reason }).await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_eq!((row(&system, order).await.total, row(&system, order).await.lines), (2250, 1));
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((10, 2), (10, 0)));
    assert_eq!(system.moved(order).await, (2250, 0, 0));
    let gone = dispatch(&system, order, 2).await;
    assert!(is_refused(&gone, |r| matches!(r, Rejection::Shipment(shipment::Rejection::Cancelled { .. }))), "{gone:?}");
    deliver(&system, order, 1).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!(system.moved(order).await, (0, 2250, 0));
    let cancelled = r#"{"lines_cancelled": {"lines": [2], "reason": "seller_request"}}"#;
    assert_eq!(system.notices().await, [cancelled, DISPATCHED]);
    system.assert_verified().await;
}

#[tokio::test]
async fn an_order_goes_to_another_address_until_something_of_it_is_dispatched() {
    let (mut system, order) = confirmed(two_sellers()).await;
    let to = |n| Command::ChangeAddress { id: order, address_id: AddressId(id(n)) };
    changed(&mut system, to(0xB)).await;
    let replanned = "SELECT payload->'shipment'->>'address_id' FROM daybook.events
                     WHERE event_type = 'ShipmentReplanned' AND correlation_id = $1";
    let replanned: Vec<String> = query_scalar(replanned).bind(order.0).fetch_all(&system.parts.read).await.unwrap();
    assert_eq!(replanned, vec![id(0xB).to_string(); 2]);
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((10, 2), (3250, 0, 0)));
    deliver(&system, order, 1).await;
    let late = system.execute(to(0xD)).await;
    let dispatched = |r: &Rejection| matches!(r, Rejection::Order(order::Rejection::AlreadyDispatched { .. }));
    assert!(is_refused(&late, dispatched), "{late:?}");
    deliver(&system, order, 2).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!(system.moved(order).await, (0, 3250, 0));
    assert_eq!(system.notices().await, [DISPATCHED, DISPATCHED]);
    system.assert_verified().await;
}

/// Three mugs for 29.00, which do not divide: a piece is 9.67, 9.66 and 9.67.
#[tokio::test]
async fn pieces_that_come_back_are_refunded_and_those_that_can_be_are_sold_again() {
    let mut placed = order_of(&[("mug", 3, 1), ("hat", 1, 1)]);
    placed.lines[0].discount = Amount(100);
    placed.payments[0].amount = Amount(4150);
    let (mut system, order) = confirmed(placed).await;
    system.ship(order).await;
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((7, 0), (0, 4150, 0)));
    let lines = vec![ReturnLine { line: 1, quantity: 3 }];
    told(&mut system, order, order::Command::RequestReturn { lines, reason: ReturnReason::Damaged }).await;
    let received = |parcel, quantity, usable| {
        let lines = vec![ReceivedLine { line: 1, quantity, usable }];
        order::Command::ReceiveReturn { return_no: 1, receipt_id: ReceiptId(id(parcel)), lines }
    };
    let early = tell(&system, order, received(1, 1, 1)).await;
    let not_approved = |r: &Rejection| matches!(r, Rejection::Order(order::Rejection::ReturnNotApproved { .. }));
    assert!(is_refused(&early, not_approved), "{early:?}");
    told(&mut system, order, order::Command::ApproveReturn { return_no: 1 }).await;
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((7, 0), (0, 4150, 0)));

    // The warehouse says it twice, and each time as a new command.
    for _ in 0..2 {
        let receipt = envelope(Uuid::now_v7(), Command::Order { id: order, command: received(1, 1, 1) });
        system.executor.execute(&receipt).await.unwrap();
        system.settle().await;
        assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((8, 0), (0, 4150, 967)));
    }
    told(&mut system, order, received(2, 2, 0)).await;
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((8, 0), (0, 4150, 2900)));
    let more = tell(&system, order, received(3, 1, 1)).await;
    let too_many = |r: &Rejection| matches!(r, Rejection::Order(order::Rejection::NotReturnable { .. }));
    assert!(is_refused(&more, too_many), "{more:?}");
    assert_eq!(system.status(order).await, "completed");
    assert_eq!(row(&system, order).await.payments[0].refunded, 2900);
    let back = r#"{"return_received": {"return_no": 1}}"#;
    assert_eq!(system.notices().await, [DISPATCHED, back, back]);
    system.assert_verified().await;
}

#[tokio::test]
async fn a_parcel_that_is_lost_is_refunded_with_its_shipping() {
    let (mut system, order) = confirmed(two_sellers()).await;
    deliver(&system, order, 2).await;
    dispatch(&system, order, 1).await.unwrap();
    system.settle().await;
    assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("confirmed", (0, 3250, 0)));
    carry(&system, order, 1, shipment::Command::ReportLost).await.unwrap();
    system.settle().await;
    assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("completed", (0, 3250, 2250)));
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((8, 0), (9, 0)));
    assert_eq!(system.notices().await, [DISPATCHED, DISPATCHED, r#"{"shipment_lost": {"lines": [1]}}"#]);
    system.assert_verified().await;
}

#[tokio::test]
async fn a_parcel_that_comes_back_to_its_sender_is_refunded_and_sold_again() {
    let (mut system, order) = confirmed(two_sellers()).await;
    deliver(&system, order, 2).await;
    dispatch(&system, order, 1).await.unwrap();
    carry(&system, order, 1, shipment::Command::ReportReturned).await.unwrap();
    system.settle().await;
    assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("completed", (0, 3250, 2250)));
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((10, 0), (9, 0)));
    let back = r#"{"shipment_returned_to_sender": {"lines": [1]}}"#;
    assert_eq!(system.notices().await, [DISPATCHED, DISPATCHED, back]);
    system.assert_verified().await;
}

#[tokio::test]
async fn an_order_that_takes_backorders_waits_for_the_receipt_that_fills_it() {
    let mut system = start().await;
    let placed = PlaceOrder { backorder: true, ..order_of(&[("mug", 12, 1), ("hat", 1, 2)]) };
    let order = system.place(placed).await;
    system.settle().await;
    // The hat is held meanwhile, and nobody overtakes.
    assert_eq!(system.status(order).await, "placed");
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((10, 0), (10, 1)));
    let other = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    assert_eq!(system.status(other).await, "cancelled: out_of_stock");
    system.receive("mug", 1).await;
    system.settle().await;
    assert_eq!((system.status(order).await.as_str(), system.stock_of("mug").await), ("placed", (11, 0)));
    system.receive("mug", 2).await;
    system.settle().await;
    assert_eq!((system.status(order).await.as_str(), system.stock_of("mug").await), ("confirmed", (13, 12)));
    system.ship(order).await;
    assert_eq!(system.status(order).await, "completed");
    assert_eq!((system.stock_of("mug").await, system.moved(order).await), ((1, 0), (0, 13_250, 0)));
    let out_of_stock = r#"{"order_cancelled": {"reason": "out_of_stock"}}"#;
    assert_eq!(system.notices().await, [out_of_stock, DISPATCHED, DISPATCHED]);
    system.assert_verified().await;
}

/// One that is cancelled while it waits gives up its place, and its money.
#[tokio::test]
async fn a_backorder_that_is_cancelled_makes_room() {
    let mut system = start().await;
    let order = system.place(PlaceOrder { backorder: true, ..order_of(&[("mug", 12, 1), ("hat", 1, 2)]) }).await;
    system.settle().await;
    let reason = CancelReason::CustomerRequest;
    changed(&mut system, Command::CancelOrder { id: order, reason }).await;
    assert_eq!(system.status(order).await, "cancelled: customer_request");
    assert_eq!((system.stock_of("hat").await, system.moved(order).await), ((10, 0), (0, 0, 0)));
    let other = system.place(order_of(&[("mug", 10, 1)])).await;
    system.settle().await;
    assert_eq!((system.status(other).await.as_str(), system.stock_of("mug").await), ("confirmed", (10, 10)));
    system.receive("mug", 10).await;
    system.settle().await;
    assert_eq!(system.stock_of("mug").await, (20, 10));
    assert!(!system.events_of(order).await.iter().any(|e| e == "ReservationReturned"));
    system.assert_verified().await;
}

/// What has left is not paid: the rest of the order does not leave before somebody has seen to it.
#[tokio::test]
async fn a_capture_that_is_declined_puts_the_order_on_hold_and_is_seen() {
    let mut placed = two_sellers();
    "tok_decline_capture".clone_into(&mut placed.payments[0].method.token);
    let (mut system, order) = confirmed(placed).await;
    dispatch(&system, order, 1).await.unwrap();
    system.settle().await;
    assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("on_hold", (3250, 0, 0)));
    let declined = ("call_capture".to_owned(), "the provider declined: capture declined".to_owned());
    assert_eq!(parked(&system).await, [declined]);
    let refused = dispatch(&system, order, 2).await;
    let held = |r: &Rejection| matches!(r, Rejection::Shipment(shipment::Rejection::Held { .. }));
    assert!(is_refused(&refused, held), "{refused:?}");
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((8, 0), (10, 1)));
    assert_eq!(system.notices().await, [DISPATCHED]);
    told(&mut system, order, order::Command::ReleaseHold { reason: HoldReason::Payment }).await;
    assert_eq!(system.status(order).await, "confirmed");
    // The card is no better the second time.
    dispatch(&system, order, 2).await.unwrap();
    system.settle().await;
    assert_eq!((system.status(order).await.as_str(), parked(&system).await.len()), ("on_hold", 2));
    system.assert_verified().await;
}

/// The authorisation expires between a dispatch and its capture: the goods have left unpaid, and somebody is told why.
#[tokio::test]
async fn a_capture_that_is_refused_is_parked_with_its_reason() {
    let (mut system, order) = confirmed(two_sellers()).await;
    dispatch(&system, order, 1).await.unwrap();
    let expire = Command::Payment { id: PaymentId::of_order(order, 0), command: payment::Command::Expire };
    system.execute(expire).await.unwrap();
    system.settle().await;
    let parked = parked(&system).await;
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(
        parked[0].0 == "capture_payment" && parked[0].1.ends_with("is not authorised: it is authorisation_expired"),
        "{parked:?}"
    );
    // It cannot be cancelled any more; but what is not dispatched yet is not to be, unpaid.
    assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("on_hold", (0, 0, 0)));
    assert!(dispatch(&system, order, 2).await.is_err());
    assert_eq!((system.stock_of("mug").await, system.stock_of("hat").await), ((8, 0), (10, 1)));
    assert_eq!(system.notices().await, [DISPATCHED]);
    system.assert_verified().await;
}
