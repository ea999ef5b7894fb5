//! What is sent and answered over NATS: command and query bodies, the one reply shape, the one error body. Written down
//! in `docs/wire.md`.

use crate::execute::{ExecuteError, Outcome};
use chrono::{DateTime, Utc};
use domain::rejection::Fault;
use domain::{Rejection, order, shipment, stock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Position;
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<DateTime<Utc>>,
    pub data: T,
}

/// The answer to a command that was not refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it has events in the log. If not, all was so already.
    pub recorded: bool,
    /// A query at this position sees what the command did, or found.
    pub position: Position,
    /// The streams that it wrote to, or looked at, with their versions.
    pub streams: Vec<StreamVersion>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamVersion {
    /// `order-0199…`
    pub stream: String,
    pub version: i64,
}

/// The answer to a query: what was found, and the position that its read model was at, at least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryReply<T> {
    pub position: Position,
    pub data: T,
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
    /// The read model has not come to the position that was asked for.
    NotYet,
    /// A defect of this build or its data.
    Internal,
}

impl Code {
    /// For the header `Nats-Service-Error-Code`; the numbers of HTTP.
    pub fn status(self) -> usize {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::IdSpent => 412,
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
        let recorded = (code != Code::Unavailable).then_some(false);
        Self { code, message: message.into(), fields: vec![], retry, recorded, detail: None }
    }

    pub fn invalid(field: &str, expected: impl Into<String>) -> Self {
        let fields = vec![Fault::new(field, expected)];
        Self { fields, ..Self::new(Code::Invalid, "the request is malformed: see fields") }
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        let version = |(stream, version): (store::StreamId, i64)| StreamVersion { stream: stream.to_string(), version };
        Self {
            recorded: outcome.recorded,
            position: outcome.position,
            streams: outcome.streams.into_iter().map(version).collect(),
        }
    }
}

impl From<ExecuteError> for ErrorBody {
    fn from(error: ExecuteError) -> Self {
        let message = error.to_string();
        match error {
            ExecuteError::Rejected(rejection) => rejected(&rejection, message),
            ExecuteError::Conflict(_) => Self::new(Code::Conflict, message),
            ExecuteError::IdSpent => Self::new(Code::IdSpent, message),
            ExecuteError::Refused(_) => Self::new(Code::Invalid, message),
            ExecuteError::Unavailable(_) => Self::new(Code::Unavailable, message),
            ExecuteError::Unreadable(_) => Self::new(Code::Internal, message),
        }
    }
}

fn rejected(rejection: &Rejection, message: String) -> ErrorBody {
    let faults = match rejection {
        Rejection::Order(order::Rejection::Invalid { faults })
        | Rejection::Stock(stock::Rejection::Invalid { faults })
        | Rejection::Shipment(shipment::Rejection::Invalid { faults }) => faults,
        Rejection::Order(_) | Rejection::Payment(_) | Rejection::Stock(_) | Rejection::Shipment(_) => {
            let detail = Some(json!(rejection));
            return ErrorBody { detail, ..ErrorBody::new(Code::Rejected, message) };
        }
    };
    ErrorBody { fields: faults.clone(), ..ErrorBody::new(Code::Invalid, format!("{message}: see fields")) }
}
