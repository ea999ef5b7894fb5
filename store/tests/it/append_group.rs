//! What the function that writes the log makes of a caller that lies.

use crate::audit;
use crate::by_hand::{Call, EMPTY, Log, code, refusal, register};
use crate::harness::run;
use daybook_store::connect::Role;
use sqlx::{AssertSqlSafe, Connection, query_as, query_scalar};
use uuid::Uuid;

const UNIQUE_VIOLATION: &str = "23505";

const NOT_NULL_VIOLATION: &str = "23502";

/// What `append_group` refuses a caller with that has seen another history.
const OTHER_HISTORY: &str = "YH001";
/// And one whose clock is another.
const CLOCKS_DIFFER: &str = "YH002";

/// Who appends can register, also again and the same twice; what does not fit, or lacks something, registers nothing.
#[tokio::test]
async fn event_types_are_registered_whole_or_not_at_all() {
    let log = Log::start().await;
    let registered = async || -> Vec<(i16, String, i16)> {
        query_as("SELECT * FROM daybook.event_types ORDER BY 1, 2, 3").fetch_all(&log.superuser).await.unwrap()
    };
    let mut append = log.connect(Role::Append).await;
    for _ in 0..2 {
        let twice = register("'{1,2,1}'", "'{First,First,First}'", "'{1,1,1}'");
        sqlx::raw_sql(AssertSqlSafe(twice)).execute(&mut append).await.unwrap();
    }
    assert_eq!(registered().await, [(1, "First".to_owned(), 1), (2, "First".to_owned(), 1)]);
    for (categories, event_types, schema_versions) in [
        ("'{1,2}'", "'{Second}'", "'{1,1}'"),
        ("'{1}'", "'{Second,Third}'", "'{1}'"),
        ("'{1}'", "'{Second}'", "'{}'"),
        ("'{1}'", "'{Second}'", "NULL"),
        ("'{1,NULL}'", "'{Second,Third}'", "'{1,1}'"),
        ("'{1,1}'", "'{Second,NULL}'", "'{1,1}'"),
    ] {
        let refused = refusal(&mut append, &register(categories, event_types, schema_versions)).await;
        assert_eq!(refused, NOT_NULL_VIOLATION, "{categories} {event_types} {schema_versions}");
        assert_eq!(registered().await.len(), 2);
    }
    for nothing in ["NULL", EMPTY] {
        let sql = register(nothing, nothing, nothing);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut append).await.unwrap();
    }
    assert_eq!(registered().await.len(), 2);
}

/// Two that register the same in opposite orders, each held up where the other is, both come through.
#[tokio::test]
async fn event_types_are_registered_in_one_order_whoever_does() {
    let log = Log::start().await;
    let mut holder = log.session("BEGIN; INSERT INTO daybook.event_types VALUES (1, 'B', 1)").await;
    let mut both = tokio::task::JoinSet::new();
    for event_types in ["'{A,B,C}'", "'{C,B,A}'"] {
        let mut append = log.connect(Role::Append).await;
        let sql = register("'{1,1,1}'", event_types, "'{1,1,1}'");
        both.spawn(async move { sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut append).await.map(|_| ()) });
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'daybook_append' AND wait_event_type = 'Lock'";
    while query_scalar::<_, i64>(waiting).fetch_one(&log.superuser).await.unwrap() < 2 {}
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    both.join_all().await.into_iter().for_each(|registered| registered.unwrap());
    let registered: i64 =
        query_scalar("SELECT count(*) FROM daybook.event_types").fetch_one(&log.superuser).await.unwrap();
    assert_eq!(registered, 3);
}

/// Invariants 2, 4, 6: a version that is not the next one is a conflict, and burns no position.
#[tokio::test]
async fn forged_versions_are_conflicts() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    // Of a stream that does not exist, and of one that is at 2; with and without the long way round.
    for (stream, actual, forged) in [
        (3, [0, 0], ["{2,3}", "{0,1}", "{-1,0}", "{1000,1001}"].as_slice()),
        (3, [0, 1], &["{1,3}", "{1,1}", "{1,0}", "{NULL,7}"]),
        (1, [2, 2], &["{1,2}", "{2,3}", "{4,5}", "{-5,-4}", "{4,NULL}"]),
        (1, [2, 3], &["{3,3}", "{3,5}", "{NULL,3}"]),
    ] {
        for forged in forged {
            for checked in ["false", "true", "NULL"] {
                let call = Call::to(stream).with("event_version", format!("'{forged}'")).with("checked", checked);
                let answers = call.run(&mut append).await.unwrap();
                let [answer] = &answers[..] else { panic!("{forged}: {answers:?}") };
                assert_eq!((&*answer.outcome, answer.append), ("conflict", Some(1)), "{stream}: {forged}");
                assert!(actual.map(Some).contains(&answer.actual_version), "{forged}: {answer:?}");
            }
        }
    }
    assert_eq!(log.state().await, before);
    assert_eq!(Call::to(3).run(&mut append).await.unwrap()[0].first_position, Some(5));
    log.assert_dense().await;
}

/// What the caller says of the order within the group is looked at, too, and never believed.
#[tokio::test]
async fn a_forged_order_within_the_group_leaves_no_gap() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let mut stream = 10;
    for previous in ["{NULL,NULL}", "{NULL,2}", "{2,1}", "{1,1}", "{NULL,9}", "{NULL,0}", "{NULL,-1}", "{9,9}"] {
        for versions in ["{1,2}", "{NULL,NULL}", "{2,1}", "{1,1}", "{7,8}", "{1,9}"] {
            stream += 1;
            let before = log.state().await;
            let call = Call::to(stream).with("event_previous", format!("'{previous}'"));
            let answer = call.with("event_version", format!("'{versions}'")).run(&mut append).await;
            if ["{1,2}", "{NULL,NULL}"].contains(&versions) {
                assert_eq!(answer.unwrap()[0].outcome, "written", "{previous} {versions}");
                assert_eq!(log.state().await.0, before.0 + 2);
                continue;
            }
            match answer {
                Ok(answers) => assert_eq!(answers[0].outcome, "conflict", "{previous} {versions}"),
                // Two firsts of one stream: each fits, both do not.
                Err(e) => assert_eq!((code(&e).as_str(), versions), (UNIQUE_VIOLATION, "{1,1}"), "{previous}"),
            }
            assert_eq!(log.state().await, before, "{previous} {versions}");
        }
    }
    log.assert_dense().await;
}

/// The same stream under two numbers would be two streams to the probe: the constraint knows better.
#[tokio::test]
async fn a_stream_that_is_listed_twice_is_not_written_twice() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let stream = Uuid::from_u128(3);
    let twice = |stream_number: u128| {
        Call::to(stream_number)
            .with("stream_category", "'{1,1}'")
            .with("stream_ids", format!("'{{{stream},{stream}}}'"))
            .with("event_stream", "'{1,2}'")
            .with("event_previous", "'{NULL,NULL}'")
    };
    let refused = twice(3).with("event_version", "'{1,1}'").run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), UNIQUE_VIOLATION);
    assert_eq!(refused.as_database_error().unwrap().constraint(), Some("events_stream_version"));
    let conflict = twice(3).with("event_version", "'{1,2}'").run(&mut append).await.unwrap();
    assert_eq!(conflict[0].outcome, "conflict");
    assert_eq!(log.state().await, before);
}

/// A caller that has seen another history writes nothing, whatever it expects; what the log has, but not at its end, vouches
/// for nothing.
#[tokio::test]
async fn a_false_head_vouches_for_no_version() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let link = |position: i64| format!("(SELECT link FROM daybook.events WHERE position = {position})");
    let seen = |marks: &[(&str, &str)]| {
        let (positions, links): (Vec<_>, Vec<_>) = marks.iter().copied().unzip();
        Call::to(3)
            .with("seen_positions", format!("ARRAY[{}]::bigint[]", positions.join(", ")))
            .with("seen_links", format!("ARRAY[{}]::bytea[]", links.join(", ")))
    };
    let other = "decode(repeat('ab', 32), 'hex')";
    // The role itself cannot read links: it knows those that it was told.
    let mut links = Vec::new();
    for position in 1..=4 {
        let link: Option<Vec<u8>> =
            query_scalar(AssertSqlSafe(format!("SELECT {}", link(position)))).fetch_one(&log.superuser).await.unwrap();
        links.extend(link.map(|link| (position, format!("decode('{}', 'hex')", hex(&link)))));
    }
    for (position, link) in
        [("-1", other), ("4", other), ("5", other), ("1000000", other), ("9223372036854775807", other)]
    {
        let last = &*links.last().unwrap().1;
        for marks in [&[(position, link)][..], &[(position, link), ("4", last)], &[("4", last), (position, link)]] {
            for vouched_at in [position, "4", "NULL"] {
                let refused = seen(marks).with("vouched_at", vouched_at).run(&mut append).await.unwrap_err();
                assert_eq!(code(&refused), OTHER_HISTORY, "{marks:?}");
            }
        }
    }
    let (last, rest) = links.split_last().unwrap();
    let refused = seen(&[(&last.0.to_string(), &rest[0].1)]).run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), OTHER_HISTORY, "a link of another position");
    let refused = seen(&[("4", "NULL")]).run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), OTHER_HISTORY, "no link");
    let refused = seen(&[("4", &last.1)]).with("seen_links", "'{}'").run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), "22023", "a position without a link");
    let rest: Vec<_> = rest.iter().map(|(position, link)| (position.to_string(), link)).collect();
    let rest: Vec<_> = rest.iter().map(|(position, link)| (&**position, &***link)).collect();
    for marks in rest.iter().map(std::slice::from_ref).chain([&rest[..], &[]]) {
        for (stream, forged) in [(3, "{5,6}"), (1, "{1,2}"), (1, "{9,10}")] {
            let call = seen(marks).with("stream_ids", format!("'{{{}}}'", Uuid::from_u128(stream)));
            let vouched_at = marks.first().map_or("NULL", |(position, _)| position);
            let call = call.with("event_version", format!("'{forged}'")).with("vouched_at", vouched_at);
            assert_eq!(call.run(&mut append).await.unwrap()[0].outcome, "conflict", "{marks:?}: {forged}");
        }
    }
    assert_eq!(log.state().await, before);
}

/// Whatever the group is, and whatever the log has.
#[tokio::test]
async fn a_group_is_refused_while_the_clocks_differ() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    for clock in ["now() - interval '6 s'", "now() + interval '6 s'", "'infinity'", "NULL"] {
        for checked in ["false", "true"] {
            let late = Call::to(9).with("callers_clock", clock).with("checked", checked);
            assert_eq!(code(&late.run(&mut append).await.unwrap_err()), CLOCKS_DIFFER, "{clock}");
        }
    }
    let unlimited = Call::to(9).with("clock_tolerance", "NULL");
    assert_eq!(code(&unlimited.run(&mut append).await.unwrap_err()), CLOCKS_DIFFER);
    assert_eq!(log.state().await, before);
    let within = Call::to(9).with("callers_clock", "now() - interval '4 s'");
    assert_eq!(within.run(&mut append).await.unwrap()[0].outcome, "written");
}

/// The short way writes only after the mark that the caller has seen, and only while that is the head.
#[tokio::test]
async fn one_event_is_written_after_the_head_that_was_seen_and_nowhere_else() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let links = "SELECT position, encode(link, 'hex') FROM daybook.events WHERE link IS NOT NULL ORDER BY position";
    let links: Vec<(i64, String)> = query_as(links).fetch_all(&log.superuser).await.unwrap();
    let one = |position: i64, link: &str, stream: u128, version: i64| {
        let (stream, command) = (Uuid::from_u128(stream), Uuid::now_v7());
        format!(
            "SELECT recorded IS NOT NULL FROM daybook.append_one({position}, decode('{link}', 'hex'), 1::smallint,
                 '{stream}', {version}, '{stream}', NULL, '{command}', '\\x000102030405060708090a0b0c0d0e0f', 'hand',
                 0::smallint, now(), NULL, '{}', 'First', 1::smallint, '{{}}', decode(repeat('00', 40), 'hex'), now(), 5)",
            daybook_store::event_id(command, 0)
        )
    };
    let before = log.state().await;
    let (head, link) = links.last().unwrap();
    // The log does not have it: another position, another link.
    for (position, link) in [(*head + 1, &**link), (*head, &*"ab".repeat(32)), (0, &*"00".repeat(32))] {
        let written: bool =
            query_scalar(AssertSqlSafe(one(position, link, 9, 1))).fetch_one(&mut append).await.unwrap();
        assert!(!written, "{position}");
    }
    // The clocks differ.
    for clock in ["now() - interval '6 s'", "now() + interval '6 s'", "'infinity'", "NULL"] {
        let late = one(*head, link, 9, 1).replace("now(), 5)", &format!("{clock}, 5)"));
        let written: bool = query_scalar(AssertSqlSafe(late)).fetch_one(&mut append).await.unwrap();
        assert!(!written, "{clock}");
    }
    // It has it, and has gone on since.
    let (position, earlier) = &links[0];
    let refused = query_scalar::<_, bool>(AssertSqlSafe(one(*position, earlier, 9, 1))).fetch_one(&mut append).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().constraint(), Some("events_position"));
    // A version that is there.
    let refused = query_scalar::<_, bool>(AssertSqlSafe(one(*head, link, 1, 2))).fetch_one(&mut append).await;
    assert_eq!(refused.unwrap_err().as_database_error().unwrap().constraint(), Some("events_stream_version"));
    assert_eq!(log.state().await, before);

    sqlx::raw_sql("SET synchronous_commit = off; BEGIN").execute(&mut append).await.unwrap();
    let written: bool = query_scalar(AssertSqlSafe(one(*head, link, 9, 1))).fetch_one(&mut append).await.unwrap();
    let set: String = query_scalar("SHOW synchronous_commit").fetch_one(&mut append).await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut append).await.unwrap();
    assert!(written);
    assert_eq!(set, "on", "an acknowledgement is durability");
    log.assert_dense().await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An acknowledgement is durability, whatever the session was told.
#[tokio::test]
async fn an_append_waits_for_the_disk_whatever_the_connection_is_set_to() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    for (session, appended) in
        [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
    {
        let begin = format!("SET synchronous_commit = {session}; BEGIN");
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut append).await.unwrap();
        Call::to(Uuid::now_v7().as_u128()).run(&mut append).await.unwrap();
        let set: String = query_scalar("SHOW synchronous_commit").fetch_one(&mut append).await.unwrap();
        assert_eq!(set, appended, "{session}");
        sqlx::raw_sql("COMMIT").execute(&mut append).await.unwrap();
    }
}

/// The true head is the one claim that is believed: whoever appends in this role is Daybook's own appender, and the
/// probe that it saves is most of what a group costs. What a liar gets by it: nothing over what is there (a constraint
/// stands before it), no position of its choice, no gap in those. A gap in the versions of a stream: and an
/// audit finds that.
#[tokio::test]
async fn who_lies_at_the_true_head_doubles_nothing_and_is_found_out() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let link: Vec<u8> =
        query_scalar("SELECT link FROM daybook.events WHERE position = 4").fetch_one(&log.superuser).await.unwrap();
    let link = format!("decode('{}', 'hex')", hex(&link));
    let at_head = |call: Call| {
        call.with("vouched_at", "4").with("seen_positions", "'{4}'").with("seen_links", format!("ARRAY[{link}]"))
    };
    for doubled in ["{1,2}", "{2,3}", "{3,2}", "{3,3}"] {
        let call = at_head(Call::to(1).with("event_version", format!("'{doubled}'")));
        let refused = call.run(&mut append).await.unwrap_err();
        assert_eq!(code(&refused), UNIQUE_VIOLATION, "{doubled}");
        assert_eq!(refused.as_database_error().unwrap().constraint(), Some("events_stream_version"), "{doubled}");
    }
    assert_eq!(log.state().await, before);

    let gap = at_head(Call::to(1).with("event_version", "'{7,8}'"));
    assert_eq!(gap.run(&mut append).await.unwrap()[0].first_position, Some(5));
    let positions: Vec<i64> =
        query_scalar("SELECT position FROM daybook.events ORDER BY position").fetch_all(&log.superuser).await.unwrap();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
    let found = audit::faults(&log.superuser).await;
    let expected =
        ["position 5 has version 7, the 3rd of its stream", "position 6 has version 8, the 4th of its stream"];
    assert_eq!(found, expected);
}

/// Invariant 5: an array that is missing, empty, too short, of two dimensions or begun at another index fails the
/// call; nothing of it is written.
#[tokio::test]
async fn arrays_that_do_not_fit_are_refused() {
    // These may be left out: whatever comes next, no cause, no trace, no expectation, no claim.
    let optional = ["causation_ids", "traceparents", "event_version", "event_previous"];
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let mut stream = 10;
    for (name, fitting) in Call::to(10).0 {
        let array = fitting.starts_with("'{") || fitting.starts_with("ARRAY");
        let counts = ["event_ids", "command_ids"].contains(&name);
        if !array || counts || name.starts_with("expect_") || name.starts_with("seen_") {
            continue;
        }
        let elements = if fitting.contains(',') { 2 } else { 1 };
        let cut = format!("(({fitting})::{}[])[1:{}]", type_of(name), elements - 1);
        let nested = format!("ARRAY[({fitting})::{}[]]", type_of(name));
        let shifted = format!("array_prepend(NULL, ({fitting})::{0}[])", type_of(name));
        for ill in ["NULL", EMPTY, &cut, &nested, &shifted] {
            stream += 1;
            let before = log.state().await;
            let answer = Call::to(stream).with(name, ill).run(&mut append).await;
            let after = log.state().await;
            log.assert_dense().await;
            match answer {
                Err(e) => {
                    assert_eq!(after, before, "{name} {ill}");
                    let class = code(&e)[..2].to_owned();
                    assert!(["22", "23"].contains(&&*class), "{name} {ill}: {e}");
                }
                Ok(answers) if optional.contains(&name) => {
                    let outcomes: Vec<&str> = answers.iter().map(|a| &*a.outcome).collect();
                    assert!(["written", "conflict"].contains(&outcomes[0]), "{name} {ill}: {answers:?}");
                    let written = if outcomes[0] == "written" { 2 } else { 0 };
                    assert_eq!(after.0, before.0 + written, "{name} {ill}");
                }
                Ok(answers) => panic!("{name} {ill}: {answers:?}"),
            }
        }
    }
}

/// Arrays that do not fit each other are refused, whichever of them is too short or too long.
#[tokio::test]
async fn arrays_that_do_not_fit_each_other_are_refused() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let call = Call::to(3);
    let ids = call.0.iter().find(|(name, _)| *name == "event_ids").unwrap().1.clone();
    let before = log.state().await;
    for (name, ill) in [
        ("event_ids", EMPTY.into()),
        ("event_ids", "ARRAY[gen_random_uuid()]".into()),
        ("command_ids", EMPTY.into()),
        ("command_ids", "ARRAY[gen_random_uuid(), gen_random_uuid()]".into()),
        ("event_ids", format!("{ids}::uuid[] || gen_random_uuid()")),
        ("event_ids", format!("ARRAY[{ids}::uuid[]]")),
        ("event_ids", format!("array_prepend(NULL, {ids}::uuid[])")),
        ("event_ids", "ARRAY[gen_random_uuid(), NULL]".into()),
        ("command_ids", "NULL".into()),
        ("command_ids", "'{NULL}'".into()),
        ("seen_positions", "NULL".into()),
        ("seen_positions", "'{4}'".into()),
        ("seen_links", "NULL".into()),
        ("seen_links", "ARRAY['\\x00'::bytea]".into()),
    ] {
        let refused = call.clone().with(name, &ill).run(&mut append).await.unwrap_err();
        assert!(["22", "23"].contains(&&code(&refused)[..2]), "{name} {ill}: {refused}");
        assert_eq!(log.state().await, before, "{name} {ill}");
    }
    log.assert_dense().await;
}

fn type_of(parameter: &str) -> &'static str {
    match parameter {
        "stream_category" | "origins" | "schema_versions" => "smallint",
        "fingerprints" => "bytea",
        "actors" | "traceparents" | "event_types" | "payloads" => "text",
        "occurred_ats" => "timestamptz",
        "event_append" | "event_stream" | "event_previous" => "int",
        "event_version" => "bigint",
        _ => "uuid",
    }
}

/// Invariant 7: a snapshot older than the lock is an error, never a wrong log.
#[tokio::test]
async fn a_stale_snapshot_writes_nothing() {
    let log = Log::start().await;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut stale = log.connect(Role::Append).await;
        let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1");
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut stale).await.unwrap();
        let mut append = log.connect(Role::Append).await;
        let stream = Uuid::now_v7().as_u128();
        Call::to(stream).run(&mut append).await.unwrap();
        let before = log.state().await;
        let refused = Call::to(stream + 1).run(&mut stale).await.unwrap_err();
        assert!([UNIQUE_VIOLATION, "40001"].contains(&&*code(&refused)), "{isolation}: {refused}");
        stale.close().await.unwrap();
        assert_eq!(log.state().await, before, "{isolation}");
    }
    log.assert_dense().await;
}

/// Invariant 5: what was appended in a transaction that is rolled back never was, and its positions are given anew.
#[tokio::test]
async fn a_transaction_that_is_rolled_back_leaves_no_gap() {
    let log = Log::start().await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let mut transaction = append.begin().await.unwrap();
    assert_eq!(Call::to(3).run(&mut transaction).await.unwrap()[0].first_position, Some(5));
    transaction.rollback().await.unwrap();
    assert_eq!(log.state().await, before);
    assert_eq!(Call::to(3).run(&mut append).await.unwrap()[0].first_position, Some(5));
    log.assert_dense().await;
}

/// Decision 10: the time is this server's, and does not fall even if its clock does.
#[tokio::test]
async fn no_caller_says_when_it_was_recorded() {
    let log = Log::start().await;
    let mut append = log.connect(Role::Append).await;
    let call = Call::to(3).with("occurred_ats", "'{1999-12-31T23:59:59Z}'");
    assert_eq!(call.run(&mut append).await.unwrap()[0].outcome, "written");
    let recent = "SELECT count(*) FROM daybook.events WHERE recorded_at > now() - interval '1 hour'";
    let recent: i64 = query_scalar(recent).fetch_one(&log.superuser).await.unwrap();
    assert_eq!(recent, 6);
    // As if the clock had been an hour ahead until now.
    let ahead = "INSERT INTO daybook.events
                 SELECT (jsonb_populate_record(e, jsonb_build_object('position', 7, 'event_id', gen_random_uuid(),
                     'stream_id', gen_random_uuid(), 'recorded_at', now() + interval '1 hour'))).*
                 FROM daybook.events AS e WHERE position = 1";
    run(&log.url, ahead).await;
    assert_eq!(Call::to(4).run(&mut append).await.unwrap()[0].first_position, Some(8));
    let falls: i64 = query_scalar(
        "SELECT count(*) FROM (SELECT recorded_at < lag(recorded_at) OVER (ORDER BY position) AS falls
                               FROM daybook.events) AS e WHERE falls",
    )
    .fetch_one(&log.superuser)
    .await
    .unwrap();
    assert_eq!(falls, 0);
}

/// A log that has lost its identity takes nothing: nobody could say of what log it is.
#[tokio::test]
async fn a_log_without_its_row_takes_nothing() {
    let log = Log::start().await;
    run(&log.url, "DELETE FROM daybook.log").await;
    let before = log.state().await;
    let mut append = log.connect(Role::Append).await;
    let refused = Call::to(3).run(&mut append).await.unwrap_err();
    assert_eq!(code(&refused), "55000");
    assert_eq!(log.state().await, before);
}
