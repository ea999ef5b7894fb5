//! On how many servers of a cluster JetStream keeps the stream. The log is in Postgres: so the stream is rather kept on fewer
//! servers than not at all, and on more as soon as they are there.
//!
//! Relays only raise the number. So those of two settings do not undo, over and over again, what the other one did: the larger
//! setting decides. An operator lowers it, with `daybook reconcile`.

use super::{Relay, RelayError};
use crate::backoff::Backoff;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::Config;
use std::iter;
use std::time::Duration;
use tokio::time::Instant;

/// The pauses after tries to raise the number, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Who decides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Relay,
    /// The number may also be lowered.
    Operator,
}

pub(super) struct Replicas {
    /// `None` leaves the number as it is; a new stream has one.
    wanted: Option<usize>,
    /// The number is not raised before.
    not_before: Instant,
    pauses: Backoff,
    /// It has been told that there are fewer than wanted.
    told: bool,
}

impl Replicas {
    pub(super) fn new(wanted: Option<usize>) -> Self {
        let pauses = Backoff::new(FIRST_PAUSE, FIRST_PAUSE, LAST_PAUSE);
        Self { wanted, not_before: Instant::now(), pauses, told: false }
    }

    /// What is tried, in this order: the number that is wanted, and then the odd ones below. An even one costs a server and
    /// survives the loss of no more.
    fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        let wanted = self.wanted.unwrap_or(1);
        iter::once(wanted).chain((1..wanted).rev().filter(|number| number % 2 == 1))
    }

    fn refused(&mut self, found: usize, why: &str) {
        self.not_before = Instant::now() + self.pauses.pause();
        if !std::mem::replace(&mut self.told, true) {
            let wanted = self.wanted;
            tracing::warn!(
                wanted,
                found,
                why,
                "the stream is kept on fewer servers than NATS_REPLICAS says, and on more once they are there: is a server of \
                 the cluster missing, or is the cluster too small?"
            );
        }
    }
}

impl Relay {
    /// Makes the stream, on as many servers as can be had.
    pub(super) async fn create_stream(&mut self, config: Config) -> Result<(), RelayError> {
        let mut refused: Option<String> = None;
        for num_replicas in self.replicas.numbers() {
            match self.jetstream.create_stream(Config { num_replicas, ..config.clone() }).await {
                Ok(_) => {
                    if let Some(why) = refused {
                        self.replicas.refused(num_replicas, &why);
                    }
                    return Ok(());
                }
                // Another relay was faster.
                Err(e) if is_refused(&e, Some(ErrorCode::STREAM_NAME_EXIST)) => return Ok(()),
                Err(e) if num_replicas > 1 && is_refused(&e, None) => refused = refused.or(Some(e.to_string())),
                Err(e) => return Err(RelayError::JetStream(e.to_string())),
            }
        }
        Ok(())
    }

    /// Has the stream kept on as many servers as is wanted, or on more than now if not on as many.
    pub(super) async fn keep_replicas(&mut self, config: &Config, by: By) {
        let found = config.num_replicas;
        let Some(wanted) = self.replicas.wanted.filter(|wanted| *wanted != found) else { return };
        let may = match by {
            By::Relay => found < wanted && self.replicas.not_before <= Instant::now(),
            By::Operator => true,
        };
        if !may {
            return;
        }
        let mut refused: Option<String> = None;
        for num_replicas in self.replicas.numbers().filter(|number| *number == wanted || *number > found) {
            match self.jetstream.update_stream(Config { num_replicas, ..config.clone() }).await {
                Ok(_) => {
                    tracing::info!(num_replicas, found, "the stream is kept on another number of servers from now on");
                    return;
                }
                Err(error) => refused = refused.or(Some(error.to_string())),
            }
        }
        if let Some(why) = refused {
            self.replicas.refused(found, &why);
        }
    }
}

/// Whether JetStream has answered that it does not do it: for this reason, if one is named.
fn is_refused(error: &CreateStreamError, reason: Option<ErrorCode>) -> bool {
    match error.kind() {
        CreateStreamErrorKind::JetStream(e) => reason.is_none_or(|reason| e.error_code() == reason),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_tried_first() {
        let numbers = |wanted| Replicas::new(wanted).numbers().collect::<Vec<_>>();
        assert_eq!([numbers(None), numbers(Some(1))], [[1], [1]]);
        assert_eq!((numbers(Some(3)), numbers(Some(4)), numbers(Some(5))), (vec![3, 1], vec![4, 3, 1], vec![5, 3, 1]));
    }
}
