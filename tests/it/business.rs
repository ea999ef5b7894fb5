//! Orders, money and stock: invariants 21 to 25, 28 and 30.

mod books;
mod buyers;
mod changes;
mod choreography;
mod follow_ups;
mod olist;
mod orders;
mod payments;
mod races;
mod retrying;
mod timers;
mod verifying_business;
