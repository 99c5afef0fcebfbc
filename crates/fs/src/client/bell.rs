//! A condition variable that costs nothing while nobody waits: that of the standard library makes a system call each time it
//! is notified, and a request notifies several.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_net::blocking::{Waits, waits};

/// See the module. **Must hold:** what is waited for changes under the lock of the guard that is waited with, before
/// [`Bell::notify_all`].
#[derive(Default)]
pub(crate) struct Bell {
    changed: Condvar,
    /// Changed with the lock held: who changes something after that sees it.
    waiting: AtomicUsize,
}

impl Bell {
    /// Waits until it is rung, or for no reason.
    pub(crate) fn wait<'s, T>(&self, guard: MutexGuard<'s, T>) -> MutexGuard<'s, T> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        waits(Waits::Asleep);
        let guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        guard
    }

    /// The same, for no longer than that.
    pub(crate) fn wait_timeout<'s, T>(
        &self,
        guard: MutexGuard<'s, T>,
        at_most: Duration,
    ) -> MutexGuard<'s, T> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        waits(Waits::Asleep);
        let (guard, _) = self.changed.wait_timeout(guard, at_most).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        guard
    }

    pub(crate) fn notify_all(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn nobody_sleeps_through_a_change() {
        let (turn, bell) = (Mutex::new(0), Bell::default());
        let play = |mine: u32| {
            for _ in 0..20_000 {
                let mut now = turn.lock().unwrap();
                while *now % 2 != mine {
                    now = bell.wait(now);
                }
                *now += 1;
                drop(now);
                bell.notify_all();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| play(0));
            scope.spawn(|| play(1));
        });
        assert_eq!(*turn.lock().unwrap(), 40_000);
    }
}
