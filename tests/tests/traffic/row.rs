//! Asking what a row says, and comparing what comes of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Result;
use portolan_lab::{Answer, Call, Failure, Family, Proto, tcp, udp};

use super::explain;
use super::table::{Outcome, Row, Table};
use super::world::{Client, Setting};

/// How often each is asked at least, so that somebody who must not answer is found: one of five in all but a thousandth.
const LEAST: usize = 30;
/// And at most, when somebody has not answered yet: one of three is missed once in 10^17 runs.
const MOST: usize = 100;
/// The first port of clients; there are fewer of them than ports.
const FIRST_PORT: u16 = 10_000;
/// How long to wait for an answer that must not come.
const NEVER: Duration = Duration::from_millis(400);
/// A refusal that takes longer is none.
const AT_ONCE: Duration = Duration::from_millis(250);

/// What is not as the rows of the section say, all of them asked at the same time.
pub(crate) fn check(setting: &Setting<'_>, table: &Table) -> Result<Vec<String>> {
    let questions = questions(setting, table)?;
    let wrong = std::thread::scope(|scope| {
        let ask = |question: &Question<'_>| question.ask().and_then(|()| explain::check(setting, question));
        let asked: Vec<_> = questions.iter().map(|question| scope.spawn(move || ask(question))).collect();
        let said = asked.into_iter().zip(&questions).filter_map(|(thread, question)| {
            let why = thread.join().unwrap_or_else(|_| Err("the question panicked".to_owned())).err()?;
            Some(format!("{}: {question}: {why}", table.title))
        });
        said.collect()
    });
    Ok(wrong)
}

/// A row for one client, family and protocol.
pub(crate) struct Question<'a> {
    pub(crate) row: &'a Row,
    pub(crate) client: Client<'a>,
    pub(crate) family: Family,
    pub(crate) call: Call,
    node: IpAddr,
}

fn questions<'a>(setting: &'a Setting<'_>, table: &'a Table) -> Result<Vec<Question<'a>>> {
    let mut questions = Vec::new();
    for row in &table.rows {
        for (family, node) in Family::BOTH.into_iter().zip(setting.node_ips()) {
            let at = setting.destination(&row.to, family)?;
            for proto in &row.to.protos {
                for client in setting.clients(&row.from)? {
                    questions.push(Question { row, client, family, call: call(*proto, at), node });
                }
            }
        }
    }
    Ok(questions)
}

fn call(proto: Proto, at: SocketAddr) -> Call {
    match proto {
        Proto::Tcp => tcp(at),
        Proto::Udp => udp(at).connected(),
    }
}

impl Question<'_> {
    pub(crate) fn client_ip(&self) -> IpAddr {
        self.client.ips[usize::from(self.family == Family::V6)]
    }

    fn ask(&self) -> Result<(), String> {
        match &self.row.outcome {
            Outcome::Answers(expected) => self.answers(expected),
            Outcome::Reject => self.fails(|failure| {
                let is_told = failure.errno == "ECONNREFUSED" && u128::from(failure.us) < AT_ONCE.as_micros();
                is_told.then_some(())
            }),
            Outcome::Drop => self.fails(|failure| (failure.errno != "ECONNREFUSED").then_some(())),
        }
    }

    fn answers(&self, expected: &BTreeMap<String, bool>) -> Result<(), String> {
        let mut missing = self.row.outcome.servers();
        for count in 0..MOST {
            if missing.is_empty() && count >= LEAST {
                break;
            }
            let answer = self.client.agent.ask(self.next_call()).map_err(|failure| failure.to_string())?;
            let masqueraded =
                expected.get(&answer.server).ok_or_else(|| format!("{} answers", answer.server))?;
            self.compare(&answer, *masqueraded)?;
            missing.remove(&*answer.server);
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} never answer")) }
    }

    /// Each comes from a port of its own: a client that talks to one server by two addresses from the same port at the
    /// same time is masqueraded once.
    fn next_call(&self) -> Call {
        static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
        self.call.clone().from_port(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn compare(&self, answer: &Answer, masqueraded: bool) -> Result<(), String> {
        let expected = if masqueraded { self.node } else { self.client_ip() };
        if answer.client.ip() != expected {
            return Err(format!("{} sees {}, not {expected}", answer.server, answer.client.ip()));
        }
        if (answer.peer.ip().to_canonical(), answer.peer.port()) != (self.call.dst.ip(), self.call.dst.port())
        {
            return Err(format!("the client sees the answer come from {}", answer.peer));
        }
        Ok(())
    }

    fn fails(&self, as_expected: impl Fn(&Failure) -> Option<()>) -> Result<(), String> {
        let never = u64::try_from(NEVER.as_millis()).unwrap_or(u64::MAX);
        match self.client.agent.ask(self.call.clone().within_ms(never)) {
            Ok(answer) => Err(format!("{} answers", answer.server)),
            Err(failure) => as_expected(&failure).ok_or_else(|| failure.to_string()),
        }
    }
}

impl std::fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} asks {} ({})", self.client.name, self.row.to.place, self.call)
    }
}
