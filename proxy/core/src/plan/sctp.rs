//! SCTP, whose checksum covers ports and not addresses (RFC 9260, section 6.8): the programs change addresses alone.

use std::collections::BTreeSet;

use portolan_abi::{Backend, FrontendFlags, FrontendKey, Port, Proto};

use super::{Backends, Wanted};
use crate::object::ObjectName;
use crate::state::Problem;

/// Withholds the backends of SCTP frontends that have another port than the frontend: their packets would have a wrong
/// checksum, and vanish. Where there are no others, clients are refused.
pub(crate) fn keep_equal_ports(service: &ObjectName, wanted: &mut [Wanted]) -> Vec<Problem> {
    let mut withheld = BTreeSet::new();
    for wanted in wanted.iter_mut().filter(|wanted| wanted.key.proto == Proto::SCTP) {
        let key = wanted.key;
        for (set, refuse) in [
            (&mut wanted.inside, FrontendFlags::REFUSE_INSIDE),
            (&mut wanted.outside, FrontendFlags::REFUSE_OUTSIDE),
        ] {
            let (equal, others): (Vec<Backend>, Vec<Backend>) =
                set.iter().partition(|backend| backend.port == key.port);
            withheld.extend(others.iter().map(|backend| (key, backend.port)));
            if !others.is_empty() {
                wanted.flags |= if equal.is_empty() { refuse } else { 0 };
                *set = Backends::from(equal);
            }
        }
    }
    withheld.into_iter().map(|(key, port)| problem(service, key, port)).collect()
}

fn problem(service: &ObjectName, key: FrontendKey, port: Port) -> Problem {
    let place = if key.addr.is_any() { "nodePort".to_owned() } else { key.addr.to_string() };
    Problem {
        subject: format!("Service {service}"),
        reason: "SctpPortsDiffer",
        message: format!(
            "{place} port {:?}/sctp leads to port {port:?}: the ports of SCTP cannot be changed, clients are refused \
             there; give both the same number",
            key.port
        ),
    }
}
