//! What the job manager keeps on disk: its decisions and everything it was told, in order.
//!
//! The value of a record in the log is one byte of format version, then the [`Stamped`] in postcard.
//! Everything the manager knows follows from these records; variants are only ever added at the end.

use super::event::{ExecEvent, JobEvent};
use crate::proto::{OutputEvent, SubmitFlags};
use kiln_types::{IdSet, JobId, Timestamp};
use serde::{Deserialize, Serialize};

/// Version of the format, the first byte of a record's value.
pub const FORMAT: u8 = 1;

/// A record and when it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// When.
    pub at: Timestamp,
    /// What.
    pub record: Record,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// The first record: job ids count from this moment.
    Instance {
        /// Their epoch.
        epoch: Timestamp,
    },
    /// A job was put in the queue.
    Submitted(Box<Submitted>),
    /// An event of a job's main log.
    Job {
        /// Whose.
        id: JobId,
        /// What.
        event: JobEvent,
    },
    /// An event of a job's execution log.
    Exec {
        /// Whose.
        id: JobId,
        /// What.
        event: ExecEvent,
        /// The report it comes from; none when the manager itself says so.
        source: Option<Source>,
    },
    /// A piece of output.
    Output {
        /// Whose.
        id: JobId,
        /// What.
        event: OutputEvent,
        /// The report it comes from.
        source: Source,
    },
    /// The processes of a job on one of its nodes.
    Pids {
        /// Whose.
        id: JobId,
        /// In the order of the node's tasks.
        pids: Vec<u32>,
        /// The report it comes from.
        source: Source,
    },
    /// A report that left no other trace.
    Seen {
        /// Whose.
        id: JobId,
        /// The report.
        source: Source,
        /// Wait status to count, 0 when there is none.
        wait_status: i32,
    },
    /// Nodes were taken out of service.
    Drained {
        /// Which.
        ranks: IdSet,
        /// For people.
        reason: String,
    },
    /// Nodes were put back in service.
    Undrained {
        /// Which.
        ranks: IdSet,
    },
    /// The scheduler was started or stopped.
    Scheduling {
        /// Whether jobs are started.
        on: bool,
    },
    /// A waitable job was waited for.
    Waited {
        /// Which.
        id: JobId,
    },
}

/// A new job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its id.
    pub id: JobId,
    /// Its owner.
    pub userid: u32,
    /// 0 to 31.
    pub urgency: u8,
    /// What was asked beside.
    pub flags: SubmitFlags,
    /// The key that recognises a repeat.
    pub key: Option<String>,
    /// As submitted.
    pub jobspec: String,
}

/// Where a report comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The shell's place in the job.
    pub node: u32,
    /// The report's number.
    pub seq: u64,
}

impl Record {
    /// The job that the record is about.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Submitted(submitted) => Some(submitted.id),
            Self::Job { id, .. }
            | Self::Exec { id, .. }
            | Self::Output { id, .. }
            | Self::Pids { id, .. }
            | Self::Seen { id, .. }
            | Self::Waited { id } => Some(*id),
            Self::Instance { .. }
            | Self::Drained { .. }
            | Self::Undrained { .. }
            | Self::Scheduling { .. } => None,
        }
    }

    /// The report that the record comes from.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        match self {
            Self::Exec { source, .. } => *source,
            Self::Output { source, .. } | Self::Pids { source, .. } | Self::Seen { source, .. } => {
                Some(*source)
            }
            _ => None,
        }
    }
}
