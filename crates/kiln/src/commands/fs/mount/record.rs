//! A note for each mount that runs, so that who unmounts it can wait for its process.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::paths::DataDir;

/// How often a process that ends is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What is known of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its process.
    pub pid: u32,
    /// Where it is.
    pub dir: PathBuf,
    /// Where it says what happens.
    pub log: PathBuf,
    /// Where this is written.
    #[serde(skip)]
    file: PathBuf,
}

/// Held by the process of a mount; the note goes when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    file: PathBuf,
    _lock: Flock<File>,
}

impl Record {
    /// Notes the mount of this process on `dir`.
    pub(super) fn hold(data: &DataDir, dir: &Path, log: &Path) -> anyhow::Result<Held> {
        let pid = std::process::id();
        let path = data.mounts().join(format!("{pid}.json"));
        std::fs::create_dir_all(data.mounts())
            .with_context(|| format!("failed to create {}", data.mounts().display()))?;
        let record = Record { pid, dir: dir.to_owned(), log: log.to_owned(), file: PathBuf::new() };
        let write = || -> std::io::Result<Flock<File>> {
            let file = File::create(&path)?;
            let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            Ok(file)
        };
        let lock = write().with_context(|| format!("failed to write {}", path.display()))?;
        Ok(Held { file: path, _lock: lock })
    }

    /// The mount on `dir`, if its process runs.
    pub(super) fn find(data: &DataDir, dir: &Path) -> Option<Record> {
        let entries = std::fs::read_dir(data.mounts()).ok()?.flatten();
        let records = entries.filter_map(|entry| {
            let file = entry.path();
            let record: Record = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            Some(Record { file, ..record })
        });
        records.filter(|record| record.dir == dir).find(Record::runs)
    }

    /// Whether its process still holds the note.
    fn runs(&self) -> bool {
        // Once it is gone, so is the file, or at least its lock.
        File::open(&self.file).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    }

    /// Waits until its process has ended; `false` when it takes longer than `at_most`.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let started = Instant::now();
        while self.runs() {
            if started.elapsed() > at_most {
                return false;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_while_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path()).unwrap();
        assert_eq!(Record::find(&data, Path::new("/m")), None);
        let held = Record::hold(&data, Path::new("/m"), Path::new("/l")).unwrap();
        let found = Record::find(&data, Path::new("/m")).unwrap();
        assert_eq!((found.pid, found.log.as_path()), (std::process::id(), Path::new("/l")));
        assert_eq!(Record::find(&data, Path::new("/other")), None);
        assert!(!found.wait(Duration::ZERO));
        drop(held);
        assert!(found.wait(Duration::ZERO));
        assert_eq!(Record::find(&data, Path::new("/m")), None);
    }
}
