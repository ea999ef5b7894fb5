//! What a check of a server has found, and what to do about it.

use std::fmt;

/// How much of a fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// Daybook runs, but somebody should know.
    Warning,
    /// Daybook does not run like this.
    Wrong,
}

/// One fact about a server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub level: Level,
    /// What was looked at, in a word or two.
    pub subject: &'static str,
    pub text: String,
    /// What to do; empty if nothing has to be done.
    pub remedy: String,
}

impl Finding {
    pub fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, text: text.into(), remedy: String::new() }
    }

    pub fn warning(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject, text: text.into(), remedy: remedy.into() }
    }

    pub fn wrong(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Wrong, subject, text: text.into(), remedy: remedy.into() }
    }

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
