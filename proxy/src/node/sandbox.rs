//! A network namespace of its own for a test: gone with the thread that made it.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::netlink::Netlink;
use super::peers::{self, PeerState};
use crate::dataplane::routes::Watch;

/// Runs `test` in a fresh network namespace, on a thread and a runtime of its own.
///
/// # Panics
/// When `test` does, and without the rights to make a namespace.
pub(crate) fn run(test: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: a network namespace cannot be made");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments in the namespace of the test.
pub(crate) fn ip(arguments: &str) -> String {
    let output =
        Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A link to a neighbour: `up0`, up, with 192.0.2.10/24 and 2001:db8::10/64.
pub(crate) async fn uplink() {
    let mut watch = Watch::open().unwrap();
    ip("link set lo up");
    ip("link add up0 type veth peer name far0");
    ip("addr add 192.0.2.10/24 dev up0");
    ip("addr add 2001:db8::10/64 dev up0 nodad");
    ip("link set far0 up");
    ip("link set up0 up");
    while !settled().await {
        watch.anything().await;
    }
}

/// Carrier and addresses of IPv6 are noticed by workers of the kernel, some time after the commands.
async fn settled() -> bool {
    let netlink = Netlink::open().unwrap();
    let own = peers::way(&netlink, "2001:db8::10".parse().unwrap()).await.unwrap().state;
    let other = peers::way(&netlink, "2001:db8::1".parse().unwrap()).await.unwrap().state;
    let up = ["up0", "far0"].iter().all(|link| ip(&format!("-o link show {link}")).contains(" state UP "));
    up && own == PeerState::Duplicate && other == PeerState::Direct
}
