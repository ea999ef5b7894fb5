//! Folded aggregates, kept between commands. What is kept may be behind the log: whoever decides on it has the log
//! confirm its version.

use crate::codec;
use crate::execute::ExecuteError;
use domain::order::Order;
use domain::payment::Payment;
use domain::shipment::Shipment;
use domain::stock::Stock;
use domain::{Aggregate, Event};
use moka::sync::Cache;
use std::sync::Arc;
use store::{Log, Position, StreamId, Version};
use uuid::Uuid;

/// How many aggregates of a kind are kept.
pub(crate) const CACHED: u64 = 50_000;
/// How many events of a stream are read at a time.
const PAGE: i64 = 1000;

/// A state, and the event that it was folded up to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folded<A> {
    pub(crate) state: Arc<A>,
    pub(crate) version: Version,
    pub(crate) position: Position,
}

pub(crate) struct Aggregates {
    log: Log,
    orders: Cache<Uuid, Folded<Order>>,
    payments: Cache<Uuid, Folded<Payment>>,
    stocks: Cache<Uuid, Folded<Stock>>,
    shipments: Cache<Uuid, Folded<Shipment>>,
}

/// An aggregate, and where the folded ones of its kind are kept.
pub(crate) trait Kept: Aggregate {
    fn cache(all: &Aggregates) -> &Cache<Uuid, Folded<Self>>;
}

impl Kept for Order {
    fn cache(all: &Aggregates) -> &Cache<Uuid, Folded<Self>> {
        &all.orders
    }
}
impl Kept for Payment {
    fn cache(all: &Aggregates) -> &Cache<Uuid, Folded<Self>> {
        &all.payments
    }
}
impl Kept for Stock {
    fn cache(all: &Aggregates) -> &Cache<Uuid, Folded<Self>> {
        &all.stocks
    }
}
impl Kept for Shipment {
    fn cache(all: &Aggregates) -> &Cache<Uuid, Folded<Self>> {
        &all.shipments
    }
}

impl Aggregates {
    pub(crate) fn new(log: Log, cached: u64) -> Self {
        Self {
            log,
            orders: Cache::new(cached),
            payments: Cache::new(cached),
            stocks: Cache::new(cached),
            shipments: Cache::new(cached),
        }
    }

    /// The aggregate, and whether it was kept; if not, it was read this moment.
    pub(crate) async fn load<A: Kept>(&self, id: Uuid) -> Result<(Folded<A>, bool), ExecuteError> {
        match A::cache(self).get(&id) {
            Some(folded) => Ok((folded, true)),
            None => Ok((self.fold_further(id, Folded::default()).await?, false)),
        }
    }

    /// Folds what the log has of a stream beyond `folded`, and keeps it.
    async fn fold_further<A: Kept>(&self, id: Uuid, mut folded: Folded<A>) -> Result<Folded<A>, ExecuteError> {
        loop {
            let page = self.log.read_stream(codec::stream::<A>(id), folded.version, PAGE).await?;
            let more = page.len() == PAGE as usize;
            for record in page {
                let recorded = codec::decode(record)?;
                folded.version = recorded.record.version;
                folded.position = recorded.record.position;
                if let Some(event) = A::event_of(&recorded.event) {
                    Arc::make_mut(&mut folded.state).evolve(event);
                }
            }
            if !more {
                break;
            }
        }
        if folded.version > 0 {
            A::cache(self).insert(id, folded.clone());
        }
        Ok(folded)
    }

    /// Takes in what others wrote to a stream; all of it anew, if what is kept is not a part of it any more.
    pub(crate) async fn refresh(&self, stream: StreamId, anew: bool) -> Result<(), ExecuteError> {
        match stream.category.name {
            Order::CATEGORY => self.refresh_one::<Order>(stream.id, anew).await,
            Payment::CATEGORY => self.refresh_one::<Payment>(stream.id, anew).await,
            Stock::CATEGORY => self.refresh_one::<Stock>(stream.id, anew).await,
            _ => self.refresh_one::<Shipment>(stream.id, anew).await,
        }
    }

    async fn refresh_one<A: Kept>(&self, id: Uuid, anew: bool) -> Result<(), ExecuteError> {
        let cache = A::cache(self);
        if anew {
            cache.invalidate(&id);
        }
        let folded = cache.get(&id).unwrap_or_default();
        self.fold_further::<A>(id, folded).await.map(drop)
    }

    /// Keeps what `events`, which were recorded after version `from`, make of what is kept.
    pub(crate) fn keep(&self, stream: StreamId, from: Version, events: &[Event], version: Version, position: Position) {
        match stream.category.name {
            Order::CATEGORY => self.keep_one::<Order>(stream.id, from, events, version, position),
            Payment::CATEGORY => self.keep_one::<Payment>(stream.id, from, events, version, position),
            Stock::CATEGORY => self.keep_one::<Stock>(stream.id, from, events, version, position),
            _ => self.keep_one::<Shipment>(stream.id, from, events, version, position),
        }
    }

    fn keep_one<A: Kept>(&self, id: Uuid, from: Version, events: &[Event], version: Version, position: Position) {
        let cache = A::cache(self);
        let mut folded = match cache.get(&id) {
            Some(folded) if folded.version == from => folded,
            None if from == 0 => Folded::default(),
            // Somebody else keeps a newer state, or none: then the next one to look reads it.
            _ => return,
        };
        let state = Arc::make_mut(&mut folded.state);
        events.iter().filter_map(A::event_of).for_each(|event| state.evolve(event));
        cache.insert(id, Folded { version, position, ..folded });
    }
}
