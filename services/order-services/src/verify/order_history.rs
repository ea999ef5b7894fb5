//! The order history, told a second time: event by event, from the payloads alone. It has a row for each event, so it is
//! compared page by page.

use super::read_models::{Fold, ReadModel, StoredRow, text};
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use runtime::verify::log::Row;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// A row; its fields are the columns.
#[derive(Serialize)]
pub(super) struct Entry {
    order_id: Uuid,
    position: i64,
    recorded_at: DateTime<Utc>,
    occurred_at: DateTime<Utc>,
    category: String,
    stream_id: Uuid,
    version: i64,
    event_type: String,
    actor: String,
    detail: Map<String, Value>,
}

impl ReadModel for Entry {
    const TABLE: &'static str = "order_history";
    const CATEGORIES: &'static [&'static str] = &["order", "payment", "stock", "shipment"];
    const VERSIONS: &'static [(&'static str, i16)] =
        &[("OrderPlaced", 2), ("OrderCancelled", 2), ("HistoryRecorded", 2), ("StockReserved", 2)];

    fn fold(rows: &mut HashMap<String, Self>, event: &Row, payload: &Value) -> Option<()> {
        if ["StockReceived", "StockAdjusted"].contains(&&*event.event_type) {
            return Some(());
        }
        let category = event.category_name.clone()?;
        let order_id = match &*category {
            "order" => event.stream_id,
            _ => text(payload, "order_id")?.parse().ok()?,
        };
        let Row { position, recorded_at, occurred_at, stream_id, version, .. } = *event;
        let detail = told(&event.event_type)?.split_whitespace().filter_map(|path| {
            let value = path.split('.').try_fold(payload, |value, name| value.get(name))?;
            Some((path.rsplit('.').next()?.to_owned(), value.clone()))
        });
        let (event_type, actor, detail) = (event.event_type.clone(), event.actor.clone(), detail.collect());
        let key = format!("{order_id} at {position}");
        let row = Self {
            order_id,
            position,
            recorded_at,
            occurred_at,
            category,
            stream_id,
            version,
            event_type,
            actor,
            detail,
        };
        rows.insert(key, row);
        Some(())
    }

    /// Those that no event of the log is the reason of: the others were compared before.
    fn stored(snapshot: &mut PgConnection, generation: Option<i32>) -> BoxStream<'_, Result<StoredRow, sqlx::Error>> {
        sqlx::query_as!(
            StoredRow,
            r#"SELECT generation, order_id || ' at ' || position AS "key!", to_jsonb(r) - 'generation' AS "columns!"
               FROM daybook.order_history r
               WHERE generation = $1
                     AND NOT EXISTS (
                         SELECT FROM daybook.events e
                         WHERE e.position = r.position
                           AND r.position <= (
                               SELECT position FROM daybook.checkpoints WHERE projection = 'order_history' AND live)
                           AND r.order_id::text
                               = CASE e.category WHEN 1 THEN e.stream_id::text ELSE e.payload ->> 'order_id' END
                           AND NOT EXISTS (
                               SELECT FROM daybook.resolutions d
                               WHERE d.projection = 'order_history' AND d.position = e.position
                                     AND d.outcome = 'discarded'))
                  OR generation NOT IN (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_history')"#,
            generation
        )
        .fetch(snapshot)
    }
}

impl Fold<Entry> {
    /// Compares the rows of the events that were taken in last.
    pub(super) async fn compare_page(&mut self, snapshot: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Some(live) = &self.live else { return Ok(()) };
        let (orders, positions): (Vec<Uuid>, Vec<i64>) = self.rows.values().map(|r| (r.order_id, r.position)).unzip();
        let stored = sqlx::query_as!(
            StoredRow,
            r#"SELECT generation, order_id || ' at ' || position AS "key!", to_jsonb(r) - 'generation' AS "columns!"
               FROM daybook.order_history r
                   JOIN unnest($2::uuid[], $3::bigint[]) AS k (order_id, position) USING (order_id, position)
               WHERE generation = $1"#,
            live.generation,
            &orders,
            &positions
        );
        self.compare_final(stored.fetch_all(snapshot).await?);
        Ok(())
    }
}

/// What of an event is told; none of a type that this fold does not know. Of what may be absent, nothing is.
fn told(event_type: &str) -> Option<&'static str> {
    Some(match event_type {
        "OrderPlaced" => "currency lines totals.total",
        "PaymentAuthorisedRecorded" => "payment_id",
        "PaymentRefused" => "payment_id reason",
        "PaymentsSecured" | "LinesShort" | "ReservationReturned" | "BackorderFilled" | "RestReserved" => "lines",
        "LinesDelivered" | "LinesLost" | "LinesReturnedToSender" => "shipment_id lines",
        "OrderCancelled" => "reason",
        "HistoryRecorded" => "source status ids",
        "HoldPlaced" => "reason hold",
        "HoldReleased" => "reason hold then",
        "ApprovalRequested" => "approval within_seconds",
        "ApprovalGranted" | "ApprovalDenied" | "ApprovalTimedOut" => "approval",
        "LinesBackordered" => "short rest",
        "LinesCancelled" => "lines reason totals.total",
        "AddressChanged" => "address_id",
        "EditProposed" => "edit currency remove add totals.total",
        "EditStockSecured" => "edit",
        "EditDiscarded" => "edit reason",
        "EditConfirmed" => "edit lines totals.total",
        "ReturnRequested" => "return_no lines reason",
        "ReturnApproved" => "return_no",
        "ReturnReceived" => "return_no receipt_id lines",
        "PaymentRequested" => "amount currency method.kind",
        "PaymentAuthorised" | "PaymentCaptured" | "PaymentRefunded" | "CaptureRequested" | "RefundRequested"
        | "RefundDeferred" => "amount currency",
        "CaptureDeclined" | "RefundDeclined" | "RefundDropped" => "amount currency reason",
        "PaymentDeclined" | "VoidDeclined" => "reason",
        "OutcomeUnknown" => "call",
        "CallRetried" => "call amount currency method.kind",
        "ShipmentPlanned" | "ShipmentReplanned" => "revision shipment.seller_id shipment.address_id shipment.lines",
        "ShipmentHeld" | "ShipmentReleased" => "hold",
        "ShipmentDispatched" => "tracking lines",
        "ShipmentDelivered" | "ShipmentLost" | "ShipmentReturnedToSender" => "lines",
        "StockReserved" => "sku lines edit",
        "StockBackordered" | "BackorderNeedless" | "BackorderDropped" | "StockCommitted" | "StockReleased"
        | "StockExpired" | "StockRestocked" => "sku lines",
        "StockSecured"
        | "OrderConfirmed"
        | "OrderRejected"
        | "OrderExpired"
        | "OrderCompleted"
        | "VoidDeferred"
        | "VoidRequested"
        | "PaymentVoided"
        | "ExpiryDeferred"
        | "AuthorisationExpired"
        | "ShipmentReady"
        | "ShipmentCancelled" => "",
        _ => return None,
    })
}
