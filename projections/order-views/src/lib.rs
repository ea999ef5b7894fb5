//! The order domain on the engine: its categories, how its events are stored, and its read models.

#[cfg(test)]
mod counts;
mod domain;
pub mod fulfilment;
pub mod order_history;
pub mod order_summary;
pub mod redact;
pub mod revenue;
pub mod schema;
pub mod stock_level;
pub mod waiting;

pub use domain::{CATEGORIES, ORDER, Orders, PAYMENT, SHIPMENT, STOCK, Stored, encode, follow_up, stream};

/// An event of the log, decoded.
pub type Recorded = engine::Recorded<Orders>;
/// An event as it comes to a projection.
pub type Delivered = engine::Delivered<Orders>;
/// All that is folded from the log for orders.
pub type Projection = engine::Projection<Orders>;

// A new read model is a line here, a migration, a file and a test.
engine::read_models! { Orders:
    OrderSummary(order_summary::OrderSummary),
    StockLevel(stock_level::StockLevel),
    EventIndex(engine::event_index::Positions<Orders>),
    Waiting(waiting::Waits),
    OrderHistory(order_history::Entry),
    Fulfilment(fulfilment::Fulfilment),
    Revenue(revenue::PaymentDay),
}
