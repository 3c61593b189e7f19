//! Rules of netfilter, loaded where a scenario has them and taken away where it has not.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::netns;

/// A table in a namespace; the file of its rules is `/rules/TABLE.nft`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ruleset {
    netns: &'static str,
    table: &'static str,
}

pub(super) const KUBELET_1: Ruleset = Ruleset { netns: "n1", table: "kubelet" };
pub(super) const KUBELET_2: Ruleset = Ruleset { netns: "n2", table: "kubelet" };
pub(super) const KUBE_PROXY: Ruleset = Ruleset { netns: "n1", table: "kube-proxy" };

/// What is loaded.
#[derive(Debug, Default)]
pub(super) struct Rules(BTreeSet<Ruleset>);

impl Rules {
    /// Makes these what is loaded.
    pub(super) fn load(&mut self, wanted: &[Ruleset]) -> Result<()> {
        let wanted: BTreeSet<_> = wanted.iter().copied().collect();
        for rules in self.0.difference(&wanted) {
            nft(rules.netns, &["delete", "table", "ip", rules.table])?;
        }
        for rules in wanted.difference(&self.0) {
            nft(rules.netns, &["-f", &format!("/rules/{}.nft", rules.table)])?;
        }
        self.0 = wanted;
        Ok(())
    }
}

fn nft(name: &str, arguments: &[&str]) -> Result<()> {
    netns::run(netns::inside(name).arg("/bin/nft").args(arguments))
}
