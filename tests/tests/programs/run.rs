//! The programs, run by the kernel on a frame that never was on a wire (`BPF_PROG_TEST_RUN`).

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya_obj::programs::XdpAttachType;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp, loaded_programs};
use portolan_abi::Outcome;
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
    /// The stack sends it to an address that no pod has.
    ToSink,
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
    programs: [SchedClassifier; 5],
    xdp: Xdp,
    counters: Counters,
    counts: Counts,
}

/// What the XDP program returns (include/uapi/linux/bpf.h).
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Offsets into `struct __sk_buff` (include/uapi/linux/bpf.h), and how much of it is given.
const INGRESS: usize = 36;
const IFINDEX: usize = 40;
const CONTEXT: usize = 192;

impl Programs {
    pub(crate) fn of(node: &Node, uplink: u32) -> Result<Self> {
        let open = |name: &str| {
            let path = node.program(name);
            SchedClassifier::from_pin(&path).with_context(|| format!("Failed to open {}", path.display()))
        };
        let programs =
            [open("from_pod")?, open("to_pod")?, open("from_uplink")?, open("to_uplink")?, open("to_sink")?];
        let counters = Counters::of(node)?;
        let counts = counters.read()?;
        Ok(Self { programs, xdp: xdp(node, uplink)?, counters, counts })
    }

    /// Runs the program of a hook, on a thread in the node's namespace. `None`: the kernel runs none on a frame that ends
    /// in the network header that it announces.
    pub(crate) fn run(&mut self, place: Place, frame: &[u8]) -> Result<Option<Seen>> {
        if !has_header(frame) {
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
            other => bail!("{:?} returns {other}", place.hook),
        };
        Ok(Some(Seen { action, frame: out, counts: self.counted()? }))
    }

    /// Runs the XDP program on a frame that arrives at the uplink, in the same way. `None`: it passes, as it was and
    /// uncounted.
    pub(crate) fn run_xdp(&mut self, place: Place, frame: &[u8]) -> Result<Option<Seen>> {
        if place.hook != Hook::FromUplink || !has_header(frame) {
            return Ok(None);
        }
        // `struct xdp_md`: begin and end of the frame, no metadata, the interface and its first queue, no other one.
        let context = [0, u32::try_from(frame.len())?, 0, place.ifindex, 0, 0].map(u32::to_ne_bytes).concat();
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = self.xdp.test_run(options).context("Failed to run the XDP program")?;
        let counts = self.counted()?;
        match result.return_value {
            XDP_PASS => {
                ensure!(out == frame && counts == Counts::NONE, "It passes, {counts:?}, as {out:02x?}");
                Ok(None)
            }
            XDP_TX | XDP_REDIRECT => Ok(Some(Seen { action: Action::Redirect, frame: out, counts })),
            other => bail!("The XDP program returns {other}"),
        }
    }

    fn counted(&mut self) -> Result<Counts> {
        let now = self.counters.read()?;
        let counts = now.since(&self.counts);
        self.counts = now;
        Ok(counts)
    }
}

/// The XDP program, which is pinned nowhere: its link is.
fn xdp(node: &Node, uplink: u32) -> Result<Xdp> {
    let link = PinnedLink::from_pin(node.link(&format!("xdp-{uplink}"))).context("XDP is not attached")?;
    let id = FdLink::from(link).info()?.program_id();
    for program in loaded_programs() {
        let program = program?;
        if program.id() == id {
            return Ok(Xdp::from_program_info(program, "xdp_uplink".into(), XdpAttachType::Interface)?);
        }
    }
    bail!("There is no program {id}")
}

/// Whether a frame has the network header that it announces.
fn has_header(frame: &[u8]) -> bool {
    let header = match frame[12..ETHERNET] {
        [8, 0] => 20,
        [0x86, 0xdd] => 40,
        _ => 1,
    };
    frame.len() >= ETHERNET + header
}

/// What XDP counts, as tc counts the same.
pub(crate) fn as_by_tc(counts: &Counts) -> Counts {
    let mut outcomes = Vec::new();
    for outcome in Outcome::ALL {
        let by_tc = if outcome == Outcome::ForwardedXdp { Outcome::Forwarded } else { outcome };
        outcomes.extend((0..counts.get(outcome)).map(|_| by_tc));
    }
    Counts::of(&outcomes)
}
