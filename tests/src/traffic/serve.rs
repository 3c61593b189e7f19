//! Servers that say who answered and whom they saw.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use super::ask::Socket;
use super::failure;
use crate::wire::{Call, Failure, Greeting, Proto, Question};

struct Server {
    name: String,
    via: Option<Call>,
}

/// Listens, and answers from a thread until the process ends.
pub(super) fn start(name: String, proto: Proto, bind: SocketAddr, via: Option<Call>) -> Result<(), Failure> {
    let since = Instant::now();
    let server = Arc::new(Server { name, via });
    match proto {
        Proto::Tcp => {
            let listener = TcpListener::bind(bind).map_err(|e| failure("bind", since, &e))?;
            std::thread::spawn(move || server.accept(&listener));
        }
        Proto::Udp => {
            let socket = UdpSocket::bind(bind).map_err(|e| failure("bind", since, &e))?;
            std::thread::spawn(move || server.datagrams(&socket));
        }
    }
    Ok(())
}

impl Server {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let server = Arc::clone(&self);
            std::thread::spawn(move || server.conversation(stream));
        }
    }

    /// Ends when the client closes; what goes wrong on the way is the client's to report.
    fn conversation(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let client = stream.peer_addr().ok()?;
        let lines = BufReader::new(stream.try_clone().ok()?).lines();
        for line in lines {
            let mut answer = self.answer(line.ok()?.as_bytes(), client)?;
            answer.push(b'\n');
            stream.write_all(&answer).ok()?;
        }
        Some(())
    }

    fn datagrams(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((len, client)) => {
                    let answer = self.answer(&buffer[..len], client);
                    // A lost answer is the client's to report.
                    let _sent = answer.map(|answer| socket.send_to(&answer, client));
                }
                // An earlier answer came back as an ICMP error.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }

    fn answer(&self, question: &[u8], client: SocketAddr) -> Option<Vec<u8>> {
        let question: Question = serde_json::from_slice(question).ok()?;
        let via = self.via.as_ref().map(|call| Socket::open(call).and_then(|mut socket| socket.ask()));
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let greeting = Greeting { nonce: question.nonce, server: self.name.clone(), client, via };
        serde_json::to_vec(&greeting).ok()
    }
}
