use super::*;
use crate::node::peers::PeerState;
use crate::report::{Peer, Problem, Rejected, Source, Usage};

fn uplink(name: &str, attached: Option<&str>) -> Uplink {
    Uplink { name: name.into(), attached: attached.map(str::to_owned), why: None, xdp: Xdp::Off }
}

fn facts() -> Facts {
    let half = Usage { used: 5, max: 10 };
    Facts {
        state_dir: "/run/portolan".into(),
        daemon: Ok(Some("4711".into())),
        report: Ok(Some(Report {
            version: "0.1.0".into(),
            node: "a".into(),
            started: "2026-01-02T03:04:05.678Z".into(),
            synced: true,
            source: Source { kind: "manifests /etc/m".into(), error: None },
            peers: vec![Peer::new("b", [192, 0, 2, 2].into(), PeerState::Direct)],
            mtu: 1500,
            verified: [("connect4".to_owned(), 400), ("from_uplink".to_owned(), 98_765)].into(),
            ..Report::default()
        })),
        programs: PROGRAMS
            .into_iter()
            .map(|(name, purpose)| Program { name, purpose, attached: true })
            .collect(),
        uplinks: vec![uplink("eth0", Some("tcx"))],
        usage: Fill {
            services: half,
            frontends: half,
            backends: half,
            table_rows: half,
            node_addrs: half,
            flows: half,
        },
        outcomes: std::array::from_fn(|outcome| [7, 1].get(outcome).copied().unwrap_or(0)),
    }
}

fn reported(change: impl FnOnce(&mut Report)) -> Facts {
    let mut facts = facts();
    change(facts.report.as_mut().unwrap().as_mut().unwrap());
    facts
}

#[test]
fn a_healthy_node_says_so_first() {
    let status = judge::judge(facts());
    assert!(status.healthy, "{:?}", status.degraded);
    let text = render::render(&status, Paint::PLAIN);
    assert!(text.starts_with("healthy: nothing is degraded\n\nNode\n  name                a\n"), "{text}");
    for line in [
        "  daemon              running, process 4711, version 0.1.0",
        "  started             2026-01-02T03:04:05Z",
        "  programs attached   8 of 8",
        "  verifier            at most 98765 of 1000000 instructions, for from_uplink",
        "  MTU of pods         1500",
        "  eth0     attached by tcx   off",
        "  Service ports    5      10    50 %",
        "  translated            7",
        "  b      192.0.2.2   direct",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in:\n{text}");
    }
}

#[test]
fn what_keeps_xdp_from_an_uplink_is_told_and_no_fault() {
    let with = |xdp| Facts { uplinks: vec![Uplink { xdp, ..uplink("eth0", Some("tcx")) }], ..facts() };
    for (xdp, text, json) in [
        (Xdp::Native, "  eth0     attached by tcx   native", serde_json::json!("native")),
        (
            Xdp::None("why".into()),
            "  eth0     attached by tcx   none: why",
            serde_json::json!({"none": "why"}),
        ),
    ] {
        let status = judge::judge(with(xdp));
        assert!(status.healthy, "{:?}", status.degraded);
        let rendered = render::render(&status, Paint::PLAIN);
        assert!(rendered.lines().any(|line| line == text), "{text:?} is not in:\n{rendered}");
        assert_eq!(serde_json::to_value(&status.uplinks[0].xdp).unwrap(), json);
    }
}

/// Each row breaks one thing and nothing else.
#[test]
fn each_thing_that_is_wrong_is_named_with_its_reason() {
    let without_connect6 = || {
        let mut facts = facts();
        facts.programs[1].attached = false;
        facts
    };
    let detached = uplink("eth1", None);
    let full = Usage { used: 9, max: 10 };
    let mut broken = [0; Outcome::ALL.len()];
    broken[Outcome::BrokenSet as usize] = 2;
    let problem =
        Problem { subject: "Service a/b".into(), reason: "BackendsFull".into(), message: "no room".into() };
    let rejected = Rejected { what: "web.yaml:12".into(), why: "no kind".into() };
    let peer =
        Peer::new("c", [192, 0, 2, 3].into(), PeerState::NotOnLink { router: [192, 0, 2, 254].into() });
    let rows = [
        (without_connect6(), "program connect6", "not attached: TCP and connected UDP, IPv6"),
        (Facts { uplinks: vec![detached], ..facts() }, "uplink eth1", "no program is attached to it"),
        (Facts { daemon: Ok(None), ..facts() }, "daemon", "nobody holds /run/portolan/lock"),
        (Facts { daemon: Err(io::Error::other("x")), ..facts() }, "daemon", "cannot tell whether it runs"),
        (Facts { report: Ok(None), ..facts() }, "status", "the daemon has written none into /run/portolan"),
        (Facts { report: Err(io::Error::other("half")), ..facts() }, "status", "cannot be read: half"),
        (
            Facts { usage: Fill { backends: full, ..facts().usage }, ..facts() },
            "map of backends",
            "90 % full (9 of 10)",
        ),
        (
            Facts { usage: Fill { flows: full, ..facts().usage }, ..facts() },
            "map of flows",
            "90 % full (9 of 10): `portolan flows` shows whose they are; raise --max-flows",
        ),
        (
            Facts { outcomes: broken, ..facts() },
            "maps",
            "2 connections found a frontend without its backends",
        ),
        (reported(|report| report.synced = false), "objects", "the first complete lists have not come"),
        (
            reported(|report| report.source.error = Some("401".into())),
            "source (manifests /etc/m)",
            "401; changes",
        ),
        (reported(|report| report.problems = vec![problem]), "Service a/b", "no room (BackendsFull)"),
        (
            reported(|report| report.rejected = vec![rejected]),
            "web.yaml:12",
            "refused, what was known before stays",
        ),
        (
            reported(|report| report.peers = vec![peer]),
            "node c",
            "192.0.2.3 is not on-link (behind 192.0.2.254)",
        ),
    ];
    for (facts, what, why) in rows {
        let status = judge::judge(facts);
        assert_eq!(status.degraded.len(), 1, "{what}: {:?}", status.degraded);
        let degraded = &status.degraded[0];
        assert!(!status.healthy && degraded.what == what && degraded.why.contains(why), "{degraded:?}");
        let text = render::render(&status, Paint::PLAIN);
        assert!(text.starts_with(&format!("degraded: 1 thing is wrong\n  {what}: ")), "{text}");
    }
}

#[test]
fn an_uplink_without_programs_says_why() {
    let why = Some("not Ethernet: name another".to_owned());
    let status = judge::judge(Facts { uplinks: vec![Uplink { why, ..uplink("wg0", None) }], ..facts() });
    assert!(status.healthy, "the daemon's problem is told once, where its others are: {:?}", status.degraded);
    assert!(render::render(&status, Paint::PLAIN).contains("  wg0      not Ethernet: name another"));
}

#[test]
fn the_worst_comes_first() {
    let mut facts = reported(|report| report.source.error = Some("401".into()));
    facts.programs[0].attached = false;
    facts.daemon = Ok(None);
    let status = judge::judge(facts);
    let order: Vec<_> = status.degraded.iter().map(|degraded| degraded.what.as_str()).collect();
    assert_eq!(order, ["program connect4", "daemon", "source (manifests /etc/m)"]);
}

#[test]
fn json_names_are_stable() {
    let shown = serde_json::to_value(judge::judge(facts())).unwrap();
    assert_eq!(shown["healthy"], true);
    assert_eq!(shown["daemon"], serde_json::json!({"running": true, "pid": "4711"}));
    assert_eq!(shown["usage"]["frontends"], serde_json::json!({"used": 5, "max": 10}));
    assert_eq!(shown["outcomes"]["no_endpoints"], 1);
    assert_eq!(shown["report"]["peers"][0]["state"], "direct");
}
