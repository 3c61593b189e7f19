//! The programs of packets against a model of them: random packets, answers, errors and lies through every program, and
//! what comes out has to be what the model says, byte by byte.
//!
//! `cargo xtask fuzz --minutes 10` does this for longer; a failure says which seed repeats it.

#[path = "programs/expected.rs"]
mod expected;
#[path = "programs/flows.rs"]
mod flows;
#[path = "programs/generate.rs"]
mod generate;
#[path = "programs/leaving.rs"]
mod leaving;
#[path = "programs/model.rs"]
mod model;
#[path = "programs/packet.rs"]
mod packet;
#[path = "programs/race.rs"]
mod race;
#[path = "programs/rules.rs"]
mod rules;
#[path = "programs/run.rs"]
mod run;
#[path = "programs/translation.rs"]
mod translation;
#[path = "programs/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use portolan_abi::Outcome;

use generate::Source;
use model::Model;

use run::{Action, Place, Programs, Seen};
use world::{Cluster, ELSEWHERE};

/// How long without [`SECONDS`].
const BRIEF: Duration = Duration::from_secs(6);
/// How long, in seconds, and the seed to begin with: what `cargo xtask fuzz` sets.
const SECONDS: &str = "PORTOLAN_FUZZ_SECONDS";
const SEED: &str = "PORTOLAN_FUZZ_SEED";
/// Frames of a round: few enough that no flow gets old meanwhile.
const ROUND: usize = 4000;

/// What a run has to come by, or it tests less than it seems to.
const REACHED: [Outcome; 14] = [
    Outcome::Translated,
    Outcome::NoEndpoints,
    Outcome::NoLocalEndpoints,
    Outcome::UnknownPort,
    Outcome::UnallocatedAddress,
    Outcome::Forwarded,
    Outcome::SpoofedSource,
    Outcome::BadFrame,
    Outcome::RouterMessage,
    Outcome::Malformed,
    Outcome::FragmentHeld,
    Outcome::TtlExpired,
    Outcome::NoPod,
    Outcome::ForwardedXdp,
];

#[derive(Default)]
struct Tally {
    frames: u64,
    id: u32,
    by_result: BTreeMap<String, u64>,
}

fn setting(name: &str) -> Result<Option<u64>> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse().with_context(|| format!("{name} should be a number, and is {text}")))
        .transpose()
}

fn round(seed: u64, model: &mut Model, programs: &mut Programs, tally: &mut Tally) -> Result<()> {
    let mut source = Source::new(seed, tally.id);
    for number in 0..ROUND {
        let (place, frame) = source.next(model);
        let what = || format!("seed {seed}, frame {number}, {place:?}\n{frame:02x?}");
        if !model.is_possible(place, &frame) {
            continue;
        }
        if let Some(sent) = programs.run_xdp(place, &frame).with_context(what)? {
            by_xdp(&sent, place, &frame, model, programs).with_context(what)?;
            *tally.by_result.entry(format!("Xdp: {:?}", sent.counts)).or_default() += 1;
            continue;
        }
        let Some(seen) = by_tc(place, &frame, model, programs).with_context(what)? else { continue };
        if let Err(why) = model.check(place, &frame, &seen) {
            bail!("{why}\n{}\nbecame\n{:02x?}", what(), seen.frame);
        }
        tally.frames += 1;
        let changed = if seen.frame == frame { "" } else { ", changed" };
        let action = if seen.action == Action::Drop { String::new() } else { changed.to_owned() };
        *tally
            .by_result
            .entry(format!("{:?}: {:?}{action} {:?}", place.hook, seen.action, seen.counts))
            .or_default() += 1;
    }
    tally.id = source.id();
    Ok(())
}

/// What tc makes of it. Where it goes to a neighbour, the first packet of a moment is addressed by the kernel and later ones by
/// the program: they are shown like the first one.
fn by_tc(place: Place, frame: &[u8], model: &Model, programs: &mut Programs) -> Result<Option<Seen>> {
    let macs = [ELSEWHERE, model.world.uplink_mac].concat();
    let mut seen = programs.run(place, frame)?;
    if let Some(Seen { frame: sent, counts, .. }) = &mut seen
        && counts.get(Outcome::Forwarded) != 0
        && sent[..12] == macs
    {
        sent[..12].copy_from_slice(&frame[..12]);
    }
    Ok(seen)
}

/// What XDP sends is what the model says of tc, and what tc sends when it gets the same after it; and it is addressed.
fn by_xdp(sent: &Seen, place: Place, frame: &[u8], model: &mut Model, programs: &mut Programs) -> Result<()> {
    let macs = [ELSEWHERE, model.world.uplink_mac].concat();
    ensure!(sent.frame[..12] == macs, "XDP addresses it to {:02x?}", &sent.frame[..12]);
    let same = [&frame[..12], &sent.frame[12..]].concat();
    let seen = Seen { action: sent.action, frame: same, counts: run::as_by_tc(&sent.counts) };
    if let Err(why) = model.check(place, frame, &seen) {
        bail!("By XDP: {why}\nit became\n{:02x?}", sent.frame);
    }
    let by_tc = by_tc(place, frame, model, programs)?.context("tc sees what XDP does")?;
    if let Err(why) = model.check(place, frame, &by_tc) {
        bail!("By tc, after XDP has sent it: {why} ({:?})", by_tc.counts);
    }
    // A segment that ends the flow that XDP has made for it begins one anew, which may have another port.
    let is_anew = by_tc.counts.get(Outcome::Translated) != 0;
    let is_same = by_tc.frame == seen.frame;
    ensure!(is_anew || is_same, "tc sends\n{:02x?}\nand XDP\n{:02x?}", by_tc.frame, sent.frame);
    Ok(())
}

#[test]
#[expect(clippy::print_stdout, reason = "a seed that nobody sees cannot be tried again")]
fn what_comes_out_of_the_programs_is_what_the_model_says() -> Result<()> {
    let cluster = Cluster::begin()?;
    let until = Instant::now() + setting(SECONDS)?.map_or(BRIEF, Duration::from_secs);
    let given = setting(SEED)?;
    let mut tally = Tally::default();
    let ran: Result<()> = cluster.node().place().netns.inside(|| {
        let mut model = Model::new(cluster.world()?);
        let mut programs = Programs::of(cluster.node(), model.world.uplink)?;
        // The first round is always the same one; the others never are, unless they are asked for.
        let mut seed = given.unwrap_or(1);
        while tally.frames == 0 || Instant::now() < until {
            model.begin()?;
            round(seed, &mut model, &mut programs, &mut tally)?;
            seed = if given.is_some() { seed + 1 } else { fastrand::u64(..) };
        }
        Ok(())
    })?;
    println!("{} frames", tally.frames);
    for (result, count) in &tally.by_result {
        println!("{count:>10} {result}");
    }
    ran?;
    for outcome in REACHED {
        let reached = tally.by_result.keys().any(|result| result.contains(outcome.name()));
        ensure!(reached, "no frame came to {}", outcome.name());
    }
    Ok(())
}
