//! `/api/fs`: filesystems and their targets.

use hyper::Method;
use kiln_telemetry::Metrics;

use super::{Answer, Routes, done, json, no_route};
use crate::api::ask::{Ask, Fault};
use crate::api::model::FsStatus;
use crate::api::model::fs::{ChangedOst, Filesystem, JobStats, NewSnapshot, Target};
use crate::fs::admin::AdminError;

impl Routes {
    pub(super) async fn filesystems(&self, ask: &Ask, rest: &[&str]) -> Answer {
        let fs = &self.fs;
        match (&ask.method, rest) {
            (&Method::GET, []) => json(&fs.list().await.map_err(fault)?),
            (&Method::GET, [name]) => json(&fs.status(name).await.map_err(fault)?),
            (&Method::GET, [name, "jobs"]) => json(&fs.jobs(name).await.map_err(fault)?),
            (&Method::POST, []) => {
                fs.create(ask.json()?).await.map_err(fault)?;
                done()
            }
            (&Method::DELETE, [name]) => {
                let removed = fs.destroy(name, ask.parsed("force", false)?).await.map_err(fault)?;
                json(&serde_json::json!({ "removed": removed }))
            }
            (&Method::GET, [name, "snapshots"]) => json(&fs.snapshots(name).await.map_err(fault)?),
            (&Method::POST, [name, "snapshots"]) => {
                let new: NewSnapshot = ask.json()?;
                fs.snapshot(name, &new.name).await.map_err(fault)?;
                done()
            }
            (&Method::DELETE, [name, "snapshots", snapshot]) => {
                let removed = fs.destroy_snapshot(name, snapshot).await.map_err(fault)?;
                json(&serde_json::json!({ "removed": removed }))
            }
            (&Method::POST, [name, "snapshots", snapshot, "rollback"]) => {
                let force = ask.parsed("force", false)?;
                fs.roll_back(name, snapshot, force).await.map_err(fault)?;
                done()
            }
            (&Method::POST, [name, "osts"]) => {
                let label = fs.add_ost(name, ask.json()?).await.map_err(fault)?;
                json(&serde_json::json!({ "label": label }))
            }
            (&Method::PUT, [name, "osts", index]) => {
                let Ok(index) = index.parse() else {
                    return Err(Fault::bad(format!("`{index}` is no index of an OST")));
                };
                let ChangedOst { draining } = ask.json()?;
                fs.set_draining(name, index, draining).await.map_err(fault)?;
                done()
            }
            _ => Err(no_route(ask)),
        }
    }
}

pub(super) fn fault(error: AdminError) -> Fault {
    match error {
        AdminError::Bad(why) => Fault::bad(why),
        AdminError::Missing(why) => Fault::missing(why),
        AdminError::Failed(why) => Fault::failed(why),
    }
}

/// Jobs of a filesystem that are told of in the metrics: those that did most.
const JOBS_SHOWN: usize = 10;

impl Routes {
    /// What is counted of every filesystem.
    pub(super) async fn filesystem_metrics(&self, metrics: &Metrics) -> Result<(), Fault> {
        for fs in self.fs.list().await.map_err(fault)? {
            whole(metrics, &fs);
            for target in &fs.targets {
                one_target(metrics, &fs.name, target);
            }
            // While its MDT is away nothing is known of them.
            for job in self.fs.jobs(&fs.name).await.unwrap_or_default().iter().take(JOBS_SHOWN) {
                one_job(metrics, &fs.name, job);
            }
        }
        Ok(())
    }
}

fn whole(metrics: &Metrics, fs: &Filesystem) {
    let status = FsStatus::of(fs);
    let set = |name, help, value: u64| metrics.gauge(name, help, &[("fs", &fs.name)]).set(value as i64);
    set("kiln_fs_targets", "Targets of a filesystem", status.targets as u64);
    set("kiln_fs_targets_serving", "Targets that are served", status.serving as u64);
    set("kiln_fs_clients", "Clients that have the filesystem mounted", status.clients as u64);
    set("kiln_fs_files", "Inodes of the filesystem", status.files);
    set("kiln_fs_total_bytes", "Space of all OSTs", status.total);
    set("kiln_fs_used_bytes", "Space that is used on the OSTs", status.used);
}

fn one_target(metrics: &Metrics, fs: &str, target: &Target) {
    let labels = [("fs", fs), ("target", target.label.as_str())];
    let set = |name, help, value: u64| metrics.gauge(name, help, &labels).set(value as i64);
    let serving = target.state == Target::SERVING;
    set("kiln_fs_target_serving", "Whether the target is served", serving.into());
    if let Some(space) = target.space {
        set("kiln_fs_target_total_bytes", "Space of the target", space.total);
        set("kiln_fs_target_available_bytes", "What may still be written to the target", space.available);
    }
    let count = |name, help, value| metrics.counter(name, help, &labels).inc_by(value);
    count("kiln_fs_target_requests", "Requests that the target was sent since its start", target.requests);
    if target.kind == "mdt" {
        count("kiln_fs_evictions", "Sessions that the MDT evicted since its start", target.evictions);
    }
}

fn one_job(metrics: &Metrics, fs: &str, job: &JobStats) {
    for (operation, counter) in &job.operations {
        let labels = [("fs", fs), ("job", job.job_id.as_str()), ("operation", operation.as_str())];
        let count = |name, help, value| metrics.counter(name, help, &labels).inc_by(value);
        count("kiln_fs_job_operations", "What the most active jobs did, how often", counter.samples);
        if counter.sum > 0 {
            count("kiln_fs_job_bytes", "Bytes that the most active jobs read and wrote", counter.sum);
        }
    }
}
