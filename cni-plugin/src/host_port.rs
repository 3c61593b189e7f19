//! hostPorts: claiming ports of the node for a pod.
//!
//! A claim is a no-exist insert, which settles who is first at one address. That every address of the node includes
//! each of them is settled by looking once more after the insert: of two that race, one at least sees the other, and
//! gives up.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_abi::{Addr, FrontendKey, HostPort, Owner, Port};

use crate::{
    attachment,
    config::{HostSide, PortMappings},
    ledger::{Ledger, LedgerError},
    spec::{Code, Failure},
};

/// What a pod with these addresses claims.
pub(crate) fn claims(mappings: &PortMappings, ips: &[IpAddr], owner: Owner) -> Vec<(FrontendKey, HostPort)> {
    let claim = |(at, target): (&HostSide, &u16)| {
        let ip = ips.iter().find(|ip| ip.is_ipv4() == at.ip.is_ipv4())?;
        let key = FrontendKey::new(at.ip.into(), Port::new(at.port), at.proto);
        Some((key, HostPort { owner, addr: Addr::from(*ip), port: Port::new(*target), pad: [0; 2] }))
    };
    mappings.iter().filter_map(claim).collect()
}

/// A port at an address, for people.
pub(crate) fn describe(key: &FrontendKey) -> String {
    let (port, proto) = (key.port.get(), key.proto);
    let at = match IpAddr::from(key.addr) {
        ip if !ip.is_unspecified() => ip.to_string(),
        IpAddr::V4(_) => "every IPv4 address of the node".to_owned(),
        IpAddr::V6(_) => "every IPv6 address of the node".to_owned(),
    };
    format!("hostPort {port}/{proto} at {at}")
}

/// Claims a port, or says who has it. After a failure the claim may stand: it is undone with the rest of ADD.
pub(crate) fn claim(ledger: &mut Ledger, key: FrontendKey, entry: &HostPort) -> Result<(), Failure> {
    if !ledger.claim(key, entry)? {
        return match ledger.host_port(key)? {
            Some(holder) => Err(taken(ledger, &key, &key, holder.owner)),
            None => Err(Failure::new(
                Code::TryAgain,
                format!("{} is being given back: try again", describe(&key)),
            )),
        };
    }
    match rival(ledger, &key, entry.owner)? {
        Some((other, owner)) => Err(taken(ledger, &key, &other, owner)),
        None => Ok(()),
    }
}

/// Another owner's claim that includes this one or is included in it.
fn rival(
    ledger: &Ledger,
    key: &FrontendKey,
    owner: Owner,
) -> Result<Option<(FrontendKey, Owner)>, LedgerError> {
    if key.addr.is_any() {
        return Ok(included(&ledger.host_ports()?, key, owner));
    }
    let any = FrontendKey::new(key.addr.any(), key.port, key.proto);
    Ok(ledger.host_port(any)?.filter(|holder| holder.owner != owner).map(|holder| (any, holder.owner)))
}

/// The first claim of another owner that one for every address includes.
fn included(
    all: &BTreeMap<FrontendKey, HostPort>,
    any: &FrontendKey,
    owner: Owner,
) -> Option<(FrontendKey, Owner)> {
    let same_port = |key: &FrontendKey| FrontendKey::new(key.addr.any(), key.port, key.proto) == *any;
    let found = all.iter().find(|(key, holder)| same_port(key) && holder.owner != owner);
    found.map(|(key, holder)| (*key, holder.owner))
}

fn taken(ledger: &Ledger, wanted: &FrontendKey, held: &FrontendKey, owner: Owner) -> Failure {
    let holder = match ledger.attachment(owner) {
        Ok(Some(attachment)) => attachment::describe(&attachment),
        Ok(None) => "an unknown owner".to_owned(),
        Err(error) => return error.into(),
    };
    let as_part = if wanted == held { String::new() } else { format!(", which has {}", describe(held)) };
    let message = format!(
        "{} is taken by {holder}{as_part}: delete that pod, or choose another hostPort or hostIP",
        describe(wanted)
    );
    Failure::new(Code::TryAgain, message)
}

#[cfg(test)]
mod tests {
    use portolan_abi::Proto;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn key(at: &str, port: u16, proto: Proto) -> FrontendKey {
        FrontendKey::new(ip(at).into(), Port::new(port), proto)
    }

    const ONE: Owner = Owner([1; 16]);
    const TWO: Owner = Owner([2; 16]);

    #[test]
    fn each_family_leads_to_the_pods_address_of_it() {
        let ips = [ip("10.244.1.5"), ip("fd44::5")];
        let mappings = ["0.0.0.0", "::", "192.0.2.1"]
            .map(|at| (HostSide { ip: ip(at), port: 80, proto: Proto::TCP }, 8080))
            .into();
        let rows: Vec<String> = claims(&mappings, &ips, ONE)
            .iter()
            .map(|(key, entry)| format!("{}: {} {}", describe(key), entry.addr, entry.port.get()))
            .collect();
        let expected = [
            "hostPort 80/tcp at every IPv4 address of the node: 10.244.1.5 8080",
            "hostPort 80/tcp at 192.0.2.1: 10.244.1.5 8080",
            "hostPort 80/tcp at every IPv6 address of the node: fd44::5 8080",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn every_address_includes_those_of_its_family_port_and_protocol() {
        let any = key("0.0.0.0", 80, Proto::TCP);
        for (other, owner, expected) in [
            (key("192.0.2.1", 80, Proto::TCP), TWO, true),
            (key("192.0.2.1", 80, Proto::TCP), ONE, false),
            (key("192.0.2.1", 81, Proto::TCP), TWO, false),
            (key("192.0.2.1", 80, Proto::UDP), TWO, false),
            (key("2001:db8::1", 80, Proto::TCP), TWO, false),
            (key("::", 80, Proto::TCP), TWO, false),
        ] {
            let entry = |owner| HostPort { owner, addr: Addr::ANY_V4, port: Port::new(8080), pad: [0; 2] };
            let all = BTreeMap::from([(any, entry(ONE)), (other, entry(owner))]);
            let found = included(&all, &any, ONE);
            assert_eq!(found, expected.then_some((other, TWO)), "{}", describe(&other));
        }
    }
}
