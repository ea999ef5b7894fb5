//! What was once stored can be read for ever. `fixtures/<category>/<Type>.v<version>.jsonl` has stored payloads of each
//! event type in each schema version that was ever written, one a line, byte for byte; `docs/schemas` says what they are.

use engine::codec::{self, Stored};
use order_views::Orders;
use order_views::{CATEGORIES, encode};
use orders::{Aggregate, Event, order, payment, shipment, stock};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;
use store::{NewEvent, StreamId};
use uuid::Uuid;

/// An event type of a category, in one of its schema versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    category: String,
    event_type: String,
    version: i16,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.v{}", self.category, self.event_type, self.version)
    }
}

/// The files of a folder of this workspace, by the names in their paths.
fn files(folder: &str, extension: &str) -> BTreeMap<Name, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = BTreeMap::new();
    for category in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        for file in fs::read_dir(category.path()).unwrap().map(Result::unwrap) {
            let (category, file_name) = (category.file_name().into_string(), file.file_name().into_string().unwrap());
            let name = file_name.strip_suffix(extension).and_then(|name| name.split_once(".v"));
            let (event_type, version) =
                name.unwrap_or_else(|| panic!("{} does not belong here", file.path().display()));
            let version = version.parse().unwrap();
            let name = Name { category: category.unwrap(), event_type: event_type.to_owned(), version };
            files.insert(name, fs::read_to_string(file.path()).unwrap());
        }
    }
    files
}

/// The stored payloads of every type and version there ever was.
pub(crate) fn fixtures() -> BTreeMap<Name, Vec<String>> {
    let files = files("it/fixtures", ".jsonl");
    files.into_iter().map(|(name, lines)| (name, lines.lines().map(str::to_owned).collect())).collect()
}

fn schemas() -> BTreeMap<Name, Value> {
    let files = files("../docs/schemas", ".json");
    files.into_iter().map(|(name, schema)| (name, serde_json::from_str(&schema).unwrap())).collect()
}

/// Every type in every version, from the first one to the one that this build writes.
fn versions() -> BTreeSet<Name> {
    let of = |category: &str, types: &[(&str, i16)]| -> Vec<Name> {
        let name = |event_type: &str, version| Name {
            category: category.to_owned(),
            event_type: event_type.to_owned(),
            version,
        };
        types.iter().flat_map(|(event_type, current)| (1..=*current).map(|v| name(event_type, v))).collect()
    };
    let all = [
        of(order::Order::CATEGORY, order::Event::TYPES),
        of(payment::Payment::CATEGORY, payment::Event::TYPES),
        of(stock::Stock::CATEGORY, stock::Event::TYPES),
        of(shipment::Shipment::CATEGORY, shipment::Event::TYPES),
    ];
    all.into_iter().flatten().collect()
}

/// The event that today's build makes of a stored payload, if it can.
pub(crate) fn read(name: &Name, payload: &str) -> Option<Event> {
    let category = *CATEGORIES.iter().find(|c| c.name == name.category).unwrap();
    let stored = Stored {
        position: 1,
        stream: StreamId { category, id: Uuid::nil() },
        event_type: &name.event_type,
        schema_version: name.version,
        payload,
    };
    codec::decode_stored::<Orders>(stored).ok()
}

/// Whether a payload is what the schema of its type and version says.
struct Validator(BTreeMap<Name, (boon::Schemas, boon::SchemaIndex)>);

impl Validator {
    fn new() -> Self {
        let compiled = schemas().into_iter().map(|(name, schema)| {
            let (mut compiler, mut compiled) = (boon::Compiler::new(), boon::Schemas::new());
            compiler.enable_format_assertions();
            let url = format!("daybook:/{name}");
            compiler.add_resource(&url, schema).unwrap();
            let index = compiler.compile(&url, &mut compiled).unwrap_or_else(|e| panic!("{name} is no schema: {e}"));
            (name, (compiled, index))
        });
        Self(compiled.collect())
    }

    fn fits(&self, name: &Name, payload: &Value) -> bool {
        let (schemas, index) = &self.0[name];
        schemas.validate(payload, *index).is_ok()
    }
}

#[test]
fn no_type_and_version_lacks_a_schema_or_stored_payloads() {
    assert_all("docs/schemas", &schemas().into_keys().collect());
    assert_all("tests/it/fixtures", &fixtures().into_keys().collect());
}

/// What has gone was written once, and is read for ever; how what is new is made, `CONTRIBUTING.md` says.
fn assert_all(folder: &str, there: &BTreeSet<Name>) {
    let all = versions();
    let new: Vec<String> = all.difference(there).map(Name::to_string).collect();
    let gone: Vec<String> = there.difference(&all).map(Name::to_string).collect();
    assert!(new.is_empty() && gone.is_empty(), "{folder} lacks {new:?}; this build does not know {gone:?}");
}

#[test]
fn every_type_and_version_that_was_shipped_is_read() {
    for name in schemas().into_keys().chain(fixtures().into_keys()) {
        assert!(
            codec::reads::<Orders>(&name.category, &name.event_type, name.version),
            "{name}: is an upcaster missing?"
        );
    }
}

/// What was stored, as today's build understands it. A new type adds to the snapshot; what stands there changes only if
/// an upcaster is to make something else of it.
#[test]
fn stored_payloads_are_read_as_ever() {
    let (validator, mut shown) = (Validator::new(), String::new());
    for (name, payloads) in fixtures() {
        writeln!(shown, "{name}").unwrap();
        for payload in payloads {
            let event = read(&name, &payload).unwrap_or_else(|| panic!("{name} cannot be read: {payload}"));
            writeln!(shown, "{event:?}").unwrap();
            // As it is written today.
            let NewEvent { event_type, schema_version, payload: written } = encode(&event);
            let today = Name { version: schema_version, ..name.clone() };
            assert_eq!(*event_type, today.event_type);
            assert!(validator.fits(&today, &serde_json::from_str(&written).unwrap()), "{today}: {}", &*written);
            assert_eq!(read(&today, &written).as_ref(), Some(&event), "{name}");
            if today == name {
                assert_eq!(*written, *payload, "{name}");
            }
        }
    }
    insta::assert_snapshot!(shown);
}

/// Every field that may be left out is there once and left out once, every list has an element, every word stands
/// somewhere; and all is as the schema says.
#[test]
fn stored_payloads_are_what_their_schemas_say_and_show_all_of_it() {
    let (validator, schemas) = (Validator::new(), schemas());
    for (name, payloads) in fixtures() {
        let payloads: Vec<Value> = payloads.iter().map(|payload| serde_json::from_str(payload).unwrap()).collect();
        for payload in &payloads {
            assert!(validator.fits(&name, payload), "{name}: {payload}");
        }
        let payloads: Vec<&Value> = payloads.iter().collect();
        assert_shown(&format!("{name}"), &schemas[&name], &payloads);
    }
}

fn assert_shown(at: &str, schema: &Value, values: &[&Value]) {
    assert!(!values.is_empty(), "no fixture has {at}");
    let required = required(schema);
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        let there: Vec<&Value> = values.iter().filter_map(|value| value.get(field)).collect();
        assert!(required.contains(&field.as_str()) || there.len() < values.len(), "no fixture is without {at}.{field}");
        assert_shown(&format!("{at}.{field}"), schema, &there);
    }
    if let Some(items) = schema.get("items") {
        let elements: Vec<&Value> = values.iter().flat_map(|value| value.as_array().unwrap()).collect();
        assert_shown(&format!("{at}[]"), items, &elements);
    }
    // A word that has a description is a schema of its own.
    for schema in [schema].into_iter().chain(list(schema, "oneOf")) {
        for word in list(schema, "enum").chain(schema.get("const")) {
            assert!(values.contains(&word), "no fixture has {word} in {at}");
        }
    }
}

/// What the schema of what is written today demands, the codec demands as well: a payload that falls short in one place
/// is refused by both. (What an upcaster makes of an older one is its own affair.)
#[test]
fn what_is_not_as_the_schema_says_is_not_read() {
    let (validator, schemas) = (Validator::new(), schemas());
    let is_todays = |name: &Name| Event::current_version(&name.category, &name.event_type) == Some(name.version);
    for (name, payloads) in fixtures().into_iter().filter(|(name, _)| is_todays(name)) {
        for payload in payloads {
            for spoiled in spoiled(&schemas[&name], &serde_json::from_str(&payload).unwrap()) {
                assert!(!validator.fits(&name, &spoiled), "{name} fits its schema: {spoiled}");
                assert_eq!(read(&name, &spoiled.to_string()), None, "{name} is read: {spoiled}");
            }
        }
    }
}

/// The value with one thing wrong in it, for each thing that its schema asks for.
fn spoiled(schema: &Value, value: &Value) -> Vec<Value> {
    let mut spoiled = vec![if value.is_boolean() { json!("not so") } else { json!(true) }];
    match value {
        Value::Object(fields) => {
            for name in required(schema) {
                let mut fields = fields.clone();
                fields.remove(name);
                spoiled.push(fields.into());
            }
            for (name, field) in fields {
                spoiled.extend(self::spoiled(&schema["properties"][name], field).into_iter().map(|wrong| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), wrong);
                    fields.into()
                }));
            }
        }
        Value::Array(elements) => {
            for (n, element) in elements.iter().enumerate() {
                spoiled.extend(self::spoiled(&schema["items"], element).into_iter().map(|wrong| {
                    let mut elements = elements.clone();
                    elements[n] = wrong;
                    elements.into()
                }));
            }
        }
        Value::String(_) if ["format", "pattern", "enum", "oneOf"].iter().any(|k| schema.get(k).is_some()) => {
            spoiled.push("not so".into());
        }
        Value::Number(_) => {
            spoiled.push(json!(0.5));
            spoiled.extend(schema["minimum"].as_i64().map(|minimum| json!(minimum - 1)));
        }
        Value::String(_) | Value::Bool(_) | Value::Null => {}
    }
    spoiled
}

fn required(schema: &Value) -> Vec<&str> {
    list(schema, "required").filter_map(Value::as_str).collect()
}

fn list<'a>(schema: &'a Value, keyword: &str) -> impl Iterator<Item = &'a Value> {
    schema[keyword].as_array().into_iter().flatten()
}
