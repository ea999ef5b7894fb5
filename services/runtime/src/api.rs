//! What the NATS services have in common: endpoints in a queue group, each request handled on its own, one reply shape,
//! discovery as NATS defines it (`api/discovery.rs`), and one door that every answer goes through.

mod discovery;

use crate::nats::Replies;
use crate::percent;
use crate::wire::{Code, ErrorBody};
use async_nats::{Client, HeaderMap, Message, Subscriber};
use discovery::{Discovery, Endpoint};
use futures_util::StreamExt;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How NATS services flag an error: what went wrong, and its number.
pub const NATS_SERVICE_ERROR: &str = "Nats-Service-Error";
pub const NATS_SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";

/// How many fields at fault an answer names.
const MAX_FAULTS: usize = 50;
/// How many requests of an endpoint are handled at once; what comes beyond waits in NATS' client.
const AT_ONCE: usize = 1024;
/// How long an endpoint that ends waits for the server to say that it sends nothing more.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// Where requests come in, and where their answers may go.
#[derive(Clone)]
pub struct Door {
    pub client: Client,
    pub replies: Replies,
}

/// Answers to any inbox.
impl From<&Client> for Door {
    fn from(client: &Client) -> Self {
        Self { client: client.clone(), replies: Replies::default() }
    }
}

/// A request that can be answered.
pub struct Request {
    pub message: Message,
    client: Client,
    endpoint: Arc<Endpoint>,
    begun: Instant,
}

/// A NATS service, discoverable by `$SRV.INFO`, whose instances share the work.
pub struct Service {
    door: Door,
    discovery: Arc<Discovery>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Service {
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn new(door: Door, name: &str, description: &str) -> Result<Self, async_nats::Error> {
        let (discovery, tasks, stopping) =
            (Discovery::new(name, description), TaskTracker::new(), CancellationToken::new());
        let discovery = Arc::new(discovery);
        let asked = discovery.subscribe(&door.client).await?;
        let answering = discovery.clone().answer(asked, door.clone());
        let stopped = stopping.clone();
        tasks.spawn(async move { _ = stopped.run_until_cancelled(answering).await });
        Ok(Self { door, discovery, tasks, stopping })
    }

    /// Answers `<group>.<verb>` by `handle`, which must respond to its request.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn endpoint<F, R>(&mut self, group: &str, verb: &str, handle: F) -> Result<(), async_nats::Error>
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let subject = format!("{group}.{verb}");
        let requests = self.door.client.queue_subscribe(subject.clone(), self.discovery.name().to_owned()).await?;
        let endpoint = self.discovery.add(verb.replace('.', "-"), subject);
        let serving = Serving { requests, endpoint, door: self.door.clone() };
        self.tasks.spawn(serving.run(handle, self.tasks.clone(), self.stopping.clone()));
        Ok(())
    }

    /// Takes nothing new, and returns when every request that NATS has sent to it is answered.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A service that nobody holds any more takes nothing new.
impl Drop for Service {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// The requests of an endpoint.
struct Serving {
    requests: Subscriber,
    endpoint: Arc<Endpoint>,
    door: Door,
}

impl Serving {
    async fn run<F, R>(mut self, handle: F, tasks: TaskTracker, stopping: CancellationToken)
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut open = true;
        loop {
            let next = match open {
                true => match stopping.run_until_cancelled(self.requests.next()).await {
                    Some(next) => next,
                    None => {
                        self.end().await;
                        open = false;
                        continue;
                    }
                },
                false => self.requests.next().await,
            };
            let Some(message) = next else { return };
            if !self.door.replies.admit(&message) {
                self.endpoint.refused();
                continue;
            }
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let (client, endpoint) = (self.door.client.clone(), self.endpoint.clone());
            let handled = handle(Request { message, client, endpoint, begun: Instant::now() });
            tasks.spawn(async move {
                handled.await;
                drop(permit);
            });
        }
    }

    /// Has the server send nothing more, and returns when all requests that it has sent are here.
    ///
    /// async-nats 0.51 forgets a subscription at `unsubscribe`, and at `drain` when it next reads, without waiting for the
    /// server. It drops the requests that are still on their way, and nobody answers them. With a limit it keeps the
    /// subscription until the limit is reached. nats-server reads no limit of more than nine digits: it ends the subscription
    /// at once. A server that reads it sends on, until `unsubscribe`.
    async fn end(&mut self) {
        _ = self.requests.unsubscribe_after(u64::MAX).await;
        let client = &self.door.client;
        // Nobody listens there. The server says so after the requests that it has sent.
        let answered = client.request(client.new_inbox(), "".into());
        _ = tokio::time::timeout(ROUND_TRIP, answered).await;
        _ = self.requests.unsubscribe().await;
    }
}

/// Answers a request: with the value, or with the error body and NATS' own error headers.
pub async fn respond(request: &Request, answer: Result<impl Serialize, ErrorBody>) {
    let answer = answer.and_then(|value| {
        serde_json::to_vec(&value).map_err(|e| ErrorBody::new(Code::Internal, format!("the answer: {e}")))
    });
    let (headers, body, error) = match answer {
        Ok(body) if body.len() > request.client.max_payload() => error_answer(too_large()),
        Ok(body) => (HeaderMap::new(), body, None),
        Err(error) => error_answer(error),
    };
    let Request { message, client, endpoint, begun } = request;
    endpoint.answered(begun.elapsed(), error.map(|error| (error.code.status(), error.message)));
    let Some(reply) = message.reply.clone() else { return };
    let sent = match headers.is_empty() {
        true => client.publish(reply, body.into()).await,
        false => client.publish_with_headers(reply, headers, body.into()).await,
    };
    if let Err(error) = sent {
        tracing::warn!(subject = %message.subject, %error, "an answer could not be sent");
    }
}

/// NATS carries no message as large as that, and a part of it would be no answer.
pub fn too_large() -> ErrorBody {
    let message = "the answer is larger than NATS' max_payload: ask for less, or have max_payload raised";
    ErrorBody { recorded: None, ..ErrorBody::new(Code::TooLarge, message) }
}

/// NATS' own way to answer an error leaves the body empty; this one has the same headers and says more.
fn error_answer(mut error: ErrorBody) -> (HeaderMap, Vec<u8>, Option<ErrorBody>) {
    // Where all is wrong, there would be more to say than what was sent.
    error.fields.truncate(MAX_FAULTS);
    (error_headers(&error), serde_json::to_vec(&error).unwrap_or_default(), Some(error))
}

fn error_headers(error: &ErrorBody) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_SERVICE_ERROR, percent::encoded_sentence(&error.message));
    headers.insert(NATS_SERVICE_ERROR_CODE, error.code.status().to_string());
    headers
}

/// What the error header of an answer says, if it has one: in ours what is not ASCII is encoded, in others' perhaps not.
pub fn error_of(answer: &Message) -> Option<String> {
    let error = answer.headers.as_ref()?.get(NATS_SERVICE_ERROR)?;
    Some(percent::decoded_or_raw(error.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some clients lose all headers of a message that has one beyond ASCII. Others' services write theirs as they like.
    #[test]
    fn an_errors_header_is_ascii_and_is_read_in_both_forms() {
        let error = ErrorBody::new(Code::Invalid, "Zoë\nhas 100 % of \u{202E}it");
        let answer = |headers| Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: "".into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        let ours = answer(error_headers(&error));
        let header = ours.headers.as_ref().and_then(|headers| headers.get(NATS_SERVICE_ERROR)).unwrap().as_str();
        assert_eq!(header, "Zo%C3%AB%0Ahas 100 %25 of %E2%80%AEit");
        assert_eq!(error_of(&ours), Some(error.message));
        let mut raw = HeaderMap::new();
        raw.insert(NATS_SERVICE_ERROR, "Zoë has 100 %");
        assert_eq!(error_of(&answer(raw)).as_deref(), Some("Zoë has 100 %"));
        assert_eq!(error_of(&answer(HeaderMap::new())), None);
    }
}
