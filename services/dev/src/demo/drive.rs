//! Plays everybody outside: customers who place, edit, cancel and return orders, a person who approves them, a warehouse
//! that dispatches, a carrier that delivers.
//!
//! They learn what happened as any subscriber does, from the events, and act through the command API.

use super::plan::{Edit, Path, Plan, PlannedOrder};
use cli::{Failure, output};
use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use order_services::verbs::{
    ApproveReturn, Cancel, ConfirmDelivery, ConfirmEdit, DenyApproval, Dispatch, GrantApproval, Place, ProposeEdit,
    Receive, ReceiveReturn, RequestReturn,
};
use order_views::CATEGORIES;
use order_views::Orders;
use orders::id::{OrderId, ReceiptId, ShipmentId};
use orders::order::{self, CancelReason, PlaceLine, ReceivedLine, ReturnLine, ReturnReason, SellerShipping};
use orders::{Event, shipment};
use runtime::client::{Client, ClientError};
use runtime::commands::Verb;
use runtime::feed::Feed;
use runtime::nats::Nats;
use runtime::process::{StartError, jetstream};
use runtime::step;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::Log;
use store::connect::{self, Role};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a command is repeated while a server does not answer: long enough to start one again.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long nothing may happen before the demo gives up.
const STALLED: Duration = Duration::from_secs(120);

/// How it went.
pub(super) struct Driven {
    pub(super) commands: u64,
    pub(super) elapsed: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

/// Who acts, and how long it took to be answered.
#[derive(Clone)]
struct Actor {
    client: Client,
    /// Microseconds.
    latencies: Arc<Mutex<Histogram<u64>>>,
}

impl Actor {
    async fn command<V: Verb + Sync>(&self, data: V) -> Result<(), Failure> {
        let begun = Instant::now();
        let sent = self.client.command(data, PATIENCE).await;
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.saturating_record(begun.elapsed().as_micros() as u64);
        drop(latencies);
        Ok(sent.map(drop)?)
    }
}

pub(super) async fn drive(plan: &Plan, database_url: &str, nats: &Nats, clients: u16) -> Result<Driven, Failure> {
    let log = Log::new(connect::pool(database_url, Role::Read, 2)?, CATEGORIES);
    let nats = nats.process.connect("daybook demo").await.map_err(StartError::from)?;
    let feed = Feed::new(log.clone(), jetstream(&nats), log.head().await?);
    let latencies = Histogram::new_with_max(PATIENCE.as_micros() as u64, 3)
        .map_err(|e| Failure::Other(format!("no histogram: {e}")))?;
    let latencies = Arc::new(Mutex::new(latencies));
    let actor = |name: &str| Actor { client: Client::new(nats.clone(), name), latencies: latencies.clone() };
    let (shop, warehouse) = (actor("demo-shop"), actor("demo-warehouse"));

    let begun = Instant::now();
    let receipts = plan.stock.iter().map(|(sku, quantity)| {
        let receive = Receive { sku: sku.clone(), quantity: *quantity };
        warehouse.command(receive)
    });
    all(receipts, clients).await?;

    let stopping = CancellationToken::new();
    let mut outside = Outside {
        warehouse,
        open: plan.orders.iter().map(|o| (o.id, Open::of(o))).collect(),
        shop: shop.clone(),
        acts: JoinSet::new(),
        bar: output::bar(plan.orders.len() as u64, "orders"),
    };
    let mut reader = feed.reader();
    let position = feed.position();
    let taking_in = tokio::spawn(step::run(feed, stopping.clone()));
    let placed = all(plan.orders.iter().map(|order| place(&shop, order)), clients);
    let (placed, ended) = tokio::join!(placed, outside.until_all_ended(&mut reader, position));
    outside.bar.finish_and_clear();
    stopping.cancel();
    _ = taking_in.await;
    placed.and(ended)?;

    let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
    let quantile = |q| Duration::from_micros(latencies.value_at_quantile(q));
    Ok(Driven { commands: latencies.len(), elapsed: begun.elapsed(), p50: quantile(0.5), p99: quantile(0.99) })
}

/// Runs them, so many at once, until one fails.
async fn all(
    commands: impl Iterator<Item = impl Future<Output = Result<(), Failure>>>,
    at_once: u16,
) -> Result<(), Failure> {
    let mut running = stream::iter(commands).buffer_unordered(at_once.into());
    while let Some(done) = running.next().await {
        done?;
    }
    Ok(())
}

async fn place(shop: &Actor, order: &PlannedOrder) -> Result<(), Failure> {
    shop.command(Place { order_id: order.id, order: order.place.clone() }).await?;
    if order.path == Path::Cancelled {
        shop.command(Cancel { order_id: order.id, reason: CancelReason::CustomerRequest }).await?;
    }
    Ok(())
}

/// An order that has not ended.
struct Open {
    path: Path,
    /// What it was placed with.
    first: PlaceLine,
    shipping: Vec<SellerShipping>,
    /// What the warehouse keeps back, and by which plan it is to pack it, until the order is as it will be.
    kept_back: BTreeMap<ShipmentId, u32>,
    /// How much of its edit is not secured yet; `None` before the edit is proposed.
    unsecured: Option<usize>,
}

impl Open {
    fn of(order: &PlannedOrder) -> Self {
        Self {
            path: order.path.clone(),
            first: order.place.lines[0].clone(),
            shipping: order.place.shipping.clone(),
            kept_back: BTreeMap::new(),
            unsecured: None,
        }
    }
}

struct Outside {
    warehouse: Actor,
    /// Who places, edits, returns and approves orders.
    shop: Actor,
    open: HashMap<OrderId, Open>,
    acts: JoinSet<Result<(), Failure>>,
    bar: cli::output::ProgressBar,
}

impl Outside {
    async fn until_all_ended(
        &mut self,
        reader: &mut runtime::feed::Reader<Orders>,
        mut position: store::Position,
    ) -> Result<(), Failure> {
        let mut last = Instant::now();
        while !(self.open.is_empty() && self.acts.is_empty()) {
            let unavailable = |e: runtime::feed::FeedError| Failure::Unavailable(e.to_string());
            let events = match reader.next(position, 1000).await {
                Ok(batch) => batch.map_or(vec![], |batch| batch.events),
                // A server is away: it is waited for.
                Err(_) if last.elapsed() < STALLED => vec![],
                Err(e) => return Err(unavailable(e)),
            };
            for one in &events {
                position = one.record().position;
                one.event().into_iter().for_each(|recorded| self.act_on(&recorded.event));
            }
            while let Some(done) = self.acts.try_join_next() {
                done.map_err(|e| Failure::Other(e.to_string()))??;
            }
            if !events.is_empty() {
                last = Instant::now();
            } else if last.elapsed() > STALLED {
                let open = self.open.len();
                return Err(Failure::Differs(format!("{open} orders have not ended, and nothing happens any more")));
            } else {
                _ = tokio::time::timeout(Duration::from_millis(20), reader.grown()).await;
            }
        }
        Ok(())
    }

    fn act_on(&mut self, event: &Event) {
        match event {
            Event::Order(id, event) => self.act_on_order(*id, event),
            Event::Shipment(id, event) => self.act_on_shipment(*id, event),
            Event::Payment(..) | Event::Stock(..) => {}
        }
    }

    fn act_on_order(&mut self, id: OrderId, event: &order::Event) {
        use order::Event as E;
        let Some(open) = self.open.get_mut(&id) else { return };
        match (event, &open.path) {
            (E::ApprovalRequested(e), path) => {
                let approval = e.approval;
                match path {
                    Path::Denied => self.ask(DenyApproval { order_id: id, approval }),
                    _ => self.ask(GrantApproval { order_id: id, approval }),
                }
            }
            (E::LinesBackordered(e), _) => {
                for line in &e.short {
                    let warehouse = self.warehouse.clone();
                    let receive = Receive { sku: line.sku.clone(), quantity: line.quantity };
                    self.acts.spawn(async move { warehouse.command(receive).await });
                }
            }
            (E::OrderConfirmed(_), Path::Edited(edit)) => {
                let Edit { add, payments } = edit.clone();
                let shipping = open.shipping.clone();
                let edit = order::ProposeEdit { remove: vec![1], add: vec![add], shipping, payments };
                self.ask(ProposeEdit { order_id: id, edit });
            }
            (E::EditProposed(e), _) => {
                open.unsecured = Some(e.payments.len() + usize::from(!e.reserve.is_empty()));
            }
            (E::EditStockSecured(_) | E::PaymentAuthorisedRecorded(_), _) => {
                if let Some(unsecured) = &mut open.unsecured {
                    *unsecured -= 1;
                    if *unsecured == 0 {
                        self.ask(ConfirmEdit { order_id: id, edit: 1 });
                    }
                }
            }
            (E::EditConfirmed(_), _) => {
                open.path = Path::Straight;
                let kept_back = std::mem::take(&mut open.kept_back);
                kept_back.into_iter().for_each(|(id, revision)| self.dispatch(id, revision));
            }
            (E::OrderCompleted(_), Path::Returned) => {
                let lines = vec![ReturnLine { line: 1, quantity: open.first.quantity }];
                self.ask(RequestReturn { order_id: id, lines, reason: ReturnReason::Unwanted });
            }
            (E::ReturnRequested(e), _) => self.ask(ApproveReturn { order_id: id, return_no: e.return_no }),
            (E::ReturnApproved(e), _) => {
                let quantity = open.first.quantity;
                let lines = vec![ReceivedLine { line: 1, quantity, usable: quantity }];
                self.ask(ReceiveReturn { order_id: id, return_no: e.return_no, receipt_id: ReceiptId(id.0), lines });
            }
            (E::OrderCompleted(_) | E::OrderCancelled(_) | E::OrderRejected(_) | E::ReturnReceived(_), _) => {
                self.open.remove(&id);
                self.bar.inc(1);
            }
            _ => {}
        }
    }

    fn act_on_shipment(&mut self, id: ShipmentId, event: &shipment::Event) {
        match event {
            // An edit may be faster than the plan.
            shipment::Event::ShipmentPlanned(shipment::ShipmentPlanned { order_id, revision, .. })
            | shipment::Event::ShipmentReplanned(shipment::ShipmentReplanned { order_id, revision, .. }) => {
                match self.open.get_mut(order_id) {
                    Some(Open { path: Path::Cancelled, .. }) | None => {}
                    Some(Open { path: Path::Edited(_), kept_back, .. }) => {
                        kept_back.insert(id, *revision);
                    }
                    Some(_) => self.dispatch(id, *revision),
                }
            }
            shipment::Event::ShipmentDispatched(e) if self.open.contains_key(&e.order_id) => {
                let carrier = self.warehouse.clone();
                self.acts.spawn(async move { carrier.command(ConfirmDelivery { shipment_id: id }).await });
            }
            _ => {}
        }
    }

    fn ask<V: Verb + Sync + 'static>(&mut self, data: V) {
        let shop = self.shop.clone();
        self.acts.spawn(async move { shop.command(data).await });
    }

    fn dispatch(&mut self, shipment_id: ShipmentId, revision: u32) {
        let warehouse = self.warehouse.clone();
        let tracking = format!("T{}", shipment_id.0.simple());
        self.acts.spawn(async move {
            match warehouse.command(Dispatch { shipment_id, revision, tracking }).await {
                // It is packed anew when word of the new plan comes.
                Err(Failure::Client(ClientError::Refused(e)))
                    if e.detail.as_ref().is_some_and(|d| d["reason"] == "replanned") =>
                {
                    Ok(())
                }
                done => done,
            }
        });
    }
}
