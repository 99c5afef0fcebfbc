//! Sessions that are kept out of a target.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use bytes::{Buf, BufMut};

use super::durable;
use super::error::TargetError;
use super::label::{FORMAT_VERSION, check_format};
use crate::core::{Errno, SessionId};

/// Their file.
const FENCES: &str = "fences";
/// Sessions that are remembered; with more, the one that was kept out first is forgotten. It was evicted so many evictions
/// ago that none of its requests can be on its way.
const FENCED_MAX: usize = 16_384;
const MAGIC: [u8; 8] = *b"KILNFNC\0";
/// Magic, version and number.
const HEAD_BYTES: usize = 16;
const REMEDY: &str = "remove it once no client runs that was evicted";

/// Who is kept out, and whose requests are under way.
#[derive(Debug)]
pub(super) struct Fences {
    dir: PathBuf,
    state: Mutex<State>,
    /// Notified when the last request of a session that is being kept out is over.
    over: Condvar,
    /// Held while the file is written.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    fenced: HashSet<SessionId>,
    /// The same, the oldest first. **Invariant:** at most [`FENCED_MAX`].
    order: Vec<SessionId>,
    /// Requests under way. **Invariant:** none is 0.
    under_way: HashMap<SessionId, usize>,
}

/// A request of a session that is under way.
#[derive(Debug)]
pub(super) struct Pass<'f> {
    fences: &'f Fences,
    session: SessionId,
}

impl Fences {
    /// The fences of the target in `dir`, as they were when it was served last.
    pub(super) fn open(dir: &Path) -> Result<Fences, TargetError> {
        let path = dir.join(FENCES);
        let order = match fs::read(&path) {
            Ok(bytes) => {
                check_format(&path, &bytes, MAGIC, REMEDY)?;
                let order = durable::checked(&bytes).and_then(decode);
                order.ok_or(TargetError::Damaged { path, what: "its checksum is wrong", remedy: REMEDY })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(TargetError::Io { path, source }),
        };
        let state = State { fenced: order.iter().copied().collect(), order, under_way: HashMap::new() };
        let (state, over, writing) = (Mutex::new(state), Condvar::new(), Mutex::new(()));
        Ok(Fences { dir: dir.to_owned(), state, over, writing })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request of a session in, unless it is kept out.
    pub(super) fn enter(&self, session: SessionId) -> Result<Pass<'_>, Errno> {
        let mut state = self.lock();
        if state.fenced.contains(&session) {
            return Err(Errno::ESTALE);
        }
        *state.under_way.entry(session).or_default() += 1;
        Ok(Pass { fences: self, session })
    }

    /// Keeps a session out from now on. When this returns `Ok`, that is durable and none of its requests is under way. After
    /// an error it is kept out until the target is closed.
    pub(super) fn fence(&self, session: SessionId) -> Result<(), Errno> {
        self.lock().fence(session);
        self.save()?;
        let state = self.lock();
        let busy = |state: &mut State| state.under_way.contains_key(&session);
        drop(self.over.wait_while(state, busy).unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Written at every fence, also at one that is repeated: the time before it may have failed.
    fn save(&self) -> Result<(), Errno> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = encode(&self.lock().order);
        durable::replace(&self.dir, FENCES, &bytes).map_err(|error| {
            tracing::error!(%error, dir = %self.dir.display(), "the sessions that are kept out cannot be saved");
            Errno::from(&error)
        })
    }
}

impl State {
    fn fence(&mut self, session: SessionId) {
        if !self.fenced.insert(session) {
            return;
        }
        if self.order.len() >= FENCED_MAX {
            let forgotten = self.order.remove(0);
            self.fenced.remove(&forgotten);
        }
        self.order.push(session);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.fences.lock();
        let Some(count) = state.under_way.get_mut(&self.session) else { return };
        *count -= 1;
        if *count == 0 {
            state.under_way.remove(&self.session);
            if state.fenced.contains(&self.session) {
                self.fences.over.notify_all();
            }
        }
    }
}

fn encode(order: &[SessionId]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + 16 * order.len() + 4);
    bytes.put_slice(&MAGIC);
    bytes.put_u32(FORMAT_VERSION);
    bytes.put_u32(order.len() as u32);
    for session in order {
        bytes.put_u128(session.0);
    }
    durable::with_checksum(bytes)
}

/// **Must hold:** magic, version and checksum are right.
fn decode(content: &[u8]) -> Option<Vec<SessionId>> {
    let (head, mut sessions) = content.split_at_checked(HEAD_BYTES)?;
    let count = (&head[HEAD_BYTES - 4..]).get_u32() as usize;
    if count > FENCED_MAX || sessions.len() != 16 * count {
        return None;
    }
    Some((0..count).map(|_| SessionId(sessions.get_u128())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let bytes = encode(&[SessionId(0x0102)]);
        let content = b"KILNFNC\0\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02";
        assert_eq!(bytes[..32], content[..]);
        assert_eq!(bytes[32..], crc32c::crc32c(content).to_be_bytes());
        assert_eq!(decode(content), Some(vec![SessionId(0x0102)]));
        assert_eq!(decode(&content[..31]), None);
        assert_eq!(decode(&content[..15]), None);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut state = State::default();
        (0..=FENCED_MAX as u128).for_each(|session| state.fence(SessionId(session)));
        state.fence(SessionId(1));
        assert_eq!((state.order.len(), state.fenced.len()), (FENCED_MAX, FENCED_MAX));
        assert!(!state.fenced.contains(&SessionId(0)) && state.fenced.contains(&SessionId(1)));
        assert_eq!(decode(durable::checked(&encode(&state.order)).expect("sound")), Some(state.order));
    }
}
