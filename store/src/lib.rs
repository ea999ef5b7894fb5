#![doc = include_str!("../README.md")]
#![warn(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

mod append;
mod appender;
mod batch;
mod binary_copy;
mod branch;
mod cause;
mod check;
pub mod checkpoint;
pub mod clock;
pub mod connect;
mod connection;
mod connector;
#[cfg(test)]
mod counts;
pub mod epoch;
mod event;
pub mod event_types;
mod failure;
mod filter;
mod finding;
mod group;
pub mod hash_chain;
mod hosts;
mod import;
pub mod lease;
mod loader;
mod migrate;
mod read;
mod scan;
pub mod schema;
mod serving;
mod session;
mod speculation;
mod stream;
mod subscribe;
mod version_cache;

pub use append::{Append, AppendError, Appended, StreamAppend};
pub use appender::{Appender, LogLock, Submitted};
pub use branch::{Branch, Found, History, Seen};
pub use cause::Cause;
pub use check::MAX_PAYLOAD;
pub use event::{BadFingerprint, Fingerprint, Metadata, NewEvent, Origin, Payload, RecordedEvent, derive_id, event_id};
pub use failure::Failure;
pub use filter::Filter;
pub use finding::{Finding, Level};
pub use hash_chain::{Chain, Digest, Link, Mark};
pub use import::{Import, ImportError};
pub use loader::{Loaded, Loader, Snapshot, StreamEvent};
pub use migrate::{MigrateError, migrate};
pub use read::{Log, LogIdentity, Page, ReadError, Server};
pub use scan::Scan;
pub use speculation::Speculation;
pub use stream::{Category, ExpectedVersion, Position, StreamId, Version};
pub use subscribe::Subscription;
