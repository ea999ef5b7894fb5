//! Tables for people, and progress that stays out of the way of data.

use crate::Failure;
pub use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use runtime::text::steers;
use runtime::wire::Reply;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

/// Prints a line of data, or several. A reader that has gone away is not an error: `daybook events read | head`.
pub fn line(text: &str) {
    if writeln!(std::io::stdout(), "{}", visible(text)).is_err() {
        std::process::exit(0);
    }
}

/// Prints what a command came to, with the id of what it is about under the name `key`.
pub fn reply(key: &str, id: &str, reply: &Reply, json: bool) -> Result<(), Failure> {
    if json {
        let mut reply = serde_json::to_value(reply)?;
        reply[key] = id.into();
        line(&reply.to_string());
        return Ok(());
    }
    let done = if reply.recorded { "recorded" } else { "unchanged" };
    line(&format!("{} {id}: {done}, position {}", key.trim_end_matches("_id"), reply.position));
    Ok(())
}

/// Rows under headings, in columns as wide as they need; numbers to the right.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let is_number = |cell: &str| !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || "-.,%".contains(c));
    let format_row = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).map(|(cell, width)| match is_number(cell) {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![format_row(&mut headings.iter().copied())];
    lines.extend(rows.iter().map(|row| format_row(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A table and an empty line; nothing, if it has no rows.
pub fn section(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        line(&format!("{}\n", table(headings, &rows)));
    }
}

/// How much is shown of what there may be thousands of.
pub const EXAMPLES: usize = 10;

/// The rows of a table by kind.
pub struct Kinds(BTreeMap<&'static str, Vec<Vec<String>>>);

impl Kinds {
    pub fn of(rows: impl Iterator<Item = (&'static str, Vec<String>)>) -> Self {
        let mut kinds = BTreeMap::<_, Vec<_>>::new();
        rows.for_each(|(kind, row)| kinds.entry(kind).or_default().push(row));
        Self(kinds)
    }

    /// How many of each kind there are, under `what` and `counted`; then, under `headings`, the first ones of each.
    pub fn print(&self, what: &str, counted: &str, headings: &[&str]) {
        section(&[what, counted], self.0.iter().map(|(kind, rows)| vec![(*kind).to_owned(), rows.len().to_string()]));
        section(headings, self.0.values().flat_map(|rows| rows.iter().take(EXAMPLES).cloned()));
    }

    pub fn are_cut(&self) -> bool {
        self.0.values().any(|rows| rows.len() > EXAMPLES)
    }
}

/// A bar on stderr, if that is a terminal; else nothing.
pub fn bar(length: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} ({per_sec}, {eta} left)");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what)
}

/// A message to the person who waits.
pub fn say(text: &str) {
    eprintln!("{}", visible(text));
}

/// Text as it can be shown, whoever wrote it: what would steer a terminal, or turn the order of what is read, is written as
/// JSON escapes it. So JSON stays the same JSON. Line breaks are the caller's: see [`one_line`].
fn visible(text: &str) -> Cow<'_, str> {
    let is_to_be = |c: char| c != '\n' && steers(c);
    if text.contains(is_to_be) { Cow::Owned(escaped(text, is_to_be)) } else { Cow::Borrowed(text) }
}

/// Somebody's text, which must not look like another line of ours.
pub fn one_line(text: &str) -> String {
    escaped(text, steers)
}

fn escaped(text: &str, is_to_be: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_to_be(c) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| _ = write!(escaped, "\\u{unit:04x}"));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_numbers_to_the_right() {
        let rows = [vec!["completed".into(), "7".into()], vec!["cancelled".into(), "12".into()]];
        assert_eq!(table(&["end", "orders"], &rows), "end        orders\ncompleted       7\ncancelled      12");
    }

    #[test]
    fn what_others_wrote_steers_no_terminal_and_makes_no_rows() {
        assert_eq!(visible("Zoë 日本\n👍"), "Zoë 日本\n👍");
        assert_eq!(visible("a\u{202E}b\u{1b}[2J\r\u{9b}\u{E0041}"), r"a\u202eb\u001b[2J\u000d\u009b\udb40\udc41");
        let json = serde_json::json!({ "reason": "a\u{202E}b\u{7f}\u{E0041}\u{2028}" });
        let printed = visible(&json.to_string()).into_owned();
        assert!(printed.is_ascii(), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), json);
        let row = vec!["one\ntwo".to_owned(), "\u{202E}".to_owned()];
        assert_eq!(table(&["a", "b"], &[row]), "a             b\none\\u000atwo  \\u202e");
    }
}
