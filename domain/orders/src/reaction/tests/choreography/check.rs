//! What a run has come to: invariant 25, and that nothing was refused but for a reason.

use super::*;
use crate::order::Life;

/// The refusals that a race leads to, each with its reason. Any other would be a hole in the choreography.
fn is_foreseen(world: &World, command: &Command, rejection: &Rejection) -> bool {
    use Rejection as R;
    match (command, rejection) {
        (Command::Order { command, .. }, R::Order(rejection)) => is_foreseen_by_order(command, rejection),
        (
            Command::CancelOrder { .. }
            | Command::CancelLines { .. }
            | Command::ConfirmEdit { .. }
            | Command::ChangeAddress { .. },
            R::Order(rejection),
        ) => is_foreseen_of_change(command, rejection),
        (Command::Payment { id, command }, R::Payment(rejection)) => {
            is_foreseen_by_payment(world, *id, command, rejection)
        }
        (Command::Stock(command), R::Stock(rejection)) => match (command, rejection) {
            (stock::Command::Reserve { .. }, stock::Rejection::OutOfStock { .. })
            | (stock::Command::Adjust { .. }, stock::Rejection::BelowReserved { .. }) => true,
            // Dispatched as the reservation ended. It is parked: somebody has to count.
            (stock::Command::Commit { .. }, stock::Rejection::NotHeld { lines, .. }) => {
                lines.iter().all(|line| world.books.expired.contains(line))
            }
            _ => false,
        },
        (Command::Shipment { command, .. }, R::Shipment(rejection)) => is_foreseen_by_shipment(command, rejection),
        _ => false,
    }
}

fn is_foreseen_by_order(command: &order::Command, rejection: &order::Rejection) -> bool {
    use order::Command as C;
    use order::Rejection as R;
    match (command, rejection) {
        // A payment was tried, or the order ended, before its time was over.
        (C::Expire, R::PaymentAttempted { .. } | R::Ended { .. }) => true,
        // The customer is too early.
        (
            C::PlaceHold { .. } | C::RequestApproval { .. } | C::ProposeEdit(_) | C::DiscardEdit { .. },
            R::NotPlaced { .. },
        ) => true,
        (C::ProposeEdit(_), R::NotConfirmed { .. }) => true,
        (C::RequestApproval { .. }, R::Ended { .. } | R::AlreadyConfirmed { .. } | R::ApprovalPending { .. }) => true,
        (C::PlaceHold { .. } | C::ReleaseHold { .. }, R::Ended { .. }) => true,
        (
            C::GrantApproval { .. } | C::DenyApproval { .. } | C::TimeOutApproval { .. },
            R::Ended { .. } | R::ApprovalDecided { .. },
        ) => true,
        // The order has changed since the customer saw it.
        (C::ProposeEdit(_), R::Ended { .. } | R::AlreadyDispatched { .. } | R::EditOpen { .. } | R::Invalid { .. }) => {
            true
        }
        (C::DiscardEdit { .. }, R::UnknownEdit { .. } | R::EditConfirmed { .. }) => true,
        _ => false,
    }
}

fn is_foreseen_of_change(command: &Command, rejection: &order::Rejection) -> bool {
    use order::Rejection as R;
    match (command, rejection) {
        // The customer, or the time, is too late or too early.
        (_, R::AlreadyDispatched { .. } | R::NotPlaced { .. }) => true,
        (Command::CancelOrder { .. }, R::Ended { status, .. }) => *status != Status::Cancelled,
        (_, R::Ended { .. }) => true,
        (Command::CancelLines { .. }, R::EditOpen { .. } | R::BeingReserved { .. }) => true,
        (Command::ConfirmEdit { .. }, R::EditNotSecured { .. } | R::EditDiscarded { .. } | R::OnHold { .. }) => true,
        _ => false,
    }
}

fn is_foreseen_by_payment(
    world: &World,
    id: PaymentId,
    command: &payment::Command,
    rejection: &payment::Rejection,
) -> bool {
    use payment::Command as C;
    use payment::Rejection as R;
    match (command, rejection) {
        // The cancellation was faster than what it calls off.
        (C::Authorise { .. }, R::LetGo { .. }) => true,
        // Too late.
        (C::Expire, R::AlreadyCaptured { .. } | R::NotAuthorised { .. }) => true,
        // Dispatched as the authorisation ended, or the provider does not hand the money over. It is parked.
        (C::Capture { .. }, R::NotAuthorised { .. }) => world.has_expired(id),
        _ => false,
    }
}

fn is_foreseen_by_shipment(command: &shipment::Command, rejection: &shipment::Rejection) -> bool {
    use shipment::Command as C;
    use shipment::Rejection as R;
    match (command, rejection) {
        (C::Plan { .. } | C::Dispatch { .. }, R::Cancelled { .. }) => true,
        // The order has changed since the parcel was packed.
        (C::Dispatch { .. }, R::Held { .. } | R::Replanned { .. }) => true,
        // It was let go before it was planned.
        (C::Dispatch { .. }, R::NotPlanned { .. }) => true,
        (C::Hold { .. }, R::AlreadyDispatched { .. }) => true,
        _ => false,
    }
}

impl World<'_> {
    fn has_expired(&self, payment: PaymentId) -> bool {
        self.log
            .iter()
            .any(|e| matches!(e, Event::Payment(id, payment::Event::AuthorisationExpired(_)) if *id == payment))
    }

    /// Whether the order has ended, or waits for somebody who can see it.
    fn ends_or_waits(&self) -> bool {
        match (self.order.status, self.order.life()) {
            (Status::Completed | Status::Cancelled | Status::Rejected | Status::Expired, _) => true,
            (Status::Placed, Some(Life::OnHold | Life::AwaitingApproval)) => self.is_secured(),
            (Status::Placed, _) => self.is_secured() && !self.books.on_backorder.is_empty(),
            (Status::Confirmed, life) => life == Some(Life::OnHold),
            (Status::Unplaced, _) => false,
        }
    }

    /// Whether its money is, and its stock, but for what is on backorder.
    fn is_secured(&self) -> bool {
        let waits = !self.books.on_backorder.is_empty();
        self.count("PaymentsSecured") == 1 && (waits || self.count("StockSecured") == 1)
    }
}

/// Invariants 21 to 25 at the end of a run.
pub(super) fn check(world: &World) -> Result<(), TestCaseError> {
    for (command, rejection) in &world.refused {
        prop_assert!(is_foreseen(world, command, rejection), "{:?} was refused: {:?}", command, rejection);
    }
    let status = world.order.status;
    prop_assert!(world.ends_or_waits(), "{:?}, {:?}", status, world.order.life());
    let is_called_off = matches!(status, Status::Cancelled | Status::Rejected | Status::Expired);
    let is_over = is_called_off || status == Status::Completed;
    check_money(world, status)?;
    check_stock(world, is_over)?;

    if let Some(edit) = &world.books.edit {
        prop_assert!(!is_over, "an edit of a {:?} order is open", status);
        prop_assert!(edit.reserve.is_empty() || world.count("EditStockSecured") > 0, "its stock is forgotten");
    }

    // However often a message was repeated, what it says happened once.
    prop_assert_eq!(world.count("OrderPlaced"), 1);
    let endings = ["OrderCompleted", "OrderCancelled", "OrderRejected", "OrderExpired"];
    prop_assert_eq!(endings.map(|end| world.count(end)).iter().sum::<usize>(), usize::from(is_over));
    for (event_type, told) in [
        ("OrderRejected", world.told(|m| *m == Message::PaymentDeclined)),
        ("OrderCancelled", world.told(|m| matches!(m, Message::OrderCancelled { .. }))),
        ("OrderExpired", world.told(|m| *m == Message::OrderExpired)),
        ("LinesCancelled", world.told(|m| matches!(m, Message::LinesCancelled { .. }))),
        ("ShipmentDispatched", world.told(|m| matches!(m, Message::ShipmentDispatched { .. }))),
        ("LinesLost", world.told(|m| matches!(m, Message::ShipmentLost { .. }))),
        ("LinesReturnedToSender", world.told(|m| matches!(m, Message::ShipmentReturnedToSender { .. }))),
        ("ReturnReceived", world.told(|m| matches!(m, Message::ReturnReceived { .. }))),
    ] {
        prop_assert_eq!(told, world.count(event_type), "{}", event_type);
    }

    // What is stored is read back as it was.
    for event in &world.log {
        let payload = serde_json::to_value(event).unwrap();
        let read = Event::from_payload(event.category(), event.stream_id(), event.event_type(), payload).unwrap();
        prop_assert_eq!(read.as_ref(), Some(event));
    }
    Ok(())
}

fn check_money(world: &World, status: Status) -> Result<(), TestCaseError> {
    let books = &world.books;
    let mut kept = 0;
    for (id, account) in world.provider.accounts() {
        prop_assert_eq!(
            (account.captured, account.refunded),
            (books.captured(id), books.refunded(id)),
            "{:?}",
            account
        );
        kept += account.captured - account.refunded;
        if books.let_go.contains(&id) {
            prop_assert_eq!((account.held, account.captured), (0, account.refunded), "of what is not wanted");
        }
        // What is left over of a payment of which some was captured, the provider lets go by itself.
        let is_used = account.captured > 0 || books.is_short_of_money;
        prop_assert!(status != Status::Completed || account.held == 0 || is_used, "{:?} is held", account);
    }
    prop_assert!(books.deferred.is_empty(), "{:?} wait for a capture", books.deferred);
    prop_assert_eq!(world.provider.kept(), &books.earned(), "by a {:?} order", status);
    prop_assert_eq!(kept, books.earned().values().sum::<i64>());
    if matches!(status, Status::Cancelled | Status::Rejected | Status::Expired) {
        prop_assert_eq!(kept, 0);
        prop_assert_eq!(world.provider.accounts().map(|(_, account)| account.held).sum::<i64>(), 0);
    }
    for (id, payment) in &world.payments {
        use PaymentStatus as S;
        prop_assert!(payment.as_str() != "unknown", "a payment is left unknown: {:?}", payment);
        let account = world.provider.account(*id);
        match payment.status {
            S::Authorised => prop_assert!(account.authorised > 0),
            // All of it was captured after all.
            S::ExpiryDeferred => prop_assert_eq!((account.held, account.captured), (0, account.authorised)),
            S::Declined => prop_assert_eq!(account.authorised, 0),
            S::Voided => prop_assert_eq!(account.held, 0),
            status => prop_assert!(false, "a payment is left {:?}", status),
        }
    }
    Ok(())
}

fn check_stock(world: &World, is_over: bool) -> Result<(), TestCaseError> {
    let books = &world.books;
    let is_wanted = |line: &LineNo| {
        let is_added = books.edit.as_ref().is_some_and(|edit| edit.add.iter().any(|l| l.line == *line));
        !is_over && (world.order.lines().any(|l| l.line == *line) || is_added)
    };
    prop_assert!(books.held.keys().all(is_wanted), "{:?} are held in vain", books.held);
    prop_assert!(books.waiting.iter().all(is_wanted), "{:?} wait in vain", books.waiting);
    if world.order.status == Status::Placed {
        prop_assert_eq!(&books.on_backorder, &books.waiting, "the order waits for what the stock has waiting");
    }
    // Goods that left while their reservation ended are counted by somebody.
    if books.expired.is_empty() {
        for (sku, stock) in &world.stocks {
            prop_assert_eq!(i64::try_from(stock.on_hand()).unwrap(), books.on_hand[sku], "{}", sku);
        }
    }
    Ok(())
}
