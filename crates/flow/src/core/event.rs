//! What an agent says about a task: a syslog line whose structured data is for the recorder, and whose text is for people.

use super::task::TaskId;
use crate::syslog::{self, Line, Message, Priority};
use kiln_types::{JobId, Timestamp};

/// The program name of these lines.
pub const AGENT_APPNAME: &str = "kiln-agent";
/// The id of the element. 32473 is the enterprise number for examples and private use (RFC 5612).
const ELEMENT: &str = "kiln@32473";
/// Longest reason that is written, in characters.
const REASON_CHARS_MAX: usize = 400;

/// Something happened to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// Which task.
    pub id: TaskId,
    /// Its name in the catalogue.
    pub task: String,
    /// The host of the agent.
    pub agent: String,
    /// When.
    pub at: Timestamp,
    /// When it was put on the queue.
    pub queued: Option<Timestamp>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Its job runs.
    Started {
        /// The job.
        job: JobId,
    },
    /// Its job has ended.
    Completed {
        /// The job.
        job: JobId,
        /// When the job started, unless it never did.
        started: Option<Timestamp>,
        /// Exit status.
        status: i32,
    },
    /// Its job was lost with its node; it goes back into the queue.
    Lost {
        /// The job.
        job: JobId,
        /// What is known.
        reason: String,
    },
    /// It cannot be run at all.
    Refused {
        /// Why.
        reason: String,
    },
}

impl EventKind {
    fn name(&self) -> &'static str {
        match self {
            EventKind::Started { .. } => "started",
            EventKind::Completed { .. } => "completed",
            EventKind::Lost { .. } => "lost",
            EventKind::Refused { .. } => "refused",
        }
    }
}

impl TaskEvent {
    /// The RFC 5424 line.
    pub fn to_line(&self) -> String {
        let mut params: Vec<(&str, String)> = vec![
            ("event", self.kind.name().to_owned()),
            ("key", self.id.to_string()),
            ("task", self.task.clone()),
        ];
        params.extend(self.queued.map(|at| ("queued", syslog::format_time(at))));
        let text = match &self.kind {
            EventKind::Started { job } => {
                params.push(("job", job.to_f58_plain()));
                format!("task {} ({}) started as job {}", self.id, self.task, job.to_f58_plain())
            }
            EventKind::Completed { job, started, status } => {
                params.push(("job", job.to_f58_plain()));
                params.extend(started.map(|at| ("started", syslog::format_time(at))));
                params.push(("status", status.to_string()));
                format!("task {} ({}) completed with status {status}", self.id, self.task)
            }
            EventKind::Lost { job, reason } => {
                params.push(("job", job.to_f58_plain()));
                params.push(("reason", shorten(reason)));
                format!(
                    "task {} ({}) lost its job and is queued again: {}",
                    self.id,
                    self.task,
                    shorten(reason)
                )
            }
            EventKind::Refused { reason } => {
                params.push(("reason", shorten(reason)));
                format!("task {} ({}) is refused: {}", self.id, self.task, shorten(reason))
            }
        };
        let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Line {
            priority: Priority::LOCAL0_INFO,
            timestamp: self.at,
            hostname: &self.agent,
            appname: AGENT_APPNAME,
            procid: "",
            msgid: "",
            structured: &[(ELEMENT, &params)],
            message: &text,
        }
        .to_string()
    }

    /// Reads such a line; `None` for any other.
    pub fn from_message(message: &Message<'_>) -> Option<TaskEvent> {
        let get = |name: &str| message.structured.get(ELEMENT, name);
        let time = |name: &str| get(name).and_then(|text| syslog::parse_time(&text));
        let job = || get("job").and_then(|text| text.parse::<JobId>().ok());
        if message.appname != AGENT_APPNAME {
            return None;
        }
        let reason = || get("reason").map(std::borrow::Cow::into_owned).unwrap_or_default();
        let kind = match &*get("event")? {
            "started" => EventKind::Started { job: job()? },
            "completed" => EventKind::Completed {
                job: job()?,
                started: time("started"),
                status: get("status")?.parse().ok()?,
            },
            "lost" => EventKind::Lost { job: job()?, reason: reason() },
            "refused" => EventKind::Refused { reason: reason() },
            _ => return None,
        };
        Some(TaskEvent {
            id: TaskId::try_from(get("key")?.into_owned()).ok()?,
            task: get("task")?.into_owned(),
            agent: message.hostname.to_owned(),
            at: message.time(),
            queued: time("queued"),
            kind,
        })
    }
}

/// One line, not too long.
fn shorten(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syslog::Received;

    fn event(kind: EventKind) -> TaskEvent {
        TaskEvent {
            id: TaskId::try_from("t-1".to_owned()).unwrap(),
            task: "checksum".to_owned(),
            agent: "silicon2".to_owned(),
            at: Timestamp(1_795_341_600_000_007),
            queued: Some(Timestamp(1_795_341_600_000_001)),
            kind,
        }
    }

    #[test]
    fn events_are_read_back() {
        let job = JobId::new(123_456_789);
        for kind in [
            EventKind::Started { job },
            EventKind::Completed { job, started: Some(Timestamp(5)), status: 3 },
            EventKind::Completed { job, started: None, status: 143 },
            EventKind::Lost { job, reason: "node \"x\" ] lost".to_owned() },
            EventKind::Refused { reason: "é".to_owned() },
        ] {
            let line = event(kind.clone()).to_line();
            let message = syslog::parse(&line, Received::at(Timestamp(0)));
            assert_eq!(TaskEvent::from_message(&message), Some(event(kind)), "{line}");
        }
    }

    #[test]
    fn golden_line() {
        let line = event(EventKind::Completed { job: JobId::new(1), started: None, status: 0 }).to_line();
        assert_eq!(
            line,
            "<134>1 2026-11-22T10:00:00.000007Z silicon2 kiln-agent - - [kiln@32473 event=\"completed\" key=\"t-1\" task=\"checksum\" \
             queued=\"2026-11-22T10:00:00.000001Z\" job=\"f2\" status=\"0\"] task t-1 (checksum) completed with status 0"
        );
    }

    #[test]
    fn other_lines_are_none() {
        let line = event(EventKind::Started { job: JobId::new(1) }).to_line();
        for other in [
            line.replace("kiln-agent", "x"),
            line.replace("started\"", "begun\""),
            line.replace("job=", "jab="),
        ] {
            assert_eq!(
                TaskEvent::from_message(&syslog::parse(&other, Received::at(Timestamp(0)))),
                None,
                "{other}"
            );
        }
    }
}
