//! A node.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portolan_abi::{LAYOUT, MapName};

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::daemon::{self, Daemon, Setup};
use crate::manifest::{self, Family, Manifest};
use crate::netns::Netns;
use crate::place::Place;
use crate::site::Site;
use crate::wait::until;

/// A namespace with a cgroup, directories and a daemon of its own. Node number X of a lab has the addresses
/// 172.20.0.1X and fd20::1X and the pod CIDRs 10.244.X.0/24 and fd44:0:0:X::/64.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: u8,
    zone: Option<String>,
    place: Place,
    setup: Setup,
    agent: Agent,
    args: Mutex<Vec<String>>,
    daemon: Mutex<Option<Daemon>>,
}

impl Node {
    pub(crate) fn create(
        site: &Site,
        cgroup: &Cgroup,
        name: &str,
        number: u8,
        zone: Option<&str>,
        flags: &[String],
    ) -> Result<Self> {
        let netns = Netns::create(site.netns_name(name))?;
        // Addresses are usable at once, and routers of the machine's other networks are not ours.
        netns.set_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        netns.set_sysctl("net/ipv6/conf/default/accept_ra", "0")?;
        let place = Place { netns, cgroup: cgroup.child(name)? };
        let dir = site.dir().join(name);
        let setup = Setup {
            node_name: name.to_owned(),
            manifests: make_dir(dir.join("manifests"))?,
            bpffs: make_dir(site.bpffs(name))?,
            cgroup: place.cgroup.path().to_owned(),
            // Not made: the daemon makes it.
            state_dir: dir.join("state"),
            cni_conf_dir: make_dir(dir.join("cni-conf"))?,
            cni_bin_dir: make_dir(dir.join("cni-bin"))?,
            log: dir.join("daemon.log"),
        };
        let agent = Agent::start(&place)?;
        let zone = zone.map(str::to_owned);
        Ok(Self {
            name: name.to_owned(),
            number,
            zone,
            place,
            setup,
            agent,
            args: Mutex::new(flags.to_vec()),
            daemon: Mutex::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its InternalIP of a family.
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(172, 20, 0, 10 + self.number).into(),
            Family::V6 => Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(self.number)).into(),
        }
    }

    /// Its pod CIDR of a family, as `address/length`.
    pub fn pod_cidr(&self, family: Family) -> String {
        match family {
            Family::V4 => format!("10.244.{}.0/24", self.number),
            Family::V6 => format!("fd44:0:0:{:x}::/64", self.number),
        }
    }

    /// Its Node object.
    pub fn object(&self) -> manifest::Node {
        let mut node = manifest::Node::new(&self.name);
        for family in Family::BOTH {
            node = node.internal_ip(self.ip(family)).pod_cidr(self.pod_cidr(family));
        }
        match &self.zone {
            Some(zone) => node.zone(zone),
            None => node,
        }
    }

    /// Its namespace and cgroup.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What its daemon is started with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Where a map of its programs is pinned.
    pub fn map(&self, map: MapName) -> PathBuf {
        self.setup.bpffs.join(format!("portolan/v{LAYOUT}/maps")).join(map.as_str())
    }

    /// Where a program of packets is pinned.
    pub fn program(&self, name: &str) -> PathBuf {
        self.setup.bpffs.join(format!("portolan/v{LAYOUT}/programs")).join(name)
    }

    /// Where the link of an attached program is pinned.
    pub fn link(&self, name: &str) -> PathBuf {
        self.setup.bpffs.join(format!("portolan/v{LAYOUT}/links")).join(name)
    }

    /// Its agent: a process of the node itself, as a host-network pod is.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// More arguments of `portolan run`, for daemons that are started from now on.
    pub fn set_args(&self, args: &[&str]) {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        *self.args.lock().unwrap_or_else(PoisonError::into_inner) = args;
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start(&self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// When it runs already or is not built.
    pub fn spawn(&self) -> Result<()> {
        let mut daemon = self.daemon();
        if daemon.is_some() {
            bail!("The daemon of {} runs already", self.name);
        }
        let args = self.args.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *daemon = Some(Daemon::spawn(&self.place, &self.setup, &args)?);
        Ok(())
    }

    /// Waits until the daemon is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn wait_ready(&self) -> Result<()> {
        let mut daemon = self.daemon();
        let daemon = daemon.as_mut().with_context(|| format!("{} has no daemon", self.name))?;
        daemon.wait_ready(&self.agent).with_context(|| format!("Node {}", self.name))
    }

    /// Waits until what is for no pod of the node is led to the sink, which follows when the daemon is ready.
    ///
    /// # Errors
    /// When it is not.
    pub fn wait_sink(&self) -> Result<()> {
        let netns = &self.place.netns;
        let is_led = || -> Result<Option<()>> {
            for (family, flag) in Family::BOTH.into_iter().zip(["-4", "-6"]) {
                let routes = netns.ip_json(&format!("{flag} route show exact {}", self.pod_cidr(family)))?;
                if routes[0]["dev"] != "portolan0" {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        until(Duration::from_secs(10), "the route to the sink", is_led).map(drop)
    }

    /// Kills the daemon with SIGKILL.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill(&self) -> Result<()> {
        self.daemon().take().with_context(|| format!("{} has no daemon", self.name))?.kill()
    }

    /// Stops the daemon with SIGTERM.
    ///
    /// # Errors
    /// When none runs or it ends badly.
    pub fn stop(&self) -> Result<()> {
        self.daemon().take().with_context(|| format!("{} has no daemon", self.name))?.stop()
    }

    /// Runs `portolan` with these arguments and this node's paths; what it prints.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn portolan(&self, args: &[&str]) -> Result<String> {
        let out = self.setup.tool(&self.place, args)?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!("`portolan {}` on {}: {}\n{said}", args.join(" "), self.name, out.status);
        }
        String::from_utf8(out.stdout).context("portolan should print UTF-8")
    }

    /// Runs `portolan cleanup` with all paths of this node; what it prints.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn cleanup(&self, args: &[&str]) -> Result<String> {
        let (conf, bin) =
            (self.setup.cni_conf_dir.to_string_lossy(), self.setup.cni_bin_dir.to_string_lossy());
        let mut all = vec!["cleanup", "--cni-conf-dir", &conf, "--cni-bin-dir", &bin];
        all.extend(args);
        self.portolan(&all)
    }

    /// Writes an object to the manifests of this node only, by rename.
    ///
    /// # Errors
    /// When the directory is gone.
    pub fn apply(&self, object: &impl Manifest) -> Result<()> {
        let file = self.manifest_path(object);
        let text = serde_json::to_vec_pretty(&object.to_json()).context("Failed to write a manifest")?;
        // Beside the directory, not in it: what the daemon sees is the rename alone.
        let draft = self.setup.manifests.with_extension("draft");
        fs::write(&draft, text).with_context(|| format!("Failed to write {}", draft.display()))?;
        fs::rename(&draft, &file).with_context(|| format!("Failed to rename to {}", file.display()))
    }

    /// Removes an object from the manifests of this node only.
    ///
    /// # Errors
    /// When it was not there.
    pub fn delete(&self, object: &impl Manifest) -> Result<()> {
        let file = self.manifest_path(object);
        fs::remove_file(&file).with_context(|| format!("Failed to remove {}", file.display()))
    }

    /// The end of the daemon's log.
    pub fn log(&self) -> String {
        daemon::tail(&self.setup.log)
    }

    fn manifest_path(&self, object: &impl Manifest) -> PathBuf {
        self.setup.manifests.join(format!("{}.json", object.file_stem()))
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_dir(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("Failed to create {}", path.display()))?;
    Ok(path)
}
