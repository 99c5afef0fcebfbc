//! Submits jobs and waits for them over a broker's socket; connects again when the broker was away.

use std::path::PathBuf;
use std::time::Duration;

use kiln_net::{CallError, CallOptions, Client};
use kiln_types::{JobId, Timestamp};
use tokio::sync::Mutex;

use crate::core::exit_code;
use crate::proto::{
    Answer, Failure, FailureKind, Filter, JobResult, JobRow, JobState, LogName, Reply, Request, Submit,
    SubmitFlags, WAIT_MS_MAX,
};

/// Pause before a request is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How much longer than it may hold its answer a broker gets.
const ANSWER_SLACK: Duration = Duration::from_secs(30);
/// The urgency of a job that nobody asked anything special for (RFC 30).
const URGENCY_DEFAULT: u8 = 16;

/// Why a job cannot be submitted or waited for.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The workload manager refuses; trying again does not help.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The answer is to another question: another version at the other end.
    #[error("the broker's answer is not to this question")]
    Answer,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Which.
    pub id: JobId,
    /// How.
    pub result: JobResult,
    /// The exit code that `flux job attach` gives: the worst task's, or 128 and a signal, or 1 when none ran.
    pub exit_code: i32,
    /// The fatal exception's type and note; empty when there was none.
    pub exception: String,
    /// When its tasks began; none when they never did.
    pub started: Option<Timestamp>,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// Where it ran (RFC 29).
    pub nodelist: String,
}

/// A client for programs: every call is tried until the broker answers.
#[derive(Debug)]
pub struct Jobs {
    socket: PathBuf,
    connection: Mutex<Option<Client>>,
}

impl Jobs {
    /// A client of the broker at `socket`; connects when it is first used.
    pub fn new(socket: impl Into<PathBuf>) -> Jobs {
        Jobs { socket: socket.into(), connection: Mutex::new(None) }
    }

    /// Submits a jobspec and gives back the job's id once the job is on disk. With the same key this may be repeated
    /// any number of times, also after a restart, and gives the same job, unless that one was lost with its node.
    pub async fn submit(&self, jobspec: String, key: String) -> Result<JobId, JobsError> {
        let submit =
            Submit { jobspec, urgency: URGENCY_DEFAULT, flags: SubmitFlags::default(), key: Some(key) };
        match self.ask(&Request::Submit(Box::new(submit))).await? {
            Reply::Submitted { id, .. } => Ok(id),
            _ => Err(JobsError::Answer),
        }
    }

    /// Waits until a job is over.
    pub async fn wait(&self, id: JobId) -> Result<Ended, JobsError> {
        let mut from = 0;
        loop {
            let request = Request::Events { id, log: LogName::Main, from, wait_ms: WAIT_MS_MAX };
            let Reply::Events { entries, finished } = self.ask(&request).await? else {
                return Err(JobsError::Answer);
            };
            from += entries.len() as u64;
            if finished || entries.iter().any(|entry| entry.name == "clean") {
                return self.ended(id).await;
            }
        }
    }

    async fn ended(&self, id: JobId) -> Result<Ended, JobsError> {
        let filter = Filter { ids: vec![id], ..Filter::default() };
        let Reply::Jobs(rows) = self.ask(&Request::List(filter)).await? else {
            return Err(JobsError::Answer);
        };
        let row = rows.into_iter().find(|row| row.id == id && row.state == JobState::Inactive);
        row.map(ended_of).ok_or_else(|| {
            Failure::new(FailureKind::NotFound, format!("job {id} ended too long ago to be listed")).into()
        })
    }

    /// Raises an exception of type `cancel`.
    pub async fn cancel(&self, id: JobId, note: &str) -> Result<(), JobsError> {
        let request = Request::Raise { id, kind: "cancel".into(), severity: 0, note: note.into() };
        self.ask(&request).await.map(drop)
    }

    /// Asks until there is an answer other than "busy". Requests that are not safe to repeat need a key.
    pub async fn ask(&self, request: &Request) -> Result<Reply, JobsError> {
        loop {
            match self.ask_once(request).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(failure)) if failure.kind == FailureKind::Busy => {}
                Ok(Err(failure)) => return Err(failure.into()),
                Err(error) => {
                    tracing::debug!(%error, socket = %self.socket.display(), "the broker did not answer");
                    *self.connection.lock().await = None;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn ask_once(&self, request: &Request) -> Result<Answer, CallError> {
        let client = self.client().await?;
        let deadline = Some(Duration::from_millis(u64::from(WAIT_MS_MAX)) + ANSWER_SLACK);
        let options = CallOptions { deadline, ..CallOptions::default() };
        client.call_with(request, options).await.map(|(answer, _)| answer)
    }

    async fn client(&self) -> Result<Client, CallError> {
        let mut connection = self.connection.lock().await;
        if let Some(client) = connection.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = Client::connect_unix(&self.socket).await.map_err(|_| CallError::Closed)?;
        *connection = Some(client.clone());
        Ok(client)
    }
}

fn ended_of(row: JobRow) -> Ended {
    let result = row.result.unwrap_or(JobResult::Failed);
    let code = row.waitstatus.map(exit_code);
    Ended {
        id: row.id,
        result,
        exit_code: match (code, result) {
            (Some(code), _) if code != 0 => code,
            (_, JobResult::Completed) => 0,
            _ => 1,
        },
        exception: row
            .exception
            .map(|raised| format!("{}: {}", raised.kind, raised.note))
            .unwrap_or_default(),
        started: row.t_run,
        ended: row.t_inactive,
        nodelist: row.nodelist,
    }
}
