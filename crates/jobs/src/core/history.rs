//! Answers about a job from its records in the log: for jobs that are over, and for old output of running ones.

use super::{
    event::{AllocatedNode, JobEvent},
    job::Span,
    manager::Caller,
    record::{Record, Stamped, Submitted},
};
use crate::proto::{Answer, Entry, Failure, FailureKind, InfoKey, LogName, Reply, Timed};
use kiln_types::JobId;

/// The most bytes of output in one answer.
const ANSWER_BYTES_MAX: usize = crate::proto::OUTPUT_BYTES_MAX;

/// A question that only the log can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Who asks.
    pub to: Caller,
    /// About which job.
    pub id: JobId,
    /// Where its records are, among those of others.
    pub span: Span,
    /// What is asked.
    pub want: Want,
    /// Whether the job is over, so that nothing comes after what the log holds.
    pub over: bool,
}

/// What is asked about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// A document.
    Info(InfoKey),
    /// Events from this number on.
    Events(LogName, u64),
    /// Output from this number on.
    Output(u64),
}

impl Lookup {
    /// The answer, given the records of the log from the span's first to its last, those of other jobs among them.
    pub fn answer(&self, records: impl IntoIterator<Item = Stamped>) -> Answer {
        let own = records.into_iter().filter(|stamped| stamped.record.job() == Some(self.id));
        match self.want {
            Want::Info(key) => info(key, own),
            Want::Events(log, from) => {
                let entries = entries(log, own).skip(from as usize).collect();
                Ok(Reply::Events { entries, finished: self.over })
            }
            Want::Output(from) => Ok(output(from, self.over, own)),
        }
    }
}

fn info(key: InfoKey, mut own: impl Iterator<Item = Stamped>) -> Answer {
    if key == InfoKey::Hostpids {
        return all_hostpids(own).map(Reply::Document).ok_or_else(|| not_found(key));
    }
    let found = own.find_map(|Stamped { at, record }| match (key, record) {
        (InfoKey::Jobspec, Record::Submitted(submitted)) => Some(submitted.jobspec),
        (InfoKey::R, Record::Job { event: JobEvent::Alloc(allocation), .. }) => {
            Some(allocation.r(at).to_json())
        }
        _ => None,
    });
    found.map(Reply::Document).ok_or_else(|| not_found(key))
}

fn all_hostpids(own: impl Iterator<Item = Stamped>) -> Option<String> {
    let (mut nodes, mut pids) = (Vec::new(), Vec::new());
    for Stamped { record, .. } in own {
        match record {
            Record::Job { event: JobEvent::Alloc(allocation), .. } => {
                pids = vec![Vec::new(); allocation.nodes.len()];
                nodes = allocation.nodes;
            }
            Record::Pids { pids: here, source, .. } => {
                if let Some(place) = pids.get_mut(source.node as usize) {
                    *place = here;
                }
            }
            _ => {}
        }
    }
    let started = !pids.is_empty() && pids.iter().all(|here| !here.is_empty());
    started.then(|| hostpids(&nodes, pids.iter().map(Vec::as_slice)))
}

/// `host:pid,host:pid` in the order of the tasks of each node.
pub(super) fn hostpids<'a>(nodes: &[AllocatedNode], pids: impl Iterator<Item = &'a [u32]>) -> String {
    let of_node = |(node, pids): (&AllocatedNode, &'a [u32])| {
        pids.iter().map(|pid| format!("{}:{pid}", node.host)).collect::<Vec<_>>()
    };
    nodes.iter().zip(pids).flat_map(of_node).collect::<Vec<_>>().join(",")
}

/// The failure for a document that a job does not have.
pub(super) fn not_found(key: InfoKey) -> Failure {
    let name = match key {
        InfoKey::Jobspec => "jobspec",
        InfoKey::R => "R",
        InfoKey::Hostpids => "hostpids",
    };
    Failure::new(FailureKind::NotFound, format!("{name}: key not found"))
}

fn entries(log: LogName, own: impl Iterator<Item = Stamped>) -> impl Iterator<Item = Entry> {
    let mut nodes: Vec<AllocatedNode> = Vec::new();
    own.filter_map(move |Stamped { at, record }| match (log, record) {
        (LogName::Main, Record::Submitted(submitted)) => Some(submit_entry(at, &submitted)),
        (LogName::Main, Record::Job { event, .. }) => Some(event.entry(at)),
        (LogName::Exec, Record::Job { event: JobEvent::Alloc(allocation), .. }) => {
            nodes = allocation.nodes;
            None
        }
        (LogName::Exec, Record::Exec { id, event, .. }) => Some(event.entry(id, &nodes, at)),
        _ => None,
    })
}

fn submit_entry(at: kiln_types::Timestamp, submitted: &Submitted) -> Entry {
    let Submitted { userid, urgency, flags, .. } = *submitted;
    JobEvent::Submit { userid, urgency, flags: flags.bits() }.entry(at)
}

fn output(from: u64, over: bool, own: impl Iterator<Item = Stamped>) -> Reply {
    let mut bytes = 0;
    let mut whole = true;
    let mut pieces = Vec::new();
    let found = own.filter_map(|Stamped { at, record }| match record {
        Record::Output { event, .. } => Some(Timed { at, what: event }),
        _ => None,
    });
    for piece in found.skip(from as usize) {
        if bytes > ANSWER_BYTES_MAX {
            whole = false;
            break;
        }
        bytes += super::job::weight(&piece.what);
        pieces.push(piece);
    }
    Reply::Output { pieces, finished: over && whole }
}
