//! Dying on purpose, for the tests that prove that a process killed at any step leaves nothing behind.
//!
//! In builds with debug assertions, a plugin whose environment has `PORTOLAN_CNI_STOP_AFTER` set to the name of a step
//! kills itself with `SIGKILL` right after it. Other builds do not read that variable.

/// The steps of ADD, in order.
pub const ADD: [&str; 12] = [
    "add:attachment",
    "add:address:ipv4",
    "add:address:ipv6",
    "add:host-port:ipv4",
    "add:host-port:ipv6",
    "add:link",
    "add:programs",
    "add:host-side",
    "add:pod-side",
    "add:ready:ipv4",
    "add:ready:ipv6",
    "add:done",
];

/// The steps of DEL (and of what GC does for each attachment), in order.
pub const DEL: [&str; 8] = [
    "del:link",
    "del:host-port:ipv6",
    "del:host-port:ipv4",
    "del:record:ipv4",
    "del:free:ipv4",
    "del:record:ipv6",
    "del:free:ipv6",
    "del:attachment",
];

/// Kills the process if the environment asks for it at this step.
#[cfg(debug_assertions)]
pub(crate) fn after(step: &str) {
    assert!(ADD.contains(&step) || DEL.contains(&step), "{step} is not in the lists of steps");
    if std::env::var_os("PORTOLAN_CNI_STOP_AFTER").is_some_and(|wanted| wanted == step) {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("a process can always kill itself");
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub(crate) const fn after(_step: &str) {}

/// [`after`] of a step that ADD and DEL take once for each family.
pub(crate) fn after_family(ipv4: &str, ipv6: &str, ip: std::net::IpAddr) {
    after(if ip.is_ipv4() { ipv4 } else { ipv6 });
}
