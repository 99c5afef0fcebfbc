//! The filesystem service of a node, among its other services.

use std::sync::Arc;

use super::{DRAIN, Node};
use crate::fs::mgs::Mgs;
use crate::fs::{FsNode, Start};
use crate::pools::Pools;

/// Opens the pools that the node had in use.
pub(super) fn pools(node: &Node) -> Arc<Pools> {
    let dir = node.data.pools(node.rank.0);
    Arc::new(Pools::start(dir, host_name(), node.config.pool.memory.0))
}

/// The name of the machine, or of the node where each has its own.
fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".to_owned())
}

/// Starts it; `mgs` is the leader's.
pub(super) fn start(node: &Node, mgs: Option<Arc<Mgs>>, pools: Arc<Pools>) -> anyhow::Result<FsNode> {
    FsNode::start(Start { rank: node.rank.0, data: &node.data, config: &node.config, mgs, pools })
}

/// Stops it.
pub(super) async fn drain(fs: FsNode) {
    // A panic in there was told, and what was acknowledged is on the disk.
    let _ = tokio::task::spawn_blocking(move || fs.drain(DRAIN)).await;
}
