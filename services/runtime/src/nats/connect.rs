//! A connection to NATS, which is made again for ever, should it be lost.

use super::settings::{Connection, Login, SettingsError};
use crate::alarm::Alarm;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long it takes at least until all servers have been tried once more.
const ROUND: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(
        "NATS at {servers} refuses the login ({login}): {source}. See NATS_USER, NATS_CREDS and the others in `daybook help`"
    )]
    Refused { servers: String, login: &'static str, source: async_nats::ConnectError },
    #[error("the file of NATS_CREDS cannot be used: {0}")]
    Creds(std::io::Error),
    #[error("NATS at {servers} cannot be reached: {source}")]
    Unreachable { servers: String, source: async_nats::ConnectError },
}

impl Login {
    /// For people; it says nothing that is secret.
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password { .. } => "user and password",
            Self::Token(_) => "token",
            Self::Nkey(_) => "nkey",
            Self::Creds(_) => "credentials",
        }
    }
}

impl Connection {
    /// Connects, under a name that operators see; reconnects for ever, should the connection be lost.
    ///
    /// # Errors
    /// When no server can be reached now, or the login is refused.
    pub async fn connect(&self, name: &str) -> Result<Client, NatsError> {
        let pacing = Arc::new(Pacing::new(self.servers.len()));
        let warnings = Arc::new(Warnings::default());
        let mut options = ConnectOptions::new()
            .name(name)
            .max_reconnects(None)
            .custom_inbox_prefix(&self.inbox_prefix)
            .reconnect_delay_callback(move |_| pacing.next(Instant::now()))
            .event_callback(move |event| {
                let warnings = warnings.clone();
                async move { warnings.tell(&event) }
            });
        options = match &self.login {
            Login::None => options,
            Login::Password { user, password } => options.user_and_password(user.clone(), password.reveal().to_owned()),
            Login::Token(token) => options.token(token.reveal().to_owned()),
            Login::Nkey(seed) => options.nkey(seed.reveal().to_owned()),
            Login::Creds(creds) => options.credentials(creds.reveal()).map_err(NatsError::Creds)?,
        };
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &self.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        options.connect(&self.servers[..]).await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: async_nats::ConnectError) -> NatsError {
        let server = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
        let servers = self.servers.iter().map(server).collect::<Vec<_>>().join(", ");
        match source.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                NatsError::Refused { servers, login: self.login.kind(), source }
            }
            _ => NatsError::Unreachable { servers, source },
        }
    }
}

/// What is told now and then.
#[derive(Default)]
struct Warnings {
    refused: Alarm,
    slow: Alarm,
}

impl Warnings {
    /// What the server says unasked. A publish that it does not permit shows nowhere else.
    fn tell(&self, event: &Event) {
        match event {
            Event::ServerError(error) => {
                if let Some(times) = self.refused.rings() {
                    tracing::warn!(target: "daybook::nats", %error, times, "NATS does not permit it: see the user's rights, and NATS_INBOX_PREFIX");
                }
            }
            Event::SlowConsumer(_) => {
                if let Some(times) = self.slow.rings() {
                    tracing::warn!(target: "daybook::nats", times, "messages came faster than they were taken, and were lost");
                }
            }
            event => tracing::debug!(target: "daybook::nats", %event),
        }
    }
}

/// When servers are tried: all of them at once, and then no faster than a round at a time. A server that lets a connection
/// in and ends it at once is not asked without a rest, either.
struct Pacing {
    servers: usize,
    /// When the last attempts, one a server, were allowed.
    attempts: Mutex<VecDeque<Instant>>,
}

impl Pacing {
    fn new(servers: usize) -> Self {
        Self { servers: servers.max(1), attempts: Mutex::default() }
    }

    /// How long the next attempt has to wait.
    fn next(&self, now: Instant) -> Duration {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = now;
        if attempts.len() == self.servers
            && let Some(oldest) = attempts.pop_front()
        {
            at = at.max(oldest + ROUND);
        }
        attempts.push_back(at);
        at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The delay is asked for before the first attempt as well: each use of the command line would pay it.
    #[test]
    fn the_first_attempts_wait_for_nothing() {
        let (pacing, now) = (Pacing::new(2), Instant::now());
        let waits: Vec<_> = (0..5).map(|_| pacing.next(now)).collect();
        assert_eq!(waits, [Duration::ZERO, Duration::ZERO, ROUND, ROUND, ROUND * 2]);
        assert_eq!(pacing.next(now + ROUND * 9), Duration::ZERO);
    }
}
