//! What somebody has to be told, and not a hundred times a second.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// Rings once a minute, however often there is a reason.
#[derive(Debug, Default)]
pub struct Alarm {
    rung: Option<Instant>,
}

impl Alarm {
    /// Whether it is to be told now.
    pub fn rings(&mut self) -> bool {
        let rings = self.rung.is_none_or(|rung| rung.elapsed() >= PAUSE);
        if rings {
            self.rung = Some(Instant::now());
        }
        rings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_once_a_minute() {
        let mut alarm = Alarm::default();
        assert_eq!([alarm.rings(), alarm.rings(), alarm.rings()], [true, false, false]);
        alarm.rung = Instant::now().checked_sub(PAUSE);
        assert_eq!([alarm.rings(), alarm.rings()], [true, false]);
    }
}
