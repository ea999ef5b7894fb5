//! The embedded notifier: writes down what customers are to be told. A mail sender on the same contract replaces it.

use crate::subject;
use bytes::Bytes;
use orders::reaction::Notice;
use runtime::api::{Door, Service, respond};
use runtime::wire::{ErrorBody, parse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

/// What the notifier is sent. The same id is the same notice, however often it comes.
#[derive(Debug, Serialize, Deserialize)]
pub struct NoticeBody {
    pub notice_id: Uuid,
    pub notice: Notice,
}

/// Starts the notifier's endpoint; it answers until the service is stopped.
///
/// # Errors
/// When NATS cannot be reached.
pub async fn start(door: impl Into<Door>, pool: PgPool) -> Result<Service, async_nats::Error> {
    let mut service = Service::new(door.into(), "daybook-notifier", "Writes down what customers are told").await?;
    let (group, verb) = subject::NOTIFY.rsplit_once('.').unwrap_or_default();
    service
        .endpoint(group, verb, move |request| {
            let pool = pool.clone();
            async move {
                let answer = write_down(&pool, &request.message.payload).await;
                respond(&request, answer).await;
            }
        })
        .await?;
    Ok(service)
}

async fn write_down(pool: &PgPool, body: &Bytes) -> Result<Value, ErrorBody> {
    let NoticeBody { notice_id, notice } = parse(body)?;
    sqlx::query!(
        "INSERT INTO daybook.notices (id, customer_id, order_id, message) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT notices_id DO NOTHING",
        notice_id,
        notice.customer_id.0,
        notice.order_id.0,
        json!(notice.message)
    )
    .execute(pool)
    .await
    .map_err(|e| ErrorBody::of_database("the notice cannot be written down", &e))?;
    Ok(json!({}))
}
