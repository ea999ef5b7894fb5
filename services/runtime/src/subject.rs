//! Every name that Daybook has in NATS.

use engine::codec::parse_stream;
use store::{Category, StreamId};

/// The JetStream stream that carries the log.
pub const STREAM: &str = "DAYBOOK";

/// All events.
pub const EVENTS: &str = "daybook.evt.v1.>";

/// Commands, one subject a verb: `daybook.cmd.v1.order.place`.
pub const COMMANDS: &str = "daybook.cmd.v1";

/// Queries, one subject a verb: `daybook.qry.v1.order_summary.get`.
pub const QUERIES: &str = "daybook.qry.v1";

/// Says that the log has grown. A hint: whoever misses it looks for itself.
pub const HEAD_HINT: &str = "daybook.hint.v1.head";

/// `daybook.evt.v1.<category>.<id>.<Type>`
pub fn event(stream: StreamId, event_type: &str) -> String {
    format!("daybook.evt.v1.{}.{}.{event_type}", stream.category.name, stream.id)
}

/// The stream, of one of these categories, and the event type that an event's subject names.
pub fn parse_event<'a>(categories: &[Category], subject: &'a str) -> Option<(StreamId, &'a str)> {
    let mut words = subject.strip_prefix("daybook.evt.v1.")?.split('.');
    let (category, id, event_type) = (words.next()?, words.next()?, words.next()?);
    let stream = parse_stream(categories, &format!("{category}-{id}"))?;
    words.next().is_none().then_some((stream, event_type))
}
