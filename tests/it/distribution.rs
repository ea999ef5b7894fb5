//! The log in JetStream: invariants 11, 12 and 15.

mod nats_cluster;
mod relaying;
mod sizes;
