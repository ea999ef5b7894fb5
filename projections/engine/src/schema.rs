//! The engine's part of the schema.

use std::sync::LazyLock;
use store::schema::Part;

/// Parked events and dead letters, follow-ups, timers, the event index, the relay's row, copies of read models.
pub static ENGINE: LazyLock<Part> = LazyLock::new(|| Part::new("engine", sqlx::migrate!("../../migrations/engine")));
