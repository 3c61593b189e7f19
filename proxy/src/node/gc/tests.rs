use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use portolan_abi::{Addr, Attachment, FrontendKey, HostPort, PodEntry, PodState, Port, Proto};
use portolan_core::gc::{MIN_AGE_NS, MIN_MISSING_NS};

use super::*;
use crate::node::sandbox::{self, ip};

const BEGAN: u64 = 1_000;

/// A BPF file system of its own, gone with the test.
struct Pins(tempfile::TempDir);

impl Pins {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ledger(&self) -> Ledger {
        Ledger::open_or_create(self.path()).unwrap()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn owner(byte: u8) -> Owner {
    Owner([byte; 16])
}

fn addr(byte: u8) -> Addr {
    Addr::from_v4([10, 244, 0, byte])
}

/// What a successful ADD leaves in the ledger.
fn add(ledger: &mut Ledger, byte: u8) {
    let mut attachment = Attachment {
        network: [0; 64],
        container_id: [0; 128],
        ifname: [0; 16],
        netns: [0; 128],
        pod_namespace: [0; 64],
        pod_name: [0; 256],
        since: BEGAN,
        netns_cookie: 0,
    };
    attachment.pod_namespace[..4].copy_from_slice(b"shop");
    attachment.pod_name[..4].copy_from_slice(b"cart");
    let entry = PodEntry {
        owner: owner(byte),
        since: BEGAN,
        state: PodState::READY,
        ifindex: 7,
        pod_mac: [2; 6],
        host_mac: [3; 6],
        flags: 0,
    };
    assert!(ledger.attach(owner(byte), &attachment).unwrap());
    assert!(ledger.take(addr(byte), &entry).unwrap());
}

fn host_port(byte: u8) -> FrontendKey {
    FrontendKey::new(Addr::ANY_V4, Port::new(8000 + u16::from(byte)), Proto::TCP)
}

fn claim(ledger: &mut Ledger, byte: u8) {
    let entry = HostPort { owner: owner(byte), addr: addr(byte), port: Port::new(80), pad: [0; 2] };
    assert!(ledger.claim(host_port(byte), &entry).unwrap());
}

fn link(byte: u8) {
    ip(&format!("link add {} type veth peer name peer{byte}", host_ifname(owner(byte))));
}

#[test]
fn what_is_gone_is_released_and_what_is_there_is_kept() {
    sandbox::run(async {
        let pins = Pins::new();
        let mut ledger = pins.ledger();
        for byte in [1, 2] {
            add(&mut ledger, byte);
            claim(&mut ledger, byte);
        }
        link(2);
        let collector = Collector::new(pins.path());
        let mut suspicion = Suspicion::new();
        let first = BEGAN + MIN_AGE_NS;
        assert_eq!(collector.round(&mut suspicion, first).await.unwrap(), Round::default());
        let second = first + MIN_MISSING_NS;
        let round = collector.round(&mut suspicion, second).await.unwrap();
        assert_eq!(round.released.len(), 1);
        assert!(round.released[0].contains("shop/cart"), "{round:?}");

        assert_eq!(ledger.pods().unwrap().into_keys().collect::<Vec<_>>(), [addr(2)]);
        assert_eq!(ledger.attachments().unwrap().into_keys().collect::<Vec<_>>(), [owner(2)]);
        assert_eq!(ledger.host_ports().unwrap().into_keys().collect::<Vec<_>>(), [host_port(2)]);
        assert!(ledger.release(addr(1)).unwrap().is_some(), "its time of release is known");
        assert_eq!(collector.round(&mut suspicion, second + MIN_MISSING_NS).await.unwrap(), Round::default());
    });
}

#[test]
fn an_address_without_an_attachment_is_released_too() {
    sandbox::run(async {
        let pins = Pins::new();
        let mut ledger = pins.ledger();
        add(&mut ledger, 1);
        ledger.detach(owner(1)).unwrap();
        let collector = Collector::new(pins.path());
        let mut suspicion = Suspicion::new();
        collector.round(&mut suspicion, BEGAN + MIN_AGE_NS).await.unwrap();
        let round = collector.round(&mut suspicion, BEGAN + MIN_AGE_NS + MIN_MISSING_NS).await.unwrap();
        assert!(round.released[0].contains(&host_ifname(owner(1))), "{round:?}");
        assert!(ledger.pods().unwrap().is_empty());
    });
}

#[test]
fn a_host_port_without_an_attachment_is_released_too() {
    sandbox::run(async {
        let pins = Pins::new();
        let mut ledger = pins.ledger();
        claim(&mut ledger, 1);
        let collector = Collector::new(pins.path());
        let mut suspicion = Suspicion::new();
        collector.round(&mut suspicion, BEGAN + MIN_AGE_NS).await.unwrap();
        assert_eq!(ledger.host_ports().unwrap().len(), 1, "one round is not enough");
        let round = collector.round(&mut suspicion, BEGAN + MIN_AGE_NS + MIN_MISSING_NS).await.unwrap();
        assert!(round.released[0].contains(&host_ifname(owner(1))), "{round:?}");
        assert!(ledger.host_ports().unwrap().is_empty());
    });
}

#[test]
fn links_that_the_ledger_does_not_know_are_told_and_left_alone() {
    sandbox::run(async {
        let pins = Pins::new();
        pins.ledger();
        link(9);
        let collector = Collector::new(pins.path());
        let mut suspicion = Suspicion::new();
        for now in [MIN_AGE_NS, 2 * MIN_AGE_NS, 3 * MIN_AGE_NS] {
            let expected = Round { released: Vec::new(), strays: vec![host_ifname(owner(9))] };
            assert_eq!(collector.round(&mut suspicion, now).await.unwrap(), expected);
        }
        ip(&format!("link show {}", host_ifname(owner(9))));
    });
}

#[test]
fn without_a_ledger_there_is_nothing_to_do() {
    sandbox::run(async {
        let pins = Pins::new();
        assert_eq!(
            Collector::new(pins.path()).round(&mut Suspicion::new(), now()).await.unwrap(),
            Round::default()
        );
        assert_eq!(std::fs::read_dir(pins.path()).unwrap().count(), 0);
    });
}
