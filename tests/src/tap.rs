//! Raw access to an interface: frames that no socket would send, and what really comes by.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBuf, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::frame::Mac;
use crate::netns::Netns;

/// More than a packet can have, with its Ethernet header.
const FRAME: usize = 1 << 17;
/// Bytes of frames that wait for [`Tap::receive`].
const BUFFER: usize = 32 << 20;
/// How long a look at the queue takes when it stays empty.
const LOOK: Duration = Duration::from_millis(20);

/// A packet socket on an interface (packet(7)). It sees what comes in, from the moment it is opened.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    mac: Mac,
    index: usize,
}

impl Tap {
    /// On an interface of a namespace.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        netns.inside(|| Self::open_here(interface))?
    }

    fn open_here(interface: &str) -> Result<Self> {
        let link = getifaddrs()?
            .filter(|found| found.interface_name == interface)
            .find_map(|found| found.address.and_then(|address| address.as_link_addr().copied()))
            .with_context(|| format!("There is no interface {interface}"))?;
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &BUFFER)
            .or_else(|_| setsockopt(&socket, RcvBuf, &BUFFER))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(20))?;
        bind(socket.as_raw_fd(), &link).context("Failed to bind a packet socket")?;
        let mac = link.addr().with_context(|| format!("{interface} has no MAC address"))?;
        Ok(Self { socket, mac, index: link.ifindex() })
    }

    /// The interface's own address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The interface's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// When the kernel takes no such frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent =
            send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).context("Failed to send a frame")?;
        if sent != frame.len() {
            bail!("Sent {sent} bytes of {}", frame.len());
        }
        Ok(())
    }

    /// The first frame that comes in and that `wanted` makes something of; `None` when none does in time.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn receive<T>(
        &self,
        within: Duration,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let until = Instant::now() + within;
        let mut frame = vec![0; FRAME];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame) {
                Ok((_, Some(from))) if from.pkttype() == libc::PACKET_OUTGOING => {}
                Ok((len, _)) => {
                    if let Some(found) = wanted(&frame[..len]) {
                        return Ok(Some(found));
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(e) => return Err(e).context("Failed to receive a frame"),
            }
            if Instant::now() > until + LOOK {
                return Ok(None);
            }
        }
    }
}
