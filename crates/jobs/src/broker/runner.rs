//! Carries out what the job manager decides.
//!
//! The runner takes the inputs that wait, steps the manager through them, and appends all their records as one batch.
//! Answers and messages follow in the order of the decisions, but only once every record before them is on disk: a
//! second task, the releaser, waits for that, while the runner goes on with the next inputs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_types::{Offset, Rank, Timestamp};
use kiln_world::Clock;
use tokio::sync::{mpsc, oneshot};

use super::events::{Events, EventsError};
use super::exits::Exits;
use crate::core::Lookup;
use crate::core::Stamped;
use crate::core::{Caller, Effect, Input, Manager};
use crate::proto::{Answer, Failure, FailureKind, FromAgent, Hello, ToAgent};

/// Inputs that wait for the runner.
pub(crate) const INPUTS_MAX: usize = 4096;
/// Inputs taken in one turn, whose records are one batch.
const TURN_INPUTS: usize = 512;
/// Turns that wait for the disk before the runner waits too.
const TURNS_WAITING_MAX: usize = 64;
/// Messages that wait for an agent; one that takes them more slowly than that is cut off and comes back.
const AGENT_QUEUE_MAX: usize = 16 * 1024;
/// Bytes of such messages.
const AGENT_BYTES_MAX: usize = 64 << 20;

/// What the runner is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// A client asks.
    Request { caller: Caller, userid: u32, request: crate::proto::Request, answer: oneshot::Sender<Answer> },
    /// A client does not wait any more.
    CallerGone(Caller),
    /// An agent begins a session.
    Hello { session: u64, hello: Box<Hello>, outgoing: AgentQueue },
    /// An agent says something.
    Agent { rank: Rank, session: u64, messages: Vec<FromAgent> },
    /// The connection of a session ended.
    SessionGone { rank: Rank, session: u64 },
}

/// The way to one agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentQueue {
    messages: mpsc::Sender<ToAgent>,
    bytes: Arc<tokio::sync::Semaphore>,
}

/// The other end of an [`AgentQueue`].
#[derive(Debug)]
pub(crate) struct AgentMessages {
    messages: mpsc::Receiver<ToAgent>,
    bytes: Arc<tokio::sync::Semaphore>,
}

/// A queue of messages to an agent.
pub(crate) fn agent_queue() -> (AgentQueue, AgentMessages) {
    let (send, receive) = mpsc::channel(AGENT_QUEUE_MAX);
    let bytes = Arc::new(tokio::sync::Semaphore::new(AGENT_BYTES_MAX));
    (AgentQueue { messages: send, bytes: Arc::clone(&bytes) }, AgentMessages { messages: receive, bytes })
}

impl AgentQueue {
    /// `false` when the agent does not keep up.
    fn send(&self, message: ToAgent) -> bool {
        let Ok(permits) = self.bytes.try_acquire_many(cost(&message)) else { return false };
        permits.forget();
        self.messages.try_send(message).is_ok()
    }
}

impl AgentMessages {
    pub(crate) async fn next(&mut self) -> Option<ToAgent> {
        let message = self.messages.recv().await?;
        self.bytes.add_permits(cost(&message) as usize);
        Some(message)
    }
}

/// About how many bytes a message takes.
fn cost(message: &ToAgent) -> u32 {
    let bytes = match message {
        ToAgent::Stdin { data, .. } => data.0.len(),
        ToAgent::Start(start) => start.jobspec.len() + start.r.len(),
        ToAgent::Exchanged(exchange) => {
            exchange.pairs.iter().map(|(key, value)| key.len() + value.len()).sum()
        }
        _ => 0,
    };
    (bytes + size_of::<ToAgent>()).min(AGENT_BYTES_MAX) as u32
}

/// Who waits for what.
#[derive(Default)]
struct Outlets {
    callers: HashMap<Caller, oneshot::Sender<Answer>>,
    agents: HashMap<Rank, AgentQueue>,
}

type SharedOutlets = Arc<Mutex<Outlets>>;

fn lock(outlets: &SharedOutlets) -> MutexGuard<'_, Outlets> {
    outlets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something to carry out in its turn.
enum Out {
    /// A decision of the manager.
    Effect(Effect),
    /// From here on messages for this agent go to a new session.
    Attach(Rank, AgentQueue),
    /// The agent has no session any more.
    Detach(Rank),
}

/// What to carry out once the record at `after` is on disk.
struct Release {
    after: Option<Offset>,
    outs: Vec<Out>,
}

/// Why the leader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The log takes no more records.
    #[error("the job log failed: {0}")]
    Log(#[from] EventsError),
    /// Records could not be brought to disk.
    #[error("the job log failed: {0}")]
    Flush(#[from] kiln_log::Failed),
    /// The log gave another offset than the manager counts on: somebody else writes to it.
    #[error("the job log is at offset {found} where {expected} was expected; another process writes to it")]
    Offset {
        /// The manager's.
        expected: Offset,
        /// The log's.
        found: Offset,
    },
}

/// The runner's parts.
pub(crate) struct Runner {
    manager: Manager,
    events: Events,
    clock: Arc<dyn Clock>,
    inputs: mpsc::Receiver<Told>,
    outlets: SharedOutlets,
    /// The session of each agent.
    sessions: HashMap<Rank, u64>,
    release: mpsc::Sender<Release>,
    releaser: tokio::task::JoinHandle<Result<(), Stopped>>,
    exits: Exits,
    /// Where the log should have begun when it was last too long.
    shortened: Offset,
}

impl Runner {
    /// The runner of a manager that has replayed its log.
    pub(crate) fn new(
        manager: Manager,
        events: Events,
        clock: Arc<dyn Clock>,
        inputs: mpsc::Receiver<Told>,
    ) -> Runner {
        let outlets = SharedOutlets::default();
        let (release, releases) = mpsc::channel(TURNS_WAITING_MAX);
        let releaser = tokio::spawn(release_all(events.clone(), releases, Arc::clone(&outlets)));
        Runner {
            manager,
            events,
            clock,
            inputs,
            outlets,
            sessions: HashMap::new(),
            release,
            releaser,
            exits: Exits::default(),
            shortened: Offset::ZERO,
        }
    }

    /// Runs until every sender of inputs is gone or the log fails.
    pub(crate) async fn run(mut self) -> Result<(), Stopped> {
        let now = self.clock.now();
        let resumed = self.manager.resume(now).into_iter().map(Out::Effect).collect();
        self.commit(resumed).await?;
        let mut told = Vec::with_capacity(TURN_INPUTS);
        loop {
            let wake = self.until_wake();
            tokio::select! {
                count = self.inputs.recv_many(&mut told, TURN_INPUTS) => if count == 0 { break },
                () = tokio::time::sleep(wake) => {}
                stopped = &mut self.releaser => return stopped.unwrap_or(Ok(())),
            }
            let outs = self.turn(&mut told);
            self.commit(outs).await?;
        }
        let Runner { release, releaser, .. } = self;
        drop(release);
        releaser.await.unwrap_or(Ok(()))
    }

    fn until_wake(&self) -> Duration {
        const LONGEST: Duration = Duration::from_hours(1);
        let now = self.clock.now();
        let manager = self.manager.wake_at();
        let next = [manager, self.exits.wake_at()].into_iter().flatten().min();
        next.map_or(LONGEST, |at| at.since(now).min(LONGEST))
    }

    /// Steps the manager through what was told.
    fn turn(&mut self, told: &mut Vec<Told>) -> Vec<Out> {
        let now = self.clock.now();
        let mut outs = Vec::new();
        for told in told.drain(..) {
            self.hear(told, now, &mut outs);
        }
        for input in self.exits.due(now) {
            self.step(input, now, &mut outs);
        }
        self.step(Input::Tick, now, &mut outs);
        if let Some(before) = self.events.too_long().filter(|before| *before > self.shortened) {
            self.shortened = before;
            self.step(Input::Shorten(before), now, &mut outs);
        }
        outs
    }

    fn step(&mut self, input: Input, now: Timestamp, outs: &mut Vec<Out>) {
        let decided = self.manager.step(input, now);
        self.exits.watch(&decided);
        outs.extend(decided.into_iter().map(Out::Effect));
    }

    fn hear(&mut self, told: Told, now: Timestamp, outs: &mut Vec<Out>) {
        match told {
            Told::Request { caller, userid, request, answer } => {
                lock(&self.outlets).callers.insert(caller, answer);
                self.step(Input::Request { caller, userid, request }, now, outs);
            }
            Told::CallerGone(caller) => {
                lock(&self.outlets).callers.remove(&caller);
                self.step(Input::CallerGone(caller), now, outs);
            }
            Told::Hello { session, hello, outgoing } => {
                let rank = hello.rank;
                outs.push(Out::Attach(rank, outgoing));
                if self.sessions.insert(rank, session).is_some() {
                    self.step(Input::AgentGone(rank), now, outs);
                }
                self.step(Input::Agent { rank, message: FromAgent::Hello(*hello) }, now, outs);
            }
            Told::Agent { rank, session, messages } => {
                if !self.is_current(rank, session) {
                    return;
                }
                for message in messages {
                    self.exits.hear(&message, now);
                    self.step(Input::Agent { rank, message }, now, outs);
                }
            }
            Told::SessionGone { rank, session } => {
                if self.is_current(rank, session) {
                    self.sessions.remove(&rank);
                    outs.push(Out::Detach(rank));
                    self.step(Input::AgentGone(rank), now, outs);
                }
            }
        }
    }

    fn is_current(&self, rank: Rank, session: u64) -> bool {
        self.sessions.get(&rank) == Some(&session)
    }

    /// Appends the records among what was decided and hands the rest to the releaser.
    async fn commit(&mut self, outs: Vec<Out>) -> Result<(), Stopped> {
        let (mut records, mut rest): (Vec<Stamped>, Vec<Out>) = (Vec::new(), Vec::new());
        for out in outs {
            match out {
                Out::Effect(Effect::Append(stamped)) => records.push(stamped),
                other => rest.push(other),
            }
        }
        let mut after = None;
        if !records.is_empty() {
            let expected = Offset(self.manager.next_offset().0 - records.len() as i64);
            let (found, last) = self.events.append(&records)?;
            if found != expected {
                return Err(Stopped::Offset { expected, found });
            }
            after = Some(last);
        }
        if after.is_some() || !rest.is_empty() {
            // An error here is the releaser's, and is found at the next turn.
            let _ = self.release.send(Release { after, outs: rest }).await;
        }
        Ok(())
    }
}

async fn release_all(
    events: Events,
    mut releases: mpsc::Receiver<Release>,
    outlets: SharedOutlets,
) -> Result<(), Stopped> {
    while let Some(Release { after, outs }) = releases.recv().await {
        if let Some(last) = after {
            events.durable(last).await?;
        }
        for out in outs {
            match out {
                Out::Effect(effect) => carry_out(effect, &events, &outlets),
                Out::Attach(rank, queue) => drop(lock(&outlets).agents.insert(rank, queue)),
                Out::Detach(rank) => drop(lock(&outlets).agents.remove(&rank)),
            }
        }
    }
    Ok(())
}

fn carry_out(effect: Effect, events: &Events, outlets: &SharedOutlets) {
    match effect {
        // The runner has appended them.
        Effect::Append(_) => {}
        Effect::Reply { to, answer } => reply(outlets, to, answer),
        Effect::Trim(start) => trim(start, events.clone()),
        Effect::Lookup(lookup) => look_up(lookup, events.clone(), Arc::clone(outlets)),
        Effect::Send { rank, message } => {
            let mut outlets = lock(outlets);
            if outlets.agents.get(&rank).is_some_and(|queue| !queue.send(message)) {
                tracing::warn!(%rank, "an agent does not keep up: its connection is cut");
                // Dropping the queue ends the session's stream; the agent comes back and is told what it missed.
                outlets.agents.remove(&rank);
            }
        }
    }
}

fn reply(outlets: &SharedOutlets, to: Caller, answer: Answer) {
    if let Some(caller) = lock(outlets).callers.remove(&to) {
        let _ = caller.send(answer);
    }
}

/// Removes old segments aside.
fn trim(start: Offset, events: Events) {
    tokio::task::spawn_blocking(move || match events.trim(start) {
        Ok(()) => tracing::info!(%start, "old jobs are forgotten; the job log is shorter"),
        Err(error) => tracing::warn!(%error, "the job log keeps the records of jobs that are forgotten"),
    });
}

/// Reads the log aside.
fn look_up(lookup: Lookup, events: Events, outlets: SharedOutlets) {
    tokio::task::spawn_blocking(move || {
        let answer = match events.span(lookup.id, lookup.span.first, lookup.span.last) {
            Ok(records) => lookup.answer(records),
            Err(error) => Err(Failure::new(FailureKind::Internal, error.to_string())),
        };
        reply(&outlets, lookup.to, answer);
    });
}
