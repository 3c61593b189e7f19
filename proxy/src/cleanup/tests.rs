use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::dataplane::routes::Routes;
use crate::dataplane::routes::message::Family;
use crate::node::conflist;
use crate::node::journal::Journal;
use crate::node::sandbox::{self, ip, uplink};
use crate::node::sink;
use portolan_core::state::RouteTarget;

fn args(root: &Path) -> CleanupArgs {
    CleanupArgs {
        dry_run: false,
        force: false,
        bpffs: root.join("bpf"),
        state_dir: root.join("state"),
        cni_conf_dir: root.join("net.d"),
        cni_bin_dir: root.join("bin"),
        output: Format::Table,
    }
}

/// Everything that a daemon and the plugin leave; files take the place of pins.
async fn settle(args: &CleanupArgs) {
    let settings = conflist::Settings { bpffs: args.bpffs.clone(), pod_cidrs: Vec::new(), mtu: 1500 };
    conflist::install(&args.cni_conf_dir, &settings).unwrap();
    for pin in ["maps/FRONTENDS", "maps/PODS", "links/connect4", "programs/from_pod", "qdiscs/1"] {
        let pin = args.bpffs.join("portolan/v1").join(pin);
        fs::create_dir_all(pin.parent().unwrap()).unwrap();
        fs::write(pin, "").unwrap();
    }
    ip("link add pn0123456789ab type veth peer name pod0");
    ip("link set pn0123456789ab up");
    ip("route add 10.244.0.7/32 dev pn0123456789ab proto 112");
    let routes = Routes::open().unwrap();
    let via = RouteTarget::Via([192, 0, 2, 1].into());
    routes.put("10.244.1.0/24".parse().unwrap(), via).await.unwrap();
    routes.put("fd00::/64".parse().unwrap(), RouteTarget::Unreachable).await.unwrap();
    let netlink = Netlink::open().unwrap();
    let sink = sink::keep(&netlink, 1500).await.unwrap();
    routes.put("10.244.0.0/24".parse().unwrap(), RouteTarget::Sink(sink)).await.unwrap();
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    let state = StateDir::create(&args.state_dir).unwrap();
    drop(state.try_lock().unwrap());
    let mut journal = Journal::load(&state).unwrap();
    Sysctls::default().enable_forwarding(&mut journal, &[Family::V4].into(), &[]).unwrap();
}

/// What somebody else has, of all the same kinds.
async fn foreign(args: &CleanupArgs) {
    uplink().await;
    ip("link add pnx type veth peer name pny");
    ip("route add 10.99.0.0/24 via 192.0.2.1");
    for (dir, file) in
        [(&args.bpffs, "other"), (&args.cni_conf_dir, "10-other.conflist"), (&args.cni_bin_dir, "other")]
    {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(file), "foreign").unwrap();
    }
}

/// What is to be the same before and after, file by file and line by line.
fn machine(root: &Path) -> BTreeSet<String> {
    fn files(dir: &Path, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            into.insert(path.display().to_string());
            if path.is_dir() {
                files(&path, into);
            }
        }
    }
    let mut lines = BTreeSet::new();
    files(root, &mut lines);
    for listing in ["-o link", "-4 route show table all", "-6 route show table main"] {
        // The kernel's own routes for a link-local address appear some time after its interface.
        let text = ip(listing);
        let lasting = text.lines().filter(|line| !line.contains("fe80"));
        // That the sink has no carrier is noticed later, too.
        let sink =
            |line: &str| line.contains(sink::NAME).then(|| line.split('<').next().map(str::to_owned))?;
        lines.extend(lasting.map(|line| sink(line).unwrap_or_else(|| line.to_owned())));
    }
    lines.insert(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap());
    lines
}

fn assert_same(now: &BTreeSet<String>, then: &BTreeSet<String>) {
    let (more, less): (Vec<_>, Vec<_>) = (now.difference(then).collect(), then.difference(now).collect());
    assert!(more.is_empty() && less.is_empty(), "there is {more:#?} and there is no {less:#?}");
}

#[test]
fn the_machine_is_as_it_was_before() {
    sandbox::run(async {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path());
        foreign(&args).await;
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let before = machine(dir.path());
        settle(&args).await;
        let settled = machine(dir.path());

        let planned = clean(&CleanupArgs { dry_run: true, ..args.clone() }).await.unwrap();
        assert_same(&machine(dir.path()), &settled);
        let kinds: Vec<_> = planned.found.iter().map(Item::kind).collect();
        let expected = [
            "cni-configuration",
            "pod-link",
            "route",
            "route",
            "route",
            "route",
            "program",
            "pin-directory",
            "map",
            "map",
            "pin-directory",
            "program-pin",
            "pin-directory",
            "qdisc",
            "pin-directory",
            "pin-directory",
            "pin-directory",
            "sink",
            "sysctl",
            "state-file",
            "state-file",
            "state-directory",
        ];
        assert_eq!(kinds, expected);

        let report = clean(&args).await.unwrap();
        assert_eq!(report.found, planned.found);
        assert_eq!((report.remaining, report.errors), (vec![], vec![]));
        assert_same(&machine(dir.path()), &before);
        assert!(clean(&args).await.unwrap().found.is_empty());
    });
}

#[test]
fn a_running_daemon_is_not_cleaned_away() {
    sandbox::run(async {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path());
        settle_state_only(&args);
        let _daemon = StateDir::at(&args.state_dir).try_lock().unwrap();
        let error = clean(&args).await.unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        assert!(clean(&CleanupArgs { dry_run: true, ..args.clone() }).await.is_ok());
        assert!(clean(&CleanupArgs { force: true, ..args }).await.unwrap().remaining.is_empty());
    });
}

fn settle_state_only(args: &CleanupArgs) {
    drop(StateDir::create(&args.state_dir).unwrap().try_lock().unwrap());
}

#[test]
fn what_remains_is_named_and_the_journal_stays_with_it() {
    sandbox::run(async {
        uplink().await;
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path());
        settle(&args).await;
        // A file system mounted on a directory of pins keeps the directory busy.
        let busy = args.bpffs.join("portolan/v1/links/busy");
        fs::create_dir(&busy).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        nix::mount::mount(Some("tmpfs"), &busy, Some("tmpfs"), flags, None::<&str>).unwrap();

        let report = clean(&args).await.unwrap();
        assert!(report.remaining.contains(&Item::PinDirectory(busy.clone())), "{report:?}");
        assert!(report.remaining.contains(&Item::StateFile(args.state_dir.join("journal.json"))));
        assert!(!report.errors.is_empty());
        let error = run(args.clone()).await.unwrap_err().to_string();
        assert!(error.contains("links/busy"), "{error}");

        nix::mount::umount(&busy).unwrap();
        assert!(clean(&args).await.unwrap().remaining.is_empty());
    });
}

#[test]
fn what_only_looks_like_ours_is_left_alone_and_told() {
    sandbox::run(async {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path());
        let other = conflist::Settings { bpffs: "/elsewhere".into(), pod_cidrs: Vec::new(), mtu: 1500 };
        conflist::install(&args.cni_conf_dir, &other).unwrap();
        fs::create_dir(&args.cni_bin_dir).unwrap();
        fs::write(args.cni_bin_dir.join(conflist::PLUGIN), "another build").unwrap();
        StateDir::create(&args.state_dir).unwrap();
        fs::write(args.state_dir.join("notes"), "").unwrap();
        let report = clean(&args).await.unwrap();
        assert_eq!(report.found, []);
        assert_eq!(report.left_alone.len(), 3, "{report:?}");
        assert!(args.cni_conf_dir.join(conflist::FILE_NAME).exists());
    });
}

#[test]
fn reports_can_be_read_by_people_and_programs() {
    let report = Report {
        dry_run: true,
        found: vec![
            Item::Route("10.244.1.0/24".parse().unwrap()),
            Item::Sysctl("net.ipv4.ip_forward".into()),
            Item::Program("links/tcx-7-from_pod".into(), Some("pn0123456789ab".into())),
        ],
        left_alone: vec!["this is not ours".into()],
        ..Report::default()
    };
    let text = report.to_string();
    for part in [
        "KIND",
        "10.244.1.0/24",
        "from_pod of pn0123456789ab",
        "would be removed",
        "Left alone: this is not ours.",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["found"][0], serde_json::json!({ "kind": "route", "name": "10.244.1.0/24" }));
    assert_eq!(json["dry_run"], true);
    assert_eq!(Report::default().to_string(), "Nothing of Portolan's is on this node.\n");
}
