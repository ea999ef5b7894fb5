//! The JSON Schemas of the stored events, `docs/schemas/<category>/<Type>.v<version>.json`: made from the types, and held
//! against those that were shipped.
//!
//! What was shipped never changes its shape and never goes. `UPDATE_SCHEMAS=1 cargo test -p domain schemas` writes what
//! is new, or says the same in other words; nothing makes this test accept more.

use crate::{Aggregate, order, payment, shipment, stock};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The schema of what this build writes: closed, for a field more is a new version, and with every type in its place,
/// for the names of Rust's types are nobody's business. Should another release of `schemars` word the same shape in
/// another way, it is here that it is put back.
pub(crate) fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|s| s.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(close)).with_transform(RecursiveTransform(unwrap_lines));
    settings.into_generator().into_root_schema_for::<T>()
}

fn close(schema: &mut Schema) {
    if schema.get("type") != Some(&json!("object")) {
        return;
    }
    schema.ensure_object().entry("additionalProperties").or_insert(json!(false));
    let required = schema.get("required").cloned().unwrap_or(json!([]));
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten();
    // What has no value is left out: it is never null.
    for (_, field) in fields.filter(|(name, _)| !required.as_array().is_some_and(|r| r.contains(&json!(name)))) {
        if let Some([of, null]) = field["type"].as_array().map(Vec::as_slice)
            && null == "null"
        {
            field["type"] = of.clone();
        }
    }
}

/// Where a line of the source ended is nobody's business either.
fn unwrap_lines(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

/// An event type of a category, in one of its schema versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    category: String,
    event_type: String,
    version: i16,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.v{}", self.category, self.event_type, self.version)
    }
}

impl Name {
    /// Of the file `<Type>.v<version>.json` in the folder of a category.
    fn of_file(category: &Path, file: &Path) -> Option<Self> {
        let (event_type, version) = file.file_name()?.to_str()?.strip_suffix(".json")?.split_once(".v")?;
        let category = category.file_name()?.to_str()?.to_owned();
        Some(Self { category, event_type: event_type.to_owned(), version: version.parse().ok()? })
    }

    fn path(&self) -> PathBuf {
        folder().join(format!("{self}.json"))
    }

    fn with_version(&self, version: i16) -> Self {
        Self { version, ..self.clone() }
    }
}

type Schemas = BTreeMap<Name, Value>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas")
}

/// What this build writes.
fn present() -> Schemas {
    let categories = [
        (order::Order::CATEGORY, order::Event::schemas()),
        (payment::Payment::CATEGORY, payment::Event::schemas()),
        (stock::Stock::CATEGORY, stock::Event::schemas()),
        (shipment::Shipment::CATEGORY, shipment::Event::schemas()),
    ];
    let all = categories.into_iter().flat_map(|(category, schemas)| schemas.into_iter().map(move |s| (category, s)));
    all.map(|(category, (event_type, version, doc, mut schema))| {
        assert!(!doc.is_empty(), "{event_type} does not say what it means");
        schema.insert("description".to_owned(), doc.trim().into());
        (Name { category: category.into(), event_type: event_type.into(), version }, schema.into())
    })
    .collect()
}

/// What this build or one before it has written.
fn shipped() -> Schemas {
    let files = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let categories = if folder().exists() { files(&folder()) } else { vec![] };
    let all = categories.iter().flat_map(|category| files(category).into_iter().map(move |file| (category, file)));
    all.map(|(category, file)| {
        let name = Name::of_file(category, &file).unwrap_or_else(|| panic!("{} is no schema", file.display()));
        (name, serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap())
    })
    .collect()
}

/// What of `present` is to be written; or else all that is wrong, whatever is written.
fn judge(shipped: &Schemas, present: &Schemas) -> Result<Vec<Name>, Vec<String>> {
    let (mut new, mut wrong) = (Vec::new(), Vec::new());
    for (name, schema) in present {
        let next = name.with_version(name.version + 1);
        match shipped.get(name) {
            Some(shipped) if shape(shipped) != shape(schema) => {
                wrong.push(format!("{name} has another shape, but is stored for ever: leave it, and make {next}"));
            }
            Some(shipped) if shipped == schema => {}
            None if shipped.contains_key(&next) => wrong.push(format!("{name} comes after {next}, which was shipped")),
            Some(_) | None => new.push(name.clone()),
        }
    }
    for name in shipped.keys().chain(&new) {
        let before = name.with_version(name.version - 1);
        if name.version != 1 && !shipped.contains_key(&before) {
            wrong.push(format!("{name} stands there without {before}"));
        }
    }
    for name in shipped.keys() {
        let follows = |p: &Name| p.with_version(0) == name.with_version(0) && p.version >= name.version;
        if !present.keys().any(follows) {
            wrong.push(format!("{name} was shipped, and this build neither writes it nor what came after it"));
        }
    }
    if wrong.is_empty() { Ok(new) } else { Err(wrong) }
}

/// A schema without what only people read.
fn shape(schema: &Value) -> Value {
    if let Some(words) = words(schema) {
        return json!({ "enum": words });
    }
    match schema {
        Value::Object(keywords) => {
            let shapes = keywords.iter().filter(|(keyword, _)| !["title", "description"].contains(&keyword.as_str()));
            shapes.map(|(keyword, value)| (keyword.clone(), shape_of(keyword, value))).collect()
        }
        Value::Array(values) => values.iter().map(shape).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => schema.clone(),
    }
}

fn shape_of(keyword: &str, value: &Value) -> Value {
    match value {
        // By their names: a field may be called `title`.
        Value::Object(fields) if keyword == "properties" => {
            fields.iter().map(|(name, field)| (name.clone(), shape(field))).collect()
        }
        _ => shape(value),
    }
}

/// The words of an enum of words. One that has a description is a schema of its own.
fn words(schema: &Value) -> Option<BTreeSet<&str>> {
    match (&schema["const"], &schema["enum"], &schema["oneOf"]) {
        (Value::String(word), _, _) => Some([word.as_str()].into()),
        (_, Value::Array(words), _) => words.iter().map(Value::as_str).collect(),
        (_, _, Value::Array(schemas)) => {
            schemas.iter().map(words).try_fold(BTreeSet::new(), |all, words| Some(&all | &words?))
        }
        _ => None,
    }
}

#[test]
fn what_was_shipped_keeps_its_shape() {
    let present = present();
    let new = judge(&shipped(), &present).unwrap_or_else(|wrong| panic!("{}", wrong.join("\n")));
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    let names: Vec<String> = new.iter().map(Name::to_string).collect();
    assert!(new.is_empty() || update, "UPDATE_SCHEMAS=1 cargo test -p domain schemas, for {}", names.join(", "));
    for name in new {
        // In the order of keywords that `Schema` has.
        let schema = Schema::try_from(present[&name].clone()).unwrap();
        fs::create_dir_all(name.path().parent().unwrap()).unwrap();
        fs::write(name.path(), serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
    }
}

/// `StockReceived` in that version, with a field, an optional one, a list and an enum; and what `change` makes of it.
fn example(version: i16, change: impl FnOnce(&mut Value)) -> Schemas {
    let mut schema = json!({
        "title": "StockReceived",
        "type": "object",
        "properties": {
            "title": { "type": "string", "description": "Of the SKU." },
            "quantity": { "type": "integer", "format": "uint32", "minimum": 0 },
            "lines": { "type": "array", "items": { "type": "object", "properties": { "line": { "type": "integer" } } } },
            "reason": { "type": "string", "enum": ["found", "returned"] },
        },
        "additionalProperties": false,
        "required": ["title", "lines"],
    });
    change(&mut schema);
    [(Name { category: "stock".into(), event_type: "StockReceived".into(), version }, schema)].into()
}

fn both(mut one: Schemas, mut other: Schemas) -> Schemas {
    one.append(&mut other);
    one
}

#[test]
fn another_shape_under_the_same_version_is_refused() {
    let shipped = example(1, |_| {});
    let changes: [fn(&mut Value); 12] = [
        |s| s["properties"]["note"] = json!({ "type": "string" }),
        |s| _ = s["properties"].as_object_mut().unwrap().remove("quantity"),
        |s| _ = s["properties"].as_object_mut().unwrap().remove("title"),
        |s| s["properties"]["quantity"]["format"] = "uint64".into(),
        |s| s["properties"]["quantity"]["type"] = json!(["integer", "null"]),
        |s| s["properties"]["title"]["pattern"] = "^[a-z]+$".into(),
        |s| s["properties"]["lines"]["items"]["properties"]["line"]["type"] = "string".into(),
        |s| s["properties"]["reason"]["enum"] = json!(["found", "returned", "bought"]),
        |s| s["properties"]["reason"]["enum"] = json!(["found"]),
        |s| s["required"] = json!(["title", "lines", "quantity"]),
        |s| s["required"] = json!(["title"]),
        |s| s["additionalProperties"] = true.into(),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let wrong = judge(&shipped, &example(1, change)).expect_err(&format!("change {n}"));
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("stock/StockReceived.v1 has another shape"), "{wrong:?}");
        // Under the next version it is welcome, and the one before stays.
        assert_eq!(judge(&shipped, &example(2, change)), Ok(example(2, |_| {}).into_keys().collect()));
        assert_eq!(judge(&both(shipped.clone(), example(2, change)), &example(2, change)), Ok(vec![]));
    }
}

#[test]
fn other_words_for_the_same_shape_are_written() {
    let shipped = example(1, |_| {});
    let changes: [fn(&mut Value); 4] = [
        |s| s["description"] = "Pieces came in.".into(),
        |s| s["properties"]["title"]["description"] = "Of the SKU, in English.".into(),
        |s| _ = s["properties"]["title"].as_object_mut().unwrap().remove("description"),
        |s| {
            let found = json!({ "type": "string", "const": "found", "description": "When counting." });
            s["properties"]["reason"] = json!({ "oneOf": [{ "type": "string", "enum": ["returned"] }, found] });
        },
    ];
    for change in changes {
        assert_eq!(judge(&shipped, &example(1, change)), Ok(shipped.keys().cloned().collect()));
    }
    assert_eq!(judge(&shipped, &shipped), Ok(vec![]));
}

#[test]
fn no_version_goes_or_is_left_out() {
    let [v1, v2, v3] = [1, 2, 3].map(|version| example(version, |_| {}));
    let none = Schemas::new();
    assert!(judge(&v1, &none).is_err(), "the type has gone");
    assert!(judge(&both(v1.clone(), v2.clone()), &v1).is_err(), "it has gone back");
    assert!(judge(&v1, &v3).is_err(), "a version was left out");
    assert!(judge(&none, &v2).is_err(), "it begins at 2");
    assert!(judge(&v2, &v2).is_err(), "version 1 has gone from the folder");
    assert!(judge(&v2, &both(v1.clone(), v2.clone())).is_err(), "it comes after the one that follows it");
    assert_eq!(judge(&none, &v1), Ok(v1.keys().cloned().collect()));
}
