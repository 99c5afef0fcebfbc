//! One process per node, whatever supervisors come and go.
//!
//! A supervisor that is killed leaves its nodes to drain, and the next one may start theirs while they still do. Two leaders on one store would
//! each write what the other has not read; so a node first waits until its predecessor is gone.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::paths::DataDir;

/// A predecessor that drains is gone well before.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until this is the only process of its rank on the data directory, and stays so while the result lives.
pub(super) fn alone(data: &DataDir, rank: u32) -> anyhow::Result<Flock<File>> {
    let path = data.node_lock(rank);
    let mut file = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    let started = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if started.elapsed() < WAIT_MAX => file = back,
            Err((_, Errno::EWOULDBLOCK)) => anyhow::bail!(
                "another process still is this node after {} s; end it and start again (fuser {} names it)",
                WAIT_MAX.as_secs(),
                path.display()
            ),
            Err((_, errno)) => {
                return Err(errno).with_context(|| format!("failed to lock {}", path.display()));
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path()).unwrap();
        std::fs::create_dir(data.run()).unwrap();
        let first = alone(&data, 0).unwrap();
        let other_rank = alone(&data, 1).unwrap();
        let (told, outcome) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let data = data.clone();
            move || {
                let lock = alone(&data, 0);
                told.send(()).unwrap();
                lock
            }
        });
        assert!(outcome.recv_timeout(Duration::from_millis(50)).is_err(), "it waits");
        drop(first);
        outcome.recv().unwrap();
        assert!(second.join().unwrap().is_ok());
        drop(other_rank);
    }
}
