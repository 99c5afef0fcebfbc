//! Messages between the leader and the agent of each rank.
//!
//! 1. The agent connects and says [`FromAgent::Hello`], with the shells that it still has from before.
//! 2. The leader says [`ToAgent::Welcome`] or [`ToAgent::Refused`].
//! 3. For each shell that the agent has, the leader says [`ToAgent::Acked`] (go on from there) or [`ToAgent::Forget`].
//!    The agent sends again each report after the acknowledged one, and each exchange that was not answered, with
//!    the one before it: another rank may still wait for that.
//! 4. The leader says [`ToAgent::Start`]; the agent reports until [`ShellEvent::Done`], which is its last word on the
//!    job, and forgets the job when that one is acknowledged or the leader says [`ToAgent::Forget`].
//!
//! An agent that loses its leader keeps its tasks running and tries again, for the time of its lease. A leader that loses an agent waits for
//! it for a while, then declares the node lost; an agent whose process is new (another `boot`) has lost its shells.

use super::Blob;
use kiln_types::{IdSet, JobId, Rank};
use serde::{Deserialize, Serialize};

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromAgent {
    /// The first message of a connection.
    Hello(Hello),
    /// What happened to a job on this rank.
    Report(ShellReport),
    /// All tasks of a job on this rank are in a PMI barrier.
    Exchange(Exchange),
}

/// Who an agent is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`super::PROTOCOL`].
    pub protocol: u32,
    /// Its rank.
    pub rank: Rank,
    /// Its host name.
    pub host: String,
    /// The cores that it offers.
    pub cores: IdSet,
    /// Random, drawn when the agent's process starts.
    pub boot: u64,
    /// The shells that it has, ended ones that were not acknowledged among them.
    pub running: Vec<Running>,
}

/// A shell that an agent has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Whose shell.
    pub job: JobId,
    /// Number of its next report; all before it exist.
    pub next: u64,
}

/// One or more things that happened to a job on a rank, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShellReport {
    /// Whose.
    pub job: JobId,
    /// Number of the first event, counted from 0 for each job on each rank; the others follow on.
    pub first: u64,
    /// What happened and when.
    pub events: Vec<super::Timed<ShellEvent>>,
}

/// What happens to a job on a rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ShellEvent {
    /// The shell is there; it starts its tasks next.
    Init,
    /// All tasks of this rank are started.
    Started {
        /// Pid of each task, in the order of the rank's tasks.
        pids: Vec<u32>,
    },
    /// Tasks wrote something.
    Output(OutputEvent),
    /// A task ended.
    TaskExit {
        /// Its number in the job.
        task: u32,
        /// Its number on this rank.
        localid: u32,
        /// Its process.
        pid: u32,
        /// As waitpid gives it.
        wait_status: i32,
    },
    /// Something is wrong with the job as a whole: `exec` for a command that does not start or an `MPI_Abort`.
    Exception {
        /// Type of the exception.
        kind: String,
        /// 0 ends the job.
        severity: u8,
        /// For people.
        note: String,
        /// Wait status that the job gets when no task had a worse one, such as 127 << 8.
        wait_status: i32,
    },
    /// All tasks of this rank ended and their output is reported. The last event of a job on a rank.
    Done {
        /// The worst of the tasks' wait statuses.
        wait_status: i32,
    },
}

/// Standard streams of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Pieces of a job's output (RFC 24).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OutputEvent {
    /// A task wrote this.
    Data {
        /// Where.
        stream: Stream,
        /// Which task, by its number in the job.
        task: u32,
        /// What, whole lines where possible; at most [`super::OUTPUT_BYTES_MAX`].
        data: Blob,
        /// Whether the stream ended.
        eof: bool,
    },
    /// A stream goes to a file and not here.
    Redirect {
        /// Which.
        stream: Stream,
        /// Of which tasks.
        tasks: IdSet,
        /// The file's name after its template was filled in.
        path: String,
    },
    /// The shell itself has something to say.
    Log {
        /// How grave.
        level: LogLevel,
        /// The shell's place in the job, from 0.
        node: u32,
        /// What.
        text: String,
    },
}

/// How grave a shell's message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogLevel {
    /// The job cannot go on.
    Fatal,
    /// Something did not work.
    Error,
    /// Something looks wrong.
    Warning,
    /// Good to know; shown without a level.
    Notice,
}

/// What the tasks of one rank put before a PMI barrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// Whose.
    pub job: JobId,
    /// Number of the barrier, from 0.
    pub round: u64,
    /// Keys and values put since the barrier before.
    pub pairs: Vec<(String, String)>,
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The agent takes part.
    Welcome {
        /// How many ranks there are.
        size: u32,
        /// An agent that has no leader for so long, in milliseconds, kills its tasks: the leader waits longer than
        /// that before it declares a node lost and lets its tasks be run again.
        lease_ms: u32,
    },
    /// The agent may not take part, and why.
    Refused(String),
    /// Start the tasks of a job.
    Start(Box<ShellStart>),
    /// All reports of the job on this rank before number `next` are on disk.
    Acked {
        /// Whose.
        job: JobId,
        /// Number of the first report that is wanted next.
        next: u64,
    },
    /// Send a signal to the job's tasks on this rank, in whole process groups.
    Kill {
        /// Whose.
        job: JobId,
        /// Which signal.
        signal: i32,
    },
    /// Standard input.
    Stdin {
        /// Whose.
        job: JobId,
        /// Which tasks, by number in the job; none means all. Those of other ranks are skipped.
        tasks: Option<IdSet>,
        /// What they read.
        data: Blob,
        /// Whether nothing comes after it.
        eof: bool,
    },
    /// All ranks of the job are in the barrier; this is what all of them put.
    Exchanged(Exchange),
    /// The leader is through with the job: kill what is left of it, say nothing more about it.
    Forget {
        /// Whose.
        job: JobId,
    },
}

/// What an agent needs to start a job's tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShellStart {
    /// Its id.
    pub job: JobId,
    /// Its owner.
    pub userid: u32,
    /// Jobspec V1 (RFC 25); parse it with `crate::spec::Jobspec`.
    pub jobspec: String,
    /// Resources (RFC 20).
    pub r: String,
    /// All nodes of the job; a node's place here is the shell's rank.
    pub nodes: Vec<ShellNode>,
    /// Which of `nodes` the receiver is.
    pub node: u32,
}

/// A node of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShellNode {
    /// The broker's rank.
    pub rank: Rank,
    /// Its host name.
    pub host: String,
    /// The job's cores there.
    pub cores: IdSet,
    /// The job's tasks there, by number in the job.
    pub tasks: IdSet,
}

impl ShellStart {
    /// The receiver's own entry in `nodes`; none when the leader sent nonsense.
    #[must_use]
    pub fn own(&self) -> Option<&ShellNode> {
        self.nodes.get(self.node as usize)
    }

    /// How many tasks the whole job has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.nodes.iter().map(|node| node.tasks.len()).sum()
    }

    /// The task map of RFC 34 as JSON, one block per run of nodes with equally many tasks: `[[0,2,1,1]]`.
    ///
    /// Exact for the block distribution, where each node's tasks follow on the ones of the node before.
    #[must_use]
    pub fn taskmap(&self) -> String {
        crate::spec::taskmap_json(self.nodes.iter().map(|node| &node.tasks))
    }
}
