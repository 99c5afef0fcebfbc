//! `Fetch`: reads what is there, and waits if it is too little.

use super::dispatch::{Answer, Head};
use crate::broker::{Broker, LEADER_EPOCH, Partition, kibibytes, read_partition};
use crate::wire::ErrorCode;
use crate::wire::fetch::{FetchPartition, FetchRequest, Fetched, TopicRef, response};
use kiln_log::{ReadError, Watermarks};
use kiln_net::Shutdown;
use kiln_types::Offset;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

/// The longest wait that a client may ask for.
const WAIT_MAX: Duration = Duration::from_mins(5);

/// A partition that is being fetched, and where its result goes.
struct Target {
    topic: usize,
    slot: usize,
    wanted: FetchPartition,
    partition: Arc<Partition>,
}

/// One fetch on its way.
struct Fetch {
    broker: Broker,
    /// The answer as it grows: everything that is not read stays as it is.
    topics: Vec<(TopicRef, Vec<Fetched>)>,
    targets: Vec<Target>,
    bytes_min: usize,
    bytes_max: usize,
}

/// Answers a fetch, at once or when enough has come or time is up.
pub(super) async fn fetch(
    broker: Broker,
    mut shutdown: Shutdown,
    head: Head,
    request: FetchRequest,
) -> Answer {
    if request.session != 0 {
        // No session was ever made (KIP-227), so the client mistakes us for somebody else.
        return Ok((
            response(head.version, head.correlation, ErrorCode::FetchSessionIdNotFound, Vec::new()),
            None,
        ));
    }
    let wait = Duration::from_millis(u64::try_from(request.wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let mut fetch = Fetch::new(broker, request);
    let mut changes: Option<Vec<watch::Receiver<Watermarks>>> = None;
    let room = loop {
        let failed = fetch.look();
        let is_last = failed || Instant::now() >= deadline || shutdown.is_fired();
        let (bytes, room) = fetch.read().await;
        if is_last || bytes >= fetch.bytes_min {
            break room;
        }
        drop(room);
        let Some(changes) = &mut changes else {
            // Listened to from before the next look, so that nothing is missed in between.
            changes = Some(fetch.listen());
            continue;
        };
        tokio::select! {
            () = any_change(changes) => {}
            () = sleep_until(deadline) => {}
            () = shutdown.wait() => {}
        }
    };
    Ok((response(head.version, head.correlation, ErrorCode::None, fetch.topics), room))
}

impl Fetch {
    fn new(broker: Broker, request: FetchRequest) -> Self {
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut targets = Vec::new();
        for (t, topic) in request.topics.into_iter().enumerate() {
            let found = broker.topics().find(&topic.topic).cloned();
            let missing = match topic.topic {
                TopicRef::Id(_) if found.is_none() => ErrorCode::UnknownTopicId,
                TopicRef::Name(_) | TopicRef::Id(_) => ErrorCode::UnknownTopicOrPartition,
            };
            let mut results = Vec::with_capacity(topic.partitions.len());
            for (slot, wanted) in topic.partitions.into_iter().enumerate() {
                results.push(Fetched::failed(wanted.index, missing));
                if let Some(partition) = found.as_ref().and_then(|topic| topic.partition(wanted.index)) {
                    targets.push(Target { topic: t, slot, wanted, partition: partition.clone() });
                }
            }
            topics.push((topic.topic, results));
        }
        let bytes = |asked: i32| usize::try_from(asked).unwrap_or(0);
        let bytes_max = bytes(request.bytes_max).min(broker.inner.settings.fetch_bytes_max);
        Self { broker, topics, targets, bytes_min: bytes(request.bytes_min).min(bytes_max), bytes_max }
    }

    /// Notes every partition's state in the answer; whether there is an error to tell at once.
    fn look(&mut self) -> bool {
        for target in &self.targets {
            self.topics[target.topic].1[target.slot] = target.state();
        }
        self.topics.iter().flat_map(|(_, results)| results).any(|result| !result.error.is_none())
    }

    /// Reads into the answer what is there, as far as the limits go; how much, and the room that it takes.
    async fn read(&mut self) -> (usize, Option<OwnedSemaphorePermit>) {
        let ready: Vec<usize> =
            (0..self.targets.len()).filter(|n| self.is_ready(&self.targets[*n])).collect();
        let Some(room) = self.room_for(&ready).await else { return (0, None) };
        let mut total = 0;
        for n in ready {
            let target = &self.targets[n];
            let limit = usize::try_from(target.wanted.bytes_max)
                .unwrap_or(0)
                .min(self.bytes_max.saturating_sub(total));
            if total > 0 && limit == 0 {
                break;
            }
            let read = read_partition(&target.partition, Offset(target.wanted.offset), limit).await;
            let result = &mut self.topics[target.topic].1[target.slot];
            match read {
                Ok(records) => {
                    total += records.len();
                    result.records = records;
                }
                Err(error) => result.error = read_error(&error),
            }
        }
        (total, Some(room))
    }

    fn is_ready(&self, target: &Target) -> bool {
        let state = &self.topics[target.topic].1[target.slot];
        state.error.is_none() && target.wanted.offset < state.high_watermark
    }

    /// Waits for room in memory for what is going to be read; none if nothing is.
    async fn room_for(&self, ready: &[usize]) -> Option<OwnedSemaphorePermit> {
        if ready.is_empty() {
            return None;
        }
        let wanted = ready.iter().map(|n| usize::try_from(self.targets[*n].wanted.bytes_max).unwrap_or(0));
        let bytes = wanted.fold(0_usize, usize::saturating_add).min(self.bytes_max);
        let inner = &self.broker.inner;
        let permits = kibibytes(bytes).min(kibibytes(inner.settings.fetches_bytes_max));
        inner.fetch_room.clone().acquire_many_owned(permits).await.ok()
    }

    fn listen(&self) -> Vec<watch::Receiver<Watermarks>> {
        self.targets.iter().map(|target| target.partition.log().watch()).collect()
    }
}

impl Target {
    /// The partition's marks, or what is wrong with what is asked of it.
    fn state(&self) -> Fetched {
        let marks = self.partition.watermarks();
        let error = if self.wanted.leader_epoch > LEADER_EPOCH {
            ErrorCode::UnknownLeaderEpoch
        } else if self.wanted.offset < marks.start.0 || self.wanted.offset > marks.end.0 {
            ErrorCode::OffsetOutOfRange
        } else {
            ErrorCode::None
        };
        Fetched {
            index: self.wanted.index,
            error,
            high_watermark: marks.durable.0,
            start_offset: marks.start.0,
            records: Vec::new(),
        }
    }
}

fn read_error(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt { .. } => {
            tracing::error!(%error, "cannot read");
            ErrorCode::CorruptMessage
        }
        ReadError::Io { .. } => super::convert::storage_error(error),
    }
}

/// Returns when one of the partitions has moved. One that is gone never moves.
async fn any_change(changes: &mut [watch::Receiver<Watermarks>]) {
    let moved = changes.iter_mut().map(|change| {
        Box::pin(async {
            if change.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    let moved: Vec<_> = moved.collect();
    if moved.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(moved).await;
}
