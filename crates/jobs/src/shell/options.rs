//! What of a jobspec (RFC 14, RFC 25) matters to a shell. Pure.
//!
//! An option that is missing or of another type counts as not given.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::proto::Stream;
use crate::spec::{BadJobspec, JobFile, Jobspec};

/// Where a task's stream goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Template of a file's name; none: to the job's output log.
    pub(crate) path: Option<String>,
    /// Whether lines in the file begin with the task's number.
    pub(crate) label: bool,
    /// Whether bytes are passed on before their line is whole.
    pub(crate) unbuffered: bool,
    /// Whether the file is added to and not begun anew.
    pub(crate) append: bool,
}

/// Which cores a task may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// All of the machine's.
    #[default]
    Off,
    /// Those of the job on this node.
    Job,
    /// An equal share of them for each task.
    PerTask,
}

/// A shell's view of a jobspec.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) command: Vec<String>,
    pub(crate) name: String,
    pub(crate) cwd: String,
    pub(crate) environment: BTreeMap<String, String>,
    /// Soft limits by lowercase name; none: no limit.
    pub(crate) rlimits: Vec<(String, Option<u64>)>,
    pub(crate) files: Vec<JobFile>,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// Standard input from this file.
    pub(crate) input: Option<String>,
    pub(crate) pmi: bool,
    pub(crate) affinity: Affinity,
}

impl Options {
    /// Reads a jobspec's JSON.
    pub(crate) fn read(jobspec: &str) -> Result<Options, BadJobspec> {
        let spec = Jobspec::parse(jobspec)?;
        let shell = &spec.options;
        let option = |name: &str| shell.get(name).unwrap_or(&Value::Null);
        let stdout = output(option("output"), Stream::Stdout, None);
        let stderr = output(option("output"), Stream::Stderr, Some(&stdout));
        Ok(Options {
            cwd: if spec.cwd.is_empty() { "/".into() } else { spec.cwd },
            rlimits: rlimits(option("rlimit")),
            stdout,
            stderr,
            input: file_path(&option("input")["stdin"]),
            pmi: option("pmi").as_str() != Some("off"),
            affinity: affinity(option("cpu-affinity")),
            name: spec.name,
            environment: spec.environment.into_iter().collect(),
            files: spec.files,
            command: spec.command,
        })
    }

    /// Where `stream` goes.
    pub(crate) fn output(&self, stream: Stream) -> &Output {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

fn rlimits(value: &Value) -> Vec<(String, Option<u64>)> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .filter_map(|(name, limit)| {
            let limit = limit.as_i64()?;
            Some((name.to_ascii_lowercase(), u64::try_from(limit).ok()))
        })
        .collect()
}

fn file_path(value: &Value) -> Option<String> {
    if value["type"].as_str() != Some("file") {
        return None;
    }
    value["path"].as_str().map(str::to_owned)
}

/// Standard error goes where standard output goes, unless it has its own word.
fn output(value: &Value, stream: Stream, fallback: Option<&Output>) -> Output {
    let own = &value[stream.name()];
    let is_own = own["type"].is_string() || own["path"].is_string();
    Output {
        path: if is_own { file_path(own) } else { fallback.and_then(|output| output.path.clone()) },
        label: own["label"].as_bool().unwrap_or_else(|| fallback.is_some_and(|output| output.label)),
        unbuffered: own["buffer"]["type"].as_str() == Some("none"),
        append: value["mode"].as_str() == Some("append"),
    }
}

fn affinity(value: &Value) -> Affinity {
    match value.as_str() {
        Some("on") => Affinity::Job,
        Some("per-task") => Affinity::PerTask,
        _ => Affinity::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &str) -> Options {
        let spec = format!(
            r#"{{"version":1,"resources":[{{"type":"slot","count":1,"label":"task","with":[{{"type":"core","count":1}}]}}],
            "tasks":[{{"command":["/bin/echo","a"],"slot":"task","count":{{"per_slot":1}}}}],
            "attributes":{{"system":{{"duration":0,"shell":{{"options":{options}}}}}}}}}"#
        );
        Options::read(&spec).expect("a jobspec")
    }

    #[test]
    fn what_is_not_given_has_flux_defaults() {
        let options = read("{}");
        assert_eq!((options.name.as_str(), options.cwd.as_str()), ("echo", "/"));
        assert_eq!(options.stdout, Output::default());
        assert!(options.pmi && options.input.is_none() && options.files.is_empty());
        assert!(Options::read("{}").is_err() && Options::read("x").is_err());
    }

    #[test]
    fn standard_error_follows_standard_output() {
        let options = read(
            r#"{"output":{"stdout":{"type":"file","path":"flux-{{id}}.out"}},"rlimit":{"cpu":-1,"stack":8388608}}"#,
        );
        assert_eq!(options.stdout.path.as_deref(), Some("flux-{{id}}.out"));
        assert_eq!(options.stderr.path, options.stdout.path);
        assert_eq!(options.rlimits, [("cpu".into(), None), ("stack".into(), Some(8_388_608))]);
    }

    #[test]
    fn streams_may_part() {
        let options = read(
            r#"{"pmi":"off","cpu-affinity":"per-task","input":{"stdin":{"type":"file","path":"/i"}},
            "output":{"stdout":{"type":"file","path":"o","label":true},"stderr":{"type":"file","path":"e"}}}"#,
        );
        assert_eq!((options.stdout.path.as_deref(), options.stderr.path.as_deref()), (Some("o"), Some("e")));
        assert!(options.stdout.label && !options.pmi);
        assert_eq!(options.affinity, Affinity::PerTask);
        assert_eq!(options.input.as_deref(), Some("/i"));
    }
}
