//! Clients: what a program sees of a Service.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, socket};

use super::{failure, micros};
use crate::wire::{Answer, Call, Failure, Greeting, Proto, Question};

/// A socket from which questions are asked.
pub(super) struct Socket {
    kind: Kind,
    dst: SocketAddr,
    /// When opening it began; the first question's time counts from there.
    since: Option<Instant>,
    nonce: u64,
}

enum Kind {
    Stream(BufReader<TcpStream>),
    Connected(UdpSocket),
    Unconnected(UdpSocket),
}

impl Socket {
    pub(super) fn open(call: &Call) -> Result<Self, Failure> {
        let since = Instant::now();
        let dst = if call.mapped { mapped(call.dst) } else { call.dst };
        let timeout = Duration::from_millis(call.timeout_ms);
        let kind = connect(call, dst, timeout).map_err(|e| failure("connect", since, &e))?;
        Ok(Self { kind, dst, since: Some(since), nonce: 0 })
    }

    pub(super) fn ask(&mut self) -> Result<Answer, Failure> {
        let since = self.since.take().unwrap_or_else(Instant::now);
        self.nonce += 1;
        let question =
            serde_json::to_string(&Question { nonce: self.nonce }).expect("a question is plain data");
        self.send(&question).map_err(|e| failure("send", since, &e))?;
        let (greeting, peer) = self.receive().map_err(|e| failure("receive", since, &e))?;
        let us = micros(since);
        let local = self.local().map_err(|e| failure("getsockname", since, &e))?;
        let via = greeting.via.transpose()?.map(Box::new);
        Ok(Answer { server: greeting.server, client: greeting.client, peer, local, us, via })
    }

    fn send(&mut self, question: &str) -> io::Result<()> {
        match &mut self.kind {
            Kind::Stream(stream) => stream.get_mut().write_all(format!("{question}\n").as_bytes()),
            Kind::Connected(socket) => socket.send(question.as_bytes()).map(drop),
            Kind::Unconnected(socket) => socket.send_to(question.as_bytes(), self.dst).map(drop),
        }
    }

    /// The answer to the last question, with whom the program sees it come from.
    fn receive(&mut self) -> io::Result<(Greeting, SocketAddr)> {
        loop {
            let mut buffer = [0; 2048];
            let (greeting, peer) = match &mut self.kind {
                Kind::Stream(stream) => {
                    let mut line = String::new();
                    if stream.read_line(&mut line)? == 0 {
                        return Err(Errno::ECONNRESET.into());
                    }
                    (serde_json::from_str(&line), stream.get_ref().peer_addr()?)
                }
                Kind::Connected(socket) => {
                    let len = socket.recv(&mut buffer)?;
                    (serde_json::from_slice(&buffer[..len]), socket.peer_addr()?)
                }
                Kind::Unconnected(socket) => {
                    let (len, source) = socket.recv_from(&mut buffer)?;
                    (serde_json::from_slice(&buffer[..len]), source)
                }
            };
            let greeting: Greeting = greeting.map_err(|_| Errno::EBADMSG)?;
            // A datagram may answer a question that was given up.
            if greeting.nonce == self.nonce {
                return Ok((greeting, peer));
            }
        }
    }

    fn local(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            Kind::Stream(stream) => stream.get_ref().local_addr(),
            Kind::Connected(socket) | Kind::Unconnected(socket) => socket.local_addr(),
        }
    }
}

fn connect(call: &Call, dst: SocketAddr, timeout: Duration) -> io::Result<Kind> {
    if call.proto == Proto::Tcp {
        let stream = stream(dst, call.from_port, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        return Ok(Kind::Stream(BufReader::new(stream)));
    }
    let socket = bind(any(dst, call.from_port))?;
    socket.set_read_timeout(Some(timeout))?;
    if !call.connected {
        return Ok(Kind::Unconnected(socket));
    }
    socket.connect(dst)?;
    Ok(Kind::Connected(socket))
}

/// Every address of the family of `dst`, with a port.
fn any(dst: SocketAddr, port: u16) -> SocketAddr {
    let any = if dst.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, port)
}

/// A connection, from a port of its own or from this one, which may just have been another's.
fn stream(dst: SocketAddr, from_port: u16, timeout: Duration) -> io::Result<TcpStream> {
    if from_port == 0 {
        return TcpStream::connect_timeout(&dst, timeout);
    }
    let family = if dst.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(any(dst, from_port)))?;
    let stream = TcpStream::from(socket);
    // It limits connect(2), too (socket(7)), which then says that it goes on.
    stream.set_write_timeout(Some(timeout))?;
    match nix::sys::socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(dst)) {
        Err(Errno::EINPROGRESS) => Err(Errno::ETIMEDOUT.into()),
        other => other.map(|()| stream).map_err(Into::into),
    }
}

/// A UDP socket; a port that is asked for may be another socket's, too.
fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    if addr.port() == 0 {
        return UdpSocket::bind(addr);
    }
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(socket.into())
}

fn mapped(dst: SocketAddr) -> SocketAddr {
    match dst {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 @ SocketAddr::V6(_) => v6,
    }
}
