//! Listening to the programs: they write events only until a deadline that the listener moves on.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, Map, MapData, RingBuf};
use nix::time::{ClockId, clock_gettime};
use portolan_abi::{Event, MapName, Monitor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Pins;
use super::bpf::typed;

/// How long the programs go on after the last renewal.
const LEASE: Duration = Duration::from_secs(3);
/// When to renew: twice may be missed.
pub const RENEW: Duration = Duration::from_secs(1);
/// How many events are read at a time, so that nothing else waits for long.
const BATCH: usize = 1024;

/// The one who listens. Dropping it makes the programs silent.
pub struct Listener {
    monitor: Array<MapData, Monitor>,
    lost: Array<MapData, u64>,
    ring: AsyncFd<RingBuf<MapData>>,
    pin: PathBuf,
    wanted: Monitor,
    lost_before: u64,
}

impl Listener {
    /// Begins to listen: to all drops and refusals, and to one in `sample` of what is translated (0: none).
    ///
    /// # Errors
    /// Somebody else listens; nothing is pinned; not within a runtime.
    pub fn begin(pins: &Pins, sample: u32) -> Result<Self> {
        let dir = pins.maps();
        let ring: RingBuf<MapData> = typed(&dir, MapName::Events, Map::RingBuf)?;
        // SAFETY: the ring keeps its descriptor, always the same, as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let lost: Array<MapData, u64> = typed(&dir, MapName::LostEvents, Map::Array)?;
        // Distinct enough: of two on this machine the processes differ.
        let listener = (monotonic()? << 22) | u64::from(std::process::id());
        let mut listener = Self {
            monitor: typed(&dir, MapName::Monitor, Map::Array)?,
            lost_before: lost.get(&0, 0).context("reading LOST_EVENTS")?,
            lost,
            ring: ring.map_err(io::Error::from).context("waiting for EVENTS")?,
            pin: dir.join(MapName::Monitor.as_str()),
            wanted: Monitor { until: 0, listener, sample, pad: 0 },
        };
        listener.refuse_another()?;
        // What nobody has read, because a listener was killed, is old.
        while listener.ring.get_mut().next().is_some() {}
        listener.write()?;
        listener.refuse_another()?;
        Ok(listener)
    }

    /// Goes on for some time more.
    ///
    /// # Errors
    /// Another one has begun at the same moment, and is the one; or Portolan is gone.
    pub fn renew(&mut self) -> Result<()> {
        if !self.pin.exists() {
            bail!("Portolan was removed from this node");
        }
        self.refuse_another()?;
        self.write()
    }

    /// How many events were lost since this was last asked: more came than were read.
    pub fn lost(&mut self) -> Result<u64> {
        let lost = self.lost.get(&0, 0).context("reading LOST_EVENTS")?;
        Ok(lost.wrapping_sub(std::mem::replace(&mut self.lost_before, lost)))
    }

    /// Waits until there are events, and hands over some of them until `each` breaks.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn read(&mut self, mut each: impl FnMut(&Event) -> ControlFlow<()>) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        for _ in 0..BATCH {
            let Some(record) = ready.get_inner_mut().next() else {
                ready.clear_ready();
                return Ok(());
            };
            if let Some(event) = event(&record)
                && each(&event).is_break()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    fn refuse_another(&self) -> Result<()> {
        let found = self.monitor.get(&0, 0).context("reading MONITOR")?;
        let left = found.until.saturating_sub(monotonic()?);
        if left > 0 && found.listener != self.wanted.listener {
            bail!(
                "another `portolan monitor` listens on this node, and one at a time can; if that was killed, try again \
                 in {} s",
                left.div_ceil(1_000_000_000)
            );
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let until = monotonic()? + LEASE.as_secs() * 1_000_000_000;
        self.monitor.set(0, Monitor { until, ..self.wanted }, 0).context("writing MONITOR")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Should it fail, the programs become silent by themselves.
        let ours = self.monitor.get(&0, 0).is_ok_and(|found| found.listener == self.wanted.listener);
        let _ = ours.then(|| self.monitor.set(0, Monitor::default(), 0));
    }
}

/// The event of a record; `None`: it is of another length, which programs of this layout do not write.
fn event(record: &[u8]) -> Option<Event> {
    // SAFETY: there are as many bytes as an event has, and any bits are one.
    (record.len() == size_of::<Event>()).then(|| unsafe { record.as_ptr().cast::<Event>().read_unaligned() })
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
fn monotonic() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}
