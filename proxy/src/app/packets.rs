//! The programs of packets on the interfaces of this machine: what should have them, and what came of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use portolan_abi::PodState;
use portolan_cni::attachment::host_ifname;
use portolan_cni::hook::HookError;
use portolan_cni::ledger::Ledger;
use portolan_core::state::Problem;
use tracing::{info, warn};

use super::App;
use crate::dataplane::tc::{Attachments, Held, UplinkError};

/// What is known of the interfaces and their programs.
#[derive(Debug)]
pub(super) struct Packets {
    /// Interfaces have changed since they were last looked at, or it is time to look.
    stale: bool,
    problems: Vec<Problem>,
}

impl Packets {
    pub(super) fn new() -> Self {
        Self { stale: true, problems: Vec::new() }
    }

    /// Interfaces have come or gone, or somebody may have detached a program.
    pub(super) fn mark(&mut self) {
        self.stale = true;
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.problems.iter().cloned()
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
            self.note("Packets", "NotAttached", result);
        }
    }

    fn try_keep_packets(&mut self) -> Result<()> {
        let pods = match self.machine.ledger() {
            Some(bpffs) => pods(&bpffs)?,
            None => BTreeMap::new(),
        };
        let attachments = self.dataplane.keep_packets(&self.machine.present_uplinks(), &pods)?;
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
    let pod = attachments.refused.as_ref().map(|(name, error): &(String, HookError)| Problem {
        subject: format!("Pod link {name}"),
        reason: "PodNotAttached",
        message: format!(
            "the programs of packets cannot be attached, and plain routing carries the pod: {error}"
        ),
    });
    uplinks.chain(pod).collect()
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
            pods: 0,
            refused: Some(("pn0123456789ab".to_owned(), HookError::Foreign("x".to_owned()))),
        };
        let found = problems(&attachments);
        let found: Vec<_> = found.iter().map(|problem| (&*problem.subject, problem.reason)).collect();
        let expected = [
            ("Uplink wg0", "UplinkNotEthernet"),
            ("Uplink eth1", "UplinkNotAttached"),
            ("Pod link pn0123456789ab", "PodNotAttached"),
        ];
        assert_eq!(found, expected);
    }
}
