//! Read model: an order as it stands. Its row and its fold; orders are found in `find.rs`.

/// Selects rows of the table: its columns stand here once.
macro_rules! select {
    ($rest:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            OrderSummary,
            r#"SELECT order_id, customer_id, status, reason, currency, total, authorised, captured, lines, delivered,
                      payments AS "payments: Json<Vec<PaymentSummary>>", placed_at, changed_at, version, skus, line_nos,
                      edit AS "edit: Json<OpenEdit>"
               FROM daybook.order_summary
               "# + $rest,
            $($argument),+
        )
    };
}

mod find;

pub use find::{Filter, has_skus, list};

use crate::{Delivered, ORDER, Orders, PAYMENT};
use chrono::{DateTime, Utc};
use engine::parked::KeyedBy;
use engine::row::Row;
use orders::id::{LineNo, OrderId, PaymentId, Sku};
use orders::money::Amount;
use orders::order::{DisplayStatus, EditProposed, OrderPlaced};
use orders::{Event, order, payment};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use store::{Category, Metadata, Origin, RecordedEvent};
use uuid::Uuid;

/// A row of the table, and what a query replies. Amounts are in minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderSummary {
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub status: String,
    /// Why it ended early, if it did.
    pub reason: Option<String>,
    pub currency: String,
    pub total: i64,
    /// Held for us by the provider, or captured.
    pub authorised: i64,
    pub captured: i64,
    /// How many lines it has, and how many of them have arrived.
    pub lines: i32,
    pub delivered: i32,
    pub payments: Json<Vec<PaymentSummary>>,
    pub placed_at: DateTime<Utc>,
    pub changed_at: DateTime<Utc>,
    /// Of the order's stream.
    pub version: i64,
    /// Of each line that it has now, in the order of the lines. An order that ended keeps its lines.
    #[serde(default)]
    pub skus: Vec<String>,
    /// The numbers of these lines.
    #[serde(skip)]
    line_nos: Vec<i64>,
    #[serde(skip)]
    edit: Option<Json<OpenEdit>>,
}

/// What the edit that is open does to the lines, once it is confirmed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OpenEdit {
    remove: Vec<LineNo>,
    add: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    line: LineNo,
    sku: Sku,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentSummary {
    pub payment_id: Uuid,
    pub kind: String,
    pub amount: i64,
    pub status: payment::Status,
    pub captured: i64,
    /// Left out if nothing was: so rows stay as they were written before there were refunds.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub refunded: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_nothing(amount: &i64) -> bool {
    *amount == 0
}

impl PaymentSummary {
    /// One that nothing is known of.
    fn asked(payment: &order::OrderPayment) -> Self {
        Self {
            payment_id: payment.payment_id.0,
            kind: payment.method.kind.clone(),
            amount: payment.amount.0,
            status: payment::Status::Unrequested,
            captured: 0,
            refunded: 0,
        }
    }
}

/// The first version of the rows that has the SKUs.
const HAS_SKUS: i16 = 2;

impl Row for OrderSummary {
    type Domain = Orders;
    const NAME: &'static str = "order_summary";
    const VERSION: i16 = HAS_SKUS;
    const KEYED_BY: KeyedBy = KeyedBy::Correlation;
    const CATEGORIES: &'static [Category] = &[ORDER, PAYMENT];
    type Key = Uuid;

    fn keys(delivered: &Delivered) -> impl IntoIterator<Item = Uuid> {
        delivered.event().and_then(|recorded| order_of(&recorded.event)).map(|id| id.0)
    }

    fn fold(row: &mut Option<Self>, key: &Uuid, delivered: &Delivered) {
        let Some(recorded) = delivered.event() else { return };
        if let Event::Order(_, order::Event::OrderPlaced(placed)) = &recorded.event {
            *row = Some(Self::placed(OrderId(*key), placed, &recorded.record));
        }
        let Some(row) = row else { return };
        match &recorded.event {
            Event::Order(_, event) => {
                row.order_event(event);
                row.version = recorded.record.version;
            }
            Event::Payment(id, event) => row.payment_event(*id, event),
            Event::Stock(..) | Event::Shipment(..) => {}
        }
        row.changed_at = recorded.record.recorded_at;
    }

    async fn load(
        connection: &mut PgConnection,
        generation: i32,
        keys: Vec<Uuid>,
    ) -> Result<Vec<(Uuid, Self)>, sqlx::Error> {
        let stored = select!("WHERE generation = $1 AND order_id = ANY($2)", generation, &keys);
        Ok(stored.fetch_all(connection).await?.into_iter().map(|row| (row.order_id, row)).collect())
    }

    async fn store(connection: &mut PgConnection, generation: i32, rows: &[(&Uuid, &Self)]) -> Result<(), sqlx::Error> {
        let column = |of: fn(&OrderSummary) -> Uuid| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let texts = |of: fn(&OrderSummary) -> String| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let numbers = |of: fn(&OrderSummary) -> i64| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let times = |of: fn(&OrderSummary) -> DateTime<Utc>| rows.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
        let reasons: Vec<Option<String>> = rows.iter().map(|(_, row)| row.reason.clone()).collect();
        let payments: Vec<Json<&Vec<PaymentSummary>>> = rows.iter().map(|(_, row)| Json(&row.payments.0)).collect();
        let edits: Vec<Option<Json<&OpenEdit>>> =
            rows.iter().map(|(_, row)| row.edit.as_ref().map(|edit| Json(&edit.0))).collect();
        // There is no array of arrays of different lengths; and no blank in a SKU.
        let skus: Vec<String> = rows.iter().map(|(_, row)| row.skus.join(" ")).collect();
        let numbered = |row: &Self| row.line_nos.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
        let line_nos: Vec<String> = rows.iter().map(|(_, row)| numbered(row)).collect();
        sqlx::query!(
            r#"INSERT INTO daybook.order_summary
                   (generation, order_id, customer_id, status, reason, currency, total, authorised, captured, lines,
                    delivered, payments, placed_at, changed_at, version, skus, line_nos, edit)
               SELECT $1, order_id, customer_id, status, reason, currency, total, authorised, captured, lines,
                      delivered, payments, placed_at, changed_at, version, string_to_array(skus, ' '),
                      string_to_array(line_nos, ' ')::bigint[], edit
               FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
                           $9::bigint[], $10::bigint[], $11::bigint[], $12::jsonb[], $13::timestamptz[],
                           $14::timestamptz[], $15::bigint[], $16::text[], $17::text[], $18::jsonb[])
                 AS r (order_id, customer_id, status, reason, currency, total, authorised, captured, lines,
                       delivered, payments, placed_at, changed_at, version, skus, line_nos, edit)
               ON CONFLICT ON CONSTRAINT order_summary_order DO UPDATE
               SET status = excluded.status, reason = excluded.reason, total = excluded.total,
                   authorised = excluded.authorised, captured = excluded.captured, lines = excluded.lines,
                   delivered = excluded.delivered, payments = excluded.payments, changed_at = excluded.changed_at,
                   version = excluded.version, skus = excluded.skus, line_nos = excluded.line_nos,
                   edit = excluded.edit"#,
            generation,
            &column(|r| r.order_id),
            &column(|r| r.customer_id),
            &texts(|r| r.status.clone()),
            &reasons as &[Option<String>],
            &texts(|r| r.currency.clone()),
            &numbers(|r| r.total),
            &numbers(|r| r.authorised),
            &numbers(|r| r.captured),
            &numbers(|r| r.lines.into()),
            &numbers(|r| r.delivered.into()),
            &payments as &[Json<&Vec<PaymentSummary>>],
            &times(|r| r.placed_at),
            &times(|r| r.changed_at),
            &numbers(|r| r.version),
            &skus,
            &line_nos,
            &edits as &[Option<Json<&OpenEdit>>],
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl OpenEdit {
    fn proposed(edit: &EditProposed) -> Self {
        let add = edit.add.iter().map(|l| Line { line: l.line, sku: l.sku.clone() }).collect();
        Self { remove: edit.remove.clone(), add }
    }
}

/// The order whose row an event changes, if it changes one.
fn order_of(event: &Event) -> Option<OrderId> {
    use payment::Event as P;
    match event {
        Event::Order(id, _) => Some(*id),
        Event::Payment(_, P::PaymentRequested(e)) => Some(e.order_id),
        Event::Payment(_, P::PaymentAuthorised(e)) => Some(e.order_id),
        Event::Payment(_, P::PaymentDeclined(e)) => Some(e.order_id),
        Event::Payment(_, P::CaptureRequested(_) | P::CaptureDeclined(_)) => None,
        Event::Payment(_, P::PaymentCaptured(e)) => Some(e.order_id),
        Event::Payment(_, P::VoidDeferred(e)) => Some(e.order_id),
        Event::Payment(_, P::ExpiryDeferred(e)) => Some(e.order_id),
        Event::Payment(_, P::VoidRequested(e)) => Some(e.order_id),
        Event::Payment(_, P::VoidDeclined(e)) => Some(e.order_id),
        Event::Payment(_, P::PaymentVoided(e)) => Some(e.order_id),
        Event::Payment(_, P::AuthorisationExpired(e)) => Some(e.order_id),
        Event::Payment(_, P::PaymentRefunded(e)) => Some(e.order_id),
        Event::Payment(
            _,
            P::RefundDeferred(_)
            | P::RefundRequested(_)
            | P::RefundDeclined(_)
            | P::RefundDropped(_)
            | P::OutcomeUnknown(_)
            | P::CallRetried(_),
        ) => None,
        Event::Stock(..) | Event::Shipment(..) => None,
    }
}

impl OrderSummary {
    fn placed(order_id: OrderId, placed: &OrderPlaced, record: &RecordedEvent) -> Self {
        let Metadata { origin, occurred_at, .. } = record.metadata;
        Self {
            order_id: order_id.0,
            customer_id: placed.customer_id.0,
            status: DisplayStatus::Placed.to_string(),
            reason: None,
            currency: placed.currency.to_string(),
            total: placed.totals.total.0,
            authorised: 0,
            captured: 0,
            lines: placed.lines.len() as i32,
            delivered: 0,
            payments: Json(placed.payments.iter().map(PaymentSummary::asked).collect()),
            placed_at: match origin {
                Origin::Live => record.recorded_at,
                // It was recorded long after; when it was placed, only the source can say.
                Origin::Import => occurred_at,
            },
            changed_at: record.recorded_at,
            version: 1,
            skus: placed.lines.iter().map(|l| l.sku.to_string()).collect(),
            line_nos: placed.lines.iter().map(|l| l.line.into()).collect(),
            edit: None,
        }
    }

    fn order_event(&mut self, event: &order::Event) {
        use order::Event as E;
        match event {
            E::OrderConfirmed(_) => self.status = DisplayStatus::Confirmed.to_string(),
            E::PaymentRefused(e) => self.reason = Some(e.reason.clone()),
            // Only the edit has ended.
            E::EditDiscarded(_) => {
                self.reason = None;
                self.edit = None;
            }
            E::OrderRejected(_) => self.status = DisplayStatus::Rejected.to_string(),
            E::OrderCancelled(e) => {
                self.status = DisplayStatus::Cancelled.to_string();
                self.reason = Some(e.reason.as_str().to_owned());
            }
            E::OrderExpired(_) => self.status = DisplayStatus::Expired.to_string(),
            E::HoldPlaced(_) => self.status = DisplayStatus::OnHold.to_string(),
            E::HoldReleased(e) => self.status = DisplayStatus::from(e.then).to_string(),
            E::ApprovalRequested(_) if self.status == DisplayStatus::Placed.as_str() => {
                self.status = DisplayStatus::AwaitingApproval.to_string();
            }
            E::ApprovalGranted(_) if self.status == DisplayStatus::AwaitingApproval.as_str() => {
                self.status = DisplayStatus::Placed.to_string();
            }
            E::LinesCancelled(e) => {
                self.lines -= e.lines.len() as i32;
                self.total = e.totals.total.0;
                self.remove_lines(&e.lines);
            }
            E::EditProposed(e) => {
                self.payments.extend(e.payments.iter().map(PaymentSummary::asked));
                self.edit = Some(Json(OpenEdit::proposed(e)));
            }
            E::EditConfirmed(e) => {
                self.lines = e.lines as i32;
                self.total = e.totals.total.0;
                if let Some(Json(edit)) = self.edit.take() {
                    self.remove_lines(&edit.remove);
                    self.skus.extend(edit.add.iter().map(|l| l.sku.to_string()));
                    self.line_nos.extend(edit.add.iter().map(|l| i64::from(l.line)));
                }
            }
            E::LinesDelivered(e) => self.delivered += e.lines.len() as i32,
            E::OrderCompleted(_) => self.status = DisplayStatus::Completed.to_string(),
            E::OrderPlaced(_)
            | E::PaymentAuthorisedRecorded(_)
            | E::PaymentsSecured(_)
            | E::StockSecured(_)
            | E::LinesShort(_)
            | E::LinesBackordered(_)
            | E::BackorderFilled(_)
            | E::RestReserved(_)
            | E::ReservationReturned(_)
            | E::ApprovalRequested(_)
            | E::ApprovalGranted(_)
            | E::ApprovalDenied(_)
            | E::ApprovalTimedOut(_)
            | E::AddressChanged(_)
            | E::EditStockSecured(_)
            | E::ReturnRequested(_)
            | E::ReturnApproved(_)
            | E::ReturnReceived(_)
            | E::LinesLost(_)
            | E::LinesReturnedToSender(_)
            | E::HistoryRecorded(_) => {}
        }
    }

    fn remove_lines(&mut self, gone: &[LineNo]) {
        let kept = |line: &i64| !gone.iter().any(|gone| i64::from(*gone) == *line);
        let lines = std::mem::take(&mut self.line_nos).into_iter().zip(std::mem::take(&mut self.skus));
        (self.line_nos, self.skus) = lines.filter(|(line, _)| kept(line)).unzip();
    }

    fn payment_event(&mut self, id: PaymentId, event: &payment::Event) {
        use payment::Event as E;
        use payment::Status as S;
        let Some(payment) = self.payments.iter_mut().find(|p| p.payment_id == id.0) else { return };
        match event {
            E::PaymentRequested(_) => payment.status = S::Requested,
            E::PaymentAuthorised(_) => payment.status = S::Authorised,
            E::PaymentDeclined(_) => payment.status = S::Declined,
            E::PaymentCaptured(e) => {
                let Amount(amount) = e.amount;
                payment.captured = payment.captured.saturating_add(amount);
                self.captured = self.captured.saturating_add(amount);
            }
            E::VoidDeferred(_) => payment.status = S::VoidDeferred,
            E::ExpiryDeferred(_) => payment.status = S::ExpiryDeferred,
            E::AuthorisationExpired(_) => payment.status = S::AuthorisationExpired,
            E::VoidRequested(_) if payment.status == S::AuthorisationExpired => {}
            E::VoidRequested(_) => payment.status = S::VoidRequested,
            E::VoidDeclined(_) => payment.status = S::VoidDeclined,
            E::PaymentVoided(_) => payment.status = S::Voided,
            E::PaymentRefunded(e) => payment.refunded = payment.refunded.saturating_add(e.amount.0),
            E::CaptureRequested(_)
            | E::CaptureDeclined(_)
            | E::RefundDeferred(_)
            | E::RefundRequested(_)
            | E::RefundDeclined(_)
            | E::RefundDropped(_)
            | E::OutcomeUnknown(_)
            | E::CallRetried(_) => {}
        }
        let authorised = |p: &PaymentSummary| match p.status {
            S::Authorised | S::ExpiryDeferred | S::AuthorisationExpired | S::VoidRequested | S::VoidDeclined => {
                p.amount
            }
            // What is not held any more is what was captured of it before.
            S::Unrequested | S::Requested | S::VoidDeferred | S::Declined | S::Voided => p.captured,
        };
        self.authorised = self.payments.iter().map(authorised).fold(0, i64::saturating_add);
    }
}

/// The order, in the live generation.
///
/// # Errors
/// When Postgres fails.
pub async fn get(pool: &PgPool, order_id: Uuid) -> Result<Option<OrderSummary>, sqlx::Error> {
    select!(
        "WHERE order_id = $1
             AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_summary' AND live)",
        order_id
    )
    .fetch_optional(pool)
    .await
}
