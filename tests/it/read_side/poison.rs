//! An event that cannot be taken in: it is kept with its cause, what is about the same order waits, and all others go on.
//! (Invariant 20.) Somebody mends it and has it taken in, or goes on without it.

use crate::harness::{System, append_orders, daybook_on, new_order, order_of, run};
use engine::Batch;
use engine::ReadModel as _;
use engine::codec;
use engine::dead_letter::{self, DeadLetter, Decision, Detail, Filter};
use engine::parked::{KeyedBy, letter_id};
use engine::rebuild::Rebuild;
use engine::status;
use order_services::verify::{Report, verify};
use order_views::Orders;
use order_views::{Projection, ReadModel, order_summary};
use orders::Command;
use orders::id::{AddressId, OrderId, ReceiptId};
use orders::order::{self, CancelReason, HoldReason, ReceivedLine, ReturnLine, ReturnReason};
use runtime::dead_letters::{Resolved, resolve};
use runtime::replay::{Mode, ReplayError, replay};
use runtime::step::{Outcome, Step};
use sqlx::{query_as, query_scalar};
use std::collections::HashMap;
use std::time::Duration;
use store::{Origin, Position, checkpoint, lease};
use uuid::Uuid;

const SUMMARY: Projection = Projection::ReadModel(ReadModel::OrderSummary);

/// Gives an event another payload, as nobody but a broken disk or a defect could; returns the one that it had.
async fn put(system: &System, position: Position, payload: &str) -> String {
    let event = system.parts.log.read_positions(&[position]).await.unwrap().remove(0);
    let rewritten = format!(
        "ALTER TABLE daybook.events DISABLE TRIGGER ALL;
         UPDATE daybook.events SET payload = '{payload}' WHERE position = {position};
         ALTER TABLE daybook.events ENABLE TRIGGER ALL"
    );
    run(&system.urls.database_url, &rewritten).await;
    event.payload.to_string()
}

/// The same of the event of a type in the order's own stream.
async fn rewrite(system: &System, order: OrderId, event_type: &str, payload: &str) -> String {
    let position = "SELECT position FROM daybook.events WHERE stream_id = $1 AND event_type = $2";
    let position = query_scalar(position).bind(order.0).bind(event_type).fetch_one(&system.parts.read).await.unwrap();
    put(system, position, payload).await
}

/// What is parked of the live rows, in order: in which projection, of which type, and whether it only waits.
async fn parked(system: &System) -> Vec<(String, String, bool)> {
    let parked = "SELECT projection, event_type, cause IS NULL
                  FROM daybook.parked_events AS p JOIN daybook.events USING (position)
                      JOIN daybook.checkpoints USING (projection, generation)
                  WHERE live ORDER BY projection, p.position";
    query_as(parked).fetch_all(&system.parts.read).await.unwrap()
}

async fn letters(system: &System, filter: &Filter) -> Vec<DeadLetter> {
    dead_letter::list(&system.parts.read, filter, None, 100).await.unwrap()
}

/// The dead letter of an order in a projection.
fn one(projection: Projection, order: OrderId) -> Filter {
    let projection = Some(projection.name().to_owned());
    Filter { projection, correlation_id: Some(order.0), ..Filter::default() }
}

async fn redrive(system: &System, filter: &Filter) -> Resolved {
    let decision = Decision::Redrive { by: "ann", why: None };
    resolve::<Orders>(&system.parts.read, &system.parts.project, filter, &decision).await.unwrap()
}

async fn discard(system: &System, filter: &Filter) -> Resolved {
    let decision = Decision::Discard { by: "ben", why: "nobody needs it" };
    resolve::<Orders>(&system.parts.read, &system.parts.project, filter, &decision).await.unwrap()
}

async fn get(system: &System, id: Uuid) -> Detail {
    dead_letter::get::<Orders>(&system.parts.read, id).await.unwrap().unwrap()
}

/// The log against all that is folded from it. JetStream still has the event as it was relayed.
async fn assert_folded(system: &System) -> Report {
    let report = verify(&system.parts.read, None, Duration::ZERO).await.unwrap();
    // That an event was altered is found as well, and is not what is looked for.
    assert!(report.checks.iter().all(|check| check.agrees() || check.name == "chain"), "{report}");
    report
}

async fn verb(system: &System, arguments: &str) -> std::process::Output {
    let arguments = arguments.split_whitespace();
    daybook_on(&system.urls).arg("dead-letters").args(arguments).output().await.unwrap()
}

async fn told(system: &System, id: OrderId, command: order::Command) {
    assert!(system.execute(Command::Order { id, command }).await.unwrap().recorded);
}

async fn replayed(system: &System, model: ReadModel, mode: Mode) -> Result<i64, ReplayError> {
    let replayed = replay(&system.parts.log, &system.parts.project, model, mode, |_, _| {}).await?;
    Ok(replayed.compared.map_or(0, |compared| compared.differences()))
}

/// The projections of which an order waits for its own events alone.
fn by_order() -> Vec<Projection> {
    let mut all = Projection::all().collect::<Vec<_>>();
    all.retain(|projection| projection.keyed_by() == KeyedBy::Correlation);
    all.sort_by_key(|projection| projection.name());
    all
}

#[tokio::test]
async fn invariant_20_of_many_orders_one_waits_and_the_others_go_on() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let mut orders = Vec::new();
    for _ in 0..10 {
        orders.push(system.place(order_of(&[("mug", 1, 1)])).await);
    }
    let poisoned = orders.remove(4);
    let payload = rewrite(&system, poisoned, "OrderPlaced", r#"{"customer_id": "nobody"}"#).await;
    system.settle().await;
    for order in &orders {
        assert_eq!(system.status(*order).await, "confirmed");
    }
    assert!(order_views::order_summary::get(&system.parts.read, poisoned.0).await.unwrap().is_none());
    let mut found = letters(&system, &Filter::default()).await;
    found.sort_by_key(|letter| letter.projection.clone());
    let by_order = by_order();
    let names: Vec<_> = found.iter().map(|letter| letter.projection.as_deref().unwrap()).collect();
    assert_eq!(names, by_order.iter().map(|projection| projection.name()).collect::<Vec<_>>());
    for one in &found {
        let of = (one.kind.as_str(), one.event_type.as_str(), one.target, one.correlation_id);
        assert_eq!(of, ("event", "OrderPlaced", poisoned.0, poisoned.0));
        assert!(one.reason.starts_with("the OrderPlaced at position "), "{one:?}");
        assert!(!one.reason.contains("nobody"), "{one:?}");
        assert_eq!((one.waiting, one.attempts), (Some(0), None));
        let event = &system.parts.log.read_positions(&[one.position]).await.unwrap()[0];
        assert_eq!(one.id, letter_id(event.event_id, one.projection.as_deref().unwrap()));
    }
    let head = system.parts.log.head().await.unwrap();
    assert!(checkpoint::live(&system.parts.read).await.unwrap().iter().all(|(_, position)| *position == head));

    // As long as it is what it is, it stays where it is.
    let summary = letters(&system, &one(SUMMARY, poisoned)).await.remove(0);
    let still = verb(&system, &format!("redrive {}", summary.id)).await;
    assert_eq!((still.status.code(), &*still.stdout), (Some(3), &b"0 redriven\n"[..]));
    let expected = format!("daybook: {} is still parked: {}\n", summary.id, summary.reason);
    assert_eq!(String::from_utf8(still.stderr).unwrap(), expected);
    let refused = redrive(&system, &Filter::default()).await;
    assert_eq!((refused.done.len(), refused.left.len()), (0, found.len()));
    assert!(get(&system, summary.id).await.resolutions.is_empty());
    assert_eq!(letters(&system, &Filter::default()).await.len(), found.len());

    rewrite(&system, poisoned, "OrderPlaced", &payload).await;
    let taken_in = verb(&system, "redrive --all --projection waiting --by ann --json").await;
    let waiting = found.iter().find(|one| one.projection.as_deref() == Some("waiting")).unwrap().id;
    assert_eq!(String::from_utf8(taken_in.stdout).unwrap(), format!("{{\"redriven\":[\"{waiting}\"]}}\n"));
    let all = redrive(&system, &Filter::default()).await;
    assert_eq!((all.done.len(), all.left.len()), (found.len() - 1, 0));
    for letter in &found {
        let again = redrive(&system, &Filter { ids: Some(vec![letter.id]), ..Filter::default() }).await;
        assert_eq!(again, Resolved::default(), "once is enough");
        let seen_to = get(&system, letter.id).await;
        assert_eq!((seen_to.letter.state.as_str(), seen_to.resolutions.len()), ("redriven", 1));
        assert_eq!((&*seen_to.resolutions[0].resolved_by, seen_to.resolutions[0].why.as_deref()), ("ann", None));
    }
    assert!(parked(&system).await.is_empty());
    system.settle().await;
    assert_eq!(system.status(poisoned).await, "confirmed");
    assert_folded(&system).await;
}

/// Invariant 20, in the size in which it matters: of a thousand orders one waits, with what comes later for it.
#[tokio::test]
async fn invariant_20_of_a_thousand_orders_999_are_current_and_one_waits() {
    let mut system = System::start().await;
    let orders = append_orders(&system.parts.appender, 1000, 1, Origin::Live).await;
    let poisoned = orders[617];
    let payload = rewrite(&system, poisoned, "HoldPlaced", r#"{"hold": "none"}"#).await;
    system.project().await;
    let head = system.parts.log.head().await.unwrap();
    assert!(checkpoint::live(&system.parts.read).await.unwrap().iter().all(|(_, position)| *position == head));
    let versions = async || {
        let filter = order_summary::Filter { limit: 2000, ..order_summary::Filter::default() };
        let rows = order_summary::list(&system.parts.read, &filter).await.unwrap();
        rows.into_iter().map(|row| (row.order_id, row.version)).collect::<HashMap<_, _>>()
    };
    let version = |order: &OrderId| if *order == poisoned { 1 } else { 3 };
    let expected: HashMap<_, _> = orders.iter().map(|order| (order.0, version(order))).collect();
    assert_eq!(versions().await, expected);
    let waits = |p: &Projection| {
        [("HoldPlaced", false), ("HoldReleased", true)].map(|(event, waits)| (p.name().into(), event.into(), waits))
    };
    assert_eq!(parked(&system).await, by_order().iter().flat_map(waits).collect::<Vec<_>>());
    let found = letters(&system, &Filter::default()).await;
    assert!(found.len() == by_order().len() && found.iter().all(|letter| letter.target == poisoned.0), "{found:?}");

    rewrite(&system, poisoned, "HoldPlaced", &payload).await;
    let of_order = Filter { correlation_id: Some(poisoned.0), ..Filter::default() };
    // By two at once, and once more: it is taken in once.
    let (one, other) = tokio::join!(redrive(&system, &of_order), redrive(&system, &of_order));
    assert_eq!((one.done.len() + other.done.len(), one.left, other.left), (found.len(), vec![], vec![]));
    assert_eq!(redrive(&system, &of_order).await, Resolved::default());
    assert_eq!(parked(&system).await, []);
    assert!(versions().await.values().all(|version| *version == 3));
    assert_folded(&system).await;
}

/// A read model whose rows are made of what stands beside the payload takes in what cannot be read. A row of it that
/// cannot be written stops it alone, with the cause, until that is mended.
#[tokio::test]
async fn a_read_model_that_can_leave_nothing_out_stops_and_goes_on_when_it_is_mended() {
    let mut system = System::start().await;
    let index = Projection::ReadModel(ReadModel::EventIndex);
    assert_eq!(index.keyed_by(), KeyedBy::Nothing);
    let of_index = Filter { projection: Some(index.name().into()), ..Filter::default() };
    system.receive("mug", 10).await;
    let unreadable = system.place(order_of(&[("mug", 1, 1)])).await;
    let payload = rewrite(&system, unreadable, "OrderPlaced", "{}").await;
    system.project().await;
    assert_eq!(letters(&system, &of_index).await, []);
    let at = async |system: &System| {
        let status = status::projections(&system.parts.read).await.unwrap();
        let of_index = status.iter().find(|status| status.projection == index.name()).unwrap().clone();
        let others = status.into_iter().filter(|status| status.projection != index.name());
        (of_index.position, of_index.last_error, others.map(|other| other.position).min().unwrap())
    };
    assert_eq!(at(&system).await, (2, None, 2));

    let url = system.urls.database_url.clone();
    let order = new_order();
    let broken = format!("ALTER TABLE daybook.event_index ADD CONSTRAINT broken CHECK (key <> '{order}')");
    run(&url, &broken).await;
    system.receive("mug", 1).await;
    let place = order::Command::Place(order_of(&[("mug", 1, 1)]));
    system.execute(Command::Order { id: order, command: place }).await.unwrap();
    system.receive("mug", 1).await;
    system.relay().await;
    while system.feed.position() < 5 {
        system.feed.step().await.unwrap();
    }
    for (projector, projection) in system.projectors.iter_mut().zip(Projection::all()) {
        let last = loop {
            match projector.step().await {
                Ok(Outcome::Worked(_)) => {}
                last => break last,
            }
        };
        assert_eq!(last.is_err(), projection == index);
    }
    // What comes before is taken in.
    let (position, error, others) = at(&system).await;
    assert!(error.unwrap().contains("violates check constraint"));
    assert_eq!((position, others), (3, 5));
    assert_eq!(letters(&system, &of_index).await, []);
    run(&url, "ALTER TABLE daybook.event_index DROP CONSTRAINT broken").await;
    rewrite(&system, unreadable, "OrderPlaced", &payload).await;
    system.project().await;
    assert_eq!(redrive(&system, &Filter::default()).await.done.len(), by_order().len());
    assert_eq!(at(&system).await, (5, None, 5));
    assert_folded(&system).await;
}

#[tokio::test]
async fn what_comes_later_for_the_same_order_waits_in_order() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let (order, other) =
        (system.place(order_of(&[("mug", 1, 1)])).await, system.place(order_of(&[("mug", 2, 1)])).await);
    system.settle().await;
    let reason = HoldReason::Address;
    for order in [order, other] {
        told(&system, order, order::Command::PlaceHold { reason }).await;
        told(&system, order, order::Command::ReleaseHold { reason }).await;
    }
    let payload = rewrite(&system, order, "HoldPlaced", "{}").await;
    system.project().await;
    let two = |projection: &str| {
        [("HoldPlaced", false), ("HoldReleased", true)].map(|(event, waits)| (projection.into(), event.into(), waits))
    };
    let found = parked(&system).await;
    assert_eq!(found[..6], [two("follow_ups"), two("order_history"), two("order_summary")].concat());
    // Another process takes over, and knows it.
    for projector in &mut system.projectors {
        projector.end().await;
    }
    told(&system, order, order::Command::PlaceHold { reason: HoldReason::Fraud }).await;
    system.project().await;
    assert_eq!(system.status(order).await, "confirmed");
    let letter = letters(&system, &one(SUMMARY, order)).await.remove(0);
    assert_eq!((letter.event_type.as_str(), letter.waiting), ("HoldPlaced", Some(2)));

    rewrite(&system, order, "HoldPlaced", &payload).await;
    let all = redrive(&system, &Filter { correlation_id: Some(order.0), ..Filter::default() }).await;
    assert_eq!((all.done.len(), all.left.len()), (by_order().len(), 0));
    assert_eq!(system.status(order).await, "on_hold");
    // The owner goes on with the rows as they are now, not as it remembers them.
    told(&system, order, order::Command::ReleaseHold { reason: HoldReason::Fraud }).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "confirmed");
    assert_folded(&system).await;
}

/// A row that Postgres would not have is found among many, and parked with what it said.
#[tokio::test]
async fn a_row_that_cannot_be_written_is_found_in_its_batch() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    run(&system.urls.database_url, "ALTER TABLE daybook.order_summary ADD CONSTRAINT broken CHECK (total <> 3250)")
        .await;
    let mut orders = Vec::new();
    for quantity in [1, 2, 3, 4] {
        orders.push(system.place(order_of(&[("mug", quantity, 1)])).await);
    }
    system.settle().await;
    for order in [orders[0], orders[1], orders[3]] {
        assert_eq!(system.status(order).await, "confirmed");
    }
    let found = letters(&system, &Filter::default()).await;
    let [letter] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((letter.projection.as_deref(), letter.target), (Some("order_summary"), orders[2].0));
    assert!(letter.waiting > Some(2) && letter.reason.contains("violates check constraint"), "{letter:?}");
    // Its follow-ups were done all the same.
    assert!(system.events_of(orders[2]).await.contains(&"OrderConfirmed".to_owned()));
    let refused = redrive(&system, &Filter::default()).await;
    assert!(refused.left[0].1.contains("violates check constraint"), "{refused:?}");
    run(&system.urls.database_url, "ALTER TABLE daybook.order_summary DROP CONSTRAINT broken").await;
    assert_eq!(redrive(&system, &Filter::default()).await.done, [letter.id]);
    assert_eq!(system.status(orders[2]).await, "confirmed");
    system.settle().await;
    system.assert_verified().await;
}

/// Nobody will mend it: who said so and why is kept, and all goes on as if the event had not been, also what is rebuilt.
#[tokio::test]
async fn what_is_given_up_is_left_out_by_whoever_folds_the_log() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    told(&system, order, order::Command::PlaceHold { reason: HoldReason::Address }).await;
    let address_id = AddressId(Uuid::from_u128(0xB));
    system.execute(Command::ChangeAddress { id: order, address_id }).await.unwrap();
    rewrite(&system, order, "HoldPlaced", "{}").await;
    // Of rows from before, there are some to go back to.
    replayed(&system, ReadModel::OrderSummary, Mode::Switch).await.unwrap();
    system.settle().await;
    let waiting = letters(&system, &Filter::default()).await;
    assert_eq!(waiting.len(), by_order().len());
    assert_eq!(system.status(order).await, "confirmed");

    let of_order = Filter { correlation_id: Some(order.0), ..Filter::default() };
    // Twice at once: one of them gives it up.
    let (first, second) = tokio::join!(discard(&system, &of_order), discard(&system, &of_order));
    let mut done = [first.done, second.done].concat();
    let mut ids: Vec<Uuid> = waiting.iter().map(|letter| letter.id).collect();
    done.sort_unstable();
    ids.sort_unstable();
    assert_eq!(done, ids);
    assert_eq!((first.left, second.left), (vec![], vec![]));
    assert_eq!((parked(&system).await, letters(&system, &Filter::default()).await), (vec![], vec![]));
    let listed = verb(&system, "list --discarded").await;
    let table = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(table.lines().filter(|line| line.contains("  event  ")).count(), ids.len(), "{table}");
    let detail = verb(&system, &format!("show {}", waiting[0].id)).await;
    let shown = String::from_utf8(detail.stdout).unwrap();
    let (projection, since) = (waiting[0].projection.as_deref().unwrap(), waiting[0].since);
    assert!(shown.contains(&format!("\nprojection   {projection}, of {order}\n")), "{shown}");
    assert!(shown.contains("\nstate        discarded since ") && !shown.contains(&since.to_string()), "{shown}");
    assert!(shown.contains(" by ben: nobody needs it (its reason was: the HoldPlaced at position "), "{shown}");
    system.settle().await;
    for _ in 0..2 {
        assert_eq!(discard(&system, &of_order).await, Resolved::default());
        assert_eq!(
            redrive(&system, &Filter { ids: Some(ids.clone()), ..Filter::default() }).await,
            Resolved::default()
        );
        let given_up = letters(&system, &Filter { discarded: true, ..of_order.clone() }).await;
        assert_eq!(given_up.len(), ids.len());
        for letter in given_up {
            let before = waiting.iter().find(|before| before.id == letter.id).unwrap();
            let Detail { resolutions, letter: detail, act, .. } = get(&system, letter.id).await;
            assert_eq!((&detail, act), (&letter, None));
            assert_eq!((&*letter.state, &letter.reason, letter.waiting), ("discarded", &before.reason, None));
            let [resolution] = resolutions.as_slice() else { panic!("{resolutions:?}") };
            assert_eq!((&*resolution.outcome, &*resolution.resolved_by), ("discarded", "ben"));
            assert_eq!(resolution.why.as_deref(), Some("nobody needs it"));
            assert_eq!((resolution.parked_at, resolution.resolved_at), (Some(before.since), letter.since));
        }
        // What came after it is there, and nothing has followed from it.
        let types = "SELECT event_type FROM daybook.order_history WHERE order_id = $1 AND category = 'order'
                     AND generation = (SELECT generation FROM daybook.checkpoints
                                       WHERE projection = 'order_history' AND live)
                     ORDER BY position DESC LIMIT 2";
        let types: Vec<String> = query_scalar(types).bind(order.0).fetch_all(&system.parts.read).await.unwrap();
        assert_eq!(types, ["AddressChanged", "OrderConfirmed"]);
        assert_eq!(system.status(order).await, "confirmed");
        let held = "SELECT count(*) FROM daybook.follow_ups WHERE reaction = 'hold_shipment'";
        assert_eq!(query_scalar::<_, i64>(held).fetch_one(&system.parts.read).await.unwrap(), 0);
        let report = assert_folded(&system).await;
        let told = report.checks.iter().filter(|check| check.discarded == 1).count();
        assert_eq!(told, ids.len(), "{report}");
        assert!(report.to_string().contains("agrees, without 1 discarded"), "{report}");
        // The rows from before have it, or would have it parked.
        let undone = replayed(&system, ReadModel::OrderSummary, Mode::Undo).await;
        assert!(matches!(undone, Err(ReplayError::NothingKept(_))), "{undone:?}");
        for model in ReadModel::ALL.iter().copied() {
            assert_eq!(replayed(&system, model, Mode::Switch).await.unwrap(), 0, "{}", model.name());
        }
        // To these, one can go back.
        assert_eq!(replayed(&system, ReadModel::OrderSummary, Mode::Undo).await.unwrap(), 0);
        run(&system.urls.database_url, "UPDATE daybook.checkpoints SET kept = false WHERE NOT live").await;
    }
    // The owner goes on with the rows as they are now.
    told(&system, order, order::Command::ReleaseHold { reason: HoldReason::Address }).await;
    system.settle().await;
    assert_folded(&system).await;
}

/// Of several that cannot be taken in, each is seen to for itself; the others of the order wait for it.
#[tokio::test]
async fn whoever_sees_to_one_comes_to_the_next() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    for reason in [HoldReason::Address, HoldReason::Fraud, HoldReason::Manual] {
        told(&system, order, order::Command::PlaceHold { reason }).await;
    }
    let head = system.parts.log.head().await.unwrap();
    let mut payloads = Vec::new();
    for position in head - 2..=head {
        payloads.push(put(&system, position, "{}").await);
    }
    system.project().await;
    let of_order = Filter { correlation_id: Some(order.0), ..Filter::default() };
    for (left, payload) in [2, 1, 0].into_iter().zip(&payloads) {
        let waiting = letters(&system, &of_order).await;
        assert_eq!(waiting.len(), by_order().len());
        for letter in waiting {
            assert_eq!((letter.position, letter.waiting), (head - left, Some(left)));
            assert!(letter.reason.contains(&format!("at position {} ", head - left)), "{letter:?}");
        }
        assert_eq!(redrive(&system, &of_order).await.left.len(), by_order().len());
        let done = if left == 2 {
            discard(&system, &of_order).await.done
        } else {
            put(&system, head - left, payload).await;
            redrive(&system, &of_order).await.done
        };
        assert_eq!(done.len(), by_order().len());
    }
    assert_eq!((letters(&system, &of_order).await, system.status(order).await.as_str()), (vec![], "on_hold"));
    system.settle().await;
    assert_folded(&system).await;
}

/// Also if what comes next can be read, and not written: it is found among those that wait.
#[tokio::test]
async fn the_next_one_may_be_a_row_that_cannot_be_written() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    system.settle().await;
    told(&system, order, order::Command::PlaceHold { reason: HoldReason::Manual }).await;
    rewrite(&system, order, "HoldPlaced", "{}").await;
    run(
        &system.urls.database_url,
        "ALTER TABLE daybook.order_summary ADD CONSTRAINT broken CHECK (status <> 'cancelled')",
    )
    .await;
    let address_id = AddressId(Uuid::from_u128(0xB));
    system.execute(Command::ChangeAddress { id: order, address_id }).await.unwrap();
    let reason = CancelReason::CustomerRequest;
    system.execute(Command::CancelOrder { id: order, reason }).await.unwrap();
    system.project().await;
    let summary = one(SUMMARY, order);
    let behind = letters(&system, &summary).await[0].waiting.unwrap();
    assert_eq!(discard(&system, &summary).await.left, []);
    let next = letters(&system, &summary).await.remove(0);
    assert_eq!((next.event_type.as_str(), next.waiting), ("OrderCancelled", Some(behind - 2)));
    assert!(next.reason.contains("violates check constraint"), "{next:?}");
    let events = system.parts.log.read_positions(&[next.position]).await.unwrap();
    let row = order_views::order_summary::get(&system.parts.read, order.0).await.unwrap().unwrap();
    assert_eq!((&*row.status, row.version), ("confirmed", events[0].version - 1));
    run(&system.urls.database_url, "ALTER TABLE daybook.order_summary DROP CONSTRAINT broken").await;
    assert_eq!(redrive(&system, &Filter::default()).await.done, [next.id]);
    discard(&system, &Filter::default()).await;
    system.settle().await;
    assert_eq!(system.status(order).await, "cancelled: customer_request");
    assert_folded(&system).await;
}

/// Whoever began to rebuild before does not know it: what was built is void.
#[tokio::test]
async fn a_rebuild_that_has_begun_cannot_bring_back_what_is_given_up() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let order = system.place(order_of(&[("mug", 1, 1)])).await;
    rewrite(&system, order, "OrderPlaced", "{}").await;
    system.project().await;
    let (model, pool) = (ReadModel::OrderSummary, system.parts.project.clone());
    let events = system.parts.log.read_all(0, 100).await.unwrap();
    let last = events.last().unwrap().position;
    let events = events.into_iter().map(|event| codec::deliver::<Orders>(event).unwrap()).collect();
    let batch = Batch { events, proof: system.parts.log.end().await.unwrap() };
    let mut begun = Rebuild::begin(&pool, model, 1).await.unwrap();
    begun.apply(&pool, &batch, last).await.unwrap();
    begun.write(&pool).await.unwrap();
    assert_eq!(discard(&system, &one(SUMMARY, order)).await.done.len(), 1);
    let mut transaction = pool.begin().await.unwrap();
    assert!(begun.switch(&mut transaction).await.is_err());
    transaction.rollback().await.unwrap();
    assert_eq!(replayed(&system, model, Mode::Switch).await.unwrap(), 0);
    assert_eq!(letters(&system, &one(SUMMARY, order)).await, []);
    discard(&system, &Filter::default()).await;
    system.settle().await;
    assert_folded(&system).await;
}

/// What a replay meets that it cannot take in, it parks as live projecting does; and a row that Postgres would not have
/// does not keep the others from being rebuilt.
#[tokio::test]
async fn a_rebuild_parks_what_it_cannot_take_in_and_goes_on() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let mut orders = Vec::new();
    for quantity in [1, 2, 3, 4] {
        orders.push(system.place(order_of(&[("mug", quantity, 1)])).await);
        system.settle().await;
    }
    let (unwanted, unreadable) = (orders[2], orders[3]);
    // The row is there, and may not be written again.
    let url = system.urls.database_url.clone();
    run(&url, "ALTER TABLE daybook.order_summary ADD CONSTRAINT broken CHECK (total <> 3250) NOT VALID").await;
    let payload = rewrite(&system, unreadable, "OrderConfirmed", "[]").await;
    let rebuild = async |system: &System| {
        let (log, project) = (&system.parts.log, &system.parts.project);
        let replayed = replay(log, project, ReadModel::OrderSummary, Mode::Switch, |_, _| {}).await.unwrap();
        let compared = replayed.compared.unwrap();
        (compared.missing, compared.surplus, compared.different)
    };
    assert_eq!(rebuild(&system).await, (0, 1, 1));
    assert_eq!(
        (system.status(orders[0]).await, system.status(orders[1]).await),
        ("confirmed".into(), "confirmed".into())
    );
    assert!(order_summary::get(&system.parts.read, unwanted.0).await.unwrap().is_none());
    assert_eq!(system.status(unreadable).await, "placed");
    let mut found = letters(&system, &Filter::default()).await;
    found.sort_by_key(|letter| letter.position);
    assert_eq!(found.iter().map(|letter| letter.target).collect::<Vec<_>>(), [unwanted.0, unreadable.0]);
    assert!(found.iter().all(|letter| letter.projection.as_deref() == Some("order_summary")), "{found:?}");
    assert!(found[0].reason.contains("violates check constraint"), "{found:?}");
    // Once more it comes to the same, and what is new is taken in.
    let before = parked(&system).await;
    let other = system.place(order_of(&[("mug", 5, 1)])).await;
    system.settle().await;
    assert_eq!(rebuild(&system).await, (0, 0, 0));
    assert_eq!(parked(&system).await, before);
    assert_eq!(system.status(other).await, "confirmed");

    run(&url, "ALTER TABLE daybook.order_summary DROP CONSTRAINT broken").await;
    rewrite(&system, unreadable, "OrderConfirmed", &payload).await;
    assert_eq!(redrive(&system, &Filter::default()).await.done.len(), 2);
    assert_folded(&system).await;
}

/// The rows from before a replay lack what was parked when they were live; when they are live again, it is parked again.
#[tokio::test]
async fn what_was_mended_since_is_parked_again_when_a_replay_is_undone() {
    let mut system = System::start().await;
    system.receive("mug", 100).await;
    let (order, other) =
        (system.place(order_of(&[("mug", 1, 1)])).await, system.place(order_of(&[("mug", 2, 1)])).await);
    let payload = rewrite(&system, order, "OrderPlaced", "{}").await;
    system.project().await;
    let (found, before) = (parked(&system).await, letters(&system, &one(SUMMARY, order)).await);
    replayed(&system, ReadModel::OrderSummary, Mode::Switch).await.unwrap();
    assert_eq!(parked(&system).await, found);
    rewrite(&system, order, "OrderPlaced", &payload).await;
    assert_eq!(redrive(&system, &Filter::default()).await.done.len(), by_order().len());
    system.settle().await;
    assert_folded(&system).await;

    replayed(&system, ReadModel::OrderSummary, Mode::Undo).await.unwrap();
    assert_eq!(system.status(other).await, "confirmed");
    let again = letters(&system, &Filter::default()).await;
    let [letter] = again.as_slice() else { panic!("{again:?}") };
    assert!(letter.waiting > Some(0), "{letter:?}");
    assert_eq!([DeadLetter { waiting: Some(0), ..letter.clone() }], *before);
    assert_eq!(redrive(&system, &one(SUMMARY, order)).await.done, [letter.id]);
    assert_eq!(system.status(order).await, "confirmed");
    assert_folded(&system).await;
    // And back again, to rows that never lacked it.
    replayed(&system, ReadModel::OrderSummary, Mode::Undo).await.unwrap();
    assert_eq!(parked(&system).await, []);
    assert_folded(&system).await;
}

/// Whatever type of event is left out, both folds of what is left come out the same.
#[tokio::test]
async fn the_second_opinion_agrees_whatever_is_given_up() {
    let mut system = System::start().await;
    let placed =
        order::PlaceOrder { backorder: true, approval_within_seconds: Some(3600), ..order_of(&[("mug", 2, 1)]) };
    let order = system.place(placed).await;
    system.settle().await;
    system.receive("mug", 5).await;
    for command in [
        order::Command::PlaceHold { reason: HoldReason::Fraud },
        order::Command::GrantApproval { approval: 1 },
        order::Command::ReleaseHold { reason: HoldReason::Fraud },
    ] {
        system.settle().await;
        told(&system, order, command).await;
    }
    system.settle().await;
    system.ship(order).await;
    for command in [
        order::Command::RequestReturn {
            lines: vec![ReturnLine { line: 1, quantity: 2 }],
            reason: ReturnReason::Unwanted,
        },
        order::Command::ApproveReturn { return_no: 1 },
        order::Command::ReceiveReturn {
            return_no: 1,
            receipt_id: ReceiptId(Uuid::nil()),
            lines: vec![ReceivedLine { line: 1, quantity: 2, usable: 1 }],
        },
    ] {
        told(&system, order, command).await;
    }
    system.settle().await;
    let models =
        ReadModel::ALL.iter().copied().filter(|model| Projection::ReadModel(*model).keyed_by() != KeyedBy::Nothing);
    let models: Vec<ReadModel> = models.collect();
    let names = models.iter().map(|model| model.name()).collect::<Vec<_>>().join("', '");
    let types: Vec<String> = query_scalar("SELECT DISTINCT event_type FROM daybook.events ORDER BY 1")
        .fetch_all(&system.parts.read)
        .await
        .unwrap();
    assert!(types.len() > 25, "{types:?}");
    for left_out in types {
        let decided = format!(
            "DELETE FROM daybook.resolutions;
             INSERT INTO daybook.resolutions (dead_letter, outcome, resolved_by, why, projection, position, key)
             SELECT gen_random_uuid(), 'discarded', 'ben', 'to see', projection, position, stream_id
             FROM daybook.events CROSS JOIN unnest(ARRAY['{names}']) AS p (projection) WHERE event_type = '{left_out}'"
        );
        run(&system.urls.database_url, &decided).await;
        for model in &models {
            replayed(&system, *model, Mode::Switch).await.unwrap();
        }
        let report = verify(&system.parts.read, None, Duration::ZERO).await.unwrap();
        assert!(report.agrees(), "without {left_out}: {report}");
    }
}

#[tokio::test]
async fn a_paused_projection_stands_still_until_it_is_resumed() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.project().await;
    assert!(checkpoint::pause(&system.parts.project, "stock_level", true).await.unwrap());
    assert!(!checkpoint::pause(&system.parts.project, "no_such", true).await.unwrap());
    system.receive("mug", 1).await;
    system.relay().await;
    let head = system.parts.log.head().await.unwrap();
    while system.feed.position() < head {
        system.feed.step().await.unwrap();
    }
    let stock = &mut system.projectors[1];
    assert_eq!(stock.name(), "stock_level");
    // It looks when it renews its lease.
    stock.end().await;
    assert_eq!(stock.step().await.unwrap(), Outcome::Idle);
    let level = async |system: &System| {
        order_views::stock_level::get(&system.parts.read, "mug").await.unwrap().unwrap().on_hand
    };
    assert_eq!(level(&system).await, 1);
    // It does not keep others from it either.
    let other = lease::acquire(&system.parts.project, "stock_level", uuid::Uuid::now_v7()).await.unwrap().unwrap();
    lease::release(&system.parts.project, &other).await.unwrap();
    // Nor does a replay end the pause; it comes to where the live rows stand.
    let model = ReadModel::StockLevel;
    let replayed = replay(&system.parts.log, &system.parts.project, model, Mode::Switch, |_, _| {}).await.unwrap();
    assert_eq!((replayed.switched, replayed.position), (true, 1));
    assert_eq!(system.projectors[1].step().await.unwrap(), Outcome::Idle);
    checkpoint::pause(&system.parts.project, "stock_level", false).await.unwrap();
    system.project().await;
    assert_eq!(level(&system).await, 2);
    system.assert_verified().await;
}
