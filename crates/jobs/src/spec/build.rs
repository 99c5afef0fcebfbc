//! Jobspec V1 as it is made (Flux RFC 25): the members and their order are those of Flux's own tools.

use super::shape::COUNT_MAX;
use serde_json::{Map, Value, json};

/// The command of a job that is an instance of its own, as `flux batch` makes it.
pub const BATCH_COMMAND: [&str; 3] = ["flux", "broker", "{{tmpdir}}/script"];

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct NewJob {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Tasks, or slots of a nested instance.
    pub ntasks: u32,
    /// Cores for each of them.
    pub cores_per_task: u32,
    /// GPUs for each of them; 0 for none.
    pub gpus_per_task: u32,
    /// Over how many nodes; none leaves it to the scheduler.
    pub nodes: Option<u32>,
    /// Whole nodes.
    pub exclusive: bool,
    /// The tasks are slots of a nested instance, whose broker runs once on each node.
    pub nested: bool,
    /// The time limit in seconds; 0 means none.
    pub duration: f64,
    /// Environment of the tasks.
    pub environment: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// Name for lists; none leaves it to the command.
    pub name: Option<String>,
    /// The queue.
    pub queue: Option<String>,
    /// Constraints (RFC 31).
    pub constraints: Option<Value>,
    /// Dependencies (RFC 26): scheme and value.
    pub dependencies: Vec<(String, String)>,
    /// Shell options, by dotted path.
    pub options: Vec<(String, Value)>,
    /// Resource limits by name, -1 for none.
    pub rlimits: Vec<(String, i64)>,
    /// Attributes by dotted path from `attributes`.
    pub attributes: Vec<(String, Value)>,
    /// The batch script.
    pub script: Option<String>,
}

/// Why no jobspec can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// There is nothing to run.
    #[error("job command and arguments are missing")]
    NoCommand,
    /// Zero or far too many.
    #[error("{0} must be an integer >= 1")]
    Count(&'static str),
    /// Some node would have no task.
    #[error("node count must not be greater than task count")]
    NodesOverTasks,
    /// Whole nodes without telling how many.
    #[error("exclusive can only be set with a node count")]
    ExclusiveWithoutNodes,
}

impl NewJob {
    /// The jobspec.
    ///
    /// # Errors
    /// When counts do not go together.
    pub fn jobspec(&self) -> Result<Value, BadRequest> {
        self.check()?;
        let mut spec = json!({
            "resources": [self.resources()],
            "tasks": [{"command": self.command, "slot": "task", "count": self.task_count()}],
            "attributes": {"system": self.system()},
            "version": 1,
        });
        for (path, value) in &self.attributes {
            set(&mut spec["attributes"], path, value.clone());
        }
        Ok(spec)
    }

    fn check(&self) -> Result<(), BadRequest> {
        let counts = [
            (self.ntasks, "task count"),
            (self.cores_per_task, "cores per task"),
            (self.nodes.unwrap_or(1), "node count"),
        ];
        if self.command.is_empty() {
            return Err(BadRequest::NoCommand);
        }
        if let Some((_, what)) = counts.iter().find(|(count, _)| !(1..=COUNT_MAX).contains(count)) {
            return Err(BadRequest::Count(what));
        }
        match self.nodes {
            Some(nodes) if nodes > self.ntasks => Err(BadRequest::NodesOverTasks),
            None if self.exclusive => Err(BadRequest::ExclusiveWithoutNodes),
            _ => Ok(()),
        }
    }

    fn resources(&self) -> Value {
        let mut with = vec![json!({"type": "core", "count": self.cores_per_task})];
        if self.gpus_per_task > 0 {
            with.push(json!({"type": "gpu", "count": self.gpus_per_task}));
        }
        let slots = self.nodes.map_or(self.ntasks, |nodes| self.ntasks.div_ceil(nodes));
        let slot = json!({"type": "slot", "count": slots, "with": with, "label": "task"});
        let Some(nodes) = self.nodes else { return slot };
        let mut node = json!({"type": "node", "count": nodes, "with": [slot]});
        if self.exclusive {
            node["exclusive"] = json!(true);
        }
        node
    }

    fn task_count(&self) -> Value {
        match self.nodes {
            Some(nodes) if !self.ntasks.is_multiple_of(nodes) && !self.nested => {
                json!({"total": self.ntasks})
            }
            _ => json!({"per_slot": 1}),
        }
    }

    fn system(&self) -> Value {
        let mut system = Map::new();
        let duration = if self.duration > 0.0 { json!(self.duration) } else { json!(0) };
        system.insert("duration".into(), duration);
        let environment = self.environment.iter().map(|(name, value)| (name.clone(), json!(value)));
        system.insert("environment".into(), Value::Object(environment.collect()));
        system.insert("cwd".into(), json!(self.cwd));
        if let Some(name) = &self.name {
            system.insert("job".into(), json!({"name": name}));
        }
        system.insert("shell".into(), json!({"options": self.shell_options()}));
        if let Some(constraints) = &self.constraints {
            system.insert("constraints".into(), constraints.clone());
        }
        if let Some(queue) = &self.queue {
            system.insert("queue".into(), json!(queue));
        }
        if !self.dependencies.is_empty() {
            let list =
                self.dependencies.iter().map(|(scheme, value)| json!({"scheme": scheme, "value": value}));
            system.insert("dependencies".into(), list.collect());
        }
        if let Some(script) = &self.script {
            let file = json!({"mode": 0o100_700, "data": script, "encoding": "utf-8"});
            system.insert("files".into(), json!({"script": file}));
        }
        Value::Object(system)
    }

    fn shell_options(&self) -> Value {
        let mut options = json!({});
        for (path, value) in &self.options {
            set(&mut options, path, value.clone());
        }
        if self.nested {
            set(&mut options, "per-resource.type", json!("node"));
            set(&mut options, "mpi", json!("none"));
            set(&mut options, "exit-timeout", json!("none"));
        }
        let limits: Map<String, Value> =
            self.rlimits.iter().map(|(name, limit)| (name.clone(), json!(limit))).collect();
        if !limits.is_empty() {
            options["rlimit"] = Value::Object(limits);
        }
        options
    }
}

/// Puts `value` at a dotted path, making objects on the way; what is no object there is replaced.
pub fn set(root: &mut Value, path: &str, value: Value) {
    let mut at = root;
    for part in path.split('.') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Jobspec, json::spaced};

    fn job(ntasks: u32, nodes: Option<u32>) -> NewJob {
        NewJob {
            command: vec!["hostname".into()],
            ntasks,
            nodes,
            cores_per_task: 1,
            cwd: "/home/user".into(),
            ..NewJob::default()
        }
    }

    #[test]
    fn as_flux_run_makes_it() {
        let new = NewJob {
            duration: 300.0,
            rlimits: vec![("cpu".into(), -1), ("stack".into(), 8_388_608)],
            attributes: vec![("system.foo.bar".into(), json!(1))],
            ..job(4, Some(2))
        };
        assert_eq!(
            spaced(&new.jobspec().unwrap()),
            r#"{"resources": [{"type": "node", "count": 2, "with": [{"type": "slot", "count": 2, "with": [{"type": "core", "count": 1}], "label": "task"}]}], "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}], "attributes": {"system": {"duration": 300.0, "environment": {}, "cwd": "/home/user", "shell": {"options": {"rlimit": {"cpu": -1, "stack": 8388608}}}, "foo": {"bar": 1}}}, "version": 1}"#
        );
    }

    #[test]
    fn as_flux_batch_makes_it() {
        let new = NewJob {
            command: BATCH_COMMAND.map(str::to_owned).to_vec(),
            nested: true,
            name: Some("myjob".into()),
            options: vec![
                ("output.stdout.type".into(), json!("file")),
                ("output.stdout.path".into(), json!("flux-{{id}}.out")),
            ],
            script: Some("#!/bin/sh\n".into()),
            ..job(4, Some(2))
        };
        assert_eq!(
            spaced(&new.jobspec().unwrap()["attributes"]),
            r##"{"system": {"duration": 0, "environment": {}, "cwd": "/home/user", "job": {"name": "myjob"}, "shell": {"options": {"output": {"stdout": {"type": "file", "path": "flux-{{id}}.out"}}, "per-resource": {"type": "node"}, "mpi": "none", "exit-timeout": "none"}}, "files": {"script": {"mode": 33216, "data": "#!/bin/sh\n", "encoding": "utf-8"}}}}"##
        );
    }

    #[test]
    fn what_is_made_can_be_read() {
        for new in
            [job(1, None), job(3, Some(2)), NewJob { exclusive: true, gpus_per_task: 1, ..job(2, Some(2)) }]
        {
            let read = Jobspec::parse(&new.jobspec().unwrap().to_string()).unwrap();
            assert_eq!(read.ntasks_asked(), new.ntasks);
            assert_eq!(read.shape.exclusive, new.exclusive);
        }
    }

    #[test]
    fn refuses_counts_that_do_not_go_together() {
        assert_eq!(NewJob::default().jobspec(), Err(BadRequest::NoCommand));
        assert_eq!(job(0, None).jobspec(), Err(BadRequest::Count("task count")));
        assert_eq!(job(2, Some(3)).jobspec(), Err(BadRequest::NodesOverTasks));
        assert_eq!(
            NewJob { exclusive: true, ..job(1, None) }.jobspec(),
            Err(BadRequest::ExclusiveWithoutNodes)
        );
    }
}
