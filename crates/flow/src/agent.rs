//! The task agent of a node: takes tasks from its queues, runs each as a job here, tells what became of it, and only then settles the message.
//!
//! **Invariant:** a delivery is acknowledged after its `completed` event is safe in the receiver's log. Whatever dies in between, the broker gives the
//! message again, the job is found by its key, and the event is told again with the same job: a repeat, not a second run.

use crate::backoff::{Backoff, Stopped};
use crate::core::{Catalogue, EventKind, TaskEvent, TaskId, TaskRequest, TaskRun};
use crate::ports::{Delivery, Jobs, Outcome, PortError, TaskQueue};
use crate::sinks::relp::{RelpSender, SendError};
use crate::syslog;
use kiln_net::{Shutdown, ShutdownTrigger, shutdown_pair};
use kiln_types::{JobId, Timestamp};
use kiln_world::Clock;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What an agent needs.
#[derive(Clone)]
pub struct AgentPorts {
    /// Its queues; their prefetch is to be `cores`.
    pub queue: Arc<dyn TaskQueue>,
    /// Where jobs are submitted.
    pub jobs: Arc<dyn Jobs>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Its node's host name: its jobs run there.
    pub host: String,
    /// Tasks at one time.
    pub cores: usize,
    /// `HOST:PORT` of the syslog listener that takes its events, by RELP.
    pub events_to: String,
}

/// What an agent has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCounts {
    /// Tasks taken from the queue.
    pub taken: u64,
    /// Tasks whose completion was told.
    pub completed: u64,
    /// Tasks that cannot be run.
    pub refused: u64,
    /// Tasks given back because their job was lost.
    pub lost: u64,
}

#[derive(Default)]
struct Counters {
    taken: AtomicU64,
    completed: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

/// A running agent.
pub struct Agent {
    trigger: ShutdownTrigger,
    tasks: JoinSet<()>,
    counters: Arc<Counters>,
}

impl Agent {
    /// Starts taking tasks. Must be called within a tokio runtime.
    pub fn start(settings: AgentSettings, catalogue: Arc<Catalogue>, ports: AgentPorts) -> Agent {
        let (trigger, stop) = shutdown_pair();
        let counters = Arc::new(Counters::default());
        // Each task has at most two events on the way.
        let events = RelpSender::start(settings.events_to.clone(), settings.cores.max(1) * 2, stop.clone());
        let worker =
            Worker { host: settings.host.into(), catalogue, ports, events, counters: counters.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(take_tasks(worker, settings.cores.max(1), stop));
        Agent { trigger, tasks, counters }
    }

    /// What it has done so far.
    pub fn counts(&self) -> AgentCounts {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let counters = &self.counters;
        AgentCounts {
            taken: load(&counters.taken),
            completed: load(&counters.completed),
            refused: load(&counters.refused),
            lost: load(&counters.lost),
        }
    }

    /// Stops at once: running jobs go on without it, and their messages go to whoever takes them next.
    pub async fn drain(mut self, deadline: Duration) {
        self.trigger.fire();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

async fn take_tasks(worker: Worker, cores: usize, mut stop: Shutdown) {
    let permits = Arc::new(Semaphore::new(cores));
    let mut running = JoinSet::new();
    let mut backoff = Backoff::new();
    loop {
        // An error would mean a closed semaphore, and nothing closes it.
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        while running.try_join_next().is_some() {}
        let next = tokio::select! {
            () = stop.wait() => break,
            next = worker.ports.queue.next() => next,
        };
        match next {
            Ok(delivery) => {
                backoff.reset();
                worker.counters.taken.fetch_add(1, Relaxed);
                let (worker, stop) = (worker.clone(), stop.clone());
                running.spawn(async move {
                    // Stopped: the message stays unsettled, and the broker gives it again.
                    let _ = worker.handle(delivery, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no tasks can be taken; trying again");
                if backoff.wait(&mut stop).await.is_err() {
                    break;
                }
            }
        }
    }
    running.shutdown().await;
}

#[derive(Clone)]
struct Worker {
    host: Arc<str>,
    catalogue: Arc<Catalogue>,
    ports: AgentPorts,
    events: RelpSender,
    counters: Arc<Counters>,
}

/// A task on its way through this agent.
struct Assignment {
    id: TaskId,
    task: String,
    queued: Option<Timestamp>,
}

/// What became of a task.
enum Verdict {
    Settled,
    GiveBack,
}

impl Worker {
    async fn handle(&self, delivery: Delivery, mut stop: Shutdown) -> Result<(), Stopped> {
        let verdict = match self.catalogue.read(&delivery.body) {
            Ok((request, run)) => self.run(assignment(&request, &delivery), run, &mut stop).await?,
            Err(error) => self.refuse(&delivery, &error.to_string()).await?,
        };
        let mut backoff = Backoff::new();
        loop {
            let settled = match verdict {
                Verdict::Settled => self.ports.queue.ack(delivery.tag).await,
                Verdict::GiveBack => self.ports.queue.requeue(delivery.tag).await,
            };
            match settled {
                Ok(()) => return Ok(()),
                Err(PortError::Refused(reason)) => {
                    tracing::debug!(reason, "the delivery was settled or lost before");
                    return Ok(());
                }
                Err(PortError::Unavailable(_)) => backoff.wait(&mut stop).await?,
            }
        }
    }

    async fn run(
        &self,
        assignment: Assignment,
        run: TaskRun,
        stop: &mut Shutdown,
    ) -> Result<Verdict, Stopped> {
        let run = TaskRun { host: Some(self.host.to_string()), ..run };
        let job = match retry(stop, || self.ports.jobs.submit(&run)).await? {
            Ok(job) => job,
            Err(reason) => {
                self.counters.refused.fetch_add(1, Relaxed);
                self.tell(&assignment, self.ports.clock.now(), EventKind::Refused { reason }).await?;
                return Ok(Verdict::Settled);
            }
        };
        let started = retry(stop, || self.ports.jobs.started(job)).await?.unwrap_or(None);
        // `started` is told while the job runs, and is safe before `completed` is sent: the order in the topic is that of the events.
        let (_, ended) = tokio::join!(
            self.tell_started(&assignment, job, started),
            retry(stop, || self.ports.jobs.ended(job))
        );
        let outcome = ended?.unwrap_or_else(Outcome::Lost);
        match outcome {
            Outcome::Ended { status, at } => {
                self.tell(&assignment, at, EventKind::Completed { job, started, status }).await?;
                self.counters.completed.fetch_add(1, Relaxed);
                Ok(Verdict::Settled)
            }
            Outcome::Lost(reason) => {
                tracing::warn!(task = %assignment.id, %job, reason, "the job was lost; the task goes back into the queue");
                self.counters.lost.fetch_add(1, Relaxed);
                self.tell(&assignment, self.ports.clock.now(), EventKind::Lost { job, reason }).await?;
                Ok(Verdict::GiveBack)
            }
        }
    }

    /// A message that is no task of the catalogue. With an id it is told to the recorder, without one to the log only.
    async fn refuse(&self, delivery: &Delivery, reason: &str) -> Result<Verdict, Stopped> {
        self.counters.refused.fetch_add(1, Relaxed);
        tracing::error!(reason, "refused a message of the task queue");
        if let Ok(request) = serde_json::from_slice::<TaskRequest>(&delivery.body) {
            let assignment = assignment(&request, delivery);
            let kind = EventKind::Refused { reason: reason.to_owned() };
            self.tell(&assignment, self.ports.clock.now(), kind).await?;
        }
        Ok(Verdict::Settled)
    }

    async fn tell_started(
        &self,
        assignment: &Assignment,
        job: JobId,
        started: Option<Timestamp>,
    ) -> Result<(), Stopped> {
        match started {
            Some(at) => self.tell(assignment, at, EventKind::Started { job }).await,
            None => Ok(()),
        }
    }

    /// Returns when the event is safe.
    async fn tell(&self, assignment: &Assignment, at: Timestamp, kind: EventKind) -> Result<(), Stopped> {
        let event = TaskEvent {
            id: assignment.id.clone(),
            task: assignment.task.clone(),
            agent: self.host.to_string(),
            at,
            queued: assignment.queued,
            kind,
        };
        match self.events.send(event.to_line().into_bytes()).await {
            Ok(()) => Ok(()),
            Err(SendError::Stopped) => Err(Stopped),
            Err(SendError::Refused) => {
                tracing::error!(task = %event.id, "the syslog listener refuses an event; the task stays unsettled");
                Err(Stopped)
            }
        }
    }
}

fn assignment(request: &TaskRequest, delivery: &Delivery) -> Assignment {
    let queued = delivery.queued.as_deref().and_then(syslog::parse_time);
    Assignment { id: request.id.clone(), task: request.task.clone(), queued }
}

/// Calls again while the other side is not there; the inner error is a refusal.
async fn retry<'a, T>(
    stop: &mut Shutdown,
    mut call: impl FnMut() -> crate::ports::Pending<'a, Result<T, PortError>>,
) -> Result<Result<T, String>, Stopped> {
    let mut backoff = Backoff::new();
    loop {
        let answer = tokio::select! {
            () = stop.wait() => return Err(Stopped),
            answer = call() => answer,
        };
        match answer {
            Ok(value) => return Ok(Ok(value)),
            Err(PortError::Refused(reason)) => return Ok(Err(reason)),
            Err(PortError::Unavailable(reason)) => {
                tracing::debug!(reason, "trying again");
                backoff.wait(stop).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
