//! Looking for a while before sleeping.
//!
//! A thread that sleeps is woken through its processor, and where that has gone idle the wake-up costs more than what the thread
//! is woken for: some 50 us on virtual machines, twice for each call. Who waits for something that came quickly the last time
//! therefore looks again and again for a moment, and lets other threads run between two looks.

use std::cell::Cell;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long a waiting thread looks before it sleeps.
const LOOK: Duration = Duration::from_micros(400);
/// After a sleep that took no longer, looking is worth a try: the wake-ups at both ends, and of whoever else was waited for, are
/// most of it, and go when all of them look.
const SHORT: Duration = Duration::from_millis(1);
/// When letting others run has taken so long, somebody needs the processor more than we do.
const CROWDED: Duration = Duration::from_micros(250);
/// After so many looks one after the other that found nothing, or one while it was crowded,
const VAIN_MAX: u32 = 3;
/// so many waits go without looking.
const PAUSE_WAITS: u32 = 8;
/// Looks between two calls of what a thread does [when it waits](on_wait).
const LOOKS_PER_CALL: u32 = 8;

/// How a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It looks for something again and again, and is told now and then.
    Looking,
    /// It is about to sleep.
    Asleep,
}

thread_local! {
    static ON_WAIT: Cell<Option<fn(Waits)>> = const { Cell::new(None) };
}

/// What this thread does from now on when it waits, on a connection or where it says so with [`waits`]: others may depend
/// on it meanwhile.
pub fn on_wait(act: fn(Waits)) {
    ON_WAIT.set(Some(act));
}

/// This thread waits.
pub fn waits(how: Waits) {
    if let Some(act) = ON_WAIT.get() {
        act(how);
    }
}

/// What one waiting place has learnt of its waits.
#[derive(Debug, Default)]
pub struct Patience {
    /// The last wait was short.
    was_short: bool,
    /// Looks that found nothing since the last that did.
    vain: u32,
    /// Waits that sleep at once.
    pause: u32,
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
        let mut looks = 0;
        let found = self.look(|| {
            looks += 1;
            if looks % LOOKS_PER_CALL == 0 {
                waits(Waits::Looking);
            }
            look(Look::Now)
        });
        found.unwrap_or_else(|| {
            waits(Waits::Asleep);
            self.sleep(|| look(Look::Sleep))
        })
    }

    /// Looks for something, which fails with `WouldBlock` while it is not there; `None` when it is time to sleep.
    pub fn look<T>(&mut self, mut look: impl FnMut() -> io::Result<T>) -> Option<io::Result<T>> {
        let pauses = self.pause > 0;
        self.pause = self.pause.saturating_sub(1);
        if !self.was_short || pauses {
            return None;
        }
        let begun = Instant::now();
        let mut before = begun;
        loop {
            match look() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                found => {
                    self.vain = 0;
                    return Some(found);
                }
            }
            thread::yield_now();
            let now = Instant::now();
            let is_crowded = now - before > CROWDED;
            if is_crowded || now - begun > LOOK {
                self.vain += 1;
                if is_crowded || self.vain >= VAIN_MAX {
                    (self.vain, self.pause) = (0, PAUSE_WAITS);
                }
                return None;
            }
            before = now;
        }
    }

    /// Waits for something by sleeping.
    fn sleep<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let found = wait();
        self.slept(begun.elapsed());
        found
    }

    /// A wait took so long, asleep.
    pub fn slept(&mut self, time: Duration) {
        self.was_short = time < SHORT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> io::Result<u8> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[test]
    fn the_first_wait_sleeps_and_a_short_one_makes_the_next_look() {
        let mut patience = Patience::default();
        let mut looks = Vec::new();
        for _ in 0..2 {
            let found = patience.wait(|look| {
                looks.push(look);
                Ok(7)
            });
            assert_eq!(found.unwrap(), 7);
            // Whatever else this machine does: the wait was short.
            patience.was_short = true;
        }
        assert_eq!(looks, [Look::Sleep, Look::Now]);
    }

    fn patient() -> Patience {
        Patience { was_short: true, vain: 0, pause: 0 }
    }

    #[test]
    fn a_long_wait_makes_the_next_sleep_at_once() {
        let mut patience = patient();
        patience.sleep(|| thread::sleep(2 * SHORT));
        assert!(patience.look(|| Ok(7)).is_none(), "it was looked");
    }

    #[test]
    fn who_looks_in_vain_pauses() {
        let mut patience = patient();
        let looks = (0..VAIN_MAX).filter(|_| patience.look(nothing).is_some()).count();
        assert_eq!(looks, 0);
        assert!(patience.pause > 0, "it was crowded, or in vain too often");
        patience.pause = 2;
        let mut found = || patience.look(|| Ok(7)).map(Result::unwrap);
        assert_eq!([found(), found(), found()], [None, None, Some(7)]);
    }

    #[test]
    fn an_error_is_told() {
        let failed = patient().look(|| -> io::Result<u8> { Err(io::ErrorKind::ConnectionReset.into()) });
        assert_eq!(failed.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
