//! Every rank but 0: a job broker that runs tasks for the leader, a task agent, and the filesystems' targets of this node.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use kiln_jobs::broker::start_member;
use kiln_world::{Clock, RealClock, RealRng, Rng};

use super::{DRAIN, Node, agent, broker, fs, stop_requested};
use crate::supervisor::Report;
use crate::wiring::flows;

pub(super) async fn run(node: Node) -> anyhow::Result<()> {
    let started = Instant::now();
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let rng: Arc<dyn Rng> = Arc::new(RealRng);
    let settings = broker::settings(&node, &clock, &rng)?;
    let broker = start_member(settings, &node.data.broker_socket(0))
        .await
        .context("failed to start the job broker")?;
    let fs = fs::start(&node, None, fs::pools(&node))?;
    let catalogue = flows::chain(&node.config)?.catalogue;
    let agent = agent::start(&node, catalogue, &clock);
    let stop = stop_requested();
    tokio::pin!(stop);
    let ended = tokio::select! {
        ended = &mut stop => ended,
        _ = async { tokio::join!(broker::online(&node), agent::settled(&agent)) } => {
            Report { listeners: None }.send()?;
            tracing::info!(host = node.host, took = ?started.elapsed(), "ready");
            stop.await
        }
    };
    agent::stop(agent).await;
    fs::drain(fs).await;
    broker.drain(DRAIN).await;
    ended
}
