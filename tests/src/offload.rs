//! What an interface does for its host: the switches of ethtool(8).

use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

use crate::netns::Netns;

/// `SIOCETHTOOL` of include/uapi/linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_STXCSUM` of include/uapi/linux/ethtool.h; segmentation goes with it.
const SET_TX_CHECKSUM: u32 = 0x17;
/// `ETHTOOL_SGRO` of the same.
const SET_GRO: u32 = 0x2c;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether an interface computes the checksums of what it sends, or lets the kernel do that before.
///
/// # Errors
/// When there is no such interface or its driver refuses.
pub fn set_offloads(netns: &Netns, interface: &str, on: bool) -> Result<()> {
    set(netns, interface, SET_TX_CHECKSUM, on)
}

/// Whether an interface joins segments that it receives. A veth that does takes frames from XDP programs as well.
///
/// # Errors
/// As [`set_offloads`].
pub fn set_receive_offload(netns: &Netns, interface: &str, on: bool) -> Result<()> {
    set(netns, interface, SET_GRO, on)
}

fn set(netns: &Netns, interface: &str, command: u32, on: bool) -> Result<()> {
    netns.inside(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").context("Failed to open a socket")?;
        let mut value = Value { command, data: u32::from(on) };
        // SAFETY: all-zero is a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the request is one of SIOCETHTOOL, points to the value of its command, and both outlive the call.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        Errno::result(done).map(drop).with_context(|| format!("Failed to set the offloads of {interface}"))
    })?
}
