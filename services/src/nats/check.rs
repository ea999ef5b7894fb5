//! What `daybook doctor` asks NATS: whether this process may come in, and whether JetStream is as Daybook relies on it.

use super::settings::{Connection, Nats};
use crate::{js, subject};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode, stream};
use serde::Serialize;
use std::time::Duration;

/// How long NATS may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Fine,
    /// Daybook runs, with less than it could have.
    Warning,
    /// Daybook, or a part of it, does not run.
    Wrong,
}

/// What was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub found: String,
    /// Empty, if it is fine.
    pub remedy: String,
}

impl Finding {
    fn fine(found: impl Into<String>) -> Self {
        Self { level: Level::Fine, found: found.into(), remedy: String::new() }
    }

    fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, found: found.into(), remedy: remedy.into() }
    }

    fn wrong(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Wrong, found: found.into(), remedy: remedy.into() }
    }
}

/// Asks NATS as this process, and as its relay if that is another user.
pub async fn check(nats: &Nats) -> Vec<Finding> {
    let mut findings = check_login("this process", &nats.process).await;
    let Ok(client) = nats.relay.connect("daybook doctor").await else {
        findings.extend(check_login("the relay", &nats.relay).await);
        return findings;
    };
    if nats.relay.login != nats.process.login {
        findings.push(Finding::fine("NATS lets the relay in"));
    }
    findings.push(check_payload(client.max_payload()));
    let mut context = jetstream::new(client);
    context.set_timeout(PATIENCE);
    findings.extend(check_stream(&context, nats.replicas).await);
    findings
}

async fn check_login(who: &str, connection: &Connection) -> Vec<Finding> {
    match connection.connect("daybook doctor").await {
        Ok(client) => {
            let info = client.server_info();
            vec![Finding::fine(format!("NATS {} at {}:{} lets {who} in", info.version, info.host, info.port))]
        }
        Err(error) => vec![Finding::wrong(
            format!("NATS does not let {who} in: {error}"),
            "check NATS_URL, and the login's settings: `daybook help` lists them",
        )],
    }
}

fn check_payload(max_payload: usize) -> Finding {
    if max_payload >= js::MAX_MESSAGE {
        return Finding::fine(format!("messages may have {max_payload} bytes"));
    }
    Finding::wrong(
        format!("messages may have {max_payload} bytes, and an event may need {}", js::MAX_MESSAGE),
        format!("set max_payload to {} or more in nats-server's configuration", js::MAX_MESSAGE),
    )
}

async fn check_stream(context: &Context, replicas: Option<usize>) -> Vec<Finding> {
    match context.get_stream(subject::STREAM).await {
        Ok(stream) => check_config(&stream.cached_info().config, replicas),
        Err(error) => vec![match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => Finding::warning(
                format!("JetStream has no stream {}", subject::STREAM),
                "run `daybook serve --role relay`: the relay makes it from the log",
            ),
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                Finding::wrong("JetStream is not enabled for the account", "write `jetstream: enabled` in the account")
            }
            _ => Finding::wrong(
                format!("JetStream does not answer: {error}"),
                "enable JetStream in nats-server's configuration, and let the relay's user publish on \
                 $JS.API.STREAM.INFO.DAYBOOK and subscribe to its inbox (NATS_INBOX_PREFIX): see deploy/nats/daybook.conf",
            ),
        }],
    }
}

fn check_config(config: &stream::Config, replicas: Option<usize>) -> Vec<Finding> {
    let log = match js::identity(config) {
        Some(log) => Finding::fine(format!("the stream carries the log {}, epoch {}", log.log_id, log.epoch)),
        None => Finding::wrong(
            format!("the stream {} does not say which log it carries", subject::STREAM),
            "it is not Daybook's: remove or rename it, and the relay makes its own",
        ),
    };
    let found = config.num_replicas;
    let kept = match replicas {
        Some(wanted) if wanted != found => Finding::warning(
            format!("the stream is kept on {found} servers, and NATS_REPLICAS is {wanted}"),
            "start the relay with that setting, on a cluster of as many servers",
        ),
        _ => Finding::fine(format!("the stream is kept on {found} servers")),
    };
    vec![log, kept]
}
