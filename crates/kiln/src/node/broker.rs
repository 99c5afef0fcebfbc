//! The job broker of a node, as its settings have it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kiln_jobs::broker::{Jobs, NodeSettings};
use kiln_jobs::proto::{Reply, Request};
use kiln_types::IdSet;
use kiln_world::{Clock, Rng};

use super::{Node, pmi};

/// How often a starting node looks whether the leader has it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Cores 0 to `count - 1`.
pub(super) fn cores(count: u32) -> IdSet {
    IdSet::range(0..=count.saturating_sub(1))
}

/// What the broker of `node` must know.
pub(super) fn settings(
    node: &Node,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> anyhow::Result<NodeSettings> {
    Ok(NodeSettings {
        rank: node.rank,
        host: node.host.clone(),
        cores: cores(node.cores),
        socket: node.data.broker_socket(node.rank.0),
        tmp: node.data.run().join(format!("tmp-{}", node.rank.0)),
        pmi_library: Some(pmi::unpack(&node.data)?),
        bin_dir: Some(bin_dir(node)?),
        jobid_path: String::new(),
        clock: Arc::clone(clock),
        rng: Arc::clone(rng),
    })
}

/// Returns when the leader has this node's agent, so that a node which calls itself ready takes jobs.
pub(super) async fn online(node: &Node) {
    let jobs = Jobs::new(node.data.broker_socket(node.rank.0));
    loop {
        let reply = jobs.ask(&Request::Resources).await;
        if matches!(reply, Ok(Reply::Nodes(nodes)) if nodes.iter().any(|n| n.rank == node.rank && n.online)) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where this program lies, or where its successor lies after an upgrade.
fn own_file() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("failed to find kiln's own file")?;
    let replaced = own.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.unwrap_or(own))
}

/// A directory with `flux`, `kiln` and `lfs` in it, so that a batch script finds them whatever the user's PATH is.
fn bin_dir(node: &Node) -> anyhow::Result<PathBuf> {
    let dir = node.data.run().join("bin");
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let own = own_file()?;
    for name in ["flux", "kiln", "lfs"] {
        let link = dir.join(name);
        if std::fs::read_link(&link).is_ok_and(|to| to == own) {
            continue;
        }
        let fresh = dir.join(format!(".{name}.{}", node.rank.0));
        let _ = std::fs::remove_file(&fresh);
        std::os::unix::fs::symlink(&own, &fresh)
            .and_then(|()| std::fs::rename(&fresh, &link))
            .with_context(|| format!("failed to link {}", link.display()))?;
    }
    Ok(dir)
}
