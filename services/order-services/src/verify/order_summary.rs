//! The order summary, told a second time: event by event, from the payloads alone.

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
pub(super) struct Order {
    order_id: String,
    customer_id: String,
    status: &'static str,
    reason: Option<String>,
    currency: String,
    total: i64,
    authorised: i64,
    captured: i64,
    lines: i64,
    delivered: i64,
    payments: Vec<Payment>,
    placed_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
    version: i64,
    skus: Vec<String>,
    line_nos: Vec<u64>,
    edit: Option<Edit>,
}

/// An edit that is proposed, and neither confirmed nor discarded.
#[derive(Serialize)]
struct Edit {
    remove: Vec<u64>,
    add: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    line: u64,
    sku: String,
}

impl Edit {
    fn proposed(payload: &Value) -> Option<Self> {
        Some(Self { remove: numbers(payload, "remove")?, add: lines(payload, "add")? })
    }
}

/// The lines that a field names by their numbers.
fn numbers(payload: &Value, field: &str) -> Option<Vec<u64>> {
    list(payload, field)?.iter().map(Value::as_u64).collect()
}

/// The lines that a field spells out.
fn lines(payload: &Value, field: &str) -> Option<Vec<Line>> {
    let line = |line: &Value| Some(Line { line: line.get("line")?.as_u64()?, sku: text(line, "sku")? });
    list(payload, field)?.iter().map(line).collect()
}

#[derive(Serialize)]
struct Payment {
    payment_id: String,
    kind: String,
    amount: i64,
    status: &'static str,
    captured: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refunded: Option<i64>,
}

impl Payment {
    fn asked(payment: &Value) -> Option<Self> {
        Some(Self {
            payment_id: text(payment, "payment_id")?,
            kind: text(payment.get("method")?, "kind")?,
            amount: payment.get("amount")?.as_i64()?,
            status: "unrequested",
            captured: 0,
            refunded: None,
        })
    }
}

impl ReadModel for Order {
    const TABLE: &'static str = "order_summary";
    const CATEGORIES: &'static [&'static str] = &["order", "payment"];
    const VERSIONS: &'static [(&'static str, i16)] =
        &[("OrderPlaced", 2), ("OrderCancelled", 2), ("HistoryRecorded", 2)];

    fn fold(rows: &mut HashMap<String, Self>, event: &Row, payload: &Value) -> Option<()> {
        let stream = event.stream_id.to_string();
        if event.category_name.as_deref() == Some("payment") {
            // Of a capture and a refund, the order sees that it is done, not that it is asked for or refused; nor how
            // often the provider was asked.
            let unseen = ["CaptureRequested", "CaptureDeclined", "OutcomeUnknown", "CallRetried"];
            if unseen.contains(&&*event.event_type) || event.event_type.starts_with("Refund") {
                return Some(());
            }
            let Some(order) = rows.get_mut(&text(payload, "order_id")?) else { return Some(()) };
            order.changed_at = event.recorded_at;
            return order.payment(&stream, &event.event_type, payload);
        }
        if event.event_type == "OrderPlaced" {
            // When an imported order was placed, its source says.
            let imported = event.origin_name() == Some("import");
            let at = if imported { event.occurred_at } else { event.recorded_at };
            rows.insert(stream.clone(), Self::placed(stream.clone(), at, payload)?);
        }
        let Some(order) = rows.get_mut(&stream) else { return Some(()) };
        order.changed_at = event.recorded_at;
        order.version = event.version;
        match &*event.event_type {
            "OrderConfirmed" => order.status = "confirmed",
            "OrderCompleted" => order.status = "completed",
            "OrderRejected" => order.status = "rejected",
            "OrderCancelled" => {
                order.status = "cancelled";
                order.reason = Some(text(payload, "reason")?);
            }
            "EditDiscarded" => (order.reason, order.edit) = (None, None),
            "PaymentRefused" => order.reason = Some(text(payload, "reason")?),
            "OrderExpired" => order.status = "expired",
            "HoldPlaced" => order.status = "on_hold",
            "HoldReleased" => {
                let shown = ["placed", "awaiting_approval", "on_hold", "confirmed"];
                let then = text(payload, "then")?;
                order.status = shown.into_iter().find(|status| *status == then)?;
            }
            "ApprovalRequested" if order.status == "placed" => order.status = "awaiting_approval",
            "ApprovalGranted" if order.status == "awaiting_approval" => order.status = "placed",
            "LinesCancelled" => {
                let gone = numbers(payload, "lines")?;
                order.lines -= gone.len() as i64;
                order.take_out(&gone);
                order.total = payload.get("totals")?.get("total")?.as_i64()?;
            }
            "EditProposed" => {
                let payments = list(payload, "payments")?.iter().map(Payment::asked).collect::<Option<Vec<_>>>()?;
                order.payments.extend(payments);
                order.edit = Some(Edit::proposed(payload)?);
            }
            "EditConfirmed" => {
                if let Some(edit) = order.edit.take() {
                    order.take_out(&edit.remove);
                    edit.add.into_iter().for_each(|line| order.add(line));
                }
                order.lines = payload.get("lines")?.as_i64()?;
                order.total = payload.get("totals")?.get("total")?.as_i64()?;
            }
            "LinesDelivered" => order.delivered += list(payload, "lines")?.len() as i64,
            _ => {}
        }
        Some(())
    }

    fn stored(snapshot: &mut PgConnection, generation: Option<i32>) -> BoxStream<'_, Result<StoredRow, sqlx::Error>> {
        sqlx::query_as!(
            StoredRow,
            r#"SELECT generation, order_id::text AS "key!", to_jsonb(r) - 'generation' AS "columns!"
               FROM daybook.order_summary r
               WHERE generation = $1
                  OR generation NOT IN (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_summary')"#,
            generation
        )
        .fetch(snapshot)
    }
}

impl Order {
    fn placed(order_id: String, at: DateTime<Utc>, payload: &Value) -> Option<Self> {
        let mut order = Self {
            order_id,
            customer_id: text(payload, "customer_id")?,
            status: "placed",
            reason: None,
            currency: text(payload, "currency")?,
            total: payload.get("totals")?.get("total")?.as_i64()?,
            authorised: 0,
            captured: 0,
            lines: list(payload, "lines")?.len() as i64,
            delivered: 0,
            payments: list(payload, "payments")?.iter().map(Payment::asked).collect::<Option<_>>()?,
            placed_at: at,
            changed_at: at,
            version: 0,
            skus: vec![],
            line_nos: vec![],
            edit: None,
        };
        lines(payload, "lines")?.into_iter().for_each(|line| order.add(line));
        Some(order)
    }

    fn add(&mut self, line: Line) {
        self.line_nos.push(line.line);
        self.skus.push(line.sku);
    }

    fn take_out(&mut self, lines: &[u64]) {
        while let Some(gone) = self.line_nos.iter().position(|line| lines.contains(line)) {
            self.line_nos.remove(gone);
            self.skus.remove(gone);
        }
    }

    fn payment(&mut self, payment_id: &str, event_type: &str, payload: &Value) -> Option<()> {
        // One that the order does not name is none of its money.
        let Some(payment) = self.payments.iter_mut().find(|p| p.payment_id == payment_id) else { return Some(()) };
        match event_type {
            "PaymentRequested" => payment.status = "requested",
            "PaymentAuthorised" => payment.status = "authorised",
            "PaymentDeclined" => payment.status = "declined",
            "VoidDeferred" => payment.status = "void_deferred",
            "ExpiryDeferred" => payment.status = "expiry_deferred",
            "AuthorisationExpired" => payment.status = "authorisation_expired",
            "VoidRequested" if payment.status == "authorisation_expired" => {}
            "VoidRequested" => payment.status = "void_requested",
            "VoidDeclined" => payment.status = "void_declined",
            "PaymentVoided" => payment.status = "voided",
            "PaymentCaptured" => {
                let amount = payload.get("amount")?.as_i64()?;
                payment.captured = payment.captured.checked_add(amount)?;
                self.captured = self.captured.checked_add(amount)?;
            }
            "PaymentRefunded" => {
                let amount = payload.get("amount")?.as_i64()?;
                payment.refunded = Some(payment.refunded.unwrap_or(0).checked_add(amount)?);
            }
            _ => {}
        }
        self.authorised = 0;
        for payment in &self.payments {
            let held = match payment.status {
                "authorised" | "expiry_deferred" | "authorisation_expired" | "void_requested" | "void_declined" => {
                    payment.amount
                }
                _ => payment.captured,
            };
            self.authorised = self.authorised.checked_add(held)?;
        }
        Some(())
    }
}
