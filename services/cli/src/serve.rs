//! Runs a process until it is told to end.

use crate::{Failure, output, shutdown};
use runtime::process::Process;

/// Lets the process run until it is told to end, or a part of it has failed; then ends it in order.
pub async fn until_told(process: Process, requested: impl Future<Output = ()>) -> Result<(), Failure> {
    let failed = tokio::select! {
        () = requested => false,
        () = process.failed() => true,
    };
    output::say("stopping…");
    // Who asks twice does not want to wait.
    tokio::select! {
        () = process.stop() => {}
        () = shutdown::requested() => {}
    }
    if failed { Err(Failure::Other("a part of the process has failed: see its log".into())) } else { Ok(()) }
}
