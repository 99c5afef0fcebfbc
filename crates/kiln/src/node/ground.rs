//! The disk that the leader's logs and state stand on: the data directory, or a pool that the administrator named.
//!
//! They move at the first start that names another place. A file in the data directory says in which pool they are, and is changed when all
//! of it has moved: a start that was cut off begins anew. While they move, a second file names the pools that have something of them; all
//! but the one where they are in the end have to give that up.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use kiln_pool::disk::PoolDisk;
use kiln_pool::pool::Pool;
use kiln_world::{Disk, Open, RealDisk};

use super::Node;
use crate::pools::Pools;

/// What moves.
const DIRS: [&str; 4] = ["store", "kafka", "amqp", "jobs"];
/// The dataset, as `kiln pool destroy` names what is in its way.
const DATASET: &str = "the logs of the instance";
/// In the data directory; its text is the name of the pool where they are.
const MARK: &str = "log-pool";
/// The same of the pools between which they move, each on a line.
const MOVING: &str = "log-pool.moving";
/// As the setting: the data directory. No pool has that name.
const DATA_DIRECTORY: &str = ".";
/// What is copied at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Opens the disk.
pub(super) fn open(node: &Node, pools: &Pools) -> anyhow::Result<Arc<dyn Disk>> {
    Ground { root: node.data.root(), pools }.open(&node.config.log.pool)
}

/// The places where they may be.
struct Ground<'p> {
    root: &'p Path,
    pools: &'p Pools,
}

impl Ground<'_> {
    /// The disk of the place that the setting names, where they are when this returns.
    fn open(&self, setting: &str) -> anyhow::Result<Arc<dyn Disk>> {
        let here = self.read(MARK)?;
        self.end_move(here.as_deref())?;
        let wanted = match (setting, &here) {
            ("", Some(pool)) => bail!(
                "the logs are in pool '{pool}'; set log.pool = \"{pool}\" again, or \"{DATA_DIRECTORY}\" to move them to the data \
                 directory"
            ),
            ("" | DATA_DIRECTORY, _) => None,
            (pool, _) => Some(pool),
        };
        if wanted != here.as_deref() {
            let name =
                wanted.map_or_else(|| "the data directory".to_owned(), |pool| format!("pool '{pool}'"));
            self.move_to(wanted, here.as_deref())
                .with_context(|| format!("failed to move the logs to {name}"))?;
            tracing::info!(place = name, "the logs have moved");
        }
        if wanted.is_some() {
            // What is left of a move; the directories are made again by whoever prepares the data directory.
            self.empty_data_directory()?;
        }
        self.disk(wanted)
    }

    /// The disk of a pool, or the data directory.
    fn disk(&self, pool: Option<&str>) -> anyhow::Result<Arc<dyn Disk>> {
        let Some(name) = pool else {
            let real = RealDisk::new(self.root);
            return Ok(Arc::new(real.with_context(|| format!("failed to open {}", self.root.display()))?));
        };
        let pool = self.pool(name).with_context(|| format!("the logs stand on pool '{name}' (log.pool)"))?;
        let disk = PoolDisk::open(pool, DATASET);
        Ok(Arc::new(disk.with_context(|| format!("failed to open the logs in pool '{name}'"))?))
    }

    /// Copies all there is to a place, where it is used when this returns, and not where it was.
    fn move_to(&self, to: Option<&str>, from: Option<&str>) -> anyhow::Result<()> {
        match to {
            Some(name) if self.pool(name)?.dataset(DATASET).is_some() => bail!(
                "pool '{name}' has logs of another instance, which would be lost: start that one with log.pool = \"{DATA_DIRECTORY}\" \
                 to move them away, or destroy the pool"
            ),
            Some(_) => {}
            None => self.empty_data_directory()?,
        }
        // Also one that could not give up yet what an earlier move left there.
        let before = self.read(MOVING)?.unwrap_or_default();
        let pools: Vec<&str> = to.into_iter().chain(from).chain(before.lines()).collect();
        self.write(MOVING, &pools.join("\n"))?;
        let copied = self.copy(to, from);
        if copied.is_err() {
            self.end_move(from)?;
            return copied;
        }
        match to {
            Some(pool) => self.write(MARK, pool)?,
            None => self.remove(MARK)?,
        }
        self.end_move(to)
    }

    /// All of it is durable when this returns.
    fn copy(&self, to: Option<&str>, from: Option<&str>) -> anyhow::Result<()> {
        let source = self.disk(from)?;
        let target = match to {
            None => self.disk(None)?,
            Some(name) => Arc::new(PoolDisk::make(self.pool(name)?, DATASET)?),
        };
        DIRS.iter().try_for_each(|dir| copy_dir(&*source, &*target, Path::new(dir)))?;
        Ok(target.sync_all()?)
    }

    fn empty_data_directory(&self) -> anyhow::Result<()> {
        for dir in DIRS.map(|dir| self.root.join(dir)) {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("failed to remove {}", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Of the pools between which they moved, all but the one where they are give up what they have. One that is not there does so later.
    fn end_move(&self, here: Option<&str>) -> anyhow::Result<()> {
        let Some(pools) = self.read(MOVING)? else { return Ok(()) };
        let mut left: Vec<&str> = pools.lines().filter(|name| Some(*name) != here).collect();
        left.retain(|name| {
            let given_up = self.give_up(name);
            given_up.is_err_and(|error| {
                tracing::warn!(%error, "the logs are not in pool '{name}', but what they took there is free only after a later start");
                true
            })
        });
        if left.is_empty() { self.remove(MOVING) } else { self.write(MOVING, &left.join("\n")) }
    }

    /// Removes the logs from a pool, if it has some.
    fn give_up(&self, name: &str) -> anyhow::Result<()> {
        let pool = self.pool(name)?;
        match pool.dataset(DATASET) {
            Some(left) => Ok(pool.destroy_dataset(left)?),
            None => Ok(()),
        }
    }

    fn pool(&self, name: &str) -> anyhow::Result<Arc<Pool>> {
        self.pools.pool(name).map_err(|why| anyhow!("{why}"))
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.root.join(name);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).with_context(|| format!("failed to read {}", path.display())),
        }
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, unfinished) = (self.root.join(name), self.root.join(format!("{name}.new")));
        let write = || {
            fs::write(&unfinished, text)?;
            fs::File::open(&unfinished)?.sync_all()?;
            fs::rename(&unfinished, &path)?;
            self.sync()
        };
        write().with_context(|| format!("failed to write {}", path.display()))
    }

    fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.root.join(name);
        let removed = fs::remove_file(&path).and_then(|()| self.sync());
        removed.with_context(|| format!("failed to remove {}", path.display()))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(self.root)?.sync_all()
    }
}

fn copy_dir(from: &dyn Disk, to: &dyn Disk, dir: &Path) -> io::Result<()> {
    to.create_dir_all(dir)?;
    for entry in from.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            copy_dir(from, to, &path)?;
        } else {
            copy_file(from, to, &path)?;
        }
    }
    Ok(())
}

fn copy_file(from: &dyn Disk, to: &dyn Disk, path: &Path) -> io::Result<()> {
    let (source, copy) = (from.open(path, Open::Existing)?, to.open(path, Open::New)?);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let read = source.read_at(&mut chunk, at)?;
        if read == 0 {
            return copy.set_len(at);
        }
        copy.write_all_at(&[&chunk[..read]], at)?;
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use kiln_fs::wire::pool::{NewVdev, Reply, Request};
    use tempfile::TempDir;

    use super::*;

    const FILES: [(&str, usize); 3] =
        [("kafka/t-0/a.log", 3_000_000), ("kafka/empty", 0), ("store/b.log", 5)];
    const POOLS: [&str; 2] = ["tank", "other"];

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| at as u8).collect()
    }

    /// An instance with two pools, whose logs are in its data directory.
    fn instance() -> (TempDir, Pools) {
        let dir = tempfile::tempdir().expect("there is room");
        let pools = Pools::start(dir.path().join("pools"), "silicon1".to_owned(), 64 << 20);
        for name in POOLS {
            let disk = dir.path().join(format!("disk-of-{name}"));
            fs::File::create(&disk).and_then(|file| file.set_len(64 << 20)).expect("a sparse file");
            let vdevs = vec![NewVdev { parity: 0, disks: vec![disk.display().to_string()] }];
            let (spares, properties) = Default::default();
            let create = Request::Create { name: name.to_owned(), vdevs, spares, properties, force: false };
            assert_eq!(pools.answer(create), Reply::Done);
        }
        let real = RealDisk::new(dir.path()).expect("it is there");
        for (path, len) in FILES {
            let path = Path::new(path);
            real.create_dir_all(path.parent().expect("it is in one")).expect("there is room");
            let file = real.open(path, Open::New).expect("it is new");
            file.write_all_at(&[&bytes(len)], 0).expect("there is room");
        }
        (dir, pools)
    }

    impl Ground<'_> {
        /// Everything is there, and nowhere else.
        fn is_in(&self, place: &str) {
            let disk = self.open(place).expect("they are there, or move there");
            for (path, len) in FILES {
                let file = disk.open(Path::new(path), Open::Existing).expect("it has moved too");
                let mut read = vec![0; len + 1];
                assert_eq!(file.read_at(&mut read, 0).expect("it can be read"), len);
                assert!(read[..len] == bytes(len));
            }
            for name in POOLS {
                let has = self.pool(name).expect("it is there").dataset(DATASET).is_some();
                assert_eq!(has, name == place, "{name}, while they are in {place}");
            }
            assert_eq!(self.root.join("kafka/t-0").exists(), place == DATA_DIRECTORY);
        }

        /// As if the process ended while they move, before and after all is there.
        fn is_cut_off(&self, to: &str, done: bool) {
            let here = self.read(MARK).expect("it can be read");
            let to = Some(to).filter(|to| *to != DATA_DIRECTORY);
            let pools: Vec<&str> = to.into_iter().chain(here.as_deref()).collect();
            self.write(MOVING, &pools.join("\n")).expect("there is room");
            self.copy(to, here.as_deref()).expect("there is room");
            match to.filter(|_| done) {
                Some(to) => self.write(MARK, to).expect("there is room"),
                None if done => self.remove(MARK).expect("it is there"),
                None => {}
            }
        }
    }

    #[test]
    fn logs_move_to_a_pool_to_another_and_back() {
        let (dir, pools) = instance();
        let ground = Ground { root: dir.path(), pools: &pools };
        for place in [DATA_DIRECTORY, "tank", "tank", "other", DATA_DIRECTORY, "other"] {
            ground.is_in(place);
        }
        let refused = ground.open("").err().expect("they are not there").to_string();
        assert!(refused.contains("\"other\" again"), "{refused}");
        let missing = ground.open("none").err().expect("there is no such pool");
        assert!(format!("{missing:#}").contains("no such pool 'none'"), "{missing:#}");
        ground.is_in("other");
    }

    #[test]
    fn a_move_that_was_cut_off_begins_anew_or_ends() {
        for (from, to) in [(DATA_DIRECTORY, "tank"), ("tank", "other"), ("tank", DATA_DIRECTORY)] {
            for done in [false, true] {
                let (dir, pools) = instance();
                let ground = Ground { root: dir.path(), pools: &pools };
                ground.is_in(from);
                ground.is_cut_off(to, done);
                ground.is_in(if done { to } else { from });
                ground.is_in(to);
            }
        }
    }

    #[test]
    fn a_pool_that_is_away_gives_up_what_it_has_when_it_is_back() {
        let (dir, pools) = instance();
        let ground = Ground { root: dir.path(), pools: &pools };
        ground.is_in("tank");
        // What an earlier move left in one that is away, and in one that is there.
        ground.copy(Some("other"), Some("tank")).expect("there is room");
        ground.write(MOVING, "away\nother").expect("there is room");
        ground.is_in("tank");
        ground.is_in("other");
        assert_eq!(ground.read(MOVING).expect("it can be read").as_deref(), Some("away"));
    }

    #[test]
    fn the_logs_of_another_instance_are_not_lost() {
        let (dir, pools) = instance();
        let ground = Ground { root: dir.path(), pools: &pools };
        ground.is_in("tank");
        ground.remove(MARK).expect("it is there");
        let refused = ground.open("tank").err().expect("it has logs already");
        assert!(format!("{refused:#}").contains("logs of another instance"), "{refused:#}");
        ground.write(MARK, "tank").expect("there is room");
        ground.is_in("tank");
    }
}
