//! What a driver does for XDP, as the kernel says since 6.3: the family `netdev` of generic netlink
//! (Documentation/netlink/specs/netdev.yaml).

use std::io;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::errno::Errno;

/// The family that tells the numbers of the others (include/uapi/linux/genetlink.h): its number, its command, the name that is
/// asked for and the number that is answered.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
const FAMILY_ID: u16 = 1;

/// `NETDEV_CMD_DEV_GET`, and its attributes (include/uapi/linux/netdev.h).
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;

/// `NLM_F_REQUEST`, `NLMSG_ERROR` (include/uapi/linux/netlink.h), and bytes of the headers.
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// The bits of `enum netdev_xdp_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features(u64);

impl Features {
    /// `NETDEV_XDP_ACT_NDO_XMIT`: it sends what XDP programs give it. Of a veth, that its other end takes it.
    const SENDS: u64 = 1 << 2;

    pub(super) fn sends(self) -> bool {
        self.0 & Self::SENDS != 0
    }
}

/// What the driver of an interface does; `None`: the kernel does not say.
pub(super) fn of(ifindex: u32) -> io::Result<Option<Features>> {
    let socket = Socket::new(NETLINK_GENERIC)?;
    let family = match ask(&socket, CONTROL, GET_FAMILY, (FAMILY_NAME, b"netdev\0"), FAMILY_ID) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(None),
        answer => answer?,
    };
    let Some(family) = family.as_deref().and_then(|bytes| bytes.try_into().ok()) else { return Ok(None) };
    let ifindex = ifindex.to_ne_bytes();
    let features = ask(&socket, u16::from_ne_bytes(family), GET_DEVICE, (IFINDEX, &ifindex), XDP_FEATURES)?;
    let features = features.as_deref().and_then(|bytes| bytes.try_into().ok());
    Ok(features.map(|bytes| Features(u64::from_ne_bytes(bytes))))
}

/// Sends a command with one attribute; the attribute of the answer that is wanted.
fn ask(
    socket: &Socket,
    family: u16,
    command: u8,
    given: (u16, &[u8]),
    wanted: u16,
) -> io::Result<Option<Vec<u8>>> {
    socket.send(&request(family, command, given), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let header = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if kind == Some(ERROR) {
        let errno = header(HEADER).map_or(0, i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(-errno));
    }
    Ok(attribute(answer.get(HEADERS..).unwrap_or_default(), wanted))
}

fn request(family: u16, command: u8, (number, value): (u16, &[u8])) -> Vec<u8> {
    let small = |length: usize| u16::try_from(length).expect("a request is short");
    let mut bytes = Vec::new();
    let padded = value.len().next_multiple_of(4);
    bytes.extend(u32::from(small(HEADERS + 4 + padded)).to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    // The numbers of the request and of the socket, which the kernel gives.
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(small(4 + value.len()).to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(HEADERS + 4 + padded, 0);
    bytes
}

/// The value of the first attribute of this number.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<Vec<u8>> {
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == wanted {
            return Some(value.to_vec());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use nix::net::if_::if_nametoindex;

    use super::*;

    #[test]
    fn attributes_are_found_and_what_is_cut_off_is_not() {
        let bytes = [6, 0, 1, 0, 9, 9, 0, 0, 8, 0, 3, 0, 1, 2, 3, 4];
        assert_eq!(attribute(&bytes, 1), Some(vec![9, 9]));
        assert_eq!(attribute(&bytes, 3), Some(vec![1, 2, 3, 4]));
        for end in 0..bytes.len() {
            assert_eq!(attribute(&bytes[..end], 3), None, "{end}");
        }
        assert_eq!(attribute(&[0; 8], 1), None, "no length at all");
    }

    #[test]
    fn the_loopback_interface_sends_nothing_for_xdp() {
        let lo = of(if_nametoindex("lo").unwrap()).unwrap();
        assert_eq!(lo.map(Features::sends), Some(false), "a kernel that does not say is older than 6.3");
        assert!(of(u32::MAX >> 1).is_err());
    }
}
