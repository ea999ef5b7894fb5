//! `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`: how NATS' own tools find a service and what it has done
//! (NATS ADR-32, "Service API").

use super::Door;
use async_nats::{Client, Message, Subscriber};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

const PREFIX: &str = "$SRV";

/// What a service says of itself.
pub(super) struct Discovery {
    name: String,
    /// Of this instance.
    id: String,
    description: String,
    started: DateTime<Utc>,
    endpoints: Mutex<Vec<Arc<Endpoint>>>,
}

/// What an endpoint says of itself.
pub(super) struct Endpoint {
    name: String,
    subject: String,
    done: Mutex<Done>,
}

#[derive(Clone, Default)]
struct Done {
    requests: u32,
    errors: u32,
    /// Requests that could not be answered, and were not carried out.
    refused: u32,
    last_error: String,
    spent: Duration,
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoint {
    pub(super) fn refused(&self) {
        let mut done = lock(&self.done);
        done.refused = done.refused.saturating_add(1);
    }

    /// `error` is its number and its sentence.
    pub(super) fn answered(&self, took: Duration, error: Option<(usize, String)>) {
        let mut done = lock(&self.done);
        done.requests = done.requests.saturating_add(1);
        done.spent = done.spent.saturating_add(took);
        if let Some((code, message)) = error {
            done.errors = done.errors.saturating_add(1);
            done.last_error = format!("{code}:{message}");
        }
    }
}

impl Discovery {
    pub(super) fn new(name: &str, description: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: Uuid::now_v7().simple().to_string(),
            description: description.to_owned(),
            started: Utc::now(),
            endpoints: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn add(&self, name: String, subject: String) -> Arc<Endpoint> {
        let endpoint = Arc::new(Endpoint { name, subject, done: Mutex::default() });
        lock(&self.endpoints).push(endpoint.clone());
        endpoint
    }

    /// Of all services, of those of this name, of this instance.
    pub(super) async fn subscribe(&self, client: &Client) -> Result<SelectAll<Subscriber>, async_nats::Error> {
        let Self { name, id, .. } = self;
        let mut asked = Vec::new();
        for subject in [format!("{PREFIX}.*"), format!("{PREFIX}.*.{name}"), format!("{PREFIX}.*.{name}.{id}")] {
            asked.push(client.subscribe(subject).await?);
        }
        Ok(select_all(asked))
    }

    pub(super) async fn answer(self: Arc<Self>, mut asked: SelectAll<Subscriber>, door: Door) {
        while let Some(request) = asked.next().await {
            let Some(answer) = self.answer_to(&request) else { continue };
            if door.replies.admit(&request)
                && let Some(reply) = request.reply
            {
                _ = door.client.publish(reply, answer.to_string().into()).await;
            }
        }
    }

    fn answer_to(&self, request: &Message) -> Option<Value> {
        let more = match request.subject.split('.').nth(1)? {
            "PING" => self.typed("ping", json!({})),
            "INFO" => {
                let of = |e: &Endpoint| json!({ "name": e.name, "subject": e.subject, "queue_group": self.name, "metadata": {} });
                self.typed("info", json!({ "description": self.description, "endpoints": self.each(of) }))
            }
            "STATS" => {
                let started = self.started.to_rfc3339_opts(SecondsFormat::Nanos, true);
                self.typed("stats", json!({ "started": started, "endpoints": self.each(|e| self.stats_of(e)) }))
            }
            _ => return None,
        };
        Some(more)
    }

    fn each(&self, of: impl Fn(&Endpoint) -> Value) -> Vec<Value> {
        lock(&self.endpoints).iter().map(|endpoint| of(endpoint)).collect()
    }

    fn stats_of(&self, endpoint: &Endpoint) -> Value {
        let Done { requests, errors, refused, last_error, spent } = lock(&endpoint.done).clone();
        json!({
            "name": endpoint.name,
            "subject": endpoint.subject,
            "queue_group": self.name,
            "num_requests": requests,
            "num_errors": errors,
            "last_error": last_error,
            "processing_time": nanoseconds(spent),
            "average_processing_time": nanoseconds(spent.checked_div(requests).unwrap_or_default()),
            "data": { "refused": refused },
        })
    }

    fn typed(&self, kind: &str, mut fields: Value) -> Value {
        fields["type"] = format!("io.nats.micro.v1.{kind}_response").into();
        fields["name"] = self.name.clone().into();
        fields["id"] = self.id.clone().into();
        fields["version"] = env!("CARGO_PKG_VERSION").into();
        fields["metadata"] = json!({});
        fields
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
