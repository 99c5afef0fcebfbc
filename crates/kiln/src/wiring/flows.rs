//! `[[flow]]` and `[[task]]` of kiln.toml, handed to the flow service and checked by it.

use kiln_config::Config;
use kiln_flow::Chain;
use kiln_flow::core::{
    ArgumentDefinition, ArgumentKind, Definition, Extract, Sink, Source, TaskDefinition, ValueKind,
};

/// What is wrong with flows and tasks, one problem a line or more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadChain(String);

/// Compiles the flows and tasks of `config`, or says everything that is wrong with them.
pub(crate) fn chain(config: &Config) -> Result<Chain, BadChain> {
    let tasks: Vec<TaskDefinition> = config.task.iter().map(task).collect();
    let flows: Vec<Definition> = config.flow.iter().map(flow).collect();
    Chain::check(&flows, &tasks)
        .map_err(|problems| BadChain(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// Only checks.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    chain(config).map(|_| ()).map_err(Into::into)
}

fn flow(flow: &kiln_config::Flow) -> Definition {
    Definition {
        name: flow.name.clone(),
        from: match &flow.from {
            kiln_config::Source::Syslog => Source::Syslog,
            kiln_config::Source::Topic(topic) => Source::Topic(topic.clone()),
        },
        filter: flow.filter.clone(),
        extract: flow.extract.as_ref().map(|e| Extract { regex: e.regex.clone(), sd: e.sd.clone() }),
        to: sink(&flow.to),
        dead_letter: flow.dead_letter.clone(),
    }
}

fn sink(to: &kiln_config::Sink) -> Sink {
    Sink {
        topic: to.topic.clone(),
        key: to.key.clone(),
        exchange: to.exchange.clone(),
        routing_key: to.routing_key.clone(),
        job: to.job.clone(),
        syslog: to.syslog.clone(),
        file: to.file.clone(),
        value: to.value.map(value),
    }
}

fn value(kind: kiln_config::ValueKind) -> ValueKind {
    match kind {
        kiln_config::ValueKind::Raw => ValueKind::Raw,
        kiln_config::ValueKind::Fields => ValueKind::Fields,
        kiln_config::ValueKind::Task => ValueKind::Task,
    }
}

fn task(task: &kiln_config::Task) -> TaskDefinition {
    TaskDefinition {
        name: task.name.clone(),
        command: task.command.clone(),
        arguments: task.args.iter().map(|(name, arg)| (name.clone(), argument(arg))).collect(),
        node: task.node.clone(),
        time_limit: task.time_limit,
    }
}

fn argument(arg: &kiln_config::Arg) -> ArgumentDefinition {
    ArgumentDefinition {
        kind: match arg.kind {
            kiln_config::ArgKind::String => ArgumentKind::String,
            kiln_config::ArgKind::Integer => ArgumentKind::Integer,
            kiln_config::ArgKind::Path => ArgumentKind::Path,
        },
        default: arg.default.clone(),
        pattern: arg.pattern.clone(),
        min: arg.min,
        max: arg.max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_a_valid_chain() {
        let text = include_str!("../demo/kiln.toml");
        let loaded = kiln_config::parse(std::path::Path::new("kiln.toml"), text).unwrap();
        let chain = chain(&loaded.config).unwrap();
        assert_eq!(chain.flows.len(), 4);
        assert_eq!(chain.catalogue.names().collect::<Vec<_>>(), ["checksum", "primes", "wait"]);
    }

    #[test]
    fn a_bad_filter_is_told_with_its_column() {
        let text = "[[flow]]\nname = \"f\"\nfrom = \"syslog\"\nwhere = 'appnme == \"sshd\"'\nto = { topic = \"t\" }\n";
        let loaded = kiln_config::parse(std::path::Path::new("kiln.toml"), text).unwrap();
        let problem = check(&loaded.config).unwrap_err().to_string();
        assert!(problem.contains("appname"), "{problem}");
    }
}
