//! Making the kernel notice that a link has a carrier.
//!
//! Of the two ends of a veth pair, the one that is set up first has no carrier yet, and drops what it is to send until
//! a work queue of the kernel has looked again (`linkwatch_event`), which waits for the lock that every ADD holds in
//! turn. Asking for the state of the link makes the kernel look at once (`ethtool_op_get_link`, `linkwatch_sync_dev`).

use std::{ffi::c_char, io, os::fd::AsRawFd as _};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// `ETHTOOL_GLINK` (`linux/ethtool.h`).
const ETHTOOL_GLINK: u32 = 10;
/// `SIOCETHTOOL` (`linux/sockios.h`).
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Whether the interface `name` of the calling thread's network namespace has a carrier; when this returns, the
/// interface behaves accordingly.
pub(crate) fn settle(name: &str) -> io::Result<bool> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = EthtoolValue { command: ETHTOOL_GLINK, data: 0 };
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed() as c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() };
    let mut request = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: SIOCETHTOOL reads and writes a `struct ifreq`, whose `ifr_data` points to the structure that the command
    // in its first field expects; both live until the call returns, and the name ends with a zero.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data != 0) }
}
