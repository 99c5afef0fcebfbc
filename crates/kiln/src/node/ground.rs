//! The disk that the leader's logs and state stand on: the data directory, or a pool that the administrator named.
//!
//! What was in the data directory moves to the pool once, at the first start that names one. A file in the data directory says that it is
//! there, and is written when all of it is: a start that was cut off begins anew.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_pool::disk::PoolDisk;
use kiln_pool::pool::Pool;
use kiln_world::{Disk, Open, RealDisk};

use super::Node;
use crate::pools::Pools;

/// What moves.
const DIRS: [&str; 4] = ["store", "kafka", "amqp", "jobs"];
/// The dataset, as `kiln pool destroy` names what is in its way.
const DATASET: &str = "the logs of the instance";
/// In the data directory; its text is the pool's name.
const MARK: &str = "log-pool";
/// What is copied at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Opens the disk.
pub(super) fn open(node: &Node, pools: &Pools) -> anyhow::Result<Arc<dyn Disk>> {
    let (root, wanted) = (node.data.root(), node.config.log.pool.as_str());
    let mark = root.join(MARK);
    let moved_to = match fs::read_to_string(&mark) {
        Ok(pool) => Some(pool),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("failed to read {}", mark.display())),
    };
    let real = RealDisk::new(root).with_context(|| format!("failed to open {}", root.display()))?;
    let pool = || {
        pools
            .pool(wanted)
            .map_err(|why| anyhow::anyhow!("the logs are to stand on pool '{wanted}' (log.pool): {why}"))
    };
    let disk = match moved_to {
        None if wanted.is_empty() => return Ok(Arc::new(real)),
        None => {
            let disk = move_to(&pool()?, &real)
                .with_context(|| format!("failed to move the logs to pool '{wanted}'"))?;
            write_mark(root, &mark, wanted).with_context(|| format!("failed to write {}", mark.display()))?;
            tracing::info!(pool = wanted, "the logs are in the pool from now on");
            disk
        }
        Some(there) if there == wanted => PoolDisk::open(pool()?, DATASET)
            .with_context(|| format!("failed to open the logs in pool '{wanted}'"))?,
        Some(there) => bail!("the logs are in pool '{there}'; set log.pool = \"{there}\" again"),
    };
    for dir in DIRS {
        // What is left of a move; the directories are made again by whoever prepares the data directory.
        let _ = fs::remove_dir_all(root.join(dir));
    }
    Ok(Arc::new(disk))
}

fn write_mark(root: &Path, mark: &Path, pool: &str) -> io::Result<()> {
    let unfinished = root.join(format!("{MARK}.new"));
    fs::write(&unfinished, pool)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, mark)?;
    fs::File::open(root)?.sync_all()
}

/// Copies what there is; all of it is durable when this returns. What a move that was cut off has left goes first.
fn move_to(pool: &Arc<Pool>, from: &dyn Disk) -> anyhow::Result<PoolDisk> {
    if let Some(left) = pool.dataset(DATASET) {
        pool.destroy_dataset(left)?;
    }
    let to = PoolDisk::make(Arc::clone(pool), DATASET)?;
    let copied =
        DIRS.iter().try_for_each(|dir| copy_dir(from, &to, Path::new(dir))).and_then(|()| to.sync_all());
    if let Err(error) = copied {
        drop(to);
        // What is half there is in nobody's way; if that fails too, the next move takes it away.
        if let Some(left) = pool.dataset(DATASET) {
            let _ = pool.destroy_dataset(left);
        }
        return Err(error.into());
    }
    Ok(to)
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
    use kiln_world::SimDisk;

    use super::*;

    #[test]
    fn a_tree_is_copied_with_all_that_is_in_it() {
        let (from, to) = (SimDisk::new(1), SimDisk::new(2));
        from.create_dir_all(Path::new("kafka/t-0")).expect("the disk is on");
        let long: Vec<u8> = (0..3_000_000_u32).map(|at| at as u8).collect();
        for (path, bytes) in [("kafka/t-0/a.log", &long[..]), ("kafka/empty", b"")] {
            let file = from.open(Path::new(path), Open::New).expect("it is new");
            file.write_all_at(&[bytes], 0).expect("the disk is on");
        }
        for dir in ["kafka", "amqp"] {
            copy_dir(&from, &to, Path::new(dir)).expect("the disks are on");
        }
        let file = to.open(Path::new("kafka/t-0/a.log"), Open::Existing).expect("it was copied");
        let mut read = vec![0; long.len() + 1];
        assert_eq!(file.read_at(&mut read, 0).expect("the disk is on"), long.len());
        assert!(read[..long.len()] == long);
        let empty = to.open(Path::new("kafka/empty"), Open::Existing).expect("it was copied");
        assert_eq!(empty.len().expect("the disk is on"), 0);
        assert_eq!(to.list(Path::new("")).expect("the disk is on").len(), 2);
    }
}
