//! The test's end of an agent.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::place::Place;
use crate::site::binary;
use crate::wire::{Answer, Call, Command, Failure, Load, Proto, Reply, Request, Response, Tally};

/// How long a command may take: more than any call, less than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process in a place that serves and asks as it is told. It ends when this is dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    stdin: Mutex<Option<ChildStdin>>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    replies: HashMap<u64, Sender<Result<Reply, Failure>>>,
}

/// A socket of an agent that stays open. Dropping it closes it.
#[derive(Debug)]
pub struct Kept<'a> {
    agent: &'a Agent,
    number: u64,
}

/// Questions that an agent asks until [`Asking::stop`].
#[derive(Debug)]
#[must_use = "a load that nobody stops tells nobody what became of it"]
pub struct Asking<'a> {
    agent: &'a Agent,
    number: u64,
}

impl Agent {
    /// Starts the process.
    ///
    /// # Errors
    /// When the program is not built or the place is gone.
    pub fn start(place: &Place) -> Result<Self> {
        let mut command = place.command(binary("portolan-traffic")?)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("Failed to start portolan-traffic")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("portolan-traffic has no output")?;
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let reader = Arc::clone(&waiting);
        std::thread::spawn(move || deliver(stdout, &reader));
        Ok(Self { child, stdin: Mutex::new(stdin), waiting })
    }

    /// Answers on an address from now on, as `name`. `[::]` takes IPv4 as well.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn serve(&self, name: &str, proto: Proto, bind: SocketAddr) -> Result<(), Failure> {
        self.run(Command::Serve { name: name.to_owned(), proto, bind, via: None }).map(drop)
    }

    /// The same for a server that asks the next tier before it answers.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn serve_via(&self, name: &str, proto: Proto, bind: SocketAddr, via: Call) -> Result<(), Failure> {
        self.run(Command::Serve { name: name.to_owned(), proto, bind, via: Some(via) }).map(drop)
    }

    /// Asks once, from a new socket.
    ///
    /// # Errors
    /// What became of it when there is no answer.
    pub fn ask(&self, call: Call) -> Result<Answer, Failure> {
        self.run(Command::Ask(call)).and_then(answer)
    }

    /// Asks this many times, each from a new socket.
    ///
    /// # Errors
    /// Only when the agent is gone: failed calls are counted.
    pub fn burst(&self, call: Call, times: u32) -> Result<Tally, Failure> {
        self.run(Command::Burst(call, times)).and_then(tally)
    }

    /// Opens a socket and keeps it.
    ///
    /// # Errors
    /// When connect(2) fails.
    pub fn open(&self, call: Call) -> Result<Kept<'_>, Failure> {
        self.run(Command::Open(call)).and_then(number).map(|number| Kept { agent: self, number })
    }

    /// Asks continually from one socket, with a pause between two questions.
    ///
    /// # Errors
    /// When connect(2) fails.
    pub fn keep_asking(&self, call: Call, pause_us: u64) -> Result<Asking<'_>, Failure> {
        self.start_load(Load { call, fresh: false, pause_us })
    }

    /// Asks continually, each time from a new socket, with a pause between two questions.
    ///
    /// # Errors
    /// Only when the agent is gone.
    pub fn keep_asking_anew(&self, call: Call, pause_us: u64) -> Result<Asking<'_>, Failure> {
        self.start_load(Load { call, fresh: true, pause_us })
    }

    /// `GET path`: the status and the body.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn http_get(&self, addr: SocketAddr, path: &str) -> Result<(u16, String), Failure> {
        let reply = self.run(Command::HttpGet(addr, path.to_owned()))?;
        if let Reply::Http(status, body) = reply { Ok((status, body)) } else { Err(mismatch(&reply)) }
    }

    fn start_load(&self, load: Load) -> Result<Asking<'_>, Failure> {
        self.run(Command::StartLoad(load)).and_then(number).map(|number| Asking { agent: self, number })
    }

    fn run(&self, command: Command) -> Result<Reply, Failure> {
        let reply = self.send(command).map_err(|e| broken(&format!("{e:#}")))?;
        match reply.recv_timeout(PATIENCE) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(broken("the agent is gone")),
            Err(RecvTimeoutError::Timeout) => Err(broken("the agent does not reply")),
        }
    }

    fn send(&self, command: Command) -> Result<Receiver<Result<Reply, Failure>>> {
        let (sender, receiver) = channel();
        let id = {
            let mut waiting = lock(&self.waiting);
            waiting.next += 1;
            let id = waiting.next;
            waiting.replies.insert(id, sender);
            id
        };
        let mut line = serde_json::to_vec(&Request { id, command }).context("Failed to write a command")?;
        line.push(b'\n');
        let mut stdin = lock(&self.stdin);
        stdin.as_mut().context("the agent was stopped")?.write_all(&line).context("the agent is gone")?;
        Ok(receiver)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(lock(&self.stdin).take());
        // The end of its input ends it; the kill is for one that hangs. Both fail only for a process that is gone.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Kept<'_> {
    /// Asks from this socket.
    ///
    /// # Errors
    /// What became of it when there is no answer.
    pub fn ask(&self) -> Result<Answer, Failure> {
        self.agent.run(Command::AskOn(self.number)).and_then(answer)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        // An agent that is gone has closed it.
        let _closed = self.agent.run(Command::Close(self.number));
    }
}

impl Asking<'_> {
    /// Stops, and says what became of all questions.
    ///
    /// # Errors
    /// Only when the agent is gone.
    pub fn stop(self) -> Result<Tally, Failure> {
        self.agent.run(Command::StopLoad(self.number)).and_then(tally)
    }
}

fn deliver(stdout: ChildStdout, waiting: &Mutex<Waiting>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let Ok(response) = serde_json::from_str::<Response>(&line) else { break };
        let sender = lock(waiting).replies.remove(&response.id);
        // Nobody waits for a reply that came too late.
        let _delivered = sender.is_some_and(|sender| sender.send(response.outcome).is_ok());
    }
    // Whoever still waits learns that nothing will come.
    lock(waiting).replies.clear();
}

fn answer(reply: Reply) -> Result<Answer, Failure> {
    if let Reply::Answer(answer) = reply { Ok(answer) } else { Err(mismatch(&reply)) }
}

fn tally(reply: Reply) -> Result<Tally, Failure> {
    if let Reply::Tally(tally) = reply { Ok(tally) } else { Err(mismatch(&reply)) }
}

fn number(reply: Reply) -> Result<u64, Failure> {
    if let Reply::Number(number) = reply { Ok(number) } else { Err(mismatch(&reply)) }
}

fn mismatch(reply: &Reply) -> Failure {
    broken(&format!("unexpected reply {reply:?}"))
}

fn broken(what: &str) -> Failure {
    Failure { stage: "agent".to_owned(), errno: what.to_owned(), us: 0 }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
