//! Kernel settings of an interface, in the calling thread's network namespace.

use std::{fs, io};

/// Why a setting could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set net.{} to {value}", path.replace('/', "."))]
pub(crate) struct SysctlError {
    path: String,
    value: &'static str,
    #[source]
    source: io::Error,
}

/// What `net/<path>` says, without the line's end; `None` if it cannot be read.
pub(crate) fn read(path: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/net/{path}")).ok().map(|text| text.trim_end().to_owned())
}

/// Whether this kernel does IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}

/// Sets each of `settings` (name, value) of the interface `ifname`. Where `/proc/sys` is read-only, a setting that has
/// its value already is as good.
pub(crate) fn set(
    family: &'static str,
    ifname: &str,
    settings: &[(&str, &'static str)],
) -> Result<(), SysctlError> {
    for &(name, value) in settings {
        let path = format!("{family}/conf/{ifname}/{name}");
        if let Err(source) = fs::write(format!("/proc/sys/net/{path}"), value)
            && read(&path).as_deref() != Some(value)
        {
            return Err(SysctlError { path, value, source });
        }
    }
    Ok(())
}
