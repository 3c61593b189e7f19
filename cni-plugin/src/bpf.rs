//! The bpf(2) commands on pins and programs that aya has no function for.

use std::{
    ffi::{CString, c_char},
    io,
    mem::{size_of, zeroed},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_info};
use nix::libc;

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its number, which no other program has until the next boot.
    pub id: u32,
    /// Its name, at most 15 characters.
    pub name: String,
}

/// Opens a pinned object.
///
/// # Errors
/// What the kernel says; [`io::ErrorKind::NotFound`] when nothing is pinned there.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: the path ends with a zero and outlives the call.
    unsafe { call_for_descriptor(bpf_cmd::BPF_OBJ_GET, &mut attr) }
}

/// Pins an object where nothing is.
///
/// # Errors
/// What the kernel says.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = descriptor(object);
    // SAFETY: the path ends with a zero and outlives the call.
    unsafe { call(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens the program of this number.
///
/// # Errors
/// What the kernel says; [`io::ErrorKind::NotFound`] when it is gone.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    // SAFETY: the attribute points to nothing.
    unsafe { call_for_descriptor(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr) }
}

/// Asks what a program is.
///
/// # Errors
/// What the kernel says.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // SAFETY: all-zero is a valid structure.
    let mut info: bpf_prog_info = unsafe { zeroed() };
    // SAFETY: all-zero asks for nothing behind a pointer, and any bits are a valid structure.
    unsafe { object_info(program, &mut info) }?;
    let name = info.name.iter().take_while(|c| **c != 0).map(|c: &c_char| c.cast_unsigned());
    Ok(ProgramInfo { id: info.id, name: String::from_utf8_lossy(&name.collect::<Vec<u8>>()).into_owned() })
}

/// Has the kernel fill the structure of an object.
///
/// # Safety
/// `T` is what the kernel has for this sort of object, valid with any bits, and points to memory that the kernel may
/// fill, or nowhere.
///
/// # Errors
/// What the kernel says.
pub unsafe fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.info.bpf_fd = descriptor(object);
    attr.info.info = (&raw mut *info) as u64;
    attr.info.info_len = u32::try_from(size_of::<T>()).expect("the structure is small");
    // SAFETY: the structure has room for as many bytes as the attribute says, and outlives the call.
    unsafe { call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// A descriptor as attributes have it.
pub fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

/// bpf(2) of a command that answers with a descriptor.
///
/// # Safety
/// As [`call`]; the command returns a descriptor.
///
/// # Errors
/// What the kernel says.
pub unsafe fn call_for_descriptor(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises.
    let fd = unsafe { call(command, attr) }?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2).
///
/// # Safety
/// What the attribute points to is what the command expects, and outlives the call.
///
/// # Errors
/// What the kernel says.
pub unsafe fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: `attr` has as many bytes as it says; the caller promises the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(RawFd::try_from(result).unwrap_or_default()) }
}
