//! Notes when connections to an address begin to succeed and when they begin to be refused.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Result, bail};

/// Tries to connect without a pause and writes a line, `open` or `refused`, at each change, `count` lines in all. The
/// first says how it is at the start.
pub(crate) fn run(address: SocketAddr, count: u32) -> Result<()> {
    let mut last = None;
    let mut lines = 0;
    let mut since = Instant::now();
    while lines < count {
        let now = match TcpStream::connect(address) {
            Ok(stream) => {
                nix::sys::socket::setsockopt(
                    &stream,
                    nix::sys::socket::sockopt::Linger,
                    &nix::libc::linger { l_onoff: 1, l_linger: 0 },
                )?;
                "open"
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused",
            Err(error) => bail!("neither open nor refused: {error}"),
        };
        if last != Some(now) {
            println!("{now}");
            std::io::stdout().flush()?;
            lines += 1;
            since = Instant::now();
        } else if since.elapsed().as_secs() > 60 {
            bail!("still {now} after a minute");
        }
        last = Some(now);
    }
    Ok(())
}
