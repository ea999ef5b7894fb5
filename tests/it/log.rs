//! The log: invariants 1 to 10.

mod archive;
mod copying;
mod event_types;
pub(crate) mod evolution;
mod hot;
mod linearizable;
mod long_streams;
mod postgres_roles;
mod reading;
mod schema;
mod subscribing;
