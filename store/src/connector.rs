//! Finds the writable host of a database, and checks that a session there can be relied on.

use crate::connect::{Role, Unusable};
use crate::finding::Finding;
use crate::hosts;
use crate::serving::Serving;
use crate::session::{SETTINGS, Session, is_read_only};
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

/// How long one of several hosts may take to give a usable session.
const HOST_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long only the host that was found last is asked before all of them are. It bounds the wait for a host that is gone
/// without a word, and spares the replicas while the primary answers.
const HEAD_START: Duration = Duration::from_millis(250);
/// How long the two connections may take that find out about a pooler. A small pool may have none left.
const PROBE_TIMEOUT: Duration = Duration::from_millis(750);
// Otherwise a host with a busy pooler would be given up before the pooler is found out about, at each try.
const _: () = assert!(PROBE_TIMEOUT.as_millis() * 2 <= HOST_TIMEOUT.as_millis());
/// How long a call may go without an answer, and the host that was found without being asked, before it is doubted.
pub(crate) const DOUBT: Duration = Duration::from_secs(1);
/// How often the host that was found is asked whether it takes writes.
const WATCH: Duration = Duration::from_millis(500);

/// The SQLSTATEs of refused start-up settings: a name, a value, a right, or any settings at all.
const SETTINGS_REFUSED: [&str; 4] = ["42704", "22023", "42501", "08P01"];

/// A host, without and with Daybook's settings as start-up options.
struct Host {
    plain: PgConnectOptions,
    set: PgConnectOptions,
}

/// A session, with its host and the facts about it.
pub(crate) struct Connected {
    pub(crate) host: usize,
    pub(crate) connection: PgConnection,
    pub(crate) session: Session,
}

impl Connected {
    pub(crate) fn is_writable(&self) -> bool {
        self.session.is_writable()
    }

    /// Which server it ends at: the host, and the server that has this name now.
    pub(crate) fn server(&self) -> (usize, i64) {
        (self.host, self.session.server)
    }
}

/// What stands between the process and Postgres, as far as it can be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooling {
    /// Nothing, or a pooler that gives each session its own server connection, or it could not be found out.
    Session,
    /// Each transaction may have another server connection. `prepared`: the pooler prepares statements there again.
    Transaction { prepared: bool },
}

pub(crate) struct Connector {
    role: Option<Role>,
    settings: Vec<(&'static str, &'static str)>,
    hosts: Vec<Host>,
    serving: Arc<Serving>,
    pooling: OnceCell<Pooling>,
}

impl Connector {
    /// A connector to the hosts of `url`. Without a role, sessions act as the login. `also` adds settings to those of all sessions.
    pub(crate) fn new(
        url: &str,
        role: Option<Role>,
        also: &[(&'static str, &'static str)],
    ) -> Result<Self, sqlx::Error> {
        let settings: Vec<_> = if role.is_some() { SETTINGS.iter().chain(also).copied().collect() } else { vec![] };
        let urls = hosts::each(url);
        let mut hosts = Vec::new();
        for url in &urls {
            let plain: PgConnectOptions = url.parse()?;
            // Poolers refuse it; Postgres has been precise without it since version 12.
            let plain = plain.disable_statement_logging().extra_float_digits(None);
            let plain = plain.application_name(role.map_or("daybook", Role::name));
            let set = plain.clone().options(role.iter().map(|role| ("role", role.name())));
            hosts.push(Host { set: set.options(settings.iter().copied()), plain });
        }
        Ok(Self { role, settings, hosts, serving: Serving::of(urls), pooling: OnceCell::new() })
    }

    pub(crate) fn has_several_hosts(&self) -> bool {
        self.hosts.len() > 1
    }

    pub(crate) fn options_of(&self, host: usize) -> &PgConnectOptions {
        &self.hosts[host].set
    }

    /// The host that was found last.
    pub(crate) fn serving(&self) -> &Serving {
        &self.serving
    }

    /// All hosts, beginning with the one that was found last.
    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, hosts) = (self.serving.host(), self.hosts.len());
        (0..hosts).map(move |n| (first + n) % hosts)
    }

    /// Connects to the host that takes writes. A connector that only reads accepts another host if there is none.
    pub(crate) async fn connect(&self) -> Result<Connected, sqlx::Error> {
        let mut hosts = self.in_turn();
        let first = hosts.next().unwrap_or(0);
        if !self.has_several_hosts() {
            return self.connect_to(first).await;
        }
        // All are asked at the same time, so that several dead hosts take no longer than one.
        let mut asked = FuturesUnordered::from_iter([self.connect_within_limit(first).boxed()]);
        let early = timeout(HEAD_START, asked.next()).await.ok().flatten();
        if !early.as_ref().is_some_and(|(_, asked)| asked.as_ref().is_ok_and(Connected::is_writable)) {
            asked.extend(hosts.map(|host| self.connect_within_limit(host).boxed()));
        }
        let (mut second_best, mut failed): (Option<Connected>, _) = (None, None);
        let mut answers = stream::iter(early).chain(asked);
        while let Some((host, result)) = answers.next().await {
            match result {
                Ok(connected) if connected.is_writable() => {
                    self.serving.is(host);
                    return Ok(connected);
                }
                // It may be promoted: then connections to it are good ones. The one that was found last, rather.
                Ok(connected) if host == first || second_best.is_none() => second_best = Some(connected),
                Ok(_) => {}
                Err(e) => failed = Some(more_telling(failed, e)),
            }
        }
        let connected = second_best.ok_or_else(|| failed.unwrap_or(sqlx::Error::PoolClosed))?;
        self.serving.is(connected.host);
        Ok(connected)
    }

    async fn connect_within_limit(&self, host: usize) -> (usize, Result<Connected, sqlx::Error>) {
        (host, timeout(HOST_TIMEOUT, self.connect_to(host)).await.unwrap_or_else(|_| Err(late())))
    }

    /// Returns once another server than that of `at` takes writes: another host, or another server under the same name. A call
    /// waits for its answer meanwhile: a server that is gone without a word would be waited for until the call's limit, and one
    /// that is merely slow has its time.
    pub(crate) async fn another_than(&self, at: (usize, i64)) -> Connected {
        loop {
            sleep(DOUBT).await;
            if let Ok(Ok(connected)) = timeout(HEAD_START + HOST_TIMEOUT, self.connect()).await
                && connected.server() != at
                && connected.is_writable()
            {
                return connected;
            }
        }
    }

    /// Sees to it that the host that takes writes is known, for the whole process: with one connection, and only while nobody
    /// else does. Never returns.
    pub(crate) async fn watch(&self) {
        let _alone = self.serving.watched().lock().await;
        let mut watched: Option<Connected> = None;
        loop {
            let answers = match &mut watched {
                Some(watched) if watched.host == self.serving.host() => {
                    timeout(DOUBT, is_read_only(&mut watched.connection))
                        .await
                        .is_ok_and(|asked| asked.is_ok_and(|no| !no))
                }
                _ => false,
            };
            if !answers {
                watched = self.connect().await.ok();
            }
            sleep(WATCH).await;
        }
    }

    async fn connect_to(&self, host: usize) -> Result<Connected, sqlx::Error> {
        let mut connection = match self.hosts[host].set.connect().await {
            Ok(connection) => connection,
            Err(e) => return Err(self.why_refused(host, e).await),
        };
        let session = self.admit(&mut connection).await?;
        Ok(Connected { host, connection, session })
    }

    /// Checks a connection that a pool has made, or replaces it by one to the writable host.
    pub(crate) async fn admit_or_replace(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let admitted = self.admit(connection).await;
        let is_primary = admitted.as_ref().is_ok_and(Session::is_writable);
        if !is_primary && self.has_several_hosts() {
            *connection = self.connect().await?.connection;
            return Ok(());
        }
        admitted.map(drop)
    }

    /// Asks for the facts about the session, sets what a pooler has not passed on, and refuses a session that cannot be relied
    /// on.
    async fn admit(&self, connection: &mut PgConnection) -> Result<Session, sqlx::Error> {
        let session = Session::ask(connection, self.role, &self.settings).await?;
        let Some(role) = self.role else {
            refuse(session.to_migrate())?;
            return writable(session);
        };
        refuse(session.database(role))?;
        let session = if session.is_set(role) {
            session
        } else {
            // Behind such a pooler, setting it would not help, and would harm other sessions.
            self.refuse_unfit_pooler().await?;
            sqlx::raw_sql(AssertSqlSafe(self.set(role))).execute(&mut *connection).await?;
            Session::ask(connection, self.role, &self.settings).await?
        };
        refuse(session.findings(role).into_iter().filter(|finding| finding.subject != "writable").collect())?;
        if role == Role::Read { Ok(session) } else { writable(session) }
    }

    /// All of it is a constant of this program.
    fn set(&self, role: Role) -> String {
        let mut statements = format!("SET ROLE {}", role.name());
        for (name, value) in &self.settings {
            statements.push_str(&format!("; SET {name} = '{value}'"));
        }
        statements
    }

    /// Why the start-up settings were refused: a session without them asks the server.
    async fn why_refused(&self, host: usize, error: sqlx::Error) -> sqlx::Error {
        let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default();
        let Some(role) = self.role.filter(|_| SETTINGS_REFUSED.contains(&&*code)) else { return error };
        let Ok(mut connection) = self.hosts[host].plain.connect().await else { return error };
        let Ok(session) = Session::ask(&mut connection, self.role, &self.settings).await else { return error };
        if let Err(refused) = refuse(session.database(role)) {
            return refused;
        }
        Unusable::Unfit(Finding::wrong(
            "pooler",
            format!("the start-up settings are refused ({error})"),
            "behind PgBouncer, set ignore_startup_parameters = options",
        ))
        .into()
    }

    /// Refuses a pooler that gives each transaction another server connection: what a session is set to would be set for
    /// others, and not for it.
    pub(crate) async fn refuse_unfit_pooler(&self) -> Result<(), sqlx::Error> {
        let text = match self.pooling.get_or_try_init(|| self.pooling()).await? {
            Pooling::Session => return Ok(()),
            Pooling::Transaction { prepared: false } => {
                "the pooler is in transaction mode, and does not keep prepared statements (PgBouncer before 1.21, or with \
                 max_prepared_statements = 0)"
            }
            Pooling::Transaction { prepared: true } => {
                "the pooler is in transaction mode, where a session cannot be set"
            }
        };
        Err(Unusable::Unfit(Finding::wrong("pooler", text, "set pool_mode = session")).into())
    }

    /// A session on the host that answers first, without any settings.
    async fn any_session(&self) -> Result<(&PgConnectOptions, PgConnection), sqlx::Error> {
        let connect = async |host: usize| {
            let host = &self.hosts[host].plain;
            let session = timeout(HOST_TIMEOUT, host.connect()).await.unwrap_or_else(|_| Err(late()))?;
            Ok((host, session))
        };
        let mut asked: FuturesUnordered<_> = self.in_turn().map(connect).collect();
        let mut failed = late();
        while let Some(connected) = asked.next().await {
            match connected {
                Ok(connected) => return Ok(connected),
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    /// Whether two open sessions have the same server connection. If so, the answer is certain. If not, a busy pooler may have had
    /// another connection at hand.
    async fn pooling(&self) -> Result<Pooling, sqlx::Error> {
        let (host, mut session) = self.any_session().await?;
        let probed = async {
            let before = backend(&mut session, "SELECT pg_backend_pid()").await?;
            let prepared = async |session: &mut PgConnection| sqlx::query("SELECT 1").execute(session).await;
            let mut kept = prepared(&mut session).await.is_ok();
            let mut other = host.connect().await?;
            // In a transaction it keeps its server connection, whatever the pooler's mode is.
            let held = backend(&mut other, "BEGIN; SELECT pg_backend_pid()").await?;
            if held != before {
                return Ok(Pooling::Session);
            }
            let again = timeout(PROBE_TIMEOUT / 2, prepared(&mut session)).await;
            kept &= matches!(again, Ok(Ok(_)));
            _ = other.close().await;
            Ok::<_, sqlx::Error>(Pooling::Transaction { prepared: kept })
        };
        timeout(PROBE_TIMEOUT, probed).await.unwrap_or(Ok(Pooling::Session))
    }
}

pub(crate) fn late() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// The Postgres process that serves the session.
async fn backend(session: &mut PgConnection, sql: &'static str) -> Result<i32, sqlx::Error> {
    let rows = sqlx::raw_sql(sql).fetch_all(session).await?;
    rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
}

/// The first wrong finding, as an error.
fn refuse(findings: Vec<Finding>) -> Result<(), sqlx::Error> {
    match findings.into_iter().find(Finding::is_wrong) {
        Some(finding) => Err(Unusable::Unfit(finding).into()),
        None => Ok(()),
    }
}

fn writable(session: Session) -> Result<Session, sqlx::Error> {
    let finding = session.writable();
    if finding.is_wrong() { Err(Unusable::ReadOnly(finding).into()) } else { Ok(session) }
}

/// Of the errors of several hosts, the one that an operator can do most about.
fn more_telling(before: Option<sqlx::Error>, error: sqlx::Error) -> sqlx::Error {
    let weight = |error: &sqlx::Error| match Unusable::of(error) {
        Some(Unusable::Unfit(_)) => 2,
        Some(Unusable::ReadOnly(_)) => 1,
        None => 0,
    };
    match before {
        Some(before) if weight(&before) >= weight(&error) => before,
        _ => error,
    }
}
