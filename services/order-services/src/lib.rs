//! The order domain's services, and their assembly into a process.
//!
//! Rules of the domain are not here: a handler decodes, calls the executor and encodes.

pub mod decide;
pub mod effects;
pub mod lost;
pub mod notifier;
pub mod outside;
pub mod policy;
pub mod process;
pub mod provider;
pub mod queries;
pub mod subject;
pub mod time_travel;
pub mod verbs;
pub mod verify;

use decide::OrderDecider;

/// Executes the commands of the order domain.
pub type Executor = runtime::executor::Executor<OrderDecider>;
/// A command of the order domain, and what it came with.
pub type Envelope = runtime::executor::Envelope<orders::Command>;
/// Why a command of the order domain was not executed.
pub type ExecuteError = runtime::executor::ExecuteError<OrderDecider>;
