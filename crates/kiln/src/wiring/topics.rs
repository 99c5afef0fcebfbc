//! Flow's topics are the event log's.

use std::sync::Arc;
use std::time::Duration;

use kiln_flow::core::{RecordRef, Records};
use kiln_flow::ports::{Fetched, Pending, PortError, TopicRecord, Topics};
use kiln_kafka::{AdminError, AppendError, Broker, NewTopic, ProduceError, ReadError};
use kiln_log::batch::{self, Record};
use kiln_types::{Offset, Timestamp};
use kiln_world::Clock;

/// Keys and values of one batch, in bytes; a single larger record is a batch of its own.
const BATCH_BYTES: usize = 256 << 10;

/// The event log as flows see it.
pub(crate) struct KafkaTopics {
    broker: Broker,
    clock: Arc<dyn Clock>,
}

impl KafkaTopics {
    /// Topics of `broker`, which are created when a flow first needs them.
    pub(crate) fn new(broker: Broker, clock: Arc<dyn Clock>) -> Self {
        Self { broker, clock }
    }

    async fn partition_count(&self, topic: &str) -> Result<u32, PortError> {
        if let Some(count) = self.broker.partition_count(topic) {
            return Ok(count);
        }
        let new = NewTopic { name: topic.to_owned(), ..NewTopic::default() };
        match self.broker.create_topic(new).await {
            Ok(_) | Err(AdminError::TopicExists(_)) => Ok(self.broker.partition_count(topic).unwrap_or(1)),
            Err(error @ AdminError::Bad(_)) => Err(PortError::Refused(error.to_string())),
            Err(error) => Err(PortError::Unavailable(error.to_string())),
        }
    }

    async fn append_all(&self, topic: &str, records: &Records) -> Result<(), PortError> {
        let count = self.partition_count(topic).await?;
        // The time of appending, not the event's own: retention and reading by time go by it, and a replayed log may be years old.
        let now = self.clock.now().millis();
        let headers: Vec<Headers<'_>> = records.iter().map(|r| headers_of(&r)).collect();
        let mut placed = Vec::new();
        for partition in 0..count {
            let here = records.iter().zip(&headers).filter(|(r, _)| partition_of(r.key, count) == partition);
            let here: Vec<Record<'_>> = here
                .map(|(r, headers)| Record { key: r.key, value: Some(r.value), headers, time_ms: now })
                .collect();
            for batch in batches(&here) {
                let partition = partition as i32;
                let at = self.broker.append_records(topic, partition, batch).map_err(|e| append_error(&e))?;
                placed.push((partition, at.last));
            }
        }
        for (partition, last) in placed {
            self.broker.durable(topic, partition, last).await.map_err(|e| append_error(&e))?;
        }
        Ok(())
    }

    async fn fetch(
        &self,
        topic: &str,
        partition: u32,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Fetched, PortError> {
        let partition = partition as i32;
        self.partition_count(topic).await?;
        let mut marks = self.broker.watch(topic, partition).map_err(|e| read_error(&e))?;
        let known = *marks.borrow_and_update();
        // What was deleted by retention is gone for flows too; they go on with what there is.
        let from = from.max(known.start);
        if known.durable <= from {
            // No record in time is no error, and neither is a broker that is going away: the next call tells.
            let _ = tokio::time::timeout(wait, marks.wait_for(|m| m.durable > from)).await;
        }
        let bytes = self.broker.read(topic, partition, from, bytes_max).await.map_err(|e| read_error(&e))?;
        Ok(decode(&bytes, from))
    }
}

type Headers<'a> = Vec<(&'a str, &'a [u8])>;

fn headers_of<'a>(record: &RecordRef<'a>) -> Headers<'a> {
    record.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
}

/// Splits records into runs of about [`BATCH_BYTES`], well below the smallest limit that a topic may have on its batches.
pub(crate) fn batches<'a, 'r>(mut records: &'a [Record<'r>]) -> impl Iterator<Item = &'a [Record<'r>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = records.iter().take_while(|r| {
            bytes += r.key.map_or(0, <[u8]>::len) + r.value.map_or(0, <[u8]>::len);
            bytes <= BATCH_BYTES
        });
        let count = count.count().max(1).min(records.len());
        let (batch, rest) = records.split_at(count);
        records = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

/// The records of whole batches, from `from` on. A batch that a client compressed cannot be read by flows and is passed over, with a warning.
pub(crate) fn decode(bytes: &[u8], from: Offset) -> Fetched {
    let mut records = Vec::new();
    let mut next = from;
    for (header, batch) in batch::batches(bytes) {
        next = next.max(header.last().next());
        for record in batch::records(batch) {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    tracing::warn!(offset = %header.base, %error, "a batch cannot be read here; its records are passed over");
                    break;
                }
            };
            if record.offset < from {
                continue;
            }
            records.push(TopicRecord {
                offset: record.offset,
                time: Timestamp::from_millis(record.time_ms),
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .clone()
                    .map(|(name, value)| (name.to_owned(), value.to_vec()))
                    .collect(),
            });
        }
    }
    Fetched { records, next }
}

/// Records of one key stay in order, so they go to one partition; FNV-1a, as any stable hash would do.
fn partition_of(key: Option<&[u8]>, count: u32) -> u32 {
    let hash = key
        .unwrap_or_default()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash % count.max(1)
}

fn append_error(error: &AppendError) -> PortError {
    match error {
        AppendError::Produce(ProduceError::TooLarge { .. }) => PortError::Refused(error.to_string()),
        _ => PortError::Unavailable(error.to_string()),
    }
}

fn read_error(error: &ReadError) -> PortError {
    PortError::Unavailable(error.to_string())
}

impl Topics for KafkaTopics {
    fn append<'a>(&'a self, topic: &'a str, records: &'a Records) -> Pending<'a, Result<(), PortError>> {
        Box::pin(self.append_all(topic, records))
    }

    fn partitions<'a>(&'a self, topic: &'a str) -> Pending<'a, Result<u32, PortError>> {
        Box::pin(self.partition_count(topic))
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        partition: u32,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Pending<'a, Result<Fetched, PortError>> {
        Box::pin(self.fetch(topic, partition, from, bytes_max, wait))
    }
}
