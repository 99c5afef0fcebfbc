//! From options to a jobspec.

use super::{
    environment::{self, Rules},
    fail::Fail,
    options::{Common, Slots, Tasks},
    requires,
};
use kiln_jobs::{
    proto::{Submit, SubmitFlags},
    spec::build::NewJob,
};
use kiln_types::Fsd;
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Limits that a job inherits from the one who submits it, by Flux's names and in Flux's order.
const RLIMITS: [(&str, Resource); 9] = [
    ("cpu", Resource::RLIMIT_CPU),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("data", Resource::RLIMIT_DATA),
    ("stack", Resource::RLIMIT_STACK),
    ("core", Resource::RLIMIT_CORE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("as", Resource::RLIMIT_AS),
    ("rss", Resource::RLIMIT_RSS),
    ("nproc", Resource::RLIMIT_NPROC),
];

const URGENCY_DEFAULT: u8 = 16;
const URGENCY_EXPEDITE: u8 = 31;

/// A job for `run` and `submit`.
pub(super) fn of_tasks(
    program: &str,
    common: &Common,
    tasks: &Tasks,
    command: &[String],
) -> Result<NewJob, Fail> {
    if command.is_empty() {
        return Err(Fail::error(program, "job command and arguments are missing"));
    }
    let new = base(program, common)?;
    Ok(NewJob {
        command: command.to_vec(),
        ntasks: tasks.ntasks.or(tasks.nodes).unwrap_or(1),
        nodes: tasks.nodes,
        cores_per_task: tasks.cores_per_task,
        gpus_per_task: tasks.gpus_per_task,
        exclusive: tasks.exclusive,
        ..new
    })
}

/// A job for `batch` and `alloc`: an instance of its own. With nodes and no slots it gets whole nodes.
pub(super) fn of_slots(
    program: &str,
    common: &Common,
    slots: &Slots,
    command: Vec<String>,
) -> Result<NewJob, Fail> {
    let nslots = slots.nslots.or(slots.nodes);
    let Some(nslots) = nslots else {
        return Err(Fail::error(program, "Number of slots to allocate must be specified"));
    };
    let new = base(program, common)?;
    Ok(NewJob {
        command,
        ntasks: nslots,
        nodes: slots.nodes,
        cores_per_task: slots.cores_per_slot,
        gpus_per_task: slots.gpus_per_slot,
        exclusive: slots.exclusive || (slots.nslots.is_none() && slots.nodes.is_some()),
        nested: true,
        ..new
    })
}

/// The jobspec as JSON.
pub(super) fn jobspec(program: &str, new: &NewJob) -> Result<Value, Fail> {
    new.jobspec().map_err(|bad| Fail::error(program, bad))
}

/// What is sent to the broker.
pub(super) fn submit(program: &str, common: &Common, jobspec: &Value) -> Result<Submit, Fail> {
    Ok(Submit {
        jobspec: jobspec.to_string(),
        urgency: urgency(&common.urgency).map_err(|text| Fail::error(program, text))?,
        flags: flags(program, &common.flags)?,
        key: common.idempotency_key.clone(),
    })
}

/// Reads an urgency.
pub(super) fn urgency(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "default" => Ok(URGENCY_DEFAULT),
        "hold" => Ok(0),
        "expedite" => Ok(URGENCY_EXPEDITE),
        number => match number.parse::<i64>() {
            Ok(number) => u8::try_from(number)
                .ok()
                .filter(|&u| u <= URGENCY_EXPEDITE)
                .ok_or("urgency range is [0:31]".to_owned()),
            Err(_) => Err(format!("invalid urgency value {text}")),
        },
    }
}

fn flags(program: &str, words: &[String]) -> Result<SubmitFlags, Fail> {
    let mut flags = SubmitFlags::default();
    for word in words.iter().flat_map(|words| words.split(',')) {
        match word {
            "waitable" => flags.waitable = true,
            "debug" => flags.debug = true,
            "" | "novalidate" => {}
            other => return Err(Fail::error(program, format!("Unknown flag: '{other}'"))),
        }
    }
    Ok(flags)
}

/// What does not depend on the kind of job.
fn base(program: &str, common: &Common) -> Result<NewJob, Fail> {
    let error = |text: String| Fail::error(program, text);
    urgency(&common.urgency).map_err(error)?;
    if let Some(queue) = &common.queue {
        return Err(Fail::error(program, format!("'{queue}' is not a valid queue")));
    }
    let rules = Rules { env: &common.env, remove: &common.env_remove, files: &common.env_file };
    Ok(NewJob {
        duration: duration(common.time_limit.as_deref()).map_err(error)?,
        environment: environment::apply(&rules, std::env::vars()).map_err(error)?,
        cwd: cwd(common.cwd.as_deref()),
        name: common.job_name.clone(),
        constraints: requires::parse(&common.requires).map_err(error)?,
        dependencies: dependencies(common).map_err(error)?,
        options: shell_options(common),
        rlimits: rlimits(&common.rlimit).map_err(error)?,
        attributes: attributes(common),
        ..NewJob::default()
    })
}

/// A bare number is minutes, everything else a Flux Standard Duration.
fn duration(limit: Option<&str>) -> Result<f64, String> {
    let Some(limit) = limit else { return Ok(0.0) };
    let minutes = limit.parse::<f64>().ok().filter(|minutes| minutes.is_finite() && *minutes >= 0.0);
    let seconds = match minutes {
        Some(minutes) => minutes * 60.0,
        None => limit.parse::<Fsd>().map_err(|bad| bad.to_string())?.seconds(),
    };
    if seconds.is_finite() { Ok(seconds) } else { Ok(0.0) }
}

fn cwd(given: Option<&str>) -> String {
    let here =
        || std::env::current_dir().map_or_else(|_| "/".to_owned(), |dir| dir.to_string_lossy().into_owned());
    given.map_or_else(here, str::to_owned)
}

fn dependencies(common: &Common) -> Result<Vec<(String, String)>, String> {
    let mut all = Vec::new();
    for text in &common.dependency {
        let (scheme, value) = text
            .split_once(':')
            .ok_or_else(|| format!("invalid dependency '{text}', expected SCHEME:VALUE"))?;
        all.push((scheme.to_owned(), value.to_owned()));
    }
    if let Some(text) = &common.begin_time {
        all.push(("begin-time".to_owned(), begin_time(text)?));
    }
    Ok(all)
}

fn begin_time(text: &str) -> Result<String, String> {
    let bad = || format!("invalid begin time '{text}', expected +DURATION or seconds since the epoch");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| bad())?.as_secs_f64();
    let at = match text.strip_prefix('+') {
        Some(later) => now + later.parse::<Fsd>().map_err(|_| bad())?.seconds(),
        None => text.parse().map_err(|_| bad())?,
    };
    Ok(format!("{at:.6}"))
}

/// `KEY` is `KEY=1`; values that are JSON count as such, others as text.
fn key_value(text: &str) -> (String, Value) {
    let Some((key, value)) = text.split_once('=') else { return (text.to_owned(), json!(1)) };
    (key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value)))
}

fn shell_options(common: &Common) -> Vec<(String, Value)> {
    let mut options: Vec<(String, Value)> = Vec::new();
    let mut file = |stream: &str, path: &Option<String>| {
        if let Some(path) = path.as_ref().filter(|path| !matches!(path.as_str(), "none" | "kvs")) {
            options.push((format!("{stream}.type"), json!("file")));
            options.push((format!("{stream}.path"), json!(path)));
            if common.label_io && stream != "input.stdin" {
                options.push((format!("{stream}.label"), json!(true)));
            }
        }
    };
    file("input.stdin", &common.input);
    file("output.stdout", &common.output);
    file("output.stderr", &common.error);
    if common.unbuffered {
        options.push(("output.stdout.buffer.type".into(), json!("none")));
        options.push(("output.stderr.buffer.type".into(), json!("none")));
    }
    if let Some(signal) = &common.signal {
        let (signal, left) = signal.split_once('@').unwrap_or((signal, "60s"));
        let seconds = left.parse::<Fsd>().map_or(60.0, Fsd::seconds);
        options
            .push(("signal".into(), json!({"signum": super::signals::number(signal), "timeleft": seconds})));
    }
    if let Some(scheme) = &common.taskmap {
        let (scheme, value) = scheme.split_once(':').unwrap_or((scheme, ""));
        options.push(("taskmap".into(), json!({"scheme": scheme, "value": value})));
    }
    options.extend(common.setopt.iter().map(|text| key_value(text)));
    options
}

/// Keys count from `attributes.system` unless they say otherwise.
fn attributes(common: &Common) -> Vec<(String, Value)> {
    let bank = common.bank.as_ref().map(|bank| ("system.bank".to_owned(), json!(bank)));
    let given = common.setattr.iter().map(|text| {
        let (key, value) = key_value(text);
        let key = match key.strip_prefix('.') {
            Some(absolute) => absolute.to_owned(),
            None if key.starts_with("system.") || key.starts_with("user.") => key,
            None => format!("system.{key}"),
        };
        (key, value)
    });
    bank.into_iter().chain(given).collect()
}

fn rlimits(rules: &[String]) -> Result<Vec<(String, i64)>, String> {
    let own = RLIMITS.iter().filter_map(|&(name, resource)| {
        let (soft, _) = getrlimit(resource).ok()?;
        Some((name.to_owned(), i64::try_from(soft).unwrap_or(-1)))
    });
    let mut limits: Vec<(String, i64)> = own.collect();
    for rule in rules {
        rlimit_rule(rule, &mut limits)?;
    }
    Ok(limits)
}

fn rlimit_rule(rule: &str, limits: &mut Vec<(String, i64)>) -> Result<(), String> {
    if let Some(pattern) = rule.strip_prefix('-') {
        limits.retain(|(name, _)| !environment::matches(pattern, name));
        return Ok(());
    }
    let Some((name, value)) = rule.split_once('=') else { return Ok(()) };
    let name = name.to_ascii_lowercase();
    let name = name.trim_start_matches("rlimit_").to_owned();
    let value = match value {
        "unlimited" | "infinity" | "inf" => -1,
        number => number.parse().map_err(|_| format!("--rlimit: invalid value in {rule}"))?,
    };
    match limits.iter_mut().find(|(known, _)| *known == name) {
        Some((_, limit)) => *limit = value,
        None if RLIMITS.iter().any(|(known, _)| *known == name) => limits.push((name, value)),
        None => return Err(format!("--rlimit: no such resource limit: {name}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_flux_words() {
        let common = |change: fn(&mut Common)| {
            let mut common = Common { urgency: "default".into(), ..Common::default() };
            change(&mut common);
            common
        };
        let tasks = Tasks { cores_per_task: 1, ..Tasks::default() };
        let run = |common: &Common, command: &[String]| {
            of_tasks("flux-run", common, &tasks, command).map_err(|fail| fail.to_string())
        };
        let command = ["true".to_owned()];
        assert_eq!(
            run(&common(|_| ()), &[]).unwrap_err(),
            "flux-run: ERROR: job command and arguments are missing"
        );
        for (common, message) in [
            (common(|c| c.time_limit = Some("bogus".into())), "invalid Flux standard duration"),
            (common(|c| c.urgency = "32".into()), "urgency range is [0:31]"),
            (common(|c| c.queue = Some("nope".into())), "'nope' is not a valid queue"),
        ] {
            assert_eq!(run(&common, &command).unwrap_err(), format!("flux-run: ERROR: {message}"));
        }
    }

    #[test]
    fn time_limits() {
        for (text, seconds) in [("5", 300.0), ("0.5m", 30.0), ("1s", 1.0), ("60.0s", 60.0), ("inf", 0.0)] {
            assert_eq!(duration(Some(text)), Ok(seconds), "{text}");
        }
        assert_eq!(duration(None), Ok(0.0));
    }

    #[test]
    fn nodes_without_tasks_mean_one_task_each_and_whole_nodes_for_an_instance() {
        let common = Common { urgency: "default".into(), ..Common::default() };
        let tasks = Tasks { nodes: Some(4), cores_per_task: 1, ..Tasks::default() };
        assert_eq!(of_tasks("flux-run", &common, &tasks, &["true".into()]).unwrap().ntasks, 4);
        let slots = Slots { nodes: Some(2), cores_per_slot: 1, ..Slots::default() };
        let nested = of_slots("flux-batch", &common, &slots, vec!["flux".into()]).unwrap();
        assert!(nested.exclusive && nested.ntasks == 2);
    }

    #[test]
    fn attributes_count_from_system() {
        let common = Common {
            setattr: vec![
                "foo.bar=1".into(),
                "system.queue=debug".into(),
                ".user.x={\"a\":2}".into(),
                "flag".into(),
            ],
            ..Common::default()
        };
        let expected = [
            ("system.foo.bar", json!(1)),
            ("system.queue", json!("debug")),
            ("user.x", json!({"a": 2})),
            ("system.flag", json!(1)),
        ];
        assert_eq!(attributes(&common), expected.map(|(key, value)| (key.to_owned(), value)));
    }

    #[test]
    fn files_and_labels_become_shell_options() {
        let common = Common {
            output: Some("o.txt".into()),
            label_io: true,
            error: Some("none".into()),
            ..Common::default()
        };
        let keys: Vec<String> = shell_options(&common).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["output.stdout.type", "output.stdout.path", "output.stdout.label"]);
    }

    #[test]
    fn rlimit_rules() {
        let mut limits = vec![("cpu".to_owned(), -1), ("core".to_owned(), 0)];
        rlimit_rule("-c*", &mut limits).unwrap();
        rlimit_rule("nofile=100", &mut limits).unwrap();
        assert_eq!(limits, [("nofile".to_owned(), 100)]);
        assert!(rlimit_rule("nope=1", &mut limits).is_err());
    }
}
