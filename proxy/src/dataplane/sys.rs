//! The commands of the kernel that aya has no function for, beside those that the plugin needs as well.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use aya_obj::generated::{
    BPF_F_BEFORE, XDP_FLAGS_DRV_MODE, bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info,
};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use portolan_cni::bpf::{self, descriptor};
use portolan_cni::hook::Hook;

use super::tc::tcx;

/// Replaces the program of a link: there is no moment without one.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.link_update.link_fd = descriptor(link);
    attr.link_update.__bindgen_anon_1.new_prog_fd = descriptor(program);
    // SAFETY: the attribute points to nothing.
    unsafe { bpf::call(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches the program of a link at once: without its last pin the kernel does so some time later.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.link_detach.link_fd = descriptor(link);
    // SAFETY: the attribute points to nothing.
    unsafe { bpf::call(bpf_cmd::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// The id of the cgroup that a link is attached to; 0 when that cgroup is gone.
pub(super) fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    let info = link_info(link)?;
    // SAFETY: the kernel has filled the structure, and any bits are a valid number.
    Ok(unsafe { info.__bindgen_anon_1.cgroup.cgroup_id })
}

/// What a link of tcx holds, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcxLink {
    /// Number of the program.
    pub(super) program: u32,
    /// Number of the interface; 0 when that is gone.
    pub(super) ifindex: u32,
    /// `enum bpf_attach_type`.
    pub(super) attach_type: u32,
}

/// Asks what a link of tcx holds.
pub(super) fn tcx_link(link: BorrowedFd<'_>) -> io::Result<TcxLink> {
    let info = link_info(link)?;
    // SAFETY: the kernel has filled the structure, and any bits are valid numbers.
    let tcx = unsafe { info.__bindgen_anon_1.tcx };
    Ok(TcxLink { program: info.prog_id, ifindex: tcx.ifindex, attach_type: tcx.attach_type })
}

/// What a link of XDP holds, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpLink {
    /// Number of the program.
    pub(super) program: u32,
    /// Number of the interface; 0 when that is gone.
    pub(super) ifindex: u32,
}

/// Asks what a link of XDP holds.
pub(super) fn xdp_link(link: BorrowedFd<'_>) -> io::Result<XdpLink> {
    let info = link_info(link)?;
    // SAFETY: the kernel has filled the structure, and any bits are a valid number.
    let ifindex = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    Ok(XdpLink { program: info.prog_id, ifindex })
}

/// Attaches a program to the driver of an interface.
pub(super) fn create_xdp_link(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = descriptor(program);
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = bpf_attach_type::BPF_XDP as u32;
    attr.link_create.flags = XDP_FLAGS_DRV_MODE;
    // SAFETY: the attribute points to nothing, and the command returns a descriptor.
    unsafe { bpf::call_for_descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

/// Attaches a program by tcx, before those of others: see [`tcx`].
pub(super) fn create_tcx_link(program: BorrowedFd<'_>, hook: Hook) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = descriptor(program);
    attr.link_create.__bindgen_anon_2.target_ifindex = hook.ifindex;
    attr.link_create.attach_type = tcx::attach_type(hook.direction);
    attr.link_create.flags = BPF_F_BEFORE;
    // SAFETY: the attribute points to nothing, and the command returns a descriptor.
    unsafe { bpf::call_for_descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

fn link_info(link: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: all-zero is a valid structure.
    let mut info: bpf_link_info = unsafe { zeroed() };
    // SAFETY: this is the structure of links; all-zero asks for nothing behind a pointer.
    unsafe { bpf::object_info(link, &mut info) }?;
    Ok(info)
}

/// `ARPHRD_*` of an interface (include/uapi/linux/if_arp.h): what its frames begin with.
pub(super) fn hardware_type(name: &str) -> io::Result<u16> {
    let mut request = interface_request(name);
    // SAFETY: the command writes an address into the structure.
    unsafe { of_interface(libc::SIOCGIFHWADDR, &mut request) }?;
    // SAFETY: the kernel has written the address.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

/// The name of an interface's driver.
pub(super) fn driver(name: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the command writes into the structure that the request points to, which outlives the call.
    unsafe { of_interface(SIOCETHTOOL, &mut request) }?;
    let name = info.driver.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// `ETHTOOL_GDRVINFO` and its structure (include/uapi/linux/ethtool.h).
const ETHTOOL_GDRVINFO: u32 = 3;
/// Of include/uapi/linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// What the commands of ioctl(2) that are about an interface begin with.
fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: all-zero is a valid structure.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

/// ioctl(2) of such a command.
///
/// # Safety
/// What the request points to is what the command expects, and outlives the call.
unsafe fn of_interface(command: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the request has a name that ends with a zero; the rest the caller promises.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), command as _, &raw mut *request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
