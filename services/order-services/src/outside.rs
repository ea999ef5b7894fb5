//! Requests to what is outside: the payment provider, and the notifier.

use crate::subject;
use async_nats::Client;
use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use orders::id::PaymentId;
use orders::payment;
use orders::reaction::{LookupAnswer, Operation, ProviderCall};
use runtime::api;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// How many lookups are under way at once.
pub const AT_ONCE: usize = 64;
/// How often a lookup is tried.
const ATTEMPTS: u32 = 3;
/// How long to wait after the first attempt. Each wait is twice as long as the one before.
const WAIT: Duration = Duration::from_millis(100);

/// Why there is no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It may have been done, or not.
    Silence,
    /// It can be sent again as it is.
    Failed(String),
}

/// Sends `body`, and waits for the answer for as long as `patience`.
pub(crate) async fn request(
    client: &Client,
    subject: String,
    body: &impl Serialize,
    patience: Duration,
) -> Result<Bytes, NoAnswer> {
    let body = serde_json::to_vec(body).map_err(|e| NoAnswer::Failed(e.to_string()))?;
    let request = async_nats::Request::new().payload(body.into()).timeout(Some(patience));
    let answer = client.send_request(subject, request).await.map_err(|e| match e.kind() {
        RequestErrorKind::TimedOut => NoAnswer::Silence,
        RequestErrorKind::NoResponders
        | RequestErrorKind::InvalidSubject
        | RequestErrorKind::MaxPayloadExceeded
        | RequestErrorKind::Other => NoAnswer::Failed(e.to_string()),
    })?;
    match api::error_of(&answer) {
        Some(error) => Err(NoAnswer::Failed(error)),
        None => Ok(answer.payload),
    }
}

/// Asks the provider what became of calls. Once it has left as many lookups unanswered as are under way at once, with no
/// answer in between, it is not asked any more.
pub struct Provider {
    client: Client,
    patience: Duration,
    unanswered: AtomicUsize,
}

impl Provider {
    /// Waits for each answer for as long as `patience`.
    pub fn new(client: Client, patience: Duration) -> Self {
        Self { client, patience, unanswered: AtomicUsize::new(0) }
    }

    /// What the provider did under the key.
    ///
    /// # Errors
    /// When it does not answer, or not as its contract says: in words for people.
    pub async fn look_up(&self, payment_id: PaymentId, call: payment::Call, key: Uuid) -> Result<LookupAnswer, String> {
        let asked = ProviderCall { payment_id, idempotency_key: key, operation: Operation::Lookup { call } };
        let mut attempts = 0;
        loop {
            if self.unanswered.load(Ordering::Relaxed) >= AT_ONCE {
                return Err("the provider was not asked: it does not answer".to_owned());
            }
            let reason = match self.attempt(&asked).await {
                Ok(answer) => {
                    self.unanswered.store(0, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(reason) => reason,
            };
            attempts += 1;
            if attempts == ATTEMPTS {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                return Err(reason);
            }
            tokio::time::sleep(WAIT * 2_u32.pow(attempts - 1)).await;
        }
    }

    async fn attempt(&self, asked: &ProviderCall) -> Result<LookupAnswer, String> {
        let answer = request(&self.client, format!("{}.lookup", subject::PROVIDER), asked, self.patience).await;
        let answer = answer.map_err(|e| match e {
            NoAnswer::Silence => "the provider did not answer in time".to_owned(),
            NoAnswer::Failed(reason) => reason,
        })?;
        serde_json::from_slice(&answer).map_err(|e| format!("the provider's answer is malformed: {e}"))
    }
}
