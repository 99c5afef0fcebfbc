//! The object storage server: the data of files, as objects of the OSTs of this node.
//!
//! - [`Objects`]: what stores objects; ten verbs with a contract.
//! - [`DirectoryObjects`]: one sparse file for each object in a directory. docs/formats/fs-objects.md describes it. It stands
//!   on the operating system directly and not on `kiln_world::Disk`: an object is a thin wrap of a file whose holes, space
//!   and page cache are the kernel's, which that trait does not have, and nothing here has an order of writes that a crash
//!   could catch in the middle.
//! - [`PoolObjects`]: a dataset of a pool.
//! - [`Ost`]: one target: answers requests, keeps out sessions that were evicted.
//! - [`Oss`]: the targets of a node, which come and go while it runs.
//!
//! Requests of one object run side by side, as many as come: what two writes of the same bytes leave behind is one or the
//! other, and who must not meet is kept apart by leases of the MDS.

mod buffers;
mod directory;
mod durable;
mod error;
mod fences;
mod label;
mod lock;
mod objects;
mod ost;
mod pool;
mod shelf;
mod streams;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kiln_net::Fault;
use kiln_net::blocking::{Call, Replies, Span};

pub use directory::DirectoryObjects;
pub use error::TargetError;
pub use label::Label;
pub use objects::Objects;
pub use ost::{Answer, Ost};
pub use pool::PoolObjects;

use crate::core::{Errno, OstIndex};
use crate::wire::oss::{Op, Request};

/// A target that may be taken away while its neighbours are served.
#[derive(Debug)]
struct Place {
    label: Label,
    /// Requests that came.
    requests: AtomicU64,
    /// Requests hold it for reading; `None` once the target was taken away.
    ost: RwLock<Option<Ost>>,
}

/// The OSTs of a node, by filesystem and index.
#[derive(Debug, Default)]
pub struct Oss {
    places: RwLock<HashMap<String, BTreeMap<OstIndex, Arc<Place>>>>,
}

impl Oss {
    /// Serves nothing yet.
    pub fn new() -> Oss {
        Oss::default()
    }

    /// Serves a target from now on, instead of one of the same filesystem and index if there is one.
    pub fn add(&self, ost: Ost) {
        let label = ost.label().clone();
        let (fs, index) = (label.fs.clone(), label.index);
        self.remove(&fs, index);
        let place = Arc::new(Place { label, requests: AtomicU64::new(0), ost: RwLock::new(Some(ost)) });
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.entry(fs).or_default().insert(index, place);
    }

    /// Serves a target no longer. When this returns, what was under way is over and the target may be served elsewhere.
    /// `false` when it was not served.
    pub fn remove(&self, fs: &str, index: OstIndex) -> bool {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let Some(of_fs) = places.get_mut(fs) else { return false };
        let Some(place) = of_fs.remove(&index) else { return false };
        if of_fs.is_empty() {
            places.remove(fs);
        }
        drop(places);
        place.ost.write().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// The labels of the targets that are served.
    pub fn served(&self) -> Vec<Label> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.values().flat_map(BTreeMap::values).map(|place| place.label.clone()).collect()
    }

    /// Answers a request; blocks as long as the disk needs. It sends when no lock is held any more: a client that does not take its answer holds
    /// up nobody.
    pub fn handle(&self, request: &Request, call: &Call, replies: &mut Replies) -> Result<(), Fault> {
        if matches!(request.op, Op::Write { crc: None, .. }) && !call.lent && !call.bulk.is_empty() {
            tracing::error!(
                fs = request.fs,
                ost = request.ost.0,
                "bytes came without a checksum, and were refused"
            );
            return Answer::refused(Errno::EIO).send(replies);
        }
        self.answer_into(request, &call.bulk, |len| replies.room(len)).send(replies)
    }

    /// The answer to a request that came on no connection.
    pub fn answer(&self, request: &Request, bulk: &[u8]) -> Answer {
        self.answer_into(request, bulk, |_| None)
    }

    fn answer_into(
        &self,
        request: &Request,
        bulk: &[u8],
        room: impl FnOnce(usize) -> Option<Span>,
    ) -> Answer {
        let Some(place) = self.find(&request.fs, request.ost) else { return Answer::refused(Errno::ENODEV) };
        place.requests.fetch_add(1, Ordering::Relaxed);
        let ost = place.ost.read().unwrap_or_else(PoisonError::into_inner);
        ost.as_ref()
            .map_or_else(|| Answer::refused(Errno::ENODEV), |ost| ost.answer_into(request, bulk, room))
    }

    /// Requests that came for a target since it is served here.
    pub fn requests(&self, fs: &str, index: OstIndex) -> u64 {
        self.find(fs, index).map_or(0, |place| place.requests.load(Ordering::Relaxed))
    }

    fn find(&self, fs: &str, index: OstIndex) -> Option<Arc<Place>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(fs)?.get(&index).cloned()
    }
}
