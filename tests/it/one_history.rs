//! Another history of the log: invariant 26.

pub(crate) mod failover;
mod forks;
pub(crate) mod histories;
mod losing;
