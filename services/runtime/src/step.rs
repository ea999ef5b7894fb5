//! The shape of every loop: one step at a time, and a separate run that repeats it.

use crate::alarm::Alarm;
use crate::backoff::Backoff;
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
/// The pauses after errors, from the first to the longest.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(5);
/// The pauses before what is not as expected is looked at for the third time, and for the hundredth: another process may go
/// away that was faster until then.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_secs(1);

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

/// Steps until `shutdown`; the step under way is finished. After an error it waits, longer after each further one: also if
/// steps in between do something.
pub async fn run(mut looped: impl Step, shutdown: CancellationToken) {
    let mut errors = Backoff::new(FIRST_DELAY, FIRST_DELAY, LAST_DELAY);
    let mut looks = Backoff::new(Duration::ZERO, FIRST_LOOK, LAST_LOOK);
    let mut told = Told::default();
    while !shutdown.is_cancelled() {
        let step = tokio::time::timeout(DEADLINE, looped.step()).await;
        let pause = match step.map_err(|_| "no answer in time".to_owned()).and_then(|s| s.map_err(|e| e.to_string())) {
            Ok(Outcome::Again) => Some(looks.pause()),
            Ok(outcome) => {
                errors.went_well();
                looks.went_well();
                match (outcome, looped.rest()) {
                    (Outcome::Worked(_), Duration::ZERO) => continue,
                    (Outcome::Worked(_), rest) => Some(rest),
                    _ => None,
                }
            }
            Err(e) => {
                if told.is_news(&e) {
                    tracing::warn!(name = looped.name(), error = %e, "a step failed: trying again");
                }
                Some(errors.pause())
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

    type Stepped = (Instant, Result<Outcome, String>);

    /// Comes to one outcome after another, over and over again.
    struct Scripted {
        outcomes: Vec<Result<Outcome, String>>,
        /// When it stepped, and to what that came.
        steps: Arc<Mutex<Vec<Stepped>>>,
        shutdown: CancellationToken,
    }

    impl Step for Scripted {
        type Error = String;

        fn name(&self) -> &'static str {
            "scripted"
        }

        async fn step(&mut self) -> Result<Outcome, String> {
            let mut steps = self.steps.lock().unwrap();
            let outcome = self.outcomes[steps.len() % self.outcomes.len()].clone();
            steps.push((Instant::now(), outcome.clone()));
            if steps.len() == 12 * self.outcomes.len() {
                self.shutdown.cancel();
            }
            outcome
        }

        async fn wait(&mut self) {}
    }

    /// How many milliseconds lie between the steps that come to `troubled`, of a loop that comes to `outcomes`.
    async fn pauses(outcomes: Vec<Result<Outcome, String>>, troubled: &Result<Outcome, String>) -> Vec<u128> {
        let (steps, shutdown) = (Arc::default(), CancellationToken::new());
        run(Scripted { outcomes, steps: Arc::clone(&steps), shutdown: shutdown.clone() }, shutdown).await;
        let steps = steps.lock().unwrap();
        let troubled: Vec<Instant> = steps.iter().filter(|(_, to)| to == troubled).map(|(at, _)| *at).collect();
        troubled.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect()
    }

    const LOOKS: [u128; 11] = [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000];
    const DELAYS: [u128; 11] = [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000];

    /// No loop is without rest, whatever comes in.
    #[tokio::test(start_paused = true)]
    async fn what_is_never_as_expected_is_looked_at_less_and_less_often() {
        let again = Ok(Outcome::Again);
        assert_eq!(pauses(vec![again.clone()], &again).await, LOOKS);
        let failed = Err("no".to_owned());
        assert_eq!(pauses(vec![failed.clone()], &failed).await, DELAYS);
    }

    /// A relay that is slower than another one each time does something in between.
    #[tokio::test(start_paused = true)]
    async fn what_is_not_as_expected_every_other_time_is_looked_at_less_and_less_often() {
        let (again, failed) = (Ok(Outcome::Again), Err("no".to_owned()));
        for between in [Outcome::Worked(1), Outcome::Idle] {
            assert_eq!(pauses(vec![again.clone(), Ok(between)], &again).await, LOOKS);
            assert_eq!(pauses(vec![failed.clone(), Ok(between)], &failed).await, DELAYS);
        }
    }

    #[test]
    fn an_error_is_told_again_when_it_is_another_one() {
        let mut told = Told::default();
        let news = ["a", "a", "b", "b", "a"].map(|error| told.is_news(error));
        assert_eq!(news, [true, false, true, false, true]);
    }
}
