//! Servers and clients of plain bytes, on threads of the test. No program sees their sockets: the test's own cgroup is
//! that of no node.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
};
use portolan_lab::netns::Netns;
use portolan_lab::wait::until;

use super::wire::SOON;

/// How often a server looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);
/// More than any datagram has.
const DATAGRAM: usize = 1 << 16;

/// Binds or connects as soon as the addresses are free: until a child of the test has begun its own program, it has
/// copies of sockets that are closed here.
fn when_free<T: Send>(netns: &Netns, what: &str, open: impl Fn() -> io::Result<T> + Sync) -> Result<T> {
    let open = || match netns.inside(&open)? {
        Err(e) if matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => Ok(None),
        other => other.map(Some).with_context(|| what.to_owned()),
    };
    until(SOON, what, open).map(|(socket, _)| socket)
}

/// Binds as soon as the port is free.
pub(crate) fn bound<T: Send>(
    netns: &Netns,
    at: SocketAddr,
    bind: fn(SocketAddr) -> io::Result<T>,
) -> Result<T> {
    when_free(netns, &format!("binding {at}"), || bind(at))
}

/// Sends every datagram back to whom it came from, until it is dropped.
pub(crate) struct Echo {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let socket = bound(netns, at, UdpSocket::bind)?;
        socket.set_read_timeout(Some(LOOK))?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; DATAGRAM];
            while !end.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    // A lost answer is the client's to report.
                    let _sent = socket.send_to(&buffer[..len], from);
                }
            }
        });
        Ok(Self { ended, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // A panic in there has been printed.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// A UDP socket in a namespace, connected, with a port of its own or this one.
pub(crate) fn udp_to(netns: &Netns, from: SocketAddr, to: SocketAddr) -> Result<UdpSocket> {
    when_free(netns, &format!("{from} to {to}"), || {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(socket)
    })
}

/// A TCP connection from a namespace and, unless it is 0, from this port, as soon as another socket that had it is gone.
pub(crate) fn tcp_to(netns: &Netns, from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    when_free(netns, &format!("{from} to {to}"), || {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(SOON))?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(stream)
    })
}

/// The byte at a place of what is transferred: no part of it looks like another.
fn byte(place: usize) -> u8 {
    let mixed = u32::try_from(place / 4).unwrap_or(0).wrapping_mul(0x9e37_79b9);
    mixed.to_le_bytes()[place % 4]
}

/// So many bytes that a receiver can tell to be the right ones.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(byte).collect()
}

/// Accepts one connection, and sends and receives so many bytes at the same time.
pub(crate) fn exchange_as_server(
    netns: &Netns,
    at: SocketAddr,
    bytes: usize,
) -> Result<JoinHandle<Result<SocketAddr>>> {
    let listener = bound(netns, at, TcpListener::bind)?;
    Ok(std::thread::spawn(move || {
        let (stream, from) = listener.accept().context("accepting")?;
        stream.set_read_timeout(Some(SOON))?;
        exchange(&stream, bytes).map(|()| from)
    }))
}

/// Sends and receives so many bytes at the same time; fails when one of those that come is not the right one.
pub(crate) fn exchange(stream: &TcpStream, bytes: usize) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let sending = std::thread::spawn(move || writer.write_all(&pattern(bytes)));
    let mut seen = 0;
    let mut buffer = vec![0; 1 << 18];
    while seen < bytes {
        let len =
            (&mut &*stream).read(&mut buffer).with_context(|| format!("after {seen} bytes of {bytes}"))?;
        ensure!(len > 0, "the other side has ended after {seen} bytes of {bytes}");
        let wrong = buffer[..len].iter().zip(seen..).find(|(got, place)| **got != byte(*place));
        ensure!(wrong.is_none(), "a byte is not the one that was sent: {wrong:?}");
        seen += len;
    }
    sending.join().ok().context("the sender has panicked")??;
    Ok(())
}

/// Asks a server of [`Echo`] with a datagram of this length.
pub(crate) fn echoes(socket: &UdpSocket, len: usize) -> Result<()> {
    let sent = pattern(len);
    socket.send(&sent)?;
    let mut buffer = vec![0; DATAGRAM];
    let len = socket.recv(&mut buffer).context("waiting for the answer")?;
    ensure!(buffer[..len] == sent, "{len} bytes came back, and not those that were sent");
    Ok(())
}
