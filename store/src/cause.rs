//! What made an append fail, if it was no fault of the append.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why the log could not be written: in words, and the error of sqlx that it came of, if it came of one. All appends of a
/// group that failed share it. Two are equal if their words are.
#[derive(Debug, Clone)]
pub struct Cause {
    text: String,
    error: Option<Arc<sqlx::Error>>,
}

impl Cause {
    pub(crate) fn new(text: impl Into<String>, error: Arc<sqlx::Error>) -> Self {
        Self { text: text.into(), error: Some(error) }
    }
}

/// One that came of no error of sqlx.
impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), error: None }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.as_deref().map(|error| error as _)
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cause {}
