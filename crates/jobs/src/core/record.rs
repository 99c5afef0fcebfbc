//! What the job manager keeps on disk: its decisions and everything it was told, in order.
//!
//! The value of a record in the log is one byte of format version, then the [`Stamped`] in postcard.
//! Everything the manager knows follows from these records; variants are only ever added at the end.

use super::event::{ExecEvent, JobEvent};
use crate::proto::{OutputEvent, SubmitFlags};
use kiln_types::{IdSet, JobId, Offset, Rank, Timestamp};
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
    /// Old jobs are forgotten, so that the log may begin later than it did.
    Checkpoint(Box<Checkpoint>),
}

/// What is known at a point of the log beside its jobs, so that what stood before the log's start is not missed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// That of the job ids.
    pub epoch: Timestamp,
    /// The greatest job id given out.
    pub newest: JobId,
    /// Jobs that are over and were submitted before this record are forgotten, and their keys with them.
    pub forget: Offset,
    /// The records before this one are not needed any more. The checkpoint makes up for what is missing from a log that
    /// begins here or earlier; in one that was shortened further, a later checkpoint does.
    pub start: Offset,
    /// The nodes that are drained, since when and why.
    pub drained: Vec<(Rank, Timestamp, String)>,
    /// Whether jobs are started.
    pub scheduling: bool,
    /// How many jobs ended so far: well, badly, and of the latter those canceled and those timed out.
    pub ended: [u64; 4],
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
            | Self::Scheduling { .. }
            | Self::Checkpoint(_) => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on disk somewhere must be read for ever. See docs/formats/job-log.md.
    #[test]
    fn golden_bytes() {
        let id = JobId::new(58);
        let submitted = Submitted {
            id,
            userid: 0,
            urgency: 16,
            flags: SubmitFlags { waitable: true, debug: false },
            key: Some("k".into()),
            jobspec: "{}".into(),
        };
        let source = Source { node: 1, seq: 2 };
        let checkpoint = Checkpoint {
            epoch: Timestamp(3),
            newest: id,
            forget: Offset(4),
            start: Offset(2),
            drained: vec![(Rank(1), Timestamp(5), "d".into())],
            scheduling: true,
            ended: [6, 7, 8, 9],
        };
        let cases: [(Record, &[u8]); 7] = [
            (Record::Instance { epoch: Timestamp(3) }, &[0, 6]),
            (Record::Submitted(Box::new(submitted)), &[1, 58, 0, 16, 1, 0, 1, 1, b'k', 2, b'{', b'}']),
            (Record::Job { id, event: JobEvent::Finish(256) }, &[2, 58, 9, 128, 4]),
            (Record::Exec { id, event: ExecEvent::Done, source: Some(source) }, &[3, 58, 7, 1, 1, 2]),
            (Record::Seen { id, source, wait_status: 9 }, &[6, 58, 1, 2, 18]),
            (Record::Scheduling { on: true }, &[9, 1]),
            (Record::Checkpoint(Box::new(checkpoint)), &[11, 6, 58, 8, 4, 1, 1, 10, 1, b'd', 1, 6, 7, 8, 9]),
        ];
        for (record, bytes) in cases {
            let stamped = Stamped { at: Timestamp(-1), record };
            let encoded = postcard::to_stdvec(&stamped).unwrap();
            assert_eq!(encoded[0], 1, "the time, zigzag");
            assert_eq!(&encoded[1..], bytes, "{stamped:?}");
            assert_eq!(postcard::from_bytes(&encoded), Ok(stamped));
        }
    }
}
