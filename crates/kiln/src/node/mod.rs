//! `kiln node`: what one node's process is made of.
//!
//! Before any thread is started the process takes the node's host name and asks the kernel to be told when the supervisor dies. Then rank 0 becomes a
//! [`leader`], every other rank a [`member`].

mod agent;
mod broker;
mod foundations;
mod fs;
mod ground;
mod host;
mod leader;
mod listen;
mod lock;
mod member;
mod pmi;
mod secret;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use kiln_config::Config;
use kiln_types::Rank;
use tokio::signal::unix::{SignalKind, signal};

use crate::paths::DataDir;
use crate::settings;

/// Each service may take this long to finish what it holds when the node stops.
const DRAIN: Duration = Duration::from_secs(3);

/// What a node knows about itself.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its place; 0 leads.
    pub rank: Rank,
    /// Its name, also where the machine does not allow a host name of its own.
    pub host: String,
    /// The cores it offers to jobs.
    pub cores: u32,
    /// Whether it runs jobs at all.
    pub excluded: bool,
    /// Where everything lies.
    pub data: DataDir,
    /// The settings in force.
    pub config: Config,
}

/// Runs a node until it is told to stop.
pub(crate) fn run(data: &DataDir, rank: u32) -> anyhow::Result<ExitCode> {
    host::follow_supervisor()?;
    let _alone = lock::alone(data, rank)?;
    let config = settings::take_over(data)?.config;
    crate::log_to_stderr(&config);
    host::raise_file_limit();
    let name = format!("{}{}", config.cluster.host_prefix, rank + 1);
    host::take_name(&name, config.cluster.hostnames)?;
    let excluded: kiln_types::Hostlist =
        config.cluster.exclude.parse().context("failed to read cluster.exclude as a hostlist")?;
    let node = Node {
        rank: Rank(rank),
        cores: host::cores(config.node.cores),
        excluded: excluded.contains(&name),
        host: name,
        data: data.clone(),
        config,
    };
    // Two workers at least: a flush or a cold read in one must not hold up the heartbeats of all clients.
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime
        .block_on(async move { if rank == 0 { leader::run(node).await } else { member::run(node).await } })?;
    // Detached tasks hold nothing that is not on disk.
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(ExitCode::SUCCESS)
}

/// Returns when the node is asked to stop.
async fn stop_requested() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Ctrl-C reaches the whole process group; the supervisor decides the order of stopping.
    let interrupt = async move { while interrupt.recv().await.is_some() {} };
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        () = interrupt => Ok(()),
    }
}
