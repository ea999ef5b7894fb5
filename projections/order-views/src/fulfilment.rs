//! Read model: what must be shipped, and what became of it. Its row, its fold, its queries.

use crate::{Delivered, Orders, Recorded, SHIPMENT};
use chrono::{DateTime, Utc};
use engine::parked::KeyedBy;
use engine::row::Row;
use orders::Event;
use orders::id::OrderId;
use orders::order::{ShipmentOrder, StockLine};
use orders::shipment::Event as E;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use store::{Category, Origin, RecordedEvent};
use uuid::Uuid;

/// A row of the table, and what a query replies: a shipment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fulfilment {
    pub shipment_id: Uuid,
    /// None, as all that a plan says, of one that has no plan yet: it is in no reply.
    pub order_id: Option<Uuid>,
    pub seller_id: Option<Uuid>,
    pub customer_id: Option<Uuid>,
    pub address_id: Option<Uuid>,
    pub status: String,
    /// Of its last plan; 0 if it has none.
    pub revision: i64,
    pub lines: Json<Vec<StockLine>>,
    pub tracking: Option<String>,
    pub planned_at: Option<DateTime<Utc>>,
    pub changed_at: DateTime<Utc>,
    /// Of the shipment's stream.
    pub version: i64,
    /// Whether it is packed by its last plan.
    #[serde(skip)]
    packed: bool,
    /// The last time on hold, and the last one that is over: each may be known before the other.
    #[serde(skip)]
    held: i64,
    #[serde(skip)]
    released: i64,
}

/// Selects rows of the table: its columns stand here once.
macro_rules! select {
    ($rest:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            Fulfilment,
            r#"SELECT shipment_id, order_id, seller_id, customer_id, address_id, status, revision,
                      lines AS "lines: Json<Vec<StockLine>>", tracking, planned_at, changed_at, version, packed, held,
                      released
               FROM daybook.fulfilment
               "# + $rest,
            $($argument),+
        )
    };
}

orders::words! {
    /// Where a shipment is.
    Status {
        Planned = "planned",
        Ready = "ready",
        Held = "held",
        Dispatched = "dispatched",
        Delivered = "delivered",
        Lost = "lost",
        ReturnedToSender = "returned_to_sender",
        Cancelled = "cancelled",
    }
}

impl Status {
    /// Those of what is still to be shipped.
    pub const TO_SHIP: [Self; 3] = [Self::Planned, Self::Ready, Self::Held];
}

impl Row for Fulfilment {
    type Domain = Orders;
    const NAME: &'static str = "fulfilment";
    const VERSION: i16 = 1;
    const KEYED_BY: KeyedBy = KeyedBy::Stream;
    const CATEGORIES: &'static [Category] = &[SHIPMENT];
    type Key = Uuid;

    fn keys(delivered: &Delivered) -> impl IntoIterator<Item = Uuid> {
        delivered.event().and_then(|recorded| match &recorded.event {
            Event::Shipment(id, _) => Some(id.0),
            Event::Order(..) | Event::Payment(..) | Event::Stock(..) => None,
        })
    }

    fn fold(row: &mut Option<Self>, shipment_id: &Uuid, delivered: &Delivered) {
        let Some(Recorded { record, event: Event::Shipment(_, event) }) = delivered.event() else { return };
        let row = row.get_or_insert_with(|| Self::unplanned(*shipment_id, record.recorded_at));
        match event {
            E::ShipmentPlanned(e) => row.plan(e.order_id, e.revision, &e.shipment, record),
            E::ShipmentReplanned(e) => {
                row.released = row.released.max(e.released.into());
                row.plan(e.order_id, e.revision, &e.shipment, record);
            }
            E::ShipmentReady(_) => row.packed = true,
            E::ShipmentHeld(e) => row.held = e.hold.into(),
            E::ShipmentReleased(e) => row.released = e.hold.into(),
            E::ShipmentDispatched(e) => {
                row.is(Status::Dispatched);
                row.tracking = Some(e.tracking.clone());
            }
            E::ShipmentDelivered(_) => row.is(Status::Delivered),
            E::ShipmentLost(_) => row.is(Status::Lost),
            E::ShipmentReturnedToSender(_) => row.is(Status::ReturnedToSender),
            E::ShipmentCancelled(_) => {
                row.is(Status::Cancelled);
                // As in the domain: should it be planned again, nobody releases it from a hold of before.
                row.released = row.released.max(row.held);
            }
        }
        if Status::TO_SHIP.iter().any(|status| row.status == status.as_str()) {
            row.is(match (row.held > row.released, row.packed) {
                (true, _) => Status::Held,
                (false, true) => Status::Ready,
                (false, false) => Status::Planned,
            });
        }
        row.changed_at = record.recorded_at;
        row.version = record.version;
    }

    async fn load(
        connection: &mut PgConnection,
        generation: i32,
        keys: Vec<Uuid>,
    ) -> Result<Vec<(Uuid, Self)>, sqlx::Error> {
        let stored = select!("WHERE generation = $1 AND shipment_id = ANY($2)", generation, &keys);
        Ok(stored.fetch_all(connection).await?.into_iter().map(|row| (row.shipment_id, row)).collect())
    }

    async fn store(connection: &mut PgConnection, generation: i32, rows: &[(&Uuid, &Self)]) -> Result<(), sqlx::Error> {
        let ids = |of: fn(&Self) -> Option<Uuid>| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let numbers = |of: fn(&Self) -> i64| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let shipments: Vec<Uuid> = rows.iter().map(|(id, _)| **id).collect();
        let statuses: Vec<String> = rows.iter().map(|(_, r)| r.status.clone()).collect();
        let lines: Vec<Json<&Vec<StockLine>>> = rows.iter().map(|(_, r)| Json(&r.lines.0)).collect();
        let tracking: Vec<Option<String>> = rows.iter().map(|(_, r)| r.tracking.clone()).collect();
        let planned_at: Vec<Option<DateTime<Utc>>> = rows.iter().map(|(_, r)| r.planned_at).collect();
        let changed_at: Vec<DateTime<Utc>> = rows.iter().map(|(_, r)| r.changed_at).collect();
        let packed: Vec<bool> = rows.iter().map(|(_, r)| r.packed).collect();
        sqlx::query!(
            "INSERT INTO daybook.fulfilment
                 (generation, shipment_id, order_id, seller_id, customer_id, address_id, status, revision, lines,
                  tracking, planned_at, changed_at, version, packed, held, released)
             SELECT $1, * FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[],
                                      $8::bigint[], $9::jsonb[], $10::text[], $11::timestamptz[], $12::timestamptz[],
                                      $13::bigint[], $14::boolean[], $15::bigint[], $16::bigint[])
             ON CONFLICT ON CONSTRAINT fulfilment_shipment DO UPDATE
             SET order_id = excluded.order_id, seller_id = excluded.seller_id, customer_id = excluded.customer_id,
                 address_id = excluded.address_id, status = excluded.status, revision = excluded.revision,
                 lines = excluded.lines, tracking = excluded.tracking, planned_at = excluded.planned_at,
                 changed_at = excluded.changed_at, version = excluded.version, packed = excluded.packed,
                 held = excluded.held, released = excluded.released",
            generation,
            &shipments,
            &ids(|r| r.order_id) as &[Option<Uuid>],
            &ids(|r| r.seller_id) as &[Option<Uuid>],
            &ids(|r| r.customer_id) as &[Option<Uuid>],
            &ids(|r| r.address_id) as &[Option<Uuid>],
            &statuses,
            &numbers(|r| r.revision),
            &lines as &[Json<&Vec<StockLine>>],
            &tracking as &[Option<String>],
            &planned_at as &[Option<DateTime<Utc>>],
            &changed_at,
            &numbers(|r| r.version),
            &packed,
            &numbers(|r| r.held),
            &numbers(|r| r.released)
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Fulfilment {
    fn unplanned(shipment_id: Uuid, at: DateTime<Utc>) -> Self {
        Self {
            shipment_id,
            order_id: None,
            seller_id: None,
            customer_id: None,
            address_id: None,
            status: Status::Planned.as_str().to_owned(),
            revision: 0,
            lines: Json(vec![]),
            tracking: None,
            planned_at: None,
            changed_at: at,
            version: 0,
            packed: false,
            held: 0,
            released: 0,
        }
    }

    fn plan(&mut self, order_id: OrderId, revision: u32, shipment: &ShipmentOrder, record: &RecordedEvent) {
        self.order_id = Some(order_id.0);
        self.seller_id = Some(shipment.seller_id.0);
        self.customer_id = Some(shipment.customer_id.0);
        self.address_id = Some(shipment.address_id.0);
        self.revision = revision.into();
        self.lines = Json(shipment.lines.clone());
        // A plan that changes keeps its place.
        self.planned_at.get_or_insert(match record.metadata.origin {
            Origin::Live => record.recorded_at,
            Origin::Import => record.metadata.occurred_at,
        });
        self.packed = false;
        self.is(Status::Planned);
    }

    fn is(&mut self, status: Status) {
        status.as_str().clone_into(&mut self.status);
    }
}

/// A shipment that has a plan, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn get(pool: &PgPool, shipment_id: Uuid) -> Result<Option<Fulfilment>, sqlx::Error> {
    select!(
        "WHERE shipment_id = $1 AND revision > 0
             AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'fulfilment' AND live)",
        shipment_id
    )
    .fetch_optional(pool)
    .await
}

/// Which shipments to list, oldest first. The last row of a page is where the next one goes on:
/// `(planned_at, shipment_id)`.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub seller_id: Option<Uuid>,
    /// What is still to be shipped, if none is given.
    pub status: Option<Status>,
    pub after: Option<(DateTime<Utc>, Uuid)>,
    pub limit: i64,
}

/// A page of shipments that have a plan, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<Fulfilment>, sqlx::Error> {
    let statuses = filter.status.map_or(Status::TO_SHIP.to_vec(), |status| vec![status]);
    let statuses: Vec<String> = statuses.into_iter().map(|status| status.as_str().to_owned()).collect();
    select!(
        "WHERE generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'fulfilment' AND live)
             AND status = ANY($1) AND revision > 0
             AND ($2::uuid IS NULL OR seller_id = $2)
             AND ($3::timestamptz IS NULL OR (planned_at, shipment_id) > ($3, $4))
           ORDER BY planned_at, shipment_id LIMIT $5",
        &statuses,
        filter.seller_id,
        filter.after.map(|(planned_at, _)| planned_at),
        filter.after.map(|(_, shipment_id)| shipment_id),
        filter.limit
    )
    .fetch_all(pool)
    .await
}
