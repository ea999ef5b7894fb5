//! Every name that Daybook has in NATS.

use domain::Event;
use uuid::Uuid;

/// The JetStream stream that carries the log.
pub const STREAM: &str = "DAYBOOK";

/// All events.
pub const EVENTS: &str = "daybook.evt.v1.>";

/// Commands, one subject a verb: `daybook.cmd.v1.order.place`.
pub const COMMANDS: &str = "daybook.cmd.v1";

/// Queries, one subject a verb: `daybook.qry.v1.order_summary.get`.
pub const QUERIES: &str = "daybook.qry.v1";

/// The payment provider's contract: `daybook.provider.v1.authorise`, `.capture`, `.void`.
pub const PROVIDER: &str = "daybook.provider.v1";

/// Where a notice to a customer is delivered.
pub const NOTIFY: &str = "daybook.notify.v1";

/// Says that the log has grown. A hint: whoever misses it looks for itself.
pub const HEAD_HINT: &str = "daybook.hint.v1.head";

/// `daybook.evt.v1.<category>.<id>.<Type>`
pub fn event(category: &str, id: Uuid, event_type: &str) -> String {
    format!("daybook.evt.v1.{category}.{id}.{event_type}")
}

/// The events of one type, of all streams of its category.
pub fn events_of_type(category: &str, event_type: &str) -> String {
    format!("daybook.evt.v1.{category}.*.{event_type}")
}

/// The subject of an event of the domain.
pub fn of(event: &Event) -> String {
    self::event(event.category(), event.stream_id(), event.event_type())
}
