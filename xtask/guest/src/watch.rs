//! Notes when connections to an address begin to succeed and when they begin to be refused.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::ask;

/// How long everything may stay as it is before nothing will come any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes transactions without a pause and writes a line, `open` or `refused`, at each change, `count` lines in all. The
/// first says how it is at the start.
pub(crate) fn run(address: SocketAddr, count: u32) -> Result<()> {
    let mut last = None;
    let mut lines = 0;
    let mut since = Instant::now();
    while lines < count {
        let now = outcome(address)?;
        if last != Some(now) {
            println!("{now}");
            std::io::stdout().flush()?;
            lines += 1;
            since = Instant::now();
        } else if since.elapsed() > PATIENCE {
            bail!("still {now} after {PATIENCE:?}");
        }
        last = Some(now);
    }
    Ok(())
}

fn outcome(address: SocketAddr) -> Result<&'static str> {
    match ask::connect(address) {
        // The answer is awaited, so that the server is never behind: a full backlog would cost a second.
        Ok(mut stream) => ask::exchange(&mut stream).map(|()| "open"),
        Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => Ok("refused"),
            _ => Err(error).context("neither open nor refused"),
        },
    }
}
