//! Requests of a client to a broker, and the answers.

use super::{Blob, OutputEvent, Stream};
use kiln_types::{IdSet, JobId, Rank, Timestamp};
use serde::{Deserialize, Serialize};

/// What a client asks. Who asks is known from the socket's peer credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Puts a job in the queue; answered by [`Reply::Submitted`] once the job is on disk.
    Submit(Box<Submit>),
    /// Lists jobs, newest first within their state; answered by [`Reply::Jobs`].
    List(Filter),
    /// The newest jobs of the caller, newest first; answered by [`Reply::Ids`].
    Last {
        /// How many at most.
        count: u32,
    },
    /// How many jobs there are in each state; answered by [`Reply::Stats`].
    Stats,
    /// A document that belongs to a job; answered by [`Reply::Document`].
    Info {
        /// Whose.
        id: JobId,
        /// Which.
        key: InfoKey,
    },
    /// Events of a job from number `from` on; answered by [`Reply::Events`], held for up to `wait_ms` while there
    /// is none and more may come.
    Events {
        /// Whose.
        id: JobId,
        /// Which of the job's two event logs.
        log: LogName,
        /// Number of the first event wanted, from 0.
        from: u64,
        /// How long the answer may be held.
        wait_ms: u32,
    },
    /// Output of a job from number `from` on; answered by [`Reply::Output`], held as for events.
    Output {
        /// Whose.
        id: JobId,
        /// Number of the first piece wanted, from 0.
        from: u64,
        /// How long the answer may be held.
        wait_ms: u32,
    },
    /// Raises an exception; severity 0 ends the job. Answered by [`Reply::Done`].
    Raise {
        /// On which job.
        id: JobId,
        /// `cancel`, `timeout`, or any word of the caller's.
        kind: String,
        /// 0 is fatal, 7 the mildest.
        severity: u8,
        /// Text for people, possibly empty.
        note: String,
    },
    /// Sends a signal to all tasks of a running job. Answered by [`Reply::Done`].
    Kill {
        /// Which job.
        id: JobId,
        /// Number of the signal.
        signal: i32,
    },
    /// Standard input for a running job's tasks. Answered by [`Reply::Done`].
    Stdin {
        /// Which job.
        id: JobId,
        /// To which tasks; none means all.
        tasks: Option<IdSet>,
        /// What they read.
        data: Blob,
        /// Whether nothing comes after it.
        eof: bool,
    },
    /// Changes the urgency of a job that does not run yet, 0 to 31. Answered by [`Reply::Urgency`], the old one.
    Urgency {
        /// Which job.
        id: JobId,
        /// 0 holds, 16 is usual, 31 goes first.
        urgency: u8,
    },
    /// Waits for a waitable job, each of which can be waited for once; answered by [`Reply::Waited`].
    Wait {
        /// Which one; none means any.
        id: Option<JobId>,
        /// How long the answer may be held.
        wait_ms: u32,
    },
    /// What nodes there are and what is used; answered by [`Reply::Nodes`].
    Resources,
    /// Takes nodes out of service for new jobs. Answered by [`Reply::Done`].
    Drain {
        /// Which nodes.
        nodes: WhichNodes,
        /// Text for people, possibly empty.
        reason: String,
    },
    /// Puts drained nodes back in service. Answered by [`Reply::Done`].
    Undrain {
        /// Which nodes.
        nodes: WhichNodes,
    },
    /// The broker's attributes (`size`, `rank`, `local-uri`, `instance-level`, ...); answered by
    /// [`Reply::Attributes`].
    Attributes,
    /// Starts or stops the scheduler. Answered by [`Reply::Done`].
    Scheduling {
        /// Whether jobs are started.
        on: bool,
    },
    /// Whether the scheduler runs; answered by [`Reply::Scheduling`].
    SchedulingStatus,
}

/// The answer to each request.
pub type Answer = Result<Reply, Failure>;

/// A job to put in the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    /// Jobspec V1 (RFC 25), at most [`super::JOBSPEC_BYTES_MAX`].
    pub jobspec: String,
    /// 0 holds the job, 16 is usual, 31 goes first.
    pub urgency: u8,
    /// What is asked beside.
    pub flags: SubmitFlags,
    /// With a key, a second submit returns the first one's job, unless that failed by the loss of its node.
    /// At most [`super::KEY_BYTES_MAX`].
    pub key: Option<String>,
}

/// Flags of a submit; the numbers of [`SubmitFlags::bits`] are Flux's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitFlags {
    /// The job may be waited for once ([`Request::Wait`]).
    pub waitable: bool,
    /// The job leaves more events behind.
    pub debug: bool,
}

impl SubmitFlags {
    const DEBUG: u32 = 2;
    const WAITABLE: u32 = 4;

    /// As the `submit` event shows them.
    #[must_use]
    pub fn bits(self) -> u32 {
        (u32::from(self.debug) * Self::DEBUG) | (u32::from(self.waitable) * Self::WAITABLE)
    }

    /// Back from [`SubmitFlags::bits`]; what is unknown is left out.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self { waitable: bits & Self::WAITABLE != 0, debug: bits & Self::DEBUG != 0 }
    }
}

/// Which jobs to list. A job must satisfy every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// These jobs; empty means all.
    pub ids: Vec<JobId>,
    /// In one of these states; empty means any.
    pub states: Vec<JobState>,
    /// Inactive with one of these results, or in one of `states`; empty means any.
    pub results: Vec<JobResult>,
    /// Of this user.
    pub userid: Option<u32>,
    /// Of this name.
    pub name: Option<String>,
    /// Active, or ended after this.
    pub since: Option<Timestamp>,
    /// At most so many rows, the newest; 0 means [`super::ROWS_MAX`].
    pub max: u32,
}

/// Documents of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InfoKey {
    /// Jobspec V1 as submitted.
    Jobspec,
    /// Resources (RFC 20); only once they are allocated.
    R,
    /// The tasks' processes as `host:pid,host:pid`, not JSON; only once all are started.
    Hostpids,
}

/// The event logs of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogName {
    /// The job's own (RFC 21).
    Main,
    /// Execution, `guest.exec.eventlog`.
    Exec,
}

/// Nodes named by rank or by host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhichNodes {
    /// By rank.
    Ranks(IdSet),
    /// By host name.
    Hosts(kiln_types::Hostlist),
}

/// What a broker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The job is in the queue, and on disk.
    Submitted {
        /// Its id.
        id: JobId,
        /// Whether the key was known, so that this is an earlier job.
        known: bool,
    },
    /// Jobs.
    Jobs(Vec<JobRow>),
    /// Job ids.
    Ids(Vec<JobId>),
    /// Counts.
    Stats(Stats),
    /// JSON text.
    Document(String),
    /// Some events.
    Events {
        /// In order, numbered from the request's `from`.
        entries: Vec<Entry>,
        /// Nothing comes after these.
        finished: bool,
    },
    /// Some output.
    Output {
        /// In order, numbered from the request's `from`.
        pieces: Vec<Timed<OutputEvent>>,
        /// Nothing comes after these.
        finished: bool,
    },
    /// A waitable job that ended; none when the time is up.
    Waited(Option<Waited>),
    /// The urgency before.
    Urgency(u8),
    /// Every node, by rank.
    Nodes(Vec<NodeRow>),
    /// Names and values, by name.
    Attributes(Vec<(String, String)>),
    /// The scheduler's state.
    Scheduling {
        /// Whether jobs are started.
        on: bool,
        /// Jobs that wait for resources.
        pending: u32,
        /// Jobs that run.
        running: u32,
    },
}

/// Why a request was refused; `text` is for people and says what is wrong with which thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What the caller can do about it.
    pub kind: FailureKind,
    /// For people.
    pub text: String,
}

impl Failure {
    /// A failure of this kind, with this text.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// What a caller can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is no such job, key or node.
    NotFound,
    /// The request is wrong, and stays wrong.
    Invalid,
    /// It belongs to somebody else.
    Permission,
    /// Not in this state of the job.
    State,
    /// No waitable job is left, or this one is not waitable.
    NotWaitable,
    /// The queue is full, or the broker is going down: try later.
    Busy,
    /// This broker cannot do that.
    Unsupported,
    /// The broker failed.
    Internal,
}

/// An event as RFC 18 has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub name: String,
    /// A JSON object, or empty when there is nothing more to say.
    pub context: String,
}

/// Something with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed<T> {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: T,
}

/// The states of RFC 21.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobState {
    /// Just submitted.
    New,
    /// Waits for other jobs or a time.
    Depend,
    /// Waits for its priority.
    Priority,
    /// Waits for resources.
    Sched,
    /// Runs.
    Run,
    /// Resources are being given back.
    Cleanup,
    /// Over.
    Inactive,
}

impl JobState {
    /// All of them, in the order a job passes through.
    pub const ALL: [Self; 7] =
        [Self::New, Self::Depend, Self::Priority, Self::Sched, Self::Run, Self::Cleanup, Self::Inactive];

    /// `DEPEND`, `RUN` and so on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Depend => "DEPEND",
            Self::Priority => "PRIORITY",
            Self::Sched => "SCHED",
            Self::Run => "RUN",
            Self::Cleanup => "CLEANUP",
            Self::Inactive => "INACTIVE",
        }
    }

    /// `D`, `R` and so on.
    #[must_use]
    pub fn letter(self) -> &'static str {
        &self.name()[..1]
    }
}

/// How an inactive job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobResult {
    /// Every task exited 0.
    Completed,
    /// A task failed, or there was a fatal exception.
    Failed,
    /// Somebody took it back.
    Canceled,
    /// Its time was up.
    Timeout,
}

impl JobResult {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Canceled, Self::Timeout];

    /// `COMPLETED` and so on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
            Self::Timeout => "TIMEOUT",
        }
    }

    /// `CD`, `F`, `CA`, `TO`.
    #[must_use]
    pub fn abbreviation(self) -> &'static str {
        match self {
            Self::Completed => "CD",
            Self::Failed => "F",
            Self::Canceled => "CA",
            Self::Timeout => "TO",
        }
    }
}

/// What a list shows of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its owner.
    pub userid: u32,
    /// Its state.
    pub state: JobState,
    /// How it ended, once it is inactive.
    pub result: Option<JobResult>,
    /// 0 to 31.
    pub urgency: u8,
    /// Place in the queue, higher first; none before it is known.
    pub priority: Option<i64>,
    /// Name, by default the command's.
    pub name: String,
    /// Working directory.
    pub cwd: String,
    /// The queue it asked for; empty when there is none.
    pub queue: String,
    /// How many tasks.
    pub ntasks: u32,
    /// How many cores; none before allocation when only slots were asked for.
    pub ncores: Option<u32>,
    /// How many nodes; none before allocation when only slots were asked for.
    pub nnodes: Option<u32>,
    /// Ranks, once allocated.
    pub ranks: IdSet,
    /// Hosts, once allocated (RFC 29).
    pub nodelist: String,
    /// The time limit in seconds; 0 means none.
    pub duration: f64,
    /// When the allocation ends; none without a limit.
    pub expiration: Option<Timestamp>,
    /// When it was submitted.
    pub t_submit: Timestamp,
    /// When it came to DEPEND.
    pub t_depend: Option<Timestamp>,
    /// When it came to PRIORITY.
    pub t_priority: Option<Timestamp>,
    /// When it came to SCHED.
    pub t_sched: Option<Timestamp>,
    /// When it came to RUN.
    pub t_run: Option<Timestamp>,
    /// When it came to CLEANUP.
    pub t_cleanup: Option<Timestamp>,
    /// When it came to INACTIVE.
    pub t_inactive: Option<Timestamp>,
    /// Wait status of the worst task (waitpid's form), once finished.
    pub waitstatus: Option<i32>,
    /// The first fatal exception, else the first one.
    pub exception: Option<RaisedException>,
    /// What it still waits for, as `scheme=value`.
    pub dependencies: Vec<String>,
    /// What the scheduler notes about the allocation, such as `rank0/core[0-1]`.
    pub resource_summary: String,
}

/// An exception of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaisedException {
    /// `cancel`, `timeout`, `exec`, `alloc`, `node-lost`, `dependency`, or a caller's word.
    pub kind: String,
    /// 0 is fatal.
    pub severity: u8,
    /// For people.
    pub note: String,
}

/// How many jobs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// By state, in the order of [`JobState::ALL`].
    pub states: [u64; 7],
    /// Ended well.
    pub successful: u64,
    /// Ended badly, canceled and timed out ones among them.
    pub failed: u64,
    /// Canceled.
    pub canceled: u64,
    /// Timed out.
    pub timeout: u64,
    /// Inactive and no longer listed.
    pub inactive_purged: u64,
}

/// A waitable job that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// Which.
    pub id: JobId,
    /// Whether every task exited 0.
    pub success: bool,
    /// What went wrong, such as `task(s) exited with exit code 2`.
    pub text: String,
}

/// A node of the instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its rank.
    pub rank: Rank,
    /// Its host name; empty as long as it was never up.
    pub host: String,
    /// Its cores.
    pub cores: IdSet,
    /// Those of its cores that jobs have.
    pub allocated: IdSet,
    /// Whether its agent is connected.
    pub online: bool,
    /// Kept from jobs by configuration.
    pub excluded: bool,
    /// Taken out of service.
    pub drained: Option<Drained>,
}

/// Why and since when a node is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Since when.
    pub at: Timestamp,
    /// For people.
    pub reason: String,
}

impl Stream {
    /// `stdout` or `stderr`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
