//! The job manager as a state machine without I/O.
//!
//! [`Manager::step`] takes one [`Input`] and the time, and returns [`Effect`]s for the caller to carry out **in order**;
//! a `Reply`, `Send` or `Lookup` may only be carried out once every `Append` before it is on disk. What is appended is
//! all that the manager knows: [`Manager::replay`] with the same records gives the same manager.
//!
//! To start: make it with [`Manager::new`], [`Manager::replay`] all records of the log, then [`Manager::resume`].
//! After each step ask [`Manager::wake_at`] and give [`Input::Tick`] by then.
//!
//! - `requests`: what clients ask.
//! - `agents`: what agents say, and what is said to them.
//! - `progress`: how a job goes on from the state that it is in.
//! - `polls`: answers that are held until there is something to say.
//! - `shorten`: old jobs are forgotten, so that the log does not grow for ever.

mod agents;
mod polls;
mod progress;
mod requests;
mod shorten;

use requests::Outcome;

use super::{
    archive::{Archive, ArchiveLimits, Inactive},
    event::{ExecEvent, JobEvent},
    graph::{Graph, NodeConfig},
    history::Lookup,
    job::Job,
    record::{Record, Source, Stamped},
};
use crate::{
    proto::{Answer, FromAgent, JobRow, JobState, Request, Stats, ToAgent},
    spec::Jobspec,
};
use kiln_types::{JobId, JobIds, Offset, Rank, Timestamp};
use polls::Polls;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What the manager has to know about its instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Every node.
    pub nodes: Vec<NodeConfig>,
    /// User who may do everything, beside root.
    pub owner: u32,
    /// What [`Request::Attributes`] answers, beside `size`; sorted by the manager.
    pub attributes: Vec<(String, String)>,
    /// How long a node may be away before its jobs are given up. Longer than `lease`.
    pub node_grace: Duration,
    /// How long an agent without a leader keeps its tasks running.
    pub lease: Duration,
    /// How long tasks get between a job's end and SIGKILL.
    pub kill_grace: Duration,
    /// How many jobs may be active.
    pub active_max: usize,
    /// How many bytes the jobspecs of active jobs may have in all.
    pub jobspec_bytes_max: usize,
    /// How much of the past is kept in memory.
    pub archive: ArchiveLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            owner: 0,
            attributes: Vec::new(),
            node_grace: Duration::from_secs(25),
            lease: Duration::from_secs(20),
            kill_grace: Duration::from_secs(5),
            active_max: 100_000,
            jobspec_bytes_max: 512 << 20,
            archive: ArchiveLimits::default(),
        }
    }
}

/// Who waits for an answer; numbers of the runner's choice, each used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(pub u64);

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A client asks.
    Request {
        /// Who waits for the answer.
        caller: Caller,
        /// The user id of its process.
        userid: u32,
        /// What.
        request: Request,
    },
    /// A client does not wait any more.
    CallerGone(Caller),
    /// An agent said something. Its first message must be a hello; later ones are for the rank named there.
    Agent {
        /// Who.
        rank: Rank,
        /// What.
        message: FromAgent,
    },
    /// The connection of an agent ended.
    AgentGone(Rank),
    /// It is [`Manager::wake_at`] or later.
    Tick,
    /// The log is too long: what it says of jobs that are over and were submitted before this record may go.
    Shorten(Offset),
}

/// Something to do outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Append this to the log; the next free offset is the one that the manager counts on.
    Append(Stamped),
    /// Answer.
    Reply {
        /// Whom.
        to: Caller,
        /// What.
        answer: Answer,
    },
    /// Read the log and answer with [`Lookup::answer`]. May be done aside, after what comes next.
    Lookup(Lookup),
    /// Tell an agent; dropped when it is not connected.
    Send {
        /// Whom.
        rank: Rank,
        /// What.
        message: ToAgent,
    },
    /// The records before this one are not needed any more.
    Trim(Offset),
}

/// Things to do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A job's time is up.
    Expire(JobId),
    /// A job's dependency on a time may be met.
    Begin(JobId),
    /// A job's tasks get SIGKILL.
    Kill(JobId),
    /// A node is given up.
    Lost(Rank),
    /// An answer was held long enough.
    Poll(Caller),
}

/// The job manager.
#[derive(Clone, Debug)]
pub struct Manager {
    config: Config,
    ids: JobIds,
    /// Offset of the next record.
    next: Offset,
    /// None before the first record.
    epoch: Option<Timestamp>,
    /// The greatest job id given out.
    newest: JobId,
    /// Where the replay began, if that was behind the first record and the [`Record::Checkpoint`] that makes up for
    /// what is missing has not come: until then there may be records of jobs that are not known.
    partial: Option<Offset>,
    graph: Graph,
    active: BTreeMap<JobId, Job>,
    /// Jobs in SCHED that are not held, highest priority first, then lowest id.
    queue: BTreeSet<(Reverse<i64>, JobId)>,
    archive: Archive,
    /// Jobs that wait for the end or start of a job; not kept on disk, found again from what they wait for.
    dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Bytes of the jobspecs of `active`.
    jobspec_bytes: usize,
    scheduling: bool,
    polls: Polls,
    timers: BTreeSet<(Timestamp, Timer)>,
    /// Jobs to look at before the step ends.
    touched: BTreeSet<JobId>,
    /// Whether queue or resources changed since the last plan.
    replan: bool,
}

impl Manager {
    /// A manager that knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            ids: JobIds::new(Timestamp::EPOCH, 0),
            next: Offset::ZERO,
            epoch: None,
            newest: JobId::default(),
            partial: None,
            graph: Graph::new(&config.nodes),
            active: BTreeMap::new(),
            queue: BTreeSet::new(),
            archive: Archive::new(config.archive),
            dependents: BTreeMap::new(),
            jobspec_bytes: 0,
            scheduling: true,
            polls: Polls::default(),
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            replan: true,
            config,
        }
    }

    /// Says that the log begins at this record and no earlier; before the first [`Manager::replay`].
    pub fn begin_at(&mut self, start: Offset) {
        self.next = start;
        self.partial = (start > Offset::ZERO).then_some(start);
    }

    /// Takes in a record of the log, without doing anything about it.
    ///
    /// # Errors
    /// With what is wrong when the record cannot be one of this manager's.
    pub fn replay(&mut self, offset: Offset, stamped: Stamped) -> Result<(), BadRecord> {
        if offset != self.next {
            return Err(BadRecord::Gap { expected: self.next, found: offset });
        }
        self.apply(stamped)
    }

    /// Ends a replay.
    ///
    /// # Errors
    /// When records are missing that no checkpoint makes up for.
    pub fn replayed(&self) -> Result<(), BadRecord> {
        self.partial.map_or(Ok(()), |start| Err(BadRecord::NoCheckpoint { start, end: self.next }))
    }

    /// Goes on after a replay: what was about to happen happens, and nodes with running jobs are waited for.
    pub fn resume(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.epoch.is_none() {
            self.append(now, Record::Instance { epoch: now }, &mut effects);
        }
        for job in self.active.values() {
            let nodes = job.allocation.iter().flat_map(|allocation| &allocation.nodes);
            for (node, _) in nodes.zip(&job.shells).filter(|(_, shell)| !shell.done) {
                self.timers.insert((now + self.config.node_grace, Timer::Lost(node.rank)));
            }
            self.touched.insert(job.id());
            self.timers.extend(job.row.expiration.map(|at| (at, Timer::Expire(job.id()))));
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Takes in what happened, and tells what to do.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Request { caller, userid, request } => {
                self.request(caller, userid, request, now, &mut effects);
            }
            Input::CallerGone(caller) => self.polls.forget(caller),
            Input::Agent { rank, message } => self.agent_says(rank, message, now, &mut effects),
            Input::AgentGone(rank) => self.agent_gone(rank, now),
            Input::Shorten(before) => self.shorten(before, now, &mut effects),
            Input::Tick => {}
        }
        self.due(now, &mut effects);
        self.settle(now, &mut effects);
        if let Some(before) = self.archive.too_old() {
            self.shorten(before, now, &mut effects);
        }
        effects
    }

    /// When the next [`Input::Tick`] is due; none when nothing is waited for.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// The offset that the next appended record gets.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// Carries out the timers that are due.
    fn due(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(&(at, timer)) = self.timers.first().filter(|&&(at, _)| at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Expire(id) => self.expire(id, now, effects),
                Timer::Begin(id) => self.touched.extend([id]),
                Timer::Kill(id) => self.kill_left(id, now, effects),
                Timer::Lost(rank) => self.give_up_node(rank, now, effects),
                Timer::Poll(caller) => self.poll_over(caller, effects),
            }
        }
    }

    /// Lets every touched job go on, and starts what can start, until nothing changes any more.
    fn settle(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut changed = BTreeSet::new();
        loop {
            while let Some(id) = self.touched.pop_first() {
                changed.insert(id);
                self.advance(id, now, effects);
            }
            if !std::mem::take(&mut self.replan) {
                break;
            }
            self.schedule(now, effects);
        }
        self.answer_polls(&changed, effects);
    }

    /// Makes a record true, now and at every replay.
    fn append(&mut self, now: Timestamp, record: Record, effects: &mut Vec<Effect>) {
        let stamped = Stamped { at: now, record };
        effects.push(Effect::Append(stamped.clone()));
        let applied = self.apply(stamped);
        debug_assert!(applied.is_ok(), "the manager made a record that it refuses: {applied:?}");
    }

    fn append_job(&mut self, now: Timestamp, id: JobId, event: JobEvent, effects: &mut Vec<Effect>) {
        self.append(now, Record::Job { id, event }, effects);
    }

    fn append_exec(
        &mut self,
        now: Timestamp,
        id: JobId,
        event: ExecEvent,
        source: Option<Source>,
        effects: &mut Vec<Effect>,
    ) {
        self.append(now, Record::Exec { id, event, source }, effects);
    }

    /// The only place where what the manager knows changes.
    fn apply(&mut self, stamped: Stamped) -> Result<(), BadRecord> {
        let offset = self.next;
        self.next = offset.next();
        match stamped.record {
            Record::Instance { epoch } => {
                self.epoch = Some(epoch);
                self.ids = JobIds::new(epoch, 0);
            }
            Record::Submitted(submitted) => {
                let spec = Jobspec::parse(&submitted.jobspec)
                    .map_err(|error| BadRecord::Jobspec(error.to_string()))?;
                let id = submitted.id;
                if let Some(key) = &submitted.key {
                    self.archive.set_key(submitted.userid, key.clone(), id);
                }
                self.ids.seen(id);
                self.newest = self.newest.max(id);
                self.jobspec_bytes += submitted.jobspec.len();
                self.active.insert(id, Job::new(stamped.at, offset, *submitted, spec));
                self.touched.insert(id);
            }
            Record::Drained { ranks, reason } => {
                self.graph.drain(&ranks, &reason, stamped.at);
            }
            Record::Undrained { ranks } => {
                self.graph.undrain(&ranks);
                self.replan = true;
            }
            Record::Scheduling { on } => {
                self.scheduling = on;
                self.replan = true;
            }
            Record::Checkpoint(checkpoint) => self.restore(*checkpoint),
            Record::Waited { id } if !self.active.contains_key(&id) => self.archive.waited(id),
            _ => self.apply_to_job(offset, stamped)?,
        }
        Ok(())
    }

    fn apply_to_job(&mut self, offset: Offset, stamped: Stamped) -> Result<(), BadRecord> {
        let id = stamped.record.job().ok_or(BadRecord::NoJob(offset))?;
        let Some(job) = self.active.get_mut(&id) else {
            return if self.partial.is_some() { Ok(()) } else { Err(BadRecord::UnknownJob { offset, id }) };
        };
        self.queue.remove(&queue_place(job));
        let event = match &stamped.record {
            Record::Job { event, .. } => Some(event.clone()),
            _ => None,
        };
        job.apply(offset, stamped);
        self.queue.extend(queued(job).then(|| queue_place(job)));
        self.touched.insert(id);
        match event {
            Some(JobEvent::Alloc(allocation)) => self.graph.take(&allocation),
            Some(JobEvent::Free) => {
                if let Some(allocation) = &job.allocation {
                    self.graph.give_back(allocation);
                }
                self.replan = true;
            }
            Some(JobEvent::Clean) => self.retire(id),
            Some(JobEvent::Priority(_) | JobEvent::Exception { .. }) => self.replan = true,
            _ => {}
        }
        Ok(())
    }

    /// Moves a job that is over to the archive.
    fn retire(&mut self, id: JobId) {
        if let Some(job) = self.active.remove(&id) {
            self.jobspec_bytes -= job.text.len();
            let ended = Inactive { row: job.row, span: job.span, waitable: job.flags.waitable };
            self.archive.insert(ended, job.key);
        }
    }

    pub(super) fn row(&self, id: JobId) -> Option<&JobRow> {
        self.active.get(&id).map(|job| &job.row).or_else(|| self.archive.get(id).map(|job| &job.row))
    }

    pub(super) fn active_rows(&self) -> impl Iterator<Item = &JobRow> {
        self.active.values().map(|job| &job.row)
    }

    pub(super) fn inactive_rows(&self) -> impl Iterator<Item = &JobRow> {
        self.archive.newest_first().map(|job| &job.row)
    }

    fn stats(&self) -> Stats {
        let mut stats = self.archive.stats();
        for job in self.active.values() {
            stats.states[job.state() as usize] += 1;
        }
        stats
    }

    /// What all records together say, for tests that compare a replay with the original.
    #[cfg(test)]
    pub(super) fn knowledge(&self) -> impl PartialEq + std::fmt::Debug {
        let jobs: BTreeMap<JobId, Job> = self
            .active
            .iter()
            .map(|(id, job)| (*id, Job { barriers: super::job::Barriers::default(), ..job.clone() }))
            .collect();
        let taken: Vec<_> =
            self.graph.rows().into_iter().map(|row| (row.rank, row.allocated, row.drained)).collect();
        (
            self.next,
            self.epoch,
            jobs,
            self.queue.clone(),
            self.archive.clone(),
            self.jobspec_bytes,
            self.scheduling,
            taken,
        )
    }
}

fn queue_place(job: &Job) -> (Reverse<i64>, JobId) {
    (Reverse(job.row.priority.unwrap_or(0)), job.id())
}

fn queued(job: &Job) -> bool {
    job.state() == JobState::Sched && job.row.priority.is_some_and(|priority| priority > 0)
}

/// Why a record cannot be one of this manager's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// Records are missing, or come twice.
    #[error("record {found} comes where {expected} is expected")]
    Gap {
        /// Expected.
        expected: Offset,
        /// Found.
        found: Offset,
    },
    /// An event of a job that was never submitted, or is over.
    #[error("record {offset} is about job {id}, which is not active")]
    UnknownJob {
        /// Where.
        offset: Offset,
        /// Whose.
        id: JobId,
    },
    /// A record of no known meaning.
    #[error("record {0} is about no job")]
    NoJob(Offset),
    /// The log does not begin with the first record, and no checkpoint says what stood before its start.
    #[error("the records before {start} are missing, and no checkpoint before {end} makes up for them")]
    NoCheckpoint {
        /// Where the log begins.
        start: Offset,
        /// Where it ends.
        end: Offset,
    },
    /// A jobspec that was accepted is refused now.
    #[error("{0}")]
    Jobspec(String),
}
