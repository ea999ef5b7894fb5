//! The parts of the schema that are built on the log.

use std::sync::LazyLock;
use store::schema::Part;

/// Parked events and dead letters, follow-ups, timers, the relay's row, copies of read models.
pub static ENGINE: LazyLock<Part> = LazyLock::new(|| Part::new("engine", sqlx::migrate!("../migrations/engine")));
/// The categories and read models of orders, and what their services keep.
pub static ORDERS: LazyLock<Part> = LazyLock::new(|| Part::new("orders", sqlx::migrate!("../migrations/orders")));

/// All of them, in the order in which they are made: each may refer to those before it.
pub fn parts() -> [&'static Part; 2] {
    [&ENGINE, &ORDERS]
}
