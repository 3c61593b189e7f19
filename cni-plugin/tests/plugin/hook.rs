//! Programs on the host side of a pod's veth.

use std::{
    fs,
    mem::zeroed,
    os::fd::{AsFd as _, OwnedFd},
    process::Command,
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use nix::net::if_::if_nametoindex;
use portolan_cni::{
    bpf,
    hook::{self, Direction, FROM_POD, Hook, HookError, Kept, Program, TO_POD, clsact},
    ledger::Ledger,
};
use serde_json::Value;

use crate::lab::{Node, Pod, inside};

/// Loads a program that passes every packet on.
fn load(name: &str) -> Program {
    let pass = [
        bpf_insn { code: 0xb7, _bitfield_1: Default::default(), _bitfield_align_1: [], off: 0, imm: -1 },
        bpf_insn { code: 0x95, _bitfield_1: Default::default(), _bitfield_align_1: [], off: 0, imm: 0 },
    ];
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
    // SAFETY: instructions and licence outlive the call.
    let fd: OwnedFd = unsafe { bpf::call_for_descriptor(bpf_cmd::BPF_PROG_LOAD, &mut attr) }.unwrap();
    Program::new(fd).unwrap()
}

/// Loads both programs and pins them, as the daemon does; their numbers.
fn pin_programs(node: &Node) -> [u32; 2] {
    Ledger::open_or_create(&node.bpffs()).unwrap();
    let directory = hook::programs(&node.bpffs());
    fs::create_dir_all(&directory).unwrap();
    [FROM_POD, TO_POD].map(|name| {
        let program = load(name);
        let _ = fs::remove_file(directory.join(name));
        bpf::pin(program.as_fd(), &directory.join(name)).unwrap();
        assert_eq!(Program::pinned(&node.bpffs(), name).unwrap().unwrap().id(), program.id());
        program.id()
    })
}

/// The programs at ingress and egress of the host side of a pod that was added.
fn attached(node: &Node, result: &Value) -> [Vec<u32>; 2] {
    let name = result.pointer("/interfaces/0/name").unwrap().as_str().unwrap();
    inside(&node.name, || {
        let ifindex = if_nametoindex(name).unwrap();
        [Direction::Ingress, Direction::Egress].map(|direction| ids(Hook { ifindex, direction }))
    })
}

fn ids(hook: Hook) -> Vec<u32> {
    clsact::program(hook).unwrap().into_iter().collect()
}

#[test]
fn a_pod_is_added_with_the_programs_that_are_pinned() {
    let node = Node::new();
    let early = Pod::new();
    assert_eq!(attached(&node, &node.add(&early)), [vec![0; 0], vec![]], "no daemon has pinned any");
    let [from, to] = pin_programs(&node);
    let pod = Pod::new();
    let result = node.add(&pod);
    assert_eq!(attached(&node, &result), [vec![from], vec![to]]);
    let config = node.config_with("prevResult", result);
    node.call("CHECK", &config).pod(&pod).run().success();
    node.del(&pod);
    node.del(&early);
    node.assert_clean("after DEL");
}

#[cfg(debug_assertions)]
#[test]
fn an_add_that_is_killed_with_its_programs_attached_is_cleaned_up() {
    let node = Node::new();
    pin_programs(&node);
    let pod = Pod::new();
    let call =
        node.call("ADD", &node.config()).pod(&pod).env("PORTOLAN_CNI_STOP_AFTER", "add:programs").run();
    assert!(call.killed());
    node.del(&pod);
    node.assert_clean("by DEL");
}

/// A node with an interface, and its hooks.
fn interface() -> (Node, [Hook; 2]) {
    let node = Node::new();
    node.ip("link add p0 type veth peer name p1");
    let ifindex = inside(&node.name, || if_nametoindex("p0").unwrap());
    (node, [Direction::Ingress, Direction::Egress].map(|direction| Hook { ifindex, direction }))
}

#[test]
fn an_interface_that_is_gone_is_told_from_one_that_refuses() {
    let (node, hooks) = interface();
    inside(&node.name, || {
        for hook in hooks {
            assert_eq!(hook::keep(hook, &load("ours")).unwrap(), Kept::Attached);
            assert_eq!(hook::keep(hook, &load("ours")).unwrap(), Kept::Replaced);
        }
        node.ip("link del p0");
        assert!(hook::keep(hooks[0], &load("ours")).unwrap_err().is_gone());
    });
}

/// Runs `tc` in the namespace of the calling thread.
fn tc(arguments: &str) -> String {
    let output = Command::new("tc").args(arguments.split_whitespace()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tc {arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_filter_is_replaced_in_place_and_those_of_others_stay() {
    let (node, hooks) = interface();
    inside(&node.name, || {
        let ifindex = hooks[0].ifindex;
        assert!(clsact::program(hooks[0]).unwrap().is_none(), "there is no qdisc");
        assert!(clsact::make_qdisc(ifindex).unwrap());
        assert!(!clsact::make_qdisc(ifindex).unwrap());
        let foreign = format!("id {} ", pin_programs(&node)[0]);
        let pin = hook::programs(&node.bpffs()).join(FROM_POD);
        tc(&format!("filter add dev p0 ingress prio 7 bpf da object-pinned {}", pin.display()));
        let (old, new) = (load("ours"), load("ours"));
        for hook in hooks {
            for (program, kept) in [(&old, Kept::Attached), (&old, Kept::Unchanged), (&new, Kept::Replaced)] {
                assert_eq!(clsact::keep(hook, program).unwrap(), kept);
                assert_eq!(clsact::program(hook).unwrap(), Some(program.id()));
                let listed = tc(&format!("filter show dev p0 {}", hook.direction));
                assert_eq!(listed.matches("portolan_ours direct-action").count(), 1, "{listed}");
            }
        }
        for hook in hooks {
            clsact::delete(hook).unwrap();
            clsact::delete(hook).unwrap();
            assert_eq!(clsact::program(hook).unwrap(), None);
        }
        assert!(!clsact::delete_empty_qdisc(ifindex).unwrap(), "somebody's filter is there");
        assert!(tc("filter show dev p0 ingress").contains(&foreign));
        tc("filter del dev p0 ingress prio 7");
        assert!(clsact::delete_empty_qdisc(ifindex).unwrap());
        assert!(!tc("qdisc show dev p0").contains("clsact"));
        clsact::delete_empty_qdisc(ifindex).unwrap();
    });
}

#[test]
fn what_is_in_the_place_of_our_filter_is_not_overwritten() {
    let (node, [hook, _]) = interface();
    inside(&node.name, || {
        tc("qdisc add dev p0 ingress");
        let refused = clsact::make_qdisc(hook.ifindex).unwrap_err();
        assert!(matches!(refused, HookError::Netlink { gone: false, .. }), "an ingress qdisc has no egress");
        tc("qdisc del dev p0 ingress");
        clsact::make_qdisc(hook.ifindex).unwrap();
        let (pin, foreign) = (hook::programs(&node.bpffs()).join(FROM_POD), pin_programs(&node));
        tc(&format!("filter add dev p0 ingress prio 112 handle 1 bpf da object-pinned {}", pin.display()));
        assert!(matches!(clsact::keep(hook, &load("ours")), Err(HookError::Foreign(_))));
        clsact::delete(hook).unwrap();
        let listed = tc("filter show dev p0 ingress");
        assert!(listed.contains(&format!("id {}", foreign[0])), "{listed}");
    });
}
