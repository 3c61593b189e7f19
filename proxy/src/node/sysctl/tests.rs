use std::collections::BTreeMap;

use super::*;
use crate::node::sandbox::{self, ip, uplink};
use crate::node::state_dir::StateDir;

const BOTH: [Family; 2] = [Family::V4, Family::V6];

fn journal(dir: &tempfile::TempDir) -> Journal {
    Journal::load(&StateDir::at(dir.path())).unwrap()
}

fn get(path: &str) -> String {
    Sysctls::default().read(path).unwrap()
}

fn set(path: &str, value: &str) {
    Sysctls::default().write(path, value).unwrap();
}

/// All values that switching forwarding on and off could touch.
fn snapshot() -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (conf, keys) in [
        ("net/ipv4/conf", &["forwarding", "accept_redirects"][..]),
        ("net/ipv6/conf", &["forwarding", "accept_redirects", "accept_ra"]),
    ] {
        for entry in fs::read_dir(Path::new("/proc/sys").join(conf)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            for key in keys {
                let path = format!("{conf}/{name}/{key}");
                values.insert(path.clone(), get(&path));
            }
        }
    }
    values
}

fn start(forwarding: &str) {
    set("net/ipv4/ip_forward", forwarding);
    set("net/ipv6/conf/all/forwarding", forwarding);
}

#[test]
fn forwarding_is_switched_on_and_put_back_exactly() {
    sandbox::run(async {
        uplink().await;
        start("0");
        set("net/ipv4/conf/up0/forwarding", "1");
        set("net/ipv6/conf/far0/forwarding", "1");
        set("net/ipv4/conf/all/accept_redirects", "0");
        let before = snapshot();
        let dir = tempfile::tempdir().unwrap();
        let sysctls = Sysctls::default();
        let changed = sysctls.enable_forwarding(&mut journal(&dir), &BOTH.into(), &[]).unwrap();
        assert_eq!(changed.len(), 2, "{changed:?}");
        assert_eq!(
            (get("net/ipv4/ip_forward"), get("net/ipv6/conf/all/forwarding")),
            ("1".into(), "1".into())
        );
        assert_eq!(sysctls.enable_forwarding(&mut journal(&dir), &BOTH.into(), &[]).unwrap(), []);

        sysctls.restore(journal(&dir).sysctls()).unwrap();
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn what_is_on_already_is_neither_changed_nor_journalled() {
    sandbox::run(async {
        start("1");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Sysctls::default().enable_forwarding(&mut journal(&dir), &BOTH.into(), &[]).unwrap(), []);
        assert!(journal(&dir).sysctls().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_family_without_pods_is_left_alone() {
    sandbox::run(async {
        start("0");
        let dir = tempfile::tempdir().unwrap();
        Sysctls::default().enable_forwarding(&mut journal(&dir), &[Family::V4].into(), &[]).unwrap();
        assert_eq!(
            (get("net/ipv4/ip_forward"), get("net/ipv6/conf/all/forwarding")),
            ("1".into(), "0".into())
        );
    });
}

#[test]
fn an_interface_keeps_listening_to_its_router() {
    sandbox::run(async {
        uplink().await;
        start("0");
        ip("link add name tag.7 type veth peer name far7");
        ip("-6 route add default via 2001:db8::1 dev up0 proto ra");
        for interface in ["up0", "tag.7"] {
            set(&format!("net/ipv6/conf/{interface}/accept_ra"), "1");
        }
        let learned = ra_interfaces(&Netlink::open().unwrap()).await.unwrap();
        assert_eq!(learned, ["up0"]);
        let before = snapshot();
        let dir = tempfile::tempdir().unwrap();
        let sysctls = Sysctls::default();
        let changed = sysctls.enable_forwarding(&mut journal(&dir), &[Family::V6].into(), &learned).unwrap();
        let order: Vec<_> = changed.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(order, ["net/ipv6/conf/up0/accept_ra", "net/ipv6/conf/all/forwarding"]);
        assert_eq!(get("net/ipv6/conf/up0/accept_ra"), "2");
        assert_eq!(get("net/ipv6/conf/tag.7/accept_ra"), "1");
        sysctls.restore(journal(&dir).sysctls()).unwrap();
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn what_others_have_changed_since_is_left_alone() {
    let proc = tempfile::tempdir().unwrap();
    let sysctls = Sysctls::at(proc.path());
    fs::create_dir(proc.path().join("net")).unwrap();
    for (path, value) in [("net/kept", "1"), ("net/foreign", "7"), ("net/put-back", "0")] {
        fs::write(proc.path().join(path), value).unwrap();
    }
    let change = |path: &str| SysctlChange { path: path.into(), old: "0".into(), new: "1".into() };
    let changes = ["net/kept", "net/foreign", "net/put-back", "net/eth0.7/gone"].map(change);
    let expected = [
        ("net.eth0/7.gone".to_owned(), Fate::Gone),
        ("net.put-back".to_owned(), Fate::Back),
        ("net.foreign".to_owned(), Fate::Foreign { now: "7".to_owned() }),
        ("net.kept".to_owned(), Fate::Ours),
    ];
    assert_eq!(sysctls.preview(&changes), expected);
    sysctls.restore(&changes).unwrap();
    assert_eq!(fs::read_to_string(proc.path().join("net/foreign")).unwrap(), "7");
    assert_eq!(fs::read_to_string(proc.path().join("net/kept")).unwrap(), "0");
}

#[test]
fn nothing_is_changed_that_cannot_be_journalled() {
    let proc = tempfile::tempdir().unwrap();
    fs::create_dir_all(proc.path().join("net/ipv4")).unwrap();
    fs::write(proc.path().join("net/ipv4/ip_forward"), "0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let blocked = StateDir::at(&dir.path().join("state"));
    let mut journal = Journal::load(&blocked).unwrap();
    fs::write(dir.path().join("state"), "a file where the directory should be").unwrap();
    let result = Sysctls::at(proc.path()).enable_forwarding(&mut journal, &[Family::V4].into(), &[]);
    assert!(matches!(result, Err(SysctlError::Journal(_))), "{result:?}");
    assert_eq!(fs::read_to_string(proc.path().join("net/ipv4/ip_forward")).unwrap(), "0");
}
