//! What is sent and answered over NATS: command and query bodies, the one reply shape, the one error body. Written down
//! in `docs/wire.md`.

use crate::executor::{Decide, ExecuteError, Outcome};
use crate::strict::{Checked, Strict};
use crate::text::steers;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;
use store::{Failure, Mark, Position};
use uuid::Uuid;

/// The body of a command: what every command has, and the fields of its verb.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandBody<T> {
    /// A UUID of version 7, made by the client; sent again with it, a command is done once.
    pub command_id: Uuid,
    /// Who asks.
    pub actor: String,
    /// When it happened, if that is not now.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "time::optional")]
    pub occurred_at: Option<DateTime<Utc>>,
    pub data: T,
}

/// The answer to a command that was not refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it has events in the log. If not, nothing had to change.
    pub recorded: bool,
    /// A query at this position sees what the command did, or found.
    pub position: Position,
    /// The streams that it wrote to, or looked at, with their versions.
    pub streams: Vec<StreamVersion>,
    /// A query with this mark is answered only from a log that has what the command did, or found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamVersion {
    /// `order-0199…`
    pub stream: String,
    pub version: i64,
}

/// The body of a query.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryBody {
    /// The read model must have come to this position, that of a command's reply, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<Position>,
    /// The log must have this mark, that of a command's reply, and the read model must have come to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// How long to wait for it, in milliseconds; 2,000 if not given, 30,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    #[serde(default)]
    pub data: Value,
}

/// The answer to a query: what was found, and the position that its read model was at, at least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryReply<T> {
    pub position: Position,
    pub data: T,
    /// Of a list that goes on: what `after` is for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Value>,
}

/// A field of a request that is at fault, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub field: String,
    pub expected: String,
}

impl Fault {
    pub fn new(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), expected: expected.into() }
    }
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    pub code: Code,
    /// A sentence for a person.
    pub message: String,
    /// The fields of the request that are at fault, with what they should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Fault>,
    /// Whether the same request, sent again, can succeed without anybody changing anything.
    pub retry: bool,
    /// False, if it is known that nothing was recorded; null, if it is not known.
    pub recorded: Option<bool>,
    /// For a rejection, its stable reason and the values that matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// What kind of error it is. Stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The domain refuses it in the present state.
    Rejected,
    /// Others wrote to its streams faster than it could be decided.
    Conflict,
    /// It is malformed, whatever the state is.
    Invalid,
    /// A server that is needed does not answer.
    Unavailable,
    /// The command id was used for another command.
    IdSpent,
    /// The queried thing does not exist.
    NotFound,
    /// The log does not have the mark that was asked for: it has gone on from an older state.
    OtherHistory,
    /// The read model has not come to the position that was asked for.
    NotYet,
    /// The answer is larger than NATS carries.
    TooLarge,
    /// A defect of this build, its data or its set-up: somebody has to change something.
    Internal,
}

impl Code {
    /// For the header `Nats-Service-Error-Code`; the numbers of HTTP.
    pub fn status(self) -> usize {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::OtherHistory => 410,
            Self::IdSpent => 412,
            Self::TooLarge => 413,
            Self::Rejected => 422,
            Self::NotYet => 425,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }
}

impl ErrorBody {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retry = matches!(code, Code::Conflict | Code::Unavailable | Code::NotYet);
        let unknown = matches!(code, Code::Unavailable | Code::Internal);
        let recorded = (!unknown).then_some(false);
        Self { code, message: message.into(), fields: vec![], retry, recorded, detail: None }
    }

    /// Postgres has failed, in what is said first.
    pub fn of_database(what: &str, error: &sqlx::Error) -> Self {
        Self::of_failure(Failure::of(error), format!("{what}: {error}"))
    }

    pub fn of_failure(failure: Failure, message: String) -> Self {
        match failure {
            Failure::Passing => Self::new(Code::Unavailable, message),
            Failure::Data => Self::new(Code::Invalid, message),
            Failure::Permanent => Self::new(Code::Internal, message),
        }
    }

    pub fn invalid(field: &str, expected: impl Into<String>) -> Self {
        let fields = vec![Fault::new(field, expected)];
        Self { fields, ..Self::new(Code::Invalid, "the request is malformed: see fields") }
    }
}

impl ErrorBody {
    /// The same, its fields found at `path` of the body.
    pub fn within(mut self, path: &str) -> Self {
        self.fields.iter_mut().for_each(|fault| fault.field = format!("{path}.{}", fault.field));
        self
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        let version = |(stream, version): (store::StreamId, i64)| StreamVersion { stream: stream.to_string(), version };
        Self {
            recorded: outcome.recorded,
            position: outcome.position,
            streams: outcome.streams.into_iter().map(version).collect(),
            mark: outcome.mark,
        }
    }
}

impl<D: Decide> From<ExecuteError<D>> for ErrorBody {
    fn from(error: ExecuteError<D>) -> Self {
        let message = error.to_string();
        match error {
            ExecuteError::Rejected(rejection) => D::refusal(&rejection, message),
            ExecuteError::Conflict(_) => Self::new(Code::Conflict, message),
            ExecuteError::IdSpent => Self::new(Code::IdSpent, message),
            ExecuteError::Refused(_) => Self::new(Code::Invalid, message),
            ExecuteError::Unavailable(_) => Self::new(Code::Unavailable, message),
            ExecuteError::Broken(_) | ExecuteError::Unreadable(_) => Self::new(Code::Internal, message),
        }
    }
}

/// A body that is JSON of the right shape.
///
/// # Errors
/// `invalid`, with the path of the first field that is wrong and what it should be.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorBody> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let checked: Checked = serde_path_to_error::deserialize(&mut json).map_err(|e| malformed("", &e))?;
    json.end().map_err(|_| ErrorBody::invalid("body", "one JSON object, and nothing after it"))?;
    serde_path_to_error::deserialize(checked.strict()).map_err(|e| malformed("", &e))
}

/// The same, of what stands in the field `name` of a body that was parsed.
///
/// # Errors
/// `invalid`, like [`parse`].
pub fn parse_field<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, ErrorBody> {
    serde_path_to_error::deserialize(Strict::from(value)).map_err(|e| malformed(name, &e))
}

/// Tells where it is wrong, and what is expected there; never what was sent, which may be a secret.
fn malformed(within: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> ErrorBody {
    let path = error.path().to_string();
    let path = match (within, path.as_str()) {
        ("", ".") => "body".to_owned(),
        ("", path) => path.to_owned(),
        (within, ".") => within.to_owned(),
        (within, path) => format!("{within}.{path}"),
    };
    let text = error.inner().to_string();
    // What was sent comes first, and may hold anything; what is expected comes last, and then where, if that is known.
    let text = match error.inner().line() {
        0 => &text,
        _ => text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text),
    };
    let expected = match error.inner().classify() {
        Category::Data if text.starts_with("UUID parsing failed") => "a UUID",
        Category::Data => text.rsplit_once(", expected ").map_or(text, |(_, expected)| expected),
        Category::Syntax | Category::Eof | Category::Io => "well-formed JSON",
    };
    ErrorBody::invalid(&shown(&path), expected)
}

/// The longest path of a field that is told, in characters.
const MAX_PATH: usize = 200;

/// A path for people: the names in it may be anything, of any length.
fn shown(path: &str) -> String {
    let shown = |c: char| if steers(c) { '\u{fffd}' } else { c };
    match path.char_indices().nth(MAX_PATH) {
        Some((end, _)) => path[..end].chars().map(shown).chain(['…']).collect(),
        None => path.chars().map(shown).collect(),
    }
}

/// Times as they are taken from outside: those that Postgres has, and can reckon with.
pub mod time {
    use chrono::{DateTime, Datelike, NaiveDate, Utc};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer};
    use std::str::FromStr;

    fn parsed<T: FromStr + Datelike, E: Error>(text: &str, expected: &str) -> Result<T, E> {
        let parsed = text.parse::<T>().ok().filter(|time| (1..=9999).contains(&time.year()));
        parsed.ok_or_else(|| E::custom(format!("refused, expected {expected}")))
    }

    pub fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        let expected = "a time of the years 1 to 9999 such as 2026-11-22T08:39:56Z";
        parsed(&String::deserialize(deserializer)?, expected)
    }

    pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        #[derive(Deserialize)]
        struct Time(#[serde(deserialize_with = "required")] DateTime<Utc>);
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }

    pub fn optional_day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NaiveDate>, D::Error> {
        let day = |text: String| parsed(&text, "a day of the years 1 to 9999 such as 2026-11-22");
        Option::<String>::deserialize(deserializer)?.map(day).transpose()
    }
}
