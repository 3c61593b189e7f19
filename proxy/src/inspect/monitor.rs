//! `portolan monitor`: drops, refusals and what begins to be translated, as it happens. The programs tell of them while
//! somebody listens and for a few seconds longer.

use std::io::{self, Write as _};
use std::ops::ControlFlow;

use anyhow::{Context as _, Result, bail};
use clap::{Args, value_parser};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use super::{Format, Paint, Place};
use crate::app::shutdown::Signals;
use crate::dataplane::events::{Listener, RENEW};

mod filter;
mod live;
mod render;
mod seen;

use filter::Filter;
use live::Live;
use render::Lines;
use seen::Seen;

/// What `portolan monitor` is asked.
#[derive(Args, Clone, Debug, Default)]
pub struct Question {
    /// Only what concerns this Service
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub service: Option<String>,
    /// Only what this pod of the node sends or gets, by name or address
    #[arg(long, value_name = "NAMESPACE/NAME|ADDR")]
    pub pod: Option<String>,
    /// Only what is dropped or refused
    #[arg(long)]
    pub drops: bool,
    /// Of what is translated tell one in N, by chance; drops are all told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    pub sample: u32,
    /// End after so many lines
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Prints events until it is told to stop, or nobody reads them.
///
/// # Errors
/// Somebody else listens, nothing is pinned, or a name cannot be one.
pub async fn run(place: &Place, question: &Question, paint: Paint) -> Result<()> {
    let pins = place.pins()?;
    let filter = Filter::parse(question)?;
    let mut stop = Signals::new()?;
    let mut listener = Listener::begin(&pins, if question.drops { 0 } else { question.sample })?;
    let mut output = Output {
        names: Live::open(&pins)?,
        filter,
        boot: boot()?,
        lines: Lines::new(paint, place.wide()),
        json: place.output == Format::Json,
        left: question.count,
    };
    if let Some(pod) = output.unknown_pod(question) {
        say(&format!("portolan: no pod {pod} on this node yet"))?;
    }
    output.begin()?;
    let mut renewal = tokio::time::interval(RENEW);
    loop {
        let mut result = Ok(true);
        tokio::select! {
            _ = stop.received() => return Ok(()),
            _ = renewal.tick() => {
                listener.renew()?;
                result = output.lost(listener.lost()?);
            }
            read = listener.read(|event| {
                result = output.event(event);
                if matches!(result, Ok(true)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }) => read.context("waiting for events")?,
        }
        if !result? {
            return Ok(());
        }
    }
}

/// When the clock of events began: `CLOCK_MONOTONIC` stands still while a machine sleeps, which is forgiven.
fn boot() -> Result<Timestamp> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(Timestamp::now() - jiff::SignedDuration::new(now.tv_sec(), i32::try_from(now.tv_nsec())?))
}

/// What is printed, and of what.
struct Output {
    names: Live,
    filter: Filter,
    boot: Timestamp,
    lines: Lines,
    json: bool,
    left: Option<u64>,
}

impl Output {
    fn begin(&self) -> Result<bool> {
        if self.json { Ok(true) } else { print(&self.lines.header()) }
    }

    /// Prints an event if it is wanted; false when that was the last.
    fn event(&mut self, event: &portolan_abi::Event) -> Result<bool> {
        let Some(seen) = Seen::of(event, self.boot, &mut self.names) else { return Ok(true) };
        if !self.filter.wants(&seen) {
            return Ok(true);
        }
        let line = if self.json { serde_json::to_string(&seen)? + "\n" } else { self.lines.line(&seen) };
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(print(&line)? && self.left != Some(0))
    }

    /// Tells of events that were lost.
    fn lost(&self, count: u64) -> Result<bool> {
        if count == 0 {
            return Ok(true);
        }
        if self.json {
            return print(&format!("{}\n", serde_json::json!({ "event": "lost", "count": count })));
        }
        say(&format!(
            "portolan: {count} events were lost, because more came than were read; --sample makes it fewer"
        ))?;
        Ok(true)
    }

    fn unknown_pod<'a>(&mut self, question: &'a Question) -> Option<&'a str> {
        question.pod.as_deref().filter(|pod| pod.contains('/') && !self.names.has_pod(pod))
    }
}

/// Prints at once; false when nobody reads any more (`| head`).
fn print(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => bail!(error),
        Ok(()) => Ok(true),
    }
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(io::stderr(), "{text}")?)
}

#[cfg(test)]
mod tests;
