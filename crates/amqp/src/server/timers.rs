//! When to look at which queue again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::server::queue::Queue;

/// One deadline; ordered by time.
struct Alarm {
    at: i64,
    queue: Weak<Queue>,
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// Deadlines of queues, in microseconds since the epoch. A queue arms at most one at a time that is nearer than the
/// one it had, so there are few more alarms than queues.
#[derive(Default)]
pub(super) struct Timers {
    alarms: Mutex<BinaryHeap<Reverse<Alarm>>>,
    changed: Notify,
}

impl Timers {
    pub(super) fn arm(&self, at: i64, queue: &Arc<Queue>) {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let is_next = alarms.peek().is_none_or(|Reverse(next)| at < next.at);
        alarms.push(Reverse(Alarm { at, queue: Arc::downgrade(queue) }));
        drop(alarms);
        if is_next {
            self.changed.notify_one();
        }
    }

    /// Takes the queues whose time has come, and tells when the next is due.
    fn due(&self, now: i64) -> (Vec<Arc<Queue>>, Option<i64>) {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        while let Some(Reverse(next)) = alarms.peek() {
            if next.at > now {
                return (due, Some(next.at));
            }
            let alarm = alarms.pop();
            due.extend(alarm.and_then(|Reverse(alarm)| alarm.queue.upgrade()));
        }
        (due, None)
    }

    /// Waits until queues are due.
    pub(super) async fn wait(&self, now: impl Fn() -> i64) -> Vec<Arc<Queue>> {
        loop {
            let changed = self.changed.notified();
            let (due, next) = self.due(now());
            if !due.is_empty() {
                return due;
            }
            match next {
                None => changed.await,
                Some(at) => {
                    let micros = u64::try_from(at - now()).unwrap_or(0);
                    // The clock may be set meanwhile, so it is asked again every minute.
                    let pause = Duration::from_micros(micros + 500).min(Duration::from_mins(1));
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }
}
