//! How often the relay makes the stream anew because others have published into it. Each time costs an epoch, and keeps what
//! they published: they must not be able to have that done without an end.

use std::time::{Duration, Instant};

/// How many times may follow on each other.
const AT_ONCE: u32 = 30;
/// How long it takes until one more is free.
pub(super) const EVERY: Duration = Duration::from_secs(5);

pub(super) struct Mending {
    free: u32,
    /// When the last of `free` was added.
    since: Instant,
}

impl Default for Mending {
    fn default() -> Self {
        Self { free: AT_ONCE, since: Instant::now() }
    }
}

impl Mending {
    /// Whether it may be done now. Then that counts.
    pub(super) fn may_begin(&mut self) -> bool {
        self.may_begin_at(Instant::now())
    }

    fn may_begin_at(&mut self, now: Instant) -> bool {
        let added = (now.duration_since(self.since).as_secs() / EVERY.as_secs()) as u32;
        if added > 0 {
            self.free = self.free.saturating_add(added).min(AT_ONCE);
            self.since = now;
        }
        let may = self.free > 0;
        self.free = self.free.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_done_without_an_end() {
        let (mut mending, begun) = (Mending::default(), Instant::now());
        assert_eq!((0..100).filter(|_| mending.may_begin_at(begun)).count(), AT_ONCE as usize);
        assert!(mending.may_begin_at(begun + EVERY) && !mending.may_begin_at(begun + EVERY));
        assert_eq!((0..100).filter(|_| mending.may_begin_at(begun + EVERY * 1000)).count(), AT_ONCE as usize);
    }
}
