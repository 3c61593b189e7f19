//! The programs of packets on the interfaces of this machine: what should have them, and what came of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use portolan_abi::PodState;
use portolan_cni::attachment::host_ifname;
use portolan_cni::hook::Kept;
use portolan_cni::ledger::Ledger;
use portolan_core::state::Problem;
use tracing::{info, warn};

use super::App;
use crate::dataplane::tc::{Attachments, Held, UplinkError};
use crate::dataplane::xdp;
use crate::node::sink;

mod moves;

use moves::Moves;

/// What is known of the interfaces and their programs.
#[derive(Debug)]
pub(super) struct Packets {
    /// Interfaces have changed since they were last looked at, or it is time to look.
    stale: bool,
    moves: Moves,
    problems: Vec<Problem>,
    /// Why uplinks have no XDP program, by their names; `None`: that is switched off.
    xdp: Option<BTreeMap<String, String>>,
}

impl Packets {
    pub(super) fn new(now: Instant) -> Self {
        Self { stale: true, moves: Moves::new(now), problems: Vec::new(), xdp: None }
    }

    /// Somebody may have detached a program.
    pub(super) fn mark(&mut self) {
        self.stale = true;
    }

    /// Interfaces have come or gone.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.stale = true;
        self.moves.put_off(now);
    }

    /// When there is something to do even if nothing happens.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.moves.due_at()
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.problems.iter().cloned()
    }

    pub(super) fn xdp(&self) -> Option<&BTreeMap<String, String>> {
        self.xdp.as_ref()
    }

    /// What XDP cannot do tc does: this is no problem, and told once.
    fn set_xdp(&mut self, attachments: Option<xdp::Attachments>) {
        let before = self.xdp.take().unwrap_or_default();
        let mut refused = BTreeMap::new();
        let wanted = attachments.is_some();
        for (uplink, result) in attachments.into_iter().flatten() {
            match result.map_err(|refusal| refusal.to_string()) {
                Ok(Kept::Attached) => info!(uplink, "attached the XDP program"),
                Ok(Kept::Unchanged | Kept::Replaced) => {}
                Err(why) => {
                    if before.get(&uplink) != Some(&why) {
                        info!(uplink, why, "no XDP program");
                    }
                    refused.insert(uplink, why);
                }
            }
        }
        self.xdp = wanted.then_some(refused);
    }

    fn set_problems(&mut self, problems: Vec<Problem>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!("{}: {}", problem.subject, problem.message);
        }
        self.problems = problems;
    }
}

impl App {
    /// Attaches what is missing, once everything that programs read has been written.
    pub(super) fn keep_packets(&mut self) {
        if self.attached && std::mem::take(&mut self.packets.stale) {
            let result = self.try_keep_packets();
            if result.is_err() {
                self.machine.sink_has_program(false);
            }
            self.note("Packets", "NotAttached", result);
        }
    }

    fn try_keep_packets(&mut self) -> Result<()> {
        let pods = match self.machine.ledger() {
            Some(bpffs) => pods(&bpffs)?,
            None => BTreeMap::new(),
        };
        let attachments =
            self.dataplane.keep_packets(&self.machine.present_uplinks(), &pods, self.machine.sink())?;
        let Some(attachments) = attachments else {
            // The write of what they read is followed by another look.
            self.packets.mark();
            return Ok(());
        };
        for (uplink, result) in &attachments.uplinks {
            if let Ok(Held { method, new: true }) = result {
                info!(uplink, %method, "attached the programs of packets");
            }
        }
        if attachments.pods > 0 {
            info!(pods = attachments.pods, "attached the programs of packets to pods that had none");
        }
        self.packets.set_problems(problems(&attachments));
        self.machine.sink_has_program(attachments.sink.is_some_and(|held| held.is_ok()));
        self.packets.moves.set(attachments.movable);
        let held = |name: &String| {
            attachments.uplinks.iter().any(|(uplink, result)| uplink == name && result.is_ok())
        };
        let mut uplinks = self.machine.present_uplinks();
        uplinks.retain(|_, name| held(name));
        let xdp = self.dataplane.keep_xdp(&uplinks)?;
        self.packets.set_xdp(xdp);
        Ok(())
    }
}

/// The host sides of the pods that are ready: name by number.
fn pods(bpffs: &Path) -> Result<BTreeMap<u32, String>> {
    let Some(ledger) = Ledger::open(bpffs)? else { return Ok(BTreeMap::new()) };
    let ready = ledger.pods()?.into_values().filter(|pod| pod.state == PodState::READY);
    Ok(ready.map(|pod| (pod.ifindex, host_ifname(pod.owner))).collect())
}

fn problems(attachments: &Attachments) -> Vec<Problem> {
    let uplinks = attachments.uplinks.iter().filter_map(|(uplink, result)| {
        let error = result.as_ref().err()?;
        let reason = match error {
            UplinkError::NotEthernet => "UplinkNotEthernet",
            UplinkError::Refused(_) => "UplinkNotAttached",
        };
        Some(Problem { subject: format!("Uplink {uplink}"), reason, message: error.to_string() })
    });
    let pod = attachments.refused.as_ref().map(|(name, error)| Problem {
        subject: format!("Pod link {name}"),
        reason: "PodNotAttached",
        message: format!(
            "the programs of packets cannot be attached, and plain routing carries the pod: {error:#}"
        ),
    });
    let sink = attachments.sink.as_ref().and_then(|held| held.as_ref().err()).map(|error| Problem {
        subject: format!("Sink {}", sink::NAME),
        reason: "SinkNotAttached",
        message: format!(
            "its program cannot be attached, and the host's stack refuses what the node sends to pods of its own that are \
             gone: {error:#}; it is tried again every 30 s"
        ),
    });
    uplinks.chain(pod).chain(sink).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_attached_is_a_problem_of_its_interface() {
        let attachments = Attachments {
            uplinks: vec![
                ("wg0".to_owned(), Err(UplinkError::NotEthernet)),
                ("eth1".to_owned(), Err(UplinkError::Refused(anyhow::anyhow!("no")))),
            ],
            sink: Some(Err(anyhow::anyhow!("no"))),
            pods: 0,
            refused: Some(("pn0123456789ab".to_owned(), anyhow::anyhow!("no"))),
            movable: BTreeMap::new(),
        };
        let found = problems(&attachments);
        let found: Vec<_> = found.iter().map(|problem| (&*problem.subject, problem.reason)).collect();
        let expected = [
            ("Uplink wg0", "UplinkNotEthernet"),
            ("Uplink eth1", "UplinkNotAttached"),
            ("Pod link pn0123456789ab", "PodNotAttached"),
            ("Sink portolan0", "SinkNotAttached"),
        ];
        assert_eq!(found, expected);
    }
}
