//! Starting and stopping the service.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kiln_config::Config;
use kiln_fs::wire::mgs::Request;
use kiln_net::blocking::{Listener, ServeLimits, Server, serve};

use super::changelog::Sink;
use super::duty::{Follower, Source};
use super::mgs::Mgs;
use super::servers::Setup;
use super::service::FsService;
use super::targets::Targets;
use crate::paths::DataDir;
use crate::pools::Pools;

/// What the service of a node is started with.
pub(crate) struct Start<'n> {
    /// The node's rank.
    pub rank: u32,
    /// Where the instance's data lies.
    pub data: &'n DataDir,
    /// The settings in force.
    pub config: &'n Config,
    /// The MGS, on the leader; other nodes ask the leader's.
    pub mgs: Option<Arc<Mgs>>,
    /// The pools of this node.
    pub pools: Arc<Pools>,
}

/// The running service.
pub(crate) struct FsNode {
    mgs: Option<Arc<Mgs>>,
    targets: Arc<Targets>,
    pools: Arc<Pools>,
    follower: Follower,
    server: Server,
}

impl FsNode {
    /// Listens, and serves targets as the MGS says. Blocks for a moment; targets start in the background.
    pub(crate) fn start(start: Start<'_>) -> anyhow::Result<FsNode> {
        let Start { rank, data, config, mgs, pools } = start;
        let socket = data.fs_socket(rank);
        let listener = Listener::bind_unix(&socket)
            .with_context(|| format!("failed to listen on {}", socket.display()))?;
        let source = mgs.clone().map_or_else(|| Source::At(data.fs_socket(0)), Source::Here);
        let leader = source.clone();
        let sink = Sink(source.clone());
        let tell = move |events| sink.tell(Request::PoolEvents(events));
        pools.look_after(Box::new(tell)).context("failed to start the thread that looks after pools")?;
        let setup = Setup {
            data: data.clone(),
            config: config.clone(),
            oss: Arc::default(),
            leader,
            pools: Arc::clone(&pools),
        };
        let targets = Arc::new(Targets::new(setup));
        let service = Arc::new(FsService {
            mgs: mgs.clone(),
            targets: Arc::clone(&targets),
            pools: Arc::clone(&pools),
        });
        let limits =
            ServeLimits { connections_max: config.fs.connections_max as usize, ..ServeLimits::default() };
        let server = serve(listener, limits, service);
        let follower = Follower::start(rank, source, Arc::clone(&targets))
            .context("failed to start the thread that follows the MGS")?;
        Ok(FsNode { mgs, targets, pools, follower, server })
    }

    /// Takes no more requests, lets those end that are under way, and closes the targets. Blocks.
    pub(crate) fn drain(self, deadline: Duration) {
        if let Some(mgs) = &self.mgs {
            mgs.stop();
        }
        self.follower.stop();
        let cut = self.server.stop(deadline);
        if cut > 0 {
            tracing::debug!(cut, "filesystem connections cut");
        }
        self.targets.stop();
        self.pools.stop();
    }
}
