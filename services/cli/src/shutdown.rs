//! When to end: Ctrl-C, or SIGTERM from whoever runs us.

use tokio::signal::unix::{SignalKind, signal};

/// Ready at the first SIGINT or SIGTERM from now on: asked for before anything is started, it leaves no moment in which
/// a signal would just kill the process. In a runtime only.
pub fn requested() -> impl Future<Output = ()> {
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        match signals {
            [Ok(mut interrupt), Ok(mut terminate)] => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            _ => _ = tokio::signal::ctrl_c().await,
        }
    }
}
