//! What the log promises, held against its table: by SQL of its own, and not by what the crate reads.

use daybook_store::event_id;
use sqlx::{PgPool, query_as};
use uuid::Uuid;

/// What is not as the log promises, in order of position; empty if all is.
pub(crate) async fn faults(superuser: &PgPool) -> Vec<String> {
    let broken = "
        SELECT position, concat_ws(', ',
                   CASE WHEN position <> before + 1 THEN format('comes after %s', before) END,
                   CASE WHEN version <> nth THEN format('has version %s, the %s of its stream', version,
                       to_char(nth, 'FM9999999th')) END,
                   CASE WHEN recorded_at < earlier THEN 'was recorded before the one that it follows' END,
                   CASE WHEN json_typeof(payload) <> 'object' THEN 'has a payload that is no object' END,
                   CASE WHEN length(fingerprint) <> 16 THEN 'has no fingerprint' END,
                   CASE WHEN origin NOT IN (0, 1) THEN 'has no origin' END,
                   CASE WHEN of_command > 1 AND command_before IS DISTINCT FROM command_id
                       THEN 'stands apart from its command' END,
                   CASE WHEN command_before = command_id AND fingerprint_before <> fingerprint
                       THEN 'has another fingerprint than its command' END) AS fault
        FROM (SELECT *, lag(position, 1, 0::bigint) OVER log AS before, lag(recorded_at) OVER log AS earlier,
                     lag(command_id) OVER log AS command_before, lag(fingerprint) OVER log AS fingerprint_before,
                     row_number() OVER (PARTITION BY category, stream_id ORDER BY position) AS nth,
                     row_number() OVER (PARTITION BY command_id ORDER BY position) AS of_command
              FROM daybook.events WINDOW log AS (ORDER BY position)) AS e
        ORDER BY position";
    let rows: Vec<(i64, String)> = query_as(broken).fetch_all(superuser).await.unwrap();
    let mut faults: Vec<(i64, String)> = rows.into_iter().filter(|(_, fault)| !fault.is_empty()).collect();
    let ids = "SELECT position, event_id, command_id, row_number() OVER (PARTITION BY command_id ORDER BY position) - 1
               FROM daybook.events";
    let ids: Vec<(i64, Uuid, Uuid, i64)> = query_as(ids).fetch_all(superuser).await.unwrap();
    for (position, id, command, index) in ids {
        if id != event_id(command, index as usize) {
            faults.push((position, format!("has an id that does not follow from its command's, {command}")));
        }
    }
    faults.sort();
    faults.into_iter().map(|(position, fault)| format!("position {position} {fault}")).collect()
}

pub(crate) async fn assert_sound(url: &str) {
    let superuser = PgPool::connect(url).await.unwrap();
    let faults = faults(&superuser).await;
    assert!(faults.is_empty(), "{faults:#?}");
    superuser.close().await;
}
