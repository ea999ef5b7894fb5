//! What must be shipped, told a second time: event by event, from the payloads alone.

use super::read_models::{ReadModel, StoredRow, list, text};
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use runtime::verify::log::Row;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;

/// A row; its fields are the columns.
#[derive(Serialize)]
pub(super) struct Shipment {
    shipment_id: String,
    order_id: Option<String>,
    seller_id: Option<String>,
    customer_id: Option<String>,
    address_id: Option<String>,
    status: &'static str,
    revision: i64,
    lines: Vec<Value>,
    tracking: Option<String>,
    planned_at: Option<DateTime<Utc>>,
    changed_at: DateTime<Utc>,
    version: i64,
    packed: bool,
    held: i64,
    released: i64,
}

impl ReadModel for Shipment {
    const TABLE: &'static str = "fulfilment";
    const CATEGORIES: &'static [&'static str] = &["shipment"];

    fn fold(rows: &mut HashMap<String, Self>, event: &Row, payload: &Value) -> Option<()> {
        let id = event.stream_id.to_string();
        let row = rows.entry(id.clone()).or_insert_with(|| Self {
            shipment_id: id,
            order_id: None,
            seller_id: None,
            customer_id: None,
            address_id: None,
            status: "planned",
            revision: 0,
            lines: vec![],
            tracking: None,
            planned_at: None,
            changed_at: event.recorded_at,
            version: 0,
            packed: false,
            held: 0,
            released: 0,
        });
        row.changed_at = event.recorded_at;
        row.version = event.version;
        let number = |field: &str| payload.get(field)?.as_i64();
        match &*event.event_type {
            "ShipmentPlanned" | "ShipmentReplanned" => {
                let shipment = payload.get("shipment")?;
                row.order_id = Some(text(payload, "order_id")?);
                row.seller_id = Some(text(shipment, "seller_id")?);
                row.customer_id = Some(text(shipment, "customer_id")?);
                row.address_id = Some(text(shipment, "address_id")?);
                row.lines = list(shipment, "lines")?.clone();
                row.revision = number("revision")?;
                row.released = row.released.max(number("released").unwrap_or(0));
                row.packed = false;
                row.status = "planned";
                if row.planned_at.is_none() {
                    let imported = event.origin_name() == Some("import");
                    row.planned_at = Some(if imported { event.occurred_at } else { event.recorded_at });
                }
            }
            "ShipmentReady" => row.packed = true,
            "ShipmentHeld" => row.held = number("hold")?,
            "ShipmentReleased" => row.released = number("hold")?,
            "ShipmentDispatched" => {
                row.status = "dispatched";
                row.tracking = Some(text(payload, "tracking")?);
            }
            "ShipmentDelivered" => row.status = "delivered",
            "ShipmentLost" => row.status = "lost",
            "ShipmentReturnedToSender" => row.status = "returned_to_sender",
            "ShipmentCancelled" => {
                row.status = "cancelled";
                row.released = row.released.max(row.held);
            }
            _ => return None,
        }
        if ["planned", "ready", "held"].contains(&row.status) {
            let waiting = if row.packed { "ready" } else { "planned" };
            row.status = if row.held > row.released { "held" } else { waiting };
        }
        Some(())
    }

    fn stored(snapshot: &mut PgConnection, generation: Option<i32>) -> BoxStream<'_, Result<StoredRow, sqlx::Error>> {
        sqlx::query_as!(
            StoredRow,
            r#"SELECT generation, shipment_id::text AS "key!", to_jsonb(r) - 'generation' AS "columns!"
               FROM daybook.fulfilment r
               WHERE generation = $1
                  OR generation NOT IN (SELECT generation FROM daybook.checkpoints WHERE projection = 'fulfilment')"#,
            generation
        )
        .fetch(snapshot)
    }
}
