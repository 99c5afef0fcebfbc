//! The task agent of a node, once it knows where the broker and the syslog receiver listen.

use std::sync::Arc;
use std::time::Duration;

use kiln_flow::agent::{Agent, AgentPorts, AgentSettings};
use kiln_flow::core::Catalogue;
use kiln_flow::ports::TaskQueue;
use kiln_world::Clock;
use tokio::task::JoinHandle;

use super::{DRAIN, Node, listen, secret};
use crate::supervisor::Listeners;
use crate::wiring::jobs::FluxJobs;
use crate::wiring::queue::AmqpQueue;

/// How often a starting node looks whether the leader has said where it listens, and whether its agent is there.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Starts the agent in the background; there is none on an excluded node, without a catalogue, or where agents are off.
pub(super) fn start(
    node: &Node,
    catalogue: Arc<Catalogue>,
    clock: &Arc<dyn Clock>,
) -> JoinHandle<Option<Agent>> {
    let (node, clock) = (node.clone(), Arc::clone(clock));
    tokio::spawn(async move {
        if node.excluded || catalogue.names().next().is_none() {
            return None;
        }
        let listeners = listeners(&node).await;
        if listeners.amqp == "off" || listeners.syslog == "off" {
            tracing::warn!("no tasks are run here: agents need amqp.listen and syslog.listen");
            return None;
        }
        let endpoint = match secret::endpoint(&node, listeners.amqp) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                tracing::error!(%error, "no tasks are run here: the agent cannot log in to the broker");
                return None;
            }
        };
        let cwd = node.data.root().display().to_string();
        let queue = Arc::new(AmqpQueue::new(endpoint, &node.host, node.cores as u16));
        let ports = AgentPorts {
            queue: Arc::clone(&queue) as Arc<dyn TaskQueue>,
            jobs: Arc::new(FluxJobs::new(node.data.broker_socket(node.rank.0), cwd)),
            clock,
        };
        let settings =
            AgentSettings { host: node.host, cores: node.cores as usize, events_to: listeners.syslog };
        let agent = Agent::start(settings, catalogue, ports);
        queue.connected().await;
        Some(agent)
    })
}

/// Returns when the agent takes tasks, or when it is known that there is none.
pub(super) async fn settled(agent: &JoinHandle<Option<Agent>>) {
    while !agent.is_finished() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Stops the agent, or the start of one.
pub(super) async fn stop(agent: JoinHandle<Option<Agent>>) {
    if !agent.is_finished() {
        agent.abort();
        return;
    }
    if let Ok(Some(agent)) = agent.await {
        agent.drain(DRAIN).await;
    }
}

async fn listeners(node: &Node) -> Listeners {
    loop {
        let known = listen::known(&node.data);
        if !known.amqp.is_empty() {
            return known;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
