//! The order and its shipments as a model: whatever is asked in whatever sequence, what it keeps is kept.

use super::*;
use crate::Aggregate;
use crate::id::ReceiptId;
use crate::money::Currency;
use proptest::sample::Index;
use std::collections::BTreeSet;

/// Something that somebody asks of the order or of a shipment; numbers are chosen from what there is.
#[derive(Debug, Clone)]
enum Step {
    Do(Command),
    Change(Change),
    Authorise(Index),
    Decline(Index),
    Fill(LineNo),
    Propose { remove: Option<Index>, add: Vec<PlaceLine>, pay: bool },
    Ship(Index, Parcel),
    Return(LineNo, u32),
    Receive(u32, LineNo, u32, u32),
}

#[derive(Debug, Clone, Copy)]
enum Parcel {
    Ready,
    Dispatch,
    Deliver,
    Lose,
    SendBack,
}

fn any_step() -> impl Strategy<Value = Step> {
    let reasons = [HoldReason::Fraud, HoldReason::Manual];
    let commands = vec![
        Command::RecordStockReserved,
        Command::RecordStockReserved,
        Command::RecordStockReserved,
        short(&[1]),
        short(&[2, 3]),
        Command::PlaceHold { reason: reasons[0] },
        Command::PlaceHold { reason: reasons[1] },
        Command::ReleaseHold { reason: reasons[0] },
        Command::ReleaseHold { reason: reasons[1] },
        Command::RequestApproval { within_seconds: 60 },
        Command::GrantApproval { approval: 1 },
        Command::GrantApproval { approval: 2 },
        Command::DenyApproval { approval: 1 },
        Command::TimeOutApproval { approval: 2 },
        Command::Expire,
        Command::DiscardEdit { edit: 1 },
        Command::RecordEditReserved { edit: 1 },
        Command::RecordEditReserved { edit: 2 },
        Command::RecordEditShortage { edit: 1, short: vec![7] },
        Command::ApproveReturn { return_no: 1 },
        Command::ApproveReturn { return_no: 2 },
    ];
    let reason = CancelReason::CustomerRequest;
    let changes = vec![
        Change::Cancel { reason },
        Change::CancelLines { lines: vec![1], reason },
        Change::CancelLines { lines: vec![2, 3], reason },
        Change::ConfirmEdit { edit: 1 },
        Change::ConfirmEdit { edit: 1 },
        Change::ConfirmEdit { edit: 2 },
        Change::ChangeAddress { address_id: AddressId(Uuid::from_u128(77)) },
    ];
    let parcels = vec![
        Parcel::Ready,
        Parcel::Dispatch,
        Parcel::Dispatch,
        Parcel::Deliver,
        Parcel::Deliver,
        Parcel::Lose,
        Parcel::SendBack,
    ];
    let added = (0..4_u128, 1..3_u32, 0..90_i64).prop_map(|(seller, quantity, price)| {
        vec![line("PEN", SellerId(Uuid::from_u128(10 + seller)), quantity, price)]
    });
    let piece = || (1..8_u32, 1..3_u32);
    prop_oneof![
        6 => proptest::sample::select(commands).prop_map(Step::Do),
        2 => proptest::sample::select(changes).prop_map(Step::Change),
        8 => any::<Index>().prop_map(Step::Authorise),
        1 => any::<Index>().prop_map(Step::Decline),
        2 => (1..7_u32).prop_map(Step::Fill),
        2 => (proptest::option::of(any::<Index>()), added, proptest::bool::weighted(0.9))
            .prop_map(|(remove, add, pay)| Step::Propose { remove, add, pay }),
        10 => (any::<Index>(), proptest::sample::select(parcels)).prop_map(|(n, parcel)| Step::Ship(n, parcel)),
        3 => piece().prop_map(|(line, quantity)| Step::Return(line, quantity)),
        4 => (1..3_u32, piece(), 0..2_u32)
            .prop_map(|(no, (line, quantity), usable)| Step::Receive(no, line, quantity, usable)),
    ]
}

#[derive(Default)]
struct Model {
    order: Order,
    shipments: BTreeMap<ShipmentId, Shipment>,
    /// By line: pieces that were dispatched, and that came back.
    shipped: BTreeMap<LineNo, u32>,
    returned: BTreeMap<LineNo, u32>,
    captured: BTreeMap<(PaymentId, CaptureId), i64>,
    refunded: BTreeMap<(PaymentId, CaptureId), i64>,
    /// The last plan of each shipment.
    revisions: BTreeMap<ShipmentId, u32>,
    refund_ids: BTreeSet<crate::id::RefundId>,
    ends: u32,
}

impl Model {
    fn place(order: PlaceOrder) -> Self {
        let mut model = Self::default();
        let placed = model.order.decide(ORDER, &Command::Place(order)).unwrap();
        model.take_in(placed);
        model
    }

    /// What was recorded, if it was not refused.
    fn step(&mut self, step: &Step) -> Vec<Event> {
        let payment = |n: &Index, count: usize| PaymentId::of_order(ORDER, n.index(count.max(1)));
        let command = match step {
            Step::Do(command) => command.clone(),
            Step::Change(change) => return self.change(change),
            Step::Ship(n, parcel) => return self.ship(n, *parcel),
            Step::Authorise(n) => authorised(payment(n, self.order.payments_numbered)),
            Step::Decline(n) => declined(payment(n, self.order.payments_numbered)),
            Step::Fill(line) => Command::RecordBackorderFilled { lines: vec![*line] },
            Step::Propose { remove, add, pay } => Command::ProposeEdit(self.edit(remove.as_ref(), add, *pay)),
            Step::Return(line, quantity) => Command::RequestReturn {
                lines: vec![ReturnLine { line: *line, quantity: *quantity }],
                reason: ReturnReason::Unwanted,
            },
            Step::Receive(return_no, line, quantity, usable) => Command::ReceiveReturn {
                return_no: *return_no,
                receipt_id: self.next_parcel(*return_no),
                lines: vec![ReceivedLine { line: *line, quantity: *quantity, usable: *usable }],
            },
        };
        self.command(&command)
    }

    fn command(&mut self, command: &Command) -> Vec<Event> {
        let events = self.order.decide(ORDER, command).unwrap_or_default();
        self.take_in(events.clone());
        if !events.is_empty() {
            assert_eq!(self.order.decide(ORDER, command), Ok(vec![]), "{command:?} again");
        }
        events
    }

    fn next_parcel(&self, return_no: u32) -> ReceiptId {
        let asked = self.order.returns.get(return_no as usize - 1);
        let n = asked.map_or(0, |asked| asked.receipts.len()) as u128;
        ReceiptId(Uuid::from_u128(u128::from(return_no) * 1000 + n))
    }

    fn edit(&self, remove: Option<&Index>, add: &[PlaceLine], pay: bool) -> ProposeEdit {
        let lines: Vec<&OrderLine> = self.order.lines().collect();
        let remove: Vec<LineNo> =
            remove.filter(|_| !lines.is_empty()).map(|n| lines[n.index(lines.len())].line).into_iter().collect();
        let kept = lines.into_iter().filter(|l| !remove.contains(&l.line)).map(|l| l.cost().0).sum::<i64>();
        let added = add.iter().map(|l| i64::from(l.quantity) * l.unit_price.0).sum::<i64>();
        let missing = kept + added - self.order.to_be_paid().0;
        let payments = if pay && missing > 0 { vec![paying("card", missing)] } else { vec![] };
        ProposeEdit { remove, add: add.to_vec(), shipping: vec![], payments }
    }

    fn change(&mut self, change: &Change) -> Vec<Event> {
        let ids = self.order.shipment_ids(ORDER);
        let shipments: Vec<_> =
            ids.iter().map(|id| (*id, self.shipments.get(id).cloned().unwrap_or_default())).collect();
        let Ok(changed) = self.order.change(ORDER, &shipments, change) else { return vec![] };
        for (id, events) in ids.iter().zip(&changed.shipments) {
            self.shipment_events(*id, events);
        }
        self.take_in(changed.order.clone());
        changed.order
    }

    fn ship(&mut self, n: &Index, parcel: Parcel) -> Vec<Event> {
        let ids = self.order.shipment_ids(ORDER);
        if ids.is_empty() {
            return vec![];
        }
        let id = ids[n.index(ids.len())];
        let revision = self.revisions.get(&id).copied().unwrap_or(1);
        let command = match parcel {
            Parcel::Ready => shipment::Command::MarkReady { revision },
            Parcel::Dispatch => shipment::Command::Dispatch { revision, tracking: "T1".to_owned() },
            Parcel::Deliver => shipment::Command::ConfirmDelivery,
            Parcel::Lose => shipment::Command::ReportLost,
            Parcel::SendBack => shipment::Command::ReportReturned,
        };
        self.tell_shipment(id, &command);
        vec![]
    }

    fn tell_shipment(&mut self, id: ShipmentId, command: &shipment::Command) {
        let shipment = self.shipments.entry(id).or_default();
        let events = shipment.decide(id, command).unwrap_or_default();
        self.shipment_events(id, &events);
    }

    fn shipment_events(&mut self, shipment_id: ShipmentId, events: &[shipment::Event]) {
        for event in events {
            self.shipments.entry(shipment_id).or_default().evolve(event);
            match event {
                shipment::Event::ShipmentPlanned(shipment::ShipmentPlanned { revision, .. })
                | shipment::Event::ShipmentReplanned(shipment::ShipmentReplanned { revision, .. }) => {
                    self.revisions.insert(shipment_id, *revision);
                }
                shipment::Event::ShipmentDispatched(e) => {
                    for l in &e.lines {
                        assert_eq!(self.shipped.insert(l.line, l.quantity), None, "line {} was shipped twice", l.line);
                        assert!(self.order.has_line(l.line), "a cancelled line was shipped");
                        assert_eq!(self.order.line(l.line).unwrap().quantity, l.quantity);
                    }
                    assert!(self.order.holds.is_empty(), "an order on hold was shipped");
                    for c in &e.captures {
                        self.captured.insert((c.payment_id, c.capture_id), c.amount.0);
                    }
                }
                shipment::Event::ShipmentDelivered(e) => {
                    drop(self.command(&Command::RecordDelivery { shipment_id, lines: e.lines.clone() }));
                }
                shipment::Event::ShipmentLost(e) => {
                    drop(self.command(&Command::RecordLoss { shipment_id, lines: e.lines.clone() }));
                }
                shipment::Event::ShipmentReturnedToSender(e) => {
                    drop(self.command(&Command::RecordReturnedToSender { shipment_id, lines: e.lines.clone() }));
                }
                _ => {}
            }
        }
    }

    /// Takes events in, and does at once what follows from them at the shipments.
    fn take_in(&mut self, events: Vec<Event>) {
        for event in events {
            self.order.evolve(&event);
            match &event {
                Event::OrderConfirmed(OrderConfirmed { shipments })
                | Event::EditConfirmed(EditConfirmed { shipments, .. }) => {
                    for s in shipments {
                        let plan = shipment::Command::Plan { order_id: ORDER, shipment: s.clone() };
                        self.tell_shipment(s.shipment_id, &plan);
                    }
                }
                Event::HoldPlaced(e) => {
                    let hold = shipment::Command::Hold { order_id: ORDER, hold: e.hold };
                    e.shipments.iter().for_each(|id| self.tell_shipment(*id, &hold));
                }
                Event::HoldReleased(e) => {
                    let release = shipment::Command::Release { order_id: ORDER, hold: e.hold };
                    e.shipments.iter().for_each(|id| self.tell_shipment(*id, &release));
                }
                Event::ReturnReceived(e) => {
                    e.lines.iter().for_each(|l| *self.returned.entry(l.line).or_default() += l.quantity);
                    self.refund(&e.refunds);
                }
                Event::LinesLost(e) => self.refund(&e.refunds),
                Event::LinesReturnedToSender(e) => {
                    e.restock.iter().for_each(|l| *self.returned.entry(l.line).or_default() += l.quantity);
                    self.refund(&e.refunds);
                }
                Event::OrderCompleted(_)
                | Event::OrderCancelled(_)
                | Event::OrderRejected(_)
                | Event::OrderExpired(_) => {
                    self.ends += 1;
                }
                _ => {}
            }
        }
    }

    fn refund(&mut self, refunds: &[RefundShare]) {
        for share in refunds {
            assert!(share.amount > Amount::ZERO, "{share:?}");
            assert!(self.refund_ids.insert(share.refund_id), "{share:?} was asked for before");
            *self.refunded.entry((share.payment_id, share.capture_id)).or_default() += share.amount.0;
        }
    }

    fn check(&self, events: &[Event]) -> Result<(), TestCaseError> {
        // Invariant 23, whatever was cancelled or edited.
        for totals in events.iter().filter_map(|e| match e {
            Event::LinesCancelled(e) => Some(e.totals),
            Event::EditConfirmed(e) => Some(e.totals),
            _ => None,
        }) {
            prop_assert_eq!(Some(totals), self.order.totals());
            let lines: i64 = self.order.lines().map(|l| l.cost().0).sum();
            prop_assert_eq!(totals.total.0, lines + totals.shipping.0);
            prop_assert_eq!(totals.total.0, totals.goods.0 - totals.discount.0 + totals.tax.0 + totals.shipping.0);
        }
        let captures: i64 = self.order.shipments(ORDER).iter().flat_map(|s| &s.captures).map(|c| c.amount.0).sum();
        prop_assert_eq!(captures, self.order.totals().unwrap().total.0, "what is captured is what it costs");
        // Invariant 22: what the payments can give.
        let mut by_payment: BTreeMap<PaymentId, i64> = BTreeMap::new();
        self.captured.iter().for_each(|((payment, _), amount)| *by_payment.entry(*payment).or_default() += amount);
        for (payment, captured) in by_payment {
            let payment = self.order.payments().find(|p| p.payment_id == payment);
            prop_assert!(payment.is_some_and(|p| p.amount.0 >= captured), "{:?} of {:?}", captured, payment);
        }
        for (key, refunded) in &self.refunded {
            let captured = self.captured.get(key).copied().unwrap_or_default();
            prop_assert!(*refunded <= captured, "refunded {} of {}", refunded, captured);
        }
        // Invariant 24.
        for (line, returned) in &self.returned {
            let shipped = self.shipped.get(line).copied().unwrap_or_default();
            prop_assert!(*returned <= shipped, "{} of {} came back", returned, shipped);
        }
        // All pieces of a line that came back: what it cost, to the last unit.
        prop_assert!(self.ends <= 1);
        prop_assert_eq!(self.order.status == Status::Completed || self.order.status.is_called_off(), self.ends == 1);
        if self.order.status == Status::Completed {
            prop_assert!(self.order.lines().all(|l| self.shipped.get(&l.line) == Some(&l.quantity)));
        }
        Ok(())
    }
}

fn any_placed() -> impl Strategy<Value = PlaceOrder> {
    let modes = [RoundingMode::HalfEven, RoundingMode::HalfUp, RoundingMode::Up, RoundingMode::Down];
    let currencies = ["JPY", "EUR", "KWD"].map(|code| code.parse::<Currency>().unwrap());
    (
        any_order(),
        any::<bool>(),
        proptest::sample::select(modes.to_vec()),
        proptest::sample::select(currencies.to_vec()),
    )
        .prop_map(|(order, backorder, mode, currency)| PlaceOrder {
            backorder,
            currency,
            rounding: Rounding { mode, ..order.rounding },
            ..order
        })
}

proptest! {
    #[test]
    fn invariants_22_to_24_hold_after_any_sequence_of_commands(
        order in any_placed(),
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let mut model = Model::place(order);
        for step in &steps {
            let events = model.step(step);
            model.check(&events)?;
            // What is stored is read back as it was.
            for event in events.into_iter().map(|e| Order::event(ORDER.0, e)) {
                let payload = serde_json::to_value(&event).unwrap();
                let read = crate::Event::from_payload("order", ORDER.0, event.event_type(), payload).unwrap();
                prop_assert_eq!(read, Some(event));
            }
        }
        let state = serde_json::to_string(&model.order).unwrap();
        prop_assert_eq!(serde_json::from_str::<Order>(&state).unwrap(), model.order);
    }

    /// However the pieces of a delivered order come back, they are refunded with what the lines cost.
    #[test]
    fn all_pieces_back_are_all_that_the_lines_cost(order in any_placed(), picks in proptest::collection::vec(any::<Index>(), 40)) {
        let mut model = Model::place(order);
        for n in 0..model.order.payments_numbered {
            drop(model.command(&authorised(PaymentId::of_order(ORDER, n))));
        }
        drop(model.command(&Command::RecordStockReserved));
        for id in model.order.shipment_ids(ORDER) {
            model.tell_shipment(id, &shipment::Command::Dispatch { revision: 1, tracking: "T1".to_owned() });
            model.tell_shipment(id, &shipment::Command::ConfirmDelivery);
        }
        prop_assert_eq!(model.order.status, Status::Completed);
        let mut pieces: Vec<LineNo> =
            model.order.lines().flat_map(|l| std::iter::repeat_n(l.line, l.quantity as usize)).collect();
        let lines = model.order.lines().map(|l| ReturnLine { line: l.line, quantity: l.quantity }).collect();
        drop(model.command(&Command::RequestReturn { lines, reason: ReturnReason::Unwanted }));
        drop(model.command(&Command::ApproveReturn { return_no: 1 }));
        for pick in &picks {
            if pieces.is_empty() {
                break;
            }
            let line = pieces.swap_remove(pick.index(pieces.len()));
            let lines = vec![ReceivedLine { line, quantity: 1, usable: 1 }];
            let events = model.command(&Command::ReceiveReturn { return_no: 1, receipt_id: model.next_parcel(1), lines });
            prop_assert_eq!(events.len(), 1);
            model.check(&events)?;
        }
        prop_assert!(pieces.is_empty());
        let cost: i64 = model.order.lines().map(|l| l.cost().0).sum();
        prop_assert_eq!(model.refunded.values().sum::<i64>(), cost, "shipping stays paid");
    }
}
