//! DEL: removes an attachment, whatever is left of it.
//!
//! It needs neither the pod's namespace nor an earlier result, and does not look at them: the interface is found by its
//! name in the node's namespace, and the addresses by their owner in the ledger. So it succeeds with a namespace that
//! is gone, for a container that is not known, and as often as it is called.

use crate::{config::Document, ledger::Ledger, netlink::Socket, removal, request::Request, spec::Failure};

pub(crate) fn del(request: &Request, document: &Document) -> Result<(), Failure> {
    let owner = request.key(document.name()?).owner();
    let mut ledger = Ledger::open(&document.bpffs()?)?;
    removal::remove_by(&mut Socket::open()?, ledger.as_mut(), owner)?;
    Ok(())
}
