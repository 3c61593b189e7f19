//! What the programs log, when they were built to: into the daemon's log. For debugging only.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

/// Starts to follow the programs' log, inside a runtime.
pub(super) fn follow(ebpf: &mut Ebpf) -> Result<()> {
    let logger = EbpfLogger::init(ebpf).context("opening the log of the programs")?;
    let mut logger = AsyncFd::with_interest(logger, Interest::READABLE)?;
    tokio::spawn(async move {
        loop {
            match logger.readable_mut().await {
                Ok(mut ready) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                Err(error) => return warn!("the log of the programs ended: {error}"),
            }
        }
    });
    Ok(())
}
