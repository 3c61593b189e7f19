//! CHECK: is what ADD did still there?
//!
//! ADD is done when it returns, so that a CHECK right after it finds everything. It looks only at what ADD set up, and
//! names all that is missing, not just the first.

use std::net::IpAddr;

use portolan_abi::{Addr, PodEntry, PodState};
use serde_json::Value;

use crate::{
    add::open_netns,
    attachment::host_ifname,
    config::Document,
    host_port,
    ledger::Ledger,
    mac::Mac,
    netlink::{NetlinkError, Socket, link::Link, route::Route},
    request::Request,
    spec::{Code, Failure},
    wire::{self, WireError},
};

/// What is to be found.
struct Expected<'a> {
    host_name: &'a str,
    pod_name: &'a str,
    pods: &'a [(IpAddr, PodEntry)],
}

pub(crate) fn check(request: &Request, document: &Document) -> Result<(), Failure> {
    let owner = request.key(document.name()?).owner();
    let pods = attached(document, request)?;
    let result = document.prev_result()?.ok_or_else(|| {
        Failure::new(Code::InvalidConfig, "prevResult is missing: CHECK compares with the result of ADD")
    })?;
    let netns = open_netns(request)?;
    let host_name = host_ifname(owner);
    let expected = Expected { host_name: &host_name, pod_name: &request.ifname, pods: &pods };

    let mut problems = compare(&expected, &Value::Object(result));
    problems.extend(missing_host_ports(document, request, &pods)?);
    let link = expected.host_side(&mut Socket::open()?, &mut problems)?;
    let inside = netns.run(|| {
        let mut found = Vec::new();
        expected.pod_side(&mut Socket::open()?, link, &mut found).map(|()| found)
    });
    problems.extend(inside.map_err(|error| Failure::from(WireError::Netns(error)))??);
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!("container {} is not attached as ADD left it", request.container_id);
    Err(Failure::new(Code::Damaged, message).details(problems.join("; ")))
}

/// What of the pod's hostPorts the ledger has not.
fn missing_host_ports(
    document: &Document,
    request: &Request,
    pods: &[(IpAddr, PodEntry)],
) -> Result<Vec<String>, Failure> {
    let ips: Vec<IpAddr> = pods.iter().map(|(ip, _)| *ip).collect();
    let owner = request.key(document.name()?).owner();
    let claims = host_port::claims(&document.port_mappings(&ips)?, &ips, owner);
    let Some(ledger) = Ledger::open(&document.bpffs()?)? else { return Ok(Vec::new()) };
    let mut problems = Vec::new();
    for (key, entry) in claims {
        if ledger.host_port(key)? != Some(entry) {
            problems.push(format!("the ledger lacks {}", host_port::describe(&key)));
        }
    }
    Ok(problems)
}

/// The addresses that the ledger has for the attachment.
fn attached(document: &Document, request: &Request) -> Result<Vec<(IpAddr, PodEntry)>, Failure> {
    let owner = request.key(document.name()?).owner();
    let unknown = || {
        let message = format!("container {} is not attached by {}", request.container_id, request.ifname);
        Failure::new(Code::UnknownContainer, message)
    };
    let ledger = Ledger::open(&document.bpffs()?)?.ok_or_else(unknown)?;
    ledger.attachment(owner)?.ok_or_else(unknown)?;
    let pods = ledger.owned_by(owner)?;
    if pods.is_empty() {
        return Err(Failure::new(Code::Damaged, "the ledger has no address for the container"));
    }
    let address = |(addr, entry): (Addr, PodEntry)| (IpAddr::from(addr), entry);
    Ok(pods.into_iter().map(address).collect())
}

/// Compares the ledger with the result of ADD.
fn compare(expected: &Expected<'_>, result: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let empty = Vec::new();
    let list = |key: &str| result[key].as_array().unwrap_or(&empty);
    for (ip, entry) in expected.pods {
        if entry.state != PodState::READY {
            problems.push(format!("the ledger says that {ip} is still being added"));
        }
        let address = format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
        if !list("ips").iter().any(|known| known["address"] == *address) {
            problems.push(format!("the ledger has {address}, prevResult has not"));
        }
        let mac = Mac(entry.pod_mac).to_string();
        let known = |interface: &Value| interface["name"] == *expected.pod_name && interface["mac"] == *mac;
        if !list("interfaces").iter().any(known) {
            problems.push(format!("the ledger has {} with {mac}, prevResult has not", expected.pod_name));
        }
    }
    problems
}

impl Expected<'_> {
    fn host_side(
        &self,
        socket: &mut Socket,
        problems: &mut Vec<String>,
    ) -> Result<Option<Link>, NetlinkError> {
        let link = socket.link(self.host_name)?;
        let Some(link) = self.usable(self.host_name, link, |entry| entry.host_mac, problems) else {
            return Ok(None);
        };
        for (ip, entry) in self.pods {
            if entry.ifindex != link.index {
                problems.push(format!(
                    "{} has index {}, the ledger says {}",
                    self.host_name, link.index, entry.ifindex
                ));
            }
            let routes = socket.missing_routes(link.index, &[Route::Host(*ip)])?;
            problems.extend(routes.into_iter().map(|route| format!("the node lacks {route}")));
            if !socket.has_neighbour(link.index, *ip, Mac(entry.pod_mac))? {
                problems.push(format!("the node lacks the neighbour {ip}"));
            }
        }
        Ok(Some(link))
    }

    fn pod_side(
        &self,
        socket: &mut Socket,
        host: Option<Link>,
        problems: &mut Vec<String>,
    ) -> Result<(), NetlinkError> {
        let link = socket.link(self.pod_name)?;
        let Some(link) = self.usable(self.pod_name, link, |entry| entry.pod_mac, problems) else {
            return Ok(());
        };
        if host.is_some_and(|host| host.peer != link.index) {
            problems.push(format!("{} is not the other end of {}", self.pod_name, self.host_name));
        }
        let addresses = socket.addresses(link.index)?;
        for (ip, entry) in self.pods {
            if !addresses.contains(ip) {
                problems.push(format!("{} lacks the address {ip}", self.pod_name));
            }
            let routes = socket.missing_routes(link.index, &wire::pod_routes(*ip))?;
            problems.extend(routes.into_iter().map(|route| format!("the pod lacks {route}")));
            let gateway = wire::gateway(*ip);
            if !socket.has_neighbour(link.index, gateway, Mac(entry.host_mac))? {
                problems.push(format!("the pod lacks the neighbour {gateway}"));
            }
        }
        Ok(())
    }

    /// The link, if it is there; notes it if it is not, is down or has another MAC address.
    fn usable(
        &self,
        name: &str,
        link: Option<Link>,
        mac: impl Fn(&PodEntry) -> [u8; 6],
        problems: &mut Vec<String>,
    ) -> Option<Link> {
        let Some(link) = link else {
            problems.push(format!("there is no interface {name}"));
            return None;
        };
        if !link.up {
            problems.push(format!("{name} is down"));
        }
        if let Some((_, entry)) = self.pods.first()
            && link.mac != Some(Mac(mac(entry)))
        {
            problems.push(format!("{name} does not have the MAC address {}", Mac(mac(entry))));
        }
        Some(link)
    }
}

#[cfg(test)]
mod tests {
    use portolan_abi::Owner;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_result_of_add_must_agree_with_the_ledger() {
        let entry = PodEntry {
            owner: Owner([0; 16]),
            since: 0,
            state: PodState::READY,
            ifindex: 7,
            pod_mac: [2, 0, 0, 0, 0, 1],
            host_mac: [2, 0, 0, 0, 0, 2],
            flags: 0,
        };
        let pods = [("10.0.0.5".parse().unwrap(), entry)];
        let expected = Expected { host_name: "pn0", pod_name: "eth0", pods: &pods };
        let good = json!({
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}],
            "ips": [{"address": "192.0.2.1/24"}, {"address": "10.0.0.5/32"}],
        });
        assert_eq!(compare(&expected, &good), Vec::<String>::new());
        assert_eq!(compare(&expected, &json!({})).len(), 2);
        let other = json!({"interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:09"}], "ips": good["ips"]});
        assert_eq!(compare(&expected, &other).len(), 1);
    }
}
