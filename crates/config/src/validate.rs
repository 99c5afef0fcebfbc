//! What must hold between values, beyond each being of its type.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{ByteSize, Hostlist};

use crate::chain::{Arg, ArgKind, Flow, Sink, Source, Task};
use crate::load::Origins;
use crate::problem::Problem;
use crate::settings::{Config, sections};
use crate::value::Listen;

/// Longest topic name, in bytes (Kafka's `Topic.validate`).
const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Stripes are multiples of this (Lustre's `LOV_MIN_STRIPE_SIZE`), and so is what lies before them.
const STRIPE_UNIT_BYTES: u64 = 64 << 10;
/// Longest host name prefix, in bytes: 64 less room for a number (hostname(7)).
const HOST_PREFIX_BYTES_MAX: usize = 56;

impl Config {
    /// Every problem of these settings; none of them stops the search for the next. Origins are not known here; `load` gives them too.
    pub fn validate(&self) -> Vec<Problem> {
        validate(self, &Origins::default())
    }
}

pub(crate) fn validate(config: &Config, origins: &Origins) -> Vec<Problem> {
    let mut check = Check { origins, problems: Vec::new() };
    check.limits(config);
    check.cluster(config);
    check.sizes(config);
    check.stripes(config);
    check.listeners(config);
    check.flows(&config.flow, &config.task);
    check.tasks(&config.task, config);
    check.problems
}

struct Check<'o> {
    origins: &'o Origins,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(
        &mut self,
        key: impl Into<String>,
        value: impl Into<Option<String>>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let key = key.into();
        let origin = self.origins.of(&key);
        self.problems.push(Problem {
            origin,
            key,
            value: value.into(),
            reason: reason.into(),
            remedy: remedy.into(),
        });
    }

    fn limits(&mut self, config: &Config) {
        for setting in sections().iter().flat_map(|section| section.settings) {
            if let Err(reason) = (setting.check)(config) {
                let remedy = format!("the default is {}", setting.show(&Config::default()));
                self.problem(setting.key(), setting.show(config), reason, remedy);
            }
        }
    }

    fn cluster(&mut self, config: &Config) {
        let prefix = &config.cluster.host_prefix;
        if !is_host_label(prefix) || prefix.len() > HOST_PREFIX_BYTES_MAX {
            let reason = format!(
                "must be a host name of 1 to {HOST_PREFIX_BYTES_MAX} letters, digits and hyphens, beginning with a letter"
            );
            self.problem("cluster.host_prefix", prefix.clone(), reason, "use something like \"node\"");
        }
        if config.cluster.name.trim().is_empty() {
            self.problem(
                "cluster.name",
                config.cluster.name.clone(),
                "must not be empty",
                "give the cluster a name",
            );
        }
        self.exclusion(config);
    }

    fn exclusion(&mut self, config: &Config) {
        let cluster = &config.cluster;
        if cluster.exclude.is_empty() {
            return;
        }
        let shown = || Some(cluster.exclude.clone());
        let excluded: BTreeSet<String> = match cluster.exclude.parse::<Hostlist>() {
            Ok(hosts) => hosts.iter().map(str::to_owned).collect(),
            Err(error) => {
                let remedy = format!("write a hostlist such as \"{}[1-2]\"", cluster.host_prefix);
                self.problem("cluster.exclude", shown(), format!("is no hostlist ({error})"), remedy);
                return;
            }
        };
        let here: BTreeSet<String> =
            (1..=cluster.nodes).map(|n| format!("{}{n}", cluster.host_prefix)).collect();
        if let Some(stranger) = excluded.difference(&here).next() {
            let reason = format!("names {stranger}, which is none of the {} nodes", cluster.nodes);
            self.problem(
                "cluster.exclude",
                shown(),
                reason,
                format!("nodes are {}1 to {}{}", cluster.host_prefix, cluster.host_prefix, cluster.nodes),
            );
        } else if excluded.len() == here.len() {
            self.problem(
                "cluster.exclude",
                shown(),
                "leaves no node for jobs",
                "start more nodes, or exclude fewer",
            );
        }
    }

    fn sizes(&mut self, config: &Config) {
        let ordered = [
            (
                "kafka.batch_size_max",
                config.kafka.batch_size_max,
                "kafka.request_size_max",
                config.kafka.request_size_max,
            ),
            (
                "kafka.batch_size_max",
                config.kafka.batch_size_max,
                "log.segment_size",
                config.log.segment_size,
            ),
        ];
        for (small, small_size, large, large_size) in ordered {
            if small_size > large_size {
                let reason = format!("is more than {large} = {large_size}");
                self.problem(small, small_size.to_string(), reason, format!("lower it, or raise {large}"));
            }
        }
    }

    fn stripes(&mut self, config: &Config) {
        for (key, size) in
            [("fs.stripe_size", config.fs.stripe_size), ("fs.inline_size", config.fs.inline_size)]
        {
            if !size.0.is_multiple_of(STRIPE_UNIT_BYTES) {
                let reason = format!("is no multiple of {}", ByteSize(STRIPE_UNIT_BYTES));
                let remedy = format!("use {}", ByteSize(size.0.next_multiple_of(STRIPE_UNIT_BYTES)));
                self.problem(key, size.to_string(), reason, remedy);
            }
        }
    }

    fn listeners(&mut self, config: &Config) {
        let listeners = [
            ("kafka.listen", config.kafka.listen),
            ("amqp.listen", config.amqp.listen),
            ("syslog.listen", config.syslog.listen),
            ("console.listen", config.console.listen),
        ];
        let mut taken = BTreeMap::new();
        for (key, listen) in listeners {
            let Listen::At(addr) = listen else { continue };
            if addr.port() == 0 {
                continue;
            }
            if let Some(first) = taken.insert(addr, key) {
                self.problem(
                    key,
                    listen.to_string(),
                    format!("is also {first}"),
                    "give each listener a port of its own",
                );
            }
        }
    }

    fn flows(&mut self, flows: &[Flow], tasks: &[Task]) {
        let mut names = BTreeSet::new();
        for flow in flows {
            let path = format!("flow.{}", flow.name);
            self.name(&path, &flow.name);
            if !names.insert(&flow.name) {
                self.problem(&path, None, "there is another flow of this name", "rename one of them");
            }
            if let Source::Topic(topic) = &flow.from {
                self.topic(&format!("{path}.from"), topic);
            }
            self.topic(&format!("{path}.dead_letter"), &flow.dead_letter_topic());
            self.sink(&format!("{path}.to"), flow, tasks);
            if flow.extract.as_ref().is_some_and(|extract| extract.regex.is_none() && extract.sd.is_none()) {
                self.problem(
                    format!("{path}.extract"),
                    None,
                    "takes nothing",
                    "give it regex or sd, or remove it",
                );
            }
        }
    }

    fn sink(&mut self, path: &str, flow: &Flow, tasks: &[Task]) {
        let sink = &flow.to;
        match sink.kinds().as_slice() {
            [] => {
                self.problem(path, None, "names no sink", "write one of topic, exchange, job, syslog, file");
            }
            [_] => {}
            several => {
                self.problem(
                    path,
                    several.join(", "),
                    "names several sinks",
                    "write a flow for each of them",
                );
            }
        }
        self.companions(path, sink);
        if let Some(topic) = &sink.topic {
            self.topic(&format!("{path}.topic"), topic);
            if flow.from == Source::Topic(topic.clone()) {
                self.problem(
                    format!("{path}.topic"),
                    topic.clone(),
                    "is where the flow reads from: it would never end",
                    "choose another topic",
                );
            }
        }
        if let Some(job) = sink.job.as_ref().filter(|job| !job.contains('{'))
            && !tasks.iter().any(|task| task.name == *job)
        {
            self.problem(
                format!("{path}.job"),
                job.clone(),
                "is no task of the catalogue",
                format!("add [[task]] with name = \"{job}\""),
            );
        }
    }

    /// Keys that mean something only beside another.
    fn companions(&mut self, path: &str, sink: &Sink) {
        if sink.key.is_some() && sink.topic.is_none() {
            self.problem(
                format!("{path}.key"),
                sink.key.clone(),
                "needs topic beside it",
                "add topic, or remove it",
            );
        }
        if sink.routing_key.is_some() && sink.exchange.is_none() {
            self.problem(
                format!("{path}.routing_key"),
                sink.routing_key.clone(),
                "needs exchange beside it",
                "add exchange, or remove it",
            );
        }
    }

    fn tasks(&mut self, tasks: &[Task], config: &Config) {
        let mut names = BTreeSet::new();
        for task in tasks {
            let path = format!("task.{}", task.name);
            self.name(&path, &task.name);
            if !names.insert(&task.name) {
                self.problem(&path, None, "there is another task of this name", "rename one of them");
            }
            self.command(&path, task);
            for (name, arg) in &task.args {
                self.arg(&format!("{path}.args.{name}"), arg);
            }
            self.node(&path, task, &config.cluster.host_prefix);
        }
    }

    fn node(&mut self, path: &str, task: &Task, prefix: &str) {
        let by_argument = task.node.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let known = match by_argument {
            Some(name) => task.args.contains_key(name),
            None => is_host_label(&task.node),
        };
        if !known {
            let remedy =
                format!("write \"any\", a host name such as \"{prefix}2\", or an argument in braces");
            self.problem(format!("{path}.node"), task.node.clone(), "is no node", remedy);
        }
    }

    fn command(&mut self, path: &str, task: &Task) {
        let key = format!("{path}.command");
        let Some((program, arguments)) =
            task.command.split_first().filter(|(program, _)| !program.is_empty())
        else {
            self.problem(key, None, "names no program", "write a list such as [\"sha256sum\", \"{path}\"]");
            return;
        };
        if !placeholders(program).is_empty() {
            self.problem(
                &key,
                program.clone(),
                "lets a record choose the program",
                "name the program, and let arguments vary",
            );
        }
        let used: BTreeSet<&str> = arguments.iter().flat_map(|argument| placeholders(argument)).collect();
        for name in used.iter().filter(|name| !task.args.contains_key(**name)) {
            let remedy = format!("add {name} = {{ type = \"string\" }} to its args");
            self.problem(&key, format!("{{{name}}}"), "is no argument of this task", remedy);
        }
        let used_elsewhere = placeholders(&task.node);
        for name in task
            .args
            .keys()
            .filter(|name| !used.contains(name.as_str()) && !used_elsewhere.contains(&name.as_str()))
        {
            self.problem(
                format!("{path}.args.{name}"),
                None,
                "is used nowhere in the command",
                format!("write {{{name}}} in the command, or remove it"),
            );
        }
    }

    fn arg(&mut self, path: &str, arg: &Arg) {
        let bounds = [("min", arg.min), ("max", arg.max)];
        for (key, bound) in bounds.into_iter().filter(|_| arg.kind != ArgKind::Integer) {
            if let Some(bound) = bound {
                self.problem(
                    format!("{path}.{key}"),
                    bound.to_string(),
                    "bounds an integer only",
                    "set type = \"integer\", or remove it",
                );
            }
        }
        if let (Some(min), Some(max)) = (arg.min, arg.max)
            && min > max
        {
            self.problem(
                format!("{path}.min"),
                min.to_string(),
                format!("is more than max = {max}"),
                "swap them",
            );
        }
    }

    fn name(&mut self, key: &str, name: &str) {
        if name.is_empty() || !name.chars().all(is_name_char) {
            self.problem(key, name.to_owned(), "is no name", "use letters, digits, '-', '_' and '.'");
        }
    }

    fn topic(&mut self, key: &str, topic: &str) {
        let legal =
            !topic.is_empty() && topic.len() <= TOPIC_NAME_BYTES_MAX && topic.chars().all(is_name_char);
        if !legal || topic == "." || topic == ".." {
            let remedy = format!("use 1 to {TOPIC_NAME_BYTES_MAX} letters, digits, '-', '_' and '.'");
            self.problem(key, topic.to_owned(), "is no topic name", remedy);
        }
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_host_label(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The names between braces: `a{x}b{y}` has x and y.
fn placeholders(text: &str) -> Vec<&str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::load::parse;

    /// The problems of a file, one per line.
    fn problems(text: &str) -> String {
        parse(Path::new("kiln.toml"), text).expect_err("problems").to_string()
    }

    #[test]
    fn defaults_are_sound() {
        assert_eq!(Config::default().validate(), vec![]);
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_line() {
        let text = "[cluster]\nnodes = 0\nhost_prefix = \"9\"\n[kafka]\nlisten = \"127.0.0.1:7\"\n[amqp]\nlisten = \"127.0.0.1:7\"\n";
        let told = problems(text);
        assert_eq!(told.lines().count(), 3, "{told}");
        for expected in [
            "kiln.toml:2:1: cluster.nodes = 0: must be between 1 and 256",
            "kiln.toml:3:1: cluster.host_prefix",
            "kiln.toml:7:1: amqp.listen",
        ] {
            assert!(told.contains(expected), "{expected} in {told}");
        }
    }

    #[test]
    fn stripes_are_whole() {
        let told = problems("[fs]\nstripe_size = \"100KiB\"\ninline_size = \"1KiB\"\n");
        assert!(told.contains("kiln.toml:2:1: fs.stripe_size") && told.contains("use 128KiB"), "{told}");
        assert!(told.contains("kiln.toml:3:1: fs.inline_size") && told.contains("use 64KiB"), "{told}");
    }

    #[test]
    fn two_listeners_may_both_leave_the_port_open() {
        let text = "[kafka]\nlisten = \"127.0.0.1:0\"\n[amqp]\nlisten = \"127.0.0.1:0\"\n";
        assert!(parse(Path::new("kiln.toml"), text).is_ok());
    }

    #[test]
    fn exclusion_knows_the_nodes() {
        assert!(problems("[cluster]\nnodes = 2\nexclude = \"silicon3\"\n").contains("silicon3"));
        assert!(problems("[cluster]\nnodes = 2\nexclude = \"silicon[1-2]\"\n").contains("leaves no node"));
        assert!(problems("[cluster]\nnodes = 2\nexclude = \"silicon[\"\n").contains("hostlist"));
        assert!(parse(Path::new("k"), "[cluster]\nnodes = 4\nexclude = \"silicon1\"\n").is_ok());
    }

    #[test]
    fn a_sink_is_one_thing_and_never_its_own_source() {
        let flow = |to: &str| format!("[[flow]]\nname = \"a\"\nfrom = {{ topic = \"x\" }}\nto = {to}\n");
        assert!(problems(&flow("{}")).contains("kiln.toml:4:1: flow.a.to: names no sink"));
        assert!(problems(&flow("{ topic = \"y\", file = \"/f\" }")).contains("several sinks"));
        assert!(problems(&flow("{ topic = \"x\" }")).contains("never end"));
        assert!(problems(&flow("{ topic = \"a b\" }")).contains("no topic name"));
        assert!(problems(&flow("{ job = \"nothing\" }")).contains("no task of the catalogue"));
        assert!(problems(&flow("{ file = \"/f\", routing_key = \"r\" }")).contains("needs exchange"));
    }

    #[test]
    fn a_record_never_chooses_the_program() {
        let task = |command: &str, args: &str| {
            format!("[[task]]\nname = \"t\"\ncommand = {command}\nargs = {args}\n")
        };
        assert!(problems(&task("[\"{x}\"]", "{ x = {} }")).contains("choose the program"));
        assert!(problems(&task("[]", "{}")).contains("names no program"));
        assert!(problems(&task("[\"ls\", \"{x}\"]", "{}")).contains("{x}"));
        assert!(problems(&task("[\"ls\"]", "{ x = {} }")).contains("used nowhere"));
        assert!(problems(&task("[\"ls\", \"{x}\"]", "{ x = { min = 1 } }")).contains("bounds an integer"));
        assert!(parse(Path::new("k"), &task("[\"ls\", \"a{x}b\"]", "{ x = {} }")).is_ok());
        assert!(parse(Path::new("k"), &task("[\"ls\"]", "{ x = {} }\nnode = \"{x}\"")).is_ok());
        assert!(problems(&task("[\"ls\"]", "{}\nnode = \"{y}\"")).contains("is no node"));
    }
}
