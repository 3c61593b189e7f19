//! Thousands of edits of a running daemon's manifests end where a fresh daemon begins.

#[path = "edits/world.rs"]
mod world;

use anyhow::{Context, Result};
use portolan_lab::Lab;
use world::World;

const EDITS: u32 = 5000;
/// After so many edits the daemon is waited for, so that it does not see everything as one change.
const BATCH: u32 = 25;

#[test]
fn random_edits_end_where_a_fresh_daemon_begins() -> Result<()> {
    let seed = match std::env::var("PORTOLAN_SEED") {
        Ok(seed) => seed.parse().with_context(|| format!("PORTOLAN_SEED={seed} should be a number"))?,
        Err(_) => 20_260_101,
    };
    let lab = Lab::with_nodes(1)?;
    let n1 = &lab.nodes()[0];
    let mut world = World::new(seed, &n1.setup().manifests);
    for edit in 0..EDITS {
        world.edit().with_context(|| format!("Edit {edit} of seed {seed}"))?;
        if edit % BATCH == 0 {
            lab.settle().with_context(|| format!("After edit {edit} of seed {seed}"))?;
        }
    }
    world.mend()?;
    lab.settle()?;
    let edited = n1.portolan(&["services", "--dump"])?;
    assert!(edited.lines().count() > 100, "the edits should leave something:\n{edited}");

    n1.stop()?;
    n1.cleanup(&[])?;
    n1.start()?;
    lab.settle()?;
    let fresh = n1.portolan(&["services", "--dump"])?;
    let differ: Vec<String> = difference(&edited, &fresh);
    assert!(differ.is_empty(), "Seed {seed}: edited (-) and fresh (+) differ:\n{}", differ.join("\n"));
    Ok(())
}

fn difference(edited: &str, fresh: &str) -> Vec<String> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (edited, fresh) = (lines(edited), lines(fresh));
    let removed = edited.difference(&fresh).map(|line| format!("- {line}"));
    removed.chain(fresh.difference(&edited).map(|line| format!("+ {line}"))).collect()
}
