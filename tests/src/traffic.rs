//! The inside of an agent: servers, clients and continual load, told what to do line by line.

mod ask;
mod load;
mod serve;

use std::collections::HashMap;
use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::wire::{Command, Failure, Reply, Request, Response, Tally};
use ask::Socket;
use load::Running;

/// Serves commands from standard input until it ends.
///
/// # Errors
/// When a line is no command.
pub fn run() -> Result<()> {
    let agent = Arc::new(State::default());
    for line in std::io::stdin().lock().lines() {
        let line = line.context("Failed to read a command")?;
        let request: Request =
            serde_json::from_str(&line).with_context(|| format!("Failed to read {line:?}"))?;
        let agent = Arc::clone(&agent);
        // A thread each: a question that waits for its answer holds up nobody.
        std::thread::spawn(move || {
            let response = Response { id: request.id, outcome: agent.execute(request.command) };
            let mut line = serde_json::to_vec(&response).expect("a response is plain data");
            line.push(b'\n');
            // Whoever does not read the reply any more is gone, and so is this process soon.
            let _gone = std::io::stdout().lock().write_all(&line);
        });
    }
    Ok(())
}

#[derive(Default)]
struct State {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    next: u64,
    sockets: HashMap<u64, Arc<Mutex<Socket>>>,
    loads: HashMap<u64, Running>,
}

impl State {
    fn execute(&self, command: Command) -> Result<Reply, Failure> {
        match command {
            Command::Serve { name, proto, bind, via } => {
                serve::start(name, proto, bind, via).map(|()| Reply::Done)
            }
            Command::Ask(call) => Socket::open(&call)?.ask().map(Reply::Answer),
            Command::Burst(call, times) => {
                let mut tally = Tally::default();
                for _ in 0..times {
                    tally.count(&Socket::open(&call).and_then(|mut socket| socket.ask()));
                }
                Ok(Reply::Tally(tally))
            }
            Command::Open(call) => {
                let socket = Arc::new(Mutex::new(Socket::open(&call)?));
                Ok(self.keep(|kept, number| kept.sockets.insert(number, socket)))
            }
            Command::AskOn(number) => {
                let socket = lock(&self.kept).sockets.get(&number).cloned();
                let socket = socket.ok_or_else(|| unknown(number))?;
                lock(&socket).ask().map(Reply::Answer)
            }
            Command::Close(number) => {
                lock(&self.kept).sockets.remove(&number).map(|_| Reply::Done).ok_or_else(|| unknown(number))
            }
            Command::StartLoad(load) => {
                let running = Running::start(load)?;
                Ok(self.keep(|kept, number| kept.loads.insert(number, running)))
            }
            Command::StopLoad(number) => {
                let running = lock(&self.kept).loads.remove(&number).ok_or_else(|| unknown(number))?;
                Ok(Reply::Tally(running.stop()))
            }
            Command::HttpGet(addr, path) => http_get(addr, &path),
        }
    }

    fn keep<T>(&self, insert: impl FnOnce(&mut Kept, u64) -> T) -> Reply {
        let mut kept = lock(&self.kept);
        kept.next += 1;
        let number = kept.next;
        insert(&mut kept, number);
        Reply::Number(number)
    }
}

fn http_get(addr: SocketAddr, path: &str) -> Result<Reply, Failure> {
    let since = Instant::now();
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&addr, limit).map_err(|e| failure("connect", since, &e))?;
    let mut answer = String::new();
    stream
        .set_read_timeout(Some(limit))
        .and_then(|()| write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n"))
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(|e| failure("receive", since, &e))?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    let (Some(status), Some(body)) = (status, body) else {
        return Err(failure("receive", since, &Errno::EBADMSG.into()));
    };
    Ok(Reply::Http(status, body))
}

fn unknown(number: u64) -> Failure {
    Failure { stage: "agent".to_owned(), errno: format!("no socket or load has the number {number}"), us: 0 }
}

/// What a failed system call comes to. Timeouts of sockets show as `EAGAIN`; people call both `ETIMEDOUT`.
fn failure(stage: &str, since: Instant, error: &std::io::Error) -> Failure {
    let errno = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => "ETIMEDOUT".to_owned(),
        Some(errno) => format!("{errno:?}"),
        None if error.kind() == std::io::ErrorKind::TimedOut => "ETIMEDOUT".to_owned(),
        None => format!("{:?}", error.kind()),
    };
    Failure { stage: stage.to_owned(), errno, us: micros(since) }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
