//! The instance's nodes and cores: who has what, and what is free.

use super::event::{AllocatedNode, Allocation};
use crate::{
    proto::{Drained, NodeRow},
    spec::{Constraint, R, RNode, Shape},
};
use kiln_types::{IdSet, Rank, Timestamp};
use std::collections::BTreeMap;

/// A node as the configuration knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its rank.
    pub rank: Rank,
    /// Its name.
    pub host: String,
    /// Its cores; what its agent says later counts more.
    pub cores: IdSet,
    /// Kept from jobs, for management.
    pub excluded: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    host: String,
    cores: IdSet,
    /// What jobs have; cores among them that the agent no longer offers are not given out again.
    taken: IdSet,
    excluded: bool,
    drained: Option<Drained>,
    /// The boot number of its agent while that is connected.
    boot: Option<u64>,
}

impl Node {
    fn usable(&self) -> bool {
        self.boot.is_some() && !self.excluded && self.drained.is_none()
    }

    fn free(&self) -> IdSet {
        self.cores.difference(&self.taken)
    }
}

/// All nodes of the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    nodes: BTreeMap<Rank, Node>,
}

/// Why no set of nodes can ever satisfy a request. The texts are Flux's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsatisfiable {
    /// Too few nodes that are large enough.
    #[error("unsatisfiable request: need {need} node(s) with {cores} cores each, only {eligible} eligible")]
    Nodes {
        /// How many are asked for.
        need: u32,
        /// Cores on each.
        cores: u64,
        /// How many there are.
        eligible: usize,
    },
    /// Too few cores.
    #[error(
        "unsatisfiable request: need {need} slot(s) of {cores} core(s), only {available} such slot(s) available (total cores: {total})"
    )]
    Slots {
        /// How many are asked for.
        need: u32,
        /// Cores in each.
        cores: u32,
        /// How many there are.
        available: u64,
        /// Cores in all.
        total: u64,
    },
    /// Nodes have no GPUs here.
    #[error(
        "unsatisfiable request: need {need} slot(s) with {gpus} GPU(s) each, only 0 available (total GPUs: 0)"
    )]
    Gpus {
        /// Slots asked for.
        need: u64,
        /// GPUs in each.
        gpus: u32,
    },
}

impl Graph {
    /// These nodes, all of them down and free.
    #[must_use]
    pub fn new(nodes: &[NodeConfig]) -> Self {
        let nodes = nodes.iter().map(|config| {
            let NodeConfig { host, cores, excluded, .. } = config.clone();
            (config.rank, Node { host, cores, taken: IdSet::new(), excluded, drained: None, boot: None })
        });
        Self { nodes: nodes.collect() }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// Whether there is a node of this rank.
    #[must_use]
    pub fn has(&self, rank: Rank) -> bool {
        self.nodes.contains_key(&rank)
    }

    /// A node's agent is there.
    pub fn up(&mut self, rank: Rank, boot: u64, host: &str, cores: &IdSet) {
        let Some(node) = self.nodes.get_mut(&rank) else { return };
        node.boot = Some(boot);
        host.clone_into(&mut node.host);
        if !cores.is_empty() {
            node.cores = cores.clone();
        }
    }

    /// A node's agent is gone.
    pub fn down(&mut self, rank: Rank) {
        if let Some(node) = self.nodes.get_mut(&rank) {
            node.boot = None;
        }
    }

    /// The boot number of a node's agent; none when it is not connected.
    #[must_use]
    pub fn boot(&self, rank: Rank) -> Option<u64> {
        self.nodes.get(&rank).and_then(|node| node.boot)
    }

    /// Takes nodes out of service; those that are already keep their reason.
    pub fn drain(&mut self, ranks: &IdSet, reason: &str, at: Timestamp) {
        for (rank, node) in &mut self.nodes {
            if ranks.contains(rank.0) && node.drained.is_none() {
                node.drained = Some(Drained { at, reason: reason.to_owned() });
            }
        }
    }

    /// Puts nodes back in service.
    pub fn undrain(&mut self, ranks: &IdSet) {
        for (rank, node) in &mut self.nodes {
            if ranks.contains(rank.0) {
                node.drained = None;
            }
        }
    }

    /// Ranks of the nodes that are drained.
    #[must_use]
    pub fn drained(&self) -> IdSet {
        self.nodes.iter().filter(|(_, node)| node.drained.is_some()).map(|(rank, _)| rank.0).collect()
    }

    /// Ranks of the nodes with one of these names.
    #[must_use]
    pub fn ranks_of(&self, hosts: &kiln_types::Hostlist) -> IdSet {
        self.nodes.iter().filter(|(_, node)| hosts.contains(&node.host)).map(|(rank, _)| rank.0).collect()
    }

    /// Every node, by rank.
    #[must_use]
    pub fn rows(&self) -> Vec<NodeRow> {
        let row = |(rank, node): (&Rank, &Node)| NodeRow {
            rank: *rank,
            host: node.host.clone(),
            cores: node.cores.clone(),
            allocated: node.taken.clone(),
            online: node.boot.is_some(),
            excluded: node.excluded,
            drained: node.drained.clone(),
        };
        self.nodes.iter().map(row).collect()
    }

    /// Whether the request could be satisfied if all nodes were up and free.
    ///
    /// # Errors
    /// With what is asked for and what there is.
    pub fn feasible(&self, shape: &Shape, constraint: Option<&Constraint>) -> Result<(), Unsatisfiable> {
        self.suffices(shape, constraint, false)
    }

    /// Names the excluded nodes if the request is unsatisfiable only because they are: ` (silicon1 is excluded)`, to
    /// stand behind the text of [`Unsatisfiable`]. Empty otherwise. A drained node is no reason: it may come back, so
    /// the job waits for it.
    #[must_use]
    pub fn exclusion_hint(&self, shape: &Shape, constraint: Option<&Constraint>) -> String {
        if self.feasible(shape, constraint).is_ok() || self.suffices(shape, constraint, true).is_err() {
            return String::new();
        }
        let excluded =
            self.nodes.iter().filter(|(rank, node)| node.excluded && accepts(constraint, **rank, node));
        let hosts: Vec<&str> = excluded.map(|(_, node)| node.host.as_str()).collect();
        let verb = if hosts.len() == 1 { "is" } else { "are" };
        format!(" ({} {verb} excluded)", hosts.into_iter().collect::<kiln_types::Hostlist>())
    }

    fn suffices(
        &self,
        shape: &Shape,
        constraint: Option<&Constraint>,
        with_excluded: bool,
    ) -> Result<(), Unsatisfiable> {
        if shape.gpus > 0 {
            return Err(Unsatisfiable::Gpus { need: shape.slots_total(), gpus: shape.gpus });
        }
        let eligible: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|(rank, node)| (with_excluded || !node.excluded) && accepts(constraint, **rank, node))
            .map(|(_, node)| node)
            .collect();
        match shape.nodes {
            Some(need) => nodes_suffice(&eligible, need, shape.cores_wanted()),
            None => slots_suffice(&eligible, shape.slots, shape.cores),
        }
    }

    /// Resources for the request out of what is usable and free now; none when there is not enough.
    ///
    /// Nodes with more free cores go first, then lower ranks, as Flux's simple scheduler does by default.
    #[must_use]
    pub fn find(&self, shape: &Shape, constraint: Option<&Constraint>) -> Option<Vec<AllocatedNode>> {
        let mut offers: Vec<Offer<'_>> = self
            .nodes
            .iter()
            .filter(|(rank, node)| node.usable() && accepts(constraint, **rank, node))
            .map(|(rank, node)| Offer { rank: *rank, node, free: node.free() })
            .collect();
        offers.sort_by_key(|offer| (std::cmp::Reverse(offer.free.len()), offer.rank));
        let mut found = match shape.nodes {
            Some(need) => on_nodes(&offers, need, shape)?,
            None => slots_anywhere(&offers, shape)?,
        };
        found.sort_by_key(|node| node.rank);
        Some(found)
    }

    /// Marks an allocation's cores as taken.
    pub fn take(&mut self, allocation: &Allocation) {
        for part in &allocation.nodes {
            if let Some(node) = self.nodes.get_mut(&part.rank) {
                debug_assert!(
                    part.cores.intersection(&node.taken).is_empty(),
                    "cores {} of rank {} are given out twice",
                    part.cores,
                    part.rank
                );
                node.taken = node.taken.union(&part.cores);
            }
        }
    }

    /// Marks an allocation's cores as free.
    pub fn give_back(&mut self, allocation: &Allocation) {
        for part in &allocation.nodes {
            if let Some(node) = self.nodes.get_mut(&part.rank) {
                node.taken = node.taken.difference(&part.cores);
            }
        }
    }
}

fn accepts(constraint: Option<&Constraint>, rank: Rank, node: &Node) -> bool {
    constraint.is_none_or(|constraint| constraint.accepts(rank, &node.host))
}

fn nodes_suffice(eligible: &[&Node], need: u32, cores: u64) -> Result<(), Unsatisfiable> {
    let large = eligible.iter().filter(|node| node.cores.len() >= cores).count();
    if large >= need as usize { Ok(()) } else { Err(Unsatisfiable::Nodes { need, cores, eligible: large }) }
}

fn slots_suffice(eligible: &[&Node], need: u32, cores: u32) -> Result<(), Unsatisfiable> {
    let available = eligible.iter().map(|node| node.cores.len() / u64::from(cores)).sum();
    if available >= u64::from(need) {
        return Ok(());
    }
    let total = eligible.iter().map(|node| node.cores.len()).sum();
    Err(Unsatisfiable::Slots { need, cores, available, total })
}

/// What a usable node has to give.
struct Offer<'a> {
    rank: Rank,
    node: &'a Node,
    free: IdSet,
}

impl Offer<'_> {
    fn part(&self, cores: IdSet, slots: u32) -> AllocatedNode {
        let boot = self.node.boot.unwrap_or_default();
        AllocatedNode { rank: self.rank, host: self.node.host.clone(), cores, slots, boot }
    }
}

fn on_nodes(offers: &[Offer<'_>], need: u32, shape: &Shape) -> Option<Vec<AllocatedNode>> {
    let fits = |offer: &&Offer<'_>| {
        offer.free.len() >= shape.cores_wanted() && (!shape.exclusive || offer.node.taken.is_empty())
    };
    let cores = |offer: &Offer<'_>| {
        if shape.exclusive { offer.free.clone() } else { offer.free.take(shape.cores_wanted()) }
    };
    let chosen = offers.iter().filter(fits).take(need as usize);
    let found: Vec<AllocatedNode> = chosen.map(|offer| offer.part(cores(offer), shape.slots)).collect();
    (found.len() == need as usize).then_some(found)
}

fn slots_anywhere(offers: &[Offer<'_>], shape: &Shape) -> Option<Vec<AllocatedNode>> {
    let mut left = u64::from(shape.slots);
    let mut found = Vec::new();
    for offer in offers {
        let slots = left.min(offer.free.len() / u64::from(shape.cores));
        if slots > 0 {
            found.push(offer.part(offer.free.take(slots * u64::from(shape.cores)), slots as u32));
            left -= slots;
        }
        if left == 0 {
            return Some(found);
        }
    }
    None
}

impl Allocation {
    /// As RFC 20 has it; `start` is when it was made.
    #[must_use]
    pub fn r(&self, start: Timestamp) -> R {
        let node = |part: &AllocatedNode| RNode {
            rank: part.rank,
            host: part.host.clone(),
            cores: part.cores.clone(),
        };
        R {
            nodes: self.nodes.iter().map(node).collect(),
            start,
            expiration: self.expiration.unwrap_or_default(),
            nslots: Some(self.nodes.iter().map(|part| u64::from(part.slots)).sum()),
        }
    }

    /// `rank0/core[0-1]`.
    #[must_use]
    pub fn summary(&self) -> String {
        self.r(Timestamp::EPOCH).summary()
    }

    /// How many cores.
    #[must_use]
    pub fn cores(&self) -> u32 {
        self.nodes.iter().map(|part| part.cores.len()).sum::<u64>() as u32
    }

    /// The ranks of its nodes.
    #[must_use]
    pub fn ranks(&self) -> IdSet {
        self.nodes.iter().map(|part| part.rank.0).collect()
    }

    /// The place in the job of the node with this rank.
    #[must_use]
    pub fn place(&self, rank: Rank) -> Option<u32> {
        self.nodes.iter().position(|part| part.rank == rank).map(|place| place as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn graph(count: u32) -> Graph {
        let config = |rank| NodeConfig {
            rank: Rank(rank),
            host: format!("n{rank}"),
            cores: "0-1".parse().unwrap(),
            excluded: false,
        };
        let mut graph = Graph::new(&(0..count).map(config).collect::<Vec<_>>());
        for rank in 0..count {
            graph.up(Rank(rank), 7, &format!("n{rank}"), &"0-1".parse().unwrap());
        }
        graph
    }

    fn slots(slots: u32, cores: u32) -> Shape {
        Shape { nodes: None, slots, cores, gpus: 0, exclusive: false }
    }

    fn nodes(nodes: u32, cores: u32) -> Shape {
        Shape { nodes: Some(nodes), slots: 1, cores, gpus: 0, exclusive: false }
    }

    fn summary(found: Option<Vec<AllocatedNode>>) -> Option<String> {
        found.map(|nodes| Allocation { nodes, expiration: None }.summary())
    }

    #[test]
    fn why_requests_are_unsatisfiable() {
        let text = |shape: &Shape, constraint: Option<&Constraint>| {
            graph(4).feasible(shape, constraint).unwrap_err().to_string()
        };
        assert_eq!(
            text(&slots(100, 1), None),
            "unsatisfiable request: need 100 slot(s) of 1 core(s), only 8 such slot(s) available (total cores: 8)"
        );
        assert_eq!(
            text(&nodes(5, 1), None),
            "unsatisfiable request: need 5 node(s) with 1 cores each, only 4 eligible"
        );
        assert_eq!(
            text(&nodes(4, 4), None),
            "unsatisfiable request: need 4 node(s) with 4 cores each, only 0 eligible"
        );
        assert_eq!(
            text(&Shape { gpus: 1, ..slots(1, 1) }, None),
            "unsatisfiable request: need 1 slot(s) with 1 GPU(s) each, only 0 available (total GPUs: 0)"
        );
        let property = Constraint::parse(&json!({"properties": ["nosuchprop"]})).unwrap();
        assert_eq!(
            text(&slots(1, 1), Some(&property)),
            "unsatisfiable request: need 1 slot(s) of 1 core(s), only 0 such slot(s) available (total cores: 0)"
        );
    }

    #[test]
    fn an_excluded_node_is_named_when_it_is_the_reason() {
        let config = |rank| NodeConfig {
            rank: Rank(rank),
            host: format!("n{rank}"),
            cores: "0-1".parse().unwrap(),
            excluded: rank < 2,
        };
        let graph = Graph::new(&(0..4).map(config).collect::<Vec<_>>());
        assert_eq!(graph.exclusion_hint(&nodes(4, 1), None), " (n[0-1] are excluded)");
        assert_eq!(graph.exclusion_hint(&nodes(2, 1), None), "", "it can be satisfied");
        assert_eq!(
            graph.exclusion_hint(&nodes(5, 1), None),
            "",
            "it could not be satisfied with them either"
        );
        let host = Constraint::parse(&json!({"hostlist": ["n1"]})).unwrap();
        assert_eq!(graph.exclusion_hint(&slots(1, 1), Some(&host)), " (n1 is excluded)");
    }

    #[test]
    fn slots_fill_a_node_and_go_on() {
        assert_eq!(summary(graph(4).find(&slots(2, 1), None)).unwrap(), "rank0/core[0-1]");
        assert_eq!(summary(graph(4).find(&slots(4, 1), None)).unwrap(), "rank[0-1]/core[0-1]");
        assert_eq!(summary(graph(4).find(&slots(3, 1), None)).unwrap(), "rank0/core[0-1] rank1/core0");
        assert_eq!(summary(graph(1).find(&slots(1, 3), None)), None);
    }

    #[test]
    fn the_node_with_most_free_cores_goes_first() {
        let mut graph = graph(2);
        let first = Allocation { nodes: graph.find(&slots(1, 1), None).unwrap(), expiration: None };
        graph.take(&first);
        assert_eq!(summary(graph.find(&slots(2, 1), None)).unwrap(), "rank1/core[0-1]");
        graph.give_back(&first);
        assert_eq!(graph, self::graph(2));
    }

    #[test]
    fn exclusive_wants_idle_nodes_and_takes_all_of_them() {
        let mut graph = graph(2);
        let taken = Allocation { nodes: graph.find(&slots(1, 1), None).unwrap(), expiration: None };
        graph.take(&taken);
        let exclusive = |count| Shape { exclusive: true, ..nodes(count, 1) };
        assert_eq!(summary(graph.find(&exclusive(1), None)).unwrap(), "rank1/core[0-1]");
        assert_eq!(summary(graph.find(&exclusive(2), None)), None);
    }

    #[test]
    fn drained_down_and_excluded_nodes_get_nothing() {
        let mut graph = graph(3);
        graph.drain(&"0".parse().unwrap(), "dusty", Timestamp(5));
        graph.down(Rank(1));
        assert_eq!(summary(graph.find(&slots(2, 1), None)).unwrap(), "rank2/core[0-1]");
        assert_eq!(summary(graph.find(&nodes(2, 1), None)), None);
        assert_eq!(graph.feasible(&nodes(3, 1), None), Ok(()), "what is down may come up");
        graph.undrain(&"0".parse().unwrap());
        assert_eq!(summary(graph.find(&nodes(2, 1), None)).unwrap(), "rank[0,2]/core0");
    }
}
