//! The examples, run as a user runs them.

use crate::harness::{append, empty_database, event};
use daybook_store::{Appender, Category, ExpectedVersion, StreamAppend, StreamId, migrate};
use futures_util::future::join_all;
use sqlx::{PgPool, query_as};
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use uuid::Uuid;

const CART: Category = Category { id: 21, name: "cart", domain: "shop" };

/// An example, to be run on the database of `url`. `cargo test` builds the examples beside the tests.
fn example(name: &str, url: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let examples: PathBuf = tests.ancestors().nth(2).unwrap().join("examples");
    let program = examples.join(name);
    assert!(program.exists(), "{} is not built: run cargo test without --test", program.display());
    let mut command = Command::new(program);
    command.env("DATABASE_URL", url).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn append_and_tail_prints_what_it_appends() {
    let url = empty_database().await;
    // The second time the schema is there, and the tail begins after what is.
    for first in [1, 4] {
        let output = example("append_and_tail", &url).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let [second, third] = [first + 1, first + 2];
        let expected = format!(
            "recorded before, at position {third}\n\
             version conflict on the cart: expected 1, found 3\n\
             {first}: Added {{\"item\": \"mug\"}}\n\
             {second}: Added {{\"item\": \"hat\"}}\n\
             {third}: Removed {{\"item\": \"mug\"}}\n"
        );
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}

/// It is killed over and over, at any moment, while events are appended: each is counted once all the same.
#[tokio::test]
async fn resume_counts_every_event_once_however_often_it_is_killed() {
    let url = empty_database().await;
    migrate(&url, &[CART]).await.unwrap();
    let appender = Appender::start(&url).unwrap();
    let write = async |event_type: &'static str, count: usize| {
        let appended = join_all((0..count).map(|_| {
            let mut event = event("{}");
            event.event_type = event_type.into();
            let stream = StreamId { category: CART, id: Uuid::now_v7() };
            appender.append(append(vec![StreamAppend {
                stream,
                expected: ExpectedVersion::NoStream,
                events: vec![event],
            }]))
        }));
        appended.await.into_iter().for_each(|appended| drop(appended.unwrap()));
    };
    let mut resumed = 0;
    for round in 0..6 {
        write(if round % 2 == 0 { "Added" } else { "Removed" }, 1500).await;
        let mut counting = example("resume", &url).spawn().unwrap();
        let mut lines = BufReader::new(counting.stdout.take().unwrap()).lines();
        let from = lines.next_line().await.unwrap().unwrap();
        resumed += usize::from(from != "counting from position 0");
        // It is killed with none, one or two of its transactions committed, and perhaps in the middle of another.
        for _ in 0..round % 3 {
            lines.next_line().await.unwrap().unwrap();
        }
        counting.kill().await.unwrap();
    }
    assert!(resumed > 0, "it never went on from anywhere");
    let output = example("resume", &url).arg("9000").output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let counts = "SELECT event_type, events FROM events_by_type ORDER BY 1";
    let counts: Vec<(String, i64)> = query_as(counts).fetch_all(&PgPool::connect(&url).await.unwrap()).await.unwrap();
    assert_eq!(counts, [("Added".to_owned(), 4500), ("Removed".to_owned(), 4500)]);
}
