//! What a veth does for its host. XDP needs of the other end of a cable what every machine does by itself: that it takes frames
//! from XDP programs, as a veth does with generic receive offload, and completes the checksums of what it sends.

use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::process::Command;

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;

use crate::netns;

/// The namespaces at the other ends of the first node's cables; the interface is `eth0` in each.
const OTHER_ENDS: [&str; 2] = ["outside", "n2"];

/// `SIOCETHTOOL` of include/uapi/linux/sockios.h; `ETHTOOL_STXCSUM` and `ETHTOOL_SGRO` of include/uapi/linux/ethtool.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const SET_TX_CHECKSUM: u32 = 0x17;
const SET_GRO: u32 = 0x2c;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Makes all cables of the first node like those of machines, or plain ones.
pub(super) fn set_all(whole: bool) -> Result<()> {
    let kind = if whole { "whole" } else { "plain" };
    OTHER_ENDS
        .into_iter()
        .try_for_each(|name| netns::run(Command::new(netns::SELF).args(["cable", name, kind])))
}

/// The same for the cable that ends in a namespace, which this process enters.
pub(crate) fn set(name: &str, whole: bool) -> Result<()> {
    netns::enter(name)?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    for (command, on) in [(SET_GRO, whole), (SET_TX_CHECKSUM, !whole)] {
        let mut value = Value { command, data: u32::from(on) };
        // SAFETY: all-zero is a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(*b"eth0") {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the request is one of SIOCETHTOOL, points to the value of its command, and both outlive the call.
        Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) })?;
    }
    Ok(())
}
