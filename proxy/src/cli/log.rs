//! The log of the daemon.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Logs to standard error from now on; `RUST_LOG` says what, by default and when it is empty `info`.
///
/// # Errors
/// When `RUST_LOG` says what nobody understands.
pub(super) fn init(format: LogFormat) -> Result<()> {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let wanted = if wanted.trim().is_empty() { "info" } else { wanted.trim() };
    let filter = EnvFilter::try_new(wanted)
        .with_context(|| format!("RUST_LOG {wanted:?}: `info`, `debug` or `portolan=debug` are expected"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
