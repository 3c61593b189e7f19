//! What sockets remember of the Services that they talk to: the way back from a backend to the address that the
//! program knows.

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::LruHashMap;
use portolan_abi::{Addr, Backend, Outcome, Peer, Port, UDP_PEERS as SLOTS, UdpPeer, UdpPeers};

use crate::counters::count;
use crate::frame::Frame;
use crate::sock_addr::SockAddr;

/// For getpeername(2), which few programs call: an LRU by socket cookie costs a connection half of what socket
/// storage does, and an entry that was evicted only shows the backend instead of the Service.
#[map]
static TCP_PEERS: LruHashMap<u64, Peer> = LruHashMap::with_max_entries(65536, 0);

/// UDP replies would be dropped by programs if their source were wrong: exact, and gone with the socket.
#[btf_map]
static UDP_PEERS: SkStorage<UdpPeers> = SkStorage::new();

/// Remembers a connection of a stream socket.
#[inline(always)]
pub(crate) fn remember_stream(socket: &SockAddr<'_>, asked: (Addr, Port), given: &Backend) {
    let peer = Peer {
        asked_addr: asked.0,
        given_addr: given.addr,
        asked_port: asked.1,
        given_port: given.port,
        pad: [0; 4],
    };
    let _ = TCP_PEERS.insert(socket.cookie(), peer, 0);
}

/// The backend that gets what the socket sends to `asked`, from an earlier datagram.
#[inline(always)]
pub(crate) fn udp_backend(socket: &SockAddr<'_>, asked: (Addr, Port)) -> Option<(Addr, Port)> {
    let peers = peers(socket)?;
    find(peers, |peer| peer.asked_port == asked.1 && peer.asked_addr.same(asked.0))
        .map(|peer| (peer.given_addr, peer.given_port))
}

/// Remembers who gets what the socket sends to `asked`.
#[inline(always)]
pub(crate) fn remember_udp(socket: &SockAddr<'_>, asked: (Addr, Port), given: &Backend) {
    // SAFETY: the context is the program's own; a new entry is zeroed by the kernel.
    let peers = unsafe { UDP_PEERS.get_or_insert_ptr_mut(socket.context(), None) };
    // SAFETY: a non-null value lives until the program ends; its fields are plain integers that another CPU may write
    // when two threads send on one socket.
    let Some(peers) = (unsafe { peers.as_mut() }) else { return count(Outcome::UdpPeerForgotten as u32) };
    let entry =
        UdpPeer { asked_addr: asked.0, given_addr: given.addr, asked_port: asked.1, given_port: given.port };
    for peer in &mut peers.peers {
        if peer.asked_port == Port::ANY || (peer.asked_port == asked.1 && peer.asked_addr.same(asked.0)) {
            *peer = entry;
            return;
        }
    }
    let slot = peers.next as usize % SLOTS;
    peers.next = peers.next.wrapping_add(1);
    if let Some(peer) = peers.peers.get_mut(slot) {
        *peer = entry;
    }
    count(Outcome::UdpPeerForgotten as u32);
}

/// The socket talks to this address itself: what comes from there is no longer a Service's.
#[inline(always)]
pub(crate) fn forget_udp(socket: &SockAddr<'_>, addr: Addr, port: Port) {
    // SAFETY: as in `remember_udp`.
    let Some(peers) = (unsafe { UDP_PEERS.get_ptr_mut(socket.context()).as_mut() }) else { return };
    for peer in &mut peers.peers {
        if peer.given_port == port && peer.given_addr.same(addr) {
            peer.given_port = Port::ANY;
        }
    }
}

/// What the socket that sends a frame remembers of the UDP Services that it talks to.
#[inline(always)]
pub(crate) fn of_sender(frame: &Frame<'_>) -> Option<&'static mut UdpPeers> {
    let socket = frame.socket();
    if socket.is_null() {
        return None;
    }
    let map = (&raw const UDP_PEERS).cast_mut().cast();
    // SAFETY: the helper takes the map and a socket, which is not null, and gives no value to what is none of ours.
    let peers = unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0) };
    // SAFETY: as in `remember_udp`.
    unsafe { peers.cast::<UdpPeers>().as_mut() }
}

/// What was asked for to be given this backend.
#[inline(always)]
pub(crate) fn asked_for(peers: &UdpPeers, addr: &Addr, port: Port) -> Option<(Addr, Port)> {
    find(peers, |peer| peer.given_port == port && peer.given_addr.same(*addr))
        .map(|peer| (peer.asked_addr, peer.asked_port))
}

/// Whether the socket talks to one Service alone.
#[inline(always)]
pub(crate) fn is_only_one(peers: &UdpPeers) -> bool {
    peers.peers[1].asked_port == Port::ANY
}

/// Gives a datagram that came from a backend the source that the program sent to.
#[inline(always)]
pub(crate) fn restore_udp(socket: &SockAddr<'_>) {
    let (addr, port) = (socket.addr(), socket.port());
    if let Some(peers) = peers(socket)
        && let Some(peer) = find(peers, |peer| peer.given_port == port && peer.given_addr.same(addr))
    {
        socket.set(peer.asked_addr, peer.asked_port);
        count(Outcome::ReplyRestored as u32);
    }
}

/// Gives getpeername(2) the address that the program connected to.
#[inline(always)]
pub(crate) fn restore(socket: &SockAddr<'_>) {
    if !socket.is_stream() {
        return restore_udp(socket);
    }
    // SAFETY: the element lives until the program ends, and an LRU may only replace it by another socket's, which the
    // comparison below then refuses.
    if let Some(peer) = unsafe { TCP_PEERS.get(socket.cookie()) }
        && peer.given_port == socket.port()
        && peer.given_addr.same(socket.addr())
    {
        socket.set(peer.asked_addr, peer.asked_port);
    }
}

#[inline(always)]
fn peers<'a>(socket: &SockAddr<'a>) -> Option<&'a UdpPeers> {
    // SAFETY: the context is the program's own; a non-null value lives until the program ends.
    unsafe { UDP_PEERS.get_ptr_mut(socket.context()).as_ref() }
}

/// The first entry in use that the predicate accepts.
#[inline(always)]
fn find(peers: &UdpPeers, accept: impl Fn(&UdpPeer) -> bool) -> Option<&UdpPeer> {
    for peer in &peers.peers {
        if peer.asked_port == Port::ANY {
            break;
        }
        if accept(peer) {
            return Some(peer);
        }
    }
    None
}
