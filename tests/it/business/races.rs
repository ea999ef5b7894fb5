//! The races of the domain: two processes at one moment, each of which has decided before the other has written; whoever
//! is first, it comes out right, by the provider's own books.
//!
//! The others have their stories elsewhere: the order that costs nothing in `orders.rs`, one piece and 500 buyers in
//! `buyers.rs`, an expiry before, after and within a dispatch in `timers.rs`, a cancel while a payment is unknown in
//! `payments.rs`.

use crate::harness::{Gate, System, appenders_waiting, card, envelope, executor, new_order, order_of};
use dev::provider;
use order_services::{ExecuteError, Executor};
use orders::id::{CaptureId, OrderId, PaymentId, RefundId, SellerId, ShipmentId, Sku};
use orders::money::Amount;
use orders::order::{Approval, CancelReason, PlaceLine, PlaceOrder, PlacePayment, ProposeEdit, StockLine};
use orders::payment::{self, Call, Outcome, ProviderNotice};
use orders::reaction::{Operation, ProviderCall};
use orders::{Command, Rejection, order, shipment, stock};
use runtime::executor::Outcome as Executed;
use sqlx::query_scalar;
use std::time::Duration;
use uuid::Uuid;

const DAY: i64 = 24 * 60 * 60;
/// Of an order of one mug, shipping included.
const TOTAL: i64 = 1250;
/// How often each race is run: every other time the one is first, and the other.
const RUNS: usize = 6;

/// What somebody else does, in a process of his own.
async fn elsewhere(other: &Executor, command: Command) -> Result<Executed, ExecuteError> {
    other.execute(&envelope(Uuid::now_v7(), command)).await
}

/// Both have decided on what there was before either writes, and `first` is the first to do so.
async fn at_once<A, B>(system: &System, first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let url = &system.urls.database_url;
    let gate = Gate::close(url).await;
    let second = async {
        appenders_waiting(url, 1).await;
        second.await
    };
    let open = async {
        gate.waiting(2).await;
        gate.open().await;
    };
    let (first, second, ()) = tokio::join!(first, second, open);
    (first, second)
}

/// Ours and theirs at once. Whose turn it is to be first, the number of the run says.
async fn race(
    system: &System,
    run: usize,
    ours: Command,
    other: &Executor,
    theirs: Command,
) -> (Result<Executed, ExecuteError>, Result<Executed, ExecuteError>) {
    let (ours, theirs) = (system.execute(ours), elsewhere(other, theirs));
    if we_are_first(run) {
        at_once(system, ours, theirs).await
    } else {
        let (theirs, ours) = at_once(system, theirs, ours).await;
        (ours, theirs)
    }
}

fn we_are_first(run: usize) -> bool {
    run.is_multiple_of(2)
}

/// Enough mugs and hats, and another process.
async fn start() -> (System, Executor) {
    let system = System::start().await;
    let other = executor(&system.urls.database_url);
    system.receive("mug", 100).await;
    system.receive("hat", 100).await;
    (system, other)
}

/// The same, and orders of one mug each, placed.
async fn placed() -> (System, Executor, Vec<OrderId>) {
    let (system, other) = start().await;
    let mut orders = Vec::new();
    for _ in 0..RUNS {
        orders.push(system.place(order_of(&[("mug", 1, 1)])).await);
    }
    (system, other, orders)
}

/// The same, confirmed.
async fn confirmed() -> (System, Executor, Vec<OrderId>) {
    let (mut system, other, orders) = placed().await;
    system.settle().await;
    (system, other, orders)
}

fn payment_of(order: OrderId) -> PaymentId {
    PaymentId::of_order(order, 0)
}

fn shipment_of(order: OrderId) -> ShipmentId {
    ShipmentId::of_seller(order, SellerId(Uuid::from_u128(1)))
}

fn capture_of(order: OrderId) -> CaptureId {
    CaptureId::of_shipment(payment_of(order), shipment_of(order))
}

fn to_order(id: OrderId, command: order::Command) -> Command {
    Command::Order { id, command }
}

fn to_payment(order: OrderId, command: payment::Command) -> Command {
    Command::Payment { id: payment_of(order), command }
}

fn to_shipment(order: OrderId, command: shipment::Command) -> Command {
    Command::Shipment { id: shipment_of(order), command }
}

fn dispatch(order: OrderId) -> Command {
    to_shipment(order, shipment::Command::Dispatch { revision: 1, tracking: "T1".into() })
}

async fn stop_the_provider(system: &mut System) {
    system.outside.remove(0).stop().await;
}

/// It comes back, and what waited for it is tried again now.
async fn start_the_provider(system: &mut System) {
    let (client, pool) = (&system.parts.client, system.parts.project.clone());
    system.outside.push(provider::start(client, pool, Duration::ZERO).await.unwrap());
    system.parts.client.flush().await.unwrap();
    let again = "UPDATE daybook.follow_ups SET due_at = '-infinity' WHERE state = 'due'";
    sqlx::query(again).execute(&system.superuser().await).await.unwrap();
}

/// Has the provider do something, of which nobody hears.
async fn ask(system: &System, order: OrderId, verb: &str, operation: Operation) {
    let idempotency_key = match operation {
        Operation::Capture { capture_id, .. } => capture_id.0,
        _ => payment_of(order).0,
    };
    let call = serde_json::to_vec(&ProviderCall { payment_id: payment_of(order), idempotency_key, operation }).unwrap();
    system.parts.client.request(format!("daybook.provider.v1.{verb}"), call.into()).await.unwrap();
}

/// How often the provider did something for an order.
async fn done(system: &System, order: OrderId, operation: &str) -> i64 {
    let done = "SELECT count(*) FROM daybook.provider_ledger
                WHERE order_id = $1 AND operation = $2 AND declined IS NULL";
    query_scalar(done).bind(order.0).bind(operation).fetch_one(&system.parts.read).await.unwrap()
}

/// The race of cancel against capture. The void that follows from a cancellation either comes first, and nothing is
/// taken, or waits for what is under way, and that is given back. (Invariants 22 and 25.)
#[tokio::test]
async fn of_a_capture_and_a_void_at_once_no_money_is_kept() {
    let (mut system, other, orders) = confirmed().await;
    stop_the_provider(&mut system).await;
    for (run, &order) in orders.iter().enumerate() {
        let (capture_id, amount) = (capture_of(order), Amount(TOTAL));
        let capture = to_payment(order, payment::Command::Capture { capture_id, amount });
        let void = to_payment(order, payment::Command::Void { order_id: order });
        match race(&system, run, capture, &other, void).await {
            (Ok(_), Ok(_)) => assert!(we_are_first(run)),
            (Err(ExecuteError::Rejected(Rejection::Payment(payment::Rejection::NotAuthorised { .. }))), Ok(_)) => {
                assert!(!we_are_first(run));
            }
            both => panic!("{both:?}"),
        }
    }
    system.settle().await;
    start_the_provider(&mut system).await;
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        let expected = if we_are_first(run) { (0, TOTAL, TOTAL) } else { (0, 0, 0) };
        assert_eq!(system.moved(order).await, expected);
    }
    system.assert_verified().await;
}

/// The race of cancel against dispatch: both write the shipment's stream. (Invariants 6 and 25.)
#[tokio::test]
async fn of_a_cancel_and_a_dispatch_at_once_exactly_one_wins() {
    let (mut system, other, orders) = confirmed().await;
    for (run, &order) in orders.iter().enumerate() {
        let cancel = Command::CancelOrder { id: order, reason: CancelReason::CustomerRequest };
        match race(&system, run, cancel, &other, dispatch(order)).await {
            (Ok(_), Err(ExecuteError::Rejected(Rejection::Shipment(shipment::Rejection::Cancelled { .. })))) => {
                assert!(we_are_first(run));
            }
            (Err(ExecuteError::Rejected(Rejection::Order(order::Rejection::AlreadyDispatched { .. }))), Ok(_)) => {
                assert!(!we_are_first(run));
            }
            both => panic!("{both:?}"),
        }
    }
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        let cancelled = ("cancelled: customer_request", (0, 0, 0));
        let expected = if we_are_first(run) { cancelled } else { ("confirmed", (0, TOTAL, 0)) };
        assert_eq!((system.status(order).await.as_str(), system.moved(order).await), expected);
    }
    assert_eq!(system.stock_of("mug").await, (100 - RUNS as i64 / 2, 0));
    system.assert_verified().await;
}

/// The race of expiry against a late authorisation: the provider approves what nobody waits for any more. It is voided.
#[tokio::test]
async fn an_authorisation_that_comes_after_the_order_expired_is_voided() {
    let (mut system, _, orders) = placed().await;
    stop_the_provider(&mut system).await;
    system.settle().await;
    system.pass(DAY).await;
    assert_eq!(system.sweep().await, RUNS);
    system.settle().await;
    for &order in &orders {
        assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("expired", (0, 0, 0)));
    }
    start_the_provider(&mut system).await;
    system.settle().await;
    for &order in &orders {
        assert_eq!((done(&system, order, "authorise").await, done(&system, order, "void").await), (1, 1));
        assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("expired", (0, 0, 0)));
        assert!(system.events_of(order).await.iter().any(|e| e == "PaymentAuthorised"));
    }
    assert_eq!(system.stock_of("mug").await, (100, 0));
    assert_eq!(system.notices().await, [r#""order_expired""#; RUNS]);
    system.assert_verified().await;
}

/// The same at one moment: the order goes on with the money, or is over without it.
#[tokio::test]
async fn of_an_expiry_and_an_authorisation_at_once_exactly_one_wins() {
    let (mut system, other, orders) = placed().await;
    stop_the_provider(&mut system).await;
    system.settle().await;
    start_the_provider(&mut system).await;
    for (run, &order) in orders.iter().enumerate() {
        // The provider has approved, and the order has not heard of it.
        let (amount, currency, method) = (Amount(TOTAL), "EUR".parse().unwrap(), card("tok_approve_card"));
        ask(&system, order, "authorise", Operation::Authorise { order_id: order, amount, currency, method }).await;
        let outcome = Outcome::Approved { reference: "told".into() };
        let authorised = payment::Command::RecordAuthorisation { outcome };
        assert!(system.execute(to_payment(order, authorised)).await.unwrap().recorded);
        let record = order::Command::RecordPaymentAuthorised { payment_id: payment_of(order) };
        let (record, expire) = (to_order(order, record), to_order(order, order::Command::Expire));
        match race(&system, run, record, &other, expire).await {
            (Ok(_), Err(ExecuteError::Rejected(Rejection::Order(order::Rejection::PaymentAttempted { .. })))) => {
                assert!(we_are_first(run));
            }
            (Ok(recorded), Ok(_)) => assert!(!we_are_first(run) && !recorded.recorded),
            both => panic!("{both:?}"),
        }
    }
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        let expected = if we_are_first(run) { ("confirmed", (TOTAL, 0, 0)) } else { ("expired", (0, 0, 0)) };
        assert_eq!((system.status(order).await.as_str(), system.moved(order).await), expected);
    }
    assert_eq!(system.stock_of("mug").await, (100, RUNS as i64 / 2));
    system.assert_verified().await;
}

/// A line of one piece at 10.00 EUR.
fn piece(sku: &str, seller: u128) -> PlaceLine {
    order_of(&[(sku, 1, seller)]).lines.remove(0)
}

/// The order's mug becomes two hats of a seller, which are paid by another card.
fn two_hats(seller: u128) -> ProposeEdit {
    ProposeEdit {
        remove: vec![1],
        add: vec![piece("hat", seller), piece("hat", seller)],
        shipping: vec![],
        payments: vec![PlacePayment { method: card("tok_approve_2"), amount: Amount(750) }],
    }
}

/// The race of edit against dispatch, the mug being another seller's after it: what leaves is the order as it was, or
/// nothing of it.
#[tokio::test]
async fn of_an_edit_and_a_dispatch_at_once_exactly_one_wins() {
    let (mut system, other, orders) = confirmed().await;
    for &order in &orders {
        system.execute(to_order(order, order::Command::ProposeEdit(two_hats(2)))).await.unwrap();
    }
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        let edit = Command::ConfirmEdit { id: order, edit: 1 };
        match race(&system, run, edit, &other, dispatch(order)).await {
            (Ok(_), Err(ExecuteError::Rejected(Rejection::Shipment(shipment::Rejection::Cancelled { .. })))) => {
                assert!(we_are_first(run));
            }
            (Err(ExecuteError::Rejected(Rejection::Order(order::Rejection::AlreadyDispatched { .. }))), Ok(_)) => {
                assert!(!we_are_first(run));
                system.execute(to_order(order, order::Command::DiscardEdit { edit: 1 })).await.unwrap();
            }
            both => panic!("{both:?}"),
        }
    }
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        let expected = if we_are_first(run) { (2000, 0, 0) } else { (0, TOTAL, 0) };
        assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("confirmed", expected));
    }
    let half = RUNS as i64 / 2;
    assert_eq!(system.stock_of("mug").await, (100 - half, 0));
    assert_eq!(system.stock_of("hat").await, (100, 2 * half));
    system.assert_verified().await;
}

/// The same within one seller's shipment: the parcel leaves as it was packed before the edit, or has to be packed anew;
/// and what is taken is what that costs.
#[tokio::test]
async fn a_parcel_packed_before_an_edit_leaves_before_it_or_not_at_all() {
    let (mut system, other, orders) = confirmed().await;
    for &order in &orders {
        system.execute(to_order(order, order::Command::ProposeEdit(two_hats(1)))).await.unwrap();
    }
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        let edit = Command::ConfirmEdit { id: order, edit: 1 };
        match race(&system, run, edit, &other, dispatch(order)).await {
            (Ok(_), Err(ExecuteError::Rejected(Rejection::Shipment(shipment::Rejection::Replanned { .. })))) => {
                assert!(we_are_first(run));
                system.execute(system.dispatch(shipment_of(order)).await).await.unwrap();
            }
            (Err(ExecuteError::Rejected(Rejection::Order(order::Rejection::AlreadyDispatched { .. }))), Ok(_)) => {
                assert!(!we_are_first(run));
                system.execute(to_order(order, order::Command::DiscardEdit { edit: 1 })).await.unwrap();
            }
            both => panic!("{both:?}"),
        }
    }
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        let total = if we_are_first(run) { 2000 } else { TOTAL };
        assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("confirmed", (0, total, 0)));
    }
    let half = RUNS as i64 / 2;
    assert_eq!(system.stock_of("mug").await, (100 - half, 0));
    assert_eq!(system.stock_of("hat").await, (100 - 2 * half, 0));
    system.assert_verified().await;
}

/// The race of refund against a late capture notice: what was taken is known late, and given back all the same, once.
#[tokio::test]
async fn of_a_refund_and_a_late_capture_notice_at_once_all_is_given_back_once() {
    let (mut system, other, orders) = confirmed().await;
    for &order in &orders {
        system.execute(dispatch(order)).await.unwrap();
    }
    stop_the_provider(&mut system).await;
    system.settle().await;
    start_the_provider(&mut system).await;
    for (run, &order) in orders.iter().enumerate() {
        // The provider takes the money, and nobody hears its answer.
        let (capture_id, amount, currency) = (capture_of(order), Amount(TOTAL), "EUR".parse().unwrap());
        ask(&system, order, "capture", Operation::Capture { capture_id, amount, currency }).await;
        assert_eq!(system.moved(order).await, (0, TOTAL, 0));

        let refund_id = RefundId::of_shipment(capture_id);
        let refund = to_payment(order, payment::Command::Refund { order_id: order, refund_id, capture_id, amount });
        let outcome = Outcome::Approved { reference: "told".into() };
        let notice = ProviderNotice { call: Call::Capture { capture_id }, outcome };
        let notice = payment::Command::RecordNotice { notice_id: Uuid::now_v7(), notice };
        let notice = to_payment(order, notice);
        let (refund, noticed) = race(&system, run, refund, &other, notice.clone()).await;
        assert!(refund.unwrap().recorded && noticed.unwrap().recorded);
        assert!(!elsewhere(&other, notice).await.unwrap().recorded);
    }
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        assert_eq!(system.moved(order).await, (0, TOTAL, TOTAL));
        assert_eq!((done(&system, order, "capture").await, done(&system, order, "refund").await), (1, 1));
        let events = system.events_of(order).await;
        let times = |event_type| events.iter().filter(|e| *e == event_type).count();
        assert_eq!((times("PaymentCaptured"), times("RefundDeferred")), (1, usize::from(we_are_first(run))));
    }
    system.assert_verified().await;
}

/// The race of reservation expiry against commit, at one moment: the pieces leave or are free again, never both.
/// (Invariant 21.)
#[tokio::test]
async fn of_an_expiry_and_a_commit_at_once_exactly_one_wins() {
    let (mut system, other, orders) = confirmed().await;
    for (run, &order) in orders.iter().enumerate() {
        let lines = vec![StockLine { line: 1, sku: Sku::new("mug").unwrap(), quantity: 1 }];
        let commit = Command::Stock(stock::Command::Commit { order_id: order, lines: lines.clone() });
        let expire = Command::Stock(stock::Command::Expire { order_id: order, lines });
        match race(&system, run, commit, &other, expire).await {
            (Ok(_), Ok(expired)) => assert!(we_are_first(run) && !expired.recorded),
            (Err(ExecuteError::Rejected(Rejection::Stock(stock::Rejection::NotHeld { .. }))), Ok(_)) => {
                assert!(!we_are_first(run));
            }
            both => panic!("{both:?}"),
        }
    }
    system.settle().await;
    assert_eq!(system.stock_of("mug").await, (100 - RUNS as i64 / 2, 0));
    system.assert_verified().await;
}

/// The race of duplicate placement: who sends an order twice, by whatever way, has placed it once.
#[tokio::test]
async fn an_order_that_is_placed_twice_at_once_is_placed_once() {
    let (mut system, other) = start().await;
    let place = |id, order: &PlaceOrder| to_order(id, order::Command::Place(order.clone()));
    let (one, two) = (order_of(&[("mug", 1, 1)]), order_of(&[("mug", 2, 1)]));
    let mut orders = Vec::new();
    for run in 0..RUNS {
        // The same body, as two commands.
        let id = new_order();
        let (ours, theirs) = race(&system, run, place(id, &one), &other, place(id, &one)).await;
        assert_eq!((ours.unwrap().recorded, theirs.unwrap().recorded), (we_are_first(run), !we_are_first(run)));
        orders.push((id, TOTAL));

        // The same body, as one command that is sent twice.
        let id = new_order();
        let sent = envelope(Uuid::now_v7(), place(id, &one));
        let (a, b) = at_once(&system, system.executor.execute(&sent), other.execute(&sent)).await;
        assert_eq!(a.unwrap(), b.unwrap());
        orders.push((id, TOTAL));

        // Another body.
        let id = new_order();
        let refused = |r: &ExecuteError| {
            matches!(r, ExecuteError::Rejected(Rejection::Order(order::Rejection::AlreadyPlaced { .. })))
        };
        match race(&system, run, place(id, &one), &other, place(id, &two)).await {
            (Ok(_), Err(theirs)) if refused(&theirs) && we_are_first(run) => orders.push((id, TOTAL)),
            (Err(ours), Ok(_)) if refused(&ours) && !we_are_first(run) => orders.push((id, 2250)),
            both => panic!("{both:?}"),
        }
    }
    system.settle().await;
    for (order, total) in orders {
        assert_eq!((system.status(order).await.as_str(), system.moved(order).await), ("confirmed", (total, 0, 0)));
        let events = system.events_of(order).await;
        assert_eq!(events.iter().filter(|e| *e == "OrderPlaced").count(), 1, "{events:?}");
        assert_eq!(done(&system, order, "authorise").await, 1);
    }
    // Three orders a run; every other one of the last kind is of two mugs.
    assert_eq!(system.stock_of("mug").await, (100, (3 * RUNS + RUNS / 2) as i64));
    system.assert_verified().await;
}

/// An approver that decides at the moment at which his time is over.
#[tokio::test]
async fn of_an_approval_and_its_deadline_at_once_exactly_one_wins() {
    let (mut system, other) = start().await;
    let mut orders = Vec::new();
    for _ in 0..RUNS {
        let order = PlaceOrder { approval_within_seconds: Some(3600), ..order_of(&[("mug", 1, 1)]) };
        orders.push(system.place(order).await);
    }
    system.settle().await;
    let decided = |e| match e {
        ExecuteError::Rejected(Rejection::Order(order::Rejection::ApprovalDecided { decided, .. })) => decided,
        e => panic!("{e}"),
    };
    for (run, &order) in orders.iter().enumerate() {
        let grant = to_order(order, order::Command::GrantApproval { approval: 1 });
        let time_out = to_order(order, order::Command::TimeOutApproval { approval: 1 });
        match race(&system, run, grant, &other, time_out).await {
            (Ok(_), Err(late)) => assert_eq!((decided(late), we_are_first(run)), (Approval::Granted, true)),
            (Err(late), Ok(_)) => assert_eq!((decided(late), we_are_first(run)), (Approval::TimedOut, false)),
            both => panic!("{both:?}"),
        }
    }
    system.settle().await;
    for (run, &order) in orders.iter().enumerate() {
        let granted = ("confirmed", (TOTAL, 0, 0));
        let expected = if we_are_first(run) { granted } else { ("cancelled: approval_timed_out", (0, 0, 0)) };
        assert_eq!((system.status(order).await.as_str(), system.moved(order).await), expected);
    }
    assert_eq!(system.stock_of("mug").await, (100, RUNS as i64 / 2));
    system.assert_verified().await;
}
