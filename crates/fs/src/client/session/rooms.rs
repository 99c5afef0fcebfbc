//! How much space owners of files have left, as the MDS has said last.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::FileKind;
use crate::core::quota::Owner;
use crate::wire::mds::{Answer, Reply};

/// Owners that are remembered; with more, all are forgotten, and those who matter are told again.
const OWNERS_MAX: usize = 4096;

/// See the module. Owners without a limit are not in it.
#[derive(Debug, Default)]
pub(super) struct Rooms(Mutex<HashMap<Owner, u64>>);

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a reply says.
    pub(super) fn note(&self, reply: &Reply) {
        let Ok(Answer::Attr(attr) | Answer::Opened { attr, .. }) = &reply.outcome else { return };
        if attr.kind != FileKind::Regular {
            return;
        }
        let mut rooms = self.lock();
        match reply.room {
            Some(room) => {
                if rooms.len() >= OWNERS_MAX {
                    rooms.clear();
                }
                rooms.insert(attr.into(), room);
            }
            None => drop(rooms.remove(&attr.into())),
        }
    }

    /// What an owner has left, in bytes; `None` without a limit.
    pub(super) fn of(&self, owner: Owner) -> Option<u64> {
        self.lock().get(&owner).copied()
    }
}
