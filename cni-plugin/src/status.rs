//! STATUS: would ADD succeed? From the ledger and three settings, in milliseconds; runtimes ask every few seconds and
//! set no limit.

use crate::{
    clock::SECOND,
    config::Document,
    ipam::{Leases as _, Pool, Slot},
    ledger::Ledger,
    spec::{Code, Failure},
    sysctl,
};

pub(crate) fn status(document: &Document) -> Result<(), Failure> {
    document.name()?;
    let pools = document.settings()?.pools;
    let ledger = Ledger::open_or_create(&document.bpffs()?).map_err(|error| {
        let cause = Failure::of(Code::NotAvailable, &error);
        let message = format!("ledger: {}; the plugin needs root and a kernel with BPF maps", cause.message);
        Failure { message, ..cause }
    })?;
    for pool in &pools {
        has_room(&ledger, pool)?;
        forwards(pool)?;
    }
    Ok(())
}

/// Addresses that were released a moment ago count as room: that passes by itself, and a node that is not ready for
/// as long would lose its pods.
fn has_room(ledger: &Ledger, pool: &Pool) -> Result<(), Failure> {
    for index in 0..pool.hosts() {
        if ledger.slot(pool.address(index)).map_err(|error| Failure::of(Code::NotAvailable, &error))?
            != Slot::InUse
        {
            return Ok(());
        }
    }
    let (hosts, network) = (pool.hosts(), pool.network());
    let message = format!(
        "addresses: all {hosts} of {network} are in use; `portolan pods` lists their holders, and a released one is \
         used again after {} s",
        crate::ipam::COOLDOWN / SECOND
    );
    Err(Failure::new(Code::NotAvailable, message))
}

/// Without forwarding, pods reach nothing beyond their own node.
fn forwards(pool: &Pool) -> Result<(), Failure> {
    let (path, name) = if pool.network().is_ipv4() {
        ("ipv4/ip_forward", "net.ipv4.ip_forward")
    } else {
        ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding")
    };
    match sysctl::read(path).as_deref() {
        Some("0") => {
            let message = format!(
                "forwarding: {name} is 0, so that pods reach nothing beyond this node; the daemon `portolan` sets it, \
                 or `sysctl -w {name}=1`"
            );
            Err(Failure::new(Code::LimitedConnectivity, message))
        }
        Some(_) => Ok(()),
        None => {
            let message = format!("forwarding: {name} cannot be read, and {} needs it", pool.network());
            Err(Failure::new(Code::LimitedConnectivity, message))
        }
    }
}
