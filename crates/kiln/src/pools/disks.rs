//! The disks of pools: files and block devices, found by their labels, and taken by one process at a time.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_pool::format::Label;
use kiln_pool::pool::DiskFile;
use kiln_pool::vdev::labels::read_label;
use kiln_world::{Disk as _, File, Open, RealDisk};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Files of a directory that are looked at for labels.
const FILES_MAX: usize = 4096;
/// Where disks are looked for unless it is said otherwise.
const DEVICES: &str = "/dev";

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// A path depends on who reads it.
    #[error("{0} is no absolute path; the disks of a pool are named by absolute paths")]
    Relative(String),
    /// It is neither a file nor a block device.
    #[error(
        "{0} is neither a file, a directory nor a block device; make a file for it with: truncate -s 10G {0}"
    )]
    Neither(String),
    /// Another process has it.
    #[error("{0} is in use by another process (fuser -v {0} names it)")]
    Taken(String),
    /// The system refused.
    #[error("failed to open {path}: {error}")]
    Io {
        /// Which one.
        path: String,
        /// The reason.
        error: io::Error,
    },
}

/// The file that is the disk where a directory is given.
const FILE_IN_DIRECTORY: &str = "kiln.disk";
/// It is made of this share of what is free there, in percent.
const SHARE_OF_DIRECTORY: u64 = 90;

/// The disk that is meant by a path: in a directory, a file of it, which is made if it is not there.
pub(super) fn meant(path: &Path) -> Result<PathBuf, DiskError> {
    if !path.is_absolute() || !path.is_dir() {
        return Ok(path.to_owned());
    }
    let disk = path.join(FILE_IN_DIRECTORY);
    let make = || -> io::Result<()> {
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&disk) {
            Ok(file) => {
                file.set_len(RealDisk::new(path)?.space()?.available_bytes / 100 * SHARE_OF_DIRECTORY)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    };
    make().map_err(|error| DiskError::Io { path: disk.display().to_string(), error })?;
    Ok(disk)
}

/// A disk that no other process may use.
pub(super) struct TakenDisk {
    path: PathBuf,
    file: Arc<dyn File>,
    _lock: Flock<fs::File>,
}

/// A disk that has a label.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) label: Label,
}

impl TakenDisk {
    pub(super) fn take(path: &Path) -> Result<TakenDisk, DiskError> {
        let shown = || path.display().to_string();
        let failed = |error| DiskError::Io { path: path.display().to_string(), error };
        if !path.is_absolute() {
            return Err(DiskError::Relative(shown()));
        }
        let kind = fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Neither(shown()));
        }
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        if kind.is_block_device() {
            // Refused while it is mounted, or part of something else.
            options.custom_flags(libc::O_EXCL);
        }
        let held = options.open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => DiskError::Taken(shown()),
            _ => failed(error),
        })?;
        let lock = match Flock::lock(held, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err(DiskError::Taken(shown())),
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let file = open(path).map_err(failed)?;
        Ok(TakenDisk { path: path.to_owned(), file, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> DiskFile {
        DiskFile { path: self.path.display().to_string(), file: Arc::clone(&self.file) }
    }
}

fn open(path: &Path) -> io::Result<Arc<dyn File>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    RealDisk::new(parent)?.open(Path::new(name), Open::Existing)
}

/// Those of the paths that are disks with a label; what cannot be read is passed over.
pub(super) fn look(paths: &[PathBuf]) -> Vec<Found> {
    let label = |path: &PathBuf| {
        let kind = fs::metadata(path).ok()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return None;
        }
        let label = read_label(&*open(path).ok()?).ok()?;
        Some(Found { path: path.clone(), label })
    };
    paths.iter().filter_map(label).collect()
}

/// What may be a disk in these places: they themselves, or what is in them if they are directories. Without any, the machine's block
/// devices.
pub(super) fn candidates(places: &[String]) -> Vec<PathBuf> {
    if places.is_empty() {
        let devices = entries(Path::new(DEVICES));
        let is_block =
            |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_block_device());
        return devices.into_iter().filter(is_block).collect();
    }
    let of = |place: &String| {
        let path = PathBuf::from(place);
        if path.is_dir() { entries(&path) } else { vec![path] }
    };
    places.iter().flat_map(of).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).take(FILES_MAX).collect();
    paths.sort();
    paths
}
