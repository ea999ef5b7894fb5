//! `daybook verify` finds what breaks the promises of the business (invariants 21 to 25), by the check that it breaks and
//! by no other of them; and it finds nothing in a system that is still in motion.
//!
//! Nothing in Daybook can write such events; here the superuser rewrites the log.

use crate::harness::{System, card, id, order_of};
use order_services::verify::{Check, Report, verify, verify_sample};
use orders::id::{OrderId, ReceiptId, SellerId, Sku};
use orders::money::Amount;
use orders::order::{
    CancelReason, PlaceLine, PlaceOrder, PlacePayment, ProposeEdit, ReceivedLine, ReturnLine, ReturnReason,
    SellerShipping,
};
use orders::{Command, order};
use runtime::process::Context;
use runtime::step::{Outcome, Step};
use sqlx::{AssertSqlSafe, PgPool, query_scalar};
use std::time::Duration;
use uuid::Uuid;

const BUSINESS: [&str; 5] = ["reserved stock", "payment amounts", "order totals", "shipped pieces", "order ends"];

/// A system at rest, in which all is as it must be.
struct Story {
    system: System,
    superuser: PgPool,
    /// Two mugs from one seller, a hat from another one, for 32.50 EUR by one card. One mug came back, and was refunded.
    completed: OrderId,
    /// A mug, reserved and paid, and then cancelled.
    cancelled: OrderId,
    /// Paid by two cards, of which one was declined.
    rejected: OrderId,
    /// Confirmed, and not shipped: a mug and a hat at first, then three mugs for the hat, then without the first mug.
    changed: OrderId,
}

impl Story {
    async fn start() -> Self {
        let mut system = System::start().await;
        system.receive("mug", 9).await;
        system.receive("hat", 2).await;
        let completed = system.place(order_of(&[("mug", 2, 1), ("hat", 1, 2)])).await;
        let cancelled = system.place(order_of(&[("mug", 1, 1)])).await;
        let mut by_two_cards = order_of(&[("mug", 1, 1)]);
        by_two_cards.payments[0].amount = Amount(250);
        by_two_cards.payments.push(PlacePayment { method: card("tok_decline"), amount: Amount(1000) });
        let rejected = system.place(by_two_cards).await;
        let changed = system.place(order_of(&[("mug", 1, 1), ("hat", 1, 1)])).await;
        system.settle().await;
        system.ship(completed).await;
        let superuser = system.superuser().await;
        let mut story = Self { system, superuser, completed, cancelled, rejected, changed };
        story.come_to_their_ends().await;
        story
    }

    async fn come_to_their_ends(&mut self) {
        let Self { completed, cancelled, changed, .. } = *self;
        let reason = CancelReason::CustomerRequest;
        self.does(Command::CancelOrder { id: cancelled, reason }).await;
        let (line, quantity) = (1, 1);
        for command in [
            order::Command::RequestReturn {
                lines: vec![ReturnLine { line, quantity }],
                reason: ReturnReason::Unwanted,
            },
            order::Command::ApproveReturn { return_no: 1 },
            order::Command::ReceiveReturn {
                return_no: 1,
                receipt_id: ReceiptId(Uuid::nil()),
                lines: vec![ReceivedLine { line, quantity, usable: 1 }],
            },
        ] {
            self.does(Command::Order { id: completed, command }).await;
        }
        let seller_id = SellerId(id(1));
        let mugs = PlaceLine {
            sku: Sku::new("mug").unwrap(),
            seller_id,
            quantity: 3,
            unit_price: Amount(1000),
            discount: Amount(30),
            tax: Amount(7),
        };
        let edit = ProposeEdit {
            remove: vec![2],
            add: vec![mugs],
            shipping: vec![SellerShipping { seller_id, amount: Amount(250) }],
            payments: vec![PlacePayment { method: card("tok_approve_more"), amount: Amount(4227 - 2250) }],
        };
        self.does(Command::Order { id: changed, command: order::Command::ProposeEdit(edit) }).await;
        self.does(Command::ConfirmEdit { id: changed, edit: 1 }).await;
        self.does(Command::CancelLines { id: changed, lines: vec![1], reason }).await;
        for (order, status) in [
            (completed, "completed"),
            (cancelled, "cancelled: customer_request"),
            (self.rejected, "rejected: card declined"),
            (changed, "confirmed"),
        ] {
            assert_eq!(self.system.status(order).await, status);
        }
        self.system.assert_verified().await;
        for report in [self.report().await, self.sample().await] {
            // All but the levels of stock are of orders.
            let checked = |check: &&Check| check.checked > 0 || check.name == "reserved stock";
            assert!(business(&report).iter().all(checked), "{report}");
        }
        self.sql("CREATE TABLE public.kept AS TABLE daybook.events").await;
    }

    async fn does(&mut self, command: Command) {
        assert!(self.system.execute(command).await.unwrap().recorded);
        self.system.settle().await;
    }

    async fn sql(&self, sql: impl Into<String>) {
        let sql = sql.into();
        let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&self.superuser).await;
        assert!(done.unwrap_or_else(|e| panic!("{sql}: {e}")).rows_affected() > 0, "changed nothing: {sql}");
    }

    /// Changes the log, as only its owner can who takes the trigger away first.
    async fn forge(&self, sql: &str) {
        self.sql(format!(
            "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
             {sql};
             ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only"
        ))
        .await;
    }

    /// The log as it was.
    async fn put_back(&self) {
        self.forge("DELETE FROM daybook.events; INSERT INTO daybook.events TABLE public.kept").await;
    }

    /// The position of the first event of a type of which this is so, in SQL.
    async fn find(&self, event_type: &str, condition: &str) -> i64 {
        let first =
            format!("SELECT min(position) FROM daybook.events WHERE event_type = '{event_type}' AND {condition}");
        let first = query_scalar::<_, Option<i64>>(AssertSqlSafe(first)).fetch_one(&self.superuser).await.unwrap();
        first.unwrap_or_else(|| panic!("there is no {event_type} with {condition}"))
    }

    /// The position of an order's first event of a type.
    async fn first(&self, order: OrderId, event_type: &str) -> i64 {
        self.find(event_type, &format!("correlation_id = '{order}'")).await
    }

    /// Gives what is at `path` in the payload of an order's first event of a type another value, which is JSON.
    async fn put(&self, order: OrderId, event_type: &str, path: &str, value: &str) {
        self.put_at(self.first(order, event_type).await, path, value).await;
    }

    async fn put_at(&self, position: i64, path: &str, value: &str) {
        self.forge(&format!(
            "UPDATE daybook.events SET payload = jsonb_set(payload::jsonb, '{{{path}}}', '{value}')::json
             WHERE position = {position}"
        ))
        .await;
    }

    /// Makes an order's first event of a type one of another type.
    async fn rename(&self, order: OrderId, event_type: &str, other: &str) {
        let position = self.first(order, event_type).await;
        self.forge(&format!("UPDATE daybook.events SET event_type = '{other}' WHERE position = {position}")).await;
    }

    /// Writes an order's first event of a type once more at the end of the log, with these changes.
    async fn again(&self, order: OrderId, event_type: &str, changes: &str) {
        self.again_at(self.first(order, event_type).await, changes).await;
    }

    async fn again_at(&self, position: i64, changes: &str) {
        self.sql(format!(
            "CREATE TEMP TABLE again AS SELECT * FROM daybook.events WHERE position = {position};
             UPDATE again SET position = (SELECT max(position) + 1 FROM daybook.events), version = version + 1000,
                              event_id = gen_random_uuid(), command_id = gen_random_uuid();
             UPDATE again SET {changes};
             INSERT INTO daybook.events TABLE again;
             DROP TABLE again"
        ))
        .await;
    }

    /// Without JetStream, which still has every event as it was.
    async fn report(&self) -> Report {
        verify(&self.system.parts.read, None, Duration::ZERO).await.unwrap()
    }

    /// Of more orders than there are, so that each is drawn.
    async fn sample(&self) -> Report {
        let Context { read, log, .. } = &self.system.parts;
        verify_sample(read, log, 100).await.unwrap()
    }

    /// That of the promises of the business this one is broken, as it says, and no other; and none once that is undone.
    async fn assert_only(&self, damage: &str, check: &str, words: &str) {
        let report = self.report().await;
        let broken: Vec<&str> = business(&report).iter().filter(|c| !c.agrees()).map(|c| c.name).collect();
        assert_eq!(broken, [check], "{damage}: {report}");
        let sample = self.sample().await;
        let broken: Vec<&str> = business(&sample).iter().filter(|c| !c.agrees()).map(|c| c.name).collect();
        // How much there is of a SKU is not told by some orders.
        let is_of_orders = !words.ends_with(" on hand");
        assert_eq!(broken, [check][..usize::from(is_of_orders)], "{damage}, in a sample: {sample}");
        let of = report.checks.iter().find(|c| c.name == check).unwrap();
        assert!(of.differences.iter().any(|told| told.contains(words)), "{damage} is not {words:?}: {report}");
        self.put_back().await;
        self.assert_kept().await;
    }

    /// Does everything that follows, and looks in between.
    async fn settle_and_look(&mut self) {
        loop {
            self.assert_kept().await;
            self.system.project().await;
            self.assert_kept().await;
            if !matches!(self.system.sender.step().await.unwrap(), Outcome::Worked(_)) {
                return;
            }
        }
    }

    /// That all promises of the business are kept.
    async fn assert_kept(&self) {
        for report in [self.report().await, self.sample().await] {
            assert!(business(&report).iter().all(|check| check.agrees()), "{report}");
        }
    }
}

fn business(report: &Report) -> Vec<&Check> {
    let found: Vec<&Check> = report.checks.iter().filter(|check| BUSINESS.contains(&check.name)).collect();
    assert_eq!(found.iter().map(|check| check.name).collect::<Vec<_>>(), BUSINESS);
    found
}

#[tokio::test]
async fn invariant_21_more_reserved_than_on_hand_is_found() {
    let story = Story::start().await;
    let (completed, cancelled, check) = (story.completed, story.cancelled, "reserved stock");
    let received = "event_type = 'StockReceived' AND payload ->> 'sku' = 'hat'";
    story
        .forge(&format!("UPDATE daybook.events SET payload = '{{\"sku\":\"hat\",\"quantity\":1}}' WHERE {received}"))
        .await;
    story.assert_only("too few came in", check, "2 pieces of hat are reserved and 1 on hand").await;
    let adjusted = "event_type = 'StockAdjusted', payload = '{\"sku\":\"hat\",\"by\":-1,\"reason\":\"count\"}'";
    story.forge(&format!("UPDATE daybook.events SET {adjusted} WHERE {received}")).await;
    story.assert_only("an adjustment", check, "0 pieces of hat are reserved and -1 on hand").await;
    story.again(completed, "StockCommitted", "version = version").await;
    story.assert_only("out twice", check, &format!("for line 1 of order {completed}, which holds 0")).await;
    story.put(cancelled, "StockReleased", "lines,0,quantity", "2").await;
    let words = format!("a StockReleased of 2 pieces for line 1 of order {cancelled}, which holds 1");
    story.assert_only("too many go back", check, &words).await;
    let of_edit = story.find("StockReserved", "payload ->> 'edit' = '1'").await;
    story.again_at(of_edit, "version = version").await;
    let words = format!("reserves line 3 of order {}, which holds 3 pieces already", story.changed);
    story.assert_only("reserved twice", check, &words).await;
}

/// Invariants 21 and 25.
#[tokio::test]
async fn invariant_21_a_reservation_that_does_not_end_is_found() {
    let story = Story::start().await;
    let (cancelled, completed, check) = (story.cancelled, story.completed, "order ends");
    story.rename(cancelled, "StockReleased", "BackorderDropped").await;
    let words = format!("order {cancelled} is cancelled, and 1 pieces are reserved for it");
    story.assert_only("never released", check, &words).await;
    story.rename(completed, "StockCommitted", "BackorderDropped").await;
    let words = format!("order {completed} is completed, and ");
    story.assert_only("never committed", check, &words).await;
}

#[tokio::test]
async fn invariant_22_more_captured_than_authorised_is_found() {
    let story = Story::start().await;
    let (completed, check) = (story.completed, "payment amounts");
    story.put(completed, "PaymentAuthorised", "amount", "3249").await;
    let words = "of which 3249 is authorised and ";
    story.assert_only("too little authorised", check, words).await;
    story.put(completed, "PaymentAuthorised", "amount", "3251").await;
    story.assert_only("too much authorised", check, "of which 3250 was asked for").await;
    story.again(completed, "PaymentCaptured", "version = version").await;
    story.assert_only("captured twice", check, " once more").await;
    // Under another id it is another capture.
    let other = "payload = jsonb_set(payload::jsonb, '{capture_id}', to_jsonb(event_id))::json";
    story.again(completed, "PaymentCaptured", other).await;
    story.assert_only("one capture more", check, "of which 3250 is authorised and 3250 captured before").await;
    // The money was let go.
    let of_cancelled = format!(
        "SELECT stream_id FROM public.kept WHERE event_type = 'PaymentVoided' AND correlation_id = '{}'",
        story.cancelled
    );
    story.again(completed, "PaymentCaptured", &format!("stream_id = ({of_cancelled})")).await;
    story.assert_only("captured of what is let go", check, "of which 0 is authorised and 0 captured before").await;
    story.put(completed, "PaymentCaptured", "amount", "-1").await;
    story.assert_only("less than nothing", check, "the PaymentCaptured at position ").await;
}

#[tokio::test]
async fn invariant_22_more_refunded_than_captured_is_found() {
    let story = Story::start().await;
    let (completed, check) = (story.completed, "payment amounts");
    story.put(completed, "PaymentRefunded", "amount", "2251").await;
    story.assert_only("too much", check, "of which 2250 is captured and 0 given back before").await;
    story.put(completed, "PaymentRefunded", "capture_id", &format!("\"{}\"", Uuid::nil())).await;
    story.assert_only("of no capture", check, "of which 0 is captured and 0 given back before").await;
    story.again(completed, "PaymentRefunded", "version = version").await;
    story.assert_only("twice", check, " back once more").await;
}

#[tokio::test]
async fn invariant_23_an_order_that_does_not_add_up_is_found() {
    let story = Story::start().await;
    let (completed, changed, check) = (story.completed, story.changed, "order totals");
    for (event_type, order, path, name) in [
        ("OrderPlaced", completed, "lines,0,unit_price", "goods"),
        ("OrderPlaced", completed, "lines,1,quantity", "goods"),
        ("OrderPlaced", completed, "lines,1,discount", "discount"),
        ("OrderPlaced", completed, "lines,0,tax", "tax"),
        ("OrderPlaced", completed, "shipping,0,amount", "shipping"),
        ("OrderPlaced", completed, "totals,total", "total"),
        ("EditProposed", changed, "add,0,discount", "discount"),
        ("EditProposed", changed, "totals,tax", "tax"),
        ("EditConfirmed", changed, "totals,goods", "goods"),
        ("EditConfirmed", changed, "totals,total", "total"),
        ("LinesCancelled", changed, "totals,total", "total"),
    ] {
        // Of two hats where one is ordered, as many pieces can be shipped as were.
        story.put(order, event_type, path, "3").await;
        let words = format!(": {name} of order {order} is ");
        story.assert_only(&format!("{event_type} {path}"), check, &words).await;
    }
    // A version that is no longer written says the same.
    let position = story.first(completed, "OrderPlaced").await;
    story.forge(&format!("UPDATE daybook.events SET schema_version = 1 WHERE position = {position}")).await;
    story.assert_kept().await;
    story.put(completed, "OrderPlaced", "totals,total", "3").await;
    story.assert_only("version 1", check, &format!(": total of order {completed} is 3, its lines come to 3250")).await;
}

#[tokio::test]
async fn invariant_23_payments_that_are_not_what_is_owed_are_found() {
    let story = Story::start().await;
    let (completed, changed, check) = (story.completed, story.changed, "order totals");
    story.put(completed, "OrderPlaced", "payments,0,amount", "3249").await;
    let words = format!("the payments of order {completed} add up to 3249, and it costs 3250");
    story.assert_only("too little asked", check, &words).await;
    story.put(completed, "PaymentRequested", "amount", "3251").await;
    story.assert_only("another amount asked", check, " asks 3251 of ").await;
    story.put(changed, "EditProposed", "payments,0,amount", "1").await;
    let words = format!("asks 1 for an edit of order {changed}, for which 1977 is missing");
    story.assert_only("too little for an edit", check, &words).await;
}

#[tokio::test]
async fn invariant_24_more_shipped_than_ordered_is_found() {
    let story = Story::start().await;
    let (completed, check) = (story.completed, "shipped pieces");
    let of_mugs = format!("correlation_id = '{completed}' AND payload -> 'lines' -> 0 ->> 'sku' = 'mug'");
    let of_mugs = story.find("ShipmentDispatched", &of_mugs).await;
    story.put_at(of_mugs, "lines,0,quantity", "3").await;
    let words = format!("3 pieces of line 1 of order {completed} are shipped, and 2 ordered and not cancelled");
    story.assert_only("too many", check, &words).await;
    story.again_at(of_mugs, "version = version").await;
    let words = format!("4 pieces of line 1 of order {completed} are shipped, and 2 ordered and not cancelled");
    story.assert_only("twice", check, &words).await;
    // Of an order that was cancelled, of a line that was cancelled, of one that was edited away.
    for (order, line) in [(story.cancelled, 1), (story.changed, 1), (story.changed, 2)] {
        let lines = format!("[{{\"line\":{line},\"sku\":\"mug\",\"quantity\":1}}]");
        let of_order = format!("{{\"order_id\":\"{order}\",\"lines\":{lines}}}");
        story.again_at(of_mugs, &format!("payload = (payload::jsonb || '{of_order}')::json")).await;
        let words = format!("1 pieces of line {line} of order {order} are shipped, and 0 ordered and not cancelled");
        story.assert_only("of what was cancelled", check, &words).await;
    }
}

#[tokio::test]
async fn invariant_24_more_returned_than_shipped_is_found() {
    let story = Story::start().await;
    let (completed, check) = (story.completed, "shipped pieces");
    story.put(completed, "ReturnReceived", "lines,0,quantity", "3").await;
    let words = format!("3 pieces of line 1 of order {completed} came back, of 2");
    story.assert_only("too many", check, &words).await;
    let lost = "event_type = 'LinesLost', payload = '{\"lines\":[1]}'";
    story.again(completed, "ReturnReceived", lost).await;
    story.assert_only("lost as well", check, &words).await;
}

#[tokio::test]
async fn invariant_25_an_order_that_waits_for_nobody_is_found() {
    let story = Story::start().await;
    let open = story.changed;
    story.rename(open, "OrderConfirmed", "AddressChanged").await;
    // Its money and its stock are held for a time.
    story.assert_kept().await;
    story.sql(format!("DELETE FROM daybook.timers WHERE correlation_id = '{open}'")).await;
    story.assert_only("no timer", "order ends", &format!("order {open} has not ended, and waits for nobody")).await;
}

#[tokio::test]
async fn invariant_25_money_of_an_order_that_was_called_off_is_found() {
    let story = Story::start().await;
    let (cancelled, rejected, check) = (story.cancelled, story.rejected, "order ends");
    story.rename(cancelled, "PaymentVoided", "VoidDeclined").await;
    story.assert_only("held", check, &format!("order {cancelled} is cancelled, and 1250 of its money is held")).await;
    story.rename(rejected, "PaymentVoided", "VoidDeclined").await;
    story.assert_only("held", check, &format!("order {rejected} is rejected, and 250 of its money is held")).await;
    let captured = format!(
        "{{\"order_id\":\"{cancelled}\",\"capture_id\":\"{cancelled}\",\"amount\":1000,\"left\":250,\
           \"currency\":\"EUR\",\"reference\":\"forged\"}}"
    );
    let position = story.first(cancelled, "VoidRequested").await;
    story
        .forge(&format!(
            "UPDATE daybook.events SET event_type = 'PaymentCaptured', payload = '{captured}' WHERE position = {position}"
        ))
        .await;
    story.assert_only("taken", check, &format!("order {cancelled} is cancelled, and 1000 of its money is taken")).await;
}

/// What somebody can see, or will be done by itself, is no difference.
#[tokio::test]
async fn an_order_of_which_something_is_due_or_was_not_done_is_not_judged() {
    let story = Story::start().await;
    let cancelled = story.cancelled;
    story.rename(cancelled, "StockReleased", "BackorderDropped").await;
    for state in ["due", "parked", "discarded"] {
        let set = |from: &str, to: &str| {
            format!(
                "UPDATE daybook.follow_ups SET state = '{to}'
                 WHERE correlation_id = '{cancelled}' AND reaction = 'release_stock' AND state = '{from}'"
            )
        };
        story.sql(set("accepted", state)).await;
        story.assert_kept().await;
        story.sql(set(state, "accepted")).await;
    }
    for projection in ["follow_ups", "timers"] {
        let set = |by: &str| {
            format!("UPDATE daybook.checkpoints SET position = {by} WHERE projection = '{projection}' AND live")
        };
        let at = story.first(cancelled, "OrderCancelled").await;
        story.sql(set(&at.to_string())).await;
        story.assert_kept().await;
        story.sql(set("(SELECT max(position) FROM daybook.events)")).await;
    }
    story.sql(format!("UPDATE daybook.log SET imported_to = {}", story.first(cancelled, "OrderPlaced").await)).await;
    story.assert_kept().await;
    story.sql("UPDATE daybook.log SET imported_to = 0").await;
    story.assert_only("at rest", "order ends", &format!("order {cancelled} is cancelled, and 1 pieces")).await;
}

/// An event that cannot be read is a difference, until somebody has given it up; and nothing is said of what it was about.
#[tokio::test]
async fn what_cannot_be_read_is_told_until_it_is_given_up() {
    let story = Story::start().await;
    for (event_type, expected) in [
        ("StockReserved", vec!["reserved stock", "order ends"]),
        ("PaymentCaptured", vec!["payment amounts", "order ends"]),
        ("OrderPlaced", vec!["order totals", "shipped pieces"]),
        ("ReturnReceived", vec!["shipped pieces"]),
    ] {
        let position = story.first(story.completed, event_type).await;
        let unreadable =
            if event_type.starts_with("Order") || event_type.starts_with("Return") { "{}" } else { "{\"order_id\":7}" };
        story.forge(&format!("UPDATE daybook.events SET payload = '{unreadable}' WHERE position = {position}")).await;
        let report = story.report().await;
        let words = format!("the {event_type} at position {position} cannot be folded");
        for check in business(&report) {
            let told: Vec<&str> = check.differences.iter().map(String::as_str).collect();
            let is_told = expected.contains(&check.name);
            assert_eq!(told, if is_told { vec![words.as_str()] } else { vec![] }, "{report}");
        }
        story
            .sql(format!(
                "INSERT INTO daybook.resolutions (dead_letter, outcome, resolved_by, why, projection, position, key)
                 SELECT event_id, 'discarded', 'ann', 'to see', 'order_summary', position, stream_id
                 FROM daybook.events WHERE position = {position}"
            ))
            .await;
        story.assert_kept().await;
        story.sql("DELETE FROM daybook.resolutions").await;
        story.put_back().await;
    }
}

/// Whenever one looks: with events that nothing has reacted to yet, and with follow-ups that are due.
#[tokio::test]
async fn a_system_in_motion_breaks_no_promise_at_any_moment() {
    let mut story = Story::start().await;
    let cancelled = story.system.place(order_of(&[("mug", 1, 1)])).await;
    story.system.place(order_of(&[("hat", 9, 2)])).await;
    // What costs nothing has no timer: until its stock is reserved, only what is due moves it on.
    let mut free = PlaceOrder { shipping: vec![], payments: vec![], ..order_of(&[("mug", 1, 1), ("hat", 1, 2)]) };
    free.lines.iter_mut().for_each(|line| line.unit_price = Amount::ZERO);
    let free = story.system.place(free).await;
    story.settle_and_look().await;
    assert_eq!(story.system.status(free).await, "confirmed");
    // It has money and stock until what follows is done.
    let reason = CancelReason::CustomerRequest;
    story.system.execute(Command::CancelOrder { id: cancelled, reason }).await.unwrap();
    story.settle_and_look().await;
    story.system.ship(free).await;
    story.assert_kept().await;
    story.system.assert_verified().await;
}
