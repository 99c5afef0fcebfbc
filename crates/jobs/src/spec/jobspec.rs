//! Jobspec V1 as it is read (Flux RFC 14 and 25).

use super::{
    constraint::{BadConstraint, Constraint},
    shape::{self, BadShape, COUNT_MAX, Shape},
};
use crate::proto::JOBSPEC_BYTES_MAX;
use kiln_types::{IdSet, JobId};
use serde_json::{Map, Value};

/// The most dependencies that one job may have.
const DEPENDENCIES_MAX: usize = 1_000;

/// A job as its owner describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Jobspec {
    /// How much it asks for.
    pub shape: Shape,
    /// Program and arguments of every task; never empty.
    pub command: Vec<String>,
    /// How many tasks.
    pub tasks: TaskCount,
    /// The time limit in seconds; 0 means none.
    pub duration: f64,
    /// Working directory; empty means the broker's.
    pub cwd: String,
    /// Name for lists.
    pub name: String,
    /// The queue asked for; empty when there is none.
    pub queue: String,
    /// Environment of the tasks, names and values.
    pub environment: Vec<(String, String)>,
    /// Which nodes it accepts; none means all.
    pub constraint: Option<Constraint>,
    /// What it waits for.
    pub dependencies: Vec<Dependency>,
    /// Options of the shell (`attributes.system.shell.options`).
    pub options: Map<String, Value>,
    /// Files to lay out in the job's directory before the tasks start (RFC 37): name, mode, content.
    pub files: Vec<JobFile>,
}

/// How many tasks a job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskCount {
    /// So many in each slot.
    PerSlot(u32),
    /// So many in all.
    Total(u32),
    /// So many on each node (shell option `per-resource`).
    PerNode(u32),
    /// So many on each core (shell option `per-resource`).
    PerCore(u32),
}

/// Something that must happen before a job may be scheduled (RFC 26).
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// The word for it, such as `afterok`.
    pub scheme: String,
    /// Its value as the owner wrote it.
    pub value: String,
    /// What it means.
    pub condition: Condition,
}

/// What a dependency waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// `after`: the job has started.
    Started(JobId),
    /// `afterok`: the job completed.
    Succeeded(JobId),
    /// `afternotok`: the job failed.
    Failed(JobId),
    /// `afterany`: the job is over.
    Ended(JobId),
    /// `begin-time`: seconds since the epoch.
    Begin(f64),
}

/// A file of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFile {
    /// Its name in the job's directory; no path.
    pub name: String,
    /// Type and permission bits, such as 0o100700.
    pub mode: u32,
    /// What is in it.
    pub data: String,
}

/// Why a jobspec is refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BadJobspec {
    /// Longer than [`JOBSPEC_BYTES_MAX`].
    #[error(
        "jobspec: {0} bytes are too many, at most {JOBSPEC_BYTES_MAX}; pass a smaller environment or script"
    )]
    Long(usize),
    /// Not JSON.
    #[error("jobspec: not valid JSON: {0}")]
    Json(String),
    /// Something is missing or of a wrong type.
    #[error("jobspec: {0}")]
    Malformed(String),
    /// The resource section.
    #[error(transparent)]
    Shape(#[from] BadShape),
    /// The constraints.
    #[error(transparent)]
    Constraint(#[from] BadConstraint),
    /// A dependency that cannot be understood.
    #[error("dependency: {0}")]
    Dependency(String),
}

fn malformed(text: impl Into<String>) -> BadJobspec {
    BadJobspec::Malformed(text.into())
}

impl Jobspec {
    /// Reads and checks a jobspec.
    ///
    /// # Errors
    /// With the first thing that RFC 25 does not allow, or that Kiln does not support.
    pub fn parse(json: &str) -> Result<Self, BadJobspec> {
        if json.len() > JOBSPEC_BYTES_MAX {
            return Err(BadJobspec::Long(json.len()));
        }
        let root: Value = serde_json::from_str(json).map_err(|error| BadJobspec::Json(error.to_string()))?;
        if root["version"] != 1 {
            return Err(malformed("version must be 1"));
        }
        let system = &root["attributes"]["system"];
        let options = system["shell"]["options"].as_object().cloned().unwrap_or_default();
        let command = command(&root["tasks"])?;
        Ok(Self {
            shape: shape::parse(&root["resources"])?,
            tasks: task_count(&root["tasks"][0]["count"], &options)?,
            duration: duration(&system["duration"])?,
            cwd: text(&system["cwd"]),
            name: name(&system["job"]["name"], &command),
            queue: text(&system["queue"]),
            environment: environment(&system["environment"])?,
            constraint: constraint(&system["constraints"])?,
            dependencies: dependencies(&system["dependencies"])?,
            files: files(&system["files"])?,
            options,
            command,
        })
    }

    /// How many tasks there are on these nodes, given the job's cores on each.
    #[must_use]
    pub fn ntasks(&self, nodes: u32, cores: u32) -> u32 {
        let many = match self.tasks {
            TaskCount::PerSlot(each) => self.shape.slots_total() * u64::from(each),
            TaskCount::Total(total) => u64::from(total),
            TaskCount::PerNode(each) => u64::from(nodes) * u64::from(each),
            TaskCount::PerCore(each) => u64::from(cores) * u64::from(each),
        };
        u32::try_from(many).unwrap_or(u32::MAX)
    }

    /// Which tasks run on each node, given slots and cores of the job there.
    ///
    /// Tasks are dealt out in blocks, or in turn when the shell option `taskmap` asks for `cyclic`.
    #[must_use]
    pub fn layout(&self, nodes: &[(u32, u32)]) -> Vec<IdSet> {
        let counts: Vec<u32> = match self.tasks {
            TaskCount::PerSlot(each) => nodes.iter().map(|&(slots, _)| slots.saturating_mul(each)).collect(),
            TaskCount::PerNode(each) => nodes.iter().map(|_| each).collect(),
            TaskCount::PerCore(each) => nodes.iter().map(|&(_, cores)| cores.saturating_mul(each)).collect(),
            TaskCount::Total(total) => evenly(total, nodes.len() as u32),
        };
        if self.options.get("taskmap").is_some_and(asks_for_cyclic) {
            in_turn(&counts)
        } else {
            in_blocks(&counts)
        }
    }

    /// The task count that lists show before anything is allocated.
    #[must_use]
    pub fn ntasks_asked(&self) -> u32 {
        let cores = u32::try_from(self.shape.slots_total() * u64::from(self.shape.cores)).unwrap_or(u32::MAX);
        self.ntasks(self.shape.nodes.unwrap_or(1), cores)
    }
}

fn asks_for_cyclic(option: &Value) -> bool {
    option.as_str().or_else(|| option["scheme"].as_str()).is_some_and(|scheme| scheme.starts_with("cyclic"))
}

fn evenly(total: u32, nodes: u32) -> Vec<u32> {
    let nodes = nodes.max(1);
    (0..nodes).map(|node| total / nodes + u32::from(node < total % nodes)).collect()
}

fn in_blocks(counts: &[u32]) -> Vec<IdSet> {
    let mut next = 0u32;
    counts
        .iter()
        .map(|&count| {
            let first = next;
            next = next.saturating_add(count);
            if count == 0 { IdSet::new() } else { IdSet::range(first..=next - 1) }
        })
        .collect()
}

fn in_turn(counts: &[u32]) -> Vec<IdSet> {
    let mut sets = vec![IdSet::new(); counts.len()];
    let mut next = 0;
    for round in 0..counts.iter().copied().max().unwrap_or(0) {
        for (set, _) in sets.iter_mut().zip(counts).filter(|&(_, &count)| round < count) {
            set.insert(next);
            next += 1;
        }
    }
    sets
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn command(tasks: &Value) -> Result<Vec<String>, BadJobspec> {
    let bad = || malformed("tasks must be an array of one task with a command");
    let [task] = tasks.as_array().map(Vec::as_slice).ok_or_else(bad)? else { return Err(bad()) };
    let words: Option<Vec<String>> = match &task["command"] {
        Value::String(word) => Some(vec![word.clone()]),
        Value::Array(words) => words.iter().map(|word| word.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    words.filter(|words| words.first().is_some_and(|program| !program.is_empty())).ok_or_else(bad)
}

fn task_count(count: &Value, options: &Map<String, Value>) -> Result<TaskCount, BadJobspec> {
    let whole = |value: &Value| {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| (1..=COUNT_MAX).contains(number))
    };
    if let Some(option) = options.get("per-resource") {
        let each = if option["count"].is_null() { Some(1) } else { whole(&option["count"]) };
        return match (option["type"].as_str(), each) {
            (Some("node"), Some(each)) => Ok(TaskCount::PerNode(each)),
            (Some("core"), Some(each)) => Ok(TaskCount::PerCore(each)),
            _ => Err(malformed("shell option per-resource needs a type, node or core, and a count")),
        };
    }
    let per_slot = whole(&count["per_slot"]).map(TaskCount::PerSlot);
    let total = || whole(&count["total"]).map(TaskCount::Total);
    per_slot.or_else(total).ok_or_else(|| malformed("tasks: count must have per_slot or total, 1 or more"))
}

fn duration(value: &Value) -> Result<f64, BadJobspec> {
    let seconds = if value.is_null() { Some(0.0) } else { value.as_f64() };
    seconds
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .ok_or_else(|| malformed("attributes.system.duration must be a number of seconds, 0 or more"))
}

fn name(value: &Value, command: &[String]) -> String {
    let program = || command[0].rsplit('/').next().unwrap_or_default().to_owned();
    value.as_str().map_or_else(program, str::to_owned)
}

fn environment(value: &Value) -> Result<Vec<(String, String)>, BadJobspec> {
    let Some(pairs) = value.as_object() else { return Ok(Vec::new()) };
    let bad = || malformed("attributes.system.environment must hold strings without NUL");
    pairs
        .iter()
        .map(|(name, value)| {
            let value = value.as_str().ok_or_else(bad)?;
            let sound = !name.is_empty() && !name.contains(['\0', '=']) && !value.contains('\0');
            if sound { Ok((name.clone(), value.to_owned())) } else { Err(bad()) }
        })
        .collect()
}

fn constraint(value: &Value) -> Result<Option<Constraint>, BadJobspec> {
    let set = !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty());
    Ok(set.then(|| Constraint::parse(value)).transpose()?)
}

fn dependencies(value: &Value) -> Result<Vec<Dependency>, BadJobspec> {
    let Some(list) = value.as_array() else { return Ok(Vec::new()) };
    if list.len() > DEPENDENCIES_MAX {
        return Err(BadJobspec::Dependency(format!("at most {DEPENDENCIES_MAX} are possible")));
    }
    list.iter().map(dependency).collect()
}

fn dependency(entry: &Value) -> Result<Dependency, BadJobspec> {
    let scheme = entry["scheme"].as_str().unwrap_or_default();
    let value = match &entry["value"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let condition = condition(scheme, &value).map_err(BadJobspec::Dependency)?;
    Ok(Dependency { scheme: scheme.to_owned(), value, condition })
}

fn condition(scheme: &str, value: &str) -> Result<Condition, String> {
    let id = || value.parse::<JobId>().map_err(|_| format!("{scheme}: \"{value}\" is not a valid jobid"));
    match scheme {
        "after" => id().map(Condition::Started),
        "afterok" => id().map(Condition::Succeeded),
        "afternotok" => id().map(Condition::Failed),
        "afterany" => id().map(Condition::Ended),
        "begin-time" => {
            let at = value.parse().ok().filter(|at: &f64| at.is_finite());
            at.map(Condition::Begin).ok_or_else(|| format!("begin-time: invalid time {value}"))
        }
        other => Err(format!("dependency scheme \"{other}\" not supported")),
    }
}

impl Dependency {
    /// As the `dependency-add` event names it.
    #[must_use]
    pub fn description(&self) -> String {
        match self.condition {
            Condition::Started(id) => format!("after-start={id}"),
            Condition::Succeeded(id) => format!("after-success={id}"),
            Condition::Failed(id) => format!("after-failure={id}"),
            Condition::Ended(id) => format!("after-finish={id}"),
            Condition::Begin(at) => format!("begin-time={at:.3}"),
        }
    }
}

fn files(value: &Value) -> Result<Vec<JobFile>, BadJobspec> {
    let Some(files) = value.as_object() else { return Ok(Vec::new()) };
    files.iter().map(|(name, file)| job_file(name, file)).collect()
}

fn job_file(name: &str, file: &Value) -> Result<JobFile, BadJobspec> {
    let plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    if !plain {
        return Err(malformed(format!("files: '{name}' must be a plain name")));
    }
    if file["encoding"].as_str().is_some_and(|encoding| encoding != "utf-8") {
        return Err(malformed(format!("files: '{name}' must be encoded as utf-8")));
    }
    let data = match &file["data"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(JobFile { name: name.to_owned(), mode: file["mode"].as_u64().unwrap_or(0o100_600) as u32, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(count: &Value, system: &Value) -> Value {
        json!({"version": 1,
            "resources": [{"type": "node", "count": 2, "with": [
                {"type": "slot", "count": 2, "label": "task", "with": [{"type": "core", "count": 1}]}]}],
            "tasks": [{"command": ["/bin/echo", "hi"], "slot": "task", "count": count}],
            "attributes": {"system": system}})
    }

    fn parse(count: &Value, system: &Value) -> Result<Jobspec, BadJobspec> {
        Jobspec::parse(&spec(count, system).to_string())
    }

    fn layout(count: &Value, system: &Value) -> Vec<String> {
        parse(count, system).unwrap().layout(&[(2, 2), (2, 2)]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_what_it_needs() {
        let job = parse(
            &json!({"per_slot": 1}),
            &json!({"duration": 300.0, "cwd": "/tmp", "environment": {"A": "b"}, "queue": "debug",
                "dependencies": [{"scheme": "afterok", "value": "ƒ21"}, {"scheme": "begin-time", "value": "12.5"}],
                "constraints": {"ranks": ["1"]}, "files": {"script": {"mode": 33216, "data": "#!/bin/sh\n", "encoding": "utf-8"}}}),
        )
        .unwrap();
        assert_eq!(
            (job.name.as_str(), job.cwd.as_str(), job.duration, job.queue.as_str()),
            ("echo", "/tmp", 300.0, "debug")
        );
        assert_eq!(job.environment, [("A".to_owned(), "b".to_owned())]);
        let descriptions: Vec<String> = job.dependencies.iter().map(Dependency::description).collect();
        assert_eq!(descriptions, ["after-success=ƒ21", "begin-time=12.500"]);
        assert_eq!(job.files[0].mode, 0o100_700);
        assert_eq!(job.ntasks_asked(), 4);
    }

    #[test]
    fn tasks_are_laid_out() {
        assert_eq!(layout(&json!({"per_slot": 1}), &json!({})), ["0-1", "2-3"]);
        assert_eq!(layout(&json!({"total": 3}), &json!({})), ["0-1", "2"]);
        let shell = |options: &Value| json!({"shell": {"options": options}});
        assert_eq!(
            layout(&json!({"per_slot": 1}), &shell(&json!({"per-resource": {"type": "node"}}))),
            ["0", "1"]
        );
        assert_eq!(
            layout(&json!({"per_slot": 1}), &shell(&json!({"taskmap": {"scheme": "cyclic"}}))),
            ["0,2", "1,3"]
        );
    }

    #[test]
    fn refuses() {
        let one = json!({"per_slot": 1});
        for (count, system, part) in [
            (json!({}), json!({}), "per_slot or total"),
            (json!({"per_slot": 0}), json!({}), "per_slot or total"),
            (one.clone(), json!({"duration": -1}), "duration"),
            (one.clone(), json!({"environment": {"A": 1}}), "environment"),
            (
                one.clone(),
                json!({"dependencies": [{"scheme": "nope", "value": "1"}]}),
                "scheme \"nope\" not supported",
            ),
            (
                one.clone(),
                json!({"dependencies": [{"scheme": "afterok", "value": "xyz"}]}),
                "not a valid jobid",
            ),
            (one.clone(), json!({"files": {"../x": {"data": ""}}}), "plain name"),
            (one.clone(), json!({"constraints": {"near": []}}), "unknown operator"),
        ] {
            let error = parse(&count, &system).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(matches!(Jobspec::parse(&" ".repeat(JOBSPEC_BYTES_MAX + 1)), Err(BadJobspec::Long(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
            drop(Jobspec::parse(&text));
        }

        #[test]
        fn every_task_is_dealt_out_once(total in 1u32..50, nodes in 1u32..8, cyclic: bool) {
            let options = if cyclic { json!({"taskmap": "cyclic"}) } else { json!({}) };
            let job = parse(&json!({"total": total}), &json!({"shell": {"options": options}})).unwrap();
            let sets = job.layout(&vec![(1, 1); nodes as usize]);
            let all = sets.iter().fold(IdSet::new(), |all, set| all.union(set));
            prop_assert_eq!(all, IdSet::range(0..=total - 1));
            prop_assert_eq!(sets.iter().map(IdSet::len).sum::<u64>(), u64::from(total));
        }
    }
}
