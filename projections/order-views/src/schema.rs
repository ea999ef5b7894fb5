//! The order domain's part of the schema.

use std::sync::LazyLock;
use store::schema::Part;

/// The categories and read models of orders, and what their services keep.
pub static ORDERS: LazyLock<Part> = LazyLock::new(|| Part::new("orders", sqlx::migrate!("../../migrations/orders")));
