//! Waiting between attempts.

use kiln_net::Shutdown;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);

/// Doubles from 20 ms to 2 s.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

/// The work was stopped before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped before it was done")]
pub struct Stopped;

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff(FIRST)
    }

    /// Sleeps, unless it is time to stop.
    pub(crate) async fn wait(&mut self, stop: &mut Shutdown) -> Result<(), Stopped> {
        tokio::select! {
            () = stop.wait() => return Err(Stopped),
            () = tokio::time::sleep(self.0) => {}
        }
        self.0 = (self.0 * 2).min(LONGEST);
        Ok(())
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.0 = FIRST;
    }
}
