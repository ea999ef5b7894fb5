//! Tables for people, and progress that stays out of the way of data.

use super::Failure;
use crate::wire::Reply;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};

/// Prints a line of data. A reader that has gone away is not an error: `daybook events read | head`.
pub(super) fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Prints what a command came to, with the id of what it is about under the name `key`.
pub(super) fn reply(key: &str, id: &str, reply: &Reply, json: bool) -> Result<(), Failure> {
    if json {
        let mut reply = serde_json::to_value(reply)?;
        reply[key] = id.into();
        line(&reply.to_string());
        return Ok(());
    }
    let done = if reply.recorded { "recorded" } else { "nothing to do: it is so already" };
    line(&format!("{} {id}: {done}, position {}", key.trim_end_matches("_id"), reply.position));
    Ok(())
}

/// Rows under headings, in columns as wide as they need; numbers to the right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
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

/// A bar on stderr, if that is a terminal; else nothing.
pub(super) fn bar(length: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} ({per_sec}, {eta} left)");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what)
}

/// A message to the person who waits.
pub(super) fn say(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_numbers_to_the_right() {
        let rows = [vec!["completed".into(), "7".into()], vec!["cancelled".into(), "12".into()]];
        assert_eq!(table(&["end", "orders"], &rows), "end        orders\ncompleted       7\ncancelled      12");
    }
}
