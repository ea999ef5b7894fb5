//! What could not be done waits for somebody: seen with its cause, sent again with its effect once, or given up for good.

use crate::harness::{System, daybook_on, order_of};
use dev::provider;
use engine::dead_letter::{self, DeadLetter, Decision, Detail, Filter};
use order_services::policy::Timeouts;
use order_services::queries;
use order_views::Orders;
use orders::Command;
use orders::id::{OrderId, PaymentId};
use orders::payment;
use runtime::client::{Client, ClientError};
use runtime::dead_letters::resolve;
use runtime::wire::Code;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, query_scalar};
use std::process::Output;
use std::time::Duration;
use store::Position;
use store::connect::{self, Role};
use uuid::Uuid;

/// Gives up soon, and tries again at once.
const IMPATIENT: Timeouts = Timeouts {
    answer: Duration::from_millis(400),
    longest_wait: Duration::ZERO,
    clock_tolerance: store::clock::TOLERANCE,
};

/// Of an order of `mug` by `harness::order_of`, with its shipping.
const TOTAL: i64 = 1250;

async fn start() -> System {
    let system = System::start_at(IMPATIENT).await;
    system.receive("mug", 10).await;
    system
}

/// An order of one mug, placed and everything done that follows, as far as it can be.
async fn placed(system: &mut System, token: &str) -> OrderId {
    let mut order = order_of(&[("mug", 1, 1)]);
    token.clone_into(&mut order.payments[0].method.token);
    let order = system.place(order).await;
    system.settle().await;
    order
}

async fn dispatch(system: &mut System, order: OrderId) {
    let parcel = system.shipments(order).await[0];
    system.execute(system.dispatch(parcel).await).await.unwrap();
    system.settle().await;
}

/// The notifier stays.
async fn stop_the_provider(system: &mut System) {
    system.outside.remove(0).stop().await;
}

async fn start_the_provider(system: &mut System) {
    let (client, pool) = (&system.parts.client, system.parts.project.clone());
    system.outside.insert(0, provider::start(client, pool, Duration::ZERO).await.unwrap());
    system.parts.client.flush().await.unwrap();
}

async fn list(system: &System, filter: &Filter) -> Vec<DeadLetter> {
    dead_letter::list(&system.parts.read, filter, None, 100).await.unwrap()
}

async fn ids(system: &System, filter: &Filter) -> Vec<Uuid> {
    list(system, filter).await.iter().map(|letter| letter.id).collect()
}

/// The only one of an order.
async fn of_order(system: &System, order: OrderId) -> DeadLetter {
    let mut letters = list(system, &Filter { correlation_id: Some(order.0), ..Filter::default() }).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters.remove(0)
}

async fn get(system: &System, id: Uuid) -> Detail {
    dead_letter::get::<Orders>(&system.parts.read, id).await.unwrap().unwrap()
}

fn this(id: Uuid) -> Filter {
    Filter { ids: Some(vec![id]), ..Filter::default() }
}

async fn redrive(system: &System, filter: &Filter) -> Vec<Uuid> {
    let decision = Decision::Redrive { by: "ann", why: Some("it is back") };
    resolve::<Orders>(&system.parts.read, &system.parts.project, filter, &decision).await.unwrap().done
}

async fn discard(system: &System, filter: &Filter) -> Vec<Uuid> {
    let decision = Decision::Discard { by: "ben", why: "paid in cash" };
    resolve::<Orders>(&system.parts.read, &system.parts.project, filter, &decision).await.unwrap().done
}

async fn count(system: &System, sql: &'static str) -> i64 {
    query_scalar(sql).fetch_one(&system.superuser().await).await.unwrap()
}

async fn run_as_superuser(system: &System, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&system.superuser().await).await.unwrap();
}

/// A capture that was declined, and then an authorisation that nobody answered.
async fn two_dead_letters() -> (System, [OrderId; 2]) {
    let mut system = start().await;
    let declined = placed(&mut system, "tok_decline_capture").await;
    dispatch(&mut system, declined).await;
    stop_the_provider(&mut system).await;
    let unanswered = placed(&mut system, "tok_approve").await;
    (system, [declined, unanswered])
}

#[tokio::test]
async fn what_could_not_be_done_is_listed_with_its_cause_the_longest_waiting_first() {
    let (system, [declined, unanswered]) = two_dead_letters().await;
    let both = list(&system, &Filter::default()).await;
    let [first, second] = both.as_slice() else { panic!("{both:?}") };
    assert_eq!((first.kind.as_str(), first.correlation_id), ("follow_up", declined.0));
    assert_eq!((first.reaction.as_deref(), first.attempts), (Some("call_capture"), Some(1)));
    assert_eq!((first.event_type.as_str(), first.projection.as_deref()), ("CaptureRequested", None));
    assert_eq!(first.reason, "the provider declined: capture declined");
    assert_eq!((second.kind.as_str(), second.correlation_id), ("follow_up", unanswered.0));
    assert_eq!((second.reaction.as_deref(), second.attempts), (Some("call_authorise"), Some(60)));
    assert_eq!(second.target, PaymentId::of_order(unanswered, 0).0);
    assert!(second.reason.starts_with("given up after 60 attempts: no responders"), "{second:?}");
    assert!(first.since < second.since);

    let any = Filter::default;
    let moment = chrono::Duration::microseconds(1);
    for (filter, found) in [
        (Filter { reaction: Some("call_capture".into()), ..any() }, vec![first.id]),
        (Filter { reaction: Some("call".into()), ..any() }, vec![]),
        (Filter { projection: Some("follow_ups".into()), ..any() }, vec![]),
        (Filter { discarded: true, ..any() }, vec![]),
        (Filter { correlation_id: Some(unanswered.0), ..any() }, vec![second.id]),
        (Filter { matching: Some("capture declined".into()), ..any() }, vec![first.id]),
        (Filter { matching: Some("%".into()), ..any() }, vec![]),
        (Filter { since: Some(first.since), ..any() }, vec![first.id, second.id]),
        (Filter { since: Some(first.since + moment), ..any() }, vec![second.id]),
        (Filter { until: Some(second.since), ..any() }, vec![first.id, second.id]),
        (Filter { until: Some(second.since - moment), ..any() }, vec![first.id]),
        (Filter { ids: Some(vec![second.id, declined.0]), ..any() }, vec![second.id]),
        (Filter { ids: Some(vec![]), ..any() }, vec![]),
        (Filter { reaction: Some("call_capture".into()), correlation_id: Some(unanswered.0), ..any() }, vec![]),
    ] {
        assert_eq!(ids(&system, &filter).await, found, "{filter:?}");
    }

    // A row a page, also of those that were parked at one time.
    run_as_superuser(&system, "UPDATE daybook.follow_ups SET settled_at = now() WHERE state = 'parked'").await;
    let (mut after, mut paged) = (None, Vec::new());
    loop {
        let page = dead_letter::list(&system.parts.read, &Filter::default(), after, 1).await.unwrap();
        let [letter] = page.as_slice() else { break assert_eq!(page, []) };
        after = Some((letter.since, letter.id));
        paged.push(letter.id);
    }
    let mut in_order = [first.id, second.id];
    in_order.sort_unstable();
    assert_eq!(paged, in_order);
    system.assert_verified().await;
}

/// Over NATS, too; and whoever asks never sees a token.
#[tokio::test]
async fn dead_letters_can_be_asked_for_and_show_no_token() {
    let (system, [_, unanswered]) = two_dead_letters().await;
    let api = queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap();
    system.parts.client.flush().await.unwrap();
    let client = Client::new(system.parts.client.clone(), "test");
    let all = list(&system, &Filter::default()).await;
    let listed = client.query::<Vec<DeadLetter>>("dead_letters.list", Value::Null, None).await.unwrap();
    assert_eq!(listed.data, all);
    assert_eq!(listed.position, system.parts.log.head().await.unwrap());
    let next = json!({ "after": { "since": all[0].since, "id": all[0].id }, "limit": 1 });
    assert_eq!(client.query::<Vec<DeadLetter>>("dead_letters.list", next, None).await.unwrap().data, all[1..]);
    let filtered = json!({
        "reaction": "call_authorise", "correlation_id": unanswered, "matching": "60",
        "since": all[1].since, "until": all[1].since,
    });
    assert_eq!(client.query::<Vec<DeadLetter>>("dead_letters.list", filtered, None).await.unwrap().data, all[1..]);

    let stored: Value = query_scalar("SELECT act FROM daybook.follow_ups WHERE id = $1")
        .bind(all[1].id)
        .fetch_one(&system.parts.read)
        .await
        .unwrap();
    assert_eq!(stored["provider"]["operation"]["authorise"]["method"]["token"], "tok_approve");
    let mut hidden = stored;
    hidden["provider"]["operation"]["authorise"]["method"]["token"] = "…".into();
    let shown = client.query::<Value>("dead_letters.get", json!({ "id": all[1].id }), None).await.unwrap().data;
    assert_eq!(shown["act"], hidden);
    assert_eq!(shown, serde_json::to_value(get(&system, all[1].id).await).unwrap());

    let refused = |answer: Result<_, ClientError>| match answer {
        Err(ClientError::Refused(error)) => error.code,
        answer => panic!("{:?}", answer.map(|_: runtime::wire::QueryReply<Value>| ())),
    };
    // What was never parked is no dead letter.
    let done: Uuid = query_scalar("SELECT id FROM daybook.follow_ups WHERE state = 'accepted' LIMIT 1")
        .fetch_one(&system.parts.read)
        .await
        .unwrap();
    let answer = client.query("dead_letters.get", json!({ "id": done }), None).await;
    assert!(matches!(refused(answer), Code::NotFound));
    let body = json!({ "at_least": Position::MAX, "wait_ms": 0 }).to_string();
    let answer = system.parts.client.request("daybook.qry.v1.dead_letters.list", body.into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["code"], "not_yet", "{answer}");
    api.stop().await;
}

/// The provider took the money, and nobody has seen it: the call is made again, and no money is taken.
#[tokio::test]
async fn a_capture_that_had_succeeded_in_truth_is_redriven_and_not_done_twice() {
    let mut system = start().await;
    let order = placed(&mut system, "tok_approve").await;
    stop_the_provider(&mut system).await;
    dispatch(&mut system, order).await;
    let letter = of_order(&system, order).await;
    assert_eq!((letter.reaction.as_deref(), letter.attempts), (Some("call_capture"), Some(60)));
    start_the_provider(&mut system).await;
    let call = get(&system, letter.id).await.act.unwrap()["provider"].to_string();
    system.parts.client.request("daybook.provider.v1.capture", call.into()).await.unwrap();
    assert_eq!(system.moved(order).await, (0, TOTAL, 0));
    assert!(!system.events_of(order).await.iter().any(|e| e == "PaymentCaptured"));

    // Twice at once: one of them has it sent.
    let by_id = this(letter.id);
    let (one, other) = tokio::join!(redrive(&system, &by_id), redrive(&system, &by_id));
    assert_eq!([one, other].concat(), [letter.id]);
    assert_eq!(list(&system, &Filter::default()).await, []);
    let redriven = get(&system, letter.id).await;
    assert_eq!((redriven.letter.state.as_str(), redriven.letter.attempts), ("due", Some(0)));
    let [resolution] = redriven.resolutions.as_slice() else { panic!("{redriven:?}") };
    assert_eq!((resolution.outcome.as_str(), resolution.resolved_by.as_str()), ("redriven", "ann"));
    assert_eq!(resolution.why.as_deref(), Some("it is back"));
    assert_eq!((&resolution.reason, resolution.parked_at), (&Some(letter.reason), Some(letter.since)));
    assert!(resolution.resolved_at > letter.since && resolution.resolved_at == redriven.letter.since);

    system.settle().await;
    assert_eq!(system.moved(order).await, (0, TOTAL, 0));
    assert_eq!(system.events_of(order).await.iter().filter(|e| *e == "PaymentCaptured").count(), 1);
    // And again: what is done is left alone.
    assert!(redrive(&system, &by_id).await.is_empty());
    system.settle().await;
    let done = get(&system, letter.id).await;
    assert_eq!((done.letter.state.as_str(), done.letter.attempts, done.resolutions.len()), ("accepted", Some(1), 1));
    assert_eq!(count(&system, "SELECT count(*) FROM daybook.provider_ledger WHERE operation = 'capture'").await, 1);
    system.assert_verified().await;
}

/// Whatever it is: a command, a call or a notice. Some are redriven first, by a filter; the others stay until then.
#[tokio::test]
async fn many_are_redriven_at_once_and_whatever_was_done_before_is_not_done_twice() {
    let mut system = start().await;
    let order = placed(&mut system, "tok_approve").await;
    system.ship(order).await;
    let events = system.parts.log.head().await.unwrap();
    let notices = system.notices().await;
    assert_eq!((notices.len(), system.moved(order).await), (1, (0, TOTAL, 0)));
    run_as_superuser(
        &system,
        "UPDATE daybook.follow_ups SET state = 'parked', settled_at = clock_timestamp(), reason = 'lost sight of'",
    )
    .await;
    let all = ids(&system, &Filter::default()).await;
    assert!(all.len() > 10, "{all:?}");
    let captures = Filter { reaction: Some("call_capture".into()), ..Filter::default() };
    let capture = redrive(&system, &captures).await;
    assert_eq!(capture.len(), 1);
    assert_eq!(ids(&system, &Filter::default()).await.len(), all.len() - 1);
    let lost = Filter { matching: Some("lost sight".into()), ..Filter::default() };
    let mut redriven = [capture, redrive(&system, &lost).await].concat();
    redriven.sort_unstable();
    assert_eq!(redriven, {
        let mut all = all;
        all.sort_unstable();
        all
    });
    assert_eq!(count(&system, "SELECT count(*) FROM daybook.follow_ups WHERE state <> 'due'").await, 0);
    system.settle().await;
    assert_eq!(count(&system, "SELECT count(*) FROM daybook.follow_ups WHERE state <> 'accepted'").await, 0);
    assert_eq!(system.parts.log.head().await.unwrap(), events);
    assert_eq!((system.notices().await, system.moved(order).await), (notices, (0, TOTAL, 0)));
    system.assert_verified().await;
}

#[tokio::test]
async fn what_is_discarded_is_kept_and_never_sent() {
    let mut system = start().await;
    stop_the_provider(&mut system).await;
    let given_up = placed(&mut system, "tok_approve").await;
    let wanted = placed(&mut system, "tok_approve").await;
    let letter = of_order(&system, given_up).await;
    let of_given_up = Filter { correlation_id: Some(given_up.0), ..Filter::default() };
    assert_eq!(discard(&system, &of_given_up).await, [letter.id]);
    start_the_provider(&mut system).await;
    assert_eq!(redrive(&system, &Filter::default()).await.len(), 1);
    system.settle().await;
    assert_eq!((system.status(wanted).await.as_str(), system.moved(wanted).await), ("confirmed", (TOTAL, 0, 0)));
    for _ in 0..2 {
        assert_eq!((system.status(given_up).await.as_str(), system.moved(given_up).await), ("placed", (0, 0, 0)));
        assert_eq!(list(&system, &Filter::default()).await, []);
        let kept = get(&system, letter.id).await;
        let DeadLetter { state, attempts, reason, since, .. } = &kept.letter;
        assert_eq!((state.as_str(), *attempts, reason), ("discarded", Some(60), &letter.reason));
        assert!(*since > letter.since);
        assert_eq!(
            list(&system, &Filter { discarded: true, ..Filter::default() }).await,
            std::slice::from_ref(&kept.letter)
        );
        let [resolution] = kept.resolutions.as_slice() else { panic!("{kept:?}") };
        assert_eq!((resolution.outcome.as_str(), resolution.resolved_by.as_str()), ("discarded", "ben"));
        assert_eq!((resolution.why.as_deref(), resolution.parked_at), (Some("paid in cash"), Some(letter.since)));
        // Once given up it is neither given up again nor taken up.
        assert!(discard(&system, &this(letter.id)).await.is_empty());
        assert!(redrive(&system, &this(letter.id)).await.is_empty());
        system.settle().await;
    }
    system.assert_verified().await;
}

/// It still cannot be done: it waits again, and what was decided is kept, each time with what it had waited for.
#[tokio::test]
async fn what_is_redriven_too_early_is_parked_again() {
    let mut system = start().await;
    let order = placed(&mut system, "tok_approve").await;
    let parcel = system.shipments(order).await[0];
    system.execute(system.dispatch(parcel).await).await.unwrap();
    let expire = Command::Payment { id: PaymentId::of_order(order, 0), command: payment::Command::Expire };
    system.execute(expire).await.unwrap();
    system.settle().await;
    let before = of_order(&system, order).await;
    assert!(before.reason.ends_with("is not authorised: it is authorisation_expired"), "{before:?}");
    assert_eq!(redrive(&system, &this(before.id)).await, [before.id]);
    system.settle().await;
    let again = of_order(&system, order).await;
    assert!(again.since > before.since);
    assert!(again.reason.ends_with("is not authorised: it is voided"), "{again:?}");
    let (since, reason) = (again.since, again.reason.clone());
    assert_eq!(again, DeadLetter { since, reason, ..before.clone() });
    assert_eq!(discard(&system, &this(before.id)).await, [before.id]);
    let kept = get(&system, before.id).await;
    let told = kept.resolutions.into_iter().map(|r| (r.outcome, r.parked_at, r.reason)).collect::<Vec<_>>();
    let waited = |outcome: &str, letter: DeadLetter| (outcome.to_owned(), Some(letter.since), Some(letter.reason));
    assert_eq!(told, [waited("redriven", before), waited("discarded", again)]);
    system.assert_verified().await;
    // No service can take back what somebody has decided.
    let project = connect::options(&system.urls.database_url, Role::Project).unwrap();
    let mut project = project.connect().await.unwrap();
    for sql in ["UPDATE daybook.resolutions SET resolved_by = 'me'", "DELETE FROM daybook.resolutions"] {
        let refused = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut project).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{refused}");
    }
}

/// Without NATS: it takes nothing but Postgres to see to what could not be done.
async fn daybook(system: &System, arguments: &str) -> Output {
    let mut command = daybook_on(&system.urls);
    command.env_remove("NATS_URL").arg("dead-letters").args(arguments.split(' ')).output().await.unwrap()
}

/// What the verb says, if it ends with this code.
async fn said(system: &System, arguments: &str, code: i32) -> [String; 2] {
    let output = daybook(system, arguments).await;
    assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
    [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn the_verbs_list_show_redrive_and_discard() {
    let mut system = start().await;
    stop_the_provider(&mut system).await;
    let [given_up, wanted] = [placed(&mut system, "tok_approve").await, placed(&mut system, "tok_approve").await];
    let [first, second] = [of_order(&system, given_up).await, of_order(&system, wanted).await];

    let [table, _] = said(&system, "list", 0).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("dead letter ") && lines[1].starts_with(&first.id.to_string()), "{table}");
    assert!(lines[1].contains(&given_up.0.to_string()) && lines[1].ends_with(&first.reason), "{table}");
    let listed = async |arguments: &str| -> Vec<DeadLetter> {
        let [lines, _] = said(&system, &format!("list --json {arguments}"), 0).await;
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let both = [first.clone(), second.clone()];
    assert_eq!(listed("--limit 9").await, both);
    assert_eq!(listed("--limit 1").await, both[..1]);
    assert_eq!(listed(&format!("--order {}", wanted.0)).await, both[1..]);
    assert_eq!(listed("--reaction call_authorise --matching responders").await.len(), 2);
    assert_eq!(listed("--reaction call_capture").await, []);
    let since = second.since.to_rfc3339();
    assert_eq!(listed(&format!("--since {since} --until {since}")).await, both[1..]);

    // All of it, but the token.
    let [shown, _] = said(&system, &format!("show {}", first.id), 0).await;
    assert!(shown.contains(&format!("\nreason       {}\n", first.reason)), "{shown}");
    assert!(shown.contains("\nact          {\"provider\":") && shown.contains("\"token\":\"…\""), "{shown}");
    let [shown_json, _] = said(&system, &format!("show {} --json", first.id), 0).await;
    assert_eq!(serde_json::from_str::<Detail>(&shown_json).unwrap(), get(&system, first.id).await);
    assert!(!format!("{table}{shown}{shown_json}").contains("tok_"));
    let [_, unknown] = said(&system, &format!("show {}", given_up.0), 3).await;
    assert_eq!(unknown, format!("daybook: {} is not the id of a dead letter\n", given_up.0));

    // What is not said clearly is not done.
    for arguments in [
        "redrive".to_owned(),
        "redrive --reaction call_authorise".to_owned(),
        format!("redrive {} --all", first.id),
        format!("redrive {} --reaction call_authorise", first.id),
        format!("discard {}", first.id),
        "discard --all".to_owned(),
    ] {
        said(&system, &arguments, 2).await;
    }
    assert_eq!(listed("--limit 9").await.len(), 2);

    let cash = format!("discard {} --by ben --reason cash", first.id);
    assert_eq!(said(&system, &format!("{cash} --json"), 0).await[0], format!("{{\"discarded\":[\"{}\"]}}\n", first.id));
    let [nothing, left] = said(&system, &cash, 3).await;
    assert_eq!((nothing.as_str(), left), ("0 discarded\n", format!("daybook: not parked, unchanged: {}\n", first.id)));
    // One of the two waits: it is redriven, the other is told.
    let [one, left] = said(&system, &format!("redrive {} {}", first.id, second.id), 3).await;
    assert_eq!((one.as_str(), left), ("1 redriven\n", format!("daybook: not parked, unchanged: {}\n", first.id)));
    assert_eq!(said(&system, "redrive --all --reaction call_authorise", 0).await, ["0 redriven\n", ""]);
    start_the_provider(&mut system).await;
    system.settle().await;
    assert_eq!((system.status(given_up).await.as_str(), system.status(wanted).await.as_str()), ("placed", "confirmed"));
    let [shown, _] = said(&system, &format!("show {}", second.id), 0).await;
    assert!(
        shown.contains("\nstate        accepted since ") && shown.contains(" by cli (its reason was: given up"),
        "{shown}"
    );
    let [shown, _] = said(&system, &format!("show {}", first.id), 0).await;
    assert!(
        shown.contains("\nstate        discarded since ") && shown.contains(" by ben: cash (its reason was"),
        "{shown}"
    );
    system.assert_verified().await;
}
