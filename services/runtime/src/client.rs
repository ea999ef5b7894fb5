//! A client of the command and query APIs, for the verbs, the demo and the tests.

use crate::api;
use crate::commands::Verb;
use crate::queries::{Get, List, MAX_PAGE};
use crate::subject;
use crate::wire::{CommandBody, ErrorBody, QueryBody, QueryReply, Reply};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::marker::PhantomData;
use std::time::Duration;
use store::Position;
use uuid::Uuid;

/// Somewhat longer than a command may take at the service.
const ANSWER: Duration = Duration::from_secs(15);
/// How long to wait before a command or a query that can be repeated is repeated.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    #[error("no answer from Daybook at NATS: {0}. Is `daybook serve` or `daybook dev` running?")]
    NoAnswer(String),
    #[error("the answer is not one that this build knows: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error(
        "the list may go on: who answers queries is of an older build, which does not say so after {0} rows. Ask for {0} rows \
         at most, or start a newer `daybook serve --role queries`"
    )]
    MayGoOn(u64),
}

impl ClientError {
    /// Whether the same request may succeed later.
    pub fn may_be_repeated(&self) -> bool {
        match self {
            Self::Refused(error) => error.retry,
            Self::NoAnswer(_) => true,
            Self::Malformed(_) | Self::MayGoOn(_) => false,
        }
    }
}

/// A list, to be asked for page by page.
pub struct Pages<'a, Q> {
    client: &'a Client,
    query: PhantomData<Q>,
    data: Value,
    left: u64,
}

impl<Q: List> Pages<'_, Q> {
    /// The next rows; none at its end.
    ///
    /// # Errors
    /// When it is refused, or there is no answer.
    pub async fn next(&mut self) -> Result<Vec<Q::Found>, ClientError> {
        if self.left == 0 {
            return Ok(vec![]);
        }
        let limit = self.left.min(MAX_PAGE.unsigned_abs());
        let page = self.page::<Q::Found>(limit).await?;
        if page.next.is_none()
            && limit < self.left
            && page.data.len() as u64 == limit
            && self.is_of_older_build().await?
        {
            return Err(ClientError::MayGoOn(limit));
        }
        // A page may have fewer rows than were asked for: what it says tells whether there are more.
        self.left = if page.next.is_some() { self.left.saturating_sub(page.data.len() as u64) } else { 0 };
        self.data["after"] = page.next.unwrap_or_default();
        Ok(page.data)
    }

    async fn page<T: DeserializeOwned>(&mut self, limit: u64) -> Result<QueryReply<Vec<T>>, ClientError> {
        self.data["limit"] = limit.into();
        self.client.query(Q::NAME, self.data.clone(), None).await
    }

    /// Whether who answers never says that a list goes on, not even where this one does: after its first row of many.
    async fn is_of_older_build(&mut self) -> Result<bool, ClientError> {
        Ok(self.page::<IgnoredAny>(1).await?.next.is_none())
    }

    /// All rows, in memory.
    ///
    /// # Errors
    /// As those of [`Self::next`].
    pub async fn all(mut self) -> Result<Vec<Q::Found>, ClientError> {
        let mut rows = Vec::new();
        loop {
            match self.next().await? {
                page if page.is_empty() => return Ok(rows),
                page => rows.extend(page),
            }
        }
    }
}

/// Speaks for one actor. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    nats: async_nats::Client,
    actor: String,
}

impl Client {
    pub fn new(nats: async_nats::Client, actor: impl Into<String>) -> Self {
        Self { nats, actor: actor.into() }
    }

    /// A new command's body.
    pub fn body<V: Verb>(&self, data: V) -> CommandBody<V> {
        CommandBody { command_id: Uuid::now_v7(), actor: self.actor.clone(), occurred_at: None, data }
    }

    /// Sends a command once.
    ///
    /// # Errors
    /// When it is refused, or there is no answer.
    pub async fn send<V: Verb>(&self, body: &CommandBody<V>) -> Result<Reply, ClientError> {
        self.request(format!("{}.{}", subject::COMMANDS, V::NAME), body).await
    }

    /// Sends a command until it is answered, with one id, for as long as `patience`.
    ///
    /// # Errors
    /// When it is refused, or there is no answer in that time.
    pub async fn command<V: Verb + Sync>(&self, data: V, patience: Duration) -> Result<Reply, ClientError> {
        let body = self.body(data);
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.send(&body).await {
                Err(e) if e.may_be_repeated() && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// Asks for one thing; `at_least` names a position to be at.
    ///
    /// # Errors
    /// When it is refused or not found, or there is no answer.
    pub async fn get<Q: Get>(&self, query: Q, at_least: Option<Position>) -> Result<QueryReply<Q::Found>, ClientError> {
        self.query(Q::NAME, serde_json::to_value(query)?, at_least).await
    }

    /// Asks a query by its name, `order_summary.get` for example, which this build need not know.
    ///
    /// # Errors
    /// When it is refused, or there is no answer.
    pub async fn query<T: DeserializeOwned>(
        &self,
        verb: &str,
        data: Value,
        at_least: Option<Position>,
    ) -> Result<QueryReply<T>, ClientError> {
        let body = QueryBody { at_least, mark: None, wait_ms: None, data };
        self.request(format!("{}.{verb}", subject::QUERIES), &body).await
    }

    /// Asks for a list of `limit` rows at most.
    ///
    /// # Errors
    /// When the query is not plain data.
    pub fn list<Q: List>(&self, query: Q, limit: u64) -> Result<Pages<'_, Q>, ClientError> {
        Ok(Pages { client: self, query: PhantomData, data: serde_json::to_value(query)?, left: limit })
    }

    async fn request<T: DeserializeOwned>(&self, subject: String, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)?;
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(ANSWER));
        let answer = self.nats.send_request(subject, request).await;
        let answer = answer.map_err(|e| ClientError::NoAnswer(e.to_string()))?;
        if api::error_of(&answer).is_some() {
            return Err(serde_json::from_slice::<ErrorBody>(&answer.payload)?.into());
        }
        Ok(serde_json::from_slice(&answer.payload)?)
    }
}
