//! What happens to jobs, as events with the names and contexts of Flux RFC 18 and 21.

use crate::proto::{Entry, LogLevel, OutputEvent, RaisedException, Stream};
use kiln_types::{IdSet, JobId, Rank, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Write;

/// An event of a job's main log (RFC 21).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum JobEvent {
    /// The job is in the queue. Its facts are in [`super::Submitted`].
    Submit {
        /// Its owner.
        userid: u32,
        /// 0 to 31.
        urgency: u8,
        /// As [`crate::proto::SubmitFlags::bits`].
        flags: u32,
    },
    /// It waits for something.
    DependencyAdd(String),
    /// It does not wait for that any more.
    DependencyRemove(String),
    /// It may run.
    Validate,
    /// It waits for nothing.
    Depend,
    /// Its place in the queue is known.
    Priority(i64),
    /// Its owner changed the urgency.
    Urgency {
        /// Who did.
        userid: u32,
        /// 0 to 31.
        urgency: u8,
    },
    /// It has resources.
    Alloc(Allocation),
    /// Its shells are being started.
    Start,
    /// Its tasks have ended with this wait status, the worst of all.
    Finish(i32),
    /// Its shells are gone.
    Release,
    /// Its resources are free again.
    Free,
    /// It is over.
    Clean,
    /// Something went wrong.
    Exception {
        /// Who says so.
        userid: u32,
        /// What.
        raised: RaisedException,
    },
}

/// The resources of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Its nodes, by rank.
    pub nodes: Vec<AllocatedNode>,
    /// When they are taken away; none without a time limit.
    pub expiration: Option<Timestamp>,
}

/// The part of an allocation on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatedNode {
    /// The node's rank.
    pub rank: Rank,
    /// Its name.
    pub host: String,
    /// The job's cores there.
    pub cores: IdSet,
    /// The job's slots there.
    pub slots: u32,
    /// The agent's boot number at that time: another one has not got the job.
    pub boot: u64,
}

/// An event of a job's execution log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExecEvent {
    /// Execution begins.
    Init,
    /// Shells are being started.
    Starting,
    /// The first shell is there.
    ShellInit {
        /// Rank of the job's first node.
        leader: Rank,
        /// How many shells.
        size: u32,
    },
    /// All tasks run.
    ShellStart {
        /// RFC 34, as JSON.
        taskmap: String,
    },
    /// The first task ended.
    TaskExit {
        /// Its number on its node.
        localid: u32,
        /// Its number in the job.
        task: u32,
        /// Its process.
        pid: u32,
        /// As waitpid gives it.
        wait_status: i32,
    },
    /// A shell ended.
    ShellExit {
        /// The shell's place in the job.
        node: u32,
        /// The worst of its tasks' wait statuses.
        wait_status: i32,
    },
    /// All shells ended.
    Complete(i32),
    /// Nothing comes after this.
    Done,
}

/// The exit code that Flux's tools give for a wait status: the task's own, or 128 and the signal's number.
#[must_use]
pub fn exit_code(wait_status: i32) -> i32 {
    match signal_of(wait_status) {
        Some(signal) => 128 + signal,
        None => (wait_status >> 8) & 0xff,
    }
}

/// The signal that ended the task; none when it exited.
#[must_use]
pub fn signal_of(wait_status: i32) -> Option<i32> {
    let signal = wait_status & 0x7f;
    (signal != 0).then_some(signal)
}

/// The status with the higher exit code.
#[must_use]
pub fn worse(one: i32, other: i32) -> i32 {
    if exit_code(other) > exit_code(one) { other } else { one }
}

fn entry(at: Timestamp, name: &str, context: &Value) -> Entry {
    let context = if context.is_null() { String::new() } else { context.to_string() };
    Entry { at, name: name.to_owned(), context }
}

impl JobEvent {
    /// As RFC 18 has it.
    #[must_use]
    pub fn entry(&self, at: Timestamp) -> Entry {
        let (name, context) = self.named();
        entry(at, name, &context)
    }

    fn named(&self) -> (&'static str, Value) {
        match self {
            Self::Submit { userid, urgency, flags } => {
                ("submit", json!({"userid": userid, "urgency": urgency, "flags": flags, "version": 1}))
            }
            Self::DependencyAdd(what) => ("dependency-add", json!({"description": what})),
            Self::DependencyRemove(what) => ("dependency-remove", json!({"description": what})),
            Self::Validate => ("validate", Value::Null),
            Self::Depend => ("depend", Value::Null),
            Self::Priority(priority) => ("priority", json!({"priority": priority})),
            Self::Urgency { userid, urgency } => ("urgency", json!({"userid": userid, "urgency": urgency})),
            Self::Alloc(allocation) => {
                ("alloc", json!({"annotations": {"sched": {"resource_summary": allocation.summary()}}}))
            }
            Self::Start => ("start", Value::Null),
            Self::Finish(status) => ("finish", json!({"status": status})),
            Self::Release => ("release", json!({"ranks": "all", "final": true})),
            Self::Free => ("free", Value::Null),
            Self::Clean => ("clean", Value::Null),
            Self::Exception { userid, raised: RaisedException { kind, severity, note } } => {
                ("exception", json!({"type": kind, "severity": severity, "userid": userid, "note": note}))
            }
        }
    }
}

impl ExecEvent {
    /// As RFC 18 has it; `nodes` are the job's.
    #[must_use]
    pub fn entry(&self, id: JobId, nodes: &[AllocatedNode], at: Timestamp) -> Entry {
        let (name, context) = self.named(id, nodes);
        entry(at, name, &context)
    }

    fn named(&self, id: JobId, nodes: &[AllocatedNode]) -> (&'static str, Value) {
        match self {
            Self::Init => ("init", Value::Null),
            Self::Starting => ("starting", Value::Null),
            Self::ShellInit { leader, size } => {
                let service = format!("{leader}-shell-{}", id.to_f58_plain());
                ("shell.init", json!({"service": service, "leader-rank": leader.0, "size": size}))
            }
            Self::ShellStart { taskmap } => {
                let map: Value = serde_json::from_str(taskmap).unwrap_or_default();
                ("shell.start", json!({"taskmap": {"version": 1, "map": map}}))
            }
            Self::TaskExit { localid, task, pid, wait_status } => {
                let mut context = json!({"localid": localid, "rank": task, "state": "Exited", "pid": pid,
                    "wait_status": wait_status, "signaled": 0, "exitcode": exit_code(*wait_status)});
                if let Some(signal) = signal_of(*wait_status) {
                    context["signaled"] = json!(signal);
                }
                ("shell.task-exit", context)
            }
            Self::ShellExit { node, wait_status } => {
                let rank = nodes.get(*node as usize).map_or(0, |node| node.rank.0);
                ("shell-exit", json!({"rank": rank, "wait_status": wait_status}))
            }
            Self::Complete(status) => ("complete", json!({"status": status})),
            Self::Done => ("done", Value::Null),
        }
    }
}

/// An entry of a job's output log as RFC 24 has it.
#[must_use]
pub fn output_entry(at: Timestamp, event: &OutputEvent) -> Entry {
    match event {
        OutputEvent::Data { stream, task, data, eof } => {
            let mut context = json!({"stream": stream.name(), "rank": task.to_string()});
            match std::str::from_utf8(&data.0) {
                Ok("") => {}
                Ok(text) => context["data"] = json!(text),
                Err(_) => {
                    context["data"] = json!(base64(&data.0));
                    context["encoding"] = json!("base64");
                }
            }
            if *eof {
                context["eof"] = json!(true);
            }
            entry(at, "data", &context)
        }
        OutputEvent::Redirect { stream, tasks, path } => {
            entry(at, "redirect", &json!({"stream": stream.name(), "rank": tasks.to_string(), "path": path}))
        }
        OutputEvent::Log { level, node, text } => {
            entry(at, "log", &json!({"rank": node, "level": log_level(*level), "message": text}))
        }
    }
}

/// The first entry of an output log.
#[must_use]
pub fn output_header(at: Timestamp, ntasks: u32) -> Entry {
    let each = |value: Value| json!({Stream::Stdout.name(): value.clone(), Stream::Stderr.name(): value});
    let context =
        json!({"version": 1, "encoding": each(json!("UTF-8")), "count": each(json!(ntasks)), "options": {}});
    entry(at, "header", &context)
}

/// Numbers of RFC 24, which are those of syslog but for fatal ones.
fn log_level(level: LogLevel) -> i32 {
    match level {
        LogLevel::Fatal => 1,
        LogLevel::Error => 3,
        LogLevel::Warning => 4,
        LogLevel::Notice => 5,
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0u32, |group, &byte| (group << 8) | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let sextet = (group >> (18 - 6 * digit)) & 63;
            out.push(if digit <= chunk.len() { char::from(DIGITS[sextet as usize]) } else { '=' });
        }
    }
    out
}

/// One event as a line of text, `1795373242.128681 submit userid=0 urgency=16`, without its end.
#[must_use]
pub fn as_text(entry: &Entry) -> String {
    let mut line = format!(
        "{}.{:06} {}",
        entry.at.0.div_euclid(1_000_000),
        entry.at.0.rem_euclid(1_000_000),
        entry.name
    );
    line.push_str(&context_text(entry));
    line
}

/// The context as ` name=value ...` with a blank in front; empty when there is none.
#[must_use]
pub fn context_text(entry: &Entry) -> String {
    let context: Value = serde_json::from_str(&entry.context).unwrap_or_default();
    let mut text = String::new();
    for (name, value) in context.as_object().into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = write!(text, " {name}={value}");
    }
    text
}

/// One event as a line of JSON, without its end.
#[must_use]
pub fn as_json(entry: &Entry) -> String {
    let context: Value = serde_json::from_str(&entry.context).unwrap_or_default();
    let mut line = json!({"timestamp": entry.at.seconds_f64(), "name": entry.name});
    if !context.is_null() {
        line["context"] = context;
    }
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Blob;

    const AT: Timestamp = Timestamp(1_795_373_242_128_681);

    #[test]
    fn text_and_json_of_events() {
        let submit = JobEvent::Submit { userid: 0, urgency: 16, flags: 0 }.entry(AT);
        assert_eq!(as_text(&submit), "1795373242.128681 submit userid=0 urgency=16 flags=0 version=1");
        assert_eq!(
            as_json(&submit),
            r#"{"timestamp":1795373242.128681,"name":"submit","context":{"userid":0,"urgency":16,"flags":0,"version":1}}"#
        );
        let free = JobEvent::Free.entry(AT);
        assert_eq!(as_text(&free), "1795373242.128681 free");
        assert_eq!(as_json(&free), r#"{"timestamp":1795373242.128681,"name":"free"}"#);
        assert_eq!(context_text(&JobEvent::Release.entry(AT)), r#" ranks="all" final=true"#);
    }

    #[test]
    fn text_of_exec_events() {
        let text = |event: ExecEvent| as_text(&event.entry(JobId::new(58), &[], AT)).split_off(18);
        assert_eq!(
            text(ExecEvent::ShellInit { leader: Rank(0), size: 1 }),
            r#"shell.init service="0-shell-f21" leader-rank=0 size=1"#
        );
        assert_eq!(
            text(ExecEvent::ShellStart { taskmap: "[[0,1,1,1]]".into() }),
            r#"shell.start taskmap={"version":1,"map":[[0,1,1,1]]}"#
        );
        assert_eq!(
            text(ExecEvent::TaskExit { localid: 0, task: 0, pid: 7, wait_status: 0 }),
            r#"shell.task-exit localid=0 rank=0 state="Exited" pid=7 wait_status=0 signaled=0 exitcode=0"#
        );
    }

    #[test]
    fn output_is_text_where_it_can_be() {
        let data = |bytes: &[u8], eof| OutputEvent::Data {
            stream: Stream::Stdout,
            task: 3,
            data: bytes.into(),
            eof,
        };
        let text = |event| context_text(&output_entry(AT, &event));
        assert_eq!(text(data(b"hi\n", false)), r#" stream="stdout" rank="3" data="hi\n""#);
        assert_eq!(text(data(b"", true)), r#" stream="stdout" rank="3" eof=true"#);
        assert_eq!(
            text(data(&[0xff, 0], false)),
            r#" stream="stdout" rank="3" data="/wA=" encoding="base64""#
        );
        assert_eq!(
            context_text(&output_header(AT, 2)),
            r#" version=1 encoding={"stdout":"UTF-8","stderr":"UTF-8"} count={"stdout":2,"stderr":2} options={}"#
        );
    }

    #[test]
    fn base64_pads() {
        let cases: [(&[u8], &str); 4] = [(b"", ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes), text);
        }
        assert_eq!(Blob::from(vec![1]).0, [1]);
    }

    #[test]
    fn the_worse_status_has_the_higher_exit_code() {
        assert_eq!(exit_code(3 << 8), 3);
        assert_eq!(exit_code(9), 137);
        assert_eq!(worse(9, 3 << 8), 9);
        assert_eq!(worse(0, 1 << 8), 1 << 8);
    }
}
