//! The shape of every loop: one step at a time, and a separate run that repeats it.

use crate::alarm::Alarm;
use std::fmt::Display;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did this much, and there may be more.
    Worked(usize),
    /// There was nothing to do.
    Idle,
    /// It was not as expected, and is to be looked at again: at once, and if that recurs, after longer and longer pauses.
    Again,
}

/// A loop of the system, as steps that a test can drive.
pub trait Step: Send {
    type Error: Display + Send;

    /// For the log.
    fn name(&self) -> &'static str;

    /// Does what there is to do now, or a part of it.
    fn step(&mut self) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Returns when there may be something to do again. It may be dropped at any time.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;

    /// How long the loop rests after a step that did something, so that the next one does more at once.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// Gives back what it holds, when the loop ends in an orderly way.
    fn end(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// How long a step may take: a server that neither answers nor goes away must not stop a loop for ever. A step that is
/// given up has written nothing, or what it wrote is found by the next one.
const DEADLINE: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(5);
/// The pause before the third look in a row at what is not as expected. It doubles with each one more …
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// … up to this: another process may go away that was faster until then.
const LAST_LOOK: Duration = Duration::from_secs(1);

fn next_look(look: Duration) -> Duration {
    (look * 2).clamp(FIRST_LOOK, LAST_LOOK)
}

/// The last error that was told. What stands still for hours says so once a minute, and not at every try.
#[derive(Default)]
struct Told {
    error: String,
    alarm: Alarm,
}

impl Told {
    fn is_news(&mut self, error: &str) -> bool {
        if self.error != error {
            *self = Self { error: error.to_owned(), alarm: Alarm::default() };
        }
        self.alarm.rings().is_some()
    }
}

/// Steps until `shutdown`; the step under way is finished. After an error it waits, longer after each further one.
pub async fn run(mut looped: impl Step, shutdown: CancellationToken) {
    let (mut delay, mut look, mut told) = (FIRST_DELAY, Duration::ZERO, Told::default());
    while !shutdown.is_cancelled() {
        let step = tokio::time::timeout(DEADLINE, looped.step()).await;
        let pause = match step.map_err(|_| "no answer in time".to_owned()).and_then(|s| s.map_err(|e| e.to_string())) {
            Ok(outcome) => {
                delay = FIRST_DELAY;
                let pause = look;
                look = if outcome == Outcome::Again { next_look(look) } else { Duration::ZERO };
                match (outcome, looped.rest()) {
                    (Outcome::Idle, _) => None,
                    (Outcome::Again, _) => Some(pause),
                    (Outcome::Worked(_), Duration::ZERO) => continue,
                    (Outcome::Worked(_), rest) => Some(rest),
                }
            }
            Err(e) => {
                if told.is_news(&e) {
                    tracing::warn!(name = looped.name(), error = %e, "a step failed: trying again");
                }
                let pause = delay;
                delay = (delay * 2).min(LAST_DELAY);
                Some(pause)
            }
        };
        let waited = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => looped.wait().await,
            }
        };
        shutdown.run_until_cancelled(waited).await;
    }
    looped.end().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::time::Instant;

    /// Something that is never as expected.
    struct Disturbed(Arc<Mutex<Vec<Instant>>>, CancellationToken);

    impl Step for Disturbed {
        type Error = String;

        fn name(&self) -> &'static str {
            "disturbed"
        }

        async fn step(&mut self) -> Result<Outcome, String> {
            let mut steps = self.0.lock().unwrap();
            steps.push(Instant::now());
            if steps.len() == 12 {
                self.1.cancel();
            }
            Ok(Outcome::Again)
        }

        async fn wait(&mut self) {}
    }

    /// No loop is without rest, whatever comes in.
    #[tokio::test(start_paused = true)]
    async fn what_is_never_as_expected_is_looked_at_less_and_less_often() {
        let (steps, shutdown) = (Arc::default(), CancellationToken::new());
        run(Disturbed(Arc::clone(&steps), shutdown.clone()), shutdown).await;
        let steps = steps.lock().unwrap();
        let pauses: Vec<u128> = steps.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    }

    #[test]
    fn an_error_is_told_again_when_it_is_another_one() {
        let mut told = Told::default();
        let news = ["a", "a", "b", "b", "a"].map(|error| told.is_news(error));
        assert_eq!(news, [true, false, true, false, true]);
    }
}
