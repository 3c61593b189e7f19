//! Loads the programs, creates the maps that are not pinned yet, and pins them.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, MapData};
use aya::programs::{CgroupSockAddr, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use portolan_abi::{Bucket, Flow, FlowHash, MapName, Network, ServiceInfo};
use portolan_cni::hook::Program;
use portolan_core::state::Limits;

use super::Pins;
use super::links::{self, Attached, PROGRAMS};
use super::pinned;
use super::tc::Packets;
use super::xdp;

/// The object that `build.rs` compiles from `ebpf/`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portolan.bpf.o"));

/// `BPF_F_NO_PREALLOC` (include/uapi/linux/bpf.h): elements are allocated when they are inserted.
const NO_PREALLOC: u32 = 1;

/// The programs, loaded into the kernel.
pub struct Programs {
    ebpf: Ebpf,
    cgroup: File,
    cgroup_id: u64,
    pins: Pins,
}

impl Programs {
    /// Loads the programs; maps that are pinned already are used as they are.
    pub fn load(pins: &Pins, cgroup: &Path, limits: &Limits) -> Result<Self> {
        prepare(pins)?;
        let dir = pins.maps();
        pinned::check(OBJECT, &dir)?;
        let mut loader = EbpfLoader::new();
        for name in MAPS {
            loader.map_pin_path(name.as_str(), dir.join(name.as_str()));
        }
        loader
            .map_max_entries(MapName::Frontends.as_str(), limits.frontends)
            .map_max_entries(MapName::Backends.as_str(), limits.backends)
            .map_max_entries(MapName::Maglev.as_str(), limits.table_rows)
            .map_max_entries(MapName::ServiceCounters.as_str(), limits.services)
            .map_max_entries(MapName::NodeAddrs.as_str(), limits.node_addrs)
            .map_max_entries(MapName::SourceRanges.as_str(), limits.source_ranges)
            .map_max_entries(MapName::ClusterCidrs.as_str(), limits.cluster_cidrs)
            .map_max_entries(MapName::Uplinks.as_str(), limits.uplinks)
            .map_max_entries(MapName::FlowSlots.as_str(), limits.flow_slots)
            .map_max_entries(MapName::Flows.as_str(), limits.flow_slots * Bucket::PER_FLOW);
        let mut ebpf = loader.load(OBJECT).context("loading the eBPF object")?;
        draw_flow_hash(&mut ebpf)?;
        create_services(&dir.join(MapName::Services.as_str()), limits.services)?;
        load_programs(&mut ebpf)?;
        let file = File::open(cgroup).with_context(|| format!("opening the cgroup {}", cgroup.display()))?;
        let cgroup_id = file.metadata()?.ino();
        #[cfg(feature = "bpf-log")]
        super::log::follow(&mut ebpf)?;
        Ok(Self { ebpf, cgroup: file, cgroup_id, pins: pins.clone() })
    }

    /// Attaches every program, or replaces an earlier daemon's in place.
    pub fn attach(&mut self) -> Result<Attached> {
        let mut attached = Attached::default();
        for (name, _) in PROGRAMS {
            let pin = self.pins.links().join(name);
            let program = program(&mut self.ebpf, name)?;
            let program_fd: OwnedFd = program.fd()?.as_fd().try_clone_to_owned()?;
            if links::adopt(&pin, program_fd.as_fd(), self.cgroup_id)? {
                attached.adopted += 1;
            } else {
                links::create(program, &self.cgroup, &pin).with_context(|| format!("attaching {name}"))?;
                attached.created += 1;
            }
        }
        Ok(attached)
    }

    /// The programs of packets, to be attached to interfaces.
    pub fn packets(&mut self) -> Result<Packets> {
        let mut programs = Vec::new();
        for (name, _) in links::PACKET_PROGRAMS {
            let fd = packet_program(&mut self.ebpf, name)?.fd()?.as_fd().try_clone_to_owned()?;
            programs.push(Program::new(fd).with_context(|| format!("asking for the number of {name}"))?);
        }
        Ok(Packets::new(programs, &self.pins))
    }

    /// The XDP program; loads it only now, as it is not always wanted.
    pub fn xdp(&mut self) -> Result<xdp::Xdp> {
        let name = xdp::PROGRAM;
        let program = self.ebpf.program_mut(name);
        let program = program.with_context(|| format!("the eBPF object has no program {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        program.load().with_context(|| format!("the kernel refuses the program {name}"))?;
        let fd = program.fd()?.as_fd().try_clone_to_owned()?;
        let program = Program::new(fd).with_context(|| format!("asking for the number of {name}"))?;
        Ok(xdp::Xdp::new(program, &self.pins))
    }

    /// How many instructions the verifier has processed for each program. Kernels before 5.16 do not say: none is there
    /// then, and neither is one that is not loaded.
    pub fn verified(&self) -> Result<BTreeMap<String, u32>> {
        let mut verified = BTreeMap::new();
        for (name, program) in self.ebpf.programs() {
            let info = match program.info() {
                Err(ProgramError::NotLoaded) => continue,
                info => info.with_context(|| format!("asking the kernel about the program {name}"))?,
            };
            verified.extend(info.verified_instruction_count().map(|count| (name.to_owned(), count)));
        }
        Ok(verified)
    }

    /// Whether `NETWORK` was ever written, by this daemon or one before. An array has its element from the beginning, and
    /// one of zeros makes every address one of a pod: the programs of packets must not be attached to that.
    pub fn network_is_known(&self) -> Result<bool> {
        let map = self.ebpf.map(MapName::Network.as_str()).context("the eBPF object has no map NETWORK")?;
        let network: Network = Array::try_from(map)?.get(&0, 0).context("reading NETWORK")?;
        Ok(network.node_v4.is_v4())
    }

    /// Pins the maps that have lost their pin while the programs still use them.
    pub fn pin_maps_again(&self) -> Result<usize> {
        prepare(&self.pins)?;
        let mut pinned = 0;
        for name in MAPS {
            let pin = self.pins.maps().join(name.as_str());
            if let Some(map) = self.ebpf.map(name.as_str())
                && !pin.exists()
            {
                map.pin(&pin).with_context(|| format!("pinning {}", pin.display()))?;
                pinned += 1;
            }
        }
        Ok(pinned)
    }
}

/// Loads all programs at once: the verifier takes a tenth of a second for some, and has no lock.
fn load_programs(ebpf: &mut Ebpf) -> Result<()> {
    thread::scope(|scope| {
        let load = |(name, program)| scope.spawn(move || load_program(name, program));
        let always = ebpf.programs_mut().filter(|(name, _)| *name != xdp::PROGRAM);
        let loading: Vec<_> = always.map(load).collect();
        loading.into_iter().try_for_each(|load| load.join().expect("loading does not panic"))
    })
}

fn load_program(name: &str, program: &mut aya::programs::Program) -> Result<()> {
    let loaded = match <&mut CgroupSockAddr>::try_from(&mut *program) {
        Ok(of_sockets) => of_sockets.load(),
        Err(_) => <&mut SchedClassifier>::try_from(program)?.load(),
    };
    loaded.with_context(|| format!("the kernel refuses the program {name}"))
}

/// The maps that programs use.
const MAPS: [MapName; 28] = [
    MapName::Frontends,
    MapName::Backends,
    MapName::Maglev,
    MapName::NodeAddrs,
    MapName::ServiceCidrs,
    MapName::Settings,
    MapName::Affinity,
    MapName::TcpPeers,
    MapName::UdpPeers,
    MapName::Counters,
    MapName::ServiceCounters,
    MapName::Pods,
    MapName::HostPorts,
    MapName::HostPortMarks,
    MapName::SourceRanges,
    MapName::Network,
    MapName::ClusterCidrs,
    MapName::Uplinks,
    MapName::Flows,
    MapName::FlowHash,
    MapName::FlowSlots,
    MapName::FlowHead,
    MapName::LocalPorts,
    MapName::RouteGeneration,
    MapName::Events,
    MapName::Monitor,
    MapName::LostEvents,
    MapName::XdpUplinks,
];

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr> {
    let program = ebpf.program_mut(name).with_context(|| format!("the eBPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn packet_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("the eBPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

/// Writes `FLOW_HASH`, unless an earlier daemon has: the flows that are there were put where it says.
fn draw_flow_hash(ebpf: &mut Ebpf) -> Result<()> {
    let map = |name: MapName| ebpf.map(name.as_str()).with_context(|| format!("no map {}", name.as_str()));
    let buckets = Array::<_, Bucket>::try_from(map(MapName::Flows)?)?.len();
    let slots = Array::<_, Flow>::try_from(map(MapName::FlowSlots)?)?.len();
    let map = ebpf.map_mut(MapName::FlowHash.as_str()).context("no map FLOW_HASH")?;
    let mut map = Array::<_, FlowHash>::try_from(map)?;
    let mut hash = map.get(&0, 0).context("reading FLOW_HASH")?;
    if hash.mask == 0 {
        let random = || getrandom::u64().context("drawing random numbers");
        for number in hash.factors.iter_mut().chain([&mut hash.addend]) {
            *number = random()?;
        }
        (hash.mask, hash.function) = (buckets - 1, FlowHash::FUNCTION);
        map.set(0, hash, 0).context("writing FLOW_HASH")?;
    }
    pinned::check_flow_hash(&hash, buckets, slots)
}

/// No program uses `SERVICES`, so that no object file defines it.
fn create_services(pin: &Path, size: u32) -> Result<()> {
    if pin.exists() {
        return Ok(());
    }
    let services =
        HashMap::<MapData, u32, ServiceInfo>::create(size, NO_PREALLOC).context("creating SERVICES")?;
    services.pin(pin).with_context(|| format!("pinning {}", pin.display()))
}

/// Makes the directories of the pins, readable by root alone; mounts bpffs where there is none.
fn prepare(pins: &Pins) -> Result<()> {
    let bpffs = &pins.bpffs;
    fs::create_dir_all(bpffs).with_context(|| format!("creating {}", bpffs.display()))?;
    if statfs(bpffs).with_context(|| format!("looking at {}", bpffs.display()))?.filesystem_type()
        != BPF_FS_MAGIC
    {
        let nothing: Option<&str> = None;
        mount(Some("bpf"), bpffs, Some("bpf"), MsFlags::empty(), nothing).with_context(|| {
            format!(
                "{} is no bpffs and mounting one fails: run as root, or mount it: mount -t bpf bpf {0}",
                bpffs.display()
            )
        })?;
    }
    let below = [pins.maps(), pins.links(), pins.programs(), pins.qdiscs()];
    for dir in [bpffs.join("portolan"), pins.root()].into_iter().chain(below) {
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                bail!("creating {}: {error}", dir.display())
            }
            _ => fs::set_permissions(&dir, Permissions::from_mode(0o700))?,
        }
    }
    Ok(())
}
