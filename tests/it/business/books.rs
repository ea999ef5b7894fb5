//! Invariant 28: `daybook verify --books` holds the provider's books against the log, call by call.

use crate::harness::{System, card, daybook_on, order_of};
use order_services::subject;
use order_services::verify::{Check, verify_books};
use orders::Command;
use orders::id::OrderId;
use orders::order::{CancelReason, PlaceOrder};
use orders::reaction::{Act, ProviderCall};
use runtime::step::Step;
use sqlx::AssertSqlSafe;
use sqlx::types::Json;

fn paid_by(token: &str) -> PlaceOrder {
    let mut order = order_of(&[("mug", 1, 1)]);
    order.payments[0].method = card(token);
    order
}

/// With a payment that is captured, one that was declined, and one that was let go.
async fn shop() -> (System, OrderId) {
    let mut system = System::start().await;
    system.receive("mug", 20).await;
    let shipped = system.place(paid_by("tok_approve")).await;
    system.place(paid_by("tok_decline")).await;
    let cancelled = system.place(paid_by("tok_approve")).await;
    system.settle().await;
    system.execute(Command::CancelOrder { id: cancelled, reason: CancelReason::CustomerRequest }).await.unwrap();
    system.ship(shipped).await;
    (system, shipped)
}

async fn books(system: &System, payments: Option<u32>) -> Check {
    verify_books(&system.parts.read, &system.parts.client, payments).await.unwrap()
}

async fn sql(system: &System, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&system.superuser().await).await.unwrap();
}

async fn assert_only(system: &System, words: &str) {
    let check = books(system, None).await;
    assert_eq!(check.difference_count, 1, "{check:?}");
    assert!(check.differences[0].contains(words), "{words}: {check:?}");
}

const FORGE: &str = "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only";

#[tokio::test]
async fn the_books_of_a_system_at_rest_agree() {
    let (system, _) = shop().await;
    let check = books(&system, None).await;
    assert!(check.agrees() && check.asked, "{check:?}");
    // Three authorisations, a capture and a void.
    assert_eq!((check.name, check.checked), ("provider's books", 5));
    let sample = books(&system, Some(1)).await;
    assert!(sample.agrees() && (1..=2).contains(&sample.checked), "{sample:?}");
    let verify = async |arguments: &[&str]| {
        let output = daybook_on(&system.urls).arg("verify").args(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let table = String::from_utf8(output.stdout).unwrap();
        table.lines().find(|line| line.starts_with("provider's books")).unwrap().to_owned()
    };
    assert!(verify(&[]).await.ends_with("0  not asked"));
    assert!(verify(&["--books"]).await.ends_with("5  agrees"));
    assert!(verify(&["--books", "100", "--sample", "10"]).await.ends_with("agrees"));
}

#[tokio::test]
async fn what_was_done_at_the_provider_and_is_not_in_the_log_is_found() {
    let (system, _) = shop().await;
    let lost = "DELETE FROM daybook.events WHERE event_type = 'PaymentCaptured'";
    sql(&system, &format!("{FORGE}; {lost}")).await;
    assert_only(&system, "done at the provider, the log has no outcome").await;
}

#[tokio::test]
async fn what_is_in_the_log_and_not_at_the_provider_is_found_unless_it_was_imported() {
    let (system, _) = shop().await;
    sql(&system, "DELETE FROM daybook.provider_ledger WHERE operation = 'capture'").await;
    assert_only(&system, "done by the log, the provider does not know it").await;
    let imported = "UPDATE daybook.events SET origin = 1 WHERE event_type = 'CaptureRequested'";
    sql(&system, &format!("{FORGE}; {imported}")).await;
    assert!(books(&system, None).await.agrees());
}

#[tokio::test]
async fn another_outcome_is_found() {
    let (system, _) = shop().await;
    sql(&system, "UPDATE daybook.provider_ledger SET declined = 'no' WHERE operation = 'capture'").await;
    assert_only(&system, "done by the log, declined by the provider").await;
    let approved = "UPDATE daybook.provider_ledger SET declined = NULL";
    sql(&system, approved).await;
    assert_only(&system, "declined by the log, done at the provider").await;
}

/// Of a system in motion, nothing is said that will be right by itself.
#[tokio::test]
async fn what_is_still_due_is_no_difference() {
    let (mut system, _) = shop().await;
    system.place(paid_by("tok_approve")).await;
    let calls = "SELECT act FROM daybook.follow_ups WHERE state = 'due' AND reaction = 'call_authorise'";
    let superuser = system.superuser().await;
    // The provider has done it before the sender asks.
    let mut due: Vec<Json<Act>> = vec![];
    for _ in 0..20 {
        system.project().await;
        due = sqlx::query_scalar(calls).fetch_all(&superuser).await.unwrap();
        if !due.is_empty() {
            break;
        }
        system.sender.step().await.unwrap();
    }
    let Act::Provider(call) = &due[0].0 else { panic!("{due:?}") };
    let ProviderCall { idempotency_key: key, .. } = call;
    let body = serde_json::to_vec(call).unwrap();
    let client = &system.parts.client;
    client.request(format!("{}.authorise", subject::PROVIDER), body.into()).await.unwrap();
    let check = books(&system, None).await;
    assert!(check.agrees() && check.checked == 6, "{check:?}");
    // Before the projection has come to it. What led to it is done, and perhaps not settled yet.
    let ahead = format!(
        "DELETE FROM daybook.follow_ups WHERE act->'provider'->>'idempotency_key' = '{key}';
        UPDATE daybook.follow_ups SET state = 'accepted', settled_at = now()
        WHERE state = 'due' AND act->'command' IS NOT NULL;
        UPDATE daybook.checkpoints SET position = position - 1 WHERE projection = 'follow_ups'"
    );
    sql(&system, &format!("CREATE TABLE public.kept AS TABLE daybook.follow_ups; {ahead}")).await;
    let check = books(&system, None).await;
    assert!(check.agrees(), "{check:?}");
    // Once it is not due, it is one.
    sql(&system, "UPDATE daybook.checkpoints SET position = position + 1 WHERE projection = 'follow_ups'").await;
    assert_only(&system, "done at the provider, the log has no outcome").await;
    sql(&system, "DELETE FROM daybook.follow_ups; INSERT INTO daybook.follow_ups TABLE public.kept").await;
    system.settle().await;
    let check = books(&system, None).await;
    assert!(check.agrees() && check.checked == 6, "{check:?}");
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_no_difference_but_an_error() {
    let (mut system, _) = shop().await;
    for service in system.outside.drain(..) {
        service.stop().await;
    }
    let error = verify_books(&system.parts.read, &system.parts.client, None).await.unwrap_err().to_string();
    assert!(error.contains("the provider's books cannot be compared"), "{error}");
    let output = daybook_on(&system.urls).args(["verify", "--books"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}
