//! What follows from which event, as `docs/follow-ups.md` says it: the tables and the picture are made from the reactions
//! to the stored fixtures, so they cannot tell anything but what the code does.
//!
//! `UPDATE_FOLLOW_UPS=1 cargo test -p tests choreography` writes them anew.

use crate::log::evolution::{fixtures, read};
use orders::reaction::{FollowUp, react};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- generated: from here -->\n";
const END: &str = "<!-- generated: to here -->\n";

/// Whose, and what, in words: `payment`, `void`.
fn act(follow_up: &FollowUp) -> (String, String) {
    let act = serde_json::to_value(&follow_up.act).unwrap();
    let (kind, what) = single(&act);
    match kind.as_str() {
        "provider" => ("provider".to_owned(), single(&what["operation"]).0),
        "notice" => ("customer".to_owned(), single(&what["message"]).0),
        _ => {
            let (aggregate, what) = single(what);
            match what.get("command") {
                Some(command) => (aggregate, single(command).0),
                // Of stock, the command itself; or one that is aimed at an order and its shipments.
                None if aggregate == "stock" => (aggregate, single(what).0),
                None => ("order and its shipments".to_owned(), aggregate),
            }
        }
    }
}

/// The one name that a JSON value has at its top: a string, or an object's only key.
fn single(value: &Value) -> (String, &Value) {
    match value {
        Value::String(name) => (name.clone(), value),
        Value::Object(fields) => {
            let (name, value) = fields.iter().next().unwrap();
            (name.clone(), value)
        }
        other => panic!("{other} has no name"),
    }
}

/// Each event that something follows from, with its category: what follows, under the name of the reaction.
type Arrows = BTreeMap<(String, String), BTreeSet<(String, String, String)>>;

fn arrows() -> Arrows {
    let mut arrows = Arrows::new();
    for (name, payloads) in fixtures() {
        for payload in payloads {
            let event = read(&name, &payload).unwrap();
            let follow_ups = react(&event);
            let follow_ups = follow_ups.iter().map(|f| {
                let (target, verb) = act(f);
                (f.reaction.to_owned(), target, verb)
            });
            let of_event = arrows.entry((event.category().to_owned(), event.event_type().to_owned())).or_default();
            of_event.extend(follow_ups);
        }
    }
    arrows
}

fn generated() -> String {
    let arrows = arrows();
    let mut text = String::from(BEGIN);
    text += "\n| event | of | reaction | asks | to |\n| --- | --- | --- | --- | --- |\n";
    for ((category, event), follow_ups) in &arrows {
        for (reaction, target, verb) in follow_ups {
            writeln!(text, "| {event} | {category} | `{reaction}` | {target} | {} |", verb.replace('_', " ")).unwrap();
        }
    }
    text += "\nNothing follows from: ";
    let silent = arrows.iter().filter(|(_, follow_ups)| follow_ups.is_empty()).map(|((_, event), _)| event.as_str());
    text += &silent.collect::<Vec<_>>().join(", ");
    text += ".\n\n```mermaid\nflowchart LR\n";
    for ((category, event), follow_ups) in &arrows {
        for (_, target, verb) in follow_ups {
            let node = format!("{target}_{verb}").replace(' ', "_");
            writeln!(text, "  {event}([{category}: {event}]) --> {node}[{target}: {}]", verb.replace('_', " "))
                .unwrap();
        }
    }
    text += "```\n\n";
    text + END
}

#[test]
fn the_document_says_what_follows_from_each_event() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/follow-ups.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{}{after}", generated());
    if std::env::var_os("UPDATE_FOLLOW_UPS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let now = std::fs::read_to_string(&path).unwrap();
    assert_eq!(now, expected, "UPDATE_FOLLOW_UPS=1 cargo test -p tests choreography");
}
