//! From the listener to the target that a request is for.

use std::sync::Arc;

use kiln_fs::access::check_peer;
use kiln_fs::core::Errno;
use kiln_fs::wire::{Request, mds, node};
use kiln_net::blocking::{Call, Replies, Service};
use kiln_net::{Fault, Peer, Status};

use super::mgs::Mgs;
use super::targets::Targets;
use crate::pools::Pools;

/// Everything of the filesystem that a node answers for.
pub(super) struct FsService {
    /// On the leader.
    pub mgs: Option<Arc<Mgs>>,
    /// The node's targets.
    pub targets: Arc<Targets>,
    /// The node's pools.
    pub pools: Arc<Pools>,
}

impl Service for FsService {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        check_peer(call.peer)?;
        match call.decode()? {
            Request::Mds(request) => match self.targets.mds(&request.fs) {
                Some(mds) => mds.handle(request, &call.bulk, replies),
                None => replies.last(&no_mdt(), &[]),
            },
            Request::Oss(request) => self.targets.oss().handle(&request, &call, replies),
            Request::Mgs(request) => match &self.mgs {
                Some(mgs) => replies.last(&mgs.answer(request), &[]),
                None => Err(Fault::new(Status::Unavailable, "the MGS is on the leader, not on this node")),
            },
            Request::Node(node::Request::Targets) => {
                replies.last(&node::Reply::Targets(self.targets.status()), &[])
            }
            Request::Node(node::Request::Jobs(fs)) => {
                let jobs = self.targets.mds(&fs).map(|mds| mds.jobs());
                replies.last(&node::Reply::Jobs(jobs), &[])
            }
            Request::Node(node::Request::Owners { fs, ost, objects }) => {
                let objects = objects.into_iter().collect();
                let owners = self.targets.mds(&fs).and_then(|mds| mds.owners(ost, &objects).ok());
                replies.last(&node::Reply::Owners(owners), &[])
            }
            Request::Node(node::Request::Snapshot { step, snapshot, targets }) => {
                let done = self.targets.snapshot_step(step, &snapshot, &targets);
                replies.last(&node::Reply::Snapshot(done), &[])
            }
            Request::Node(node::Request::Pool(request)) => {
                let request = serde_json::from_str(&request).map_err(|error| {
                    Fault::new(Status::BadRequest, format!("a request about pools: {error}"))
                })?;
                let reply = serde_json::to_string(&self.pools.answer(request))
                    .map_err(|error| Fault::new(Status::Internal, error.to_string()))?;
                replies.last(&node::Reply::Pool(reply), &[])
            }
        }
    }

    fn takes_memory(&self, peer: Peer) -> bool {
        check_peer(peer).is_ok()
    }
}

fn no_mdt() -> mds::Reply {
    mds::Reply { outcome: Err(Errno::ENODEV), grants: Vec::new(), dirs: Vec::new(), seq: 0, room: None }
}
