//! The queries of the query API: what each is asked with, which read model answers it, and what is found.

use chrono::{DateTime, NaiveDate, Utc};
use engine::dead_letter;
use order_views::order_summary::{self, OrderSummary};
use order_views::{Orders, ReadModel, fulfilment, order_history, revenue, stock_level, waiting};
use orders::id::Sku;
use orders::money::Currency;
use orders::order::DisplayStatus;
use runtime::api::{Door, Service};
use runtime::health::{self, Health};
use runtime::queries::{Get, Limited, List, Queries, Query, QueryError, Source};
use runtime::wire::{Code, ErrorBody, time};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use store::Position;
use uuid::Uuid;

/// The limit of a list is the field of that name.
macro_rules! limited {
    (get $name:ident) => {};
    (list $name:ident) => {
        impl Limited for $name {
            fn limit(&self) -> Option<i64> {
                self.limit
            }
        }
    };
}

/// Declares a query, for one thing (`get`) or a list (`list`): its name, who answers, its fields, and what is found. How it is
/// found stands below, in `impl Get` or `impl List`: a query without it does not compile.
macro_rules! queries {
    ($($(#[$attribute:meta])* $kind:ident $name:ident = $verb:literal from $source:expr
        , { $($(#[$of_field:meta])* $field:ident: $type:ty),* $(,)? } -> $found:ty;)+) => {
        $(
            $(#[$attribute])*
            #[derive(Debug, Clone, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $($(#[$of_field])* pub $field: $type),* }

            impl Query for $name {
                type Domain = Orders;
                type Found = $found;
                const NAME: &'static str = $verb;
                const SOURCE: Source<ReadModel> = $source;
            }

            limited!($kind $name);
        )+

        /// Starts the query endpoints; they answer until the service is stopped.
        ///
        /// # Errors
        /// When NATS cannot be reached.
        pub async fn start(door: impl Into<Door>, pool: PgPool) -> Result<Service, async_nats::Error> {
            let mut queries = Queries::new(door.into(), "daybook-queries", "Daybook's query API", pool).await?;
            $(queries.$kind::<$name>().await?;)+
            Ok(queries.into_service())
        }
    };
}

queries! {
    get GetOrder = "order_summary.get" from Source::One(ReadModel::OrderSummary), { order_id: Uuid } -> OrderSummary;

    /// Orders that are all of this, newest first.
    #[derive(Default)]
    list ListOrders = "order_summary.list" from Source::One(ReadModel::OrderSummary), {
        customer_id: Option<Uuid>,
        status: Option<DisplayStatus>,
        sku: Option<Sku>,
        #[serde(default, deserialize_with = "time::optional")]
        placed_from: Option<DateTime<Utc>>,
        #[serde(default, deserialize_with = "time::optional")]
        placed_before: Option<DateTime<Utc>>,
        currency: Option<Currency>,
        total_at_least: Option<i64>,
        total_at_most: Option<i64>,
        after: Option<AfterOrder>,
        limit: Option<i64>,
    } -> OrderSummary;

    get GetStock = "stock_level.get" from Source::One(ReadModel::StockLevel), { sku: Sku } -> stock_level::StockLevel;

    #[derive(Default)]
    list ListStock = "stock_level.list" from Source::One(ReadModel::StockLevel), {
        after: Option<Sku>,
        limit: Option<i64>,
    } -> stock_level::StockLevel;

    /// Orders that wait, the longest first.
    #[derive(Default)]
    list ListWaiting = "waiting.list" from Source::One(ReadModel::Waiting), {
        r#for: Option<waiting::WaitedFor>,
        longer_than_seconds: Option<u32>,
        after: Option<AfterWaiting>,
        limit: Option<i64>,
    } -> waiting::WaitingOrder;

    /// What happened to an order, oldest first.
    #[derive(Default)]
    list ListHistory = "order_history.list" from Source::One(ReadModel::OrderHistory), {
        order_id: Uuid,
        after: Option<Position>,
        limit: Option<i64>,
    } -> order_history::Entry;

    get GetShipment = "fulfilment.get" from Source::One(ReadModel::Fulfilment), { shipment_id: Uuid } -> fulfilment::Fulfilment;

    /// Shipments, oldest first: those that are still to be shipped, if no status is given.
    #[derive(Default)]
    list ListShipments = "fulfilment.list" from Source::One(ReadModel::Fulfilment), {
        seller_id: Option<Uuid>,
        status: Option<fulfilment::Status>,
        after: Option<AfterShipment>,
        limit: Option<i64>,
    } -> fulfilment::Fulfilment;

    #[derive(Default)]
    list RevenueByDay = "revenue.by_day" from Source::One(ReadModel::Revenue), {
        #[serde(default, deserialize_with = "time::optional_day")]
        from: Option<NaiveDate>,
        #[serde(default, deserialize_with = "time::optional_day")]
        to: Option<NaiveDate>,
        currency: Option<Currency>,
        after: Option<AfterRevenue>,
        limit: Option<i64>,
    } -> revenue::Revenue;

    #[derive(Default)]
    list RevenueByMonth = "revenue.by_month" from Source::One(ReadModel::Revenue), {
        #[serde(default, deserialize_with = "time::optional_day")]
        from: Option<NaiveDate>,
        #[serde(default, deserialize_with = "time::optional_day")]
        to: Option<NaiveDate>,
        currency: Option<Currency>,
        after: Option<AfterRevenue>,
        limit: Option<i64>,
    } -> revenue::Revenue;

    get GetDeadLetter = "dead_letters.get" from Source::All, { id: Uuid } -> dead_letter::Detail;

    /// Dead letters that are all of this, oldest first.
    #[derive(Default)]
    list ListDeadLetters = "dead_letters.list" from Source::All, {
        #[serde(default)]
        discarded: bool,
        reaction: Option<String>,
        projection: Option<String>,
        correlation_id: Option<Uuid>,
        matching: Option<String>,
        #[serde(default, deserialize_with = "time::optional")]
        since: Option<DateTime<Utc>>,
        #[serde(default, deserialize_with = "time::optional")]
        until: Option<DateTime<Utc>>,
        after: Option<AfterDeadLetter>,
        limit: Option<i64>,
    } -> dead_letter::DeadLetter;

    /// How all projections do. It has one answer, however many they are.
    get ListProjections = "projections.list" from Source::All, {} -> Vec<Health>;
}

/// Declares where a page goes on: after the last row of the page before.
macro_rules! cursors {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),+ })+) => {
        $(
            /// Where a page goes on: after the last row of the page before.
            #[derive(Debug, Clone, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $($(#[$attribute])* pub $field: $type),+ }
        )+
    };
}

cursors! {
    AfterOrder { #[serde(deserialize_with = "time::required")] placed_at: DateTime<Utc>, order_id: Uuid }
    AfterWaiting { #[serde(deserialize_with = "time::required")] since: DateTime<Utc>, order_id: Uuid }
    AfterShipment { #[serde(deserialize_with = "time::required")] planned_at: DateTime<Utc>, shipment_id: Uuid }
    AfterDeadLetter { #[serde(deserialize_with = "time::required")] since: DateTime<Utc>, id: Uuid }
    AfterRevenue { period: String, currency: String, kind: String }
}

impl Get for GetOrder {
    async fn find(self, pool: &PgPool) -> Result<Option<OrderSummary>, QueryError> {
        Ok(order_summary::get(pool, self.order_id).await?)
    }
}

impl List for ListOrders {
    type Cursor = AfterOrder;

    async fn find(self, pool: &PgPool, limit: i64) -> Result<Vec<OrderSummary>, QueryError> {
        let filter = self.filter(limit)?;
        if filter.sku.is_some() && !order_summary::has_skus(pool).await? {
            let message = "the rows of order_summary are of a version without SKUs: run `daybook replay order_summary`";
            return Err(ErrorBody::new(Code::Unavailable, message).into());
        }
        Ok(order_summary::list(pool, &filter).await?)
    }

    fn cursor(row: &OrderSummary) -> AfterOrder {
        AfterOrder { placed_at: row.placed_at, order_id: row.order_id }
    }
}

impl ListOrders {
    /// # Errors
    /// `invalid`, when no order can be all of this, or it means nothing.
    fn filter(self, limit: i64) -> Result<order_summary::Filter, ErrorBody> {
        let Self { placed_from, placed_before, currency, total_at_least, total_at_most, .. } = self;
        if currency.is_none() && (total_at_least.is_some() || total_at_most.is_some()) {
            let expected = "the currency of total_at_least and total_at_most: amounts of two currencies do not compare";
            return Err(ErrorBody::invalid("data.currency", expected));
        }
        if total_at_most.is_some_and(|most| total_at_least.is_some_and(|least| most < least)) {
            return Err(ErrorBody::invalid("data.total_at_most", "total_at_least or more"));
        }
        if placed_before.is_some_and(|before| placed_from.is_some_and(|from| before < from)) {
            return Err(ErrorBody::invalid("data.placed_before", "placed_from or later"));
        }
        Ok(order_summary::Filter {
            customer_id: self.customer_id,
            status: self.status,
            sku: self.sku,
            placed_from,
            placed_before,
            currency,
            total_at_least,
            total_at_most,
            after: self.after.map(|a| (a.placed_at, a.order_id)),
            limit,
        })
    }
}

impl Get for GetStock {
    async fn find(self, pool: &PgPool) -> Result<Option<stock_level::StockLevel>, QueryError> {
        Ok(stock_level::get(pool, self.sku.as_str()).await?)
    }
}

impl List for ListStock {
    type Cursor = String;

    async fn find(self, pool: &PgPool, limit: i64) -> Result<Vec<stock_level::StockLevel>, QueryError> {
        Ok(stock_level::list(pool, self.after.as_ref().map(Sku::as_str), limit).await?)
    }

    fn cursor(row: &stock_level::StockLevel) -> String {
        row.sku.clone()
    }
}

impl List for ListWaiting {
    type Cursor = AfterWaiting;

    async fn find(self, pool: &PgPool, limit: i64) -> Result<Vec<waiting::WaitingOrder>, QueryError> {
        let filter = waiting::Filter {
            what: self.r#for,
            longer_than_seconds: self.longer_than_seconds.map(i64::from),
            after: self.after.map(|a| (a.since, a.order_id)),
            limit,
        };
        Ok(waiting::list(pool, &filter).await?)
    }

    fn cursor(row: &waiting::WaitingOrder) -> AfterWaiting {
        AfterWaiting { since: row.since, order_id: row.order_id }
    }
}

impl List for ListHistory {
    type Cursor = Position;

    async fn find(self, pool: &PgPool, limit: i64) -> Result<Vec<order_history::Entry>, QueryError> {
        Ok(order_history::list(pool, self.order_id, self.after.unwrap_or(0), limit).await?)
    }

    fn cursor(row: &order_history::Entry) -> Position {
        row.position
    }
}

impl Get for GetShipment {
    async fn find(self, pool: &PgPool) -> Result<Option<fulfilment::Fulfilment>, QueryError> {
        Ok(fulfilment::get(pool, self.shipment_id).await?)
    }
}

impl List for ListShipments {
    /// A shipment that is listed has a plan, and so a time at which it was planned.
    type Cursor = Option<AfterShipment>;

    async fn find(self, pool: &PgPool, limit: i64) -> Result<Vec<fulfilment::Fulfilment>, QueryError> {
        let after = self.after.map(|a| (a.planned_at, a.shipment_id));
        let filter = fulfilment::Filter { seller_id: self.seller_id, status: self.status, after, limit };
        Ok(fulfilment::list(pool, &filter).await?)
    }

    fn cursor(row: &fulfilment::Fulfilment) -> Option<AfterShipment> {
        Some(AfterShipment { planned_at: row.planned_at?, shipment_id: row.shipment_id })
    }
}

impl List for RevenueByDay {
    type Cursor = AfterRevenue;

    async fn find(self, pool: &PgPool, limit: i64) -> Result<Vec<revenue::Revenue>, QueryError> {
        let Self { from, to, currency, after, .. } = self;
        let filter = revenue::Filter { from, to, currency, after: after.map(Into::into), limit };
        Ok(revenue::by_day(pool, &filter).await?)
    }

    fn cursor(row: &revenue::Revenue) -> AfterRevenue {
        row.into()
    }
}

impl List for RevenueByMonth {
    type Cursor = AfterRevenue;

    async fn find(self, pool: &PgPool, limit: i64) -> Result<Vec<revenue::Revenue>, QueryError> {
        let Self { from, to, currency, after, .. } = self;
        let filter = revenue::Filter { from, to, currency, after: after.map(Into::into), limit };
        Ok(revenue::by_month(pool, &filter).await?)
    }

    fn cursor(row: &revenue::Revenue) -> AfterRevenue {
        row.into()
    }
}

impl From<AfterRevenue> for (String, String, String) {
    fn from(AfterRevenue { period, currency, kind }: AfterRevenue) -> Self {
        (period, currency, kind)
    }
}

impl From<&revenue::Revenue> for AfterRevenue {
    fn from(row: &revenue::Revenue) -> Self {
        Self { period: row.period.clone(), currency: row.currency.clone(), kind: row.kind.clone() }
    }
}

impl Get for GetDeadLetter {
    async fn find(self, pool: &PgPool) -> Result<Option<dead_letter::Detail>, QueryError> {
        Ok(dead_letter::get::<Orders>(pool, self.id).await?)
    }
}

impl List for ListDeadLetters {
    type Cursor = AfterDeadLetter;

    async fn find(self, pool: &PgPool, limit: i64) -> Result<Vec<dead_letter::DeadLetter>, QueryError> {
        let Self { discarded, reaction, projection, correlation_id, matching, since, until, .. } = self;
        let ids = None;
        let filter =
            dead_letter::Filter { discarded, ids, reaction, projection, correlation_id, matching, since, until };
        let after = self.after.map(|a| (a.since, a.id));
        Ok(dead_letter::list(pool, &filter, after, limit).await?)
    }

    fn cursor(row: &dead_letter::DeadLetter) -> AfterDeadLetter {
        AfterDeadLetter { since: row.since, id: row.id }
    }
}

impl Get for ListProjections {
    async fn find(self, pool: &PgPool) -> Result<Option<Vec<Health>>, QueryError> {
        Ok(Some(health::projections::<Orders>(pool, health::SAMPLE).await?))
    }
}
