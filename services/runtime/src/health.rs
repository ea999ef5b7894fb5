//! How each projection does, and the relay: how far it is, how fast, and whether somebody has to look at it. All times are of
//! Postgres' clock, so it makes no difference who asks.

use engine::status::{self, Status};
use engine::{Domain, Projection, distribution};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;
use store::{Position, lease};

/// How long the rate is measured, for a person or a program that asks.
pub const SAMPLE: Duration = Duration::from_secs(1);
/// How long one that has its lease and something to do may stand still, in seconds: a batch takes less than one.
const STANDSTILL: f64 = 10.0;

/// What a projection does, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has all that the log has.
    Current,
    /// It takes events in.
    CatchingUp,
    /// Somebody has paused it.
    Paused,
    /// Its last try failed, and none has succeeded since.
    Stopped,
    /// Nobody has its lease: no process runs it, or the last one ended in an orderly way.
    Unowned,
    /// Its owner has not renewed the lease in time: it was killed, or hangs; or it did so at a time that is still to come, for the
    /// clock has gone back. Or it renews it, but has taken in nothing for ten seconds, though there was something all the while.
    Frozen,
    /// Nobody has its lease, and its rows are of other code than this build's: it has to be replayed.
    OtherVersion,
}

impl State {
    /// The word that it is sent and shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::CatchingUp => "catching_up",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Unowned => "unowned",
            Self::Frozen => "frozen",
            Self::OtherVersion => "other_version",
        }
    }

    /// Whether nobody has to look at it.
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Current | Self::CatchingUp)
    }

    /// `moved` says that it has come further, or to the end, in the time in which it was looked at.
    fn of<D: Domain>(status: &Status, moved: bool) -> Self {
        let ours = Projection::<D>::from_name(&status.projection).map(Projection::version);
        let beats = status.heartbeat_seconds_ago.is_some_and(|ago| ago.abs() <= lease::DURATION.as_secs_f64());
        let stands_still = !moved && age(status.moved_seconds_ago).min(age(status.lag_seconds)) > STANDSTILL;
        match status.heartbeat_seconds_ago {
            _ if status.paused => Self::Paused,
            _ if !beats && ours.is_some_and(|ours| ours != status.version) => Self::OtherVersion,
            _ if status.last_error.is_some() => Self::Stopped,
            None => Self::Unowned,
            Some(_) if !beats || stands_still => Self::Frozen,
            Some(_) if status.lag_events == 0 => Self::Current,
            Some(_) => Self::CatchingUp,
        }
    }
}

/// How old what is stamped so is. A stamp that is still to come is of another clock: so it says nothing, and may be of any age.
fn age(seconds: f64) -> f64 {
    if seconds < -lease::DURATION.as_secs_f64() { f64::INFINITY } else { seconds }
}

/// How the relay does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RelayHealth {
    pub state: State,
    /// The last position that JetStream has acknowledged.
    pub position: Position,
    /// How many events of the log come after it.
    pub lag_events: i64,
    /// How long ago the first of them was recorded.
    pub lag_seconds: f64,
    /// How long ago a relay said that it is there, which it does every second; `None` if none ever has.
    pub heartbeat_seconds_ago: Option<f64>,
    /// What the last try failed with, if none has succeeded since.
    pub last_error: Option<String>,
}

impl RelayHealth {
    fn of(status: Option<distribution::Status>) -> Self {
        let Some(status) = status else {
            let (state, last_error) = (State::Unowned, None);
            return Self {
                state,
                position: 0,
                lag_events: 0,
                lag_seconds: 0.0,
                heartbeat_seconds_ago: None,
                last_error,
            };
        };
        let stands_still = age(status.moved_seconds_ago).min(age(status.lag_seconds)) > STANDSTILL;
        let state = match status.lag_events {
            _ if age(status.told_seconds_ago) > STANDSTILL => State::Frozen,
            _ if status.last_error.is_some() => State::Stopped,
            0 => State::Current,
            _ if stands_still => State::Frozen,
            _ => State::CatchingUp,
        };
        Self {
            state,
            position: status.position,
            lag_events: status.lag_events,
            lag_seconds: status.lag_seconds,
            heartbeat_seconds_ago: Some(status.told_seconds_ago),
            last_error: status.last_error,
        }
    }
}

/// How the relay does.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn relay(pool: &PgPool) -> Result<RelayHealth, sqlx::Error> {
    distribution::status(pool).await.map(RelayHealth::of)
}

/// How a projection does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub projection: String,
    pub state: State,
    pub position: Position,
    /// Of the code that has folded its rows.
    pub version: i16,
    /// How many events of the log it does not have.
    pub lag_events: i64,
    /// How long ago the first of them was recorded.
    pub lag_seconds: f64,
    /// How many it takes in now.
    pub events_per_second: f64,
    /// Until it has all there is now; `None` if it does not move.
    pub seconds_left: Option<f64>,
    /// How long ago its owner said that it is there, which it does every second; `None` if it has no owner.
    pub heartbeat_seconds_ago: Option<f64>,
    /// How many events it cannot take in, with those that wait behind them.
    pub parked: i64,
    /// What the last try failed with, if none has succeeded since.
    pub last_error: Option<String>,
    /// How far a rebuild has come, if there is one.
    pub rebuilt_to: Option<Position>,
    /// Whether there are rows to go back to.
    pub kept: bool,
}

impl Health {
    fn of<D: Domain>(status: Status, events_per_second: f64, moved: bool) -> Self {
        let seconds_left = match status.lag_events {
            0 => Some(0.0),
            lag if events_per_second > 0.0 => Some((lag as f64 / events_per_second).ceil()),
            _ => None,
        };
        Self {
            state: State::of::<D>(&status, moved),
            projection: status.projection,
            position: status.position,
            version: status.version,
            lag_events: status.lag_events,
            lag_seconds: status.lag_seconds,
            events_per_second,
            seconds_left,
            heartbeat_seconds_ago: status.heartbeat_seconds_ago,
            parked: status.parked,
            last_error: status.last_error,
            rebuilt_to: status.rebuilt_to,
            kept: status.kept,
        }
    }
}

/// How all projections of the log do, in order of their names; rows of the domain are compared with this build's code. It takes as long as their rates are measured.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn projections<D: Domain>(pool: &PgPool, sample: Duration) -> Result<Vec<Health>, sqlx::Error> {
    let before = status::projections(pool).await?;
    tokio::time::sleep(sample).await;
    let now = status::projections(pool).await?;
    let health = now.into_iter().map(|status| {
        let before = before.iter().find(|before| before.projection == status.projection);
        let moved = before.map_or(0, |before| status.position - before.position).max(0);
        let rate = if moved > 0 { moved as f64 / sample.as_secs_f64() } else { 0.0 };
        let waits = before.is_some_and(|before| before.lag_events > 0 && before.position == status.position);
        Health::of::<D>(status, rate, !waits)
    });
    Ok(health.collect())
}
