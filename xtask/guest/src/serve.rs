//! The server: echoes single bytes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::netns;

/// The port of the server, for both protocols.
pub(crate) const PORT: u16 = 7788;

/// Starts a server and waits until it is ready.
pub(crate) fn start(name: &str, protocol: &str) -> Result<Child> {
    let mut server = Command::new(netns::SELF)
        .args(["serve", name, protocol])
        .stdout(Stdio::piped())
        .spawn()
        .context("no server")?;
    let stdout = server.stdout.take().context("the server has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the {protocol} server is not ready: {line}");
    Ok(server)
}

/// Serves until it is killed; says `ready` once it listens.
pub(crate) fn run(name: &str, protocol: &str) -> Result<()> {
    netns::enter(name)?;
    match protocol {
        "tcp" => tcp(),
        "udp" => udp(),
        other => bail!("expected tcp or udp, not {other}"),
    }
}

fn tcp() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot listen")?;
    println!("ready");
    loop {
        let (mut stream, _) = listener.accept().context("cannot accept")?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        // The client ends a connection by a reset, which is an error here and the expected end.
        while stream.read_exact(&mut byte).is_ok() {
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    }
}

fn udp() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot bind")?;
    println!("ready");
    let mut byte = [0];
    loop {
        let (_, client) = socket.recv_from(&mut byte)?;
        socket.send_to(&byte, client)?;
    }
}
