//! What stock does with every command, over one SKU and several; and that no piece is promised twice.

use super::*;
use crate::testing::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// What `command` makes of these stocks, given by SKU.
#[expect(clippy::needless_pass_by_value, reason = "a sentence without ampersands")]
fn when(stocks: &[(&str, &Stock)], command: Command) -> Result<Vec<Vec<Event>>, Rejection> {
    let stock =
        |wanted: &Sku| stocks.iter().find(|(name, _)| sku(name) == *wanted).map(|(_, s)| Arc::new((*s).clone()));
    let stocks: Vec<_> = command.skus().iter().map(|sku| stock(sku).unwrap_or_default()).collect();
    decide(&command, &stocks)
}

fn on_hand(name: &str, quantity: u32) -> Stock {
    given([StockReceived { sku: sku(name), quantity }.into()])
}

fn line(line: LineNo, name: &str, quantity: u32) -> StockLine {
    StockLine { line, sku: sku(name), quantity }
}

fn receive(name: &str, quantity: u32) -> Command {
    Command::Receive { sku: sku(name), quantity }
}

fn reserve(order_id: OrderId, lines: &[StockLine]) -> Command {
    Command::Reserve { order_id, lines: lines.to_vec(), hold_seconds: 60, edit: None }
}

fn backorder(order_id: OrderId, lines: &[StockLine]) -> Command {
    Command::Backorder { order_id, lines: lines.to_vec(), hold_seconds: 60 }
}

fn commit(order_id: OrderId, lines: &[StockLine]) -> Command {
    Command::Commit { order_id, lines: lines.to_vec() }
}

fn release(order_id: OrderId, lines: &[StockLine]) -> Command {
    Command::Release { order_id, lines: lines.to_vec() }
}

fn expire(order_id: OrderId, lines: &[StockLine]) -> Command {
    Command::Expire { order_id, lines: lines.to_vec() }
}

fn adjust(name: &str, by: i64) -> Command {
    Command::Adjust { sku: sku(name), by, reason: AdjustReason::Count }
}

fn restock(order_id: OrderId, n: u128, lines: &[StockLine]) -> Command {
    Command::Restock { order_id, restock_id: RestockId(Uuid::from_u128(n)), lines: lines.to_vec() }
}

fn quantities(lines: &[(LineNo, u32)]) -> Vec<LineQuantity> {
    lines.iter().map(|&(line, quantity)| LineQuantity { line, quantity }).collect()
}

fn reserved(name: &str, lines: &[(LineNo, u32)], (part, parts): (u32, u32)) -> Event {
    StockReserved {
        sku: sku(name),
        order_id: ORDER,
        lines: quantities(lines),
        hold_seconds: 60,
        part,
        parts,
        edit: None,
        backorder: false,
    }
    .into()
}

/// What waits no more, for it is reserved now.
fn filled(name: &str, order_id: OrderId, lines: &[(LineNo, u32)]) -> Event {
    StockReserved {
        sku: sku(name),
        order_id,
        lines: quantities(lines),
        hold_seconds: 60,
        part: 1,
        parts: 1,
        edit: None,
        backorder: true,
    }
    .into()
}

fn backordered(name: &str, order_id: OrderId, lines: &[(LineNo, u32)]) -> Event {
    StockBackordered { sku: sku(name), order_id, lines: quantities(lines), hold_seconds: 60 }.into()
}

fn dropped(name: &str, order_id: OrderId, lines: &[(LineNo, u32)]) -> Event {
    BackorderDropped { sku: sku(name), order_id, lines: quantities(lines) }.into()
}

fn expired(name: &str, lines: &[(LineNo, u32)]) -> Event {
    StockExpired { sku: sku(name), order_id: ORDER, lines: quantities(lines) }.into()
}

fn received(name: &str, quantity: u32) -> Event {
    StockReceived { sku: sku(name), quantity }.into()
}

fn adjusted(name: &str, by: i64) -> Event {
    StockAdjusted { sku: sku(name), by, reason: AdjustReason::Count }.into()
}

fn committed(name: &str, lines: &[(LineNo, u32)]) -> Event {
    StockCommitted { sku: sku(name), order_id: ORDER, lines: quantities(lines) }.into()
}

fn released(name: &str, lines: &[(LineNo, u32)]) -> Event {
    StockReleased { sku: sku(name), order_id: ORDER, lines: quantities(lines) }.into()
}

fn pieces(stock: &Stock) -> (u64, u64) {
    (stock.on_hand(), stock.reserved())
}

#[test]
fn received_pieces_add_up() {
    let events = when(&[("MUG", &on_hand("MUG", 2))], receive("MUG", 3)).unwrap();
    assert_eq!(events, [vec![StockReceived { sku: sku("MUG"), quantity: 3 }.into()]]);
    assert_eq!(pieces(&then(&on_hand("MUG", 2), &events[0])), (5, 0));
}

#[test]
fn a_receipt_of_nothing_is_refused() {
    let faults = vec![Fault::new("quantity", "1 or more")];
    assert_eq!(when(&[], receive("MUG", 0)), Err(Rejection::Invalid { faults }));
}

#[test]
fn a_reservation_is_one_event_for_each_sku_and_says_which_is_the_last() {
    let stocks = [("HAT", &on_hand("HAT", 1)), ("MUG", &on_hand("MUG", 3))];
    let lines = [line(1, "MUG", 2), line(2, "HAT", 1), line(3, "MUG", 1)];
    let events = when(&stocks, reserve(ORDER, &lines)).unwrap();
    assert_eq!(events, [vec![reserved("HAT", &[(2, 1)], (1, 2))], vec![reserved("MUG", &[(1, 2), (3, 1)], (2, 2))]]);
    assert_eq!(pieces(&then(stocks[1].1, &events[1])), (3, 3));
}

#[test]
fn only_what_is_not_reserved_yet_is_reserved() {
    let mug = then(&on_hand("MUG", 3), &[reserved("MUG", &[(1, 2)], (1, 1))]);
    let stocks = [("HAT", &on_hand("HAT", 1)), ("MUG", &mug)];
    let lines = [line(1, "MUG", 2), line(2, "HAT", 1)];
    assert_eq!(when(&stocks, reserve(ORDER, &lines)), Ok(vec![vec![reserved("HAT", &[(2, 1)], (1, 1))], vec![]]));
    assert_eq!(when(&stocks, reserve(ORDER, &lines[..1])), Ok(vec![vec![]]));
}

#[test]
fn nothing_is_reserved_if_a_line_is_short_and_every_short_line_is_named() {
    let stocks = [("HAT", &on_hand("HAT", 1)), ("MUG", &on_hand("MUG", 5))];
    let lines = [line(1, "PEN", 1), line(2, "MUG", 4), line(3, "HAT", 1), line(4, "MUG", 2)];
    let short = |line, name, wanted, available| ShortLine { line, sku: sku(name), wanted, available };
    assert_eq!(
        when(&stocks, reserve(ORDER, &lines)),
        Err(Rejection::OutOfStock { short: vec![short(1, "PEN", 1, 0), short(4, "MUG", 2, 1)] })
    );
}

#[test]
fn what_another_order_has_reserved_is_not_available() {
    let mug = then(&on_hand("MUG", 3), &[reserved("MUG", &[(1, 2)], (1, 1))]);
    let short = vec![ShortLine { line: 1, sku: sku("MUG"), wanted: 2, available: 1 }];
    assert_eq!(
        when(&[("MUG", &mug)], reserve(OTHER_ORDER, &[line(1, "MUG", 2)])),
        Err(Rejection::OutOfStock { short })
    );
    assert!(when(&[("MUG", &mug)], reserve(OTHER_ORDER, &[line(1, "MUG", 1)])).is_ok());
}

#[test]
fn one_unit_is_promised_to_one_of_500_buyers() {
    let mut mug = on_hand("MUG", 1);
    let buyers = (0..500).map(|n| OrderId(Uuid::from_u128(n)));
    let served = buyers.filter(|buyer| {
        let decision = when(&[("MUG", &mug)], reserve(*buyer, &[line(1, "MUG", 1)]));
        let events = decision.unwrap_or_default().concat();
        mug = then(&mug, &events);
        !events.is_empty()
    });
    assert_eq!(served.count(), 1);
    assert_eq!(pieces(&mug), (1, 1));
}

#[test]
fn a_dispatch_takes_its_own_lines_out_and_leaves_the_others_reserved() {
    let mug = then(&on_hand("MUG", 5), &[reserved("MUG", &[(1, 2), (3, 1)], (1, 1))]);
    let events = when(&[("MUG", &mug)], commit(ORDER, &[line(1, "MUG", 2)])).unwrap();
    assert_eq!(events, [vec![committed("MUG", &[(1, 2)])]]);
    let left = then(&mug, &events[0]);
    assert_eq!(pieces(&left), (3, 1));
    assert_eq!(when(&[("MUG", &left)], commit(ORDER, &[line(1, "MUG", 2)])), Ok(vec![vec![]]));
}

#[test]
fn a_release_gives_back_what_is_still_held() {
    let mug = then(&on_hand("MUG", 5), &[reserved("MUG", &[(1, 2), (3, 1)], (1, 1)), committed("MUG", &[(1, 2)])]);
    let stocks = [("HAT", &on_hand("HAT", 1)), ("MUG", &mug)];
    let lines = [line(1, "MUG", 2), line(2, "HAT", 1), line(3, "MUG", 1)];
    let events = when(&stocks, release(ORDER, &lines)).unwrap();
    assert_eq!(events, [vec![dropped("HAT", ORDER, &[(2, 1)])], vec![released("MUG", &[(3, 1)])]]);
    assert_eq!(pieces(&then(&mug, &events[1])), (3, 0));
}

/// Or the line of an order that has ended would keep all others waiting.
#[test]
fn a_release_that_is_faster_than_the_backorder_has_nobody_wait() {
    let mug = on_hand("MUG", 1);
    let lines = [line(1, "MUG", 2)];
    let events = when(&[("MUG", &mug)], release(ORDER, &lines)).unwrap();
    assert_eq!(events, [vec![dropped("MUG", ORDER, &[(1, 2)])]]);
    let after = then(&mug, &events[0]);
    for late in [backorder(ORDER, &lines), release(ORDER, &lines)] {
        assert_eq!(when(&[("MUG", &after)], late), Ok(vec![vec![]]));
    }
}

#[test]
fn what_is_not_reserved_is_not_given_back() {
    let mug = then(&on_hand("MUG", 5), &[reserved("MUG", &[(1, 2)], (1, 1))]);
    for (order, line_no) in [(OTHER_ORDER, 1), (ORDER, 2)] {
        let lines = [line(line_no, "MUG", 2)];
        let events = vec![vec![dropped("MUG", order, &[(line_no, 2)])]];
        assert_eq!(when(&[("MUG", &mug)], release(order, &lines)), Ok(events));
        assert_eq!(when(&[("MUG", &mug)], expire(order, &lines)), Ok(vec![vec![]]));
    }
}

/// Somebody has to look at it: pieces have left the house that the books have promised to others, or never knew.
#[test]
fn a_dispatch_of_what_is_not_held_is_refused_with_every_line_and_takes_nothing_out() {
    let mug = then(
        &on_hand("MUG", 9),
        &[reserved("MUG", &[(1, 2), (2, 1), (3, 1)], (1, 1)), expired("MUG", &[(3, 1)]), released("MUG", &[(2, 1)])],
    );
    let stocks = [("HAT", &on_hand("HAT", 1)), ("MUG", &mug)];
    let lines = [line(3, "MUG", 1), line(1, "MUG", 2), line(2, "MUG", 1), line(4, "HAT", 1)];
    let refused = Err(Rejection::NotHeld { order_id: ORDER, lines: vec![2, 3, 4] });
    assert_eq!(when(&stocks, commit(ORDER, &lines)), refused);
    let refused = Err(Rejection::NotHeld { order_id: OTHER_ORDER, lines: vec![1] });
    assert_eq!(when(&stocks, commit(OTHER_ORDER, &lines[1..2])), refused);
}

#[test]
fn a_line_that_is_named_twice_is_refused() {
    let lines = [line(1, "MUG", 1), line(2, "MUG", 1), line(1, "MUG", 1)];
    for command in [
        reserve(ORDER, &lines),
        backorder(ORDER, &lines),
        commit(ORDER, &lines),
        release(ORDER, &lines),
        expire(ORDER, &lines),
        restock(ORDER, 1, &lines),
    ] {
        let faults = vec![Fault::new("lines[2].line", "each line once")];
        assert_eq!(when(&[("MUG", &on_hand("MUG", 5))], command), Err(Rejection::Invalid { faults }));
    }
}

/// Whatever ended it: word of it may come twice, or late.
#[test]
fn a_reservation_that_ended_is_not_made_again() {
    let lines = [line(1, "MUG", 2)];
    let held = reserved("MUG", &[(1, 2)], (1, 1));
    let ends = [committed("MUG", &[(1, 2)]), released("MUG", &[(1, 2)]), expired("MUG", &[(1, 2)])];
    for end in ends {
        let ended = then(&on_hand("MUG", 5), &[held.clone(), end]);
        assert_eq!(when(&[("MUG", &ended)], reserve(ORDER, &lines)), Ok(vec![vec![]]));
        assert_eq!(when(&[("MUG", &ended)], backorder(ORDER, &lines)), Ok(vec![vec![]]));
        // Another order's line of that number, and another line of that order, are others.
        for (order, number) in [(OTHER_ORDER, 1), (ORDER, 2)] {
            let decided = when(&[("MUG", &ended)], reserve(order, &[line(number, "MUG", 2)])).unwrap();
            assert_eq!(decided[0].len(), 1, "{order} {number}");
        }
    }
}

#[test]
fn a_reservation_for_an_edit_says_so() {
    let command = Command::Reserve { order_id: ORDER, lines: vec![line(4, "MUG", 1)], hold_seconds: 60, edit: Some(2) };
    let events = when(&[("MUG", &on_hand("MUG", 1))], command).unwrap().concat();
    assert!(matches!(&events[..], [Event::StockReserved(e)] if e.edit == Some(2) && !e.backorder), "{events:?}");
}

// Time

#[test]
fn what_is_still_held_when_its_time_is_over_is_free_again() {
    let mug = then(&on_hand("MUG", 5), &[reserved("MUG", &[(1, 2), (3, 1)], (1, 1)), committed("MUG", &[(1, 2)])]);
    let lines = [line(1, "MUG", 2), line(3, "MUG", 1)];
    let events = when(&[("MUG", &mug)], expire(ORDER, &lines)).unwrap();
    assert_eq!(events, [vec![expired("MUG", &[(3, 1)])]]);
    let after = then(&mug, &events[0]);
    assert_eq!(pieces(&after), (3, 0));
    assert_eq!(when(&[("MUG", &after)], expire(ORDER, &lines)), Ok(vec![vec![]]));
    assert_eq!(when(&[("MUG", &after)], release(ORDER, &lines)), Ok(vec![vec![]]));
}

// Backorders

#[test]
fn what_waits_is_served_when_pieces_come_in_first_come_first_served() {
    let mug = then(
        &on_hand("MUG", 1),
        &[backordered("MUG", ORDER, &[(1, 2), (2, 1)]), backordered("MUG", OTHER_ORDER, &[(1, 1)])],
    );
    assert_eq!(pieces(&mug), (1, 0));
    // Line 2 and the other order would fit; they came later.
    assert_eq!(when(&[("MUG", &on_hand("MUG", 1))], receive("MUG", 1)).unwrap().concat(), [received("MUG", 1)]);
    let events = when(&[("MUG", &mug)], receive("MUG", 1)).unwrap().concat();
    assert_eq!(events, [received("MUG", 1), filled("MUG", ORDER, &[(1, 2)])]);
    let mug = then(&mug, &events);
    assert_eq!(pieces(&mug), (2, 2));
    let events = when(&[("MUG", &mug)], receive("MUG", 5)).unwrap().concat();
    let both = [filled("MUG", ORDER, &[(2, 1)]), filled("MUG", OTHER_ORDER, &[(1, 1)])];
    assert_eq!(events, [&[received("MUG", 5)], &both[..]].concat());
    let mug = then(&mug, &events);
    assert_eq!((pieces(&mug), mug.waiting.len()), ((7, 4), 0));
}

#[test]
fn whatever_makes_room_serves_those_who_wait() {
    let held = reserved("MUG", &[(1, 2)], (1, 1));
    let mug = then(&on_hand("MUG", 2), &[held, backordered("MUG", OTHER_ORDER, &[(7, 2)])]);
    let ours = [line(1, "MUG", 2)];
    let served = filled("MUG", OTHER_ORDER, &[(7, 2)]);
    let restocked = StockRestocked {
        sku: sku("MUG"),
        order_id: ORDER,
        lines: quantities(&[(1, 2)]),
        restock_id: RestockId(Uuid::from_u128(9)),
    };
    for (command, first) in [
        (receive("MUG", 2), received("MUG", 2)),
        (adjust("MUG", 2), adjusted("MUG", 2)),
        (release(ORDER, &ours), released("MUG", &[(1, 2)])),
        (expire(ORDER, &ours), expired("MUG", &[(1, 2)])),
        (restock(ORDER, 9, &ours), restocked.into()),
    ] {
        assert_eq!(when(&[("MUG", &mug)], command), Ok(vec![vec![first, served.clone()]]));
    }
    // A dispatch takes out what it held: there is no more than before.
    assert_eq!(when(&[("MUG", &mug)], commit(ORDER, &ours)), Ok(vec![vec![committed("MUG", &[(1, 2)])]]));
}

#[test]
fn nobody_overtakes_those_who_wait() {
    let mug = then(&on_hand("MUG", 2), &[backordered("MUG", ORDER, &[(1, 3)])]);
    let short = vec![ShortLine { line: 1, sku: sku("MUG"), wanted: 1, available: 0 }];
    let lines = [line(1, "MUG", 1)];
    assert_eq!(when(&[("MUG", &mug)], reserve(OTHER_ORDER, &lines)), Err(Rejection::OutOfStock { short }));
    let waits = vec![vec![backordered("MUG", OTHER_ORDER, &[(1, 1)])]];
    assert_eq!(when(&[("MUG", &mug)], backorder(OTHER_ORDER, &lines)), Ok(waits));
}

#[test]
fn what_there_is_meanwhile_need_not_be_waited_for() {
    let events = when(&[("MUG", &on_hand("MUG", 2))], backorder(ORDER, &[line(1, "MUG", 2), line(2, "MUG", 1)]));
    assert_eq!(events.unwrap(), [vec![backordered("MUG", ORDER, &[(1, 2), (2, 1)]), filled("MUG", ORDER, &[(1, 2)])]]);
}

#[test]
fn what_waits_is_neither_reserved_nor_waited_for_again() {
    let mug = then(&on_hand("MUG", 1), &[backordered("MUG", ORDER, &[(1, 2)])]);
    let lines = [line(1, "MUG", 2)];
    assert_eq!(when(&[("MUG", &mug)], backorder(ORDER, &lines)), Ok(vec![vec![]]));
    assert_eq!(when(&[("MUG", &mug)], reserve(ORDER, &lines)), Ok(vec![vec![]]));
    let refused = Err(Rejection::NotHeld { order_id: ORDER, lines: vec![1] });
    assert_eq!(when(&[("MUG", &mug)], commit(ORDER, &lines)), refused);
}

/// It was short, and while the order was told so, another try came through.
#[test]
fn what_is_held_already_need_not_wait_and_is_said_once() {
    let mug = then(&on_hand("MUG", 3), &[reserved("MUG", &[(1, 2)], (1, 1))]);
    let lines = [line(1, "MUG", 2), line(2, "MUG", 2)];
    let needless = BackorderNeedless { sku: sku("MUG"), order_id: ORDER, lines: quantities(&[(1, 2)]) }.into();
    let events = when(&[("MUG", &mug)], backorder(ORDER, &lines)).unwrap();
    assert_eq!(events, [vec![needless, backordered("MUG", ORDER, &[(2, 2)])]]);
    let after = then(&mug, &events[0]);
    assert_eq!(pieces(&after), pieces(&mug));
    assert_eq!(when(&[("MUG", &after)], backorder(ORDER, &lines)), Ok(vec![vec![]]));
    // Nor is it said of what had to wait.
    let filled = then(&on_hand("MUG", 2), &[backordered("MUG", ORDER, &[(1, 2)]), filled("MUG", ORDER, &[(1, 2)])]);
    assert_eq!(when(&[("MUG", &filled)], backorder(ORDER, &lines[..1])), Ok(vec![vec![]]));
}

#[test]
fn a_release_ends_what_is_held_and_what_waits_and_the_next_one_is_served() {
    let mug = then(
        &on_hand("MUG", 3),
        &[
            reserved("MUG", &[(1, 2)], (1, 1)),
            backordered("MUG", ORDER, &[(2, 4)]),
            backordered("MUG", OTHER_ORDER, &[(1, 3)]),
        ],
    );
    let lines = [line(1, "MUG", 2), line(2, "MUG", 4)];
    let events = when(&[("MUG", &mug)], release(ORDER, &lines)).unwrap();
    let served = filled("MUG", OTHER_ORDER, &[(1, 3)]);
    assert_eq!(events, [vec![released("MUG", &[(1, 2)]), dropped("MUG", ORDER, &[(2, 4)]), served]]);
    let after = then(&mug, &events[0]);
    assert_eq!((pieces(&after), after.waiting.len()), ((3, 3), 0));
    for late in [release(ORDER, &lines), reserve(ORDER, &lines), backorder(ORDER, &lines)] {
        assert_eq!(when(&[("MUG", &after)], late), Ok(vec![vec![]]));
    }
}

// Counting, and what comes back

#[test]
fn a_count_puts_right_what_is_on_hand() {
    for by in [3, -2] {
        let events = when(&[("MUG", &on_hand("MUG", 2))], adjust("MUG", by)).unwrap().concat();
        assert_eq!(events, [adjusted("MUG", by)]);
        assert_eq!(pieces(&then(&on_hand("MUG", 2), &events)).0, 2_u64.saturating_add_signed(by));
    }
}

#[test]
fn what_is_reserved_cannot_be_counted_away() {
    let mug = then(&on_hand("MUG", 5), &[reserved("MUG", &[(1, 2)], (1, 1))]);
    assert!(when(&[("MUG", &mug)], adjust("MUG", -3)).is_ok());
    let refused = Rejection::BelowReserved { sku: sku("MUG"), on_hand: 5, reserved: 2, by: -4 };
    assert_eq!(when(&[("MUG", &mug)], adjust("MUG", -4)), Err(refused));
}

#[test]
fn an_adjustment_by_nothing_or_by_too_much_is_refused() {
    for by in [0, i64::MAX, i64::MIN, MAX_ADJUSTMENT + 1] {
        let faults = vec![Fault::new("by", "1 to 4294967295 pieces more or fewer")];
        assert_eq!(when(&[], adjust("MUG", by)), Err(Rejection::Invalid { faults }), "{by}");
    }
    assert!(when(&[], adjust("MUG", MAX_ADJUSTMENT)).is_ok());
}

#[test]
fn pieces_come_back_once_for_each_thing_that_brings_them() {
    let held = reserved("MUG", &[(1, 2)], (1, 1));
    let mug = then(&on_hand("MUG", 5), &[held, committed("MUG", &[(1, 2)])]);
    let lines = [line(1, "MUG", 1)];
    let events = when(&[("MUG", &mug)], restock(ORDER, 1, &lines)).unwrap().concat();
    let after = then(&mug, &events);
    assert_eq!(pieces(&after), (4, 0));
    assert_eq!(when(&[("MUG", &after)], restock(ORDER, 1, &lines)), Ok(vec![vec![]]));
    // The second part of a return is another receipt.
    let events = when(&[("MUG", &after)], restock(ORDER, 2, &lines)).unwrap().concat();
    assert_eq!(pieces(&then(&after, &events)), (5, 0));
}

// Whatever comes

const SKUS: [&str; 3] = ["HAT", "MUG", "PEN"];
const THIRD_ORDER: OrderId = OrderId(Uuid::from_u128(3));

fn any_command() -> impl Strategy<Value = Command> {
    let an_order = || prop_oneof![Just(ORDER), Just(OTHER_ORDER), Just(THIRD_ORDER)];
    let lines = || {
        // Each line once, of any SKU: even of another than before.
        let some = proptest::sample::subsequence(vec![1, 2, 3, 4], 1..=4);
        (some, proptest::collection::vec((0..SKUS.len(), 1..4_u32), 4)).prop_map(|(numbers, rest)| {
            let pairs = numbers.into_iter().zip(rest);
            pairs.map(|(n, (name, quantity))| line(n, SKUS[name], quantity)).collect::<Vec<_>>()
        })
    };
    prop_oneof![
        2 => (0..SKUS.len(), 0..6_u32).prop_map(|(name, quantity)| receive(SKUS[name], quantity)),
        2 => (0..SKUS.len(), -4..4_i64).prop_map(|(name, by)| adjust(SKUS[name], by)),
        4 => (an_order(), lines()).prop_map(|(order, lines)| reserve(order, &lines)),
        3 => (an_order(), lines()).prop_map(|(order, lines)| backorder(order, &lines)),
        2 => (an_order(), lines()).prop_map(|(order, lines)| commit(order, &lines)),
        2 => (an_order(), lines()).prop_map(|(order, lines)| release(order, &lines)),
        1 => (an_order(), lines()).prop_map(|(order, lines)| expire(order, &lines)),
        1 => (an_order(), 0..3_u128, lines()).prop_map(|(order, n, lines)| restock(order, n, &lines)),
    ]
}

type Stocks = BTreeMap<Sku, Arc<Stock>>;

fn of(stocks: &Stocks, command: &Command) -> Vec<Arc<Stock>> {
    command.skus().iter().map(|sku| stocks.get(sku).cloned().unwrap_or_default()).collect()
}

fn apply(stocks: &mut Stocks, command: &Command, events: &[Vec<Event>]) {
    let before = of(stocks, command);
    for ((sku, stock), events) in command.skus().into_iter().zip(before).zip(events) {
        stocks.insert(sku, Arc::new(then(&*stock, events)));
    }
}

/// What the events say, added up by somebody who knows no state: by SKU what is on hand, and by SKU, order and line what
/// is held, what is waited for, and how often it was reserved and ended.
#[derive(Default)]
struct Books {
    on_hand: BTreeMap<Sku, i64>,
    held: BTreeMap<(Sku, OrderId, LineNo), u32>,
    waiting: Vec<(Sku, OrderId, LineNo, u32)>,
    reserved: BTreeMap<(Sku, OrderId, LineNo), u32>,
    ended: BTreeMap<(Sku, OrderId, LineNo), u32>,
}

impl Books {
    fn enter(&mut self, event: &Event) {
        let (sku, order) = (event.sku().clone(), event.order_id().unwrap_or(ORDER));
        let on_hand = self.on_hand.entry(sku.clone()).or_default();
        match event {
            Event::StockReceived(e) => *on_hand += i64::from(e.quantity),
            Event::StockAdjusted(e) => *on_hand += e.by,
            Event::StockRestocked(e) => *on_hand += e.lines.iter().map(|l| i64::from(l.quantity)).sum::<i64>(),
            Event::StockBackordered(e) => {
                self.waiting.extend(e.lines.iter().map(|l| (sku.clone(), order, l.line, l.quantity)));
            }
            Event::BackorderNeedless(e) => {
                for l in &e.lines {
                    assert_eq!(self.held.get(&(sku.clone(), order, l.line)), Some(&l.quantity), "it is not held");
                }
            }
            Event::BackorderDropped(e) => e.lines.iter().for_each(|l| self.waits_no_more(&sku, order, *l)),
            Event::StockReserved(e) => {
                for l in &e.lines {
                    if e.backorder {
                        let first = self.waiting.iter().find(|w| w.0 == sku).expect("somebody waits");
                        assert_eq!((first.1, first.2, first.3), (order, l.line, l.quantity), "it was not their turn");
                        self.waits_no_more(&sku, order, *l);
                    }
                    let key = (sku.clone(), order, l.line);
                    *self.reserved.entry(key.clone()).or_default() += 1;
                    assert_eq!(self.held.insert(key, l.quantity), None, "held twice");
                }
            }
            Event::StockCommitted(StockCommitted { lines, .. }) => {
                *on_hand -= lines.iter().map(|l| i64::from(l.quantity)).sum::<i64>();
                self.end(&sku, order, lines);
            }
            Event::StockReleased(StockReleased { lines, .. }) | Event::StockExpired(StockExpired { lines, .. }) => {
                self.end(&sku, order, lines);
            }
        }
    }

    fn waits_no_more(&mut self, sku: &Sku, order: OrderId, l: LineQuantity) {
        self.waiting.retain(|w| *w != (sku.clone(), order, l.line, l.quantity));
    }

    fn end(&mut self, sku: &Sku, order: OrderId, lines: &[LineQuantity]) {
        for l in lines {
            let key = (sku.clone(), order, l.line);
            assert_eq!(self.held.remove(&key), Some(l.quantity), "what ended was not held so");
            *self.ended.entry(key).or_default() += 1;
        }
    }
}

proptest! {
    #[test]
    fn every_command_but_what_adds_up_can_be_repeated(commands in proptest::collection::vec(any_command(), 1..40)) {
        let mut stocks = Stocks::new();
        for command in commands {
            let Ok(events) = decide(&command, &of(&stocks, &command)) else { continue };
            apply(&mut stocks, &command, &events);
            if !matches!(command, Command::Receive { .. } | Command::Adjust { .. }) {
                let again = decide(&command, &of(&stocks, &command));
                prop_assert_eq!(again, Ok(vec![vec![]; command.skus().len()]), "{:?} again", command);
            }
        }
    }

    /// Duplicates, however late: everything that ever was accepted comes again when all is over.
    #[test]
    fn what_comes_again_in_the_end_reserves_nothing(commands in proptest::collection::vec(any_command(), 1..40)) {
        let mut stocks = Stocks::new();
        let mut accepted = Vec::new();
        for command in commands {
            let Ok(events) = decide(&command, &of(&stocks, &command)) else { continue };
            apply(&mut stocks, &command, &events);
            let again = matches!(
                command,
                Command::Reserve { .. } | Command::Backorder { .. } | Command::Restock { .. } | Command::Commit { .. }
            );
            if again && !events.concat().is_empty() {
                accepted.push(command);
            }
        }
        for command in accepted {
            let again = decide(&command, &of(&stocks, &command));
            prop_assert_eq!(again, Ok(vec![vec![]; command.skus().len()]), "{:?}, late", command);
        }
    }

    #[test]
    fn invariant_21_nothing_is_oversold_and_every_reservation_ends_once_at_most(
        commands in proptest::collection::vec(any_command(), 1..60),
    ) {
        let (mut stocks, mut books) = (Stocks::new(), Books::default());
        for command in commands {
            let Ok(events) = decide(&command, &of(&stocks, &command)) else { continue };
            apply(&mut stocks, &command, &events);
            // All or nothing, and it says so.
            let parts: Vec<_> = events.concat().into_iter().filter_map(|e| match e {
                Event::StockReserved(e) if !e.backorder => Some((e.part, e.parts)),
                _ => None,
            }).collect();
            let all = parts.len() as u32;
            prop_assert_eq!(parts, (1..=all).map(|part| (part, all)).collect::<Vec<_>>());
            events.concat().iter().for_each(|event| books.enter(event));
            for (sku, stock) in &stocks {
                prop_assert!(stock.reserved() <= stock.on_hand(), "{sku}: {stock:?}");
                let of_sku = |held: &&(Sku, OrderId, LineNo)| held.0 == *sku;
                let held: u64 = books.held.iter().filter(|(key, _)| of_sku(key)).map(|(_, q)| u64::from(*q)).sum();
                prop_assert_eq!(stock.reserved(), held, "{}", sku);
                prop_assert_eq!(stock.on_hand().cast_signed(), books.on_hand.get(sku).copied().unwrap_or_default(), "{}", sku);
                // Nobody waits for what there is.
                let first = books.waiting.iter().find(|w| w.0 == *sku);
                prop_assert!(first.is_none_or(|w| u64::from(w.3) > stock.on_hand() - stock.reserved()), "{sku}");
            }
        }
        for (key, times) in &books.reserved {
            prop_assert_eq!(*times, 1, "{:?} was reserved more than once", key);
            let ended = books.ended.get(key).copied().unwrap_or_default();
            prop_assert_eq!(ended + u32::from(books.held.contains_key(key)), 1, "{:?}", key);
        }
    }
}
