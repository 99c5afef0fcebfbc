//! The other services in memory, for tests.

use crate::core::{Records, TaskRun};
use crate::ports::{
    Delivery, DeliveryTag, Exchanges, Fetched, Jobs, Outcome, Pending, PortError, Publish, Published,
    TaskQueue, TopicRecord, Topics,
};
use crate::recorder::FlowMachine;
use kiln_log::Volume;
use kiln_store::{Handle, Store};
use kiln_types::{JobId, Offset, Timestamp};
use kiln_world::{RealClock, SimDisk};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// A store with the flow service's tables, on a disk that crashes when told to.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) disk: Arc<SimDisk>,
}

impl TestStore {
    pub(crate) fn open(disk: Arc<SimDisk>) -> TestStore {
        let volume = Volume::start(disk.clone(), Arc::new(RealClock::new()));
        let store = Store::builder(volume, "store").machine(FlowMachine).open().unwrap();
        TestStore { store, disk }
    }

    pub(crate) fn new() -> TestStore {
        TestStore::open(Arc::new(SimDisk::new(1)))
    }

    pub(crate) fn handle(&self) -> Handle<FlowMachine> {
        self.store.handle()
    }
}

/// All three services. Each call fails as long as `failures` lasts.
#[derive(Default)]
pub(crate) struct World {
    topics: Mutex<BTreeMap<String, Vec<TopicRecord>>>,
    /// Routing keys that have a queue, and their messages.
    queues: Mutex<BTreeMap<String, VecDeque<Delivery>>>,
    unsettled: Mutex<BTreeMap<u64, (String, Delivery)>>,
    pub(crate) jobs: Mutex<Vec<TaskRun>>,
    /// Outcomes of the first jobs; later ones end with status 0.
    pub(crate) outcomes: Mutex<VecDeque<Outcome>>,
    failures: Mutex<u32>,
    tags: Mutex<u64>,
    changed: Notify,
}

impl World {
    pub(crate) fn fail(&self, times: u32) {
        *self.failures.lock().unwrap() = times;
    }

    pub(crate) fn bind(&self, routing_key: &str) {
        self.queues.lock().unwrap().entry(routing_key.to_owned()).or_default();
    }

    pub(crate) fn topic(&self, name: &str) -> Vec<TopicRecord> {
        self.topics.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queues.lock().unwrap().values().map(VecDeque::len).sum::<usize>()
            + self.unsettled.lock().unwrap().len()
    }

    /// Waits until the topic has `count` records.
    pub(crate) async fn until(&self, topic: &str, count: usize) {
        self.until_true(|| self.topic(topic).len() >= count).await;
    }

    pub(crate) async fn until_true(&self, condition: impl Fn() -> bool) {
        let waited = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waited).await.expect("it comes about within a minute");
    }

    fn failing(&self) -> Result<(), PortError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures == 0 {
            return Ok(());
        }
        *failures -= 1;
        Err(PortError::Unavailable("told to fail".to_owned()))
    }
}

impl World {
    /// The services as flows see them; relative files land in `files`.
    pub(crate) fn ports(self: &Arc<World>, files: &std::path::Path) -> crate::Ports {
        crate::Ports {
            topics: self.clone(),
            exchanges: self.clone(),
            jobs: self.clone(),
            clock: Arc::new(RealClock::new()),
            files: files.to_owned(),
        }
    }
}

/// The chain of `kiln demo`, with agents' events in `task-events`.
pub(crate) fn demo_chain() -> crate::Chain {
    use crate::core::{ArgumentDefinition, ArgumentKind, Definition, Extract, Sink, Source, TaskDefinition};
    let flow = |name: &str, from: Source, filter: Option<&str>, to: Sink| Definition {
        name: name.to_owned(),
        from,
        filter: filter.map(ToOwned::to_owned),
        extract: None,
        to,
        dead_letter: None,
    };
    let topic = |topic: &str, key: Option<&str>| Sink {
        topic: Some(topic.to_owned()),
        key: key.map(ToOwned::to_owned),
        ..Sink::default()
    };
    let queue = Sink {
        exchange: Some("kiln.tasks".to_owned()),
        routing_key: Some("{node}".to_owned()),
        ..Sink::default()
    };
    let mut tasks = flow(
        "tasks",
        Source::Syslog,
        Some(r#"appname == "taskd" && severity <= 6 && message.matches("^TASK ")"#),
        topic("tasks", Some("{id}")),
    );
    let regex = r"^TASK (?<id>\S+) (?<task>\S+)(?: (?<args>.*))?$";
    tasks.extract = Some(Extract { regex: Some(regex.to_owned()), sd: None });
    let route = flow("route", Source::Topic("tasks".to_owned()), None, queue);
    let events =
        flow("events", Source::Syslog, Some(r#"appname == "kiln-agent""#), topic("task-events", None));
    let path = ArgumentDefinition { kind: ArgumentKind::Path, ..ArgumentDefinition::default() };
    let checksum = TaskDefinition {
        name: "checksum".to_owned(),
        command: vec!["sha256sum".to_owned(), "{path}".to_owned()],
        arguments: [("path".to_owned(), path)].into(),
        node: "any".to_owned(),
        time_limit: None,
    };
    crate::Chain::check(&[tasks, route, events], &[checksum]).unwrap_or_else(|found| panic!("{}", found[0]))
}

impl Topics for World {
    fn append<'a>(&'a self, topic: &'a str, records: &'a Records) -> Pending<'a, Result<(), PortError>> {
        Box::pin(async move {
            self.failing()?;
            if topic == "refused" {
                return Err(PortError::Refused("no such topic may be".to_owned()));
            }
            let mut topics = self.topics.lock().unwrap();
            let log = topics.entry(topic.to_owned()).or_default();
            for record in records.iter() {
                log.push(TopicRecord {
                    offset: Offset(log.len() as i64),
                    time: record.time,
                    key: record.key.map(<[u8]>::to_vec),
                    value: Some(record.value.to_vec()),
                    headers: record
                        .headers
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), value.clone().into_bytes()))
                        .collect(),
                });
            }
            drop(topics);
            self.changed.notify_waiters();
            Ok(())
        })
    }

    fn partitions<'a>(&'a self, _: &'a str) -> Pending<'a, Result<u32, PortError>> {
        Box::pin(async { self.failing().map(|()| 1) })
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        _: u32,
        from: Offset,
        _: usize,
        _: Duration,
    ) -> Pending<'a, Result<Fetched, PortError>> {
        Box::pin(async move {
            self.failing()?;
            loop {
                let changed = self.changed.notified();
                let records: Vec<_> = self.topic(topic).into_iter().skip(from.0 as usize).take(100).collect();
                if !records.is_empty() {
                    let next = Offset(from.0 + records.len() as i64);
                    return Ok(Fetched { records, next });
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        })
    }
}

impl Exchanges for World {
    fn publish<'a>(
        &'a self,
        _: &'a str,
        messages: &'a [Publish<'a>],
    ) -> Pending<'a, Result<Vec<Published>, PortError>> {
        Box::pin(async move {
            self.failing()?;
            let mut queues = self.queues.lock().unwrap();
            let published = messages.iter().map(|message| {
                let Some(queue) = queues.get_mut(message.routing_key) else { return Published::Unroutable };
                let mut tags = self.tags.lock().unwrap();
                *tags += 1;
                let queued = message
                    .headers
                    .iter()
                    .find(|(name, _)| *name == crate::QUEUED_HEADER)
                    .map(|(_, value)| value.clone());
                queue.push_back(Delivery { tag: DeliveryTag(*tags), body: message.body.to_vec(), queued });
                Published::Routed
            });
            let published = published.collect();
            drop(queues);
            self.changed.notify_waiters();
            Ok(published)
        })
    }
}

impl Jobs for World {
    fn submit<'a>(&'a self, run: &'a TaskRun) -> Pending<'a, Result<JobId, PortError>> {
        Box::pin(async move {
            self.failing()?;
            let mut jobs = self.jobs.lock().unwrap();
            jobs.push(run.clone());
            Ok(JobId::new(jobs.len() as u64))
        })
    }

    fn started(&self, _: JobId) -> Pending<'_, Result<Option<Timestamp>, PortError>> {
        Box::pin(async { self.failing().map(|()| Some(Timestamp(1_795_341_600_000_000))) })
    }

    fn ended(&self, _: JobId) -> Pending<'_, Result<Outcome, PortError>> {
        Box::pin(async {
            self.failing()?;
            let ended = Outcome::Ended { status: 0, at: Timestamp(1_795_341_600_500_000) };
            Ok(self.outcomes.lock().unwrap().pop_front().unwrap_or(ended))
        })
    }
}

impl TaskQueue for World {
    fn next(&self) -> Pending<'_, Result<Delivery, PortError>> {
        Box::pin(async {
            self.failing()?;
            loop {
                let changed = self.changed.notified();
                for (name, queue) in self.queues.lock().unwrap().iter_mut() {
                    if let Some(delivery) = queue.pop_front() {
                        self.unsettled
                            .lock()
                            .unwrap()
                            .insert(delivery.tag.0, (name.clone(), delivery.clone()));
                        return Ok(delivery);
                    }
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        })
    }

    fn ack(&self, tag: DeliveryTag) -> Pending<'_, Result<(), PortError>> {
        Box::pin(async move {
            self.failing()?;
            self.unsettled
                .lock()
                .unwrap()
                .remove(&tag.0)
                .map(drop)
                .ok_or(PortError::Refused("unknown tag".to_owned()))
        })
    }

    fn requeue(&self, tag: DeliveryTag) -> Pending<'_, Result<(), PortError>> {
        Box::pin(async move {
            let (queue, delivery) =
                self.unsettled.lock().unwrap().remove(&tag.0).expect("a delivery that was given");
            self.queues.lock().unwrap().entry(queue).or_default().push_front(delivery);
            self.changed.notify_waiters();
            Ok(())
        })
    }
}
