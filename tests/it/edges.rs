//! What comes from outside, and what the servers are relied on for: invariants 27, 29 and 31.

mod clocks;
mod doors;
mod errors;
mod hostile;
mod nats_doors;
mod wire;
