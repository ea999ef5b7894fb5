//! Clocks: this process's against Postgres', and Postgres' against the last stamp in the log.
//!
//! Postgres' clock stamps events, and times leases. So nothing is recorded while it and the process's clock differ: one of
//! them is wrong, and it is unknown which. Stamps never fall: after a clock that was ahead, they stay where it was until the
//! clock has caught up.

use crate::finding::{Finding, Level};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use std::time::Duration;

/// How far the clocks of Postgres and of a process may be apart by default.
pub const TOLERANCE: Duration = Duration::from_secs(5);

/// The SQLSTATE of `check_clock`.
const CLOCKS_DIFFER: &str = "YH002";

/// Checks that the clocks agree within `tolerance`.
///
/// # Errors
/// When they do not (see [`differ`]), or Postgres cannot be asked.
pub async fn check(pool: &PgPool, tolerance: Duration) -> Result<(), sqlx::Error> {
    // The wait for a connection is no difference of clocks.
    let mut on = pool.acquire().await?;
    sqlx::query!("SELECT daybook.check_clock($1, $2)", Utc::now(), tolerance.as_secs_f64()).execute(&mut *on).await?;
    Ok(())
}

/// Whether a statement was refused because the clocks differ.
pub fn differ(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == CLOCKS_DIFFER)
}

/// What is wrong with the clocks.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is recorded until they agree.
    #[error(
        "Postgres' clock is {} that of this machine: nothing is recorded and no timer fires until they agree. Set the \
         clocks of both, by NTP for example", apart(*ahead)
    )]
    ClocksDiffer {
        /// By how much Postgres' clock is ahead; negative if it is behind.
        ahead: TimeDelta,
    },
    /// What is recorded is stamped with the time of the last event, until the clock has caught up.
    #[error(
        "the last event is stamped {recorded_at}, which is {} Postgres' clock: what is recorded carries that time on until \
         the clock has come there. If the clock is wrong, set it, by NTP for example", apart(*ahead)
    )]
    StampAhead {
        /// The time of the last event.
        recorded_at: DateTime<Utc>,
        /// By how much it is ahead of Postgres' clock.
        ahead: TimeDelta,
    },
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Self {
        let level = match fault {
            Fault::ClocksDiffer { .. } => Level::Wrong,
            Fault::StampAhead { .. } => Level::Warning,
        };
        // Its text says what to do.
        Self { level, subject: "clock", text: fault.to_string(), remedy: String::new() }
    }
}

fn apart(ahead: TimeDelta) -> String {
    let seconds = ahead.as_seconds_f64();
    format!("{:.1} s {}", seconds.abs(), if seconds > 0.0 { "ahead of" } else { "behind" })
}

/// What is wrong with the clocks of Postgres, this process and the log; empty if nothing is.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn faults(pool: &PgPool, tolerance: Duration) -> Result<Vec<Fault>, sqlx::Error> {
    let tolerance = TimeDelta::from_std(tolerance).unwrap_or(TimeDelta::MAX);
    // So that it is only the way there and back that is measured.
    let mut connection = pool.acquire().await?;
    let before = Utc::now();
    let told = sqlx::query!(
        r#"SELECT clock_timestamp() AS "clock!",
                  (SELECT recorded_at FROM daybook.events ORDER BY position DESC LIMIT 1) AS last"#
    );
    let told = told.fetch_one(&mut *connection).await?;
    let after = Utc::now();
    // It was read somewhere in between.
    let ahead = told.clock - told.clock.clamp(before.min(after), after.max(before));
    let mut faults = Vec::new();
    if ahead.abs() > tolerance {
        faults.push(Fault::ClocksDiffer { ahead });
    }
    if let Some(recorded_at) = told.last.filter(|last| *last - told.clock > tolerance) {
        faults.push(Fault::StampAhead { recorded_at, ahead: recorded_at - told.clock });
    }
    Ok(faults)
}
