//! The programs, run by the kernel on a frame that never was on a wire (`BPF_PROG_TEST_RUN`).

use anyhow::{Context as _, Result};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use portolan_lab::Node;
use portolan_lab::counters::{Counters, Counts};
use portolan_lab::frame::ETHERNET;

/// Where a program is attached, and so what a frame goes through it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// A pod of this node has sent it.
    FromPod,
    /// The stack sends it to a pod of this node.
    ToPod,
    /// It arrives at the uplink.
    FromUplink,
    /// The stack, or a redirect, sends it by the uplink.
    ToUplink,
}

/// What the kernel knows of a frame beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) hook: Hook,
    /// The interface of the hook.
    pub(crate) ifindex: u32,
    /// The interface that it came in by; 0: this node has made it.
    pub(crate) ingress: u32,
}

/// What a program has done with a frame.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) action: Action,
    pub(crate) frame: Vec<u8>,
    pub(crate) counts: Counts,
}

/// What a program returns (include/uapi/linux/pkt_cls.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The stack, or the next program.
    Stack,
    /// Nobody.
    Drop,
    /// Past the stack.
    Redirect,
}

/// The programs of a node.
pub(crate) struct Programs {
    programs: [SchedClassifier; 4],
    counters: Counters,
    counts: Counts,
}

/// Offsets into `struct __sk_buff` (include/uapi/linux/bpf.h), and how much of it is given.
const INGRESS: usize = 36;
const IFINDEX: usize = 40;
const CONTEXT: usize = 192;

impl Programs {
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let open = |name: &str| {
            let path = node.program(name);
            SchedClassifier::from_pin(&path).with_context(|| format!("Failed to open {}", path.display()))
        };
        let programs = [open("from_pod")?, open("to_pod")?, open("from_uplink")?, open("to_uplink")?];
        let counters = Counters::of(node)?;
        let counts = counters.read()?;
        Ok(Self { programs, counters, counts })
    }

    /// Runs the program of a hook, on a thread in the node's namespace. `None`: the kernel runs none on a frame that ends
    /// in the network header that it announces.
    pub(crate) fn run(&mut self, place: Place, frame: &[u8]) -> Result<Option<Seen>> {
        let header = match frame[12..ETHERNET] {
            [8, 0] => 20,
            [0x86, 0xdd] => 40,
            _ => 1,
        };
        if frame.len() < ETHERNET + header {
            return Ok(None);
        }
        let mut context = [0; CONTEXT];
        context[INGRESS..INGRESS + 4].copy_from_slice(&place.ingress.to_ne_bytes());
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&place.ifindex.to_ne_bytes());
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result =
            self.programs[place.hook as usize].test_run(options).context("Failed to run a program")?;
        out.truncate(usize::try_from(result.data_size_out)?);
        let action = match result.return_value {
            u32::MAX => Action::Stack,
            2 => Action::Drop,
            7 => Action::Redirect,
            other => anyhow::bail!("{:?} returns {other}", place.hook),
        };
        let now = self.counters.read()?;
        let counts = now.since(&self.counts);
        self.counts = now;
        Ok(Some(Seen { action, frame: out, counts }))
    }
}
