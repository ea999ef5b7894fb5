//! Warnings about what others can bring about as often as they like.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the same thing is told.
const EVERY: Duration = Duration::from_secs(10);

/// Counts occurrences, and lets them be told once in a while.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    told: Option<Instant>,
    since: u64,
}

impl Seldom {
    /// Counts one. If it is time to tell: how many there were since that was last done, this one included.
    pub(crate) fn count(&self) -> Option<u64> {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.since += 1;
        if counted.told.is_some_and(|told| now.duration_since(told) < EVERY) {
            return None;
        }
        counted.told = Some(now);
        Some(std::mem::take(&mut counted.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_their_number() {
        let (seldom, begun) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.count_at(begun), Some(1));
        assert_eq!(seldom.count_at(begun), None);
        assert_eq!(seldom.count_at(begun + EVERY / 2), None);
        assert_eq!(seldom.count_at(begun + EVERY), Some(3));
        assert_eq!(seldom.count_at(begun + EVERY), None);
    }
}
