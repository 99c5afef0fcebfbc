//! The lock that keeps a target from being served twice.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::error::TargetError;

/// Its file. What it holds is for the message to whoever comes second; the lock itself is the kernel's and ends with the
/// process.
pub(super) const LOCK: &str = "lock";
/// More is not read of the file.
const HOLDER_BYTES_MAX: u64 = 256;

/// Held while a target is served.
#[derive(Debug)]
pub(super) struct TargetLock(#[expect(dead_code, reason = "held, not used")] Flock<File>);

impl TargetLock {
    /// Takes the lock of the target in `dir`, or says who has it.
    pub(super) fn take(dir: &Path) -> Result<TargetLock, TargetError> {
        let path = dir.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(TargetError::io(&path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut held) => {
                held.set_len(0)
                    .and_then(|()| held.write_all(holder().as_bytes()))
                    .map_err(TargetError::io(&path))?;
                Ok(TargetLock(held))
            }
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut by = String::new();
                // Without its words it is still somebody.
                let _ = file.take(HOLDER_BYTES_MAX).read_to_string(&mut by);
                let by =
                    if by.trim().is_empty() { "another process".to_owned() } else { by.trim().to_owned() };
                Err(TargetError::Taken { dir: dir.to_owned(), by })
            }
            Err((_, error)) => Err(TargetError::Io { path, source: error.into() }),
        }
    }
}

fn holder() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("process {} on {}\n", std::process::id(), host.as_deref().unwrap_or("a host without a name"))
}
