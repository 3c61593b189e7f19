//! ADD: attaches a pod.

use std::{net::IpAddr, os::fd::AsFd as _, path::PathBuf};

use nix::errno::Errno;
use portolan_abi::{Addr, Attachment, FrontendKey, Owner, PodEntry, PodState};

use crate::{
    attachment::{self, Key},
    carrier, clock,
    config::{Document, Settings},
    crash, hook, host_port, lease,
    ledger::Ledger,
    mac::Mac,
    netlink::{
        NetlinkError, Socket,
        link::{End, Link},
    },
    netns::Netns,
    removal,
    request::{PodName, Request},
    result::{self, Attached},
    spec::{Code, Failure, Version},
    wire::{Wire, WireError},
};

/// What ADD has done so far, and must undo if it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// The attachment is recorded.
    Recorded,
    /// The address is taken.
    Taken(IpAddr),
    /// The hostPort may be claimed.
    Claimed(FrontendKey),
    /// The veth pair exists.
    Linked,
}

/// An ADD under way.
struct Addition<'a> {
    owner: Owner,
    host_name: String,
    host_mac: Mac,
    pod_mac: Mac,
    request: &'a Request,
    settings: &'a Settings,
    bpffs: PathBuf,
    netns: &'a Netns,
    ledger: Ledger,
    socket: Socket,
    done: Vec<Done>,
}

pub(crate) fn add(request: &Request, document: &Document, version: Version) -> Result<String, Failure> {
    let key = request.key(document.name()?);
    let settings = document.settings()?;
    let before = document.prev_result()?.unwrap_or_default();
    let pod = PodName::parse(&request.args)?;
    let netns = open_netns(request)?;
    let record = record(key, request, &pod, netns.cookie());
    let bpffs = document.bpffs()?;
    let owner = key.owner();
    let mut addition = Addition {
        owner,
        host_name: attachment::host_ifname(owner),
        host_mac: attachment::host_mac(owner),
        pod_mac: settings.mac.unwrap_or_else(|| attachment::pod_mac(owner)),
        request,
        settings: &settings,
        netns: &netns,
        ledger: Ledger::open_or_create(&bpffs)?,
        bpffs,
        socket: Socket::open()?,
        done: Vec::new(),
    };
    let result = addition.attach(&record).and_then(|ips| {
        let attached = Attached {
            host_name: &addition.host_name,
            host_mac: addition.host_mac,
            pod_name: &request.ifname,
            pod_mac: addition.pod_mac,
            mtu: settings.mtu,
            sandbox: &request.netns,
            ips: &ips,
        };
        result::extend(version, before, document.dns(), attached)
    });
    match result {
        Ok(result) => {
            crash::after("add:done");
            Ok(format!("{result}\n"))
        }
        Err(failure) => Err(addition.undo(failure)),
    }
}

/// The pod's namespace. That of the plugin itself is refused: a runtime that passes it by mistake would have the node's
/// own default route replaced.
pub(crate) fn open_netns(request: &Request) -> Result<Netns, Failure> {
    let netns = Netns::open(&request.netns)?;
    let own = netns
        .is_own()
        .map_err(|error| Failure::new(Code::Io, format!("cannot compare network namespaces: {error}")))?;
    if own && !request.netns_override {
        let message = format!(
            "CNI_NETNS {:?} is the plugin's own network namespace: that of the pod was expected (CNI_NETNS_OVERRIDE=1 \
             allows it)",
            request.netns
        );
        return Err(Failure::new(Code::InvalidNetns, message));
    }
    Ok(netns)
}

fn record(key: Key<'_>, request: &Request, pod: &PodName, netns_cookie: u64) -> Attachment {
    Attachment {
        network: attachment::padded(key.network),
        container_id: attachment::padded(key.container_id),
        ifname: attachment::padded(key.ifname),
        netns: attachment::padded(&request.netns),
        pod_namespace: attachment::padded(&pod.namespace),
        pod_name: attachment::padded(&pod.name),
        since: clock::now(),
        netns_cookie,
    }
}

impl Addition<'_> {
    /// All steps, in order; the addresses that the pod has.
    fn attach(&mut self, record: &Attachment) -> Result<Vec<IpAddr>, Failure> {
        self.record(record)?;
        let ips = self.take_addresses()?;
        self.claim_host_ports(&ips)?;
        let wire = Wire {
            host: End { name: &self.host_name, mac: self.host_mac, mtu: self.settings.mtu },
            pod: End { name: &self.request.ifname, mac: self.pod_mac, mtu: self.settings.mtu },
            netns: self.netns,
            ips: &ips,
        };
        if let Err(error) = self.socket.create_veth(wire.host, wire.pod, self.netns.as_fd()) {
            return Err(self.explain_no_link(error));
        }
        self.done.push(Done::Linked);
        crash::after("add:link");
        let link =
            self.socket.link(&self.host_name)?.ok_or_else(|| WireError::Vanished(self.host_name.clone()))?;
        // Before a packet can flow. Should it fail, plain routing carries the pod, and the daemon attaches what is missing.
        let _ = hook::attach_pod(&self.bpffs, &mut self.socket, link.index);
        crash::after("add:programs");
        wire.set_up_host_side(&mut self.socket, link)?;
        crash::after("add:host-side");
        wire.set_up_pod_side(link)?;
        crash::after("add:pod-side");
        // Should this fail, the kernel looks at the carrier by itself, a moment later.
        let _ = carrier::settle(&self.host_name);
        for &ip in &ips {
            self.ledger.update(Addr::from(ip), &self.ready(link, record.since))?;
            crash::after_family("add:ready:ipv4", "add:ready:ipv6", ip);
        }
        Ok(ips)
    }

    /// Records the attachment. One that is recorded already is either alive, which is an error of the runtime, or what
    /// an ADD left that was killed, which is removed.
    fn record(&mut self, record: &Attachment) -> Result<(), Failure> {
        if !self.ledger.attach(self.owner, record)? {
            if self.is_alive()? {
                return Err(self.already_attached());
            }
            removal::remove_by(&mut self.socket, Some(&mut self.ledger), self.owner)?;
            if !self.ledger.attach(self.owner, record)? {
                let message = "another ADD of the same container and interface is under way";
                return Err(Failure::new(Code::TryAgain, message));
            }
        }
        self.done.push(Done::Recorded);
        crash::after("add:attachment");
        Ok(())
    }

    fn is_alive(&mut self) -> Result<bool, Failure> {
        let entries = self.ledger.owned_by(self.owner)?;
        let ready = entries.iter().all(|(_, entry)| entry.state == PodState::READY);
        Ok(!entries.is_empty() && ready && self.socket.link(&self.host_name)?.is_some())
    }

    fn already_attached(&self) -> Failure {
        let (container, ifname) = (&self.request.container_id, &self.request.ifname);
        let message = format!(
            "container {container} is already attached by {ifname} (host side {}): DEL comes before another ADD",
            self.host_name
        );
        Failure::new(Code::InvalidEnvironment, message)
    }

    fn take_addresses(&mut self) -> Result<Vec<IpAddr>, Failure> {
        let settings = self.settings;
        let mut ips = Vec::with_capacity(settings.pools.len());
        for pool in &settings.pools {
            let wanted = settings.ips.iter().copied().find(|ip| pool.may_ask(*ip));
            let ip = lease::take(&mut self.ledger, pool, wanted, self.owner)?;
            self.done.push(Done::Taken(ip));
            crash::after_family("add:address:ipv4", "add:address:ipv6", ip);
            ips.push(ip);
        }
        Ok(ips)
    }

    fn claim_host_ports(&mut self, ips: &[IpAddr]) -> Result<(), Failure> {
        for (key, entry) in host_port::claims(&self.settings.port_mappings, ips, self.owner) {
            self.done.push(Done::Claimed(key));
            host_port::claim(&mut self.ledger, key, &entry)?;
            crash::after_family("add:host-port:ipv4", "add:host-port:ipv6", key.addr.into());
        }
        Ok(())
    }

    /// Says which of the two names exists when the kernel only says that one does.
    fn explain_no_link(&mut self, error: NetlinkError) -> Failure {
        if !error.is(Errno::EEXIST) {
            return error.into();
        }
        match self.socket.link(&self.host_name) {
            Ok(Some(_)) => self.already_attached(),
            _ => {
                let ifname = &self.request.ifname;
                let message = format!("CNI_IFNAME {ifname:?} exists already in {:?}", self.request.netns);
                Failure::new(Code::InvalidEnvironment, message)
            }
        }
    }

    fn ready(&self, link: Link, since: u64) -> PodEntry {
        PodEntry {
            owner: self.owner,
            since,
            state: PodState::READY,
            ifindex: link.index,
            pod_mac: self.pod_mac.0,
            host_mac: self.host_mac.0,
            flags: 0,
        }
    }

    /// Undoes what was done, the last first, and adds to `failure` what could not be undone. As long as the interface
    /// may exist its addresses stay taken, for DEL or GC to give back.
    fn undo(mut self, mut failure: Failure) -> Failure {
        while let Some(step) = self.done.pop() {
            let undone = match step {
                Done::Linked => self.socket.delete_link(&self.host_name).map_err(Failure::from),
                Done::Claimed(key) => self.ledger.unclaim(key, self.owner).map_err(Failure::from),
                Done::Taken(ip) => self.ledger.free(Addr::from(ip), self.owner).map_err(Failure::from),
                Done::Recorded => self.ledger.detach(self.owner).map_err(Failure::from),
            };
            if let Err(problem) = undone {
                failure.details = format!("not undone, until DEL: {}", problem.message);
                break;
            }
        }
        failure
    }
}
