//! `daybook verify` finds what is not as the log says, whatever was changed, and names it.
//!
//! Nothing in Daybook can do such damage; here the superuser does it, who may do anything.

use crate::harness::{System, card, daybook_on, order_of};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Config;
use engine::dead_letter::{Decision, Filter};
use order_services::verify::{Report, verify, verify_sample};
use order_views::Orders;
use order_views::Projection;
use orders::Command;
use orders::id::OrderId;
use orders::money::Amount;
use orders::order::{CancelReason, PlacePayment};
use runtime::dead_letters::resolve;
use runtime::process::jetstream;
use runtime::subject::STREAM;
use sqlx::{AssertSqlSafe, PgPool, query_as, query_scalar};
use std::time::Duration;
use uuid::Uuid;

/// A system at rest, with an order for each way to end and one that waits, in which all is as it must be.
struct AtRest {
    system: System,
    superuser: PgPool,
    completed: OrderId,
    declined: OrderId,
    short: OrderId,
    cancelled: OrderId,
}

impl AtRest {
    async fn start() -> Self {
        let mut system = System::start().await;
        system.receive("mug", 9).await;
        system.receive("hat", 1).await;
        let completed = system.place(order_of(&[("mug", 2, 1), ("hat", 1, 2)])).await;
        let mut by_two_cards = order_of(&[("mug", 1, 1)]);
        by_two_cards.payments[0].amount = Amount(250);
        by_two_cards.payments.push(PlacePayment { method: card("tok_decline"), amount: Amount(1000) });
        let declined = system.place(by_two_cards).await;
        let cancelled = system.place(order_of(&[("mug", 1, 1)])).await;
        system.place(order_of(&[("mug", 1, 3)])).await;
        system.settle().await;
        let short = system.place(order_of(&[("mug", 1, 1), ("hat", 2, 1)])).await;
        let cancel = Command::CancelOrder { id: cancelled, reason: CancelReason::CustomerRequest };
        system.execute(cancel).await.unwrap();
        system.settle().await;
        system.ship(completed).await;
        for (order, status) in [
            (completed, "completed"),
            (declined, "rejected: card declined"),
            (short, "cancelled: out_of_stock"),
            (cancelled, "cancelled: customer_request"),
        ] {
            assert_eq!(system.status(order).await, status);
        }
        system.assert_verified().await;
        let superuser = system.superuser().await;
        Self { system, superuser, completed, declined, short, cancelled }
    }

    fn orders(&self) -> [OrderId; 4] {
        [self.completed, self.declined, self.short, self.cancelled]
    }

    async fn sql(&self, sql: impl Into<String>) {
        let sql = sql.into();
        let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&self.superuser).await;
        assert!(done.unwrap_or_else(|e| panic!("{sql}: {e}")).rows_affected() > 0, "changed nothing: {sql}");
    }

    async fn value(&self, sql: impl Into<String>) -> String {
        query_scalar(AssertSqlSafe(sql.into())).fetch_one(&self.superuser).await.unwrap()
    }

    async fn head(&self) -> i64 {
        self.system.parts.log.head().await.unwrap()
    }

    /// The position of the first event of a type.
    async fn first(&self, event_type: &str) -> i64 {
        let first = query_scalar("SELECT min(position) FROM daybook.events WHERE event_type = $1");
        first.bind(event_type).fetch_one(&self.superuser).await.unwrap()
    }

    /// Changes the log, as only its owner can who takes the trigger away first.
    async fn forge(&self, sql: impl Into<String>) {
        self.sql(format!(
            "ALTER TABLE daybook.events DISABLE TRIGGER events_append_only;
             {};
             ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only",
            sql.into()
        ))
        .await;
    }

    /// The columns of a table, with their types.
    async fn columns(&self, table: &str) -> Vec<(String, String)> {
        let columns = query_as(
            "SELECT column_name::text, data_type::text FROM information_schema.columns
             WHERE table_schema = 'daybook' AND table_name = $1 ORDER BY ordinal_position",
        );
        let columns: Vec<_> = columns.bind(table).fetch_all(&self.superuser).await.unwrap();
        assert!(columns.len() > 3, "{table}");
        columns
    }

    async fn keep(&self, table: &str) {
        self.sql(format!("CREATE TABLE public.kept AS TABLE daybook.{table}")).await;
    }

    async fn put_back(&self, table: &str) {
        let put_back = format!("DELETE FROM daybook.{table}; INSERT INTO daybook.{table} TABLE public.kept");
        match table {
            "events" => self.forge(put_back).await,
            _ => self.sql(put_back).await,
        }
    }

    fn jetstream(&self) -> Context {
        jetstream(&self.system.parts.client)
    }

    /// Takes the stream away, and with `change` makes another one in its place, which may be deleted from.
    async fn republish(&self, change: impl Fn(&mut Config, &mut Vec<StreamMessage>)) {
        let jetstream = self.jetstream();
        let stream = jetstream.get_stream(STREAM).await.unwrap();
        let mut config = stream.cached_info().config.clone();
        (config.deny_delete, config.deny_purge) = (false, false);
        let mut messages = Vec::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            messages.push(stream.get_raw_message(sequence).await.unwrap());
        }
        change(&mut config, &mut messages);
        jetstream.delete_stream(STREAM).await.unwrap();
        jetstream.create_stream(config).await.unwrap();
        for StreamMessage { subject, headers, payload, .. } in messages {
            jetstream.publish_with_headers(subject, headers, payload).await.unwrap().await.unwrap();
        }
    }

    async fn remove_message(&self, sequence: i64) {
        let stream = self.jetstream().get_stream(STREAM).await.unwrap();
        assert!(stream.delete_message(sequence as u64).await.unwrap());
    }

    /// That these checks differ, each with a difference that says so, and no other does.
    async fn assert_only(&self, damage: &str, expected: &[(&str, &str)]) {
        let report = self.system.verify().await;
        expected.iter().for_each(|(check, words)| assert_tells(damage, &report, check, words));
        let differing: Vec<&str> = report.checks.iter().filter(|c| !c.agrees()).map(|c| c.name).collect();
        assert!(differing.iter().all(|name| expected.iter().any(|(e, _)| e == name)), "{damage}: {report}");
    }

    /// That these checks differ, each with a difference that says so, whatever else does.
    async fn assert_among(&self, damage: &str, expected: &[(&str, &str)]) {
        let report = self.system.verify().await;
        expected.iter().for_each(|(check, words)| assert_tells(damage, &report, check, words));
    }
}

fn assert_tells(damage: &str, report: &Report, check: &str, words: &str) {
    assert!(!report.agrees(), "{damage} is not found");
    let found = report.checks.iter().find(|c| c.name == check).expect("there is such a check");
    let told = found.differences.iter().any(|difference| difference.contains(words));
    assert!(told, "{damage}: {check} does not say {words:?}\n{report}");
}

/// Another value for a column.
fn changed(column: &str, data_type: &str) -> String {
    match data_type {
        "smallint" | "integer" | "bigint" => format!("{column} + 1"),
        "text" => format!("coalesce({column}, '') || '~'"),
        "uuid" => "gen_random_uuid()".to_owned(),
        "timestamp with time zone" => format!("{column} + interval '1 microsecond'"),
        "date" => format!("{column} + 1"),
        "boolean" => format!("NOT {column}"),
        "jsonb" => format!("coalesce({column}, '[]') || '[null]'"),
        "ARRAY" => format!("array_append({column}, NULL)"),
        // The same to a parser, not to a reader of bytes.
        "json" => format!("({column}::text || ' ')::json"),
        "bytea" => format!("coalesce(set_byte({column}, 0, get_byte({column}, 0) # 1), sha256(''))"),
        other => panic!("say what is another value of {column}, a {other}"),
    }
}

/// Changes every column of these rows, one by one. `key` is SQL that names the columns of the key.
async fn every_column_is_compared(at_rest: &AtRest, table: &'static str, key: &str, rows: &[String]) {
    at_rest.keep(table).await;
    for (column, data_type) in at_rest.columns(table).await {
        for row in rows {
            let value = changed(&column, &data_type);
            at_rest.sql(format!("UPDATE daybook.{table} SET {column} = {value} WHERE {key} = '{row}'")).await;
            let words = match &*column {
                // The row stands where none belongs, and none stands where it belongs.
                "generation" => format!("{row} is of generation 2, which has no checkpoint"),
                column if key.contains(column) => format!("{row} has events, but no row"),
                column => format!("{row}: {column} is "),
            };
            at_rest.assert_only(&format!("{table}.{column} of {row}, changed"), &[(table, &words)]).await;
            at_rest.put_back(table).await;
        }
    }
    at_rest.system.assert_verified().await;
}

/// Invariant 16.
#[tokio::test]
async fn every_column_of_an_order_summary_is_compared() {
    let at_rest = AtRest::start().await;
    let rows = at_rest.orders().map(|id| id.0.to_string());
    every_column_is_compared(&at_rest, "order_summary", "order_id", &rows).await;
}

/// Invariant 16.
#[tokio::test]
async fn every_column_of_a_stock_level_is_compared() {
    let at_rest = AtRest::start().await;
    every_column_is_compared(&at_rest, "stock_level", "sku", &["mug".into(), "hat".into()]).await;
}

/// Invariant 16.
#[tokio::test]
async fn every_column_of_an_order_history_is_compared() {
    let at_rest = AtRest::start().await;
    let mut rows = Vec::new();
    for order in at_rest.orders() {
        // The positions after it are no other row's of the order.
        let last = "SELECT $1 || ' at ' || max(position) FROM daybook.order_history WHERE order_id = $1::uuid";
        rows.push(query_scalar(last).bind(order.0.to_string()).fetch_one(&at_rest.superuser).await.unwrap());
    }
    every_column_is_compared(&at_rest, "order_history", "order_id || ' at ' || position", &rows).await;
}

/// Invariant 16.
#[tokio::test]
async fn every_column_of_a_fulfilment_is_compared() {
    let at_rest = AtRest::start().await;
    let rows: Vec<String> = query_scalar("SELECT DISTINCT ON (status) shipment_id::text FROM daybook.fulfilment")
        .fetch_all(&at_rest.superuser)
        .await
        .unwrap();
    assert_eq!(rows.len(), 3, "planned, delivered, cancelled");
    every_column_is_compared(&at_rest, "fulfilment", "shipment_id", &rows).await;
}

/// Invariant 16.
#[tokio::test]
async fn every_column_of_the_revenue_is_compared() {
    let at_rest = AtRest::start().await;
    let rows = "SELECT DISTINCT ON (captures) payment_id || ' on ' || day FROM daybook.revenue ORDER BY captures, day";
    let rows: Vec<String> = query_scalar(rows).fetch_all(&at_rest.superuser).await.unwrap();
    assert_eq!(rows.len(), 2, "captured twice, and not at all");
    every_column_is_compared(&at_rest, "revenue", "payment_id || ' on ' || day", &rows).await;
}

/// Invariant 16.
#[tokio::test]
async fn every_column_of_the_event_index_is_compared() {
    let at_rest = AtRest::start().await;
    at_rest.keep("event_index").await;
    let order = at_rest.completed.0.to_string();
    for (column, _) in at_rest.columns("event_index").await {
        for key in ["stock", "order/OrderPlaced", &*order] {
            let (value, words) = match &*column {
                "generation" => ("2".to_owned(), format!("{key} from 0 is of generation 2, which has no checkpoint")),
                "key" => ("key || '~'".to_owned(), format!("{key} from 0 has events, but no row")),
                "base" => ("base + 1".to_owned(), format!("{key} from 1 has a row, but no events")),
                "offsets" => ("trim_array(offsets, 1)".to_owned(), format!("{key} from 0: offsets is [")),
                other => panic!("say what is another value of {other}"),
            };
            at_rest.sql(format!("UPDATE daybook.event_index SET {column} = {value} WHERE key = '{key}'")).await;
            at_rest.assert_only(&format!("{column} of {key}"), &[("event_index", &words)]).await;
            at_rest.put_back("event_index").await;
        }
    }
    for offsets in ["offsets || 1000::smallint", "offsets[2:] || offsets[1]", "offsets || offsets"] {
        at_rest.sql(format!("UPDATE daybook.event_index SET offsets = {offsets} WHERE key = 'stock'")).await;
        at_rest.assert_only(offsets, &[("event_index", "stock from 0: offsets is [")]).await;
        at_rest.put_back("event_index").await;
    }
    at_rest.sql(format!("DELETE FROM daybook.event_index WHERE key = '{order}'")).await;
    let words = format!("{order} from 0 has events, but no row");
    at_rest.assert_only("a list, deleted", &[("event_index", &words)]).await;
    at_rest.put_back("event_index").await;
    at_rest.sql("INSERT INTO daybook.event_index VALUES (1, 'order/Teleported', 0, '{1}')").await;
    let words = "order/Teleported from 0 has a row, but no events";
    at_rest.assert_only("a list too many", &[("event_index", words)]).await;
}

/// Invariant 16: what is in the column of payments, too.
#[tokio::test]
async fn every_field_of_a_payment_in_an_order_summary_is_compared() {
    let at_rest = AtRest::start().await;
    at_rest.keep("order_summary").await;
    let order = at_rest.declined.0;
    let fields: Vec<String> =
        query_scalar("SELECT jsonb_object_keys(payments->1) FROM daybook.order_summary WHERE order_id = $1")
            .bind(order)
            .fetch_all(&at_rest.superuser)
            .await
            .unwrap();
    assert_eq!(fields.len(), 5);
    for field in fields {
        let forged = format!("jsonb_set(payments, '{{1,{field}}}', to_jsonb(payments->1->>'{field}' || '0'))");
        at_rest.sql(format!("UPDATE daybook.order_summary SET payments = {forged} WHERE order_id = '{order}'")).await;
        let words = format!("{order}: payments is ");
        at_rest.assert_only(&format!("payments[1].{field}"), &[("order_summary", &words)]).await;
        at_rest.put_back("order_summary").await;
    }
    at_rest.sql(format!("UPDATE daybook.order_summary SET payments = jsonb_build_array(payments->1, payments->0) WHERE order_id = '{order}'")).await;
    at_rest.assert_only("payments in another order", &[("order_summary", &format!("{order}: payments is "))]).await;
}

#[tokio::test]
async fn a_row_of_a_read_model_that_is_missing_or_too_many_is_found() {
    let at_rest = AtRest::start().await;
    let (order, stray) = (at_rest.short.0, Uuid::now_v7());
    at_rest.keep("order_summary").await;
    at_rest.sql(format!("DELETE FROM daybook.order_summary WHERE order_id = '{order}'")).await;
    let words = format!("{order} has events, but no row");
    at_rest.assert_only("an order_summary, deleted", &[("order_summary", &words)]).await;
    at_rest.put_back("order_summary").await;
    at_rest
        .sql(format!(
            "CREATE TEMP TABLE stray AS SELECT * FROM public.kept WHERE order_id = '{order}';
             UPDATE stray SET order_id = '{stray}';
             INSERT INTO daybook.order_summary TABLE stray;
             DROP TABLE stray"
        ))
        .await;
    let words = format!("{stray} has a row, but no events");
    at_rest.assert_only("an order_summary too many", &[("order_summary", &words)]).await;
    at_rest.put_back("order_summary").await;

    at_rest.sql("INSERT INTO daybook.stock_level SELECT generation, 'ghost', 0, 0, changed_at, 1 FROM daybook.stock_level WHERE sku = 'hat'").await;
    at_rest.assert_only("a stock_level too many", &[("stock_level", "ghost has a row, but no events")]).await;
    at_rest.sql("DELETE FROM daybook.stock_level WHERE sku IN ('ghost', 'hat')").await;
    at_rest.assert_only("a stock_level, deleted", &[("stock_level", "hat has events, but no row")]).await;
}

/// It is compared page by page, and what belongs to no page by itself.
#[tokio::test]
async fn an_entry_of_a_history_that_is_missing_or_too_many_is_found() {
    let at_rest = AtRest::start().await;
    at_rest.keep("order_history").await;
    let (order, other, head) = (at_rest.completed.0, at_rest.short.0, at_rest.head().await);
    let placed = at_rest.first("OrderPlaced").await;
    at_rest.sql(format!("DELETE FROM daybook.order_history WHERE position = {placed}")).await;
    let missing = format!("{order} at {placed} has events, but no row");
    at_rest.assert_only("deleted", &[("order_history", &missing)]).await;
    at_rest.put_back("order_history").await;
    // Of no event, and of an event that is another order's.
    for (damage, order, position) in [("no event", order, head + 1), ("another's", other, placed)] {
        at_rest
            .sql(format!(
                "INSERT INTO daybook.order_history
                 SELECT generation, '{order}', {position}, recorded_at, occurred_at, category, stream_id, version,
                        event_type, actor, detail
                 FROM daybook.order_history WHERE position = {placed}"
            ))
            .await;
        let surplus = format!("{order} at {position} has a row, but no events");
        at_rest.assert_only(damage, &[("order_history", &surplus)]).await;
        at_rest.put_back("order_history").await;
    }
    at_rest.system.assert_verified().await;
}

/// Not compared: what came of a follow-up. How often it was tried, when it is due and when it was settled are the
/// sender's own business; `state` and `reason` say what somebody outside answered, and the log says nothing of an
/// answer that changed nothing. Where something follows from a refusal, that is compared; and what is discarded somebody
/// has given up: see the tests of them.
const OUTCOME: [&str; 5] = ["state", "attempts", "due_at", "reason", "settled_at"];

#[tokio::test]
async fn every_column_of_a_follow_up_that_says_what_is_to_be_done_is_compared() {
    let at_rest = AtRest::start().await;
    at_rest.keep("follow_ups").await;
    let one_each = "SELECT DISTINCT ON (reaction) id, reaction FROM daybook.follow_ups ORDER BY reaction, id";
    let one_each: Vec<(Uuid, String)> = query_as(one_each).fetch_all(&at_rest.superuser).await.unwrap();
    assert!(one_each.len() >= 14, "the orders make {} of the reactions happen", one_each.len());
    for (column, data_type) in at_rest.columns("follow_ups").await {
        if OUTCOME.contains(&&*column) {
            continue;
        }
        for (id, reaction) in &one_each {
            let value = changed(&column, &data_type);
            at_rest.sql(format!("UPDATE daybook.follow_ups SET {column} = {value} WHERE id = '{id}'")).await;
            let words = if column == "id" { reaction.clone() } else { id.to_string() };
            at_rest.assert_only(&format!("{column} of {reaction}"), &[("follow_ups", &words)]).await;
            at_rest.put_back("follow_ups").await;
        }
    }
    at_rest.system.assert_verified().await;
}

#[tokio::test]
async fn a_follow_up_that_is_missing_or_too_many_is_found() {
    let at_rest = AtRest::start().await;
    at_rest.keep("follow_ups").await;
    let one_each = "SELECT DISTINCT ON (reaction) id, reaction FROM daybook.follow_ups ORDER BY reaction, id";
    let one_each: Vec<(Uuid, String)> = query_as(one_each).fetch_all(&at_rest.superuser).await.unwrap();
    for (id, reaction) in one_each {
        at_rest.sql(format!("DELETE FROM daybook.follow_ups WHERE id = '{id}'")).await;
        at_rest.assert_only(&format!("{reaction}, deleted"), &[("follow_ups", &reaction)]).await;
        at_rest.put_back("follow_ups").await;
    }
    let stray = Uuid::now_v7();
    at_rest
        .sql(format!(
            "INSERT INTO daybook.follow_ups (id, domain, event_id, position, correlation_id, reaction, target, act)
             SELECT '{stray}', domain, event_id, position, correlation_id, reaction, target, act
             FROM public.kept WHERE reaction = 'capture_payment' LIMIT 1"
        ))
        .await;
    let words = format!("{stray} (capture_payment, due) names position");
    at_rest.assert_only("a second capture", &[("follow_ups", &words)]).await;
}

#[tokio::test]
async fn a_timer_that_is_otherwise_missing_or_too_many_is_found() {
    let at_rest = AtRest::start().await;
    at_rest.keep("timers").await;
    let one_each = "SELECT DISTINCT ON (kind) id, kind FROM daybook.timers ORDER BY kind, id";
    let one_each: Vec<(Uuid, String)> = query_as(one_each).fetch_all(&at_rest.superuser).await.unwrap();
    assert_eq!(
        one_each.iter().map(|(_, kind)| &**kind).collect::<Vec<_>>(),
        ["expire_authorisation", "expire_reservation"]
    );
    for (id, kind) in &one_each {
        for (column, data_type) in at_rest.columns("timers").await {
            let value = changed(&column, &data_type);
            at_rest.sql(format!("UPDATE daybook.timers SET {column} = {value} WHERE id = '{id}'")).await;
            at_rest.assert_only(&format!("{column} of {kind}"), &[("timers", kind)]).await;
            at_rest.put_back("timers").await;
        }
        at_rest.sql(format!("DELETE FROM daybook.timers WHERE id = '{id}'")).await;
        at_rest.assert_only(&format!("{kind}, deleted"), &[("timers", "neither there nor fired")]).await;
        at_rest.put_back("timers").await;
    }
    // One that has fired is a follow-up with a cause of its own; and no other event's.
    at_rest.sql("UPDATE daybook.timers SET fires_at = '-infinity' WHERE kind = 'expire_authorisation'").await;
    assert_eq!(engine::timer::fire::<order_views::Orders>(&at_rest.system.parts.project, 9).await.unwrap(), 1);
    at_rest.system.assert_verified().await;
    at_rest.sql("UPDATE daybook.follow_ups SET position = position + 1 WHERE reaction = 'expire_authorisation'").await;
    at_rest.assert_only("a timer's follow-up", &[("follow_ups", "position is")]).await;
    at_rest.sql("DELETE FROM daybook.follow_ups WHERE reaction = 'expire_authorisation'").await;
    at_rest.assert_only("a timer's follow-up, deleted", &[("timers", "neither there nor fired")]).await;
}

/// What follows from a refusal has it for its cause: the refusal cannot be taken back in silence.
#[tokio::test]
async fn a_refusal_that_is_turned_into_its_opposite_is_found() {
    let at_rest = AtRest::start().await;
    at_rest.sql("UPDATE daybook.follow_ups SET state = 'accepted', reason = NULL WHERE state = 'refused'").await;
    at_rest.assert_only("no refusal", &[("follow_ups", "(record_shortage, accepted) names position")]).await;
}

/// What is to be done is not given up in silence.
#[tokio::test]
async fn a_follow_up_that_nobody_has_given_up_is_found() {
    let at_rest = AtRest::start().await;
    let park = "UPDATE daybook.follow_ups SET state = 'parked', settled_at = now() WHERE reaction = 'capture_payment'";
    at_rest.sql(park).await;
    at_rest.system.assert_verified().await;
    let captures = Filter { reaction: Some("capture_payment".into()), ..Filter::default() };
    let (read, project) = (&at_rest.system.parts.read, &at_rest.system.parts.project);
    let decision = Decision::Discard { by: "ann", why: "paid in cash" };
    assert!(!resolve::<Orders>(read, project, &captures, &decision).await.unwrap().done.is_empty());
    at_rest.system.assert_verified().await;
    // To have it sent again is not to give it up.
    at_rest.sql("UPDATE daybook.resolutions SET outcome = 'redriven'").await;
    at_rest.assert_only("nobody's discard", &[("follow_ups", "(capture_payment) is discarded, but nobody")]).await;
}

/// What somebody has given up must not be there all the same.
#[tokio::test]
async fn what_is_made_of_an_event_that_was_given_up_is_found() {
    let at_rest = AtRest::start().await;
    let placed = at_rest.completed;
    for (projection, event_type, words) in [
        ("order_summary", "OrderPlaced", "has a row, but no events"),
        ("order_history", "OrderPlaced", "has a row, but no events"),
        ("follow_ups", "OrderPlaced", "from which it does not follow"),
        ("fulfilment", "ShipmentDispatched", "tracking is"),
        ("revenue", "PaymentCaptured", "captured is"),
        ("waiting", "PaymentsSecured", "but no row"),
        ("stock_level", "StockReceived", "on_hand is"),
    ] {
        at_rest
            .sql(format!(
                "INSERT INTO daybook.resolutions (dead_letter, outcome, resolved_by, why, projection, position, key)
                 SELECT event_id, 'discarded', 'ann', 'to see', '{projection}', position, stream_id
                 FROM daybook.events
                 WHERE event_type = '{event_type}' AND (correlation_id = '{placed}' OR event_type = 'StockReceived')
                 ORDER BY position LIMIT 1"
            ))
            .await;
        at_rest.assert_only(projection, &[(projection, words)]).await;
        at_rest.sql("DELETE FROM daybook.resolutions").await;
    }
}

/// The reason of a refusal names SKUs, not lines: which line of a SKU was short is left to the follow-up.
#[tokio::test]
async fn a_shortage_of_one_of_several_lines_of_a_sku_agrees() {
    let mut system = System::start().await;
    system.receive("cap", 3).await;
    for lines in [[("cap", 2, 1), ("cap", 9, 1), ("cap", 1, 1)], [("cap", 9, 1), ("cap", 2, 1), ("bib", 1, 1)]] {
        let order = system.place(order_of(&lines)).await;
        system.settle().await;
        assert_eq!(system.status(order).await, "cancelled: out_of_stock");
    }
    let short = query_scalar::<_, String>(
        "SELECT payload::text FROM daybook.events WHERE event_type = 'LinesShort' ORDER BY position",
    );
    let short = short.fetch_all(&system.parts.read).await.unwrap();
    assert_eq!(short, [r#"{"lines":[2]}"#, r#"{"lines":[1,3]}"#]);
    system.assert_verified().await;
}

#[tokio::test]
async fn a_checkpoint_that_is_behind_ahead_or_away_is_found() {
    let at_rest = AtRest::start().await;
    at_rest.keep("checkpoints").await;
    let head = at_rest.head().await;
    for name in Projection::all().map(Projection::name) {
        let set = |what: &str| format!("UPDATE daybook.checkpoints SET {what} WHERE projection = '{name}'");
        at_rest.sql(set("position = position + 1")).await;
        let ahead = format!("the checkpoint is at {}, but the log ends at {head}", head + 1);
        at_rest.assert_only(&format!("{name} ahead"), &[(name, &ahead)]).await;
        at_rest.put_back("checkpoints").await;

        at_rest.sql(set("position = 1")).await;
        let behind = format!("{name} is at 1, the log at {head}");
        at_rest.assert_among(&format!("{name} behind"), &[("caught up", &behind), (name, "")]).await;
        at_rest.put_back("checkpoints").await;

        at_rest.sql(set("live = false")).await;
        at_rest.assert_among(&format!("{name} not live"), &[(name, "it has no live generation")]).await;
        at_rest.put_back("checkpoints").await;

        at_rest.sql(format!("DELETE FROM daybook.checkpoints WHERE projection = '{name}'")).await;
        at_rest.assert_among(&format!("{name} away"), &[(name, "it has no live generation")]).await;
        at_rest.put_back("checkpoints").await;
    }
    at_rest.system.assert_verified().await;
}

/// Invariant 11, and that the stream itself refuses what this test has to make another one for.
#[tokio::test]
async fn a_message_that_is_missing_from_jetstream_is_found() {
    let at_rest = AtRest::start().await;
    let stream = at_rest.jetstream().get_stream(STREAM).await.unwrap();
    stream.delete_message(7).await.expect_err("the stream denies deletes");
    stream.purge().await.expect_err("the stream denies purges");
    at_rest.system.assert_verified().await;

    at_rest.republish(|_, _| {}).await;
    at_rest.system.assert_verified().await;
    at_rest.remove_message(7).await;
    at_rest.assert_only("one deleted", &[("window", "sequence 7 is missing")]).await;
    at_rest.remove_message(8).await;
    at_rest.remove_message(9).await;
    at_rest.assert_only("three deleted", &[("window", "sequences 7 to 9 are missing")]).await;
    let head = at_rest.head().await;
    at_rest.remove_message(head).await;
    at_rest.assert_only("the last one deleted", &[("window", &format!("sequence {head} is missing"))]).await;
}

/// What retention drops is older than anybody needs: the log has it.
#[tokio::test]
async fn a_window_that_begins_later_than_the_log_agrees() {
    let at_rest = AtRest::start().await;
    at_rest.republish(|_, _| {}).await;
    at_rest.remove_message(1).await;
    at_rest.remove_message(2).await;
    let report = at_rest.system.verify().await;
    assert!(report.agrees(), "{report}");
    let window = report.checks.iter().find(|c| c.name == "window").unwrap();
    assert_eq!(window.checked as i64, report.events - 2);
}

/// Invariant 12.
#[tokio::test]
async fn a_message_that_is_not_the_event_is_found() {
    let at_rest = AtRest::start().await;
    let body = |m: &mut StreamMessage| m.payload = [&m.payload[..m.payload.len() - 1], b" }"].concat().into();
    at_rest.republish(|_, messages| body(&mut messages[4])).await;
    at_rest.assert_only("a body", &[("window", "sequence 5: the body differs from the stored payload")]).await;
    let subject = |m: &mut StreamMessage| m.subject = format!("{}Not", m.subject).into();
    at_rest
        .republish(|_, messages| {
            messages[4].payload = messages[4].payload.as_ref().strip_suffix(b" }").unwrap().to_vec().into();
            messages[4].payload = [&messages[4].payload[..], b"}"].concat().into();
            subject(&mut messages[5]);
        })
        .await;
    at_rest.assert_only("a subject", &[("window", "sequence 6: the subject is daybook.evt.v1.")]).await;
}

/// Invariant 12: each field of an event's header is compared, and a header that it has not is seen.
#[tokio::test]
async fn every_field_of_a_messages_header_is_compared() {
    const FIELDS: [&str; 15] = [
        "its format",
        "epoch",
        "position",
        "version",
        "schema version",
        "recorded_at",
        "occurred_at",
        "event id",
        "correlation id",
        "causation id",
        "command id",
        "fingerprint",
        "origin",
        "link",
        "actor",
    ];
    let at_rest = AtRest::start().await;
    // From the end, one message for each field, one for the trace, and one for a header too many.
    let first = at_rest.head().await as usize - FIELDS.len() - 2;
    at_rest
        .republish(|_, messages| {
            let mut last = messages[first..].iter_mut();
            for (n, message) in (0..FIELDS.len()).zip(&mut last) {
                let packed = message.headers.get("Daybook").unwrap().as_str().to_owned();
                let mut fields: Vec<&str> = packed.split(' ').collect();
                assert_eq!(fields.len(), FIELDS.len());
                fields[n] = "forged";
                message.headers.insert("Daybook", fields.join(" "));
            }
            last.next().unwrap().headers.insert("traceparent", "forged");
            last.next().unwrap().headers.insert("Daybook-Extra", "forged");
        })
        .await;
    let report = at_rest.system.verify().await;
    for (sequence, name) in (first + 1..).zip(FIELDS.into_iter().chain(["traceparent"])) {
        assert_tells(name, &report, "window", &format!("sequence {sequence}: {name} is \"forged\", the log says"));
    }
    let extra = format!("sequence {}: Daybook-Extra is forged, of which the log knows nothing", at_rest.head().await);
    assert_tells("a header too many", &report, "window", &extra);
    let window = report.checks.iter().find(|c| c.name == "window").unwrap();
    assert_eq!(window.difference_count as usize, FIELDS.len() + 2, "{report}");
}

/// Invariant 12: of this id and epoch.
#[tokio::test]
async fn a_stream_of_another_log_or_epoch_is_found() {
    let at_rest = AtRest::start().await;
    let log_id = at_rest.value("SELECT log_id::text FROM daybook.log").await;
    at_rest.sql("UPDATE daybook.log SET epoch = 2").await;
    let metadata = r#"the stream's daybook_epoch is "1", the log's is 2"#;
    let header = r#"sequence 1: epoch is "1", the log says "2""#;
    at_rest.assert_only("another epoch", &[("window", metadata), ("window", header)]).await;
    at_rest.sql("UPDATE daybook.log SET epoch = 1, log_id = gen_random_uuid()").await;
    let words = format!(r#"the stream's daybook_log_id is "{log_id}", the log's is"#);
    at_rest.assert_only("another log", &[("window", &words)]).await;
}

/// Invariants 11 and 12.
#[tokio::test]
async fn a_stream_that_is_short_too_long_or_missing_is_found() {
    let at_rest = AtRest::start().await;
    let head = at_rest.head().await;
    at_rest.republish(|_, messages| messages.truncate(messages.len() - 2)).await;
    let words = format!("the window is at {}, the log at {head}", head - 2);
    at_rest.assert_only("a short one", &[("caught up", &words)]).await;

    at_rest.jetstream().delete_stream(STREAM).await.unwrap();
    let words = format!("the window is at 0, the log at {head}");
    at_rest.assert_only("none", &[("caught up", &words), ("window", "the stream DAYBOOK does not exist")]).await;
    let asked = verify(&at_rest.system.parts.read, None, Duration::ZERO).await.unwrap();
    assert!(asked.agrees(), "without JetStream nothing is said of it: {asked}");
    let window = asked.checks.iter().find(|c| c.name == "window").unwrap();
    assert!(!window.asked);
}

#[tokio::test]
async fn a_stream_that_is_ahead_of_the_log_is_found() {
    let at_rest = AtRest::start().await;
    let head = at_rest.head().await;
    let publish = at_rest.jetstream().publish("daybook.evt.v1.order.x.Y", "{}".into()).await.unwrap();
    publish.await.unwrap();
    let words = format!("the window ends at {}, ahead of the log, which ends at {head}", head + 1);
    at_rest.assert_only("a message too many", &[("window", &words)]).await;
}

/// Invariant 9, checked afterwards: every column of the log is held against what was published of it.
#[tokio::test]
async fn every_column_of_the_log_is_compared_with_jetstream() {
    let at_rest = AtRest::start().await;
    at_rest.keep("events").await;
    for (column, data_type) in at_rest.columns("events").await {
        // Of an order, a payment, a SKU, a shipment.
        for event_type in ["PaymentsSecured", "PaymentAuthorised", "StockReserved", "ShipmentDelivered"] {
            let position = at_rest.first(event_type).await;
            let value = match &*column {
                // The next ones are taken.
                "position" => "1000000".to_owned(),
                "version" => "version + 100".to_owned(),
                column => changed(column, &data_type),
            };
            at_rest.forge(format!("UPDATE daybook.events SET {column} = {value} WHERE position = {position}")).await;
            let words = match &*column {
                "position" => format!("sequence {position} is of no event in the log"),
                _ => format!("sequence {position}: "),
            };
            let damage = format!("{column} of {event_type}");
            at_rest.assert_among(&damage, &[("window", &words), ("chain", "position")]).await;
            at_rest.put_back("events").await;
        }
    }
    at_rest.system.assert_verified().await;
}

/// Invariant 8.
#[tokio::test]
async fn a_gap_in_the_log_is_found() {
    let at_rest = AtRest::start().await;
    let gap = at_rest.first("LinesDelivered").await;
    at_rest.forge(format!("DELETE FROM daybook.events WHERE position = {gap}")).await;
    let words = format!("position {} comes after {}", gap + 1, gap - 1);
    let of_none = format!("sequence {gap} is of no event in the log");
    let model = format!("{}: delivered is 2, the log says", at_rest.completed.0);
    at_rest.assert_among("a gap", &[("positions", &words), ("window", &of_none), ("order_summary", &model)]).await;
}

#[tokio::test]
async fn a_log_that_has_lost_its_end_is_found() {
    let at_rest = AtRest::start().await;
    let head = at_rest.head().await;
    at_rest.forge(format!("DELETE FROM daybook.events WHERE position = {head}")).await;
    let ahead = format!("the window ends at {head}, ahead of the log, which ends at {}", head - 1);
    let checkpoint = format!("the checkpoint is at {head}, but the log ends at {}", head - 1);
    at_rest.assert_among("the last one", &[("window", &ahead), ("follow_ups", &checkpoint)]).await;
}

/// Invariant 8.
#[tokio::test]
async fn two_positions_that_were_swapped_are_found() {
    let at_rest = AtRest::start().await;
    // Two events of one stream, so that its versions fall; their times fall as well.
    let (placed, cancelled) = (at_rest.first("OrderPlaced").await, at_rest.first("OrderConfirmed").await);
    at_rest
        .forge(format!(
            "UPDATE daybook.events SET position = -1 WHERE position = {placed};
             UPDATE daybook.events SET position = {placed} WHERE position = {cancelled};
             UPDATE daybook.events SET position = {cancelled} WHERE position = -1"
        ))
        .await;
    let version = format!("at position {placed}");
    let time = format!("position {} was recorded at", placed + 1);
    let window = format!("sequence {placed}: the subject is");
    at_rest.assert_among("a swap", &[("versions", &version), ("recorded_at", &time), ("window", &window)]).await;
}

/// Invariant 4. Seen without JetStream: the log does not keep its own promise.
#[tokio::test]
async fn a_version_that_was_renumbered_is_found() {
    let at_rest = AtRest::start().await;
    let position = at_rest.first("OrderConfirmed").await;
    at_rest.forge(format!("UPDATE daybook.events SET version = 50 WHERE position = {position}")).await;
    let report = verify(&at_rest.system.parts.read, None, Duration::ZERO).await.unwrap();
    assert_tells("a version", &report, "versions", &format!("has version 50 after 4, at position {position}"));
}

#[tokio::test]
async fn a_time_that_falls_is_found() {
    let at_rest = AtRest::start().await;
    let position = at_rest.first("OrderConfirmed").await;
    let earlier = format!("recorded_at - interval '1 hour' WHERE position = {position}");
    at_rest.forge(format!("UPDATE daybook.events SET recorded_at = {earlier}")).await;
    let report = verify(&at_rest.system.parts.read, None, Duration::ZERO).await.unwrap();
    assert_tells("a time", &report, "recorded_at", &format!("position {position} was recorded at"));
}

/// Invariant 3: ids follow from the command's, so that a command cannot be recorded twice.
#[tokio::test]
async fn an_event_id_that_is_not_its_commands_is_found() {
    let at_rest = AtRest::start().await;
    at_rest.keep("events").await;
    let (order, n) = (at_rest.completed.0, at_rest.first("OrderPlaced").await);
    at_rest.forge(format!("UPDATE daybook.events SET event_id = '{order}' WHERE position = {n}")).await;
    let words = format!("position {n} has the event id {order}, not ");
    at_rest.assert_among("an event id", &[("event ids", &words)]).await;
    at_rest.put_back("events").await;

    // An order of two cards, or of two SKUs, has commands of several events: one of them gets another fingerprint.
    let several = "SELECT max(position) FROM daybook.events GROUP BY command_id HAVING count(*) > 1 LIMIT 1";
    let n: i64 = query_scalar(several).fetch_one(&at_rest.superuser).await.unwrap();
    at_rest.forge(format!("UPDATE daybook.events SET fingerprint = '\\x00' WHERE position = {n}")).await;
    let short = format!("the fingerprint at position {n} has 1 bytes, not 16");
    let other = format!("position {n} has another fingerprint than its command");
    at_rest.assert_among("a fingerprint", &[("event ids", &short), ("event ids", &other)]).await;
}

#[tokio::test]
async fn a_payload_that_was_altered_is_found() {
    let at_rest = AtRest::start().await;
    at_rest.keep("events").await;
    let n = at_rest.first("StockReceived").await;
    let set = |payload: &str| format!("UPDATE daybook.events SET payload = {payload} WHERE position = {n}");
    at_rest.forge(set("replace(payload::text, '9', '8')::json")).await;
    let body = format!("sequence {n}: the body differs from the stored payload from byte");
    let link = format!("the link at position {n} does not follow");
    at_rest.assert_only("a quantity", &[("window", &body), ("stock_level", "mug: on_hand is"), ("chain", &link)]).await;
    at_rest.put_back("events").await;

    at_rest.forge(set("'[]'")).await;
    let no_object = format!("the payload at position {n} is no JSON object");
    let folded = format!("the StockReceived at position {n} cannot be folded");
    at_rest.assert_among("no object", &[("payloads", &no_object), ("stock_level", &folded)]).await;
}

/// Sums beyond what a number holds are a difference, not a panic.
#[tokio::test]
async fn a_payload_with_absurd_numbers_is_found() {
    let at_rest = AtRest::start().await;
    let absurd = "regexp_replace(payload::text, '\"quantity\":\\d+', '\"quantity\":9223372036854775807', 'g')::json";
    at_rest.forge(format!("UPDATE daybook.events SET payload = {absurd} WHERE category = 3")).await;
    at_rest.assert_among("absurd", &[("stock_level", "cannot be folded"), ("window", "the body differs")]).await;
}

/// The identity of the log is a row, too: its loss is a difference, not a server that does not answer.
#[tokio::test]
async fn a_log_without_its_identity_is_found() {
    let at_rest = AtRest::start().await;
    at_rest.sql("DELETE FROM daybook.log").await;
    at_rest.assert_only("no identity", &[("window", "the log has lost its id")]).await;
}

/// With exit code 0 if all agrees and 1 if not; the report is data, and says where.
#[tokio::test]
async fn the_verb_says_by_its_exit_code_whether_all_agrees() {
    let at_rest = AtRest::start().await;
    let run = |arguments: &'static [&'static str]| {
        let mut command = daybook_on(&at_rest.system.urls);
        async move { command.args(arguments).output().await.unwrap() }
    };
    let agrees = run(&["verify", "--wait", "0"]).await;
    let stdout = String::from_utf8(agrees.stdout).unwrap();
    assert_eq!((agrees.status.code(), &*agrees.stderr), (Some(0), &b""[..]));
    assert!(stdout.ends_with("events: all agree\n\n") || stdout.ends_with("events: all agree\n"), "{stdout}");

    at_rest.sql("UPDATE daybook.stock_level SET on_hand = on_hand - 1 WHERE sku = 'mug'").await;
    let differs = run(&["verify", "--wait", "0", "--json"]).await;
    assert_eq!(differs.status.code(), Some(1));
    assert_eq!(String::from_utf8(differs.stderr).unwrap(), "daybook: the data does not agree with the log\n");
    let stdout = String::from_utf8(differs.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["events"], at_rest.head().await);
    let checks = report["checks"].as_array().unwrap();
    for check in checks {
        let expected = u64::from(check["name"] == "stock_level");
        assert_eq!(check["difference_count"], expected, "{check}");
    }
    let stock = checks.iter().find(|c| c["name"] == "stock_level").unwrap();
    assert_eq!(stock["differences"], serde_json::json!(["mug: on_hand is 6, the log says 7"]));
}

/// Of orders that are drawn, every row of four read models is looked at.
#[tokio::test]
async fn a_sample_of_the_orders_is_held_against_their_events() {
    let at_rest = AtRest::start().await;
    let (read, log) = (&at_rest.system.parts.read, &at_rest.system.parts.log);
    let sample = async |orders| verify_sample(read, log, orders).await.unwrap();
    let of = |report: &Report, name: &str| {
        let check = report.checks.iter().find(|check| check.name == name).unwrap();
        (check.checked, check.difference_count)
    };
    // 1,600 positions of a log of some seventy: no order is missed.
    let rows = at_rest.value("SELECT count(*)::text FROM daybook.order_summary").await.parse::<u64>().unwrap();
    let all = sample(200).await;
    assert!(all.agrees(), "{all}");
    assert_eq!(of(&all, "order_summary"), (rows, 0));
    let one = sample(1).await;
    assert!(one.agrees() && of(&one, "order_summary").0 == 1, "{one}");
    assert!(one.events > 5 && one.events < all.events, "{one}");
    // What is damaged is found, a row that is missing as well as one that is otherwise.
    at_rest.sql("UPDATE daybook.order_summary SET total = total + 1").await;
    at_rest.sql("DELETE FROM daybook.fulfilment").await;
    at_rest.sql("UPDATE daybook.order_history SET actor = 'nobody'").await;
    let damaged = sample(200).await;
    assert_eq!(of(&damaged, "order_summary"), (rows, rows));
    for check in ["fulfilment", "order_history"] {
        let (checked, differences) = of(&damaged, check);
        assert!(checked > 0 && checked == differences, "{damaged}");
    }
    assert_eq!(of(&damaged, "waiting"), of(&all, "waiting"));
    // The verb needs no JetStream for it.
    let mut command = daybook_on(&at_rest.system.urls);
    command.args(["verify", "--sample", "200", "--json"]).env("NATS_URL", "nats://127.0.0.1:1");
    let told = command.output().await.unwrap();
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(String::from_utf8(told.stdout).unwrap().contains("has events, but no row"));
    // An empty log has nothing to draw.
    let empty = System::start().await;
    let report = verify_sample(&empty.parts.read, &empty.parts.log, 10).await.unwrap();
    assert_eq!((report.agrees(), report.events), (true, 0));
}

/// Read models can be made right; what is to be done cannot.
#[tokio::test]
async fn what_differs_of_a_read_model_is_repaired() {
    let at_rest = AtRest::start().await;
    at_rest.sql("UPDATE daybook.stock_level SET on_hand = on_hand - 1 WHERE sku = 'mug'").await;
    at_rest.sql("DELETE FROM daybook.order_summary WHERE status = 'completed'").await;
    let repair = async || {
        let mut command = daybook_on(&at_rest.system.urls);
        let output = command.args(["verify", "--wait", "0", "--repair"]).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = repair().await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told.matches("they do not agree").count(), 1, "{told}");
    assert_eq!(told.matches("the rebuilt rows are live").count(), 2, "{told}");
    assert!(told.contains("  mug: on_hand was 6 and is 7\n"), "{told}");
    assert!(told.trim_end().ends_with("all agree"), "{told}");
    let (code, told) = repair().await;
    assert_eq!((code, told.contains("rebuilt")), (Some(0), false), "{told}");
    at_rest.sql("DELETE FROM daybook.follow_ups WHERE state = 'accepted'").await;
    let (code, told) = repair().await;
    assert_eq!((code, told.contains("rebuilt")), (Some(1), false), "{told}");
}

/// What is under way is waited for, not taken for a difference.
#[tokio::test]
async fn a_system_in_motion_is_given_time_to_come_to_the_end() {
    let mut at_rest = AtRest::start().await;
    at_rest.system.place(order_of(&[("mug", 1, 1)])).await;
    let behind = at_rest.system.verify().await;
    assert_tells("behind", &behind, "caught up", "order_summary is at");
    let (pool, jetstream) = (at_rest.system.parts.read.clone(), at_rest.jetstream());
    let (report, ()) = tokio::join!(
        async { verify(&pool, Some(&jetstream), Duration::from_secs(30)).await.unwrap() },
        at_rest.system.project()
    );
    assert!(report.agrees(), "{report}");
}
