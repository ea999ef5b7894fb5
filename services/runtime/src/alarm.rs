//! Warnings that would be logged a hundred times a second are logged once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// Rings once a minute, however often there is a reason, and counts the reasons.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    rung: Option<Instant>,
    since: u64,
}

impl Alarm {
    /// Counts a reason. If it is to be told now: how many there were since that was last done, this one included.
    pub(crate) fn rings(&self) -> Option<u64> {
        self.rings_at(Instant::now())
    }

    fn rings_at(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.since += 1;
        if counted.rung.is_some_and(|rung| now.duration_since(rung) < PAUSE) {
            return None;
        }
        counted.rung = Some(now);
        Some(std::mem::take(&mut counted.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_once_a_minute_with_the_number_of_reasons() {
        let (alarm, begun) = (Alarm::default(), Instant::now());
        assert_eq!(alarm.rings_at(begun), Some(1));
        assert_eq!(alarm.rings_at(begun), None);
        assert_eq!(alarm.rings_at(begun + PAUSE / 2), None);
        assert_eq!(alarm.rings_at(begun + PAUSE), Some(3));
        assert_eq!(alarm.rings_at(begun + PAUSE), None);
    }
}
