//! What happens by itself: old records go, silent producers are forgotten, sessions end.

use super::{Broker, Inner, Partition, blocking};
use crate::core::topic::Retention;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

impl Broker {
    /// Starts the tasks; they hold the broker weakly, and end with it.
    pub(super) fn start_tasks(&self) {
        let weak = Arc::downgrade(&self.inner);
        let interval = self.inner.settings.retention_interval;
        let tasks = [
            tokio::spawn(load_producers(self.partitions())),
            tokio::spawn(run_timers(weak.clone())),
            tokio::spawn(retain(weak, interval)),
        ];
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
    }

    fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics().all().flat_map(|topic| topic.partitions.iter().cloned()).collect()
    }

    /// Every partition that clients write, and how much of it is kept at present.
    fn retained(&self) -> Vec<(Arc<Partition>, Retention)> {
        let topics = self.topics();
        let retained = topics.all().filter(|topic| !topic.is_mounted).flat_map(|topic| {
            let keep = topic.config.retention(&self.inner.settings.topics);
            topic.partitions.iter().map(move |partition| (partition.clone(), keep))
        });
        retained.collect()
    }
}

/// Learns from the logs which producers wrote last, so that their repeats are recognised.
async fn load_producers(partitions: Vec<Arc<Partition>>) {
    for partition in partitions.into_iter().filter(|partition| !partition.is_read_only()) {
        let dir = partition.log().dir().display().to_string();
        if let Err(error) = blocking(move || partition.load_producers()).await {
            tracing::error!(%error, dir, "cannot read the producers of a partition; it refuses idempotent producers");
        }
    }
}

async fn run_timers(weak: Weak<Inner>) {
    // The timer never ends by itself; it is aborted when the last handle of the broker goes. It must not keep the
    // broker alive until then, so it looks in once a second when there is nothing to do.
    while let Some(inner) = weak.upgrade() {
        let next = inner.groups.run_until(Duration::from_secs(1));
        next.await;
    }
}

/// Removes what is too old or too much, of every partition in turn.
async fn retain(weak: Weak<Inner>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(inner) = weak.upgrade() else { return };
        let broker = Broker { inner };
        let partitions = broker.retained();
        let now = broker.inner.volume.clock().now();
        let expired_ms = now.millis() - broker.inner.settings.producer_expiry.as_millis() as i64;
        drop(broker);
        for (partition, keep) in partitions {
            partition.expire_producers(expired_ms);
            let dir = partition.log().dir().display().to_string();
            match blocking(move || partition.retain(now, keep)).await {
                Ok(0) => {}
                Ok(segments) => tracing::info!(segments, dir, "removed old segments"),
                Err(error) => tracing::warn!(%error, dir, "cannot remove old segments"),
            }
        }
    }
}
