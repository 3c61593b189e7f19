//! Programs attached by a filter of the clsact qdisc: those of pods at first, and all on kernels before 6.6.
//!
//! A filter is ours by its priority, its handle and its name. It decides by itself (`direct-action`) and is replaced in
//! place. Those of others, whatever their priority, stay as they are.

use std::os::fd::AsFd as _;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use nix::{errno::Errno, libc};

use super::{Direction, Hook, HookError, Kept, Program};
use crate::{
    bpf,
    netlink::{NetlinkError, Reply, Socket},
};
/// The priority of our filters: before those that the kernel numbers by itself, and a number that nobody chooses.
pub const PRIORITY: u16 = 112;
/// The handle of our filters among those of their priority.
pub const HANDLE: u32 = 1;
/// What the names of our filters begin with.
const PREFIX: &str = "portolan_";
/// The handle of a clsact qdisc, of which an interface has one at most.
const QDISC: TcHandle = TcHandle { major: u16::MAX, minor: 0 };

/// A filter at our place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    name: String,
    program: u32,
}

/// Gives an interface a clsact qdisc; whether it had none.
///
/// # Errors
/// When it has one of another kind, and as the kernel says.
pub fn make_qdisc(ifindex: u32) -> Result<bool, HookError> {
    make_qdisc_by(&mut Socket::open()?, ifindex)
}

pub(super) fn make_qdisc_by(socket: &mut Socket, ifindex: u32) -> Result<bool, HookError> {
    let what = format!("add the qdisc clsact to interface {ifindex}");
    let request = || RouteNetlinkMessage::NewQueueDiscipline(qdisc(ifindex));
    match socket.request(what.clone(), request(), NLM_F_CREATE | NLM_F_EXCL) {
        // Without the flag that wants it new, the kernel compares the kind.
        Err(error) if error.is(Errno::EEXIST) => {
            socket.request(what, request(), NLM_F_CREATE)?;
            Ok(false)
        }
        other => Ok(other.map(|_| true)?),
    }
}

/// Takes the clsact qdisc from an interface if it has no filter; whether it is gone.
///
/// # Errors
/// As the kernel says.
pub fn delete_empty_qdisc(ifindex: u32) -> Result<bool, HookError> {
    let mut socket = Socket::open()?;
    for direction in [Direction::Ingress, Direction::Egress] {
        let mut every = about(Hook { ifindex, direction });
        every.header.handle = TcHandle::UNSPEC;
        every.header.info = 0;
        if !socket.dump("list filters", &RouteNetlinkMessage::GetTrafficFilter(every))?.is_empty() {
            return Ok(false);
        }
    }
    let request = RouteNetlinkMessage::DelQueueDiscipline(qdisc(ifindex));
    absent(socket.request(format!("remove the qdisc clsact of interface {ifindex}"), request, 0))?;
    Ok(true)
}

/// The number of the program in our filter, if it is there.
///
/// # Errors
/// As the kernel says.
pub fn program(hook: Hook) -> Result<Option<u32>, HookError> {
    let found = filter(&mut Socket::open()?, hook)?;
    Ok(found.filter(|filter| filter.name.starts_with(PREFIX)).map(|filter| filter.program))
}

/// Sees to it that our filter has this program. The qdisc has to be there.
///
/// # Errors
/// [`HookError::Foreign`] when another's filter is in its place, and as the kernel says.
pub fn keep(hook: Hook, program: &Program) -> Result<Kept, HookError> {
    let mut socket = Socket::open()?;
    let kept = match filter(&mut socket, hook)? {
        Some(Filter { name, .. }) if !name.starts_with(PREFIX) => return Err(HookError::Foreign(name)),
        Some(filter) if filter.program == program.id() => return Ok(Kept::Unchanged),
        Some(_) => Kept::Replaced,
        None => Kept::Attached,
    };
    put_by(&mut socket, hook, program)?;
    Ok(kept)
}

/// Removes our filter. That it is not there is success.
///
/// # Errors
/// As the kernel says.
pub fn delete(hook: Hook) -> Result<(), HookError> {
    let mut socket = Socket::open()?;
    if filter(&mut socket, hook)?.is_none_or(|filter| !filter.name.starts_with(PREFIX)) {
        return Ok(());
    }
    let mut message = about(hook);
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    absent(socket.request("remove a filter", RouteNetlinkMessage::DelTrafficFilter(message), 0))
}

pub(super) fn put_by(socket: &mut Socket, hook: Hook, program: &Program) -> Result<(), HookError> {
    let options = [
        TcFilterBpfOption::ProgFd(bpf::descriptor(program.as_fd())),
        TcFilterBpfOption::ProgName(format!("{PREFIX}{}", program.name())),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let mut message = about(hook);
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).to_vec()));
    let what = format!("add a filter to {} of interface {}", hook.direction, hook.ifindex);
    socket.request(what, RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE)?;
    Ok(())
}

/// The filter at our place, whoever made it.
fn filter(socket: &mut Socket, hook: Hook) -> Result<Option<Filter>, NetlinkError> {
    match socket.request("look up a filter", RouteNetlinkMessage::GetTrafficFilter(about(hook)), 0) {
        Ok(replies) => Ok(replies.iter().find_map(parse)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Without a qdisc the parent is invalid; without a filter there is no such entry.
fn is_absent(error: &NetlinkError) -> bool {
    error.is(Errno::ENOENT) || error.is(Errno::EINVAL)
}

fn absent<T>(result: Result<T, NetlinkError>) -> Result<(), HookError> {
    match result {
        Err(error) if !is_absent(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn parse(reply: &Reply) -> Option<Filter> {
    let message = TcMessage::parse(&reply.payload[..]).ok()?;
    let mut filter = Filter { name: String::new(), program: 0 };
    for attribute in message.attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            if let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option {
                filter.name = name;
            } else if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
                filter.program = id;
            }
        }
    }
    Some(filter)
}

/// A message about our filter at a hook.
fn about(hook: Hook) -> TcMessage {
    let mut message = TcMessage::with_index(hook.ifindex.cast_signed());
    message.header.handle = HANDLE.into();
    message.header.parent = TcHandle {
        major: u16::MAX,
        minor: match hook.direction {
            Direction::Ingress => TcHandle::MIN_INGRESS,
            Direction::Egress => TcHandle::MIN_EGRESS,
        },
    };
    let every_protocol = u16::try_from(libc::ETH_P_ALL).expect("a number of Ethernet").to_be();
    message.header.info = (u32::from(PRIORITY) << 16) | u32::from(every_protocol);
    message
}

fn qdisc(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.handle = QDISC;
    message.header.parent = TcHandle::CLSACT;
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}
