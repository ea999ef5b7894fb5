//! Read model: what happened to an order, when, why and by whom. Its rows, their fold, their query.

use crate::{Delivered, ORDER, Orders, PAYMENT, Recorded, SHIPMENT, STOCK};
use chrono::{DateTime, Utc};
use engine::Domain;
use engine::parked::KeyedBy;
use engine::row::Row;
use orders::Event;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::{PgConnection, PgPool};
use store::{Category, Position};
use uuid::Uuid;

/// A row of the table, and what a query replies: an event that is about the order, of whichever stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub order_id: Uuid,
    pub position: Position,
    pub recorded_at: DateTime<Utc>,
    pub occurred_at: DateTime<Utc>,
    pub category: String,
    pub stream_id: Uuid,
    pub version: i64,
    pub event_type: String,
    pub actor: String,
    /// What of its payload is told; amounts are in minor units.
    pub detail: Value,
}

/// What is told of a payload, as far as it has it, under the last name of each. Nothing else is kept: so no token of a
/// payment method is, whatever an event may have one day.
const TOLD: &[&str] = &[
    "/address_id",
    "/add",
    "/amount",
    "/approval",
    "/call",
    "/currency",
    "/edit",
    "/hold",
    "/ids",
    "/lines",
    "/method/kind",
    "/payment_id",
    "/reason",
    "/receipt_id",
    "/remove",
    "/rest",
    "/return_no",
    "/revision",
    "/shipment_id",
    "/shipment/address_id",
    "/shipment/lines",
    "/shipment/seller_id",
    "/short",
    "/sku",
    "/source",
    "/status",
    "/then",
    "/totals/total",
    "/tracking",
    "/within_seconds",
];

impl Row for Entry {
    type Domain = Orders;
    const NAME: &'static str = "order_history";
    const VERSION: i16 = 1;
    const KEYED_BY: KeyedBy = KeyedBy::Correlation;
    const IS_WHOLE: bool = false;
    const CATEGORIES: &'static [Category] = &[ORDER, PAYMENT, STOCK, SHIPMENT];
    type Key = (Uuid, Position);

    fn keys(delivered: &Delivered) -> impl IntoIterator<Item = (Uuid, Position)> {
        let Recorded { record, event } = delivered.event()?;
        let is_of_order = match event {
            Event::Stock(_, event) => event.order_id().is_some(),
            Event::Order(..) | Event::Payment(..) | Event::Shipment(..) => true,
        };
        is_of_order.then(|| (Orders::correlation_id(record.metadata.correlation_id, event), record.position))
    }

    fn fold(row: &mut Option<Self>, (order_id, position): &(Uuid, Position), delivered: &Delivered) {
        let Some(Recorded { record, event }) = delivered.event() else { return };
        *row = Some(Self {
            order_id: *order_id,
            position: *position,
            recorded_at: record.recorded_at,
            occurred_at: record.metadata.occurred_at,
            category: record.stream.category.name.to_owned(),
            stream_id: record.stream.id,
            version: record.version,
            event_type: record.event_type.to_string(),
            actor: record.metadata.actor.to_string(),
            detail: told(event),
        });
    }

    async fn load(
        _: &mut PgConnection,
        _: i32,
        _: Vec<(Uuid, Position)>,
    ) -> Result<Vec<((Uuid, Position), Self)>, sqlx::Error> {
        Ok(vec![])
    }

    async fn store(
        connection: &mut PgConnection,
        generation: i32,
        rows: &[(&(Uuid, Position), &Self)],
    ) -> Result<(), sqlx::Error> {
        let ids = |of: fn(&Self) -> Uuid| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let numbers = |of: fn(&Self) -> i64| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let times = |of: fn(&Self) -> DateTime<Utc>| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let texts = |of: fn(&Self) -> &String| rows.iter().map(|(_, row)| of(row).clone()).collect::<Vec<_>>();
        let details: Vec<Value> = rows.iter().map(|(_, row)| row.detail.clone()).collect();
        sqlx::query!(
            "INSERT INTO daybook.order_history
                 (generation, order_id, position, recorded_at, occurred_at, category, stream_id, version, event_type,
                  actor, detail)
             SELECT $1, * FROM unnest($2::uuid[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                                      $7::uuid[], $8::bigint[], $9::text[], $10::text[], $11::jsonb[])
             ON CONFLICT ON CONSTRAINT order_history_entry DO NOTHING",
            generation,
            &ids(|r| r.order_id),
            &numbers(|r| r.position),
            &times(|r| r.recorded_at),
            &times(|r| r.occurred_at),
            &texts(|r| &r.category),
            &ids(|r| r.stream_id),
            &numbers(|r| r.version),
            &texts(|r| &r.event_type),
            &texts(|r| &r.actor),
            &details
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

fn told(event: &Event) -> Value {
    let payload = serde_json::to_value(event).unwrap_or_default();
    let told = TOLD.iter().filter_map(|path| {
        let (_, name) = path.rsplit_once('/')?;
        Some((name.to_owned(), payload.pointer(path)?.clone()))
    });
    Value::Object(told.collect::<Map<_, _>>())
}

/// Up to `limit` events about an order in order of position, from the one after `after`, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn list(pool: &PgPool, order_id: Uuid, after: Position, limit: i64) -> Result<Vec<Entry>, sqlx::Error> {
    sqlx::query_as!(
        Entry,
        "SELECT order_id, position, recorded_at, occurred_at, category, stream_id, version, event_type, actor, detail
         FROM daybook.order_history
         WHERE order_id = $1 AND position > $2
           AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_history' AND live)
         ORDER BY position LIMIT $3",
        order_id,
        after,
        limit
    )
    .fetch_all(pool)
    .await
}
