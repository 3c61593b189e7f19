//! A directory of manifests that changes at random, reproducibly.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use portolan_lab::manifest::{Manifest, Node};
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Endpoint, Family, Service, Slice};

const SERVICES: u8 = 40;
const NODES: u8 = 4;
const SLICES: u64 = 3;

/// The directory, and the state of chance.
pub(crate) struct World {
    random: u64,
    dir: PathBuf,
    /// The files that are half-written at the moment.
    broken: BTreeSet<PathBuf>,
}

impl World {
    pub(crate) fn new(seed: u64, dir: &Path) -> Self {
        Self { random: seed, dir: dir.to_owned(), broken: BTreeSet::new() }
    }

    /// Changes one file.
    pub(crate) fn edit(&mut self) -> Result<()> {
        match self.below(20) {
            0..7 => {
                let service = self.service();
                self.put(&service)
            }
            7..15 => {
                let slice = self.slice();
                self.put(&slice)
            }
            15 => {
                let node = self.node();
                self.put(&node)
            }
            16..18 => self.remove(),
            _ => self.break_one(),
        }
    }

    /// Removes what is half-written: a fresh daemon has no good version to keep.
    pub(crate) fn mend(&mut self) -> Result<()> {
        for path in std::mem::take(&mut self.broken) {
            fs::remove_file(&path).with_context(|| format!("Failed to remove {}", path.display()))?;
        }
        Ok(())
    }

    /// The splitmix64 generator (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn small(&mut self, limit: u8) -> u8 {
        u8::try_from(self.below(u64::from(limit))).expect("it is below the limit")
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn service(&mut self) -> Service {
        let number = self.small(SERVICES);
        let mut service =
            Service::new(&format!("edits/s{number}")).cluster_ip(Ipv4Addr::new(10, 96, 2, number));
        if self.one_in(2) {
            service = service.cluster_ip(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 2, u16::from(number)));
        }
        for port in 0..=self.small(2) {
            let proto = if self.one_in(3) { Udp } else { Tcp };
            service = service.port(&format!("p{port}"), proto, 80 + u16::from(port));
            if self.one_in(4) {
                // Few numbers for many Services: conflicts are part of it.
                service = service.node_port(30000 + u16::from(self.small(30)));
            }
        }
        if self.one_in(6) {
            service = service.external_ip(&format!("198.51.100.{}", self.below(8)));
        }
        if self.one_in(6) {
            let mode = if self.one_in(3) { "Proxy" } else { "VIP" };
            service = service.load_balancer(&format!("203.0.113.{}", self.below(8)), mode);
        }
        if self.one_in(8) {
            service = service.source_ranges(&["10.244.1.0/24", "192.0.2.0/24"]);
        }
        service = if self.one_in(6) { service.internal_local() } else { service };
        service = if self.one_in(6) { service.external_local() } else { service };
        service = if self.one_in(6) { service.affinity(60 + u32::from(number)) } else { service };
        match self.below(20) {
            0 => service.headless(),
            1 => service.external_name("example.org"),
            2 => service.label("service.kubernetes.io/service-proxy-name", "other"),
            _ => service,
        }
    }

    fn slice(&mut self) -> Slice {
        let service = Service::new(&format!("edits/s{}", self.small(SERVICES)));
        let family = if self.one_in(3) { Family::V6 } else { Family::V4 };
        let number = self.below(SLICES);
        let name = format!("{}-{number}-{}", service.file_stem(), family.as_str().to_lowercase());
        let mut slice = Slice::of(&service, family).named(&name);
        for port in 0..3 {
            let proto = if self.one_in(3) { Udp } else { Tcp };
            slice = slice.port(&format!("p{port}"), proto, 8080 + u16::from(self.small(3)));
        }
        for _ in 0..self.below(6) {
            let host = self.small(30) + 2;
            slice = slice.endpoint(self.endpoint(family, host));
        }
        slice
    }

    fn endpoint(&mut self, family: Family, host: u8) -> Endpoint {
        // The node follows from the address: two slices never disagree about where an endpoint is.
        let node = host % 4 + 1;
        let addr: IpAddr = match family {
            Family::V4 => Ipv4Addr::new(10, 244, node, host).into(),
            Family::V6 => Ipv6Addr::new(0xfd44, 0, 0, u16::from(node), 0, 0, 0, u16::from(host)).into(),
        };
        let mut endpoint = Endpoint::ready(addr).on(&format!("n{node}"));
        endpoint = match self.below(8) {
            0 => endpoint.terminating(),
            1 => endpoint.unready(),
            _ => endpoint,
        };
        if self.one_in(2) {
            endpoint =
                endpoint.hints(if node.is_multiple_of(2) { "east" } else { "west" }, &format!("n{node}"));
        }
        endpoint
    }

    /// Other nodes than the daemon's own, whose object stays.
    fn node(&mut self) -> Node {
        let number = self.small(NODES) + 2;
        let node = Node::new(&format!("n{number}"))
            .internal_ip(Ipv4Addr::new(172, 20, 0, 50 + number).into())
            .pod_cidr(format!("10.244.{number}.0/24"));
        if self.one_in(2) {
            node.internal_ip(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x50 + u16::from(number)).into())
                .pod_cidr(format!("fd44:0:0:{number:x}::/64"))
        } else {
            node
        }
    }

    /// By rename, as a good tool does, or in place, as an editor may.
    fn put(&mut self, object: &impl Manifest) -> Result<()> {
        let path = self.dir.join(format!("{}.json", object.file_stem()));
        let text = serde_json::to_vec_pretty(&object.to_json()).context("Failed to write a manifest")?;
        self.broken.remove(&path);
        if self.one_in(4) {
            return fs::write(&path, text).with_context(|| format!("Failed to write {}", path.display()));
        }
        let draft = self.dir.join(".draft.json.swp");
        fs::write(&draft, text).with_context(|| format!("Failed to write {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("Failed to rename to {}", path.display()))
    }

    fn remove(&mut self) -> Result<()> {
        if let Some(path) = self.pick()? {
            self.broken.remove(&path);
            fs::remove_file(&path).with_context(|| format!("Failed to remove {}", path.display()))?;
        }
        Ok(())
    }

    fn break_one(&mut self) -> Result<()> {
        if let Some(path) = self.pick()? {
            let text = fs::read(&path).with_context(|| format!("Failed to read {}", path.display()))?;
            fs::write(&path, &text[..text.len() / 2])
                .with_context(|| format!("Failed to cut {}", path.display()))?;
            self.broken.insert(path);
        }
        Ok(())
    }

    /// Any file but the cluster's own.
    fn pick(&mut self) -> Result<Option<PathBuf>> {
        let entries =
            fs::read_dir(&self.dir).with_context(|| format!("Failed to read {}", self.dir.display()))?;
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.contains("-edits-") || (name.starts_with("node-") && name != "node-n1.json")
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(ours).collect();
        paths.sort();
        if paths.is_empty() {
            return Ok(None);
        }
        let index = self.below(paths.len() as u64);
        Ok(paths.into_iter().nth(usize::try_from(index).context("an index")?))
    }
}
