//! What `flux jobs` knows about a job, by the names of its format fields.

use super::{
    format::{Value, local},
    ids,
};
use kiln_jobs::{
    core::{exit_code, signal_of},
    proto::{JobResult, JobRow, JobState},
    spec::json::spaced_ascii,
};
use kiln_types::Timestamp;
use serde_json::{Map, json};

/// Names and headings.
const FIELDS: &[(&str, &str)] = &[
    ("id", "JOBID"),
    ("jobid", "JOBID"),
    ("id.f58", "JOBID"),
    ("id.f58plain", "JOBID"),
    ("id.dec", "JOBID"),
    ("id.hex", "JOBID"),
    ("id.dothex", "JOBID"),
    ("id.kvs", "JOBID"),
    ("userid", "UID"),
    ("username", "USER"),
    ("urgency", "URG"),
    ("priority", "PRI"),
    ("state", "STATE"),
    ("state_single", "S"),
    ("status", "STATUS"),
    ("status_abbrev", "ST"),
    ("name", "NAME"),
    ("cwd", "CWD"),
    ("queue", "QUEUE"),
    ("project", "PROJECT"),
    ("bank", "BANK"),
    ("ntasks", "NTASKS"),
    ("ncores", "NCORES"),
    ("nnodes", "NNODES"),
    ("duration", "DURATION"),
    ("ranks", "RANKS"),
    ("nodelist", "NODELIST"),
    ("success", "SUCCESS"),
    ("result", "RESULT"),
    ("result_abbrev", "RS"),
    ("returncode", "RC"),
    ("waitstatus", "WSTATUS"),
    ("expiration", "EXPIRATION"),
    ("t_submit", "T_SUBMIT"),
    ("t_depend", "T_DEPEND"),
    ("t_sched", "T_SCHED"),
    ("t_run", "T_RUN"),
    ("t_cleanup", "T_CLEANUP"),
    ("t_inactive", "T_INACTIVE"),
    ("t_remaining", "T_REMAINING"),
    ("runtime", "RUNTIME"),
    ("dependencies", "DEPENDENCIES"),
    ("annotations", "ANNOTATIONS"),
    ("sched", "SCHED"),
    ("annotations.sched.resource_summary", "RESOURCES"),
    ("sched.resource_summary", "RESOURCES"),
    ("exception.occurred", "EXCEPTION-OCCURRED"),
    ("exception.severity", "EXCEPTION-SEVERITY"),
    ("exception.type", "EXCEPTION-TYPE"),
    ("exception.note", "EXCEPTION-NOTE"),
    ("contextual_info", "INFO"),
    ("contextual_time", "TIME"),
    ("inactive_reason", "INACTIVE-REASON"),
];

/// The heading of a field; none when there is no such field.
pub(super) fn heading(name: &str) -> Option<&'static str> {
    FIELDS.iter().find(|(known, _)| *known == name).map(|(_, heading)| *heading)
}

/// The user's name, or the number when the user has none here.
pub(super) fn username(userid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(userid));
    user.ok().flatten().map_or_else(|| userid.to_string(), |user| user.name)
}

/// The value of a field, as of `now`.
pub(super) fn value(row: &JobRow, name: &str, now: Timestamp) -> Value {
    match name {
        "id" | "jobid" | "id.f58" => ids::show(row.id).into(),
        "id.f58plain" => row.id.to_f58_plain().into(),
        "id.dec" => row.id.number().to_string().into(),
        "id.hex" => row.id.to_hex().into(),
        "id.dothex" => row.id.to_dothex().into(),
        "id.kvs" => row.id.to_kvs().into(),
        "userid" => row.userid.into(),
        "username" => username(row.userid).into(),
        "urgency" => row.urgency.into(),
        "priority" => row.priority.map_or(Value::Nothing, Value::from),
        "state" => row.state.name().into(),
        "state_single" => row.state.letter().into(),
        "status" => status(row).into(),
        "status_abbrev" => row.result.map_or(row.state.letter(), JobResult::abbreviation).into(),
        "name" => row.name.as_str().into(),
        "cwd" => row.cwd.as_str().into(),
        "queue" => row.queue.as_str().into(),
        "ntasks" => row.ntasks.into(),
        "ncores" => row.ncores.map_or(Value::Nothing, Value::from),
        "nnodes" => row.nnodes.map_or(Value::Nothing, Value::from),
        "duration" => Value::Number(row.duration),
        "ranks" => row.ranks.to_string().into(),
        "nodelist" => row.nodelist.as_str().into(),
        "dependencies" => row.dependencies.join(",").into(),
        _ => result_value(row, name)
            .or_else(|| time_value(row, name, now))
            .unwrap_or_else(|| context_value(row, name, now)),
    }
}

fn status(row: &JobRow) -> &'static str {
    row.result.map_or(row.state.name(), JobResult::name)
}

fn result_value(row: &JobRow, name: &str) -> Option<Value> {
    let some = |value: Option<Value>| value.unwrap_or(Value::Nothing);
    let python = |yes: bool| Value::from(if yes { "True" } else { "False" });
    Some(match name {
        "result" => some(row.result.map(|result| result.name().into())),
        "result_abbrev" => some(row.result.map(|result| result.abbreviation().into())),
        "success" => some(row.result.map(|result| python(result == JobResult::Completed))),
        "returncode" => some(returncode(row).map(Value::from)),
        "waitstatus" => some(row.waitstatus.map(Value::from)),
        "exception.occurred" => python(row.exception.is_some()),
        "exception.severity" => some(row.exception.as_ref().map(|raised| raised.severity.into())),
        "exception.type" => some(row.exception.as_ref().map(|raised| raised.kind.as_str().into())),
        "exception.note" => some(row.exception.as_ref().map(|raised| raised.note.as_str().into())),
        _ => return None,
    })
}

/// The worst task's exit code, or minus its signal; 1 when an exception kept the tasks from running.
fn returncode(row: &JobRow) -> Option<i32> {
    row.result?;
    match row.waitstatus {
        Some(status) => Some(signal_of(status).map_or_else(|| exit_code(status), |signal| -signal)),
        None if row.result == Some(JobResult::Canceled) => Some(-128),
        None => Some(1),
    }
}

fn time_value(row: &JobRow, name: &str, now: Timestamp) -> Option<Value> {
    let moment = match name {
        "expiration" => row.expiration,
        "t_submit" => Some(row.t_submit),
        "t_depend" => row.t_depend,
        "t_sched" => row.t_sched,
        "t_run" => row.t_run,
        "t_cleanup" => row.t_cleanup,
        "t_inactive" => row.t_inactive,
        "t_remaining" => return Some(Value::Number(remaining(row, now))),
        "runtime" => return Some(Value::Number(runtime(row, now))),
        _ => return None,
    };
    Some(Value::Number(moment.map_or(0.0, Timestamp::seconds_f64)))
}

/// Seconds until a running job's time is up; 0 without a limit.
fn remaining(row: &JobRow, now: Timestamp) -> f64 {
    let until = row.expiration.filter(|_| row.state == JobState::Run);
    until.map_or(0.0, |until| until.since(now).as_secs_f64())
}

/// Seconds that the job ran until now, or until it ended.
fn runtime(row: &JobRow, now: Timestamp) -> f64 {
    row.t_run.map_or(0.0, |from| row.t_cleanup.unwrap_or(now).since(from).as_secs_f64())
}

fn context_value(row: &JobRow, name: &str, now: Timestamp) -> Value {
    match name {
        "contextual_info" => contextual_info(row).into(),
        "contextual_time" if row.state < JobState::Run => Value::Number(row.duration),
        "contextual_time" => Value::Number(runtime(row, now)),
        "inactive_reason" => inactive_reason(row).into(),
        "annotations" if !row.resource_summary.is_empty() => annotations(row).to_string().into(),
        "sched" if !row.resource_summary.is_empty() => annotations(row)["sched"].to_string().into(),
        "annotations.sched.resource_summary" | "sched.resource_summary" => {
            row.resource_summary.as_str().into()
        }
        _ => Value::Nothing,
    }
}

/// What is worth knowing most in the job's state: what it waits for, or where it runs.
fn contextual_info(row: &JobRow) -> String {
    match row.state {
        JobState::New | JobState::Depend => format!(
            "depends:{}",
            row.dependencies.iter().map(|one| dependency(one)).collect::<Vec<_>>().join(",")
        ),
        JobState::Priority => "priority-wait".to_owned(),
        JobState::Sched if row.priority == Some(0) => "held".to_owned(),
        JobState::Sched => String::new(),
        JobState::Run | JobState::Cleanup | JobState::Inactive => row.nodelist.clone(),
    }
}

/// `begin-time=1795373244.087` is shown as `begin@18:47:24`.
fn dependency(description: &str) -> String {
    let at = description.strip_prefix("begin-time=").and_then(|at| at.parse().ok());
    at.map_or_else(
        || description.to_owned(),
        |at| format!("begin@{}", local(Timestamp::from_seconds_f64(at), "%T")),
    )
}

fn inactive_reason(row: &JobRow) -> String {
    let note = row.exception.as_ref().filter(|raised| raised.severity == 0);
    match (row.result, note, row.waitstatus) {
        (None, ..) => String::new(),
        (Some(JobResult::Canceled), Some(raised), _) if raised.note.is_empty() => "Canceled".to_owned(),
        (Some(JobResult::Canceled), Some(raised), _) => format!("Canceled: {}", raised.note),
        (Some(JobResult::Timeout), ..) => "Timeout".to_owned(),
        (Some(JobResult::Failed), Some(raised), _) => {
            format!("Exception: type={} note={}", raised.kind, raised.note)
        }
        (_, _, Some(status)) => match super::attach::end_text(status) {
            Some(text) if text.starts_with("exited") => format!("Exit {}", exit_code(status)),
            Some(text) => text,
            None => "Exit 0".to_owned(),
        },
        _ => String::new(),
    }
}

fn annotations(row: &JobRow) -> serde_json::Value {
    if row.resource_summary.is_empty() {
        json!({})
    } else {
        json!({"sched": {"resource_summary": row.resource_summary}})
    }
}

/// Rows as `flux jobs --json` prints them.
pub(super) fn to_json(rows: &[JobRow], now: Timestamp) -> String {
    let jobs: Vec<serde_json::Value> = rows.iter().map(|row| job_json(row, now)).collect();
    spaced_ascii(&json!({"jobs": jobs}))
}

fn job_json(row: &JobRow, now: Timestamp) -> serde_json::Value {
    let mut job = Map::new();
    let mut put = |name: &str, value: serde_json::Value| {
        if !value.is_null() {
            job.insert(name.to_owned(), value);
        }
    };
    let moment = |at: Option<Timestamp>| at.map_or(serde_json::Value::Null, |at| json!(at.seconds_f64()));
    for (name, at) in [
        ("t_depend", row.t_depend),
        ("t_priority", row.t_priority),
        ("t_sched", row.t_sched),
        ("t_run", row.t_run),
        ("t_cleanup", row.t_cleanup),
        ("t_inactive", row.t_inactive),
    ] {
        put(name, moment(at));
    }
    put("duration", json!(row.duration));
    put("expiration", moment(row.expiration));
    put("name", json!(row.name));
    put("cwd", json!(row.cwd));
    put("queue", if row.queue.is_empty() { serde_json::Value::Null } else { json!(row.queue) });
    put("ntasks", json!(row.ntasks));
    put("ncores", json!(row.ncores));
    put("nnodes", json!(row.nnodes));
    put("priority", json!(row.priority));
    if row.t_run.is_some() {
        put("ranks", json!(row.ranks.to_string()));
        put("nodelist", json!(row.nodelist));
    }
    put("success", json!(row.result.map(|result| result == JobResult::Completed)));
    put("result", json!(row.result.map(JobResult::name)));
    put("waitstatus", json!(row.waitstatus));
    put("id", json!(row.id.number()));
    put("t_submit", moment(Some(row.t_submit)));
    if row.expiration.is_some() && row.state == JobState::Run {
        put("t_remaining", json!(remaining(row, now)));
    }
    put("state", json!(row.state.name()));
    put("username", json!(username(row.userid)));
    put("userid", json!(row.userid));
    put("urgency", json!(row.urgency));
    put("runtime", json!(runtime(row, now)));
    put("status", json!(status(row)));
    put("returncode", json!(returncode(row)));
    put("dependencies", json!(row.dependencies));
    put("jobid", json!(row.id.to_string()));
    put("annotations", annotations(row));
    put(
        "exception",
        match &row.exception {
            Some(raised) => {
                json!({"occurred": true, "severity": raised.severity, "type": raised.kind, "note": raised.note})
            }
            None => json!({"occurred": false}),
        },
    );
    serde_json::Value::Object(job)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kiln_jobs::proto::RaisedException;
    use kiln_types::{IdSet, JobId};

    pub(in super::super) const NOW: Timestamp = Timestamp(1_795_373_280_122_000);

    /// A running job of our own making, like one of the reference's.
    pub(in super::super) fn running() -> JobRow {
        let at = |micros: i64| Some(Timestamp(1_795_373_269_000_000 + micros));
        JobRow {
            id: JobId::new(2_190_701_756_416),
            userid: 0,
            state: JobState::Run,
            result: None,
            urgency: 16,
            priority: Some(16),
            name: "two".into(),
            cwd: "/home/user".into(),
            queue: String::new(),
            ntasks: 2,
            ncores: Some(2),
            nnodes: Some(1),
            ranks: IdSet::range(1..=1),
            nodelist: "vm".into(),
            duration: 3600.0,
            expiration: Some(Timestamp(1_795_376_869_000_000)),
            t_submit: Timestamp(1_795_373_268_911_337),
            t_depend: at(-90_000),
            t_priority: at(-80_000),
            t_sched: at(-70_000),
            t_run: at(0),
            t_cleanup: None,
            t_inactive: None,
            waitstatus: None,
            exception: None,
            dependencies: Vec::new(),
            resource_summary: "rank1/core[0-1]".into(),
        }
    }

    /// A job that no node could take.
    pub(in super::super) fn refused() -> JobRow {
        let note = "unsatisfiable request: need 4 node(s) with 4 cores each, only 0 eligible".to_owned();
        JobRow {
            id: JobId::new(2_224_608_509_952),
            state: JobState::Inactive,
            result: Some(JobResult::Failed),
            name: "sleep".into(),
            ntasks: 16,
            nnodes: Some(4),
            nodelist: String::new(),
            duration: 0.0,
            expiration: None,
            t_run: None,
            exception: Some(RaisedException { kind: "alloc".into(), severity: 0, note }),
            resource_summary: String::new(),
            ..running()
        }
    }

    #[test]
    fn every_field_has_a_value_of_some_kind() {
        for (name, _) in FIELDS {
            let _ = value(&running(), name, NOW);
            assert!(heading(name).is_some());
        }
        assert_eq!(heading("nope"), None);
    }

    #[test]
    fn what_is_said_about_waiting_jobs() {
        let mut row = JobRow { state: JobState::Sched, priority: Some(0), ..running() };
        assert_eq!(contextual_info(&row), "held");
        row.state = JobState::Depend;
        row.dependencies = vec!["after-success=ƒ21".into()];
        assert_eq!(contextual_info(&row), "depends:after-success=ƒ21");
        row.dependencies = vec!["begin-time=1795373244.087".into()];
        assert!(contextual_info(&row).starts_with("depends:begin@"), "{}", contextual_info(&row));
    }

    #[test]
    fn json_has_python_spacing_and_ascii_only() {
        let json = to_json(&[running()], NOW);
        assert!(json.starts_with(r#"{"jobs": [{"t_depend": 1795373268.91, "#), "{json}");
        assert!(json.contains(r#""jobid": "\u0192zYfp8HD", "annotations": {"sched": {"resource_summary": "rank1/core[0-1]"}}, "exception": {"occurred": false}}]}"#), "{json}");
        assert!(to_json(&[refused()], NOW).contains(r#""success": false, "result": "FAILED""#));
    }
}
