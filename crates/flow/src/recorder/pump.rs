//! From the topics to the tables.

use super::machine::{FlowCommand, FlowMachine, OFFSETS, Place};
use super::row::{Sighting, TEXT_BYTES_MAX};
use crate::backoff::{Backoff, Stopped};
use crate::core::{TaskEvent, TaskRequest};
use crate::ports::{Fetched, PortError, TopicRecord, Topics};
use crate::syslog::{self, Received};
use kiln_net::{Shutdown, ShutdownTrigger, shutdown_pair};
use kiln_store::{Handle, SubmitError};
use kiln_types::Offset;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;

/// The reader's name in the table of offsets. A flow cannot have it.
const READER: &str = "#recorder";
/// Records of one command: each is at most a few texts of 2 KiB, so that the whole stays below the largest command.
const COMMAND_RECORDS_MAX: usize = 100;
const _: () = assert!(COMMAND_RECORDS_MAX * 4 * TEXT_BYTES_MAX < kiln_store::COMMAND_BYTES_MAX);
const READ_BYTES: usize = 256 * 1024;
const READ_WAIT: Duration = Duration::from_secs(5);

/// Where tasks and their events are.
#[derive(Clone, Debug)]
pub struct RecorderTopics {
    /// Requests, as a flow with the value `task` writes them.
    pub tasks: String,
    /// Lines of agents, as they came.
    pub events: String,
}

impl Default for RecorderTopics {
    fn default() -> RecorderTopics {
        RecorderTopics { tasks: "tasks".to_owned(), events: "task-events".to_owned() }
    }
}

/// The running recorder.
pub struct Recorder {
    trigger: ShutdownTrigger,
    pumps: JoinSet<Result<(), Stopped>>,
    ignored: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
enum Kind {
    Requests,
    Events,
}

impl Recorder {
    /// Starts reading where it ended the last time. Reads the partitions that the topics have now.
    pub fn start(topics: &Arc<dyn Topics>, handle: &Handle<FlowMachine>, from: RecorderTopics) -> Recorder {
        let (trigger, stop) = shutdown_pair();
        let ignored = Arc::new(AtomicU64::new(0));
        let mut pumps = JoinSet::new();
        for (topic, kind) in [(from.tasks, Kind::Requests), (from.events, Kind::Events)] {
            let pump = Pump {
                topics: topics.clone(),
                handle: handle.clone(),
                topic,
                kind,
                ignored: ignored.clone(),
            };
            pumps.spawn(pump.run(stop.clone()));
        }
        Recorder { trigger, pumps, ignored }
    }

    /// Records that were neither a request nor an agent's event.
    pub fn ignored(&self) -> u64 {
        self.ignored.load(Relaxed)
    }

    /// Stops; what is not recorded yet is read again the next time.
    pub async fn drain(mut self, deadline: Duration) {
        self.trigger.fire();
        let all = async { while self.pumps.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_err() {
            self.pumps.shutdown().await;
        }
    }
}

#[derive(Clone)]
struct Pump {
    topics: Arc<dyn Topics>,
    handle: Handle<FlowMachine>,
    topic: String,
    kind: Kind,
    ignored: Arc<AtomicU64>,
}

impl Pump {
    async fn run(self, mut stop: Shutdown) -> Result<(), Stopped> {
        let mut backoff = Backoff::new();
        let partitions = loop {
            match self.topics.partitions(&self.topic).await {
                Ok(partitions) => break partitions,
                Err(error) => self.complain(&error, &mut backoff, &mut stop).await?,
            }
        };
        let each = (0..partitions).map(|partition| self.clone().follow(partition, stop.clone()));
        futures_util::future::try_join_all(each).await.map(drop)
    }

    async fn follow(self, partition: u32, mut stop: Shutdown) -> Result<(), Stopped> {
        let place = Place { reader: READER.to_owned(), topic: self.topic.clone(), partition };
        let mut backoff = Backoff::new();
        let mut next: Offset = loop {
            match self.handle.read().get(OFFSETS, &place.key()) {
                Ok(found) => break found.unwrap_or_default(),
                Err(error) => self.complain(&error, &mut backoff, &mut stop).await?,
            }
        };
        loop {
            let read = self.topics.read(&self.topic, partition, next, READ_BYTES, READ_WAIT);
            let fetched = tokio::select! {
                () = stop.wait() => return Err(Stopped),
                fetched = read => fetched,
            };
            match self.record(&place, next, fetched).await {
                Ok(after) => {
                    next = after;
                    backoff.reset();
                }
                Err(error) => self.complain(&error, &mut backoff, &mut stop).await?,
            }
        }
    }

    /// Records what was read at `from`; says where to go on.
    async fn record(
        &self,
        place: &Place,
        from: Offset,
        fetched: Result<Fetched, PortError>,
    ) -> Result<Offset, String> {
        let Fetched { records, next: end } = fetched.map_err(|error| error.to_string())?;
        let mut from = from;
        let mut chunks = records.chunks(COMMAND_RECORDS_MAX).peekable();
        while from != end {
            let chunk = chunks.next().unwrap_or_default();
            // The last one takes in what lies behind its records: offsets without a record.
            let next =
                chunk.last().filter(|_| chunks.peek().is_some()).map_or(end, |last| last.offset.next());
            let sightings: Vec<Sighting> = chunk.iter().filter_map(|record| self.sighting(record)).collect();
            let ignored = (chunk.len() - sightings.len()) as u64;
            let command = FlowCommand::Record { place: place.clone(), from, next, sightings };
            match self.handle.submit(command).await {
                Ok(()) => self.ignored.fetch_add(ignored, Relaxed),
                Err(SubmitError::Rejected(elsewhere)) => return Ok(elsewhere.expected),
                Err(error) => return Err(error.to_string()),
            };
            from = next;
        }
        Ok(end)
    }

    fn sighting(&self, record: &TopicRecord) -> Option<Sighting> {
        let value = record.value.as_deref()?;
        match self.kind {
            Kind::Requests => {
                let request = serde_json::from_slice::<TaskRequest>(value).ok()?;
                Some(Sighting::of_request(request, record.time))
            }
            Kind::Events => {
                let line = std::str::from_utf8(value).ok()?;
                let message = syslog::parse(line, Received::at(record.time));
                TaskEvent::from_message(&message).map(Sighting::of_event)
            }
        }
    }

    async fn complain(
        &self,
        error: &(dyn std::fmt::Display + Sync),
        backoff: &mut Backoff,
        stop: &mut Shutdown,
    ) -> Result<(), Stopped> {
        tracing::warn!(topic = self.topic, %error, "recording is held up; trying again");
        backoff.wait(stop).await
    }
}
