//! An append-only event log on Postgres, and what reading it needs: checkpoints and leases.
//!
//! Positions are dense and in commit order, so whoever has seen position P has seen everything up to P. Payloads are
//! text to this crate; it knows nothing of orders.

mod alarm;
mod append;
mod appender;
mod batch;
pub mod chain;
mod check;
pub mod checkpoint;
pub mod clock;
pub mod connect;
mod connection;
mod connector;
mod copy;
pub mod epoch;
mod event;
pub mod event_types;
mod failure;
mod filter;
mod finding;
mod group;
mod history;
mod hosts;
mod import;
mod known;
pub mod lease;
mod load;
mod read;
mod scan;
pub mod schema;
mod serving;
mod session;
mod speculation;
mod stream;
mod subscribe;

pub use alarm::Alarm;
pub use append::{Append, AppendError, Appended, StreamAppend};
pub use appender::{Appender, Hold, Submitted};
pub use chain::{Chain, Digest, Link, Mark};
pub use check::MAX_PAYLOAD;
pub use event::{Fingerprint, Metadata, NewEvent, Origin, Payload, RecordedEvent, derive_id, event_id};
pub use failure::Failure;
pub use filter::Filter;
pub use finding::{Finding, Level};
pub use history::{Branch, Found, History, Seen};
pub use import::{Import, ImportError};
pub use load::{Loaded, Loader, Snapshot, StreamEvent};
pub use read::{Log, LogIdentity, Page, ReadError, Server};
pub use scan::Scan;
pub use speculation::Speculation;
pub use stream::{Category, ExpectedVersion, Position, StreamId, Version};
pub use subscribe::Subscription;
