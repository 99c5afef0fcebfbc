//! Flow's jobs are the workload manager's.

use std::path::PathBuf;

use kiln_flow::core::TaskRun;
use kiln_flow::ports::{Jobs, Outcome, Pending, PortError};
use kiln_jobs::broker::{Ended, Jobs as Client, JobsError};
use kiln_jobs::core::NODE_LOST;
use kiln_jobs::proto::{FailureKind, LogName, Reply, Request, WAIT_MS_MAX};
use kiln_jobs::spec::build::NewJob;
use kiln_types::{JobId, Timestamp};
use serde_json::json;

/// The workload manager as flows and agents see it.
pub(crate) struct FluxJobs {
    client: Client,
    cwd: String,
}

impl FluxJobs {
    /// Jobs of the broker at `socket`, run in `cwd`.
    pub(crate) fn new(socket: PathBuf, cwd: String) -> Self {
        Self { client: Client::new(socket), cwd }
    }

    async fn submit_task(&self, run: &TaskRun) -> Result<JobId, PortError> {
        let jobspec = jobspec(run, &self.cwd)?;
        self.client.submit(jobspec, run.id.to_string()).await.map_err(port_error)
    }

    /// The time of the `start` event; `None` when the job ended without one.
    async fn start_time(&self, id: JobId) -> Result<Option<Timestamp>, PortError> {
        let mut from = 0;
        loop {
            let request = Request::Events { id, log: LogName::Main, from, wait_ms: WAIT_MS_MAX };
            let reply = self.client.ask(&request).await.map_err(port_error)?;
            let Reply::Events { entries, finished } = reply else {
                return Err(port_error(JobsError::Answer));
            };
            from += entries.len() as u64;
            if let Some(start) = entries.iter().find(|entry| entry.name == "start") {
                return Ok(Some(start.at));
            }
            if finished || entries.iter().any(|entry| entry.name == "clean") {
                return Ok(None);
            }
        }
    }

    async fn outcome(&self, id: JobId) -> Result<Outcome, PortError> {
        self.client.wait(id).await.map(outcome_of).map_err(port_error)
    }
}

/// One task on one core of the host that the agent serves.
fn jobspec(run: &TaskRun, cwd: &str) -> Result<String, PortError> {
    let job = NewJob {
        command: run.argv.clone(),
        ntasks: 1,
        cores_per_task: 1,
        duration: run.time_limit.map_or(0.0, |limit| limit.as_secs_f64()),
        environment: ["PATH", "HOME", "LANG"]
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect(),
        cwd: cwd.to_owned(),
        name: Some(run.task.clone()),
        constraints: run.host.as_ref().map(|host| json!({ "hostlist": [host] })),
        ..NewJob::default()
    };
    job.jobspec().map(|spec| spec.to_string()).map_err(|e| PortError::Refused(e.to_string()))
}

fn outcome_of(ended: Ended) -> Outcome {
    if ended.exception.starts_with(NODE_LOST) {
        return Outcome::Lost(ended.exception);
    }
    let at = ended.ended.or(ended.started).unwrap_or(Timestamp(0));
    Outcome::Ended { status: ended.exit_code, at }
}

fn port_error(error: JobsError) -> PortError {
    match error {
        // The manager's own trouble, and what it could not say: both may pass.
        JobsError::Refused(failure) if failure.kind == FailureKind::Internal => {
            PortError::Unavailable(failure.to_string())
        }
        JobsError::Refused(failure) => PortError::Refused(failure.to_string()),
        JobsError::Answer => PortError::Unavailable(error.to_string()),
    }
}

impl Jobs for FluxJobs {
    fn submit<'a>(&'a self, run: &'a TaskRun) -> Pending<'a, Result<JobId, PortError>> {
        Box::pin(self.submit_task(run))
    }

    fn started(&self, job: JobId) -> Pending<'_, Result<Option<Timestamp>, PortError>> {
        Box::pin(self.start_time(job))
    }

    fn ended(&self, job: JobId) -> Pending<'_, Result<Outcome, PortError>> {
        Box::pin(self.outcome(job))
    }
}
