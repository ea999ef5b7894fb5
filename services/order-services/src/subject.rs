//! The subjects of what the order domain calls outside.

/// The payment provider's contract: `daybook.provider.v1.authorise`, `.capture`, `.void`, `.refund`, `.lookup`.
pub const PROVIDER: &str = "daybook.provider.v1";

/// Where a notice to a customer is delivered.
pub const NOTIFY: &str = "daybook.notify.v1";
