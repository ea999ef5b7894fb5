//! What is given back, of what was paid: by pieces, and by captures.

use super::event::{CaptureShare, RefundShare, RoundingMode};
use crate::id::{CaptureId, RefundId};
use crate::money::Amount;
use std::collections::BTreeMap;

/// What falls to the first `pieces` of the `of` pieces that cost `cost` together; all of it to all of them.
///
/// It is `cost * pieces / of`, rounded by `mode`. It never falls as `pieces` grow, so the differences of it are what each
/// piece costs: none is negative, and the last one takes the remainder.
pub(super) fn share(cost: Amount, pieces: u32, of: u32, mode: RoundingMode) -> Amount {
    if pieces >= of {
        return cost;
    }
    let (product, of) = (i128::from(cost.0) * i128::from(pieces), i128::from(of));
    let (whole, rest) = (product / of, product % of);
    let is_up = match mode {
        RoundingMode::Up => rest > 0,
        RoundingMode::Down => false,
        RoundingMode::HalfUp => 2 * rest >= of,
        RoundingMode::HalfEven => 2 * rest > of || 2 * rest == of && whole % 2 == 1,
    };
    // It fits: it is no more than the cost.
    Amount(i64::try_from(whole + i128::from(is_up)).unwrap_or(cost.0))
}

/// Takes `owed` from what was captured and is not refunded, capture by capture.
pub(super) fn take_back(
    captures: &[CaptureShare],
    refunded: &BTreeMap<CaptureId, Amount>,
    mut owed: Amount,
    refund_id: impl Fn(CaptureId) -> RefundId,
) -> Vec<RefundShare> {
    let mut shares = Vec::new();
    for &CaptureShare { payment_id, capture_id, amount: captured } in captures {
        let refunded = refunded.get(&capture_id).copied().unwrap_or_default();
        let amount = owed.min(captured.saturating_sub(refunded));
        if amount > Amount::ZERO {
            owed = owed.saturating_sub(amount);
            shares.push(RefundShare { payment_id, capture_id, refund_id: refund_id(capture_id), amount });
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PaymentId;
    use crate::money::Currency;
    use proptest::prelude::*;
    use uuid::Uuid;

    const MODES: [RoundingMode; 4] =
        [RoundingMode::HalfEven, RoundingMode::HalfUp, RoundingMode::Up, RoundingMode::Down];

    /// What each of `of` pieces is refunded with, one after the other.
    fn pieces(cost: i64, of: u32, mode: RoundingMode) -> Vec<i64> {
        let first = |n| share(Amount(cost), n, of, mode).0;
        (1..=of).map(|n| first(n) - first(n - 1)).collect()
    }

    #[test]
    fn the_last_piece_takes_the_remainder_in_each_rounding_mode() {
        assert_eq!(pieces(1000, 3, RoundingMode::HalfUp), [333, 334, 333]);
        assert_eq!(pieces(1000, 3, RoundingMode::Down), [333, 333, 334]);
        assert_eq!(pieces(1000, 3, RoundingMode::Up), [334, 333, 333]);
        assert_eq!(pieces(5, 2, RoundingMode::HalfUp), [3, 2]);
        assert_eq!(pieces(5, 2, RoundingMode::HalfEven), [2, 3]);
        assert_eq!(pieces(7, 2, RoundingMode::HalfEven), [4, 3]);
        assert_eq!(pieces(0, 2, RoundingMode::Up), [0, 0]);
        assert_eq!(share(Amount(i64::MAX), u32::MAX - 1, u32::MAX, RoundingMode::Up).0, 9_223_372_034_707_292_159);
    }

    fn any_cost() -> impl Strategy<Value = i64> {
        // What ten thousand of the unit is in JPY, EUR and KWD, and what no currency forbids.
        let decimals = ["JPY", "EUR", "KWD"].map(|code| u32::from(code.parse::<Currency>().unwrap().decimals()));
        let up_to = |decimals: u32| 0..=10_000 * 10_i64.pow(decimals);
        prop_oneof![up_to(decimals[0]), up_to(decimals[1]), up_to(decimals[2]), Just(i64::MAX)]
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_line_add_up_to_what_it_cost_and_none_is_negative(cost in any_cost(), of in 1..500_u32) {
            for mode in MODES {
                let pieces = pieces(cost, of, mode);
                prop_assert!(pieces.iter().all(|piece| *piece >= 0), "{:?}", pieces);
                prop_assert_eq!(pieces.iter().sum::<i64>(), cost);
                // No piece is off by a whole unit or more, so nobody is better off with another order of returns.
                let exact = i128::from(cost) / i128::from(of);
                prop_assert!(pieces.iter().all(|piece| (i128::from(*piece) - exact).abs() <= 1), "{:?}", pieces);
            }
        }

        #[test]
        fn what_is_taken_back_adds_up_and_exceeds_no_capture(
            captured in proptest::collection::vec((0..10_000_i64, 0..=100_i64), 0..6),
            owed in 0..60_000_i64,
        ) {
            let capture_id = |n: usize| CaptureId(Uuid::from_u128(n as u128));
            let capture = |(n, (amount, _)): (usize, &(i64, i64))| CaptureShare {
                payment_id: PaymentId(Uuid::nil()),
                capture_id: capture_id(n),
                amount: Amount(*amount),
            };
            let captures: Vec<_> = captured.iter().enumerate().map(capture).collect();
            let before = captured.iter().map(|(amount, percent)| Amount(amount * percent / 100));
            let refunded: BTreeMap<CaptureId, Amount> = before.enumerate().map(|(n, amount)| (capture_id(n), amount)).collect();
            let left: i64 = captures.iter().map(|c| c.amount.0 - refunded[&c.capture_id].0).sum();
            let taken = take_back(&captures, &refunded, Amount(owed), RefundId::of_shipment);
            prop_assert_eq!(taken.iter().map(|share| share.amount.0).sum::<i64>(), owed.min(left));
            for RefundShare { capture_id, refund_id, amount, .. } in taken {
                let capture = captures.iter().find(|c| c.capture_id == capture_id).unwrap();
                prop_assert!(amount > Amount::ZERO && amount.0 + refunded[&capture_id].0 <= capture.amount.0);
                prop_assert_eq!(refund_id, RefundId::of_shipment(capture_id));
            }
        }
    }
}
