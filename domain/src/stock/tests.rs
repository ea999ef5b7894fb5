//! What stock does with every command, over one SKU and several; and that no piece is promised twice.

use super::*;
use crate::testing::*;
use proptest::prelude::*;
use std::sync::Arc;

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
    Command::Reserve { order_id, lines: lines.to_vec(), hold_seconds: 60 }
}

fn commit(order_id: OrderId, lines: &[StockLine]) -> Command {
    Command::Commit { order_id, lines: lines.to_vec() }
}

fn release(order_id: OrderId, lines: &[StockLine]) -> Command {
    Command::Release { order_id, lines: lines.to_vec() }
}

fn quantities(lines: &[(LineNo, u32)]) -> Vec<LineQuantity> {
    lines.iter().map(|&(line, quantity)| LineQuantity { line, quantity }).collect()
}

fn reserved(name: &str, lines: &[(LineNo, u32)], (part, parts): (u32, u32)) -> Event {
    StockReserved { sku: sku(name), order_id: ORDER, lines: quantities(lines), hold_seconds: 60, part, parts }.into()
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
    assert_eq!(events, [vec![], vec![released("MUG", &[(3, 1)])]]);
    assert_eq!(pieces(&then(&mug, &events[1])), (3, 0));
}

#[test]
fn what_is_not_reserved_is_neither_taken_out_nor_given_back() {
    let mug = then(&on_hand("MUG", 5), &[reserved("MUG", &[(1, 2)], (1, 1))]);
    for (order, line_no) in [(OTHER_ORDER, 1), (ORDER, 2)] {
        let lines = [line(line_no, "MUG", 2)];
        assert_eq!(when(&[("MUG", &mug)], commit(order, &lines)), Ok(vec![vec![]]));
        assert_eq!(when(&[("MUG", &mug)], release(order, &lines)), Ok(vec![vec![]]));
    }
}

#[test]
fn a_line_that_is_named_twice_is_refused() {
    let lines = [line(1, "MUG", 1), line(2, "MUG", 1), line(1, "MUG", 1)];
    for command in [reserve(ORDER, &lines), commit(ORDER, &lines), release(ORDER, &lines)] {
        let faults = vec![Fault::new("lines[2].line", "each line once")];
        assert_eq!(when(&[("MUG", &on_hand("MUG", 5))], command), Err(Rejection::Invalid { faults }));
    }
}

/// Stock forgets a reservation that ended, so that its state does not grow with every order ever: what keeps a late
/// duplicate of a reservation from holding again is its command id, which is spent.
#[test]
fn only_its_command_id_keeps_a_reservation_that_ended_from_being_made_again() {
    let lines = [line(1, "MUG", 2)];
    let held = reserved("MUG", &[(1, 2)], (1, 1));
    let ended = then(&on_hand("MUG", 5), &[held.clone(), released("MUG", &[(1, 2)])]);
    assert_eq!(when(&[("MUG", &ended)], reserve(ORDER, &lines)), Ok(vec![vec![held]]));
}

// Whatever comes

const SKUS: [&str; 3] = ["HAT", "MUG", "PEN"];

fn any_command() -> impl Strategy<Value = Command> {
    let an_order = || prop_oneof![Just(ORDER), Just(OTHER_ORDER)];
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
        4 => (an_order(), lines()).prop_map(|(order, lines)| reserve(order, &lines)),
        2 => (an_order(), lines()).prop_map(|(order, lines)| commit(order, &lines)),
        2 => (an_order(), lines()).prop_map(|(order, lines)| release(order, &lines)),
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

proptest! {
    #[test]
    fn every_command_but_a_receipt_can_be_repeated(commands in proptest::collection::vec(any_command(), 1..40)) {
        let mut stocks = Stocks::new();
        for command in commands {
            let Ok(events) = decide(&command, &of(&stocks, &command)) else { continue };
            apply(&mut stocks, &command, &events);
            if !matches!(command, Command::Receive { .. }) {
                let again = decide(&command, &of(&stocks, &command));
                prop_assert_eq!(again, Ok(vec![vec![]; command.skus().len()]), "{:?} again", command);
            }
        }
    }

    #[test]
    fn invariant_21_no_more_is_reserved_than_is_on_hand_and_each_piece_is_accounted_for(
        commands in proptest::collection::vec(any_command(), 1..40),
    ) {
        let mut stocks = Stocks::new();
        let mut expected: BTreeMap<Sku, u64> = BTreeMap::new();
        for command in commands {
            let Ok(events) = decide(&command, &of(&stocks, &command)) else { continue };
            apply(&mut stocks, &command, &events);
            for event in events.concat() {
                match event {
                    Event::StockReceived(e) => *expected.entry(e.sku).or_default() += u64::from(e.quantity),
                    Event::StockCommitted(e) => {
                        let out: u64 = e.lines.iter().map(|l| u64::from(l.quantity)).sum();
                        *expected.entry(e.sku).or_default() -= out;
                    }
                    Event::StockReserved(_) | Event::StockReleased(_) => {}
                }
            }
            for (sku, stock) in &stocks {
                prop_assert!(stock.reserved() <= stock.on_hand(), "{sku}: {stock:?}");
                let held: u64 = stock.reservations.values().flat_map(BTreeMap::values).map(|q| u64::from(*q)).sum();
                prop_assert_eq!(stock.reserved(), held, "{}", sku);
                prop_assert_eq!(stock.on_hand(), expected.get(sku).copied().unwrap_or_default(), "{}", sku);
            }
        }
    }
}
