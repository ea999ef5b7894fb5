//! Where NATS is, who this process is there, and which subjects it answers to: from flags, the environment and files.
//! Secrets come from the environment or from files, never from flags: those can be seen by everybody on the machine.

use super::replies::{INBOX, Replies, check_prefix};
use crate::percent;
use async_nats::ServerAddr;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// The settings of NATS beside its URL. They are left out of the help of each verb, and listed in that of `daybook`.
#[derive(Clone, Default, clap::Args)]
pub struct Args {
    /// A file with these settings, in the form of a context of the `nats` command line (JSON). Any other setting takes
    /// precedence.
    #[arg(long, env = "NATS_CONTEXT_FILE", value_name = "FILE", global = true, hide = true)]
    nats_context_file: Option<PathBuf>,
    /// Another such file for the relay's connection, so that the relay has its own login.
    #[arg(long, env = "NATS_RELAY_CONTEXT_FILE", value_name = "FILE", global = true, hide = true)]
    nats_relay_context_file: Option<PathBuf>,
    /// The user. Its password is in NATS_PASSWORD or in a file.
    #[arg(long, env = "NATS_USER", value_name = "USER", global = true, hide = true)]
    nats_user: Option<String>,
    /// A file with the password.
    #[arg(long, env = "NATS_PASSWORD_FILE", value_name = "FILE", global = true, hide = true)]
    nats_password_file: Option<PathBuf>,
    /// A file with the token. Without it, the token is in NATS_TOKEN.
    #[arg(long, env = "NATS_TOKEN_FILE", value_name = "FILE", global = true, hide = true)]
    nats_token_file: Option<PathBuf>,
    /// A file with the seed of an nkey (SU…).
    #[arg(long, env = "NATS_NKEY_FILE", value_name = "FILE", global = true, hide = true)]
    nats_nkey_file: Option<PathBuf>,
    /// A credentials file: a JWT, and the seed of its nkey.
    #[arg(long, env = "NATS_CREDS", value_name = "FILE", global = true, hide = true)]
    nats_creds: Option<PathBuf>,
    /// The certificates (PEM) of the authorities to trust, instead of the system's.
    #[arg(long, env = "NATS_CA", value_name = "FILE", global = true, hide = true)]
    nats_ca: Option<PathBuf>,
    /// The client's certificate (PEM).
    #[arg(long, env = "NATS_CERT", value_name = "FILE", global = true, hide = true)]
    nats_cert: Option<PathBuf>,
    /// The client certificate's key (PEM).
    #[arg(long, env = "NATS_KEY", value_name = "FILE", global = true, hide = true)]
    nats_key: Option<PathBuf>,
    /// The prefix of this process's own inboxes. Default: _INBOX.
    #[arg(long, env = "NATS_INBOX_PREFIX", value_name = "SUBJECT", global = true, hide = true)]
    nats_inbox_prefix: Option<String>,
    /// The prefixes of the reply subjects that services answer to, with commas. Default: _INBOX, which includes _INBOX_….
    #[arg(
        long,
        env = "NATS_REPLY_PREFIXES",
        value_name = "SUBJECTS",
        value_delimiter = ',',
        global = true,
        hide = true
    )]
    nats_reply_prefixes: Option<Vec<String>>,
    /// The number of servers of a cluster that keep the stream: 1, 3 or 5. By default, it stays as it is.
    #[arg(long, env = "NATS_REPLICAS", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5), global = true, hide = true)]
    nats_replicas: Option<u8>,
}

/// The secrets that the environment may hold, by the name of the setting.
const PASSWORD: &str = "NATS_PASSWORD";
const TOKEN: &str = "NATS_TOKEN";

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("NATS_URL is malformed: {0}. Write nats://host:4222, and several servers with commas")]
    Url(String),
    #[error("the servers of NATS_URL name different logins: name one, for all of them")]
    DifferentLogins,
    #[error("NATS_URL is missing: name the servers, as nats://host:4222")]
    NoServers,
    #[error("{setting} names {}, which cannot be read: {source}", path.display())]
    File { setting: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{setting} names {}, which is no context of the `nats` command line: {reason}", path.display())]
    Context { setting: &'static str, path: PathBuf, reason: String },
    #[error("NATS has two logins, by {0} and by {1}: set one of them")]
    TwoLogins(&'static str, &'static str),
    #[error("the NATS user {0} has no password: set NATS_PASSWORD or NATS_PASSWORD_FILE")]
    NoPassword(String),
    #[error("there is a password for NATS, and no user: set NATS_USER")]
    NoUser,
    #[error("NATS_CERT and NATS_KEY belong together: set both, or neither")]
    HalfCertificate,
    #[error(
        "{setting} is {prefix:?}: write a subject without wildcards that is neither Daybook's nor NATS' own, as _INBOX_shop"
    )]
    Prefix { setting: &'static str, prefix: String },
    #[error("NATS_REPLY_PREFIXES is empty: then nobody is answered. Leave it out, or name a prefix")]
    NoReplyPrefix,
}

/// What is left out of `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// How a connection proves who it is, beside a client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Login {
    #[default]
    None,
    Password {
        user: String,
        password: Secret,
    },
    Token(Secret),
    /// The seed.
    Nkey(Secret),
    /// A file's content.
    Creds(Secret),
}

/// One user's way to the servers.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) login: Login,
    pub(super) ca: Option<PathBuf>,
    /// The client's certificate, and its key.
    pub(super) certificate: Option<(PathBuf, PathBuf)>,
    pub(super) inbox_prefix: String,
}

/// All that a process has to know of NATS.
#[derive(Debug, Clone)]
pub struct Nats {
    pub process: Connection,
    /// The relay alone may publish events: it may be a user of its own.
    pub relay: Connection,
    pub replies: Replies,
    /// On how many servers the stream is to be kept; `None` leaves it as it is.
    pub replicas: Option<usize>,
}

/// What a file may set, and flags and environment with it. The names are those of the `nats` command line.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Context {
    url: Option<String>,
    user: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    /// The path of a seed.
    nkey: Option<PathBuf>,
    /// The path of a file of credentials.
    creds: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    inbox_prefix: Option<String>,
}

impl Nats {
    /// The servers at `url`, with the login that it has, and nothing else set.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn at(url: &str) -> Result<Self, SettingsError> {
        let process = Context { url: Some(url.to_owned()), ..Context::default() }.connection()?;
        Ok(Self { relay: process.clone(), process, replies: Replies::default(), replicas: None })
    }

    /// What was set. `None` if that names no servers.
    ///
    /// # Errors
    /// When a setting is malformed, contradicts another, or names a file that cannot be read.
    pub fn from_args(url: Option<&str>, args: &Args) -> Result<Option<Self>, SettingsError> {
        let set = args.context(url)?;
        if set.url.is_none() {
            return Ok(None);
        }
        let relay = match &args.nats_relay_context_file {
            Some(path) => {
                let relay = Context::read("NATS_RELAY_CONTEXT_FILE", path)?;
                Context { url: relay.url.or_else(|| set.url.clone()), ca: relay.ca.or_else(|| set.ca.clone()), ..relay }
                    .connection()?
            }
            None => set.connection()?,
        };
        let replies = match &args.nats_reply_prefixes {
            Some(prefixes) => Replies::to(prefixes.clone())?,
            None => Replies::default(),
        };
        Ok(Some(Self { process: set.connection()?, relay, replies, replicas: args.nats_replicas.map(usize::from) }))
    }
}

impl Connection {
    /// The same, with its own inboxes below `prefix`.
    #[must_use]
    pub fn with_inbox_prefix(self, prefix: impl Into<String>) -> Self {
        Self { inbox_prefix: prefix.into(), ..self }
    }
}

impl Args {
    fn context(&self, url: Option<&str>) -> Result<Context, SettingsError> {
        let file = match &self.nats_context_file {
            Some(path) => Context::read("NATS_CONTEXT_FILE", path)?,
            None => Context::default(),
        };
        let mut set = Context {
            url: url.map(str::to_owned),
            user: self.nats_user.clone(),
            password: from_file_or_env("NATS_PASSWORD_FILE", self.nats_password_file.as_deref(), PASSWORD)?,
            token: from_file_or_env("NATS_TOKEN_FILE", self.nats_token_file.as_deref(), TOKEN)?,
            nkey: self.nats_nkey_file.clone(),
            creds: self.nats_creds.clone(),
            ca: self.nats_ca.clone(),
            cert: self.nats_cert.clone(),
            key: self.nats_key.clone(),
            inbox_prefix: self.nats_inbox_prefix.clone(),
        };
        set.forget_empty();
        // A login is one thing: it is not mixed from two places, but for a password that stands elsewhere than its user.
        if set.token.is_none() && set.nkey.is_none() && set.creds.is_none() {
            (set.user, set.password) = (set.user.or(file.user), set.password.or(file.password));
            if set.user.is_none() && set.password.is_none() {
                (set.token, set.nkey, set.creds) = (file.token, file.nkey, file.creds);
            }
        }
        Ok(Context {
            url: set.url.or(file.url),
            ca: set.ca.or(file.ca),
            cert: set.cert.or(file.cert),
            key: set.key.or(file.key),
            inbox_prefix: set.inbox_prefix.or(file.inbox_prefix),
            ..set
        })
    }
}

/// The names of the flags, of their variables, and what they are for.
pub fn help() -> String {
    use clap::Args as _;
    let mut help = "\
The login and the TLS settings for NATS come from the environment, or from flags of the same names (--nats-user).
Passwords and tokens come only from the environment or from files. NATS_URL may name several servers, with commas. It
may also contain a login (nats://user:password@host); any other setting takes precedence.\n\n"
        .to_owned();
    let secrets = [(PASSWORD, "The password of the user"), (TOKEN, "The token")];
    let command = Args::augment_args(clap::Command::new("daybook"));
    let flags = command.get_arguments().filter_map(|flag| {
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        Some((flag.get_env()?.to_str()?.to_owned(), help))
    });
    let all = flags.chain(secrets.map(|(name, help)| (name.to_owned(), help.to_owned())));
    for (name, text) in all {
        help += &format!("  {name}\n          {text}\n");
    }
    help
}

fn read(setting: &'static str, path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|source| SettingsError::File { setting, path: path.to_owned(), source })
}

/// A secret is a line: whatever ends it in a file is no part of it.
fn read_secret(setting: &'static str, path: &Path) -> Result<Secret, SettingsError> {
    Ok(Secret::new(read(setting, path)?.trim_end_matches(['\r', '\n'])))
}

fn from_file_or_env(
    file_setting: &'static str,
    file: Option<&Path>,
    variable: &'static str,
) -> Result<Option<Secret>, SettingsError> {
    match (file, std::env::var(variable).ok().filter(|value| !value.is_empty())) {
        (Some(_), Some(_)) => Err(SettingsError::TwoLogins(file_setting, variable)),
        (Some(path), None) => read_secret(file_setting, path).map(Some),
        (None, value) => Ok(value.map(Secret::new)),
    }
}

impl Context {
    fn read(setting: &'static str, path: &Path) -> Result<Self, SettingsError> {
        let text = read(setting, path)?;
        let mut context: Self = serde_json::from_str(&text).map_err(|e| SettingsError::Context {
            setting,
            path: path.to_owned(),
            // What stands there may be a secret.
            reason: format!("line {}, column {}", e.line(), e.column()),
        })?;
        context.forget_empty();
        Ok(context)
    }

    /// An empty text is not set: so the `nats` command line writes it, and so a variable may be.
    fn forget_empty(&mut self) {
        let empty_path = |path: &PathBuf| path.as_os_str().is_empty();
        for text in [&mut self.url, &mut self.user, &mut self.inbox_prefix] {
            _ = text.take_if(|text| text.is_empty());
        }
        for secret in [&mut self.password, &mut self.token] {
            _ = secret.take_if(|secret| secret.0.is_empty());
        }
        for path in [&mut self.nkey, &mut self.creds, &mut self.ca, &mut self.cert, &mut self.key] {
            _ = path.take_if(|path| empty_path(path));
        }
    }

    fn connection(&self) -> Result<Connection, SettingsError> {
        let (servers, of_url) = parse_url(self.url.as_deref().ok_or(SettingsError::NoServers)?)?;
        let certificate = match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(SettingsError::HalfCertificate),
        };
        let inbox_prefix = self.inbox_prefix.clone().unwrap_or_else(|| INBOX.to_owned());
        check_prefix("NATS_INBOX_PREFIX", &inbox_prefix)?;
        let login = self.login()?.unwrap_or(of_url);
        Ok(Connection { servers, login, ca: self.ca.clone(), certificate, inbox_prefix })
    }

    fn login(&self) -> Result<Option<Login>, SettingsError> {
        let set: Vec<&'static str> = [
            ("a user", self.user.is_some() || self.password.is_some()),
            ("a token", self.token.is_some()),
            ("an nkey", self.nkey.is_some()),
            ("credentials", self.creds.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_set)| is_set.then_some(name))
        .collect();
        if let [one, other, ..] = set[..] {
            return Err(SettingsError::TwoLogins(one, other));
        }
        Ok(match self {
            Self { user: Some(user), password: Some(password), .. } => {
                Some(Login::Password { user: user.clone(), password: password.clone() })
            }
            Self { user: Some(user), .. } => return Err(SettingsError::NoPassword(user.clone())),
            Self { password: Some(_), .. } => return Err(SettingsError::NoUser),
            Self { token: Some(token), .. } => Some(Login::Token(token.clone())),
            Self { nkey: Some(path), .. } => Some(Login::Nkey(read_seed(path)?)),
            Self { creds: Some(path), .. } => Some(Login::Creds(Secret::new(read("NATS_CREDS", path)?))),
            _ => None,
        })
    }
}

/// Seed files may have comments around the seed, and blanks.
fn read_seed(path: &Path) -> Result<Secret, SettingsError> {
    let text = read("NATS_NKEY_FILE", path)?;
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU")).unwrap_or(text.trim());
    Ok(Secret::new(seed))
}

/// The servers, and the login that they name; async-nats would ignore it.
fn parse_url(url: &str) -> Result<(Vec<ServerAddr>, Login), SettingsError> {
    let (mut servers, mut found) = (Vec::new(), None);
    for one in url.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        // The message of a parser may hold what it was given.
        let server: ServerAddr = one.parse().map_err(|_| SettingsError::Url("a server has no URL".to_owned()))?;
        if server.is_websocket() || server.host().is_empty() {
            return Err(SettingsError::Url("a server needs nats:// or tls://, and a host".to_owned()));
        }
        let text = |text: &str| Secret::new(percent::decoded_or_raw(text));
        let login = match (server.username(), server.password()) {
            (Some(user), Some(password)) => {
                Some(Login::Password { user: percent::decoded_or_raw(user), password: text(password) })
            }
            // The convention of NATS.
            (Some(token), None) => Some(Login::Token(text(token))),
            (None, _) => None,
        };
        match (&found, login) {
            (Some(found), Some(login)) if *found != login => return Err(SettingsError::DifferentLogins),
            (_, Some(login)) => found = Some(login),
            (_, None) => {}
        }
        servers.push(without_login(server)?);
    }
    if servers.is_empty() {
        return Err(SettingsError::NoServers);
    }
    Ok((servers, found.unwrap_or_default()))
}

/// So that no log line and no `Debug` has it.
fn without_login(server: ServerAddr) -> Result<ServerAddr, SettingsError> {
    let mut url = server.into_inner();
    let changed = url.set_password(None).and_then(|()| url.set_username(""));
    changed.map_err(|()| SettingsError::Url("a server has no host".to_owned()))?;
    ServerAddr::from_url(url).map_err(|_| SettingsError::Url("a server has no URL".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(nats: &Nats) -> Vec<(String, u16)> {
        nats.process.servers.iter().map(|server| (server.host().to_owned(), server.port())).collect()
    }

    #[test]
    fn a_url_names_servers_and_perhaps_a_login() {
        let nats = Nats::at("nats://a:4222, tls://b:4333,c").unwrap();
        assert_eq!(hosts(&nats), [("a".to_owned(), 4222), ("b".to_owned(), 4333), ("c".to_owned(), 4222)]);
        assert_eq!(nats.process.login, Login::None);
        let nats = Nats::at("nats://shop:p%40ss%2Cword@a,nats://b").unwrap();
        assert_eq!(hosts(&nats).len(), 2);
        let password = Secret::new("p@ss,word");
        assert_eq!(nats.process.login, Login::Password { user: "shop".into(), password });
        assert!(!format!("{nats:?}").contains("p@ss") && !format!("{nats:?}").contains("p%40ss"), "{nats:?}");
        assert_eq!(Nats::at("nats://tok_1@a").unwrap().process.login, Login::Token(Secret::new("tok_1")));
    }

    #[test]
    fn a_url_that_is_wrong_is_refused_without_being_shown() {
        for bad in [
            "",
            " , ",
            "http://a",
            "ws://a",
            "nats://u:secret@",
            "nats://u:secret@a:x",
            "nats://u:secret@a,nats://v:secret@b",
        ] {
            let error = Nats::at(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn there_is_one_login() {
        let two = Context { user: Some("a".into()), token: Some(Secret::new("t")), ..Context::default() };
        assert!(matches!(two.login(), Err(SettingsError::TwoLogins("a user", "a token"))));
        let half = Context { user: Some("a".into()), ..Context::default() };
        assert!(matches!(half.login(), Err(SettingsError::NoPassword(_))));
        let half = Context { password: Some(Secret::new("p")), ..Context::default() };
        assert!(matches!(half.login(), Err(SettingsError::NoUser)));
        let half = Context { url: Some("nats://a".into()), cert: Some("c".into()), ..Context::default() };
        assert!(matches!(half.connection(), Err(SettingsError::HalfCertificate)));
    }
}
