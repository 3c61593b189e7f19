//! `portolan cleanup` puts the machine back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use portolan_lab::wire::Proto::Tcp;
use portolan_lab::{Lab, Node, Service, programs, tcp};

#[test]
fn cleanup_leaves_the_machine_as_it_was() -> Result<()> {
    let mut lab = Lab::new()?;
    let (n1, _n2) = (lab.node("n1")?, lab.node("n2")?);
    let before = machine(&n1)?;
    lab.start()?;
    let deleted = lab.server(&n1, "deleted", 8080)?;
    let attached = lab.server(&n1, "attached", 8080)?;
    let web = Service::new("shop/web").cluster_ip("10.96.0.10").cluster_ip("fd96::10").port("http", Tcp, 80);
    lab.expose(&web.node_port(30080), 8080, &[&deleted, &attached])?;
    n1.agent().ask(tcp("10.96.0.10:80"))?;
    deleted.delete()?;

    let refused = n1.cleanup(&[]).expect_err("cleanup under a running daemon would be undone by it");
    assert!(format!("{refused:#}").contains("is running"), "{refused:#}");
    n1.stop()?;
    let during = machine(&n1)?;
    assert_ne!(during, before, "there is something to clean up");

    let listed = n1.cleanup(&["--dry-run"])?;
    assert_same(&during, &machine(&n1)?, "--dry-run changes nothing");
    for thing in [
        "FRONTENDS",
        "PODS",
        "-from_uplink",
        "-to_uplink",
        "-to_sink",
        "portolan0",
        "programs/from_pod",
        "10.244.2.0/24",
        "fd44:0:0:2::/64",
        "10.244.1.0/24",
        "forward",
        "conflist",
    ] {
        assert!(listed.contains(thing), "--dry-run should list {thing}:\n{listed}");
    }

    n1.cleanup(&[])?;
    assert_same(&before, &machine(&n1)?, "after cleanup");
    let again = n1.cleanup(&["--dry-run", "-o", "json"])?;
    let again: serde_json::Value = serde_json::from_str(&again).context("-o json prints JSON")?;
    assert_eq!(again["found"].as_array().map(Vec::len), Some(0), "{again}");
    attached.forget()
}

fn assert_same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>, when: &str) {
    let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differ = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let lines: Vec<_> =
        differ.map(|key| format!("{key}: {:?} became {:?}", before.get(key), after.get(key))).collect();
    assert!(lines.is_empty(), "{when}, these differ:\n{}", lines.join("\n"));
}

/// All that a node's networking is made of, by name.
fn machine(node: &Node) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let netns = &node.place().netns;
    for what in [
        "link",
        "addr",
        "route show table all",
        "-6 route show table all",
        "rule",
        "-6 rule",
        "neigh show nud permanent",
    ] {
        let listed = netns.ip_json(what)?;
        for (number, entry) in listed.as_array().into_iter().flatten().enumerate() {
            found.insert(format!("ip {what} {number}"), entry.to_string());
        }
    }
    netns.inside(|| {
        for family in ["ipv4", "ipv6"] {
            read_all(&Path::new("/proc/sys/net").join(family), &mut found);
        }
    })?;
    let setup = node.setup();
    for dir in [&setup.bpffs, &setup.state_dir, &setup.cni_conf_dir, &setup.cni_bin_dir] {
        list_all(dir, &mut found)?;
    }
    for (attach_type, count) in programs::attached(&node.place().cgroup)? {
        found.insert(format!("programs of attach type {attach_type}"), count.to_string());
    }
    for (hook, programs) in ["ingress", "egress"].iter().zip(programs::on_interface(netns, "eth0")?) {
        found.insert(format!("programs at {hook} of the uplink"), format!("{programs:?}"));
    }
    Ok(found)
}

/// The content of every file below. Sysctls that cannot be read have no state.
fn read_all(dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, found);
        } else if let Ok(content) = fs::read_to_string(&path) {
            found.insert(path.display().to_string(), content);
        }
    }
}

/// The path of everything below.
fn list_all(dir: &Path, found: &mut BTreeMap<String, String>) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    found.insert(dir.display().to_string(), "is there".to_owned());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list_all(&entry.path(), found)?;
        } else {
            found.insert(entry.path().display().to_string(), "is there".to_owned());
        }
    }
    Ok(())
}
