//! What a check of a server has found, and what to do about it.

use std::fmt;

/// How much of a fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// The log works, but an operator should know.
    Warning,
    /// The log does not work like this.
    Wrong,
}

/// One fact about a server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Whether it is a fault.
    pub level: Level,
    /// What was checked, in a word or two.
    pub subject: &'static str,
    /// What is so.
    pub text: String,
    /// What to do; empty if nothing has to be done.
    pub remedy: String,
}

impl Finding {
    /// A finding without a fault.
    pub fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, text: text.into(), remedy: String::new() }
    }

    /// A fault that the log works with.
    pub fn warning(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject, text: text.into(), remedy: remedy.into() }
    }

    /// A fault that the log does not work with.
    pub fn wrong(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Wrong, subject, text: text.into(), remedy: remedy.into() }
    }

    /// Whether the log does not work like this.
    pub fn is_wrong(&self) -> bool {
        self.level == Level::Wrong
    }
}

/// One sentence: what is so, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, ": {}", self.remedy) }
    }
}
