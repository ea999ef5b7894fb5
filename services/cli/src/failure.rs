//! Why a verb did not do what it was asked to, and the exit code for that.

use crate::output;
use order_services::time_travel::StateAtError;
use runtime::client::ClientError;
use runtime::process::StartError;
use runtime::readable::CheckError;
use runtime::wire::Code;
use store::ReadError;
use store::connect::Unusable;

/// Why a verb did not do what it was asked to; each kind has an exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was to be checked was, and is not as it should be. What is wrong has been printed.
    #[error("{0}")]
    Differs(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// A failure of what is beneath: waiting for a server helps, or it does not.
    pub fn beneath(failure: store::Failure, message: String) -> Self {
        match failure {
            store::Failure::Passing => Self::Unavailable(message),
            store::Failure::Data | store::Failure::Permanent => Self::Other(message),
        }
    }

    /// The error with what brought it about, as far as it does not say so itself.
    pub fn chain(&self) -> String {
        let mut text = match self {
            // The message is a service's, and may quote a stranger.
            Self::Client(error) => output::one_line(&error.to_string()),
            failure => failure.to_string(),
        };
        let error: &dyn std::error::Error = self;
        let mut cause = error.source();
        while let Some(error) = cause {
            let reason = error.to_string();
            if !text.contains(&reason) {
                text = format!("{text}: {reason}");
            }
            cause = error.source();
        }
        text
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Differs(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Client(ClientError::Refused(body)) => match body.code {
                Code::Unavailable | Code::NotYet | Code::Conflict => 4,
                Code::Internal => 5,
                Code::Rejected
                | Code::Invalid
                | Code::IdSpent
                | Code::NotFound
                | Code::OtherHistory
                | Code::TooLarge => 3,
            },
            Self::Start(
                StartError::Unreadable(_) | StartError::MaxPayload { .. } | StartError::Unusable(Unusable::Unfit(_)),
            ) => 3,
            // Waiting for a server does not help: the log holds what this build cannot read.
            Self::Start(StartError::Log(
                ReadError::UnknownCategory { .. } | ReadError::Malformed { .. } | ReadError::OtherCategories { .. },
            )) => 3,
            Self::Start(StartError::Log(e)) if e.failure() != store::Failure::Passing => 5,
            Self::Start(StartError::Database(e)) if store::Failure::of(e) != store::Failure::Passing => 5,
            Self::Client(ClientError::NoAnswer(_)) | Self::Start(_) | Self::Unavailable(_) => 4,
            Self::Client(ClientError::Malformed(_) | ClientError::MayGoOn(_)) | Self::Other(_) => 5,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Start(error.into())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Start(error.into())
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        Self::Start(error.into())
    }
}

impl From<StateAtError> for Failure {
    fn from(error: StateAtError) -> Self {
        match error {
            StateAtError::NoStream(_) | StateAtError::NoVersion { .. } | StateAtError::NotBegun { .. } => {
                Self::Refused(error.to_string())
            }
            StateAtError::Log(error) => error.into(),
            StateAtError::Decode(error) => Self::Other(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit code 4 says that it is worth waiting for a server.
    #[test]
    fn a_read_that_fails_for_good_is_not_told_as_a_server_that_does_not_answer() {
        let code = |error: ReadError| Failure::from(error).exit_code();
        assert_eq!(code(ReadError::Database(sqlx::Error::PoolTimedOut)), 4);
        assert_eq!(code(ReadError::Database(sqlx::Error::RowNotFound)), 5);
        assert_eq!(Failure::from(sqlx::Error::PoolTimedOut).exit_code(), 4);
        assert_eq!(Failure::from(sqlx::Error::RowNotFound).exit_code(), 5);
        assert_eq!(code(ReadError::UnknownCategory { position: 7, category: 9 }), 3);
        assert_eq!(code(ReadError::Malformed { position: 7, what: "fingerprint" }), 3);
    }
}
