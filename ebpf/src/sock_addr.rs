//! The context of the cgroup socket-address hooks (`struct bpf_sock_addr`, include/uapi/linux/bpf.h): the only module
//! that reads and writes it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::programs::SockAddrContext;
use portolan_abi::{Addr, Port, Proto};

/// The verdict that lets the system call go on; the only one for recvmsg and getpeername.
pub(crate) const PROCEED: i32 = 1;
/// The verdict that ends it with an error.
pub(crate) const DENY: i32 = 0;

/// Multipath TCP: to Services it is TCP.
const IPPROTO_MPTCP: u32 = 262;
const SOCK_STREAM: u32 = 1;

/// The family of the hook, which tells the fields that hold the address.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The socket and the address that a program gave to, or gets from, a system call.
pub(crate) struct SockAddr<'a> {
    ctx: &'a SockAddrContext,
    family: Family,
}

impl<'a> SockAddr<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a SockAddrContext, family: Family) -> Self {
        Self { ctx, family }
    }

    #[inline(always)]
    pub(crate) fn context(&self) -> &'a SockAddrContext {
        self.ctx
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.ctx.sock_addr
    }

    #[inline(always)]
    pub(crate) fn addr(&self) -> Addr {
        // SAFETY: the kernel hands a valid context to the program, and the verifier checks each access.
        unsafe {
            match self.family {
                Family::V4 => Addr::from_v4_word((*self.raw()).user_ip4),
                Family::V6 => Addr::from_words([
                    (*self.raw()).user_ip6[0],
                    (*self.raw()).user_ip6[1],
                    (*self.raw()).user_ip6[2],
                    (*self.raw()).user_ip6[3],
                ]),
            }
        }
    }

    #[inline(always)]
    pub(crate) fn port(&self) -> Port {
        // SAFETY: as in `addr`.
        let raw = unsafe { (*self.raw()).user_port };
        // The port is in the low half of the word; the high half is zero.
        Port::from_raw((raw & 0xffff) as u16)
    }

    /// The protocol, if Services have it.
    #[inline(always)]
    pub(crate) fn proto(&self) -> Option<Proto> {
        // SAFETY: as in `addr`.
        match unsafe { (*self.raw()).protocol } {
            6 | IPPROTO_MPTCP => Some(Proto::TCP),
            17 => Some(Proto::UDP),
            132 => Some(Proto::SCTP),
            _ => None,
        }
    }

    /// Whether the socket is a stream, for hooks that know no protocol but the socket's type.
    #[inline(always)]
    pub(crate) fn is_stream(&self) -> bool {
        // SAFETY: as in `addr`.
        unsafe { (*self.raw()).type_ == SOCK_STREAM }
    }

    /// Replaces the address. The family of `addr` must be one that the hook's socket can hold, which the planner
    /// assures: the backends of a frontend have the frontend's family.
    #[inline(always)]
    pub(crate) fn set(&self, addr: Addr, port: Port) {
        let words = addr.words();
        // SAFETY: as in `addr`. The verifier wants writes of a word to fixed offsets.
        unsafe {
            match self.family {
                Family::V4 => (&raw mut (*self.raw()).user_ip4).write_volatile(words[3]),
                Family::V6 => {
                    (&raw mut (*self.raw()).user_ip6[0]).write_volatile(words[0]);
                    (&raw mut (*self.raw()).user_ip6[1]).write_volatile(words[1]);
                    (&raw mut (*self.raw()).user_ip6[2]).write_volatile(words[2]);
                    (&raw mut (*self.raw()).user_ip6[3]).write_volatile(words[3]);
                }
            }
            (&raw mut (*self.raw()).user_port).write_volatile(port.raw() as u32);
        }
    }

    /// `SO_NETNS_COOKIE` of the socket's network namespace.
    #[inline(always)]
    pub(crate) fn netns(&self) -> u64 {
        // SAFETY: the helper takes the program's context.
        unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) }
    }

    /// `SO_COOKIE` of the socket.
    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the program's context.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
    }
}
