//! Queries over NATS request/reply, answered from the read models, the dead letters and what is known of the projections. A
//! query may name a position to be at.

use chrono::{DateTime, NaiveDate, Utc};
use engine::{ReadModel as _, dead_letter};
use order_views::order_summary::{self, Filter};
use order_views::{CATEGORIES, Orders, ReadModel, fulfilment, order_history, revenue, stock_level, waiting};
use orders::id::Sku;
use orders::money::Currency;
use orders::order::{Life, Status};
use runtime::api::{Door, Request, Service, respond, too_large};
use runtime::health;
use runtime::wire::{Code, ErrorBody, QueryBody, QueryReply, parse, parse_field, time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use store::{Log, Mark, Position, checkpoint};
use tokio::time::Instant;
use uuid::Uuid;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetOrder {
    order_id: Uuid,
}

/// Where a page of orders goes on: after the last row of the page before.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterOrder {
    #[serde(deserialize_with = "time::required")]
    placed_at: DateTime<Utc>,
    order_id: Uuid,
}

/// The status that an order is shown with: where it is in its life, or how that ended.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shown {
    Placed,
    AwaitingApproval,
    OnHold,
    Confirmed,
    Completed,
    Cancelled,
    Rejected,
    Expired,
}

impl Shown {
    fn as_str(self) -> &'static str {
        match self {
            Self::Placed => Life::Placed.as_str(),
            Self::AwaitingApproval => Life::AwaitingApproval.as_str(),
            Self::OnHold => Life::OnHold.as_str(),
            Self::Confirmed => Life::Confirmed.as_str(),
            Self::Completed => Status::Completed.as_str(),
            Self::Cancelled => Status::Cancelled.as_str(),
            Self::Rejected => Status::Rejected.as_str(),
            Self::Expired => Status::Expired.as_str(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListOrders {
    customer_id: Option<Uuid>,
    status: Option<Shown>,
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
}

impl ListOrders {
    /// # Errors
    /// `invalid`, when no order can be all of this, or it means nothing.
    fn filter(self) -> Result<Filter, ErrorBody> {
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
        Ok(Filter {
            customer_id: self.customer_id,
            status: self.status.map(|status| status.as_str().to_owned()),
            sku: self.sku,
            placed_from,
            placed_before,
            currency,
            total_at_least,
            total_at_most,
            after: self.after.map(|a| (a.placed_at, a.order_id)),
            limit: one_more(self.limit),
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetStock {
    sku: Sku,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListStock {
    after: Option<Sku>,
    limit: Option<i64>,
}

/// The same, of orders that wait.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterWaiting {
    #[serde(deserialize_with = "time::required")]
    since: DateTime<Utc>,
    order_id: Uuid,
}

/// What an order can wait for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WaitedFor {
    Payment,
    Stock,
    Backorder,
    Approval,
    Hold,
    Edit,
    Delivery,
    ReturnApproval,
    Return,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetDeadLetter {
    id: Uuid,
}

/// Where a page of dead letters goes on: after the last row of the page before.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterDeadLetter {
    #[serde(deserialize_with = "time::required")]
    since: DateTime<Utc>,
    id: Uuid,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListWaiting {
    r#for: Option<WaitedFor>,
    longer_than_seconds: Option<u32>,
    after: Option<AfterWaiting>,
    limit: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListDeadLetters {
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
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListProjections {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListHistory {
    order_id: Uuid,
    after: Option<Position>,
    limit: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetShipment {
    shipment_id: Uuid,
}

/// Where a page of shipments goes on: after the last row of the page before.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterShipment {
    #[serde(deserialize_with = "time::required")]
    planned_at: DateTime<Utc>,
    shipment_id: Uuid,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListShipments {
    seller_id: Option<Uuid>,
    status: Option<fulfilment::Status>,
    after: Option<AfterShipment>,
    limit: Option<i64>,
}

/// Where a page of revenue goes on: after the last row of the page before.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterRevenue {
    period: String,
    currency: String,
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListRevenue {
    #[serde(default, deserialize_with = "time::optional_day")]
    from: Option<NaiveDate>,
    #[serde(default, deserialize_with = "time::optional_day")]
    to: Option<NaiveDate>,
    currency: Option<Currency>,
    after: Option<AfterRevenue>,
    limit: Option<i64>,
}

impl From<ListRevenue> for revenue::Filter {
    fn from(ListRevenue { from, to, currency, after, limit }: ListRevenue) -> Self {
        let after = after.map(|a| (a.period, a.currency, a.kind));
        Self { from, to, currency, after, limit: one_more(limit) }
    }
}

/// Which projections answer.
#[derive(Debug, Clone, Copy)]
enum Source {
    One(ReadModel),
    /// All of them: they are where the one is that is furthest behind.
    All,
}

/// The verbs: the end of the subject, and who answers.
const VERBS: [(&str, Source); 13] = [
    ("order_summary.get", Source::One(ReadModel::OrderSummary)),
    ("order_summary.list", Source::One(ReadModel::OrderSummary)),
    ("stock_level.get", Source::One(ReadModel::StockLevel)),
    ("stock_level.list", Source::One(ReadModel::StockLevel)),
    ("waiting.list", Source::One(ReadModel::Waiting)),
    ("order_history.list", Source::One(ReadModel::OrderHistory)),
    ("fulfilment.get", Source::One(ReadModel::Fulfilment)),
    ("fulfilment.list", Source::One(ReadModel::Fulfilment)),
    ("revenue.by_day", Source::One(ReadModel::Revenue)),
    ("revenue.by_month", Source::One(ReadModel::Revenue)),
    ("dead_letters.get", Source::All),
    ("dead_letters.list", Source::All),
    ("projections.list", Source::All),
];

const PAGE: i64 = 50;
const MAX_PAGE: i64 = 500;
/// What a reply has around the rows of a list, in bytes at most: its position, and where it goes on.
const AROUND_ROWS: usize = 1024;
const WAIT: Duration = Duration::from_secs(2);
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How often the checkpoint is looked at: first, and at last.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// Starts the query endpoints; they answer until the service is stopped.
///
/// # Errors
/// When NATS cannot be reached.
pub async fn start(door: impl Into<Door>, pool: PgPool) -> Result<Service, async_nats::Error> {
    let door = door.into();
    let client = door.client.clone();
    let mut service = Service::new(door, "daybook-queries", "Daybook's query API").await?;
    for (verb, source) in VERBS {
        let (client, pool) = (client.clone(), pool.clone());
        let handle = move |request: Request| {
            let (client, pool) = (client.clone(), pool.clone());
            async move {
                let room = client.max_payload().saturating_sub(AROUND_ROWS);
                let answer = answer(&pool, verb, source, &request.message.payload, room);
                let late = |_| Err(ErrorBody::new(Code::Unavailable, "the read models do not answer in time"));
                let answer = tokio::time::timeout(MAX_WAIT + WAIT, answer).await.unwrap_or_else(late);
                respond(&request, answer).await;
            }
        };
        service.endpoint(runtime::subject::QUERIES, verb, handle).await?;
    }
    Ok(service)
}

/// What is found. A list ends where `room` bytes are full.
async fn answer(
    pool: &PgPool,
    verb: &str,
    source: Source,
    body: &[u8],
    room: usize,
) -> Result<QueryReply<Value>, ErrorBody> {
    let body: QueryBody = if body.is_empty() { QueryBody::default() } else { parse(body)? };
    let wait = body.wait_ms.map_or(WAIT, Duration::from_millis).min(MAX_WAIT);
    let at_least = body.at_least.max(body.mark.map(|mark| mark.position)).unwrap_or(0);
    // Before it is waited for: a log of another history may never come there.
    has(pool, body.mark).await?;
    let position = wait_for(pool, source, at_least, wait).await?;
    let found = match verb {
        "order_summary.get" => {
            let GetOrder { order_id } = data(body.data)?;
            Answer::One(json!(order_summary::get(pool, order_id).await.map_err(failed)?.ok_or_else(not_found)?))
        }
        "waiting.list" => {
            let ListWaiting { r#for, longer_than_seconds, after, limit } = data(body.data)?;
            let what = r#for.and_then(|what| json!(what).as_str().map(str::to_owned));
            let after = after.map(|a| (a.since, a.order_id));
            let longer_than_seconds = longer_than_seconds.map(i64::from);
            let filter = waiting::Filter { what, longer_than_seconds, after, limit: one_more(limit) };
            let rows = waiting::list(pool, &filter).await.map_err(failed)?;
            page(rows, limit, room, &["since", "order_id"])?
        }
        "order_summary.list" => {
            let list: ListOrders = data(body.data)?;
            let limit = list.limit;
            let filter = list.filter()?;
            if filter.sku.is_some() && !order_summary::has_skus(pool).await.map_err(failed)? {
                let message =
                    "the rows of order_summary are of a version without SKUs: run `daybook replay order_summary`";
                return Err(ErrorBody::new(Code::Unavailable, message));
            }
            let rows = order_summary::list(pool, &filter).await.map_err(failed)?;
            page(rows, limit, room, &["placed_at", "order_id"])?
        }
        "stock_level.get" => {
            let GetStock { sku } = data(body.data)?;
            Answer::One(json!(stock_level::get(pool, sku.as_str()).await.map_err(failed)?.ok_or_else(not_found)?))
        }
        "dead_letters.get" => {
            let GetDeadLetter { id } = data(body.data)?;
            Answer::One(json!(dead_letter::get::<Orders>(pool, id).await.map_err(failed)?.ok_or_else(not_found)?))
        }
        "dead_letters.list" => {
            let list: ListDeadLetters = data(body.data)?;
            let after = list.after.map(|a| (a.since, a.id));
            let ListDeadLetters { discarded, reaction, projection, correlation_id, matching, since, until, .. } = list;
            let ids = None;
            let filter =
                dead_letter::Filter { discarded, ids, reaction, projection, correlation_id, matching, since, until };
            let rows = dead_letter::list(pool, &filter, after, one_more(list.limit)).await.map_err(failed)?;
            page(rows, list.limit, room, &["since", "id"])?
        }
        "projections.list" => {
            let ListProjections {} = data(body.data)?;
            Answer::One(json!(health::projections::<Orders>(pool, health::SAMPLE).await.map_err(failed)?))
        }
        "order_history.list" => {
            let ListHistory { order_id, after, limit } = data(body.data)?;
            let rows = order_history::list(pool, order_id, after.unwrap_or(0), one_more(limit)).await;
            page(rows.map_err(failed)?, limit, room, &["position"])?
        }
        "fulfilment.get" => {
            let GetShipment { shipment_id } = data(body.data)?;
            Answer::One(json!(fulfilment::get(pool, shipment_id).await.map_err(failed)?.ok_or_else(not_found)?))
        }
        "fulfilment.list" => {
            let ListShipments { seller_id, status, after, limit } = data(body.data)?;
            let after = after.map(|a| (a.planned_at, a.shipment_id));
            let filter = fulfilment::Filter { seller_id, status, after, limit: one_more(limit) };
            let rows = fulfilment::list(pool, &filter).await.map_err(failed)?;
            page(rows, limit, room, &["planned_at", "shipment_id"])?
        }
        "revenue.by_day" => {
            let list: ListRevenue = data(body.data)?;
            let limit = list.limit;
            let rows = revenue::by_day(pool, &list.into()).await.map_err(failed)?;
            page(rows, limit, room, &["period", "currency", "kind"])?
        }
        "revenue.by_month" => {
            let list: ListRevenue = data(body.data)?;
            let limit = list.limit;
            let rows = revenue::by_month(pool, &list.into()).await.map_err(failed)?;
            page(rows, limit, room, &["period", "currency", "kind"])?
        }
        _ => {
            let ListStock { after, limit } = data(body.data)?;
            let rows = stock_level::list(pool, after.as_ref().map(Sku::as_str), one_more(limit)).await;
            page(rows.map_err(failed)?, limit, room, &["sku"])?
        }
    };
    // A log that has it after the rows were read had it when they were.
    has(pool, body.mark).await?;
    Ok(match found {
        Answer::One(data) => QueryReply { position, data, next: None },
        Answer::Page { rows, next } => QueryReply { position, data: rows.into(), next },
    })
}

/// What a query finds.
enum Answer {
    One(Value),
    Page {
        rows: Vec<Value>,
        /// Where the list goes on, if it does.
        next: Option<Value>,
    },
}

/// As many of the rows, of which there is one more than a page may have if the list goes on, as `room` bytes hold. The next page
/// begins after the fields `cursor` of the last one.
///
/// # Errors
/// `too_large`, if there is no room for the first one.
fn page(rows: Vec<impl Serialize>, limit: Option<i64>, room: usize, cursor: &[&str]) -> Result<Answer, ErrorBody> {
    let (found, most) = (rows.len(), page_size(limit) as usize);
    let (mut page, mut bytes) = (Vec::new(), 0);
    for row in rows.into_iter().take(most) {
        let row = json!(row);
        bytes += row.to_string().len() + 1;
        if bytes > room {
            break;
        }
        page.push(row);
    }
    if page.is_empty() && found > 0 {
        return Err(too_large());
    }
    let next = page.last().filter(|_| page.len() < found).map(|last| match cursor {
        [field] => last[*field].clone(),
        fields => fields.iter().map(|field| ((*field).to_owned(), last[*field].clone())).collect(),
    });
    Ok(Answer::Page { rows: page, next })
}

/// Whether the log has the mark.
async fn has(pool: &PgPool, mark: Option<Mark>) -> Result<(), ErrorBody> {
    let Some(mark) = mark else { return Ok(()) };
    match Log::new(pool.clone(), CATEGORIES).has(mark).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = "the log has gone on from an older state, and does not have what the mark is of: send the \
                           command again, with its id";
            Err(ErrorBody::new(Code::OtherHistory, message))
        }
        Err(e) => Err(ErrorBody::of_failure(e.failure(), e.to_string())),
    }
}

/// The position that who answers is at, once it is `at_least` there.
async fn wait_for(pool: &PgPool, source: Source, at_least: Position, wait: Duration) -> Result<Position, ErrorBody> {
    let deadline = Instant::now() + wait;
    let mut look = FIRST_LOOK;
    loop {
        let mut live = checkpoint::live(pool).await.map_err(failed)?;
        live.retain(|(name, _)| match source {
            Source::One(model) => name == model.name(),
            Source::All => true,
        });
        let (name, position) = live.into_iter().min_by_key(|(_, position)| *position).unwrap_or_default();
        if position >= at_least {
            return Ok(position);
        }
        if Instant::now() + look > deadline {
            let message = format!("{name} is at position {position}, not yet at {at_least}");
            let detail = Some(json!({ "position": position }));
            return Err(ErrorBody { detail, ..ErrorBody::new(Code::NotYet, message) });
        }
        tokio::time::sleep(look).await;
        look = (look * 2).min(LAST_LOOK);
    }
}

/// The fields of a query's verb; none is as good as an empty object.
fn data<T: for<'de> Deserialize<'de>>(data: Value) -> Result<T, ErrorBody> {
    let data = if data.is_null() { json!({}) } else { data };
    parse_field("data", data)
}

fn page_size(limit: Option<i64>) -> i64 {
    limit.unwrap_or(PAGE).clamp(1, MAX_PAGE)
}

/// One row more than a page has tells whether there is a next one.
fn one_more(limit: Option<i64>) -> i64 {
    page_size(limit) + 1
}

fn not_found() -> ErrorBody {
    ErrorBody::new(Code::NotFound, "there is nothing under this id, as far as the read model has come")
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err takes")]
fn failed(error: sqlx::Error) -> ErrorBody {
    ErrorBody::of_database("the read models cannot be read", &error)
}
