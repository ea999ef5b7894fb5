//! What `daybook doctor` asks NATS: whether this process may come in, and whether JetStream is as Daybook relies on it.

use super::settings::{Connection, Nats};
use crate::{message, subject};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode, stream};
use std::time::Duration;
use store::Finding;

/// How long NATS may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the findings are about.
const NATS: &str = "nats";

/// Asks NATS as this process, and as its relay if that is another user.
pub async fn check(nats: &Nats) -> Vec<Finding> {
    let mut findings = check_login("this process", &nats.process).await;
    if findings.iter().any(Finding::is_wrong) && nats.relay.login == nats.process.login {
        return findings;
    }
    let Ok(client) = nats.relay.connect("daybook doctor").await else {
        findings.extend(check_login("the relay", &nats.relay).await);
        return findings;
    };
    if nats.relay.login != nats.process.login {
        findings.push(Finding::ok(NATS, "NATS lets the relay in"));
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
            vec![Finding::ok(NATS, format!("NATS {} at {}:{} lets {who} in", info.version, info.host, info.port))]
        }
        Err(error) => vec![Finding::wrong(
            NATS,
            format!("NATS does not let {who} in: {error}"),
            "check NATS_URL, and the login's settings: `daybook help` lists them",
        )],
    }
}

fn check_payload(max_payload: usize) -> Finding {
    if max_payload >= message::MAX_MESSAGE {
        return Finding::ok(NATS, format!("messages may have {max_payload} bytes"));
    }
    Finding::wrong(
        NATS,
        format!("messages may have {max_payload} bytes, and an event may need {}", message::MAX_MESSAGE),
        format!("set max_payload to {} or more in nats-server's configuration", message::MAX_MESSAGE),
    )
}

async fn check_stream(context: &Context, replicas: Option<usize>) -> Vec<Finding> {
    match context.get_stream(subject::STREAM).await {
        Ok(stream) => check_config(&stream.cached_info().config, replicas),
        Err(error) => vec![match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => Finding::warning(
                NATS,
                format!("JetStream has no stream {}", subject::STREAM),
                "run `daybook serve --role relay`: the relay makes it from the log",
            ),
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                Finding::wrong(
                    NATS,
                    "JetStream is not enabled for the account",
                    "write `jetstream: enabled` in the account",
                )
            }
            _ => Finding::wrong(
                NATS,
                format!("JetStream does not answer: {error}"),
                "enable JetStream in nats-server's configuration, and let the relay's user publish on \
                 $JS.API.STREAM.INFO.DAYBOOK and subscribe to its inbox (NATS_INBOX_PREFIX): see deploy/nats/daybook.conf",
            ),
        }],
    }
}

fn check_config(config: &stream::Config, replicas: Option<usize>) -> Vec<Finding> {
    let log = match message::identity(config) {
        Some(log) => Finding::ok(NATS, format!("the stream carries the log {}, epoch {}", log.log_id, log.epoch)),
        None => Finding::wrong(
            NATS,
            format!("the stream {} does not say which log it carries", subject::STREAM),
            "it is not Daybook's: remove or rename it, and the relay makes its own",
        ),
    };
    let found = config.num_replicas;
    let kept = match replicas {
        Some(wanted) if wanted != found => Finding::warning(
            NATS,
            format!("the stream is kept on {found} servers, and NATS_REPLICAS is {wanted}"),
            match wanted < found {
                true => "to lower the number, run `daybook reconcile` with that setting",
                false => "start the relay with that setting, on a cluster of as many servers, all of which run",
            },
        ),
        _ => Finding::ok(NATS, format!("the stream is kept on {found} servers")),
    };
    vec![log, kept]
}
