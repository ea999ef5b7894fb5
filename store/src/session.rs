//! What a session on Postgres is like: asked on each connect, and judged. Nothing of it is taken for granted, for a pooler
//! drops start-up settings in silence, and behind an address there may be another server than yesterday.

use crate::connect::Role;
use crate::finding::Finding;
use crate::schema::{self, Applied};
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Either, Row};

/// How long a statement may take before Postgres ends it. It bounds what a stopped or dead client can hold up.
const STATEMENT_TIMEOUT: &str = "10s";

/// What every session of Daybook is set to, as Postgres shows it.
pub const SETTINGS: [(&str, &str); 8] = [
    // An acknowledgement is durability, and append_group relies on a snapshot a statement; whatever the server's or the
    // login's defaults are.
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", STATEMENT_TIMEOUT),
    ("transaction_timeout", STATEMENT_TIMEOUT),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("client_connection_check_interval", "1s"),
];

/// `transaction_timeout` came with it.
const LEAST_VERSION: i32 = 170_000;

/// What Postgres says when the function that is asked for the applied migrations is not there: the function, a table that it
/// reads, or their schema.
const NO_SCHEMA: [&str; 3] = ["42883", "42P01", "3F000"];
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// One row, whatever the server's version and the login's rights are.
const FACTS: &str = "
    SELECT current_user::text AS acting, session_user::text AS login,
           current_setting('server_version_num')::int AS version_number, current_setting('server_version') AS version,
           current_setting('server_encoding') AS server_encoding, current_setting('client_encoding') AS client_encoding,
           (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS server,
           pg_is_in_recovery() AS in_recovery, current_setting('transaction_read_only') = 'on' AS read_only,
           current_setting('fsync') = 'on' AS fsync, current_setting('full_page_writes') = 'on' AS full_page_writes,
           (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
           coalesce(pg_has_role(current_user, to_regrole('daybook_owner'), 'USAGE'), false) AS owns,
           EXISTS (SELECT FROM pg_class WHERE relname = 'events' AND relnamespace = to_regnamespace('daybook'))
           AND NOT EXISTS (SELECT FROM pg_class WHERE relname = 'log_migrations'
                                                  AND relnamespace = to_regnamespace('daybook')) AS too_old";

/// Where the schema stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Schema {
    /// There is none.
    Missing,
    /// It has events, but no table of migrations of this build's.
    TooOld,
    /// Who asks may not know: it does not act in its role (yet).
    Untold,
    Has(Vec<Applied>),
}

/// What a session is like.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// When the server was started, in microseconds: by that it is told from another one at the same address.
    pub(crate) server: i64,
    acting: String,
    login: String,
    version_number: i32,
    version: String,
    server_encoding: String,
    client_encoding: String,
    in_recovery: bool,
    read_only: bool,
    fsync: bool,
    full_page_writes: bool,
    superuser: bool,
    owns: bool,
    /// Whether the login may act in the role, if there is such a role.
    member: Option<bool>,
    /// Whether the session has its rights.
    acts: bool,
    /// Those that are not as they are to be, each with its value.
    unset: Vec<(&'static str, Option<String>)>,
    schema: Schema,
}

impl Session {
    /// Asks in one round trip, whatever the answer is.
    pub(crate) async fn ask(
        connection: &mut PgConnection,
        role: Option<Role>,
        settings: &[(&'static str, &'static str)],
    ) -> Result<Self, sqlx::Error> {
        // All of it is a constant of this program.
        let names: Vec<String> = settings.iter().map(|(name, _)| format!("'{name}'")).collect();
        let role = role.map_or("NULL::oid".to_owned(), |role| format!("to_regrole('{}')", role.name()));
        let questions = format!(
            "{FACTS}, pg_has_role(session_user, {role}, 'MEMBER') AS member,
                      coalesce(pg_has_role(current_user, {role}, 'USAGE'), false) AS acts;
             SELECT name AS setting, current_setting(name, true) AS value FROM unnest(ARRAY[{}]::text[]) AS name;
             SELECT part, least_known, version, success, checksum FROM daybook.applied_migrations()",
            names.join(", ")
        );
        let mut answers = sqlx::raw_sql(AssertSqlSafe(questions)).fetch_many(connection);
        let mut rows = Vec::new();
        let failed = loop {
            match answers.try_next().await {
                Ok(Some(Either::Right(row))) => rows.push(row),
                Ok(Some(Either::Left(_))) => {}
                Ok(None) => break None,
                Err(e) => break Some(e),
            }
        };
        let code = failed.as_ref().and_then(|e| e.as_database_error()).and_then(|e| e.code()).unwrap_or_default();
        let unanswered = match failed {
            // It was the last question.
            Some(_) if NO_SCHEMA.contains(&&*code) => Schema::Missing,
            Some(_) if code == INSUFFICIENT_PRIVILEGE => Schema::Untold,
            Some(e) => return Err(e),
            None => Schema::Missing,
        };
        Self::of(&rows, settings, unanswered)
    }

    fn of(rows: &[PgRow], settings: &[(&'static str, &'static str)], unanswered: Schema) -> Result<Self, sqlx::Error> {
        let Some((facts, rest)) = rows.split_first() else { return Err(sqlx::Error::RowNotFound) };
        let (values, schema) = rest.split_at(settings.len().min(rest.len()));
        let mut unset = Vec::new();
        for (row, (name, wanted)) in values.iter().zip(settings) {
            let value: Option<String> = row.try_get("value")?;
            // It is more than "on".
            let stronger = *name == "synchronous_commit" && value.as_deref() == Some("remote_apply");
            if value.as_deref() != Some(*wanted) && !stronger {
                unset.push((*name, value));
            }
        }
        let schema = match schema.iter().map(applied).collect::<Result<Vec<_>, _>>()? {
            _ if facts.try_get("too_old")? => Schema::TooOld,
            applied if applied.is_empty() => unanswered,
            applied => Schema::Has(applied),
        };
        Ok(Self {
            server: facts.try_get("server")?,
            acting: facts.try_get("acting")?,
            login: facts.try_get("login")?,
            version_number: facts.try_get("version_number")?,
            version: facts.try_get("version")?,
            server_encoding: facts.try_get("server_encoding")?,
            client_encoding: facts.try_get("client_encoding")?,
            in_recovery: facts.try_get("in_recovery")?,
            read_only: facts.try_get("read_only")?,
            fsync: facts.try_get("fsync")?,
            full_page_writes: facts.try_get("full_page_writes")?,
            superuser: facts.try_get("superuser")?,
            owns: facts.try_get("owns")?,
            member: facts.try_get("member")?,
            acts: facts.try_get("acts")?,
            unset,
            schema,
        })
    }

    /// Whether it takes what is written.
    pub(crate) fn is_writable(&self) -> bool {
        !self.in_recovery && !self.read_only
    }

    /// Whether it acts in the role, with the settings of Daybook.
    pub(crate) fn is_set(&self, role: Role) -> bool {
        self.unset.is_empty() && self.acts_in(role)
    }

    /// Whether it has the rights of the role and not those of everybody.
    fn acts_in(&self, role: Role) -> bool {
        self.acts && !self.superuser && (role == Role::Owner || !self.owns)
    }

    /// What makes it no server for Daybook, whatever the session is set to.
    fn server(&self) -> Vec<Finding> {
        vec![self.version(), self.encoding()]
    }

    /// What makes it no database to migrate.
    pub(crate) fn to_migrate(&self) -> Vec<Finding> {
        let mut findings = self.server();
        if self.schema == Schema::TooOld {
            findings.push(self.schema());
        }
        findings
    }

    /// What makes it no server for a session in `role`, whatever that is set to.
    pub(crate) fn database(&self, role: Role) -> Vec<Finding> {
        let mut findings = self.server();
        findings.push(self.membership(role));
        if self.schema != Schema::Untold {
            findings.push(self.schema());
        }
        findings
    }

    /// All that there is to say of it, once it is set.
    pub(crate) fn findings(&self, role: Role) -> Vec<Finding> {
        let mut findings = self.server();
        findings.extend([
            self.membership(role),
            self.role(role),
            self.settings(),
            self.schema(),
            self.durability(),
            self.writable(),
        ]);
        findings
    }

    fn version(&self) -> Finding {
        let text = format!("the server is PostgreSQL {}", self.version);
        if self.version_number >= LEAST_VERSION {
            return Finding::ok("version", text);
        }
        Finding::wrong("version", text, format!("use PostgreSQL {} or newer", LEAST_VERSION / 10_000))
    }

    fn encoding(&self) -> Finding {
        let text = format!("the database's encoding is {}", self.server_encoding);
        if self.server_encoding != "UTF8" {
            return Finding::wrong("encoding", text, "create one with ENCODING 'UTF8'");
        }
        if self.client_encoding != "UTF8" {
            let text = format!("the session's client_encoding is {}", self.client_encoding);
            let remedy = format!("run ALTER ROLE {} SET client_encoding = 'UTF8'", self.login);
            return Finding::wrong("encoding", text, remedy);
        }
        Finding::ok("encoding", text)
    }

    fn schema(&self) -> Finding {
        match &self.schema {
            Schema::Has(applied) => schema::judge(applied),
            Schema::Missing => {
                Finding::wrong("schema", "the database has no schema of Daybook", "run `daybook migrate`")
            }
            Schema::TooOld => schema::too_old(),
            Schema::Untold => {
                Finding::wrong("schema", format!("{} may not ask for the schema's migrations", self.acting), USE_LOGINS)
            }
        }
    }

    fn membership(&self, role: Role) -> Finding {
        let (name, login) = (role.name(), &self.login);
        match self.member {
            Some(true) => Finding::ok("rights", format!("{login} may act as {name}")),
            Some(false) => Finding::wrong(
                "rights",
                format!("{login} may not act as {name}"),
                format!("run GRANT {name} TO {login}, or log in as another"),
            ),
            None => Finding::wrong("schema", format!("the server has no role {name}"), "run `daybook migrate`"),
        }
    }

    fn role(&self, role: Role) -> Finding {
        let (acting, name) = (&self.acting, role.name());
        if self.acts_in(role) {
            return Finding::ok("role", format!("the session acts as {acting}, with the rights of {name}"));
        }
        Finding::wrong("role", format!("the session acts as {acting}, and not as {name}"), USE_LOGINS)
    }

    fn settings(&self) -> Finding {
        if self.unset.is_empty() {
            return Finding::ok("settings", "the session is set as Daybook relies on");
        }
        let shown = |(name, value): &(&str, Option<String>)| match value {
            Some(value) => format!("{name} is '{value}'"),
            None => format!("{name} is unknown"),
        };
        let unset: Vec<String> = self.unset.iter().map(shown).collect();
        Finding::wrong("settings", unset.join(", "), USE_LOGINS)
    }

    fn durability(&self) -> Finding {
        let off: Vec<&str> = [("fsync", self.fsync), ("full_page_writes", self.full_page_writes)]
            .into_iter()
            .filter_map(|(name, on)| (!on).then_some(name))
            .collect();
        if off.is_empty() {
            return Finding::ok("durability", "fsync and full_page_writes are on");
        }
        Finding::warning(
            "durability",
            format!("{}: off. An acknowledged command is lost if the machine fails", off.join(", ")),
            "switch it on in postgresql.conf",
        )
    }

    pub(crate) fn writable(&self) -> Finding {
        let text = match (self.in_recovery, self.read_only) {
            (true, _) => "the server is a replica, which takes no writes",
            (false, true) => "the server is read-only",
            (false, false) => return Finding::ok("writable", "the server takes writes"),
        };
        Finding::wrong("writable", text, "name the primary in DATABASE_URL, or all hosts in DATABASE_HOSTS")
    }
}

/// What to do where a pooler does not pass settings on.
const USE_LOGINS: &str = "log in as one of the roles that `daybook migrate --logins` makes (see docs/operations.md)";

/// A row of `daybook.applied_migrations()`.
fn applied(row: &PgRow) -> Result<Applied, sqlx::Error> {
    Ok(Applied {
        part: row.try_get("part")?,
        least_known: row.try_get("least_known")?,
        version: row.try_get("version")?,
        success: row.try_get("success")?,
        checksum: row.try_get("checksum")?,
    })
}

/// Whether the server takes no writes (now). One round trip of the simplest kind.
pub(crate) async fn is_read_only(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::raw_sql("SHOW transaction_read_only").fetch_one(connection).await?;
    Ok(row.try_get::<String, _>(0)? == "on")
}
