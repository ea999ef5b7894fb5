//! What a verification found: a check for each promise, with what was looked at and what differs.

use serde::Serialize;
use std::fmt;

/// How many differences of a check are told one by one; the rest is counted.
const TOLD: usize = 20;

/// What [`super::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many events the log had.
    pub events: i64,
    pub checks: Vec<Check>,
}

/// One promise, held against the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// How many things were looked at.
    pub checked: u64,
    /// The first of them, a sentence each: what is where, and what should be.
    pub differences: Vec<String>,
    pub difference_count: u64,
    /// How many events it is folded without, for somebody has given them up.
    pub discarded: u64,
    /// Whether it was asked for. What was not asked for agrees.
    pub asked: bool,
    /// The version of the rows, if it is not this build's: then they are not compared, and agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_other_version: Option<i16>,
}

impl Report {
    /// Whether nothing differs.
    pub fn agrees(&self) -> bool {
        self.checks.iter().all(Check::agrees)
    }

    /// With this check instead of the one of its name, or with one more.
    pub fn with(mut self, check: Check) -> Self {
        self.checks.retain(|other| other.name != check.name);
        self.checks.push(check);
        self
    }
}

impl Check {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            checked: 0,
            differences: vec![],
            difference_count: 0,
            discarded: 0,
            asked: true,
            of_other_version: None,
        }
    }

    pub fn not_asked(name: &'static str) -> Self {
        Self { asked: false, ..Self::new(name) }
    }

    /// Whether nothing differs.
    pub fn agrees(&self) -> bool {
        self.difference_count == 0
    }

    pub fn differs(&mut self, what: impl FnOnce() -> String) {
        self.difference_count += 1;
        if self.differences.len() < TOLD {
            self.differences.push(what());
        }
    }

    fn verdict(&self) -> String {
        if let Some(version) = self.of_other_version {
            return format!("not compared: the rows are of version {version}, which is not this build's");
        }
        let verdict = match (self.asked, self.difference_count) {
            (false, _) => "not asked".to_owned(),
            (true, 0) => "agrees".to_owned(),
            (true, 1) => "1 difference".to_owned(),
            (true, n) => format!("{n} differences"),
        };
        match self.discarded {
            0 => verdict,
            n => format!("{verdict}, without {n} discarded"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16}{:>12}  result", "check", "checked")?;
        for check in &self.checks {
            writeln!(f, "{:<16}{:>12}  {}", check.name, check.checked, check.verdict())?;
        }
        for check in &self.checks {
            for difference in &check.differences {
                writeln!(f, "{}: {difference}", check.name)?;
            }
            let untold = check.difference_count - check.differences.len() as u64;
            if untold > 0 {
                writeln!(f, "{}: and {untold} more", check.name)?;
            }
        }
        let verdict = if self.agrees() { "all agree" } else { "they do not agree" };
        writeln!(f, "{} events: {verdict}", self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_beyond_those_that_are_told() {
        let mut check = Check::new("window");
        (0..25).for_each(|n| check.differs(|| format!("sequence {n} is missing")));
        let report = Report { events: 3, checks: vec![check, Check::not_asked("follow_ups")] };
        let table = report.to_string();
        assert!(!report.agrees());
        assert!(table.contains("25 differences") && table.contains("not asked"), "{table}");
        assert!(table.contains("window: sequence 19 is missing\nwindow: and 5 more\n"), "{table}");
    }
}
