//! What a run is made of: the order, the stock, and what everybody does with it, and when.

use super::*;

#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) order: PlaceOrder,
    /// By SKU, in the order of their names.
    pub(super) on_hand: Vec<u32>,
    pub(super) mood: Mood,
    pub(super) people: People,
    /// What is asked without a reason in the order, each after so many deliveries.
    pub(super) asks: Vec<(usize, Ask)>,
    /// After how many deliveries at the earliest the timers of each of [`TIMERS`] fire, if at all.
    pub(super) timers: Vec<Option<usize>>,
    /// What is delivered next, and whether it stays in the bag to be delivered again; over and over.
    pub(super) picks: Vec<(Index, bool)>,
}

/// What the provider does.
#[derive(Debug, Clone)]
pub(super) struct Mood {
    /// Whether it authorises each payment.
    pub(super) approves: Vec<bool>,
    /// Whether it hands over what is captured first, the next one last.
    pub(super) captures: Vec<bool>,
    /// What it does with its first calls instead of answering them, the next one last.
    pub(super) silences: Vec<Option<Silence>>,
    /// Whether it tells by itself what it answers.
    pub(super) notices: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Silence {
    /// Done, and not answered.
    After,
    /// Not done.
    Before,
    /// Done, and answered when nobody waits for it any more.
    Late,
}

/// What those do who wait for something to happen to the order.
#[derive(Debug, Clone)]
pub(super) struct People {
    /// Whether the approver grants, if it decides.
    pub(super) grants: Option<bool>,
    /// Whether somebody sees to what the order is on hold for.
    pub(super) releases: bool,
    pub(super) edit: Option<Edit>,
    /// After how many deliveries the warehouse begins to ship.
    pub(super) ships_after: usize,
    /// What becomes of each shipment.
    pub(super) parcels: Vec<Parcel>,
    /// Of which lines that have arrived one piece after the other comes back.
    pub(super) returns: Vec<bool>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Parcel {
    Arrives,
    IsLost,
    ComesBack,
}

/// What the customer would rather have once the order is confirmed.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) remove: Option<Index>,
    pub(super) add: Vec<PlaceLine>,
    pub(super) is_confirmed: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Ask {
    Cancel,
    CancelLine(Index),
    ChangeAddress,
    Hold,
    Approval,
    /// What the customer would rather have, once more.
    Edit,
    /// The edit of this number.
    DiscardEdit(u32),
    /// Ten pieces of each SKU come in.
    Receive,
    /// A piece of each SKU is broken.
    Damage,
}

/// The kinds of timers that there are.
pub(super) const TIMERS: [&str; 4] =
    ["expire_order", "time_out_approval", "expire_authorisation", "expire_reservation"];

pub(super) const SKUS: [&str; 4] = ["BAG", "HAT", "MUG", "PEN"];

/// How many payments an order and its edits have at most, but for very fickle customers.
pub(super) const PAYMENTS: usize = 5;

pub(super) fn any_script() -> impl Strategy<Value = Script> {
    // Plenty is the rule, for most of what can go wrong comes after it.
    let on_hand = prop_oneof![2 => Just(vec![20; 4]), 1 => vec(0..9_u32, 4)];
    let moment = || 0..100_usize;
    let timer = move || prop_oneof![5 => Just(None), 1 => moment().prop_map(Some)];
    let picks = vec((any::<Index>(), proptest::bool::weighted(0.3)), 1..120);
    let asks = vec((moment(), any_ask()), 0..4);
    (any_placed(), on_hand, any_mood(), any_people(), asks, vec(timer(), TIMERS.len()), picks).prop_map(
        |(order, on_hand, mood, people, asks, timers, picks)| Script {
            order,
            on_hand,
            mood,
            people,
            asks,
            timers,
            picks,
        },
    )
}

fn any_placed() -> impl Strategy<Value = PlaceOrder> {
    (any_order(), any::<bool>(), proptest::bool::weighted(0.2)).prop_map(|(order, backorder, is_approved)| PlaceOrder {
        backorder,
        approval_within_seconds: is_approved.then_some(60),
        ..order
    })
}

fn any_mood() -> impl Strategy<Value = Mood> {
    let often = || prop_oneof![3 => Just(vec![true; PAYMENTS]), 1 => vec(any::<bool>(), PAYMENTS)];
    let silence = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Silence::After)),
        1 => Just(Some(Silence::Before)),
        1 => Just(Some(Silence::Late)),
    ];
    (often(), often(), vec(silence, 8), proptest::bool::weighted(0.2))
        .prop_map(|(approves, captures, silences, notices)| Mood { approves, captures, silences, notices })
}

fn any_people() -> impl Strategy<Value = People> {
    let grants = prop_oneof![3 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
    let parcel = prop_oneof![4 => Just(Parcel::Arrives), 1 => Just(Parcel::IsLost), 1 => Just(Parcel::ComesBack)];
    let ships_after = prop_oneof![1 => Just(0), 2 => 0..100_usize];
    let returns = prop_oneof![1 => Just(vec![false; 10]), 1 => vec(any::<bool>(), 10)];
    (grants, proptest::bool::weighted(0.8), proptest::option::of(any_edit()), ships_after, vec(parcel, 4), returns)
        .prop_map(|(grants, releases, edit, ships_after, parcels, returns)| People {
            grants,
            releases,
            edit,
            ships_after,
            parcels,
            returns,
        })
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let added = (0..4_usize, 0..4_u128, 1..4_u32, 0..200_i64).prop_map(|(name, seller, quantity, price)| {
        line(SKUS[name], SellerId(Uuid::from_u128(10 + seller)), quantity, price)
    });
    (proptest::option::of(any::<Index>()), vec(added, 0..3), proptest::bool::weighted(0.8))
        .prop_map(|(remove, add, is_confirmed)| Edit { remove, add, is_confirmed })
}

fn any_ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        2 => Just(Ask::Cancel),
        3 => any::<Index>().prop_map(Ask::CancelLine),
        1 => Just(Ask::ChangeAddress),
        2 => Just(Ask::Hold),
        1 => Just(Ask::Approval),
        1 => Just(Ask::Edit),
        1 => (1..3_u32).prop_map(Ask::DiscardEdit),
        2 => Just(Ask::Receive),
        1 => Just(Ask::Damage),
    ]
}
