//! Source ports for what is sent on behalf of somebody else. Each (backend, port) has a port space of its own: a port is
//! taken when answers from that backend to it belong to another flow, or to a socket of the host.

use core::ffi::c_long;

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portolan_abi::{FlowKey, Port, Proto};

use crate::flow::{self, Created};
use crate::repeat::{GO_ON, STOP, repeat};
use crate::transport::Transport;

/// Ports from here on are given out; a client's own port is kept, wherever it is.
const FIRST_PORT: u32 = 1024;
const PORTS: u32 = 65536 - FIRST_PORT;
/// How many ports are tried, the client's own and random ones: with nine of ten taken, none is free among so many once in
/// 10^23 times. Each is drawn anew: where one leads to the next, those that are taken form rows that get longer and longer.
const TRIES: u32 = 513;

/// The search for a port.
struct Search<'a> {
    /// The program's context.
    ctx: *mut c_void,
    transport: &'a mut Transport,
    /// How answers will look; the destination port is what is searched.
    reply: &'a mut FlowKey,
    created: Created,
}

/// The answer that this CPU looks for; see `TRANSPORT`.
#[map]
static REPLY: PerCpuArray<FlowKey> = PerCpuArray::with_max_entries(1, 0);

/// Makes the flow of packets that become what `transport` says, but for the source port: that is kept when it is free,
/// and otherwise another one. [`Created::Clash`]: there is none.
#[inline(never)]
pub(crate) fn create(ctx: *mut c_void, transport: &mut Transport) -> Created {
    let Some(reply) = REPLY.get_ptr_mut(0) else { return Created::Refused };
    // SAFETY: the element is this CPU's and nobody else's while the program runs.
    let reply = unsafe { &mut *reply };
    *reply = transport.to.reversed();
    // Of SCTP and of what has no ports, the port cannot be changed.
    let tries = if has_ports(transport.to.proto) { TRIES } else { 1 };
    let mut search = Search { ctx, transport, reply, created: Created::Clash };
    repeat(tries, try_port, &mut search);
    search.created
}

#[inline(always)]
fn has_ports(proto: Proto) -> bool {
    matches!(proto.0, 1 | 6 | 17 | 58)
}

extern "C" fn try_port(index: u32, search: &mut Search<'_>) -> c_long {
    if index > 0 {
        // SAFETY: the helper takes nothing.
        let port = FIRST_PORT + unsafe { bpf_get_prandom_u32() } % PORTS;
        search.reply.dst_port = Port::new(port as u16);
    }
    if !flow::is_free(search.reply) || host_has(search.ctx, search.reply) {
        return GO_ON;
    }
    search.transport.to.src_port = search.reply.dst_port;
    search.created = flow::insert(search.transport);
    // Another CPU was quicker with this port.
    if search.created == Created::Clash { GO_ON } else { STOP }
}

/// Whether a socket of the host gets packets with these addresses and ports.
#[inline(never)]
fn host_has(ctx: *mut c_void, key: &FlowKey) -> bool {
    // SAFETY: all-zero is a valid tuple.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let (src, dst) = (key.src.words(), key.dst.words());
    let size = if key.src.is_v4() {
        tuple.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: src[3],
            daddr: dst[3],
            sport: key.src_port.raw(),
            dport: key.dst_port.raw(),
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>()
    } else {
        tuple.__bindgen_anon_1.ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: src,
            daddr: dst,
            sport: key.src_port.raw(),
            dport: key.dst_port.raw(),
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>()
    } as u32;
    let (tuple, netns) = (&raw mut tuple, BPF_F_CURRENT_NETNS as u32 as u64);
    // SAFETY: the helpers take the program's context and a tuple of this size, and give a socket to be released.
    unsafe {
        let socket: *mut bpf_sock = match key.proto {
            Proto::TCP => bpf_skc_lookup_tcp(ctx, tuple, size, netns, 0).cast(),
            Proto::UDP => bpf_sk_lookup_udp(ctx, tuple, size, netns, 0).cast(),
            _ => return false,
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
    }
    true
}
