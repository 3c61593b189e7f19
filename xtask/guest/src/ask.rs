//! The client: a fixed number of transactions, timed.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::netns;

/// How long to wait for an answer before the measurement is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many transactions go before the measured ones, so that caches and tables are as in the long run.
const WARM_UP: u32 = 100;

/// Where a client runs: its network namespace and its cgroup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) netns: &'static str,
    pub(crate) cgroup: &'static str,
}

/// Runs a client, a process of its own; what it prints is the nanoseconds of a transaction.
pub(crate) fn start(from: Place, workload: &str, count: u32, address: &str) -> Result<String> {
    let mut ask = Command::new(netns::SELF);
    ask.args(["ask", from.netns, from.cgroup, workload, &count.to_string(), address]);
    let output = ask.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the client of {address} failed");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the nanoseconds of one of `count` transactions.
///
/// `crr`: connect, request, response, reset. `rr`: request and response on one connection. `udp-connected` and
/// `udp-unconnected`: the same on one socket, with `connect` or with `sendto`.
pub(crate) fn run(workload: &str, count: u32, address: SocketAddr) -> Result<f64> {
    match workload {
        "crr" => timed(count, || exchange(&mut connect(address)?)),
        "rr" => {
            let mut stream = connect(address)?;
            timed(count, || exchange(&mut stream))
        }
        "udp-connected" => {
            let socket = udp()?;
            socket.connect(address).with_context(|| format!("cannot connect to {address}"))?;
            timed(count, || {
                socket.send(&[1])?;
                ensure!(socket.recv(&mut [0])? == 1, "an empty answer");
                Ok(())
            })
        }
        "udp-unconnected" => {
            let socket = udp()?;
            timed(count, || {
                socket.send_to(&[1], address)?;
                let (length, from) = socket.recv_from(&mut [0])?;
                ensure!(length == 1 && from == address, "{length} bytes from {from}, not 1 from {address}");
                Ok(())
            })
        }
        other => bail!("no such workload: {other}"),
    }
}

fn timed(count: u32, mut transaction: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut pass = |count| (0..count).try_for_each(|_| transaction());
    pass(WARM_UP)?;
    let start = Instant::now();
    pass(count)?;
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(count))
}

/// A connection that ends by a reset.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Closing sends a reset: no socket is left waiting, so that the thousandth connection costs what the first did.
    setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(stream)
}

/// A byte there and back.
pub(crate) fn exchange(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0]).context("no answer")
}

fn udp() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}
