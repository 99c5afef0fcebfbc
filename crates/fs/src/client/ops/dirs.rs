//! Reading directories.

use std::collections::HashSet;
use std::sync::MutexGuard;
use std::time::Duration;

use bytes::Bytes;

use super::{Caller, Client, Outcome, Ready};
use crate::client::fuse::{Entries, Entry, Reply};
use crate::client::handles::Listed;
use crate::client::meta::{KEEP, Kept};
use crate::core::{Errno, FileKind, Ino};
use crate::wire::mds::{Answer, Ask, Name};

/// Names that are asked for at once, in bytes.
const LIST_BYTES: u32 = 256 << 10;
/// Where a directory goes on behind "." and "..".
const AFTER_DOT: u64 = 1;
const AFTER_DOTS: u64 = 2;

/// The kernel's offset for a cursor of the MDS: behind those of "." and "..".
fn offset_of(cursor: u64) -> u64 {
    cursor.saturating_add(AFTER_DOTS)
}

impl Client {
    pub(super) fn readdir(
        &self,
        caller: &Caller<'_>,
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    ) -> Outcome<'_> {
        let dir = self.handles.dir(handle)?;
        let mut entries = Entries::new(size, self.tree);
        let after = offset.saturating_sub(AFTER_DOTS);
        let mut listed = dir.listed();
        let goes_on = listed.from == after && listed.plus == plus && (!listed.names.is_empty() || listed.end);
        // Who begins, perhaps anew, wants to see what is there now.
        if !goes_on || offset == 0 {
            self.list(caller, dir.ino, after, plus, &mut listed)?;
        }
        if !dots(&mut entries, [dir.ino, listed.parent.unwrap_or(dir.ino)], offset, plus) {
            return Ok(Reply::Bytes(Bytes::copy_from_slice(entries.bytes())).into());
        }
        let kept = self.fill(&mut entries, dir.ino, &mut listed);
        // Names that came without room for one of them would look like the end.
        debug_assert!(
            !entries.is_empty() || listed.end || size < 1024,
            "an entry fits what the kernel gives"
        );
        Ok(Ready::keeping(Reply::Bytes(entries.into_bytes()), kept))
    }

    /// Asks for the names behind `after`.
    fn list(
        &self,
        caller: &Caller<'_>,
        ino: Ino,
        after: u64,
        plus: bool,
        listed: &mut Listed,
    ) -> Result<(), Errno> {
        let before = self.meta.changes();
        let ask = Ask::Readdir { ino, after, bytes_max: LIST_BYTES, plus };
        let answered = self.ask(caller, ask)?;
        let stamp = answered.stamp;
        let kept = self.meta.absorb(answered.grants, stamp);
        let (names, end, parent) = match answered.outcome {
            Ok(Answer::Names { names, end, parent }) => (names, end, parent),
            // It was removed, by another mount, while it was open: there is nothing in it.
            Err(Errno::ESTALE) => (Vec::new(), true, ino),
            outcome => {
                *listed = Listed::default();
                return Err(outcome.err().unwrap_or(Errno::EPROTO));
            }
        };
        let granted: HashSet<Ino> =
            kept.grants().iter().filter(|grant| grant.leases.meta).map(|grant| grant.ino).collect();
        let names_granted = kept.grants().iter().any(|grant| grant.ino == ino && grant.leases.names);
        *listed = Listed {
            names: names.into(),
            plus,
            stamp,
            before,
            granted,
            names_granted,
            end,
            from: after,
            parent: Some(parent),
        };
        Ok(())
    }

    /// Moves names to the kernel, as many as there is room for.
    fn fill<'c>(&'c self, entries: &mut Entries, dir: Ino, listed: &mut MutexGuard<'_, Listed>) -> Kept<'c> {
        let kept = self.meta.keep_nothing_new();
        let listed = &mut **listed;
        let keep_name = self.listed_name_time(dir, listed);
        while let Some(name) = listed.names.front() {
            let cursor = name.cursor;
            let pushed = if listed.plus {
                self.push_plus(entries, name, listed, keep_name)
            } else {
                entries.push(name.ino, name.kind, &name.name, offset_of(cursor))
            };
            if !pushed {
                break;
            }
            listed.names.pop_front();
            listed.from = cursor;
        }
        kept
    }

    fn listed_name_time(&self, dir: Ino, listed: &Listed) -> Duration {
        let fresh = listed.names_granted
            && self.meta.is_fresh(dir, listed.stamp)
            && listed.before == self.meta.changes();
        self.name_time(if fresh { KEEP } else { Duration::ZERO })
    }

    fn push_plus(&self, entries: &mut Entries, name: &Name, listed: &Listed, keep_name: Duration) -> bool {
        let attr = name
            .attr
            .clone()
            .filter(|_| listed.granted.contains(&name.ino) && self.meta.is_fresh(name.ino, listed.stamp));
        let Some(attr) = attr.filter(|_| !keep_name.is_zero()) else {
            // Without attributes that may be kept, the kernel looks the name up when a program asks.
            return entries.push_plus(name.ino, name.kind, &name.name, offset_of(name.cursor), None);
        };
        self.meta.note(&attr, listed.before, listed.stamp);
        let unchanged = attr.kind != FileKind::Directory || listed.before == self.meta.changes();
        let (attr, keep_attr) = self.with_local_changes(attr, if unchanged { KEEP } else { Duration::ZERO });
        let (ino, kind) = (attr.ino, attr.kind);
        let entry = Entry { attr, keep_name, keep_attr };
        let pushed = entries.push_plus(ino, kind, &name.name, offset_of(name.cursor), Some(&entry));
        if pushed {
            self.meta.inodes.looked_up(ino);
        }
        pushed
    }
}

/// Adds "." and ".." as far as `offset` is in front of them; `false` when there was no room.
fn dots(entries: &mut Entries, [dir, parent]: [Ino; 2], offset: u64, plus: bool) -> bool {
    let dots: [(&[u8], u64, Ino); 2] = [(b".", AFTER_DOT, dir), (b"..", AFTER_DOTS, parent)];
    dots.into_iter().filter(|(_, next, _)| offset < *next).all(|(name, next, dir)| {
        if plus {
            entries.push_plus(dir, FileKind::Directory, name, next, None)
        } else {
            entries.push(dir, FileKind::Directory, name, next)
        }
    })
}
