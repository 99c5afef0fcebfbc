//! Topics of the event log that nodes write: changelogs of filesystems, and what happens to pools.

use std::sync::Arc;
use std::time::Duration;

use kiln_fs::core::changelog::Entry;
use kiln_fs::wire::pool::Event;
use kiln_kafka::{AdminError, Broker, NewTopic, TopicConfig};
use kiln_log::batch::Record;
use kiln_world::Clock;
use serde::Serialize;

use super::topics::batches;
use crate::fs::changelog::line::Line;
use crate::fs::changelog::topic;

/// The topic of what happens to pools.
const POOLS: &str = "kiln.pool";
/// Records stay for so long when nobody sets the topic's `retention.ms`.
const RETENTION: Duration = Duration::from_hours(7 * 24);
/// Records are in order across the whole filesystem.
const PARTITION: i32 = 0;
/// A disk that takes longer has not kept the records.
const DURABLE_WITHIN: Duration = Duration::from_secs(10);

/// The changelogs of all filesystems, and the topic of pools.
#[derive(Clone)]
pub(crate) struct Changelogs {
    broker: Broker,
    clock: Arc<dyn Clock>,
    /// What happens is recorded.
    wanted: bool,
}

impl Changelogs {
    /// Topics of `broker`; each is made with its filesystem if changelogs are `wanted`, or when that first has something to say.
    pub(crate) fn new(broker: Broker, clock: Arc<dyn Clock>, wanted: bool) -> Changelogs {
        Changelogs { broker, clock, wanted }
    }

    /// A filesystem was made.
    pub(crate) async fn begin(&self, fs: &str) {
        if self.wanted
            && let Err(error) = self.provide(&topic(fs)).await
        {
            tracing::warn!(fs, %error, "the topic of the changelog is not made yet");
        }
    }

    /// Appends records in their order; they are durable when this returns.
    pub(crate) async fn append(&self, fs: &str, entries: &[Entry]) -> Result<(), String> {
        let lines: Vec<Line> = entries.iter().map(Line::of).collect();
        let records = lines.iter().map(|line| (line.target.as_bytes(), json(line)));
        self.append_to(&topic(fs), records.collect()).await
    }

    /// The same for what happened to pools, in the topic of all pools.
    pub(crate) async fn append_pool_events(&self, events: &[Event]) -> Result<(), String> {
        let records = events.iter().map(|event| (event.pool.as_bytes(), json(event)));
        self.append_to(POOLS, records.collect()).await
    }

    async fn append_to(&self, topic: &str, lines: Vec<(&[u8], Vec<u8>)>) -> Result<(), String> {
        self.provide(topic).await.map_err(|error| error.to_string())?;
        let time_ms = self.clock.now().millis();
        let records = lines.iter().map(|(key, value)| {
            let (key, value) = (Some(*key), Some(value.as_slice()));
            Record { key, value, headers: &[], time_ms }
        });
        let records: Vec<Record<'_>> = records.collect();
        let mut last = None;
        for batch in batches(&records) {
            let placed = self.broker.append_records(topic, PARTITION, batch);
            last = Some(placed.map_err(|error| error.to_string())?.last);
        }
        let Some(last) = last else { return Ok(()) };
        let durable = self.broker.durable(topic, PARTITION, last);
        match tokio::time::timeout(DURABLE_WITHIN, durable).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("the disk of the event log takes too long".to_owned()),
        }
    }

    /// Forgets the changelog of a filesystem that is no more, or one of its name that was there before.
    pub(crate) async fn remove(&self, fs: &str) {
        match self.broker.delete_topic(&topic(fs)).await {
            Ok(()) | Err(AdminError::NoTopic(_)) => {}
            Err(error) => tracing::warn!(fs, %error, "the changelog of a former filesystem stays"),
        }
    }

    async fn provide(&self, topic: &str) -> Result<(), AdminError> {
        if self.broker.partition_count(topic).is_some() {
            return Ok(());
        }
        let mut config = TopicConfig::default();
        config.set("retention.ms", Some(&RETENTION.as_millis().to_string()))?;
        let new = NewTopic { name: topic.to_owned(), partitions: Some(1), config };
        match self.broker.create_topic(new).await {
            Ok(_) | Err(AdminError::TopicExists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn json(line: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(line).expect("text and numbers can be written as JSON")
}
