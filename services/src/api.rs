//! What the NATS services have in common: endpoints in a queue group, each request handled on its own, one reply shape.

use crate::wire::{Code, ErrorBody};
use async_nats::client::PublishErrorKind;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{self, NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Request, ServiceExt};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many fields at fault an answer names.
const MAX_FAULTS: usize = 50;
/// How many requests of an endpoint are handled at once; what comes beyond waits in NATS' client.
const AT_ONCE: usize = 1024;

/// A NATS service, discoverable by `$SRV.INFO`, whose instances share the work.
pub struct Service {
    service: service::Service,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Service {
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn new(client: &Client, name: &str, description: &str) -> Result<Self, async_nats::Error> {
        let builder = client.service_builder().description(description).queue_group(name);
        let service = builder.start(name, env!("CARGO_PKG_VERSION")).await?;
        Ok(Self { service, tasks: TaskTracker::new(), stopping: CancellationToken::new() })
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
        let name = verb.replace('.', "-");
        let endpoint = self.service.group(group).endpoint_builder().name(name).add(verb).await?;
        self.tasks.spawn(serve(endpoint, handle, self.tasks.clone(), self.stopping.clone()));
        Ok(())
    }

    /// Takes nothing new, and returns when every request that was taken is answered.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        _ = self.service.stop().await;
    }
}

async fn serve<F, R>(mut endpoint: Endpoint, handle: F, tasks: TaskTracker, stopping: CancellationToken)
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut open = true;
    loop {
        let next = match open {
            true => match stopping.run_until_cancelled(endpoint.next()).await {
                Some(next) => next,
                None => {
                    // What NATS has handed over by now is still answered; then the stream ends.
                    _ = endpoint.stop().await;
                    open = false;
                    continue;
                }
            },
            false => endpoint.next().await,
        };
        let Some(request) = next else { return };
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let handled = handle(request);
        tasks.spawn(async move {
            handled.await;
            drop(permit);
        });
    }
}

/// Answers a request: with the value, or with the error body and NATS' own error headers.
pub async fn respond(request: &Request, answer: Result<impl Serialize, ErrorBody>) {
    let answer = answer.and_then(|value| {
        serde_json::to_vec(&value).map_err(|e| ErrorBody::new(Code::Internal, format!("the answer: {e}")))
    });
    let sent = match answer {
        Ok(body) => match request.respond(Ok(body.into())).await {
            Err(e) if e.kind() == PublishErrorKind::MaxPayloadExceeded => respond_error(request, too_large()).await,
            sent => sent.map_err(|e| e.to_string()),
        },
        Err(error) => respond_error(request, error).await,
    };
    if let Err(error) = sent {
        tracing::warn!(subject = %request.message.subject, error, "an answer could not be sent");
    }
}

/// NATS carries no message as large as that, and a part of it would be no answer.
pub(crate) fn too_large() -> ErrorBody {
    let message = "the answer is larger than NATS' max_payload: ask for less, or have max_payload raised";
    ErrorBody { recorded: None, ..ErrorBody::new(Code::TooLarge, message) }
}

/// NATS' own way to answer an error leaves the body empty; this one has the same headers and says more.
async fn respond_error(request: &Request, mut error: ErrorBody) -> Result<(), String> {
    // Where all is wrong, there would be more to say than what was sent.
    error.fields.truncate(MAX_FAULTS);
    let body = serde_json::to_vec(&error).map_err(|e| e.to_string())?;
    let mut headers = HeaderMap::new();
    // A header is one line.
    headers.insert(NATS_SERVICE_ERROR, error.message.replace(char::is_control, " "));
    headers.insert(NATS_SERVICE_ERROR_CODE, error.code.status().to_string());
    request.respond_with_headers(Ok(body.into()), headers).await.map_err(|e| e.to_string())
}
