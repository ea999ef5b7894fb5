//! Those outside: the customer, the approver, the warehouse, the carrier, and who sees to holds.

use super::*;
use crate::id::ReceiptId;
use crate::order::{HoldReason, OrderLine, ProposeEdit, ReceivedLine, ReturnLine, ReturnReason};

impl World<'_> {
    /// What an event has people do, each with the number of deliveries after which they do it.
    pub(super) fn next_by_people(&self, event: &Event) -> Vec<(usize, Command)> {
        let now = |commands: Vec<Command>| commands.into_iter().map(|command| (0, command)).collect();
        match event {
            Event::Order(id, event) => now(self.next_after_order(*id, event)),
            Event::Shipment(id, event) => self.next_after_shipment(*id, event),
            Event::Payment(..) | Event::Stock(..) => vec![],
        }
    }

    fn next_after_order(&self, id: OrderId, event: &order::Event) -> Vec<Command> {
        use order::Command as C;
        use order::Event as E;
        let people = &self.script.people;
        let commands = match event {
            E::ApprovalRequested(order::ApprovalRequested { approval, .. }) => match people.grants {
                Some(true) => vec![C::GrantApproval { approval: *approval }],
                Some(false) => vec![C::DenyApproval { approval: *approval }],
                None => vec![],
            },
            E::HoldPlaced(e) if people.releases => vec![C::ReleaseHold { reason: e.reason }],
            E::OrderConfirmed(_) => people.edit.iter().map(|edit| C::ProposeEdit(self.edit(edit))).collect(),
            E::EditProposed(_) | E::EditStockSecured(_) | E::PaymentAuthorisedRecorded(_) | E::HoldReleased(_) => {
                let is_wanted = people.edit.as_ref().is_some_and(|edit| edit.is_confirmed);
                let edit = self.books.edit.as_ref().filter(|_| is_wanted).map(|edit| edit.edit);
                return edit.map(|edit| Command::ConfirmEdit { id, edit }).into_iter().collect();
            }
            E::LinesDelivered(e) => {
                let comes_back = |line: &&LineNo| people.returns.get(**line as usize) == Some(&true);
                let all = |line: &LineNo| self.order.lines().find(|l| l.line == *line).map_or(0, |l| l.quantity);
                let lines: Vec<ReturnLine> = e
                    .lines
                    .iter()
                    .filter(comes_back)
                    .map(|line| ReturnLine { line: *line, quantity: all(line) })
                    .collect();
                let reason = ReturnReason::Unwanted;
                if lines.is_empty() { vec![] } else { vec![C::RequestReturn { lines, reason }] }
            }
            E::ReturnRequested(e) => vec![C::ApproveReturn { return_no: e.return_no }],
            E::ReturnApproved(e) => self.received(e.return_no),
            _ => vec![],
        };
        commands.into_iter().map(|command| Command::Order { id, command }).collect()
    }

    /// Each piece in a parcel of its own; every other one can be sold again.
    fn received(&self, return_no: u32) -> Vec<order::Command> {
        let is_asked = |event: &&Event| matches!(event, Event::Order(_, order::Event::ReturnRequested(e)) if e.return_no == return_no);
        let Some(Event::Order(_, order::Event::ReturnRequested(asked))) = self.log.iter().find(is_asked) else {
            return vec![];
        };
        let pieces = asked.lines.iter().flat_map(|l| (0..l.quantity).map(|n| (l.line, n % 2)));
        let received = |(n, (line, usable)): (u128, _)| {
            let lines = vec![ReceivedLine { line, quantity: 1, usable }];
            let receipt_id = ReceiptId(Uuid::from_u128(u128::from(return_no) * 1000 + n));
            order::Command::ReceiveReturn { return_no, receipt_id, lines }
        };
        (0..).zip(pieces).map(received).collect()
    }

    /// The warehouse ships what is planned, and the carrier does with it what the script says.
    fn next_after_shipment(&self, id: ShipmentId, event: &shipment::Event) -> Vec<(usize, Command)> {
        use shipment::Command as C;
        use shipment::Event as E;
        let people = &self.script.people;
        let (moment, command) = match event {
            E::ShipmentPlanned(_) | E::ShipmentReplanned(_) | E::ShipmentReleased(_) => {
                (people.ships_after, C::Dispatch { revision: self.revision(id), tracking: "T1".to_owned() })
            }
            E::ShipmentDispatched(_) => match self.parcel(id) {
                Parcel::Arrives => (0, C::ConfirmDelivery),
                Parcel::IsLost => (0, C::ReportLost),
                Parcel::ComesBack => (0, C::ReportReturned),
            },
            E::ShipmentReady(_)
            | E::ShipmentHeld(_)
            | E::ShipmentDelivered(_)
            | E::ShipmentLost(_)
            | E::ShipmentReturnedToSender(_)
            | E::ShipmentCancelled(_) => return vec![],
        };
        vec![(moment, Command::Shipment { id, command })]
    }

    /// The last plan of the shipment.
    fn revision(&self, id: ShipmentId) -> u32 {
        let of_plan = |event: &Event| match event {
            Event::Shipment(of, shipment::Event::ShipmentPlanned(e)) if *of == id => Some(e.revision),
            Event::Shipment(of, shipment::Event::ShipmentReplanned(e)) if *of == id => Some(e.revision),
            _ => None,
        };
        self.log.iter().rev().find_map(of_plan).unwrap_or(1)
    }

    pub(super) fn parcel(&self, id: ShipmentId) -> Parcel {
        let sellers = (0..4_u128).map(|n| ShipmentId::of_seller(ORDER, SellerId(Uuid::from_u128(10 + n))));
        let parcels = sellers.zip(&self.script.people.parcels).find(|(shipment, _)| *shipment == id);
        *parcels.expect("the sellers are known").1
    }

    /// What the customer asks for, as the order is now. It is decided later.
    pub(super) fn asked(&self, ask: &Ask, n: usize) -> Vec<Command> {
        let reason = CancelReason::CustomerRequest;
        let of_order = |command| Command::Order { id: ORDER, command };
        match ask {
            Ask::Cancel => vec![Command::CancelOrder { id: ORDER, reason }],
            Ask::CancelLine(line) => {
                let lines: Vec<LineNo> = self.order.lines().map(|l| l.line).collect();
                let lines = lines.get(line.index(lines.len().max(1))).copied().into_iter().collect();
                vec![Command::CancelLines { id: ORDER, lines, reason }]
            }
            Ask::ChangeAddress => {
                let address_id = crate::id::AddressId(Uuid::from_u128(100 + n as u128));
                vec![Command::ChangeAddress { id: ORDER, address_id }]
            }
            Ask::Hold => vec![of_order(order::Command::PlaceHold { reason: HoldReason::Manual })],
            Ask::Approval => vec![of_order(order::Command::RequestApproval { within_seconds: 60 })],
            Ask::Edit => {
                let edit = self.script.people.edit.iter().filter(|_| self.order.lines().next().is_some());
                edit.map(|edit| of_order(order::Command::ProposeEdit(self.edit(edit)))).collect()
            }
            Ask::DiscardEdit(edit) => vec![of_order(order::Command::DiscardEdit { edit: *edit })],
            Ask::Receive => {
                let receive = |name| Command::Stock(stock::Command::Receive { sku: sku(name), quantity: 10 });
                SKUS.map(receive).to_vec()
            }
            Ask::Damage => {
                let reason = stock::AdjustReason::Damage;
                let adjust = |name| Command::Stock(stock::Command::Adjust { sku: sku(name), by: -1, reason });
                SKUS.map(adjust).to_vec()
            }
        }
    }

    /// The edit with what it costs more. The sellers that are left take for shipping what they took before.
    fn edit(&self, edit: &Edit) -> ProposeEdit {
        let lines: Vec<&OrderLine> = self.order.lines().collect();
        let remove: Vec<LineNo> = edit.remove.iter().map(|n| lines[n.index(lines.len())].line).collect();
        let kept: Vec<&OrderLine> = lines.into_iter().filter(|l| !remove.contains(&l.line)).collect();
        let sells =
            |seller| kept.iter().any(|l| l.seller_id == seller) || edit.add.iter().any(|l| l.seller_id == seller);
        let shipping: Vec<_> = self.order.shipping().into_iter().filter(|s| sells(s.seller_id)).collect();
        let kept: i64 = kept.iter().map(|l| cost(l)).sum();
        let added: i64 = edit.add.iter().map(|l| i64::from(l.quantity) * l.unit_price.0).sum();
        let total = kept + added + shipping.iter().map(|s| s.amount.0).sum::<i64>();
        let missing = total - self.order.to_be_paid().0;
        let payments = if missing > 0 { vec![paying("card", missing)] } else { vec![] };
        ProposeEdit { remove, add: edit.add.clone(), shipping, payments }
    }
}
