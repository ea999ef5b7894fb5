//! The documents say what is so: `docs/cli.md` is the help of the command line, each block of JSON is taken by the parser
//! that it claims, each invariant names tests that exist, the drawing of the crates has the arrows of their manifests, and
//! each link, path and name leads somewhere.
//!
//! `UPDATE_DOCS=1 cargo test -p tests docs::` writes `docs/cli.md` anew.

use crate::harness::{System, database};
use clap::ArgAction;
use order_services::notifier::NoticeBody;
use order_services::{queries, verbs};
use order_views::CATEGORIES;
use orders::payment::Outcome;
use orders::reaction::{LookupAnswer, ProviderCall};
use runtime::api::NATS_SERVICE_ERROR_CODE;
use runtime::wire::{ErrorBody, Reply};
use runtime::{archive, subject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files below `folder` with this extension, but for what is built or has a name that begins with a dot.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        match path.is_dir() {
            true => found.extend(files(&path, extension)),
            false if path.extension().is_some_and(|e| e == extension) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// Each document, by its path from the root of the project.
fn documents() -> BTreeMap<String, String> {
    let root = root();
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files(&root, "md").iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

// The command line.

#[test]
fn the_document_of_the_command_line_is_its_help() {
    let file = root().join("docs/cli.md");
    let rendered = command_line();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &rendered).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    let differs = written.lines().zip(rendered.lines()).find(|(written, rendered)| written != rendered);
    assert!(
        written == rendered,
        "docs/cli.md is not the help of this build: run `UPDATE_DOCS=1 cargo test -p tests docs::`. {differs:?}"
    );
}

const ABOUT_THE_FILE: &str = "\
# The command line

<!-- Generated from the help texts by tests/it/docs.rs: change those, and run `UPDATE_DOCS=1 cargo test -p tests docs::`. -->

";

fn command_line() -> String {
    let mut daybook = daybook::command();
    daybook.build();
    let mut text = ABOUT_THE_FILE.to_owned();
    text += &sentence(&daybook.get_about().unwrap().to_string());
    text += "\n\n| command | |\n| --- | --- |\n";
    for command in commands(&daybook) {
        let (name, about) = (command.get_name(), sentence(&command.get_about().unwrap().to_string()));
        writeln!(text, "| [`{name}`](#daybook-{name}) | {} |", cell(&about)).unwrap();
    }
    text += "\n## Options of every command\n";
    options(&mut text, &daybook, |_| true);
    writeln!(text, "\n```text\n{}\n```", daybook.get_after_help().unwrap().to_string().trim_end()).unwrap();
    for command in daybook.get_subcommands_mut() {
        describe(&mut text, command, 2);
    }
    text.trim_end().to_owned() + "\n"
}

/// The commands within one, without clap's own `help`.
fn commands(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set())
}

fn describe(text: &mut String, command: &mut clap::Command, level: usize) {
    if command.get_name() == "help" || command.is_hide_set() {
        return;
    }
    let name = command.get_bin_name().unwrap().to_owned();
    let about = sentence(&command.get_about().unwrap_or_else(|| panic!("{name} has no help")).to_string());
    write!(text, "\n{} `{name}`\n\n{about}\n", "#".repeat(level)).unwrap();
    if command.has_subcommands() {
        command.get_subcommands_mut().for_each(|command| describe(text, command, level + 1));
        return;
    }
    let usage = command.render_usage().to_string();
    writeln!(text, "\n```text\n{}\n```", usage.strip_prefix("Usage: ").unwrap_or(&usage)).unwrap();
    options(text, command, |argument| !argument.is_global_set());
}

/// A table of the arguments and options that are asked for.
fn options(text: &mut String, command: &clap::Command, is_wanted: impl Fn(&clap::Arg) -> bool) {
    let is_claps = |action: &ArgAction| matches!(action, ArgAction::Help | ArgAction::HelpLong | ArgAction::Version);
    let own = |a: &&clap::Arg| !is_claps(a.get_action()) && !a.is_hide_set() && is_wanted(a);
    let arguments: Vec<&clap::Arg> = command.get_arguments().filter(own).collect();
    if arguments.is_empty() {
        return;
    }
    *text += "\n| | |\n| --- | --- |\n";
    for argument in arguments {
        writeln!(text, "| `{}` | {} |", cell(&argument.to_string()), cell(&told(command, argument))).unwrap();
    }
}

/// What is to be known of an argument: its help, its values, its default, and the variable that it may come from.
fn told(command: &clap::Command, argument: &clap::Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let help = help.unwrap_or_else(|| panic!("{} has no help for {argument}", command.get_bin_name().unwrap()));
    let mut told = vec![sentence(&help.to_string().replace('\n', " "))];
    if argument.is_required_set() && !argument.is_positional() {
        told.push("Required.".to_owned());
    }
    if argument.get_action().takes_values() {
        let values = argument.get_possible_values();
        let value = |value: &clap::builder::PossibleValue| match value.get_help() {
            Some(help) => format!("<br>`{}`: {}", value.get_name(), sentence(&help.to_string())),
            None => format!("`{}`", value.get_name()),
        };
        let described = values.iter().any(|value| value.get_help().is_some());
        let values: Vec<String> = values.iter().filter(|value| !value.is_hide_set()).map(value).collect();
        match (values.is_empty(), described) {
            (true, _) => {}
            (false, true) => told.push(values.concat()),
            (false, false) => told.push(format!("One of {}.", values.join(", "))),
        }
        let defaults: Vec<_> = argument.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
        if !defaults.is_empty() {
            told.push(format!("Default: `{}`.", defaults.join(",")));
        }
    }
    if let Some(variable) = argument.get_env() {
        told.push(format!("Environment: `{}`.", variable.to_string_lossy()));
    }
    told.join(" ")
}

/// With the full stop that clap takes away.
fn sentence(text: &str) -> String {
    match text.trim_end() {
        text if text.ends_with(['.', '…', ':']) => text.to_owned(),
        text => format!("{text}."),
    }
}

/// As it may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

// The invariants.

/// How many there are.
const INVARIANTS: usize = 31;

#[test]
fn each_invariant_names_tests_that_exist() {
    let tests = tests_of_the_workspace();
    let document = fs::read_to_string(root().join("docs/invariants.md")).unwrap();
    let (mut numbers, mut missing) = (Vec::new(), BTreeSet::new());
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(number) = cells[0].parse::<usize>() else { continue };
        assert_eq!(cells.len(), 3, "invariant {number} is a number, a sentence, and its tests");
        numbers.push(number);
        let named: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "invariant {number} names no test");
        missing.extend(named.into_iter().filter(|name| tests.get(*name) != Some(&1)).map(|name| (number, name)));
    }
    assert!(missing.is_empty(), "there must be one test of each name: {missing:#?}");
    assert_eq!(numbers, (1..=INVARIANTS).collect::<Vec<_>>());
}

/// The names of all tests, as they stand in the sources, and how many have each.
fn tests_of_the_workspace() -> BTreeMap<String, usize> {
    let mut tests = BTreeMap::new();
    for file in files(&root(), "rs") {
        let mut is_test = false;
        for line in fs::read_to_string(&file).unwrap().lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, function)) = line.split_once("fn ").filter(|_| is_test) {
                is_test = false;
                let end = function.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap();
                *tests.entry(function[..end].to_owned()).or_default() += 1;
            }
        }
    }
    tests
}

// The JSON.

/// Values in a block that begins with three backticks, `json`, and what it is.
struct Block {
    /// The document, and the line.
    place: String,
    kind: Vec<String>,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (document, text) in documents() {
        let mut inside = false;
        for (number, line) in (1..).zip(text.lines()) {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, inside) {
                (Some(info), false) if info.split(' ').next() == Some("json") => {
                    let kind = info.split(' ').skip(1).map(str::to_owned).collect();
                    blocks.push(Block { place: format!("{document}:{number}"), kind, text: String::new() });
                    inside = true;
                }
                (Some(_), true) => inside = false,
                (None, true) => {
                    let block = blocks.last_mut().unwrap();
                    block.text += line;
                    block.text.push('\n');
                }
                (_, false) => {}
            }
        }
        assert!(!inside, "{document}: a block does not end");
    }
    blocks
}

impl Block {
    /// Its values: one over several lines, or one a line.
    fn values(&self) -> Vec<Value> {
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&self.text).into_iter().collect();
        let values = values.unwrap_or_else(|e| panic!("{}: {e}", self.place));
        assert!(!values.is_empty(), "{}: nothing is in it", self.place);
        values
    }

    /// Each is read as a `T`, and nothing in it goes unread.
    fn is_read_as<T: Serialize + DeserializeOwned>(&self) {
        for value in self.values() {
            let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{}: {e}", self.place));
            assert_eq!(json!(read), value, "{}", self.place);
        }
    }

    /// What is sent is answered by something else than that it is malformed.
    async fn is_taken_by(&self, system: &System, subject: String, body: &Value) {
        let client = &system.parts.client;
        let answer = client.request(subject, body.to_string().into()).await.unwrap();
        let headers = answer.headers.as_ref();
        let code = headers.and_then(|h| h.get(NATS_SERVICE_ERROR_CODE)).map(|code| code.as_str().to_owned());
        let answer = String::from_utf8_lossy(&answer.payload);
        // Not found, of another history, and refused as things stand: it was understood.
        let understood = [None, Some("404"), Some("410"), Some("422")];
        assert!(understood.contains(&code.as_deref()), "{}: {answer}", self.place);
    }
}

fn command_of(data: &Value) -> Value {
    json!({ "command_id": Uuid::now_v7(), "actor": "reader", "data": data })
}

/// Commands and queries are sent to the APIs, an export is imported, and the rest is read as what it is.
#[tokio::test]
async fn each_block_of_json_is_taken_by_the_parser_that_it_claims() {
    let system = System::start().await;
    let client = &system.parts.client;
    let _services = [
        verbs::start(client, system.executor.clone()).await.unwrap(),
        queries::start(client, system.parts.read.clone()).await.unwrap(),
    ];
    client.flush().await.unwrap();
    let blocks = blocks();
    let kinds: BTreeSet<&str> = blocks.iter().filter_map(|block| block.kind.first()).map(String::as_str).collect();
    assert!(kinds.is_superset(&BTreeSet::from(["command", "query", "reply", "error", "export"])), "{kinds:?}");
    for block in &blocks {
        let kind: Vec<&str> = block.kind.iter().map(String::as_str).collect();
        match kind[..] {
            ["command", verb] => {
                for body in block.values() {
                    block.is_taken_by(&system, format!("{}.{verb}", subject::COMMANDS), &body).await;
                }
            }
            ["data", verb] => {
                for data in block.values() {
                    block.is_taken_by(&system, format!("{}.{verb}", subject::COMMANDS), &command_of(&data)).await;
                }
            }
            ["order"] => {
                for order in block.values() {
                    let command = command_of(&json!({ "order_id": Uuid::now_v7(), "order": order }));
                    block.is_taken_by(&system, format!("{}.order.place", subject::COMMANDS), &command).await;
                }
            }
            ["query", verb] => {
                for body in block.values() {
                    block.is_taken_by(&system, format!("{}.{verb}", subject::QUERIES), &body).await;
                }
            }
            ["reply"] => block.is_read_as::<Reply>(),
            ["error"] => block.is_read_as::<ErrorBody>(),
            ["provider-call"] => block.is_read_as::<ProviderCall>(),
            ["provider-answer"] => block.is_read_as::<Outcome>(),
            ["lookup-answer"] => block.is_read_as::<LookupAnswer>(),
            ["notice"] => block.is_read_as::<NoticeBody>(),
            ["export"] => {
                let file = Cursor::new(block.text.clone().into_bytes());
                let imported = archive::import(&database().await, CATEGORIES, &[], file, |_, _| {}).await;
                assert_eq!(imported.unwrap_or_else(|e| panic!("{}: {e}", block.place)), block.values().len() as i64);
            }
            _ => panic!("{}: which JSON is that? Say it after ```json, as tests/it/docs.rs knows it", block.place),
        }
    }
}

// The crates.

/// A crate uses another one: always, or only with a feature.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    is_optional: bool,
}

/// The crates of the workspace, each with its folder at the top, and the arrows between them.
fn crates() -> (BTreeMap<String, String>, BTreeSet<Arrow>) {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let folder = |package: &Value| {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        manifest.strip_prefix(root()).unwrap().iter().next().unwrap().to_str().unwrap().to_owned()
    };
    let folders: BTreeMap<_, _> = packages.iter().map(|package| (name(package), folder(package))).collect();
    let mut arrows = BTreeSet::new();
    for package in packages {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let of_the_build = dependencies.filter(|d| d["kind"].is_null() && folders.contains_key(&name(d)));
        arrows.extend(of_the_build.map(|dependency| Arrow {
            from: name(package),
            to: name(dependency),
            is_optional: dependency["optional"].as_bool().unwrap(),
        }));
    }
    (folders, arrows)
}

/// The crates and arrows that the drawing in docs/architecture.md has.
fn drawn_crates() -> (BTreeMap<String, String>, BTreeSet<Arrow>) {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, drawing) = text.split_once("```mermaid\n").expect("docs/architecture.md has a drawing");
    let (drawing, _) = drawing.split_once("```").unwrap();
    let (mut folders, mut arrows) = (BTreeMap::new(), BTreeSet::new());
    let mut folder = None;
    for line in drawing.lines().map(str::trim) {
        let arrow = line.split_once(" --> ").or_else(|| line.split_once(" -.-> "));
        if let Some((from, to)) = arrow {
            arrows.extend(to.split(" & ").map(|to| Arrow {
                from: from.to_owned(),
                to: to.to_owned(),
                is_optional: line.contains(" -.-> "),
            }));
        } else if line.starts_with("subgraph ") {
            folder = line.split('"').nth(1).map(|title| title.trim_end_matches('/').to_owned());
        } else if line == "end" {
            folder = None;
        } else if let Some(folder) = &folder {
            folders.extend(line.split(" & ").map(|name| (name.to_owned(), folder.clone())));
        }
    }
    (folders, arrows)
}

#[test]
fn the_drawing_of_the_crates_has_the_arrows_of_their_manifests() {
    let ((folders, arrows), (drawn_folders, drawn)) = (crates(), drawn_crates());
    assert_eq!(drawn_folders, folders, "the drawing in docs/architecture.md has each crate in its folder");
    let (missing, wrong): (Vec<_>, Vec<_>) = (arrows.difference(&drawn).collect(), drawn.difference(&arrows).collect());
    assert!(missing.is_empty() && wrong.is_empty(), "the drawing lacks {missing:#?}, and should not have {wrong:#?}");
}

/// The folders at the top, from the lowest on. The first two do not know each other.
const LAYERS: [&[&str]; 4] = [&["domain", "store"], &["projections"], &["services"], &["examples", "tests"]];

#[test]
fn crates_use_only_crates_of_their_own_folder_or_of_a_lower_layer() {
    let (folders, arrows) = crates();
    let layer = |folder: &String| {
        let found = LAYERS.iter().position(|layer| layer.contains(&folder.as_str()));
        found.unwrap_or_else(|| panic!("in which layer is {folder}/?"))
    };
    let runs_up = |arrow: &&Arrow| {
        let (from, to) = (&folders[&arrow.from], &folders[&arrow.to]);
        from != to && layer(from) <= layer(to)
    };
    let up: Vec<_> = arrows.iter().filter(runs_up).collect();
    assert!(up.is_empty(), "these arrows run up: {up:#?}");
}

/// In the table that says where to look, a cell has the path of a file and then names that stand in it, up to the next path.
#[test]
fn the_names_of_where_to_look_stand_in_their_files() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = text.split_once("\n## Where to look\n").expect("docs/architecture.md says where to look");
    let section = section.split("\n## ").next().unwrap();
    let mut missing = BTreeSet::new();
    let mut found = 0;
    for row in section.lines().filter(|line| line.starts_with("| ")) {
        let mut file: Option<(&str, String)> = None;
        for name in row.split('`').skip(1).step_by(2) {
            if name.contains('/') {
                file = Some((name, fs::read_to_string(root().join(name)).unwrap_or_default()));
            } else if let Some((path, text)) = &file {
                found += 1;
                let words = |c: char| c != '_' && !c.is_alphanumeric();
                let is_there = name.split("::").all(|part| text.split(words).any(|word| word == part));
                if !is_there {
                    missing.insert(format!("{path}: {name}"));
                }
            }
        }
    }
    assert!(found > 0);
    assert!(missing.is_empty(), "these names are not in their files: {missing:#?}");
}

// The links and paths.

/// GitHub's name for a heading: small letters, without punctuation, blanks as hyphens.
fn anchor(heading: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || [' ', '-', '_'].contains(&c);
    heading.trim().to_lowercase().chars().filter(|c| kept(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        inside ^= line.trim_start().starts_with("```");
        if !inside && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#')));
        }
    }
    found
}

#[test]
fn each_link_between_documents_leads_somewhere() {
    let mut broken = BTreeSet::new();
    for (document, text) in &documents() {
        let folder = root().join(Path::new(document).parent().unwrap());
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { root().join(document) } else { folder.join(file) };
            let leads = target.exists()
                && heading.is_none_or(|heading| anchors(&fs::read_to_string(&target).unwrap()).contains(heading));
            if !leads {
                broken.insert(format!("{document}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere: {broken:#?}");
}

/// A path that begins with a folder of the project, between backticks, is that of a file or folder: seen from the project, or
/// from the document.
#[test]
fn each_path_that_a_document_names_exists() {
    let root = root();
    let is_ours = |path: &str| {
        let first = path.split('/').next().unwrap();
        path.contains('/')
            && !["", "target"].contains(&first)
            && root.join(first).is_dir()
            && !path.contains(['<', '{', '*', ' ', '…'])
    };
    let (mut found, mut missing) = (0, BTreeSet::new());
    for (document, text) in documents() {
        let folder = root.join(Path::new(&document).parent().unwrap());
        for line in text.lines().filter(|line| !line.contains("```")) {
            for path in line.split('`').skip(1).step_by(2).filter(|path| is_ours(path)) {
                found += 1;
                if !root.join(path).exists() && !folder.join(path).exists() {
                    missing.insert(format!("{document}: {path}"));
                }
            }
        }
    }
    assert!(found > 0);
    assert!(missing.is_empty(), "there are no such files: {missing:#?}");
}
