//! The ends of the scene as raw frames see them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portolan_abi::Outcome;
use portolan_lab::counters::{Counters, Counts};
use portolan_lab::frame::{Ip, Mac, ethernet, proto, udp};
use portolan_lab::lab::{OUTSIDE_V4, OUTSIDE_V6};
use portolan_lab::tap::Tap;
use portolan_lab::{Family, Node, Pod};

use super::scene::Scene;

/// How long a frame may take through the lab: a few times what it does on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// Raw access to a pod's interface, or to that of the outside host.
pub(crate) struct End {
    pub(crate) tap: Tap,
    /// Whom its frames go to first: the host side of the veth, or a node.
    pub(crate) next: Mac,
}

impl End {
    pub(crate) fn pod(pod: &Pod) -> Result<Self> {
        let next =
            pod.result()["interfaces"][0]["mac"].as_str().context("The host side has a MAC address")?;
        Ok(Self { tap: Tap::open(&pod.place().netns, "eth0")?, next: mac(next)? })
    }

    /// The outside host, sending by way of a node.
    pub(crate) fn outside(scene: &Scene, via: &Node) -> Result<Self> {
        let next = Tap::open(&via.place().netns, "eth0")?.mac();
        Ok(Self { tap: Tap::open(&scene.lab.outside().place().netns, "eth0")?, next })
    }

    /// Source and destination as the interface would write them.
    pub(crate) fn macs(&self) -> [Mac; 2] {
        [self.next, self.tap.mac()]
    }

    pub(crate) fn send(&self, packet: &[u8]) -> Result<()> {
        self.tap.send(&ethernet(self.macs(), packet))
    }
}

fn mac(text: &str) -> Result<Mac> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().with_context(|| text.to_owned())?;
    bytes.try_into().ok().with_context(|| text.to_owned())
}

/// The outside host's address.
pub(crate) fn outside_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => OUTSIDE_V4.into(),
        Family::V6 => OUTSIDE_V6.into(),
    }
}

/// A datagram in one packet.
pub(crate) fn datagram(src: SocketAddr, dst: SocketAddr, content: &[u8]) -> Vec<u8> {
    Ip::new(src.ip(), dst.ip(), proto::UDP).around(&udp(src, dst, content))
}

/// Waits until a node has counted exactly these since `before`.
pub(crate) fn counted(what: &str, counters: &Counters, before: &Counts, wanted: &[Outcome]) -> Result<()> {
    let wanted = Counts::of(wanted);
    let mut last = Counts::NONE;
    let waited = portolan_lab::wait::until(SOON, what, || {
        last = counters.read()?.since(before);
        Ok((last == wanted).then_some(()))
    });
    ensure!(waited.is_ok(), "{what}: counted {last:?}, and not {wanted:?}");
    Ok(())
}
