//! What flows ask of the other services. The binary implements these traits; `testing` has the second implementation, in memory.

use crate::core::{Records, TaskRun};
use kiln_types::{JobId, Offset, Timestamp};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A boxed future: these calls are made once per batch or per task, so that the box does not count.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not now: try again later. Whether it had an effect is not known.
    #[error("{0}")]
    Unavailable(String),
    /// Never: this input will fail again.
    #[error("{0}")]
    Refused(String),
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// Its place.
    pub offset: Offset,
    /// Its own time.
    pub time: Timestamp,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What one read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Records in the order of their offsets; none when nothing came in time.
    pub records: Vec<TopicRecord>,
    /// Where the next read begins. May lie behind the last record (gaps), and before the asked offset was reached it is the log's start.
    pub next: Offset,
}

/// The event log.
pub trait Topics: Send + Sync + 'static {
    /// Appends records in order, creating the topic if need be; `Ok` when they are on disk. Records of one key go to one partition.
    fn append<'a>(&'a self, topic: &'a str, records: &'a Records) -> Pending<'a, Result<(), PortError>>;

    /// How many partitions the topic has; it is created if need be.
    fn partitions<'a>(&'a self, topic: &'a str) -> Pending<'a, Result<u32, PortError>>;

    /// Reads durable records from `from` on, about `bytes_max` of them and at least one; waits up to `wait` for the first. An offset that is no
    /// longer there reads from the log's start.
    fn read<'a>(
        &'a self,
        topic: &'a str,
        partition: u32,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Pending<'a, Result<Fetched, PortError>>;
}

/// A message for an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Its routing key.
    pub routing_key: &'a str,
    /// Its message id: the same for a repeat.
    pub message_id: &'a str,
    /// Its headers, all of them texts.
    pub headers: &'a [(&'static str, String)],
    /// Its body.
    pub body: &'a [u8],
}

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// At least one queue has it, on disk.
    Routed,
    /// No queue is bound for its routing key.
    Unroutable,
}

/// The message broker, as a publisher sees it.
pub trait Exchanges: Send + Sync + 'static {
    /// Publishes persistent messages in order and waits for the confirms; one answer for each message.
    fn publish<'a>(
        &'a self,
        exchange: &'a str,
        messages: &'a [Publish<'a>],
    ) -> Pending<'a, Result<Vec<Published>, PortError>>;
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended by itself, by a signal (128 + its number), by its time limit or by a person.
    Ended {
        /// Exit status, as a shell would give it.
        status: i32,
        /// When.
        at: Timestamp,
    },
    /// Its node or its broker was lost: it may not have run, and may run again.
    Lost(String),
}

/// The workload manager.
pub trait Jobs: Send + Sync + 'static {
    /// Submits with the task's id as idempotency key: a second submit finds the same job, unless that one was lost.
    fn submit<'a>(&'a self, run: &'a TaskRun) -> Pending<'a, Result<JobId, PortError>>;

    /// Waits until the job has started; `None` when it ended without starting.
    fn started(&self, job: JobId) -> Pending<'_, Result<Option<Timestamp>, PortError>>;

    /// Waits until the job has ended.
    fn ended(&self, job: JobId) -> Pending<'_, Result<Outcome, PortError>>;
}

/// Names a delivery until it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryTag(pub u64);

/// A message from a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To settle it with.
    pub tag: DeliveryTag,
    /// Its body.
    pub body: Vec<u8>,
    /// The header [`crate::QUEUED_HEADER`].
    pub queued: Option<String>,
}

/// The queues of one agent: its consumers share a prefetch window.
pub trait TaskQueue: Send + Sync + 'static {
    /// The next message, waiting for one; connects again by itself. Called by one task at a time.
    fn next(&self) -> Pending<'_, Result<Delivery, PortError>>;

    /// Done with it. A tag of a lost connection is ignored: the broker gives that message again.
    fn ack(&self, tag: DeliveryTag) -> Pending<'_, Result<(), PortError>>;

    /// Back into the queue, for whoever takes it next.
    fn requeue(&self, tag: DeliveryTag) -> Pending<'_, Result<(), PortError>>;
}
