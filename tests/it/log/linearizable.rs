//! Invariant 7: what several clients of two processes are told, all at once, could have been told to them one after the
//! other, in an order that breaks no "before" of theirs. Histories are recorded and checked.

#[path = "../../../store/tests/it/linearizable/checker.rs"]
mod checker;
mod commands;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// The seeds of the histories: the one in `SEED`, or as many new ones as `HISTORIES` says.
fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    match number("SEED") {
        Some(seed) => vec![seed],
        None => (0..number("HISTORIES").unwrap_or(60)).map(|_| rand::random()).collect(),
    }
}

fn seeded(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
