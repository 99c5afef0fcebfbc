//! The filesystem service of a node, among its other services.

use std::sync::Arc;

use super::{DRAIN, Node};
use crate::fs::mgs::Mgs;
use crate::fs::{FsNode, Start};

/// Starts it; `mgs` is the leader's.
pub(super) fn start(node: &Node, mgs: Option<Arc<Mgs>>) -> anyhow::Result<FsNode> {
    FsNode::start(Start { rank: node.rank.0, data: &node.data, config: &node.config, mgs })
}

/// Stops it.
pub(super) async fn drain(fs: FsNode) {
    // A panic in there was told, and what was acknowledged is on the disk.
    let _ = tokio::task::spawn_blocking(move || fs.drain(DRAIN)).await;
}
