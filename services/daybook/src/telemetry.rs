//! The process's own log: to stderr, one line an event, `RUST_LOG` says how much.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. `default` is what is logged if `RUST_LOG` does not say.
pub(crate) fn start(default: &str) {
    // What is empty is not set.
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let filter = is_set(EnvFilter::DEFAULT_ENV).then(EnvFilter::try_from_default_env).and_then(Result::ok);
    let filter = filter.unwrap_or_else(|| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal() && !is_set("NO_COLOR");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}
