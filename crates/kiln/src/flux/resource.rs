//! `flux resource`.

use super::{
    connect::{Broker, unexpected},
    fail::{Code, Fail},
    format::{BadFormat, Format, Value},
    terminal::say,
};
use clap::{Parser, Subcommand};
use kiln_jobs::{
    proto::{Failure, NodeRow, Reply, Request, WhichNodes},
    spec::{R, RNode},
};
use kiln_types::{Hostlist, Timestamp};
use std::fmt::Write;

const PROGRAM: &str = "flux-resource";

const LIST_FORMAT: &str = "{state:>10} {nnodes:>6} {ncores:>6} {ngpus:>5} {nodelist}";
const DRAIN_FORMAT: &str = "{time!d:%b%d %R::<12} {state:<8.8} {reason:<30.30+} {nodelist}";

/// `flux resource COMMAND`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flux-resource",
    about = "list/manipulate Flux resource status",
    no_binary_name = true,
    disable_help_subcommand = true
)]
pub(super) struct Resource {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
#[command(args_override_self = true)]
enum Command {
    /// Drain nodes, or list the drained ones
    Drain {
        /// Ranks or hosts
        targets: Option<String>,
        /// Why
        #[arg(trailing_var_arg = true)]
        reason: Vec<String>,
    },
    /// Put drained nodes back in service
    Undrain {
        /// Ranks or hosts
        targets: String,
    },
    /// Which nodes are up, and which drained
    Status,
    /// What is free, allocated and down
    List {
        /// No header
        #[arg(short = 'n', long)]
        no_header: bool,
        /// Fields like "{state} {nnodes}"
        #[arg(short = 'o', long, value_name = "FORMAT")]
        format: Option<String>,
        /// These states, comma separated
        #[arg(short, long, value_name = "STATE,...", default_value = "free,allocated,down")]
        states: String,
    },
    /// How much there is
    Info {
        /// In these states, comma separated, or all
        #[arg(short, long, value_name = "STATE,...", default_value = "all")]
        states: String,
    },
    /// All resources as RFC 20 JSON
    #[command(name = "R")]
    R,
}

/// `flux resource`.
pub(super) async fn resource(resource: Resource) -> Result<Code, Fail> {
    match resource.command {
        Command::Drain { targets: None, .. } => list_drained().await,
        Command::Drain { targets: Some(targets), reason } => {
            change(&Request::Drain { nodes: which(&targets)?, reason: reason.join(" ") }).await
        }
        Command::Undrain { targets } => change(&Request::Undrain { nodes: which(&targets)? }).await,
        Command::Status => status().await,
        Command::List { no_header, format, states } => list(no_header, format.as_deref(), &states).await,
        Command::Info { states } => info(&states).await,
        Command::R => all().await,
    }
}

fn error(failure: Failure) -> Fail {
    Fail::error(PROGRAM, failure)
}

/// Ranks where it reads as ranks, else hosts.
fn which(text: &str) -> Result<WhichNodes, Fail> {
    if let Ok(ranks) = text.parse() {
        return Ok(WhichNodes::Ranks(ranks));
    }
    text.parse().map(WhichNodes::Hosts).map_err(|bad| Fail::error(PROGRAM, bad))
}

async fn change(request: &Request) -> Result<Code, Fail> {
    Broker::open(PROGRAM).await?.ask(request).await.map_err(error)?;
    Ok(0)
}

async fn nodes() -> Result<Vec<NodeRow>, Fail> {
    let broker = Broker::open(PROGRAM).await?;
    rows(&broker).await.map_err(error)
}

/// Every node of the broker's instance.
pub(super) async fn rows(broker: &Broker) -> Result<Vec<NodeRow>, Failure> {
    match broker.ask_again(&Request::Resources).await? {
        Reply::Nodes(rows) => Ok(rows),
        other => Err(unexpected(&other)),
    }
}

fn hosts<'a>(nodes: impl IntoIterator<Item = &'a NodeRow>) -> String {
    nodes.into_iter().map(|node| node.host.as_str()).collect::<Hostlist>().to_string()
}

/// Nodes and cores in one of the scheduler's states. Excluded nodes are in none.
struct Group {
    state: &'static str,
    nodes: Vec<NodeRow>,
    cores: u64,
}

fn groups(nodes: &[NodeRow]) -> [Group; 3] {
    let in_service = |node: &NodeRow| node.online && node.drained.is_none();
    let free =
        |node: &NodeRow| if in_service(node) { node.cores.difference(&node.allocated).len() } else { 0 };
    let down =
        |node: &NodeRow| if in_service(node) { 0 } else { node.cores.difference(&node.allocated).len() };
    let group = |state, cores: &dyn Fn(&NodeRow) -> u64| {
        let with: Vec<NodeRow> =
            nodes.iter().filter(|node| !node.excluded && cores(node) > 0).cloned().collect();
        Group { state, cores: with.iter().map(cores).sum(), nodes: with }
    };
    [group("free", &free), group("allocated", &|node| node.allocated.len()), group("down", &down)]
}

impl Group {
    fn value(&self, name: &str) -> Value {
        match name {
            "state" => self.state.into(),
            "nnodes" => (self.nodes.len() as i64).into(),
            "ncores" => (self.cores as i64).into(),
            "ngpus" => 0.into(),
            "nodelist" => hosts(&self.nodes).into(),
            "ranks" => {
                self.nodes.iter().map(|node| node.rank.0).collect::<kiln_types::IdSet>().to_string().into()
            }
            _ => Value::Nothing,
        }
    }
}

fn heading(name: &str) -> Option<&'static str> {
    Some(match name {
        "state" => "STATE",
        "nnodes" => "NNODES",
        "ncores" => "NCORES",
        "ngpus" => "NGPUS",
        "nodelist" => "NODELIST",
        "ranks" => "RANKS",
        "time" => "TIME",
        "reason" => "REASON",
        _ => return None,
    })
}

fn wanted(states: &str) -> impl Fn(&Group) -> bool + '_ {
    move |group| states.split(',').any(|state| state == group.state || state == "all")
}

async fn list(no_header: bool, format: Option<&str>, states: &str) -> Result<Code, Fail> {
    let text = format.unwrap_or(LIST_FORMAT);
    let bad = |BadFormat(text)| Fail::error(PROGRAM, format!("--format: {text}"));
    if !text.contains('{') {
        return Err(bad(BadFormat(format!("No such format {text} (Did you mean '{{{text}}}'?)"))));
    }
    let format = Format::parse(text, heading).map_err(bad)?;
    super::terminal::text(&list_text(&format, &nodes().await?, !no_header, states));
    Ok(0)
}

fn list_text(format: &Format, nodes: &[NodeRow], header: bool, states: &str) -> String {
    let groups = groups(nodes);
    let header = header.then(|| format.header(heading));
    let rows =
        groups.iter().filter(|group| wanted(states)(group)).map(|group| format.row(|name| group.value(name)));
    header.into_iter().chain(rows).map(|line| line + "\n").collect()
}

async fn info(states: &str) -> Result<Code, Fail> {
    say!("{}", info_text(&nodes().await?, states));
    Ok(0)
}

fn info_text(nodes: &[NodeRow], states: &str) -> String {
    let groups = groups(nodes);
    let chosen: Vec<&Group> = groups.iter().filter(|group| wanted(states)(group)).collect();
    let mut ranks: Vec<u32> = chosen.iter().flat_map(|group| &group.nodes).map(|node| node.rank.0).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let cores: u64 = chosen.iter().map(|group| group.cores).sum();
    format!("{} Nodes, {cores} Cores, 0 GPUs", ranks.len())
}

async fn status() -> Result<Code, Fail> {
    super::terminal::text(&status_text(&nodes().await?));
    Ok(0)
}

fn status_text(nodes: &[NodeRow]) -> String {
    let mut text = format!("{:>12}{} {:>6} {}\n", "STATE", "UP", "NNODES", "NODELIST");
    let state = |node: &NodeRow| match node {
        NodeRow { excluded: true, .. } => "exclude",
        NodeRow { drained: Some(_), allocated, .. } if !allocated.is_empty() => "draining",
        NodeRow { drained: Some(_), .. } => "drained",
        _ => "avail",
    };
    for name in ["avail", "exclude", "draining", "drained"] {
        for online in [true, false] {
            let found: Vec<&NodeRow> =
                nodes.iter().filter(|node| state(node) == name && node.online == online).collect();
            if !found.is_empty() || (name == "avail" && online) {
                let mark = if online { '✔' } else { '✗' };
                let list = hosts(found.iter().copied());
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name:>12} {mark} {:>6} {list}", found.len());
            }
        }
    }
    text
}

async fn list_drained() -> Result<Code, Fail> {
    super::terminal::text(&drained_text(&nodes().await?));
    Ok(0)
}

fn drained_text(nodes: &[NodeRow]) -> String {
    let Ok(format) = Format::parse(DRAIN_FORMAT, heading) else { return String::new() };
    let mut text = format.header(heading) + "\n";
    for node in nodes {
        let Some(drained) = &node.drained else { continue };
        let state = if node.allocated.is_empty() { "drained" } else { "draining" };
        let row = format.row(|name| match name {
            "time" => Value::Number(drained.at.seconds_f64()),
            "state" => state.into(),
            "reason" => drained.reason.as_str().into(),
            _ => node.host.as_str().into(),
        });
        text.push_str(&row);
        text.push('\n');
    }
    text
}

async fn all() -> Result<Code, Fail> {
    let node = |row: NodeRow| RNode { rank: row.rank, host: row.host, cores: row.cores };
    let nodes = nodes().await?.into_iter().map(node).collect();
    let r = R { nodes, start: Timestamp::EPOCH, expiration: Timestamp::EPOCH, nslots: None };
    say!("{}", r.to_json());
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_jobs::proto::Drained;
    use kiln_types::{IdSet, Rank};

    fn node(rank: u32, allocated: &str) -> NodeRow {
        NodeRow {
            rank: Rank(rank),
            host: "vm".into(),
            cores: IdSet::range(0..=1),
            allocated: allocated.parse().unwrap(),
            online: true,
            excluded: false,
            drained: None,
        }
    }

    fn drained(rank: u32) -> NodeRow {
        NodeRow {
            drained: Some(Drained { at: Timestamp(1_795_373_319_612_171), reason: "reason here".into() }),
            ..node(rank, "")
        }
    }

    fn listed(nodes: &[NodeRow]) -> String {
        list_text(&Format::parse(LIST_FORMAT, heading).unwrap(), nodes, true, "free,allocated,down")
    }

    #[test]
    fn the_list() {
        assert_eq!(
            listed(&[node(0, ""), node(1, ""), node(2, "0-1"), drained(3)]),
            "     STATE NNODES NCORES NGPUS NODELIST\n      free      2      4     0 vm,vm\n allocated      1      2     0 vm\n      down      1      2     0 vm\n"
        );
        assert!(listed(&[NodeRow { excluded: true, ..node(0, "") }]).contains("free      0      0     0 \n"));
    }

    #[test]
    fn the_counts() {
        let nodes = [node(0, "0"), node(1, ""), drained(2)];
        assert_eq!(info_text(&nodes, "all"), "3 Nodes, 6 Cores, 0 GPUs");
        assert_eq!(info_text(&nodes, "free"), "2 Nodes, 3 Cores, 0 GPUs");
    }

    #[test]
    fn the_status() {
        assert_eq!(
            status_text(&[node(0, ""), node(1, ""), node(2, ""), drained(3)]),
            "       STATEUP NNODES NODELIST\n       avail ✔      3 vm,vm,vm\n     drained ✔      1 vm\n"
        );
    }

    #[test]
    fn the_drained() {
        let text = drained_text(&[node(0, ""), drained(3)]);
        let time = super::super::format::local(Timestamp(1_795_373_319_612_171), "%b%d %R");
        assert_eq!(
            text,
            format!(
                "TIME         STATE    REASON                         NODELIST\n{time}  drained  reason here                    vm\n"
            )
        );
    }
}
