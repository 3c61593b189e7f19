// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//! Portolan's eBPF programs: entry points only. Each turns one outcome into one verdict; the deciding is in the modules.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "helpers take and give words of other widths than what they count, which is always small"
)]

mod atomic;
mod backend;
mod counters;
mod decide;
mod fast_path;
mod flow;
mod flow_cache;
mod forward;
mod fragment;
mod frame;
mod gone;
mod icmp_error;
mod monitor;
mod network;
mod packet;
mod peer;
mod pod;
mod refuse;
mod repeat;
mod route_cache;
mod segment;
mod service;
mod sink;
mod snat;
mod sock_addr;
mod sum;
mod tcp;
mod translate;
mod transport;
mod uplink;
mod verdict;
mod xdp;

use aya_ebpf::macros::{cgroup_sock_addr, classifier, xdp};
use aya_ebpf::programs::{SockAddrContext, TcContext, XdpContext};

use crate::frame::Frame;
use crate::sock_addr::{Family, SockAddr};
use crate::verdict::Verdict;

/// connect(2) on an IPv4 socket.
#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    let socket = SockAddr::new(&ctx, Family::V4);
    decide::connect(&socket).verdict(&socket)
}

/// connect(2) on an IPv6 socket, IPv4-mapped destinations included.
#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    let socket = SockAddr::new(&ctx, Family::V6);
    decide::connect(&socket).verdict(&socket)
}

/// sendto(2) and its kin on an unconnected UDP socket: IPv4, and IPv4-mapped on an IPv6 socket.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let socket = SockAddr::new(&ctx, Family::V4);
    decide::sendmsg(&socket).verdict(&socket)
}

/// The same for IPv6.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let socket = SockAddr::new(&ctx, Family::V6);
    decide::sendmsg(&socket).verdict(&socket)
}

/// recvfrom(2) and its kin on a UDP socket, before the source address is given to the program.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    peer::restore_udp(&SockAddr::new(&ctx, Family::V4));
    sock_addr::PROCEED
}

/// The same for IPv6 sockets, IPv4-mapped sources included.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    peer::restore_udp(&SockAddr::new(&ctx, Family::V6));
    sock_addr::PROCEED
}

/// getpeername(2) on an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    peer::restore(&SockAddr::new(&ctx, Family::V4));
    sock_addr::PROCEED
}

/// getpeername(2) on an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    peer::restore(&SockAddr::new(&ctx, Family::V6));
    sock_addr::PROCEED
}

/// What a pod sends, on the host side of its veth.
#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    match fast_path::follow(&Frame::new(&ctx), true, true) {
        Verdict::UNDECIDED => sent(&ctx),
        verdict => verdict.passed(),
    }
}

/// All of which nothing is remembered. A function of its own, as the next ones are: what goes by in a few loads and compares is
/// spared what this needs of registers and of the stack.
#[inline(never)]
fn sent(ctx: &TcContext) -> i32 {
    let frame = Frame::new(ctx);
    pod::sent(&frame).action(&frame)
}

/// What the host's stack sends to a pod, on the host side of its veth.
#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    let frame = Frame::new(&ctx);
    pod::receives(&frame).action(&frame)
}

/// What arrives at an uplink.
#[classifier]
fn from_uplink(ctx: TcContext) -> i32 {
    match uplink::receives(&Frame::new(&ctx)) {
        Verdict::UNDECIDED => arrived(&ctx),
        verdict => verdict.passed(),
    }
}

/// All of which nothing is remembered, and which is not for a socket of the node.
#[inline(never)]
fn arrived(ctx: &TcContext) -> i32 {
    let frame = Frame::new(ctx);
    uplink::received(&frame).action(&frame)
}

/// What leaves by an uplink.
#[classifier]
fn to_uplink(ctx: TcContext) -> i32 {
    match uplink::sends(&Frame::new(&ctx)) {
        Verdict::UNDECIDED => leaves(&ctx),
        verdict => verdict.passed(),
    }
}

/// What is left to be done for, or may be.
#[inline(never)]
fn leaves(ctx: &TcContext) -> i32 {
    let frame = Frame::new(ctx);
    uplink::sent(&frame).action(&frame)
}

/// What is for an address of this node's pods that none of them has, on its way into the sink.
#[classifier]
fn to_sink(ctx: TcContext) -> i32 {
    let frame = Frame::new(&ctx);
    sink::receives(&frame).action(&frame)
}

/// What arrives at an uplink, before the kernel has made a packet of it.
#[xdp(frags)]
fn xdp_uplink(ctx: XdpContext) -> u32 {
    xdp::received(&frame::xdp::Frame::new(&ctx))
}

/// The programs are GPL-compatible: the kernel lets only such ones call some of the helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the programs contain no panic: the verifier would refuse a path that leads here.
    unsafe { core::hint::unreachable_unchecked() }
}
