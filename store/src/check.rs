//! What is refused before it enters the queue: whatever would fail the whole group that it is in.

use crate::event::NewEvent;
use crate::stream::count;
use crate::{Append, AppendError, ExpectedVersion, Version};
use chrono::Datelike;

/// The largest payload of an event, in bytes. A message broker that takes messages of 1 MiB can carry it with its headers.
pub const MAX_PAYLOAD: usize = 128 * 1024;
/// The most events that one append may hold.
const MAX_EVENTS: usize = 1000;
/// How deep a payload may be nested: Postgres parses it with a stack.
const MAX_DEPTH: usize = 64;
/// The longest event type or actor, in bytes.
const MAX_NAME: usize = 128;
/// How many bytes the payloads of one append, or of a group, may have together.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Refuses what would fail the whole group that it is in.
pub(crate) fn check(append: &Append) -> Result<(), AppendError> {
    let refuse = |what: String| Err(AppendError::Refused(what));
    let events = || append.streams.iter().flat_map(|s| &s.events);
    if append.streams.is_empty() || events().count() > MAX_EVENTS {
        return refuse(format!("an append is to 1 stream or more, of at most {MAX_EVENTS} events"));
    }
    for (i, a) in append.streams.iter().enumerate() {
        if append.streams[..i].iter().any(|b| b.stream == a.stream) {
            return refuse(format!("{} is in the append twice", a.stream));
        }
    }
    let versions = 0..=Version::MAX - count(MAX_EVENTS);
    let is_one = |expected| !matches!(expected, ExpectedVersion::Exact(version) if !versions.contains(&version));
    if !append.streams.iter().all(|s| is_one(s.expected)) {
        return refuse("an expected version is 0 or more, and has one after it".to_owned());
    }
    if events().map(|e| e.payload.len()).sum::<usize>() > MAX_BYTES {
        return refuse(format!("the payloads of an append come to {MAX_BYTES} bytes at most"));
    }
    if !(1..=9999).contains(&append.metadata.occurred_at.year()) {
        return refuse("occurred_at is of the years 1 to 9999".to_owned());
    }
    // It travels in a NATS header, which keeps neither blanks at its ends nor line breaks.
    let is_name =
        |name: &str| (1..=MAX_NAME).contains(&name.len()) && name.trim() == name && !name.contains(char::is_control);
    let traceparent = append.metadata.traceparent.as_deref();
    if !is_name(&append.metadata.actor) || !traceparent.is_none_or(is_name) {
        return refuse(format!(
            "actor and traceparent are 1 to {MAX_NAME} bytes without control characters or blanks at the ends"
        ));
    }
    for event in events() {
        if !is_name(&event.event_type) {
            return refuse(format!(
                "an event type is 1 to {MAX_NAME} bytes without control characters or blanks at the ends"
            ));
        }
        if event.payload.len() > MAX_PAYLOAD {
            return refuse(format!("the payload of {} is larger than {MAX_PAYLOAD} bytes", event.event_type));
        }
        check_json(event)?;
    }
    Ok(())
}

/// Refuses JSON that Postgres would choke on, now or when it is taken apart.
fn check_json(event: &NewEvent) -> Result<(), AppendError> {
    let refuse = |what: &str| Err(AppendError::Refused(format!("the payload of {} {what}", event.event_type)));
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in event.payload.bytes().enumerate() {
        match byte {
            0 => return refuse("holds NUL"),
            b'u' if escaped && event.payload[at..].starts_with("u0000") => return refuse("holds NUL"),
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return refuse(&format!("is nested deeper than {MAX_DEPTH}"));
        }
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(&event.payload) {
        Ok(_) => Ok(()),
        Err(e) => refuse(&format!("is no JSON: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(payload: &str) -> NewEvent {
        NewEvent { event_type: "T".into(), schema_version: 1, payload: payload.into() }
    }

    #[test]
    fn json_that_postgres_would_choke_on_is_refused_before_the_queue() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check_json(&payload(&nested(64))), Ok(()));
        assert_eq!(check_json(&payload(r#"{"a":"[[\"{{"}"#)), Ok(()));
        assert_eq!(check_json(&payload(r#""not NUL: \\u0000""#)), Ok(()));
        for bad in [nested(65).as_str(), r#""\u0000""#, "\0", "{", "", "{\"a\":1}{}"] {
            assert!(check_json(&payload(bad)).is_err(), "{bad}");
        }
    }
}
