//! A disk in memory that fails the way disks fail, reproducibly from a seed.

mod content;
mod tree;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::content::Content;
use self::tree::{Node, Tree};
use crate::disk::{Disk, Entry, File, Open, Space, plain_path as plain};
use crate::rng::SimRng;

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// What a disk without a limit says that it holds.
const UNLIMITED_BYTES: usize = 1 << 50;

/// The kind of operation that [`SimDisk::fail_nth`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// [`File::read_at`].
    Read,
    /// [`File::write_all_at`].
    Write,
    /// [`File::sync`], each file of [`Disk::sync_files`], [`Disk::sync_dir`] and [`Disk::sync_all`].
    Sync,
}

/// A disk in memory, with the contract of [`Disk`] and nothing beyond it. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: SimRng,
    tree: Tree,
    inodes: HashMap<u64, Content>,
    inode_next: u64,
    /// Counts crashes: a handle from before a crash is dead.
    era: u64,
    power: Power,
    /// Syncs that succeeded since the disk was made.
    syncs: u64,
    capacity_bytes: Option<usize>,
    faults: HashMap<Fault, u64>,
    /// What a sync of a file takes, during which others go on.
    sync_takes: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Fails at the sync after this many more.
    FailsAfter(u64),
    Off,
}

impl SimDisk {
    /// An empty disk. Equal seeds and equal operations give equal crashes.
    pub fn new(seed: u64) -> SimDisk {
        let state = State {
            rng: SimRng::new(seed),
            tree: Tree::default(),
            inodes: HashMap::new(),
            inode_next: 0,
            era: 0,
            power: Power::On,
            syncs: 0,
            capacity_bytes: None,
            faults: HashMap::new(),
            sync_takes: Duration::ZERO,
        };
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// The power fails and comes back: of what was not synced each part is kept, torn or lost as the seed wills.
    /// Handles from before give errors from now on.
    pub fn crash(&self) {
        let mut state = self.lock();
        let State { rng, tree, inodes, .. } = &mut *state;
        tree.lose_power(rng);
        inodes.retain(|inode, _| tree.refers_to(*inode));
        let mut in_order: Vec<_> = inodes.iter_mut().collect();
        in_order.sort_by_key(|(inode, _)| **inode);
        for (_, content) in in_order {
            content.lose_power(rng);
        }
        state.era += 1;
        state.power = Power::On;
        state.faults.clear();
    }

    /// Lets `count` more syncs succeed; at the next one, before it does anything, the power fails and every
    /// operation gives an error until [`SimDisk::crash`] brings it back.
    pub fn crash_after_syncs(&self, count: u64) {
        self.lock().power = Power::FailsAfter(count);
    }

    /// From now on a sync of a file takes so long.
    pub fn slow_down_syncs(&self, takes: Duration) {
        self.lock().sync_takes = takes;
    }

    /// Whether the power has failed and [`SimDisk::crash`] has not been called since.
    pub fn is_off(&self) -> bool {
        self.lock().power == Power::Off
    }

    /// How many syncs (of a file or of a directory) have succeeded so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Limits the bytes of all files together: a write beyond is cut short and gives `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// The bytes of all files together, without holes and without files that were removed.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes() as u64
    }

    /// Makes the `nth` operation of this kind from now (0 is the next) fail once with an I/O error (EIO).
    pub fn fail_nth(&self, kind: Fault, nth: u64) {
        self.lock().faults.insert(kind, nth);
    }

    /// Flips the bits of `mask` in the byte at `pos`, as a rotting medium does, past every sync.
    pub fn rot(&self, path: &Path, pos: u64, mask: u8) -> io::Result<()> {
        let mut state = self.lock();
        let Some(Node::File(inode)) = state.tree.get(path) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let rotted = state.inodes.get_mut(&inode).is_some_and(|content| content.rot(pos as usize, mask));
        if rotted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// What a program reads from `path` now.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        let Some(Node::File(inode)) = state.tree.get(path) else { return None };
        Some(state.inodes.get(&inode)?.live().to_vec())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.power == Power::Off { Err(power_failed()) } else { Ok(state) }
    }
}

impl State {
    fn used_bytes(&self) -> usize {
        let named = self.inodes.iter().filter(|(inode, _)| self.tree.refers_to(**inode));
        named.map(|(_, content)| content.disk_bytes()).sum()
    }

    /// Fails if this operation is the one chosen by [`SimDisk::fail_nth`].
    fn step(&mut self, kind: Fault) -> io::Result<()> {
        match self.faults.get_mut(&kind) {
            None => Ok(()),
            Some(0) => {
                self.faults.remove(&kind);
                Err(io::Error::from_raw_os_error(nix::libc::EIO))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn sync(&mut self, what: Synced<'_>) -> io::Result<()> {
        match &mut self.power {
            Power::On => {}
            Power::FailsAfter(left) if *left > 0 => *left -= 1,
            Power::FailsAfter(_) | Power::Off => {
                self.power = Power::Off;
                return Err(power_failed());
            }
        }
        let fault = self.step(Fault::Sync);
        match what {
            Synced::All if fault.is_err() => self.inodes.values_mut().for_each(Content::fail_sync),
            Synced::All => {
                self.tree.sync_all();
                self.inodes.values_mut().for_each(Content::sync);
            }
            Synced::Dir(_) if fault.is_err() => {}
            Synced::Dir(dir) => self.tree.sync_dir(dir),
            Synced::File(inode) => {
                let content = self.inodes.entry(inode).or_default();
                if fault.is_err() { content.fail_sync() } else { content.sync() }
            }
        }
        if fault.is_ok() {
            self.syncs += 1;
        }
        fault
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        let inode = self.inode_next;
        self.tree.add_file(path, inode)?;
        self.inode_next += 1;
        self.inodes.insert(inode, Content::default());
        Ok(inode)
    }
}

#[derive(Clone, Copy)]
enum Synced<'a> {
    All,
    Dir(&'a Path),
    File(u64),
}

fn power_failed() -> io::Error {
    io::Error::other("the simulated power has failed")
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let path = plain(path)?;
        let mut state = self.powered()?;
        let inode = match (state.tree.get(&path), how) {
            (Some(Node::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Node::File(inode)), _) => inode,
            (None, Open::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (None, Open::OrCreate | Open::New) => state.create(&path)?,
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode, era: state.era }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        Ok(self.powered()?.tree.list(&plain(dir)?))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.powered()?.tree.add_dirs(&plain(dir)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.powered()?.tree.rename(&plain(from)?, &plain(to)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = plain(path)?;
        let mut state = self.powered()?;
        match state.tree.get(&path) {
            Some(Node::File(_)) => {
                state.tree.remove(&path);
                Ok(())
            }
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = plain(dir)?;
        let mut state = self.powered()?;
        match state.tree.get(&dir) {
            Some(Node::Dir) => {
                state.tree.remove(&dir);
                Ok(())
            }
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = plain(dir)?;
        let mut state = self.powered()?;
        if state.tree.get(&dir) != Some(Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.sync(Synced::Dir(&dir))
    }

    fn sync_files(&self, files: &[Arc<dyn File>]) -> io::Result<()> {
        files.iter().try_for_each(|file| file.sync())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.powered()?.sync(Synced::All)
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.powered()?;
        let total = state.capacity_bytes.unwrap_or(UNLIMITED_BYTES);
        let free = total.saturating_sub(state.used_bytes()) as u64;
        Ok(Space { total_bytes: total as u64, free_bytes: free, available_bytes: free })
    }
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
    era: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.powered()?;
        if state.era == self.era { Ok(state) } else { Err(power_failed()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.step(Fault::Read)?;
        let live = state.inodes.get(&self.inode).map_or(&[][..], Content::live);
        let rest = live.get(pos as usize..).unwrap_or(&[]);
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, parts: &[&[u8]], pos: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.step(Fault::Write)?;
        let bytes = parts.concat();
        let pos = pos as usize;
        let used = state.used_bytes();
        let capacity = state.capacity_bytes.unwrap_or(usize::MAX);
        let content = state.inodes.entry(self.inode).or_default();
        let growth_max = capacity.saturating_sub(used);
        let fits = content.fitting(pos, bytes.len(), growth_max);
        if fits > 0 {
            content.write(pos, &bytes[..fits]);
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let takes = self.state()?.sync_takes;
        if !takes.is_zero() {
            std::thread::sleep(takes);
        }
        self.state()?.sync(Synced::File(self.inode))
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state()?;
        Ok(state.inodes.get(&self.inode).map_or(0, |content| content.live().len() as u64))
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        let state = self.state()?;
        Ok(state.inodes.get(&self.inode).map_or(0, |content| content.disk_bytes() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.step(Fault::Write)?;
        state.inodes.entry(self.inode).or_default().set_len(len as usize);
        Ok(())
    }

    fn reserve(&self, _len: u64) -> io::Result<()> {
        self.state().map(drop)
    }
}
