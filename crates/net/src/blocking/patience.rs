//! Looking for a while before sleeping.
//!
//! A thread that sleeps is woken through its processor, and where that has gone idle the wake-up costs more than what the thread
//! is woken for: some 50 us on virtual machines, twice for each call. Who waits for something that came quickly the last time
//! therefore looks again and again for a moment, and lets other threads run between two looks.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long a waiting thread looks before it sleeps. What a call over a local socket takes, and the next one of a program
/// that makes one after the other, is well below; what a disk takes is above.
const LOOK: Duration = Duration::from_micros(150);
/// When letting others run has taken so long, somebody needs the processor more than we do.
const CROWDED: Duration = Duration::from_micros(60);
/// So many waits then go without looking.
const CROWDED_WAITS: u32 = 64;

/// What one waiting place has learnt of its waits.
#[derive(Debug, Default)]
pub struct Patience {
    /// The last wait was shorter than [`LOOK`].
    was_short: bool,
    /// Waits that sleep at once, because the processors had other work.
    crowded: u32,
}

/// How to look for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Fail with `WouldBlock` when it is not there.
    Now,
    /// Wait for it.
    Sleep,
}

impl Patience {
    /// Waits for what `look` finds.
    pub fn wait<T>(&mut self, mut look: impl FnMut(Look) -> io::Result<T>) -> io::Result<T> {
        let found = self.look(|| look(Look::Now));
        found.unwrap_or_else(|| self.sleep(|| look(Look::Sleep)))
    }

    /// Looks for something, which fails with `WouldBlock` while it is not there; `None` when it is time to [sleep](Self::sleep).
    pub fn look<T>(&mut self, mut look: impl FnMut() -> io::Result<T>) -> Option<io::Result<T>> {
        let is_crowded = self.crowded > 0;
        self.crowded = self.crowded.saturating_sub(1);
        if !self.was_short || is_crowded {
            return None;
        }
        let begun = Instant::now();
        let mut before = begun;
        loop {
            match look() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                found => return Some(found),
            }
            thread::yield_now();
            let now = Instant::now();
            if now - before > CROWDED {
                self.crowded = CROWDED_WAITS;
                return None;
            }
            if now - begun > LOOK {
                return None;
            }
            before = now;
        }
    }

    /// Waits for something by sleeping.
    pub fn sleep<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let found = wait();
        self.was_short = begun.elapsed() < LOOK;
        found
    }
}
