//! Continual questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ask::Socket;
use crate::wire::{Failure, Load, Tally};

/// A load on its thread.
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Running {
    /// Starts asking; a lasting socket is opened first.
    pub(super) fn start(load: Load) -> Result<Self, Failure> {
        let lasting = if load.fresh { None } else { Some(Socket::open(&load.call)?) };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Ok(Self { stop, thread: std::thread::spawn(move || ask_on(&load, lasting, &stopped)) })
    }

    /// Stops asking.
    pub(super) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("asking does not panic")
    }
}

/// A lasting TCP connection that breaks is not opened again: each further question counts as failed.
fn ask_on(load: &Load, mut lasting: Option<Socket>, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let outcome = match &mut lasting {
            Some(socket) => socket.ask(),
            None => Socket::open(&load.call).and_then(|mut socket| socket.ask()),
        };
        tally.count(&outcome);
        std::thread::sleep(Duration::from_micros(load.pause_us));
    }
    tally
}
