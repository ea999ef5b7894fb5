//! Every name that Daybook has in NATS.

use crate::codec;
use store::StreamId;

/// The JetStream stream that carries the log.
pub const STREAM: &str = "DAYBOOK";

/// All events.
pub const EVENTS: &str = "daybook.evt.v1.>";

/// Commands, one subject a verb: `daybook.cmd.v1.order.place`.
pub const COMMANDS: &str = "daybook.cmd.v1";

/// Queries, one subject a verb: `daybook.qry.v1.order_summary.get`.
pub const QUERIES: &str = "daybook.qry.v1";

/// The payment provider's contract: `daybook.provider.v1.authorise`, `.capture`, `.void`, `.refund`, `.lookup`.
pub const PROVIDER: &str = "daybook.provider.v1";

/// Where a notice to a customer is delivered.
pub const NOTIFY: &str = "daybook.notify.v1";

/// Says that the log has grown. A hint: whoever misses it looks for itself.
pub const HEAD_HINT: &str = "daybook.hint.v1.head";

/// `daybook.evt.v1.<category>.<id>.<Type>`
pub fn event(stream: StreamId, event_type: &str) -> String {
    format!("daybook.evt.v1.{}.{}.{event_type}", stream.category.name, stream.id)
}

/// The stream and the event type that an event's subject names.
pub fn parse_event(subject: &str) -> Option<(StreamId, &str)> {
    let mut words = subject.strip_prefix("daybook.evt.v1.")?.split('.');
    let (category, id, event_type) = (words.next()?, words.next()?, words.next()?);
    let stream = codec::parse_stream(&format!("{category}-{id}"))?;
    words.next().is_none().then_some((stream, event_type))
}
