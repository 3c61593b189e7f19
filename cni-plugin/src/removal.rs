//! Removing an attachment: what DEL does, and GC, and the daemon for pods whose runtime forgot them.

use std::{error::Error, net::IpAddr};

use portolan_abi::{Owner, Release};

use crate::{
    attachment::host_ifname,
    clock, crash,
    ledger::{Ledger, LedgerError},
    netlink::{NetlinkError, Socket},
    spec::{Code, Failure},
};

/// Why an attachment could not be removed. What was done stays done: the next attempt goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The interface may still be there, so that its addresses stay taken.
    #[error("the pod's interface is not surely gone")]
    Link(#[source] Box<dyn Error + Send + Sync>),
    /// The ledger could not be changed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<NetlinkError> for RemovalError {
    fn from(error: NetlinkError) -> Self {
        Self::Link(Box::new(error))
    }
}

impl From<RemovalError> for Failure {
    fn from(error: RemovalError) -> Self {
        Self::of(Code::Io, &error)
    }
}

/// Removes an owner's interface and gives its hostPorts and addresses back, in the calling thread's network namespace,
/// which must be the node's. Nothing happens if there is nothing.
///
/// # Errors
/// See [`RemovalError`].
pub fn remove(ledger: &mut Ledger, owner: Owner) -> Result<(), RemovalError> {
    remove_by(&mut Socket::open()?, Some(ledger), owner)
}

/// [`remove`] with a socket that is open, and possibly without a ledger, which has nothing to give back then.
pub(crate) fn remove_by(
    socket: &mut Socket,
    ledger: Option<&mut Ledger>,
    owner: Owner,
) -> Result<(), RemovalError> {
    socket.delete_link(&host_ifname(owner))?;
    crash::after("del:link");
    let Some(ledger) = ledger else { return Ok(()) };
    // Before the addresses that they lead to.
    for key in ledger.claimed_by(owner)? {
        ledger.unclaim(key, owner)?;
        crash::after_family("del:host-port:ipv4", "del:host-port:ipv6", IpAddr::from(key.addr));
    }
    for (addr, _) in ledger.owned_by(owner)? {
        let ip = IpAddr::from(addr);
        ledger.record_release(addr, Release(clock::now()))?;
        crash::after_family("del:record:ipv4", "del:record:ipv6", ip);
        ledger.free(addr, owner)?;
        crash::after_family("del:free:ipv4", "del:free:ipv6", ip);
    }
    ledger.detach(owner)?;
    crash::after("del:attachment");
    Ok(())
}
