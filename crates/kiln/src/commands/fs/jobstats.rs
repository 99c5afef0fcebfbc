//! `kiln fs jobstats`.

use std::fmt::Write as _;
use std::io::Write as _;

use kiln_fs::core::jobs::Operation;

use super::path;
use crate::api::client::get;
use crate::api::model::fs::{Filesystem, JobCounter, JobStats};
use crate::commands::Usage;
use crate::paths::DataDir;
use crate::table::{self, human_size};

/// How the jobs are printed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// In columns, so many of them.
    Table { top: usize },
    /// As `lctl get_param *.*.job_stats` prints them.
    Yaml,
    /// As the API has them.
    Json,
}

pub(super) async fn show(data: &DataDir, name: Option<String>, form: Form) -> anyhow::Result<()> {
    let name = match name {
        Some(name) => name,
        None => only(data).await?,
    };
    let jobs: Vec<JobStats> = get(data, &format!("{}/jobs", path(&name))).await?;
    let mut out = std::io::stdout().lock();
    match form {
        Form::Json => {
            serde_json::to_writer_pretty(&mut out, &jobs)?;
            writeln!(out)?;
        }
        Form::Yaml => write!(out, "{}", yaml(&jobs))?,
        Form::Table { .. } if jobs.is_empty() => {
            writeln!(out, "no job has done anything to {name} lately, as far as its mounts have told")?;
        }
        Form::Table { top } => {
            let rows: Vec<Vec<String>> = jobs.iter().take(top).map(row).collect();
            let columns =
                ["JOB", "OPEN", "CLOSE", "MADE", "REMOVED", "GETATTR", "READS", "READ", "WRITES", "WRITTEN"];
            table::write(&mut out, &columns, &rows)?;
            if jobs.len() > top {
                writeln!(out, "and {} more; --top shows them", jobs.len() - top)?;
            }
        }
    }
    Ok(())
}

/// The only filesystem.
async fn only(data: &DataDir) -> anyhow::Result<String> {
    let all: Vec<Filesystem> = get(data, "/api/fs").await?;
    match all.as_slice() {
        [one] => Ok(one.name.clone()),
        [] => anyhow::bail!("there is no filesystem; make one with: kiln fs create NAME"),
        several => {
            let names: Vec<&str> = several.iter().map(|fs| fs.name.as_str()).collect();
            Err(Usage(format!("say which filesystem: {}", names.join(", "))).into())
        }
    }
}

fn row(job: &JobStats) -> Vec<String> {
    let counter = |operation: Operation| counter(job, operation);
    let samples = |of: &[Operation]| of.iter().map(|one| counter(*one).samples).sum::<u64>().to_string();
    let (read, write) = (Operation::ReadBytes, Operation::WriteBytes);
    vec![
        job.job_id.clone(),
        samples(&[Operation::Open]),
        samples(&[Operation::Close]),
        samples(&[Operation::Mknod, Operation::Mkdir, Operation::Link]),
        samples(&[Operation::Unlink, Operation::Rmdir]),
        samples(&[Operation::Getattr]),
        samples(&[read]),
        human_size(counter(read).sum),
        samples(&[write]),
        human_size(counter(write).sum),
    ]
}

fn counter(job: &JobStats, operation: Operation) -> JobCounter {
    job.operations.get(operation.name()).copied().unwrap_or_default()
}

/// Jobs as Lustre has them.
fn yaml(jobs: &[JobStats]) -> String {
    let mut text = "job_stats:\n".to_owned();
    let seconds = |millis: i64| format!("{}.{:03}000000", millis.div_euclid(1000), millis.rem_euclid(1000));
    for job in jobs {
        let mut line = |key: &str, value: &str| {
            writeln!(text, "  {:<16} {value}", format!("{key}:")).expect("a string takes all");
        };
        line("job_id", &job.job_id);
        line("snapshot_time", &seconds(job.snapshot_time));
        line("start_time", &seconds(job.start_time));
        for operation in Operation::ALL {
            line(operation.name(), &counted(operation, counter(job, operation)));
        }
    }
    text.replace("  job_id:", "- job_id:")
}

fn counted(operation: Operation, counter: JobCounter) -> String {
    let JobCounter { samples, min, max, sum } = counter;
    if operation.has_bytes() {
        format!("{{ samples: {samples:11}, unit: bytes, min: {min:8}, max: {max:8}, sum: {sum:16} }}")
    } else {
        format!("{{ samples: {samples:11}, unit:  reqs }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobStats {
        let opened = ("open".to_owned(), JobCounter { samples: 2, ..JobCounter::default() });
        let written = JobCounter { samples: 3, min: 10, max: 4096, sum: 5000 };
        JobStats {
            job_id: "ƒ2kY".to_owned(),
            start_time: 1_322_494_476_012,
            snapshot_time: 1_322_494_486_123,
            operations: [opened, ("write_bytes".to_owned(), written)].into(),
        }
    }

    #[test]
    fn jobs_are_printed_as_lustre_does() {
        let text = yaml(&[job(), job()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "job_stats:");
        assert_eq!(lines[1], "- job_id:          ƒ2kY");
        assert_eq!(lines[2], "  snapshot_time:   1322494486.123000000");
        assert_eq!(lines[4], "  open:            { samples:           2, unit:  reqs }");
        let written = "  write_bytes:     { samples:           3, unit: bytes, min:       10, max:     4096, sum:             5000 }";
        assert_eq!(lines[19], written);
        assert_eq!(lines[20], "- job_id:          ƒ2kY");
    }

    #[test]
    fn a_row_has_the_columns_that_are_named() {
        let shown = row(&job()).join(" ");
        assert_eq!(shown, format!("ƒ2kY 2 0 0 0 0 0 {} 3 {}", human_size(0), human_size(5000)));
    }
}
