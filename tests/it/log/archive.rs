//! The log as a file, and back: faithful, whole or not at all, and without consequences.

use crate::binary::until;
use crate::harness::{System, database, daybook, folder, id, order_of, run, start_nats};
use engine::ReadModel as _;
use order_views::CATEGORIES;
use order_views::{Projection, ReadModel};
use orders::Command;
use orders::order::CancelReason;
use runtime::archive::{self, Writer};
use runtime::process::Urls;
use runtime::step::{Outcome, Step};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, query_as, query_scalar};
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use store::connect::{self, Role};
use store::{
    Append, Appender, Chain, ExpectedVersion, Fingerprint, Import, Log, Mark, Metadata, NewEvent, Origin,
    RecordedEvent, StreamAppend, StreamId,
};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use uuid::Uuid;

/// The binary on a database, without NATS.
fn daybook_at(database_url: &str) -> tokio::process::Command {
    let mut command = daybook();
    command.env("DATABASE_URL", database_url);
    command
}

/// What it wrote to standard output; it must have gone well.
fn ok(output: Output) -> Vec<u8> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output.stdout
}

/// The whole log, uncompressed.
async fn exported(database_url: &str) -> String {
    String::from_utf8(ok(daybook_at(database_url).args(["export", "-"]).output().await.unwrap())).unwrap()
}

async fn import(database_url: &str, file: impl Into<Vec<u8>>) -> Result<i64, String> {
    archive::import(database_url, CATEGORIES, &Projection::EFFECTS, Cursor::new(file.into()), |_, _| {})
        .await
        .map_err(|e| e.to_string())
}

/// Every column of every event, as Postgres shows it.
async fn columns(database_url: &str) -> Vec<String> {
    let pool = PgPool::connect(database_url).await.unwrap();
    query_scalar("SELECT e::text FROM daybook.events e ORDER BY position").fetch_all(&pool).await.unwrap()
}

/// How many events there are, up to where they were imported, and where the follow-ups begin.
async fn state(database_url: &str) -> (i64, i64, i64) {
    let pool = PgPool::connect(database_url).await.unwrap();
    let state = "SELECT (SELECT count(*) FROM daybook.events), imported_to, position
                 FROM daybook.log, daybook.checkpoints WHERE projection = 'follow_ups'";
    query_as(state).fetch_one(&pool).await.unwrap()
}

async fn new_folder() -> PathBuf {
    let folder = folder("archive").await;
    fs::create_dir(&folder).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn log(database_url: &str) -> Log {
    Log::new(connect::pool(database_url, Role::Read, 1).unwrap(), CATEGORIES)
}

fn stream(category: usize, n: u128) -> StreamId {
    StreamId { category: CATEGORIES[category], id: id(n) }
}

fn event(payload: &str) -> NewEvent {
    NewEvent { event_type: "Happened".into(), schema_version: 1, payload: payload.into() }
}

fn metadata() -> Metadata {
    Metadata {
        correlation_id: Uuid::now_v7(),
        causation_id: None,
        command_id: Uuid::now_v7(),
        fingerprint: Fingerprint::of(b"command"),
        actor: "test".into(),
        origin: Origin::Live,
        occurred_at: "2025-01-02T03:04:05.000006Z".parse().unwrap(),
        traceparent: None,
    }
}

async fn append(appender: &Appender, metadata: Metadata, stream: StreamId, events: Vec<NewEvent>) -> i64 {
    let write = StreamAppend { stream, expected: ExpectedVersion::Any, events };
    appender.append(Append { metadata, streams: vec![write] }).await.unwrap().position
}

/// A log with all that a payload and its metadata can be.
async fn odd_log() -> String {
    let url = database().await;
    let appender = Appender::start(&url).unwrap();
    let payloads = [
        r#"{"a":1}"#,
        "{\"a\":\n  1}",
        "{\r\n}",
        " {\"a\": 1}\t",
        "{ \"blanks\" : [ 1 , 2 ] }",
        "null",
        "\"text\"",
        "1.50e+0300",
        r#"{"twice":1,"twice":2}"#,
        r#"{"escaped":"\"\\\/\n\u00e9\ud83d\ude00","not":"é😀"}"#,
        "{\"separators\":\"\u{2028}\u{85}\u{7f}\"}",
    ];
    append(&appender, metadata(), stream(0, 1), payloads.map(event).to_vec()).await;
    let led_to = Metadata {
        causation_id: Some(Uuid::now_v7()),
        fingerprint: Fingerprint([0xFF, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0x0E]),
        actor: r#"shop "A" \ é"#.into(),
        origin: Origin::Import,
        occurred_at: "0001-01-01T00:00:00Z".parse().unwrap(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..metadata()
    };
    append(&appender, led_to, stream(1, 1), vec![NewEvent { schema_version: i16::MAX, ..event("{}") }]).await;
    let late = Metadata { occurred_at: "9999-12-31T23:59:59.999999Z".parse().unwrap(), ..metadata() };
    append(&appender, late, stream(3, 2), vec![event("{}")]).await;
    append(&appender, metadata(), stream(0, 1), vec![event("{}"), event("[]")]).await;
    url
}

#[tokio::test]
async fn every_column_comes_back_as_it_was() {
    let (source, folder) = (odd_log().await, new_folder().await);
    let events = columns(&source).await;
    for (arguments, is_zstd) in
        [("log.ndjson", false), ("log.ndjson.zst", true), ("--zstd log", true), ("-", false), ("--zstd -", true)]
    {
        let mut export = daybook_at(&source);
        let output = export.arg("export").args(arguments.split(' ')).current_dir(&folder).output().await.unwrap();
        let stdout = ok(output);
        let file = match arguments.rsplit(' ').next().unwrap() {
            "-" => stdout,
            name => fs::read(folder.join(name)).unwrap(),
        };
        assert_eq!(file.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]), is_zstd, "{arguments}");
        // RFC 8878, section 3.1.1.1.1: the flag of a checksum.
        assert!(!is_zstd || file[4] & 0b100 != 0, "{arguments}");
        let copy = database().await;
        assert_eq!(import(&copy, file).await, Ok(events.len() as i64), "{arguments}");
        assert_eq!(columns(&copy).await, events, "{arguments}");
        assert_eq!(registered(&copy).await, registered(&source).await);
        let head = events.len() as i64;
        assert_eq!(state(&copy).await, (head, head, head));
    }
}

/// What was recorded at one time is a group where no links tell, and no larger than an appender's.
#[tokio::test]
async fn a_group_without_links_has_a_bound() {
    let recorded_at = "2026-11-22T07:44:45.745291Z".parse().unwrap();
    let large = format!("\"{}\"", "x".repeat(100_000));
    let events = |count: i64, payload: &str| -> Vec<RecordedEvent> {
        let events = (1..=count).map(|position| RecordedEvent {
            position,
            stream: stream(0, position as u128),
            version: 1,
            event_id: Uuid::now_v7(),
            event_type: "Happened".into(),
            schema_version: 1,
            recorded_at,
            metadata: metadata(),
            payload: payload.to_owned().into(),
            link: None,
        });
        events.collect()
    };
    for (events, expected) in [
        // 256 appends, …
        (events(600, "{}"), &[256, 512, 600][..]),
        // … or 4 MiB.
        (events(90, &large), &[41, 82, 90]),
    ] {
        let url = database().await;
        let mut import = Import::begin(&url).await.unwrap();
        for page in events.chunks(37) {
            import.insert(page.to_vec()).await.unwrap();
        }
        import.commit(&[]).await.unwrap();
        let (mut chain, mut ends) = (Chain::after(Mark::GENESIS), Vec::new());
        for event in log(&url).read_all(0, 1000).await.unwrap() {
            if chain.advance(&event).unwrap() {
                ends.push(event.position);
            }
        }
        assert_eq!(ends, expected);
    }
    // One append is not taken apart.
    let url = database().await;
    let mut of_one_command = events(600, "{}");
    let same = of_one_command[0].metadata.clone();
    of_one_command.iter_mut().for_each(|event| event.metadata = same.clone());
    let mut import = Import::begin(&url).await.unwrap();
    import.insert(of_one_command).await.unwrap();
    import.commit(&[]).await.unwrap();
    assert_eq!(log(&url).end().await.unwrap().position, 600);
    let links: Vec<_> = log(&url).read_all(0, 1000).await.unwrap().into_iter().filter_map(|event| event.link).collect();
    assert_eq!(links.len(), 1);
}

/// The format, as docs/wire.md describes it: files are kept, so this snapshot does not change.
#[tokio::test]
async fn lines() {
    let asked = RecordedEvent {
        position: 1,
        stream: stream(1, 0x32C9),
        version: 1,
        event_id: id(0x0199_AA00_0000_8000_8000_0000_0000_0001),
        event_type: "PaymentRequested".into(),
        schema_version: 1,
        recorded_at: "2026-11-22T07:44:45.745291Z".parse().unwrap(),
        metadata: Metadata {
            correlation_id: id(0x0199_AA00_0002_7000_8000_0000_0000_0001),
            command_id: id(0x0199_AA00_0001_7000_8000_0000_0000_0001),
            ..metadata()
        },
        payload: r#"{"order_id": "0199aa00-0002-7000-8000-000000000001", "amount":1.0}"#.into(),
        link: None,
    };
    let authorised = RecordedEvent {
        position: 2,
        version: 2,
        event_id: id(0x0199_AA00_0000_8000_8000_0000_0000_0002),
        event_type: "PaymentAuthorised".into(),
        recorded_at: "2026-11-22T07:44:46Z".parse().unwrap(),
        metadata: Metadata {
            causation_id: Some(asked.event_id),
            origin: Origin::Import,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            ..asked.metadata.clone()
        },
        payload: "{\n  \"sku\": \"mug\"\n}".into(),
        ..asked.clone()
    };
    let url = database().await;
    let mut filled = Import::begin(&url).await.unwrap();
    filled.insert(vec![asked, authorised]).await.unwrap();
    filled.commit(&Projection::EFFECTS).await.unwrap();
    let file = exported(&url).await;
    let log_id = log(&url).identity().await.unwrap().log_id.to_string();
    assert_eq!(file.matches(&format!(r#""source":"urn:uuid:{log_id}""#)).count(), 2);
    insta::assert_snapshot!(file.replace(&log_id, "<the log's id>"));
}

type Tamper = fn(&mut Vec<Value>) -> String;

/// What is done to the lines, and what is said of it.
const TAMPERED: [Tamper; 13] = [
    |l| {
        l.remove(2);
        "line 3: position 4 comes after 2".into()
    },
    |l| {
        l.swap(2, 3);
        "line 3: position 4 comes after 2".into()
    },
    |l| {
        l.insert(3, l[2].clone());
        "line 4: position 3 comes after 3".into()
    },
    |l| {
        l[4]["id"] = l[1]["id"].clone();
        "line 5: its id is that of the event at position 2".into()
    },
    // A second version 1, a version that is left out, and two that are in the wrong order.
    |l| {
        let (_, second) = first_of_a_stream(l);
        l[second]["streamversion"] = "1".into();
        format!("line {}: {} has a version 1 already", second + 1, text(&l[second]["subject"]))
    },
    |l| {
        let last = l.last_mut().unwrap();
        let version: i64 = text(&last["streamversion"]).parse().unwrap();
        last["streamversion"] = (version + 1).to_string().into();
        let stream = text(&last["subject"]).to_owned();
        format!("line {}: version {} of {stream} does not come after version {version}", l.len(), version + 1)
    },
    |l| {
        let (first, second) = first_of_a_stream(l);
        l[first]["streamversion"] = "2".into();
        l[second]["streamversion"] = "1".into();
        let stream = text(&l[first]["subject"]);
        format!("line {}: version 2 of {stream} does not come after version 1", first + 1)
    },
    |l| {
        l.iter_mut().for_each(|line| line["lastposition"] = "3".into());
        "line 4: its position is 4, and its export ends at 3".into()
    },
    |l| {
        l[3]["lastposition"] = "1000".into();
        format!("line 4: the export before it is cut off: it was to go on to position {}", l.len())
    },
    |l| {
        l.pop();
        format!("it is cut off: it ends after position {}, and was to go on to {}", l.len(), l.len() + 1)
    },
    |l| {
        l.drain(..2);
        "it begins at position 3: a part of a log can only follow the parts before it".into()
    },
    |l| {
        l[3].as_object_mut().unwrap().remove("commandid");
        format!("{MALFORMED} (found at column ")
    },
    |l| {
        l[3].as_object_mut().unwrap().remove("data");
        "line 4: it has not one of data and data_base64".into()
    },
];

const MALFORMED: &str = "line 4: an attribute is unknown, missing or malformed";

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The lines of the first two events of a stream.
fn first_of_a_stream(lines: &[Value]) -> (usize, usize) {
    let second = lines.iter().position(|line| line["streamversion"] == "2").unwrap();
    (lines.iter().position(|line| line["subject"] == lines[second]["subject"]).unwrap(), second)
}

#[tokio::test]
async fn a_file_that_is_no_whole_log_leaves_nothing() {
    let mut system = System::start().await;
    system.receive("mug", 3).await;
    system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    let good = exported(&system.urls.database_url).await;
    let mut lines: Vec<Value> = good.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // What an earlier build has exported has no links. Where there are links, they find what nothing else does.
    lines.iter_mut().for_each(|line| _ = line.as_object_mut().unwrap().remove("link"));
    let count = lines.len();
    assert!(count > 8);
    let file = |lines: &[Value]| lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
    let mut files: Vec<(Vec<u8>, String)> = Vec::new();
    for tamper in TAMPERED {
        let mut lines = lines.clone();
        let expected = tamper(&mut lines);
        files.push((file(&lines), expected));
    }
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    // In the fourth line: an attribute that is otherwise.
    for (attribute, value, expected) in [
        ("more", json!("tok_secret"), MALFORMED),
        ("position", json!(4), MALFORMED),
        ("position", json!("tok_secret"), MALFORMED),
        ("fingerprint", json!("+e255490a2741adb54e77de6f894edae"), MALFORMED),
        ("time", json!("tok_secret"), MALFORMED),
        ("specversion", json!("2.0"), "line 4: it is no CloudEvent 1.0 of application/json"),
        ("datacontenttype", json!("text/xml"), "line 4: it is no CloudEvent 1.0 of application/json"),
        ("origin", json!("tok_secret"), "line 4: its origin is neither live nor import"),
        ("source", json!("/tok_secret"), "line 4: its source is no log"),
        ("source", json!(Uuid::now_v7().urn().to_string()), "line 4: it is of another log than the lines before it"),
        ("subject", json!(format!("cart-{}", id(1))), "line 4: its subject is no stream that this build knows"),
        ("streamversion", json!("0"), "has a version 0"),
        ("recordedtime", json!("2001-01-01T00:00:00Z"), "line 4: it was recorded before the event that it comes after"),
        ("actor", json!(" tok"), "line 4: actor and traceparent are 1 to 128 bytes"),
        ("data", nested(65), "is nested deeper than 64"),
        ("data", json!("\0"), "holds NUL"),
        ("data", json!("x".repeat(128 * 1024)), "is larger than 131072 bytes"),
        ("data_base64", json!("e30="), "line 4: it has not one of data and data_base64"),
    ] {
        let mut lines = lines.clone();
        lines[3][attribute] = value;
        files.push((file(&lines), expected.to_owned()));
    }
    // … and a payload in base64: none, no text, and no JSON.
    for (data, expected) in [
        ("tok_secret", "line 4: its data_base64 is no text in base64"),
        ("/w==", "line 4: its data_base64 is no text in base64"),
        ("eyJ0b2s=", "is no JSON"),
    ] {
        let mut lines = lines.clone();
        lines[3].as_object_mut().unwrap().remove("data");
        lines[3]["data_base64"] = data.into();
        files.push((file(&lines), expected.to_owned()));
    }
    let linked: Vec<(usize, &str)> = good.lines().enumerate().filter(|(_, line)| line.contains(r#""link""#)).collect();
    let (line, text) = linked[2];
    for attribute in ["correlationid", "link"] {
        let digit = text.find(&format!(r#""{attribute}":""#)).unwrap() + attribute.len() + 4;
        let other = if text[digit..].starts_with('0') { "1" } else { "0" };
        let altered = good.replacen(text, &format!("{}{other}{}", &text[..digit], &text[digit + 1..]), 1);
        let expected = format!("line {0}: the link at position {0} does not follow", line + 1);
        files.push((altered.into(), expected));
    }
    let zstd = daybook_at(&system.urls.database_url).args(["export", "-", "--zstd"]).output().await.unwrap().stdout;
    // Of its checksum: what is otherwise in the middle may still be lines.
    let mut flipped = zstd.clone();
    *flipped.last_mut().unwrap() ^= 1;
    files.extend([
        (vec![], "it holds no events".into()),
        (good[..good.len() - 1].into(), format!("line {count}: it is cut off")),
        (good.replacen(r#""subject""#, "", 1).into(), "line 1: it is no JSON object (found at column ".into()),
        (good.replacen('\n', "\n\n", 1).into(), "line 2: it is no JSON object (found at column 0)".into()),
        (vec![b' '; 2 * 1024 * 1024], "line 1: it is longer than 1048576 bytes".into()),
        (zstd[..zstd.len() - 1].into(), "it cannot be read after line ".into()),
        (flipped, "it cannot be read after line ".into()),
        ([&zstd[..], b"more"].concat(), "it cannot be read after line ".into()),
    ]);

    let copy = database().await;
    for (file, expected) in files {
        let refused = import(&copy, file).await.unwrap_err();
        assert!(refused.contains(&expected), "{refused}, not {expected}");
        // What is in the file is not told: it may be a secret.
        assert!(!refused.contains("tok"), "{refused}");
        assert_eq!(state(&copy).await, (0, 0, 0), "{expected}");
    }
    assert_eq!(import(&copy, zstd).await, Ok(count as i64));
    let again = import(&copy, good).await.unwrap_err();
    assert_eq!(again, format!("the log is not empty: it has {count} events"));
    assert_eq!(columns(&copy).await, columns(&system.urls.database_url).await);
}

#[tokio::test]
async fn parts_that_follow_one_another_are_a_whole() {
    let source = odd_log().await;
    let events = columns(&source).await;
    let head = events.len();
    let mut parts = Vec::new();
    for (from, to) in [(1, 4), (5, 5), (6, head)] {
        let range = format!("export - --zstd --from {from} --to {to}");
        let output = daybook_at(&source).args(range.split(' ')).output().await.unwrap();
        assert!(output.stderr.ends_with(format!("positions {from} to {to}\n").as_bytes()), "{output:?}");
        parts.push(output.stdout);
    }
    let copy = database().await;
    let refused = import(&copy, parts[..2].concat()).await;
    // Nobody can know that there is a third.
    assert_eq!(refused, Ok(5));
    let copy = database().await;
    let refused = import(&copy, [&parts[0][..], &parts[2]].concat()).await;
    assert_eq!(refused, Err("line 5: position 6 comes after 4".into()));
    assert_eq!(import(&copy, parts.concat()).await, Ok(head as i64));
    assert_eq!(columns(&copy).await, events);
}

/// The export is the log as it was when it began, whatever is appended between its pages.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_where_the_log_ended_when_it_began() {
    let source = database().await;
    let appender = Appender::start(&source).unwrap();
    // So many that the last of them are read after the first ones are written.
    for n in 1..=11 {
        append(&appender, metadata(), stream(0, n), vec![event("{}"); 1000]).await;
    }
    let events = columns(&source).await;
    let file = new_folder().await.join("log.zst");
    let mut pages = 0;
    let more = |_, _| {
        pages += 1;
        let appended = append(&appender, metadata(), stream(0, 1), vec![event("{}")]);
        assert_eq!(tokio::task::block_in_place(|| Handle::current().block_on(appended)), 11_000 + pages);
    };
    let writer = Writer::to_file(&file, true).unwrap();
    assert_eq!(archive::export(&log(&source), 1, None, writer, more).await.unwrap(), 11_000);
    assert!(pages > 1);
    let copy = database().await;
    assert_eq!(import(&copy, fs::read(&file).unwrap()).await, Ok(11_000));
    assert_eq!(columns(&copy).await, events);
    assert_eq!(columns(&source).await.len(), 11_000 + pages as usize);
}

#[tokio::test]
async fn no_append_gets_in_between() {
    let source = odd_log().await;
    let events = log(&source).read_all(0, 100).await.unwrap();
    let copy = database().await;
    let mut import = Import::begin(&copy).await.unwrap();
    import.insert(events[..1].to_vec()).await.unwrap();
    let appender = Appender::start(&copy).unwrap();
    let appending = tokio::spawn(async move { append(&appender, metadata(), stream(2, 9), vec![event("{}")]).await });
    let pool = PgPool::connect(&copy).await.unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'daybook_append' AND wait_event_type = 'Lock'";
    while query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 {
        assert!(!appending.is_finished(), "it did not wait");
    }
    import.insert(events[1..].to_vec()).await.unwrap();
    assert_eq!(import.commit(&Projection::EFFECTS).await.unwrap(), events.len() as i64);
    assert_eq!(appending.await.unwrap(), events.len() as i64 + 1);
}

/// What a build has to read, before it may start on it.
async fn registered(url: &str) -> Vec<(i16, String, i16)> {
    let pool = PgPool::connect(url).await.unwrap();
    sqlx::query_as("SELECT category, event_type, schema_version FROM daybook.event_types ORDER BY 1, 2, 3")
        .fetch_all(&pool)
        .await
        .unwrap()
}

async fn rows(system: &System, model: ReadModel) -> Vec<String> {
    let sql = format!("SELECT (to_jsonb(t) - 'generation')::text FROM daybook.{} t ORDER BY 1", model.name());
    query_scalar(AssertSqlSafe(sql)).fetch_all(&system.parts.read).await.unwrap()
}

async fn count(system: &System, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM daybook.{table}");
    query_scalar(AssertSqlSafe(sql)).fetch_one(&system.parts.read).await.unwrap()
}

/// A copy takes no payment and sends no notice again; what is done on it from now on is followed by what must follow.
#[tokio::test]
async fn nothing_follows_from_what_was_imported() {
    let mut source = System::start().await;
    source.receive("mug", 9).await;
    let shipped = source.place(order_of(&[("mug", 1, 1)])).await;
    source.settle().await;
    source.ship(shipped).await;
    let confirmed = source.place(order_of(&[("mug", 2, 1)])).await;
    source.settle().await;
    // One payment is to be asked for, and another has been but is not answered.
    let asked = source.place(order_of(&[("mug", 3, 1)])).await;
    source.project().await;
    while source.sender.step().await.unwrap() != Outcome::Worked(1) {}
    let placed = source.place(order_of(&[("mug", 1, 1)])).await;
    source.project().await;
    assert!(count(&source, "notices").await > 0);

    let (database_url, nats) = (database().await, start_nats().await);
    let mut copy = System::on(Urls { database_url, nats_url: nats.url() }, nats).await;
    // Every loop runs already, at the beginning.
    copy.settle().await;
    let head = import(&copy.urls.database_url, exported(&source.urls.database_url).await).await.unwrap();
    copy.settle().await;
    assert_eq!(copy.parts.log.head().await.unwrap(), head);
    assert_eq!((count(&copy, "follow_ups").await, count(&copy, "notices").await), (0, 0));
    assert!(count(&source, "timers").await > 0);
    assert_eq!(count(&copy, "timers").await, 0);
    for model in ReadModel::ALL.iter().copied() {
        assert_eq!(rows(&copy, model).await, rows(&source, model).await, "{model:?}");
    }
    copy.assert_verified().await;

    for (order, status) in [(shipped, "completed"), (confirmed, "confirmed"), (asked, "placed"), (placed, "placed")] {
        assert_eq!(copy.status(order).await, status);
    }
    // They wait for somebody.
    for id in [asked, placed] {
        let reason = CancelReason::CustomerRequest;
        copy.execute(Command::CancelOrder { id, reason }).await.unwrap();
        copy.settle().await;
        assert_eq!(copy.status(id).await, "cancelled: customer_request");
    }
    let new = copy.place(order_of(&[("mug", 1, 1)])).await;
    copy.settle().await;
    assert_eq!(copy.status(new).await, "confirmed");
    copy.ship(confirmed).await;
    assert_eq!(copy.status(confirmed).await, "completed");
    assert_eq!(count(&copy, "notices").await, 3);
    copy.assert_verified().await;
}

#[tokio::test]
async fn a_file_is_there_when_it_is_complete() {
    let (source, folder) = (odd_log().await, new_folder().await);
    let path = folder.join("log.ndjson");
    let file = path.to_str().unwrap();
    let export = async |arguments: &str| {
        let output = daybook_at(&source).arg("export").args(arguments.split(' ')).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let done = |events: i64, from: i64, to: i64| {
        (0, format!("{file}: {events} events, positions {from} to {to}\n"), String::new())
    };
    assert_eq!(export(file).await, done(15, 1, 15));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(export(&format!("{file} --from 3 --to 4")).await, done(2, 3, 4));
    let (code, stdout, _) = export(&format!("{file} --from 3 --json")).await;
    assert_eq!((code, stdout), (0, "{\"events\":13,\"from\":3,\"to\":15}\n".into()));
    assert_eq!(names(&folder), ["log.ndjson"]);

    // What does not come to its end leaves what was there.
    let before = fs::read(&path).unwrap();
    for (arguments, expected, says) in [
        (format!("{file} --from 16"), 2, "daybook: the log ends at position 15\n".to_owned()),
        (format!("{file} --to 16"), 2, "daybook: the log ends at position 15\n".to_owned()),
        (format!("{file} --from 4 --to 3"), 2, "daybook: --to is before --from\n".to_owned()),
        (
            folder.display().to_string(),
            2,
            format!("daybook: {} cannot be written: it is no regular file\n", folder.display()),
        ),
        (format!("{file}/x"), 2, format!("daybook: {file}/x cannot be written: Not a directory (os error 20)\n")),
    ] {
        assert_eq!(export(&arguments).await, (expected, String::new(), says));
    }
    let empty = database().await;
    let output = daybook_at(&empty).args(["export", file]).output().await.unwrap();
    assert_eq!(
        (output.status.code(), &*output.stderr),
        (Some(3), &b"daybook: the log is empty: there is nothing to export\n"[..])
    );
    assert_eq!(names(&folder), ["log.ndjson"]);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn an_export_that_is_interrupted_leaves_nothing() {
    let (source, folder) = (odd_log().await, new_folder().await);
    let pool = PgPool::connect(&source).await.unwrap();
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE daybook.events").execute(&mut *lock).await.unwrap();
    let mut command = daybook_at(&source);
    let export = command.arg("export").arg(folder.join("log")).stderr(Stdio::piped()).spawn().unwrap();
    until("it has begun", async || (!names(&folder).is_empty()).then_some(())).await;
    kill_process(Pid::from_raw(export.id().unwrap() as i32).unwrap(), Signal::INT).unwrap();
    let output = export.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(5), &b"daybook: interrupted\n"[..]));
    assert_eq!(names(&folder), [] as [String; 0]);
}

/// A log that was damaged is not exported as if it were whole.
#[tokio::test]
async fn a_gap_is_not_exported() {
    let source = odd_log().await;
    let damage = "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
        DELETE FROM daybook.events WHERE position = 7";
    run(&source, damage).await;
    let folder = new_folder().await;
    let output = daybook_at(&source).arg("export").arg(folder.join("log")).output().await.unwrap();
    assert_eq!(
        (output.status.code(), &*output.stderr),
        (Some(5), &b"daybook: the log has no event at position 7\n"[..])
    );
    assert_eq!(names(&folder), [] as [String; 0]);
}

#[tokio::test]
async fn an_import_says_what_became_of_it() {
    let (source, folder) = (odd_log().await, new_folder().await);
    let file = folder.join("log.zst");
    ok(daybook_at(&source).arg("export").arg(&file).output().await.unwrap());
    let copy = database().await;
    let said = |output: &Output| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let cut = folder.join("cut.zst");
    fs::write(&cut, &fs::read(&file).unwrap()[..100]).unwrap();
    let output = daybook_at(&copy).args(["import", "log"]).arg(&cut).output().await.unwrap();
    let why = "it cannot be read after line 0: incomplete frame; nothing is imported";
    assert_eq!(said(&output), (2, String::new(), format!("daybook: {}: {why}\n", cut.display())));
    let output = daybook_at(&copy).args(["import", "log", "/does/not/exist"]).output().await.unwrap();
    assert_eq!(said(&output).0, 2, "{output:?}");

    let output = daybook_at(&copy).args(["import", "log"]).arg(&file).output().await.unwrap();
    let consequences = "nothing follows from them here: what was still due where they come from is not done\n";
    assert_eq!(said(&output), (0, "15 events, positions 1 to 15\n".into(), consequences.into()));
    // The log is not empty any more. Standard input is not even read: this does not hang.
    let mut command = daybook_at(&copy);
    command.args(["import", "log", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdin = child.stdin.take();
    let output = child.wait_with_output().await.unwrap();
    let why = "daybook: the log is not empty: it has 15 events: nothing is imported\n";
    assert_eq!(said(&output), (3, String::new(), why.into()));
    drop(stdin);

    // From a pipe, for a program.
    let copy = database().await;
    let mut command = daybook_at(&copy);
    command.args(["import", "log", "-", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(&file).unwrap()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(said(&output), (0, "{\"events\":15,\"position\":15}\n".into(), consequences.into()));
}
