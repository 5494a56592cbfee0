//! A process on a slow machine: it is stopped most of the time, in turns too short for anything to call it hung.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::Process;

const RUNS: Duration = Duration::from_millis(5);

/// Slow until it is dropped.
pub struct Slowed {
    is_over: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Slowed {
    /// Lets `process` run for one part of its time in `parts`.
    pub fn begin(process: Process, parts: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let worker = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) && process.signal(Signal::STOP).is_ok() {
                sleep(RUNS * (parts - 1));
                process.signal(Signal::CONT).ok();
                sleep(RUNS);
            }
        });
        Self {
            is_over,
            worker: Some(worker),
        }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            worker.join().ok();
        }
    }
}
