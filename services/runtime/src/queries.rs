//! Queries over NATS request/reply: one endpoint a query, answered from the read models of a domain. A query may name a
//! position to be at.

use crate::api::{Door, Request, Service, respond, too_large};
use crate::subject;
use crate::wire::{Code, ErrorBody, QueryBody, QueryReply, parse, parse_field};
use async_nats::{Client, Message};
use engine::{Domain, ReadModel};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::marker::PhantomData;
use std::time::Duration;
use store::{Log, Mark, Position, checkpoint};
use tokio::time::Instant;

/// What a query is asked with. Each is answered by one thing, as [`Get`] says, or page by page, as [`List`] says.
pub trait Query: Serialize + DeserializeOwned + Send + 'static {
    type Domain: Domain;
    /// What is found, or each row of it.
    type Found: Serialize + DeserializeOwned + Send;
    /// `order_summary.get`: the end of the subject.
    const NAME: &'static str;
    const SOURCE: Source<<Self::Domain as Domain>::ReadModel>;
}

/// Which projections answer.
#[derive(Debug, Clone, Copy)]
pub enum Source<M> {
    One(M),
    /// All of them: they are where the one is that is furthest behind.
    All,
}

/// A query for one thing.
pub trait Get: Query {
    /// What is found; `None`, if there is no such thing.
    fn find(self, pool: &PgPool) -> impl Future<Output = Result<Option<Self::Found>, QueryError>> + Send;
}

/// A query that says how many rows a page of its list has at most.
pub trait Limited: Query {
    fn limit(&self) -> Option<i64>;
}

/// A query for a list. Its fields `after` and `limit` say where the page begins, and how many rows it has at most.
pub trait List: Limited {
    /// What `after` is for the page that follows a row.
    type Cursor: Serialize;

    /// The rows after `after`, in the order of the list, `limit` at most.
    fn find(self, pool: &PgPool, limit: i64) -> impl Future<Output = Result<Vec<Self::Found>, QueryError>> + Send;

    /// Where the list goes on after this row.
    fn cursor(row: &Self::Found) -> Self::Cursor;
}

/// Why a query is not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    #[error("the read models cannot be read: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<QueryError> for ErrorBody {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Refused(body) => body,
            QueryError::Database(error) => Self::of_database("the read models cannot be read", &error),
        }
    }
}

const PAGE: i64 = 50;
/// As many rows as a reply may have.
pub const MAX_PAGE: i64 = 500;
/// What a reply has around the rows of a list, in bytes at most: its position, and where it goes on.
const AROUND_ROWS: usize = 1024;
const WAIT: Duration = Duration::from_secs(2);
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How often the checkpoint is looked at: first, and at last.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// The query endpoints of a domain.
pub struct Queries<D> {
    service: Service,
    client: Client,
    pool: PgPool,
    domain: PhantomData<D>,
}

impl<D: Domain> Queries<D> {
    /// A NATS service of this name, without endpoints yet. `pool` is in the role that reads.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn new(door: Door, name: &str, description: &str, pool: PgPool) -> Result<Self, async_nats::Error> {
        let client = door.client.clone();
        Ok(Self { service: Service::new(door, name, description).await?, client, pool, domain: PhantomData })
    }

    /// Starts the endpoint of a query for one thing.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn get<Q: Get + Query<Domain = D>>(&mut self) -> Result<(), async_nats::Error> {
        self.endpoint(Q::NAME, |pool, message, _| get::<Q>(pool, message)).await
    }

    /// Starts the endpoint of a query for a list.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn list<Q: List + Query<Domain = D>>(&mut self) -> Result<(), async_nats::Error> {
        self.endpoint(Q::NAME, list::<Q>).await
    }

    /// `answer` is given how many bytes there is room for in a list.
    async fn endpoint<F, R>(&mut self, name: &str, answer: F) -> Result<(), async_nats::Error>
    where
        F: Fn(PgPool, Message, usize) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<QueryReply<Value>, ErrorBody>> + Send + 'static,
    {
        let (client, pool) = (self.client.clone(), self.pool.clone());
        let handle = move |request: Request| {
            let room = client.max_payload().saturating_sub(AROUND_ROWS);
            let answer = answer(pool.clone(), request.message.clone(), room);
            async move {
                let late = |_| Err(ErrorBody::new(Code::Unavailable, "the read models do not answer in time"));
                let answer = tokio::time::timeout(MAX_WAIT + WAIT, answer).await.unwrap_or_else(late);
                respond(&request, answer).await;
            }
        };
        self.service.endpoint(subject::QUERIES, name, handle).await
    }

    /// The endpoints answer until the service is stopped.
    pub fn into_service(self) -> Service {
        self.service
    }
}

async fn get<Q: Get>(pool: PgPool, message: Message) -> Result<QueryReply<Value>, ErrorBody> {
    let Asked { query, mark, position } = ask::<Q>(&pool, &message).await?;
    let data = json!(query.find(&pool).await?.ok_or_else(not_found)?);
    has::<Q::Domain>(&pool, mark).await?;
    Ok(QueryReply { position, data, next: None })
}

/// A list ends where `room` bytes are full.
async fn list<Q: List>(pool: PgPool, message: Message, room: usize) -> Result<QueryReply<Value>, ErrorBody> {
    let Asked { query, mark, position } = ask::<Q>(&pool, &message).await?;
    let limit = query.limit().unwrap_or(PAGE).clamp(1, MAX_PAGE);
    // One row more than a page has tells whether there is a next one.
    let found = query.find(&pool, limit + 1).await?;
    let (rows, next) = page::<Q>(&found, limit as usize, room)?;
    has::<Q::Domain>(&pool, mark).await?;
    Ok(QueryReply { position, data: rows.into(), next })
}

/// A query, once the read models are where it wants them.
struct Asked<Q> {
    query: Q,
    /// The log must have it. One that has it after the rows were read had it when they were.
    mark: Option<Mark>,
    /// Where the read models are, at least.
    position: Position,
}

async fn ask<Q: Query>(pool: &PgPool, message: &Message) -> Result<Asked<Q>, ErrorBody> {
    let body = &message.payload;
    let body: QueryBody = if body.is_empty() { QueryBody::default() } else { parse(body)? };
    let wait = body.wait_ms.map_or(WAIT, Duration::from_millis).min(MAX_WAIT);
    let at_least = body.at_least.max(body.mark.map(|mark| mark.position)).unwrap_or(0);
    // Before it is waited for: a log of another history may never come there.
    has::<Q::Domain>(pool, body.mark).await?;
    let position = wait_for::<Q>(pool, at_least, wait).await?;
    // None is as good as an empty object.
    let data = if body.data.is_null() { json!({}) } else { body.data };
    Ok(Asked { query: parse_field("data", data)?, mark: body.mark, position })
}

/// As many of the rows, `most` of them at most, as `room` bytes hold, and where the list goes on if it does.
///
/// # Errors
/// `too_large`, if there is no room for the first one.
fn page<Q: List>(found: &[Q::Found], most: usize, room: usize) -> Result<(Vec<Value>, Option<Value>), ErrorBody> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for row in found.iter().take(most) {
        let row = json!(row);
        bytes += row.to_string().len() + 1;
        if bytes > room {
            break;
        }
        rows.push(row);
    }
    if rows.is_empty() && !found.is_empty() {
        return Err(too_large());
    }
    let goes_on = rows.len() < found.len();
    let next = found[..rows.len()].last().filter(|_| goes_on).map(|last| json!(Q::cursor(last)));
    Ok((rows, next))
}

/// Whether the log has the mark.
async fn has<D: Domain>(pool: &PgPool, mark: Option<Mark>) -> Result<(), ErrorBody> {
    let Some(mark) = mark else { return Ok(()) };
    match Log::new(pool.clone(), D::CATEGORIES).has(mark).await {
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
async fn wait_for<Q: Query>(pool: &PgPool, at_least: Position, wait: Duration) -> Result<Position, ErrorBody> {
    let deadline = Instant::now() + wait;
    let mut look = FIRST_LOOK;
    loop {
        let mut live = checkpoint::live(pool).await.map_err(QueryError::from)?;
        live.retain(|(name, _)| match Q::SOURCE {
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

fn not_found() -> ErrorBody {
    ErrorBody::new(Code::NotFound, "there is nothing under this id, as far as the read model has come")
}
