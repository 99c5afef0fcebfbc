//! The scheduler: a pure function from the queue and the nodes to what starts now.

use super::{event::AllocatedNode, graph::Graph};
use crate::spec::{Constraint, Shape};
use kiln_types::{JobId, Timestamp};

/// A job that waits for resources.
#[derive(Clone, Debug)]
pub struct Waiting<'a> {
    /// Which.
    pub id: JobId,
    /// How much it needs.
    pub shape: Shape,
    /// Where.
    pub constraint: Option<&'a Constraint>,
    /// The time limit in seconds; 0 means none.
    pub duration: f64,
}

/// A job that starts now, and on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which.
    pub id: JobId,
    /// Its nodes and cores.
    pub allocation: super::event::Allocation,
}

/// The jobs that start at `now`: first come, first served in the queue's order.
///
/// The first job that does not fit holds up all behind it, so that a wide job is not starved by narrow ones. `graph`
/// is the caller's scratch copy: what is decided is marked as taken in it.
pub fn plan<'a>(
    queue: impl IntoIterator<Item = Waiting<'a>>,
    graph: &mut Graph,
    now: Timestamp,
) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for job in queue {
        let Some(nodes) = graph.find(&job.shape, job.constraint) else { break };
        debug_assert!(satisfies(&nodes, &job.shape), "{} does not get what it asks for: {nodes:?}", job.id);
        let expiration = (job.duration > 0.0)
            .then(|| now + std::time::Duration::try_from_secs_f64(job.duration).unwrap_or_default());
        let allocation = super::event::Allocation { nodes, expiration };
        graph.take(&allocation);
        decisions.push(Decision { id: job.id, allocation });
    }
    decisions
}

fn satisfies(nodes: &[AllocatedNode], shape: &Shape) -> bool {
    let slots: u64 = nodes.iter().map(|node| u64::from(node.slots)).sum();
    let cores_suffice =
        nodes.iter().all(|node| node.cores.len() >= u64::from(node.slots) * u64::from(shape.cores));
    slots == shape.slots_total()
        && cores_suffice
        && shape.nodes.is_none_or(|count| count as usize == nodes.len())
}

#[cfg(test)]
mod tests {
    use super::{super::graph::NodeConfig, *};
    use kiln_types::{IdSet, Rank};
    use proptest::prelude::*;

    fn graph(cores: &[u32]) -> Graph {
        let config = |(rank, &count): (u32, &u32)| NodeConfig {
            rank: Rank(rank),
            host: format!("n{rank}"),
            cores: IdSet::range(0..=count - 1),
            excluded: false,
        };
        let configs: Vec<NodeConfig> = (0..).zip(cores).map(config).collect();
        let mut graph = Graph::new(&configs);
        for node in &configs {
            graph.up(node.rank, 1, &node.host, &node.cores);
        }
        graph
    }

    fn job(id: u64, shape: Shape) -> Waiting<'static> {
        Waiting { id: JobId::new(id), shape, constraint: None, duration: 0.0 }
    }

    fn slots(slots: u32) -> Shape {
        Shape { nodes: None, slots, cores: 1, gpus: 0, exclusive: false }
    }

    fn ids(decisions: &[Decision]) -> Vec<u64> {
        decisions.iter().map(|decision| decision.id.number()).collect()
    }

    #[test]
    fn the_first_that_does_not_fit_holds_up_the_rest() {
        let queue = [job(1, slots(1)), job(2, slots(4)), job(3, slots(1))];
        assert_eq!(ids(&plan(queue, &mut graph(&[2, 2]), Timestamp::EPOCH)), [1]);
    }

    #[test]
    fn the_time_limit_counts_from_now() {
        let limited = Waiting { duration: 2.5, ..job(1, slots(1)) };
        let decisions = plan([limited], &mut graph(&[1]), Timestamp(1_000_000));
        assert_eq!(decisions[0].allocation.expiration, Some(Timestamp(3_500_000)));
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        (proptest::option::of(1u32..4), 1u32..5, 1u32..3, any::<bool>()).prop_map(
            |(nodes, slots, cores, exclusive)| Shape {
                nodes,
                slots,
                cores,
                gpus: 0,
                exclusive: exclusive && nodes.is_some(),
            },
        )
    }

    proptest! {
        #[test]
        fn never_gives_a_core_twice_and_keeps_the_order(
            cores in proptest::collection::vec(1u32..6, 1..6),
            shapes in proptest::collection::vec(shapes(), 0..12),
        ) {
            let mut graph = graph(&cores);
            let queue: Vec<_> = (1..).zip(shapes).map(|(id, shape)| job(id, shape)).collect();
            let decisions = plan(queue.clone(), &mut graph, Timestamp::EPOCH);
            let expected: Vec<u64> = (1..=decisions.len() as u64).collect();
            prop_assert_eq!(ids(&decisions), expected);
            for (rank, count) in (0..).zip(cores) {
                let parts = decisions.iter().flat_map(|decision| &decision.allocation.nodes).filter(|part| part.rank == Rank(rank));
                let mut seen = IdSet::new();
                for part in parts {
                    prop_assert!(seen.intersection(&part.cores).is_empty());
                    seen = seen.union(&part.cores);
                }
                prop_assert!(seen.difference(&IdSet::range(0..=count - 1)).is_empty());
            }
            for (decision, job) in decisions.iter().zip(&queue) {
                prop_assert!(satisfies(&decision.allocation.nodes, &job.shape));
            }
            // Nothing changed, so nothing is decided.
            let rest: Vec<_> = queue[decisions.len()..].to_vec();
            prop_assert_eq!(plan(rest, &mut graph, Timestamp::EPOCH), vec![]);
        }

        #[test]
        fn what_is_feasible_starts_on_an_idle_instance(cores in proptest::collection::vec(1u32..6, 1..6), shape in shapes()) {
            let mut graph = graph(&cores);
            let feasible = graph.feasible(&shape, None).is_ok();
            prop_assert_eq!(plan([job(1, shape)], &mut graph, Timestamp::EPOCH).len(), usize::from(feasible));
        }
    }
}
