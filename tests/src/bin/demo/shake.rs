//! Endpoints that come and go under load.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use portolan_lab::{Lab, tcp, udp};

use crate::cast::Cast;
use crate::screen::Screen;

/// How many changes are made, each waited for on every node.
const CHANGES: usize = 200;

/// What became of the requests.
pub(crate) struct Shaken {
    pub(crate) failed: u64,
    pub(crate) why: BTreeMap<String, u64>,
}

/// Makes the pods of `hello` unready and ready again, one after the other, while everybody asks for it.
pub(crate) fn shake(lab: &Lab, cast: &Cast, screen: &Screen) -> Result<Shaken> {
    let step = screen.step("Readiness of the pods of hello changes, while requests go on");
    let began = Instant::now();
    let (pod, node) = (cast.shell.agent(), lab.nodes()[1].agent());
    let loads = [
        pod.keep_asking(tcp("10.96.0.10:80"), 100)?,
        pod.keep_asking_anew(tcp("10.96.0.10:80"), 100)?,
        pod.keep_asking_anew(tcp("[fd96::10]:80"), 100)?,
        node.keep_asking_anew(tcp("172.20.0.13:30080"), 100)?,
        pod.keep_asking_anew(udp("10.96.0.53:53"), 100)?,
    ];
    let mut slices = cast.hello_slices();
    for change in 0..CHANGES {
        let pod = &cast.hello[change / 2 % cast.hello.len()];
        for slice in &mut slices {
            let endpoint = pod.endpoint(slice.family());
            slice.set(if change % 2 == 0 { endpoint.unready() } else { endpoint });
        }
        lab.apply_all(&slices)?;
        lab.settle()?;
    }
    let mut answered = 0;
    let mut why = BTreeMap::new();
    for load in loads {
        let tally = load.stop()?;
        answered += tally.answered;
        for (reason, count) in tally.failed {
            *why.entry(reason).or_default() += count;
        }
    }
    let failed = why.values().sum();
    let per_second = answered as f64 / began.elapsed().as_secs_f64();
    step.done(&format!("{CHANGES} changes, {answered} requests ({per_second:.0} a second), {failed} failed"));
    Ok(Shaken { failed, why })
}
