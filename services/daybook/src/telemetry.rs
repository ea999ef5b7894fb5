//! The process's own log: to stderr, one line an event, `RUST_LOG` says how much.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. `default` is what is logged if `RUST_LOG` does not say.
pub(crate) fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}
