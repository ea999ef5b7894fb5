//! What the log has of the imported orders, in figures: made from its events alone.

use super::history::SOURCE;
use chrono::{DateTime, Utc};
use engine::codec::{self, DecodeError};
use order_views::Orders;
use orders::Event;
use orders::money::Amount;
use orders::order::{Event as E, ForeignId, HistoryRecorded, OrderPlaced};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use store::{Log, Origin, ReadError};
use uuid::Uuid;

/// Months are those of the purchase, `2017-10`; amounts are in centavos.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// How many orders, by Olist's status and month.
    pub orders: BTreeMap<(String, String), u64>,
    /// What was paid, by month and payment type.
    pub revenue: BTreeMap<(String, String), Amount>,
    /// By the seller's id, as the files write it.
    pub sellers: BTreeMap<String, Items>,
}

/// What a seller has sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Items {
    pub items: u64,
    /// Without freight, in centavos.
    pub price: Amount,
}

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Reads the whole log. An order whose import was interrupted does not count yet.
///
/// # Errors
/// When the log cannot be read, or this build does not know an event that it needs.
pub async fn table(log: &Log) -> Result<Table, TableError> {
    let mut table = Table::default();
    // Those of whose history the end has not come yet.
    let mut begun: HashMap<Uuid, (DateTime<Utc>, OrderPlaced)> = HashMap::new();
    let mut pages = log.scan(0, log.head().await?);
    while let Some(page) = pages.next().await? {
        for event in page.events {
            let matters = matches!(&*event.event_type, "OrderPlaced" | "HistoryRecorded");
            if !matters || event.metadata.origin != Origin::Import {
                continue;
            }
            let (id, purchased) = (event.stream.id, event.metadata.occurred_at);
            match codec::decode::<Orders>(event)?.event {
                Event::Order(_, E::OrderPlaced(placed)) => _ = begun.insert(id, (purchased, placed)),
                Event::Order(_, E::HistoryRecorded(e)) if e.source == SOURCE => {
                    if let Some((purchased, placed)) = begun.remove(&id) {
                        table.take_in(e, purchased, placed);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(table)
}

impl Table {
    fn take_in(&mut self, recorded: HistoryRecorded, purchased: DateTime<Utc>, placed: OrderPlaced) {
        let names: HashMap<Uuid, String> = recorded.ids.into_iter().map(|ForeignId { id, name }| (id, name)).collect();
        let month = purchased.format("%Y-%m").to_string();
        for payment in placed.payments {
            self.revenue.entry((month.clone(), payment.method.kind)).or_default().0 += payment.amount.0;
        }
        for line in placed.lines {
            let id = line.seller_id.0;
            let seller = names.get(&id).cloned().unwrap_or_else(|| id.simple().to_string());
            let items = self.sellers.entry(seller).or_default();
            items.items += u64::from(line.quantity);
            items.price.0 += line.unit_price.0 * i64::from(line.quantity);
        }
        *self.orders.entry((recorded.status, month)).or_default() += 1;
    }
}
