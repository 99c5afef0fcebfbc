//! The directory of a target: made once, locked while it is served, and removed when its filesystem is.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held by the process that serves the target.
const LOCK: &str = "lock";

/// The lock on a target's directory, for as long as this lives.
pub(super) type Lock = Flock<File>;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroundError {
    /// A target that was served is not there.
    #[error("there is nothing of it in {0}: is the disk that this is on mounted?")]
    Missing(String),
    /// Another process has it.
    #[error("another process serves it from {0}; stop that one (fuser -v {0}/lock names it)")]
    Taken(String),
    /// The system refused.
    #[error("failed to {what} {dir}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which directory.
        dir: String,
        /// The reason.
        error: io::Error,
    },
}

/// Takes the directory of a target. `made` says that it was served before: then nothing is begun where `witness` is not found.
pub(super) fn take(dir: &Path, made: bool, witness: &str) -> Result<Lock, GroundError> {
    if !made {
        make(dir)?;
    } else if !dir.join(witness).exists() {
        return Err(GroundError::Missing(dir.display().to_string()));
    }
    lock(dir)
}

fn lock(dir: &Path) -> Result<Lock, GroundError> {
    let shown = || dir.display().to_string();
    let failed = |what| move |error| GroundError::Io { what, dir: dir.display().to_string(), error };
    let file = File::create(dir.join(LOCK)).map_err(failed("lock"))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(GroundError::Taken(shown())),
        Err((_, errno)) => Err(failed("lock")(errno.into())),
    }
}

/// Makes the directory of a target. What is in it is raw data: nobody but the owner of the instance may read it past the
/// filesystem's own permissions.
pub(super) fn make(dir: &Path) -> Result<(), GroundError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| GroundError::Io { what: "create", dir: dir.display().to_string(), error })
}

/// Removes the directory of a target that nobody serves; its disk may be gone already.
pub(super) fn remove(dir: &Path) -> Result<(), GroundError> {
    if !dir.exists() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    let failed = |error| GroundError::Io { what: "remove", dir: dir.display().to_string(), error };
    std::fs::remove_dir_all(dir).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let lock = take(&dir, false, "x").unwrap();
        std::fs::write(dir.join("x"), "").unwrap();
        let second = take(&dir, true, "x");
        assert!(matches!(second, Err(GroundError::Taken(_))), "{second:?}");
        assert!(matches!(remove(&dir), Err(GroundError::Taken(_))));
        drop(lock);
        take(&dir, true, "x").unwrap();
        remove(&dir).unwrap();
        assert!(!dir.exists());
        remove(&dir).unwrap();
    }

    #[test]
    fn a_missing_disk_is_no_new_target() {
        let parent = tempfile::tempdir().unwrap();
        let missing = take(&parent.path().join("x"), true, "lock");
        assert!(matches!(missing, Err(GroundError::Missing(_))), "{missing:?}");
        assert!(!parent.path().join("x").exists());
    }
}
