use std::mem::zeroed;

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use portolan_cni::ledger::Ledger;

use super::*;
use crate::dataplane::links::{self, PACKET_PROGRAMS};
use crate::node::sandbox::{self, ip};

/// No program at either hook.
const NOTHING: [Vec<u32>; 2] = [Vec::new(), Vec::new()];

/// Loads a program that passes every packet on.
fn load(name: &str) -> Program {
    let pass = [(0xb7, -1), (0x95, 0)].map(|(code, imm)| bpf_insn {
        code,
        _bitfield_1: Default::default(),
        _bitfield_align_1: [],
        off: 0,
        imm,
    });
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    // SAFETY: all-zero is a valid value of any member.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    program.insns = pass.as_ptr() as u64;
    program.insn_cnt = 2;
    program.license = c"GPL".as_ptr() as u64;
    for (to, from) in program.prog_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: instructions and licence outlive the call, which returns a descriptor.
    Program::new(unsafe { bpf::call_for_descriptor(bpf_cmd::BPF_PROG_LOAD, &mut attr) }.unwrap()).unwrap()
}

/// A BPF file system of its own, gone with the test.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
        let bpffs = Self(tempfile::tempdir().unwrap());
        Ledger::open_or_create(bpffs.0.path()).unwrap();
        for dir in [bpffs.pins().links(), bpffs.pins().programs(), bpffs.pins().qdiscs()] {
            fs::create_dir(dir).unwrap();
        }
        bpffs
    }

    fn pins(&self) -> Pins {
        Pins::new(self.0.path())
    }

    /// What a daemon has that starts now.
    fn daemon(&self) -> Packets {
        Packets::new(PACKET_PROGRAMS.map(|(name, _)| load(name)).into(), &self.pins())
    }

    fn names(&self, dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

/// Makes a veth pair; its number and name, as attachments are asked for.
fn interface(name: &str) -> BTreeMap<u32, String> {
    ip(&format!("link add {name} type veth peer name {}", name.replace('p', "q")));
    BTreeMap::from([(if_nametoindex(name).unwrap(), name.to_owned())])
}

fn hooks(interface: &BTreeMap<u32, String>) -> [Hook; 2] {
    let ifindex = *interface.keys().next().unwrap();
    [Direction::Ingress, Direction::Egress].map(|direction| Hook { ifindex, direction })
}

/// Numbers of programs and links at both hooks.
fn holds(interface: &BTreeMap<u32, String>) -> [Vec<tcx::Attached>; 2] {
    hooks(interface).map(|hook| tcx::query(hook).unwrap().expect("these tests need a kernel with tcx"))
}

fn ids(interface: &BTreeMap<u32, String>) -> [Vec<u32>; 2] {
    holds(interface).map(|programs| programs.into_iter().map(|program| program.program).collect())
}

/// Numbers of programs in our filters at both hooks.
fn filtered(interface: &BTreeMap<u32, String>) -> [Vec<u32>; 2] {
    hooks(interface).map(|hook| clsact::program(hook).unwrap().into_iter().collect())
}

fn of(packets: &Packets, programs: [(&str, Direction); 2]) -> [Vec<u32>; 2] {
    programs.map(|(name, _)| vec![packets.program(name).id()])
}

fn is_new(attachments: &Attachments) -> Vec<bool> {
    attachments.uplinks.iter().map(|(_, result)| result.as_ref().unwrap().new).collect()
}

#[test]
fn a_restart_updates_the_links_of_an_uplink_in_place() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let up = interface("up0");
        let first = bpffs.daemon();
        assert_eq!(is_new(&first.keep(&up, &none, None).unwrap()), [true]);
        assert_eq!(ids(&up), of(&first, UPLINK));
        assert_eq!(is_new(&first.keep(&up, &none, None).unwrap()), [false]);
        assert_eq!(attached(&bpffs.pins(), "up0").unwrap(), Some(Method::Tcx));
        let before = holds(&up);

        // A daemon that ends leaves what is attached.
        drop(first);
        assert_eq!(holds(&up), before);
        let second = bpffs.daemon();
        assert_eq!(is_new(&second.keep(&up, &none, None).unwrap()), [false]);
        assert_eq!(ids(&up), of(&second, UPLINK), "one program, and the new one");
        let links = |held: [Vec<tcx::Attached>; 2]| held.map(|programs| programs[0].link);
        assert_eq!(links(holds(&up)), links(before), "in the links that were there");
        let pinned = |name| Program::pinned(&bpffs.pins().bpffs, name).unwrap().unwrap().id();
        for (name, _) in PACKET_PROGRAMS {
            assert_eq!(pinned(name), second.program(name).id());
        }
        assert_eq!(bpffs.names(&bpffs.pins().programs()).len(), PACKET_PROGRAMS.len());
    });
}

#[test]
fn the_sink_has_its_program_where_packets_leave_by_it_as_long_as_it_is_there() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let (up, other) = (interface("up0"), interface("portolan0"));
        let sink = other.keys().next().copied();
        let daemon = bpffs.daemon();
        let new = || daemon.keep(&up, &none, sink).unwrap().sink.map(|held| held.unwrap().new);
        assert_eq!((new(), new()), (Some(true), Some(false)));
        assert_eq!(ids(&other), [vec![], vec![daemon.program("to_sink").id()]]);
        assert_eq!(ids(&up), of(&daemon, UPLINK));
        // Not even the uplinks are known yet: all stays.
        daemon.keep(&none, &none, None).unwrap();
        assert_eq!(new(), Some(false));
        // Without a pod network of ours, routes of an earlier daemon may still lead there.
        assert!(daemon.keep(&up, &none, None).unwrap().sink.is_none());
        assert_eq!(new(), Some(false));
        assert!(
            daemon.keep(&up, &none, Some(4_000_000)).unwrap().sink.unwrap().is_err(),
            "nobody has this number"
        );
    });
}

#[test]
fn what_somebody_detaches_is_attached_again() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let up = interface("up0");
        let daemon = bpffs.daemon();
        daemon.keep(&up, &none, None).unwrap();
        let pins = bpffs.names(&bpffs.pins().links());
        assert_eq!(pins.len(), 2);

        links::remove(&bpffs.pins().links().join(&pins[0])).unwrap();
        let link = bpf::open_pinned(&bpffs.pins().links().join(&pins[1])).unwrap();
        sys::detach_link(link.as_fd()).unwrap();
        drop(link);
        assert_eq!(ids(&up), NOTHING);
        assert_eq!(attached(&bpffs.pins(), "up0").unwrap(), None);

        assert_eq!(is_new(&daemon.keep(&up, &none, None).unwrap()), [true]);
        assert_eq!(ids(&up), of(&daemon, UPLINK));
        assert_eq!(bpffs.names(&bpffs.pins().links()), pins);
    });
}

#[test]
fn programs_of_others_stay_where_they_are() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let (up0, up1) = (interface("up0"), interface("up1"));
        let [behind, before] = ["behind", "before"].map(load);
        let attach =
            |program: &Program| hooks(&up0).map(|hook| sys::create_tcx_link(program.as_fd(), hook).unwrap());
        let _behind = attach(&behind);
        let first = bpffs.daemon();
        first.keep(&up0, &none, None).unwrap();
        let _before = attach(&before);
        let second = bpffs.daemon();
        for daemon in [&first, &second] {
            daemon.keep(&up0, &none, None).unwrap();
            let ordered = of(daemon, UPLINK).map(|ours| vec![before.id(), ours[0], behind.id()]);
            assert_eq!(ids(&up0), ordered);
        }
        second.keep(&up1, &none, None).unwrap();
        assert_eq!(ids(&up0), [(); 2].map(|()| vec![before.id(), behind.id()]), "only ours are gone");
    });
}

#[test]
fn nothing_stays_pinned_for_interfaces_that_are_gone_or_no_uplinks_any_more() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let (up0, up1) = (interface("up0"), interface("up1"));
        let daemon = bpffs.daemon();
        let both = up0.clone().into_iter().chain(up1.clone()).collect();
        daemon.keep(&both, &none, None).unwrap();
        assert_eq!(bpffs.names(&bpffs.pins().links()).len(), 4);
        daemon.keep(&none, &none, None).unwrap();
        assert_eq!(ids(&up0), of(&daemon, UPLINK), "that no uplink is known means nothing");
        daemon.keep(&up0, &none, None).unwrap();
        assert_eq!(ids(&up1), NOTHING);
        assert_eq!(bpffs.names(&bpffs.pins().links()).len(), 2);
        ip("link del up0");
        daemon.keep(&none, &none, None).unwrap();
        assert_eq!(bpffs.names(&bpffs.pins().links()), [""; 0]);
    });
}

#[test]
fn what_is_not_ethernet_gets_no_program() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let lo = BTreeMap::from([(1, "lo".to_owned())]);
        let attachments = bpffs.daemon().keep(&lo, &none, None).unwrap();
        assert!(matches!(attachments.uplinks[0].1, Err(UplinkError::NotEthernet)));
        assert_eq!(ids(&lo), NOTHING);
        let gone = BTreeMap::from([(4711, "gone0".to_owned())]);
        let attachments = bpffs.daemon().keep(&gone, &none, None).unwrap();
        assert!(matches!(attachments.uplinks[0].1, Err(UplinkError::Refused(_))));
    });
}

#[test]
fn pods_get_what_their_plugin_has_not_attached_and_other_interfaces_do_not() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let pod = interface("pn0123456789ab");
        let first = bpffs.daemon();
        assert_eq!(first.keep(&none, &pod, None).unwrap().pods, 1);
        assert_eq!(filtered(&pod), of(&first, hook::POD));
        assert_eq!(first.keep(&none, &pod, None).unwrap().pods, 0);
        let second = bpffs.daemon();
        assert_eq!(second.keep(&none, &pod, None).unwrap().pods, 0, "replaced in place");
        assert_eq!(filtered(&pod), of(&second, hook::POD));
        clsact::delete(hooks(&pod)[0]).unwrap();
        assert_eq!(second.keep(&none, &pod, None).unwrap().pods, 1);

        // The number of a pod that is gone has come to something else.
        let other = interface("up0");
        let claimed = BTreeMap::from([(*other.keys().next().unwrap(), "pn000000000000".to_owned())]);
        assert_eq!(second.keep(&none, &claimed, None).unwrap().pods, 0);
        assert_eq!(filtered(&other), NOTHING);
        ip("link del pn0123456789ab");
        let attachments = second.keep(&none, &pod, None).unwrap();
        assert!(attachments.refused.is_none() && attachments.pods == 0);
        assert_eq!(bpffs.names(&bpffs.pins().links()), [""; 0]);
    });
}

#[test]
fn what_a_pod_sends_is_moved_to_tcx_and_stays_there_until_the_pod_is_gone() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let (pod, up) = (interface("pn0123456789ab"), interface("up0"));
        let (ifindex, name) = pod.first_key_value().unwrap();
        let pins = || bpffs.names(&bpffs.pins().links());
        let moved = |daemon: &Packets| {
            let [from, to] = of(daemon, hook::POD);
            assert_eq!((ids(&pod), filtered(&pod)), ([from, vec![]], [vec![], to]));
            holds(&pod)[0][0].link
        };
        let first = bpffs.daemon();
        assert_eq!(first.keep(&none, &pod, None).unwrap().movable, pod);
        assert_eq!((ids(&pod), filtered(&pod)), (NOTHING, of(&first, hook::POD)));
        first.move_pod(*ifindex, name).unwrap();
        let link = moved(&first);
        assert_eq!(pins(), [format!("tcx-{ifindex}-from_pod")]);

        let second = bpffs.daemon();
        let kept = second.keep(&up, &pod, None).unwrap();
        assert_eq!((kept.pods, kept.movable), (0, none.clone()));
        assert_eq!(moved(&second), link, "in the link that was there");
        // As one who ended in the midst of it leaves it.
        clsact::keep(hooks(&pod)[0], second.program(FROM_POD)).unwrap();
        second.keep(&up, &pod, None).unwrap();
        second.keep(&up, &none, None).unwrap();
        assert_eq!(moved(&second), link, "it ends with its veth, not with what is known of the pod");

        ip("link del pn0123456789ab");
        second.move_pod(*ifindex, name).unwrap();
        second.keep(&none, &none, None).unwrap();
        assert_eq!(pins(), UPLINK.map(|(program, _)| format!("tcx-{}-{program}", up.keys().next().unwrap())));
    });
}

#[test]
fn what_cannot_be_moved_stays_in_its_filter() {
    sandbox::run(async {
        let (bpffs, none) = (Bpffs::new(), BTreeMap::new());
        let pod = interface("pn0123456789ab");
        let (ifindex, name) = pod.first_key_value().unwrap();
        let attach = || sys::create_tcx_link(load("other").as_fd(), hooks(&pod)[0]).ok();
        let full: Vec<_> = std::iter::from_fn(attach).collect();
        let daemon = bpffs.daemon();
        daemon.keep(&none, &pod, None).unwrap();
        daemon.move_pod(*ifindex, name).unwrap_err();
        assert_eq!(filtered(&pod), of(&daemon, hook::POD));
        drop(full);
        let kept = daemon.keep(&none, &pod, None).unwrap();
        assert!(kept.refused.is_none() && kept.movable == pod, "it is tried again");
    });
}

#[test]
fn a_kernel_without_tcx_gets_filters_and_the_qdisc_goes_with_them_if_it_was_ours() {
    sandbox::run(async {
        let bpffs = Bpffs::new();
        let (ours, theirs) = (interface("up0"), interface("up1"));
        clsact::make_qdisc(*theirs.keys().next().unwrap()).unwrap();
        for daemon in [bpffs.daemon(), bpffs.daemon()] {
            for hook in hooks(&ours).into_iter().chain(hooks(&theirs)) {
                daemon.keep_filter(hook, daemon.program("to_uplink")).unwrap();
                assert_eq!(clsact::program(hook).unwrap(), Some(daemon.program("to_uplink").id()));
                assert_eq!(daemon.keep_filter(hook, daemon.program("to_uplink")).unwrap(), Kept::Unchanged);
            }
        }
        assert_eq!(filters().unwrap().len(), 4);
        assert_eq!(attached(&bpffs.pins(), "up1").unwrap(), Some(Method::Clsact));
        let marks = bpffs.names(&bpffs.pins().qdiscs());
        assert_eq!(marks, [ours.keys().next().unwrap().to_string()]);

        let is_theirs = |ifindex| theirs.contains_key(&ifindex);
        remove_other_filters(is_theirs).unwrap();
        qdisc::remove_others(&bpffs.pins().qdiscs(), is_theirs).unwrap();
        assert_eq!(filters().unwrap().len(), 2);
        assert_eq!(bpffs.names(&bpffs.pins().qdiscs()), [""; 0]);
        remove_other_filters(|_| false).unwrap();
        assert!(clsact::make_qdisc(*ours.keys().next().unwrap()).unwrap(), "it was taken away");
        assert!(!clsact::make_qdisc(*theirs.keys().next().unwrap()).unwrap(), "it stayed");
    });
}
