//! Waiting for something to become true. No test sleeps for a fixed time.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(30);
/// Long enough for a slow machine; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What `look` finds, once it finds something.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited {} s for this: {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK_AGAIN);
    }
}
