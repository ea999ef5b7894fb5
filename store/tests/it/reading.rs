//! What is asked of the log: from either end, and by time.

use crate::harness::{append, database, forge, id, log, stream, to};
use chrono::{DateTime, TimeDelta};
use daybook_store::ExpectedVersion::Any;
use daybook_store::{Appender, Position, RecordedEvent, StreamId, Version, event_id};
use sqlx::{PgPool, query_scalar};
use uuid::Uuid;

/// Appends an event to the stream of that number.
async fn write(appender: &Appender, n: u128) {
    appender.append(append(vec![to(stream(n), Any, 1)])).await.unwrap();
}

#[tokio::test]
async fn a_stream_and_the_log_are_read_from_either_end() {
    let url = database().await;
    let (log, appender) = (log(&url), Appender::start(&url).unwrap());
    for n in [1, 2, 1, 1, 2, 1] {
        write(&appender, n).await;
    }
    let all = log.read_all(0, 100_000).await.unwrap();
    let stream = all[0].stream;
    let backward = async |before: Version, limit| {
        let events = log.read_stream_backward(stream, before, limit).await.unwrap();
        // Each is wholly what the other direction reads.
        events.iter().for_each(|event| assert_eq!(*event, all[event.position as usize - 1]));
        events.iter().map(|e| (e.version, e.position)).collect::<Vec<_>>()
    };
    assert_eq!(backward(Version::MAX, 10).await, [(4, 6), (3, 4), (2, 3), (1, 1)]);
    assert_eq!(backward(4, 2).await, [(3, 4), (2, 3)]);
    assert_eq!(backward(1, 10).await, []);
    let none = StreamId { id: id(3), ..stream };
    assert_eq!(log.read_stream_backward(none, Version::MAX, 10).await.unwrap(), []);

    let mut reversed = all.clone();
    reversed.reverse();
    assert_eq!(log.read_all_backward(Position::MAX, 10).await.unwrap(), reversed);
    assert_eq!(log.read_all_backward(5, 2).await.unwrap(), reversed[2..4]);
    assert_eq!(log.read_all_backward(1, 2).await.unwrap(), []);

    let some = log.read_positions(&[5, 2, 7, 3, 5, 0]).await.unwrap();
    assert_eq!(some, [all[1].clone(), all[2].clone(), all[4].clone()]);
    assert_eq!(log.read_positions(&[]).await.unwrap(), []);
}

/// Whatever the number of events is, and however many of them were recorded at one moment.
#[tokio::test]
async fn the_position_at_a_time_is_found_at_every_edge() {
    let url = database().await;
    let (log, appender) = (log(&url), Appender::start(&url).unwrap());
    // In seconds.
    let times = [10, 10, 20, 20, 20, 30, 40, 40, 50];
    for _ in times {
        write(&appender, 1).await;
    }
    let array = times.map(|t| t.to_string()).join(",");
    forge(&url, &format!("UPDATE daybook.events SET recorded_at = to_timestamp((ARRAY[{array}])[position])")).await;
    for left in (0..=times.len()).rev() {
        forge(&url, &format!("DELETE FROM daybook.events WHERE position > {left}")).await;
        assert_eq!(log.head().await.unwrap(), left as i64);
        for second in 9..=51 {
            for microseconds in [-1, 0, 1] {
                let time = DateTime::from_timestamp(second, 0).unwrap() + TimeDelta::microseconds(microseconds);
                let at = |t: &&i64| DateTime::from_timestamp(**t, 0).unwrap() <= time;
                let expected = times[..left].iter().filter(at).count() as i64;
                assert_eq!(log.position_at(time).await.unwrap(), expected, "of {left}, at {time}");
            }
        }
    }
}

/// The hash chain can be proved by SQL alone: its digests are those of the crate.
#[tokio::test]
async fn a_digest_is_the_same_in_sql() {
    let url = database().await;
    let (log, appender) = (log(&url), Appender::start(&url).unwrap());
    for n in 0..10_u128 {
        let mut append = append(vec![to(stream(n), Any, 2), to(stream(100 + n), Any, 1)]);
        let command_id = append.metadata.command_id;
        // With and without a cause and a trace.
        append.metadata.causation_id = n.is_multiple_of(2).then(|| event_id(command_id, 0));
        append.metadata.traceparent = n.is_multiple_of(3).then(|| "00-0af7651916cd43dd8448eb211c80319c-01".into());
        append.streams[0].events[0].payload = format!(r#"{{"a" : "é{n}"}}"#).into();
        appender.append(append).await.unwrap();
    }
    let events = log.read_all(0, 1000).await.unwrap();
    assert_eq!(events.len(), 30);
    let digests = "SELECT encode(daybook.event_digest(e), 'hex') FROM daybook.events AS e ORDER BY position";
    let digests: Vec<String> = query_scalar(digests).fetch_all(&PgPool::connect(&url).await.unwrap()).await.unwrap();
    let ours: Vec<String> = events.iter().map(|event| format!("{:?}", event.digest())).collect();
    assert_eq!(digests, ours);
    // They tell events apart.
    let command = |event: &RecordedEvent| -> Uuid { event.metadata.command_id };
    assert_ne!(command(&events[0]), command(&events[3]));
    assert_ne!(ours[0], ours[3]);
}
