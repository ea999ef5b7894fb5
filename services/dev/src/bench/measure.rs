//! Measuring: clients that ask again as soon as they are answered, for a time; and what many runs come to.

use cli::Failure;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Somebody who asks and waits for the answer.
pub(super) trait Client: Send + 'static {
    /// Asks once; tells how many operations that was.
    fn once(&mut self) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// How long to ask without looking at the clock, and then with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) warmup: Duration,
    pub(super) measured: Duration,
}

/// What one run came to.
pub(super) struct Run {
    pub(super) operations: u64,
    pub(super) elapsed: Duration,
    /// Of each question, in microseconds; empty where nobody asks and waits.
    pub(super) latencies: Histogram<u64>,
}

impl Run {
    pub(super) fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }
}

/// From a microsecond to a minute, to three digits.
pub(super) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|e| Failure::Other(format!("no histogram: {e}")))
}

/// Has all clients ask at once, for as long as `window` says.
pub(super) async fn run<C: Client>(clients: Vec<C>, window: Window) -> Result<Run, Failure> {
    let begin = Instant::now() + window.warmup;
    let end = begin + window.measured;
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let (mut operations, mut latencies) = (0, histogram()?);
            loop {
                let asked = Instant::now();
                if asked >= end {
                    return Ok::<_, Failure>((operations, latencies));
                }
                let done = client.once().await?;
                let answered = Instant::now();
                // What was answered while the clock ran: else the last answers of many clients would all be missing.
                if (begin..end).contains(&answered) {
                    operations += done;
                    latencies.saturating_record((answered - asked).as_micros() as u64);
                }
            }
        });
    }
    let (mut operations, mut latencies) = (0, histogram()?);
    while let Some(ended) = tasks.join_next().await {
        let (own_operations, own_latencies) =
            ended.map_err(|e| Failure::Other(format!("a client has ended: {e}")))??;
        operations += own_operations;
        latencies.add(own_latencies).map_err(|e| Failure::Other(format!("histograms do not add up: {e}")))?;
    }
    Ok(Run { operations, elapsed: window.measured, latencies })
}

/// The middle one; of an even number, the lower of the two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
