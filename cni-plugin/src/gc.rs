//! GC: removes the attachments of this network that the runtime does not know (any more).

use std::collections::BTreeSet;

use portolan_abi::Owner;

use crate::{
    attachment::{Key, describe, text},
    config::Document,
    ledger::Ledger,
    netlink::Socket,
    removal,
    spec::{Code, Failure},
};

pub(crate) fn gc(document: &Document) -> Result<(), Failure> {
    let network = document.name()?;
    let valid: BTreeSet<Owner> = document
        .valid_attachments()?
        .into_iter()
        .map(|(container_id, ifname)| Key { network, container_id, ifname }.owner())
        .collect();
    let Some(mut ledger) = Ledger::open(&document.bpffs()?)? else { return Ok(()) };
    let mut socket = Socket::open()?;
    let mut problems = Vec::new();
    for (owner, name) in stale(&ledger, network, &valid)? {
        if let Err(error) = removal::remove_by(&mut socket, Some(&mut ledger), owner) {
            problems.push(format!("{name}: {}", Failure::from(error).message));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!("{} attachments could not be removed", problems.len());
    Err(Failure::new(Code::Io, message).details(problems.join("; ")))
}

/// Who is to go: owners of this network that are not valid; and owners of addresses and hostPorts that no attachment
/// names, which only a ledger that was changed by hand has.
fn stale(ledger: &Ledger, network: &str, valid: &BTreeSet<Owner>) -> Result<Vec<(Owner, String)>, Failure> {
    // Both are taken after the attachment is recorded. So read in this order, nothing of an ADD that runs meanwhile is
    // without one.
    let pods = ledger.pods()?;
    let host_ports = ledger.host_ports()?;
    let attachments = ledger.attachments()?;
    let forgotten = attachments
        .iter()
        .filter(|(owner, attachment)| text(&attachment.network) == network && !valid.contains(owner))
        .map(|(owner, attachment)| (*owner, describe(attachment)));
    let nameless: BTreeSet<Owner> = pods
        .values()
        .map(|entry| entry.owner)
        .chain(host_ports.values().map(|entry| entry.owner))
        .filter(|owner| !attachments.contains_key(owner) && !valid.contains(owner))
        .collect();
    let nameless = nameless.into_iter().map(|owner| (owner, "an owner without an attachment".to_owned()));
    Ok(forgotten.chain(nameless).collect())
}
