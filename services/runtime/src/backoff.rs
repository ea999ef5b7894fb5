//! Pauses that grow for as long as something goes wrong again and again.

use std::time::Duration;
use tokio::time::Instant;

/// How long it must go well until all that went wrong before is forgotten. What goes wrong every other time must not
/// look like something that went wrong once.
const CALM: Duration = Duration::from_secs(10);

/// How long to pause each time that something went wrong: twice as long as the last time.
pub(crate) struct Backoff {
    /// Before the first one is repeated.
    initial: Duration,
    /// The shortest of those after it, and the longest.
    range: (Duration, Duration),
    next: Duration,
    /// Since when it has gone well; `None` if it has not since the last pause.
    well_since: Option<Instant>,
}

impl Backoff {
    pub(crate) const fn new(initial: Duration, shortest: Duration, longest: Duration) -> Self {
        Self { initial, range: (shortest, longest), next: initial, well_since: None }
    }

    pub(crate) fn went_well(&mut self) {
        self.well_since.get_or_insert_with(Instant::now);
    }

    /// It went wrong: how long to pause.
    pub(crate) fn pause(&mut self) -> Duration {
        if self.well_since.take().is_some_and(|since| since.elapsed() >= CALM) {
            self.next = self.initial;
        }
        let (pause, (shortest, longest)) = (self.next, self.range);
        self.next = (pause * 2).clamp(shortest, longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_went_wrong_is_forgotten_when_it_has_gone_well_for_a_while() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(4));
        let mut backoff = Backoff::new(Duration::ZERO, short, long);
        assert_eq!([(); 5].map(|()| backoff.pause().as_secs()), [0, 1, 2, 4, 4]);
        // It has gone well for a moment, and then not: that is no calm.
        tokio::time::advance(CALM).await;
        backoff.went_well();
        tokio::time::advance(CALM - short).await;
        backoff.went_well();
        assert_eq!(backoff.pause(), long);
        backoff.went_well();
        tokio::time::advance(CALM).await;
        assert_eq!([(); 3].map(|()| backoff.pause().as_secs()), [0, 1, 2]);
    }
}
