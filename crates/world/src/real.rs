//! The machine's own filesystem.

use std::fs;
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::FallocateFlags;
use nix::sys::uio::pwritev;

use crate::disk::{Disk, Entry, File, Open, Space, check_relative};

/// Above this many files one `syncfs` of the whole filesystem replaces one `fdatasync` per file.
///
/// `syncfs` also writes out what other programs have dirty, so it pays only when many files wait. It reports
/// write errors since Linux 5.8.
pub const SYNCFS_ABOVE_FILES: usize = 64;

/// `IOV_MAX` of Linux: the most slices that one `pwritev` takes.
const SLICES_MAX: usize = 1024;
/// The unit of `st_blocks`, whatever the filesystem's own is (inode(7)).
const STAT_BLOCK_BYTES: u64 = 512;

/// A directory of the machine's own filesystem.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// Held open for `syncfs`, which reports the write errors since this was opened.
    root_dir: fs::File,
}

impl RealDisk {
    /// The disk whose root is the directory `root`; creates it when missing.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        let root_dir = fs::File::open(&root)?;
        Ok(RealDisk { root, root_dir })
    }

    /// The directory that paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &Path) -> io::Result<PathBuf> {
        check_relative(path)?;
        Ok(self.root.join(path))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        match how {
            Open::Existing => {}
            Open::OrCreate => {
                options.create(true);
            }
            Open::New => {
                options.create_new(true);
            }
        }
        Ok(Arc::new(RealFile { file: options.open(self.at(path)?)? }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let names = match fs::read_dir(self.at(dir)?) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = Vec::new();
        for name in names {
            let name = name?;
            entries.push(Entry { name: name.file_name(), is_dir: name.file_type()?.is_dir() });
        }
        entries.sort();
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(self.at(dir)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.at(from)?, self.at(to)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.at(path)?)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(self.at(dir)?)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(self.at(dir)?)?.sync_all()
    }

    fn sync_files(&self, files: &[Arc<dyn File>]) -> io::Result<()> {
        if files.len() > SYNCFS_ABOVE_FILES {
            return self.sync_all();
        }
        files.iter().try_for_each(|file| file.sync())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(nix::unistd::syncfs(&self.root_dir)?)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = nix::sys::statvfs::fstatvfs(&self.root_dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Ok(Space {
            total_bytes: bytes(stat.blocks()),
            free_bytes: bytes(stat.blocks_free()),
            available_bytes: bytes(stat.blocks_available()),
        })
    }
}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], pos + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, parts: &[&[u8]], pos: u64) -> io::Result<()> {
        if let [one] = parts {
            return self.file.write_all_at(one, pos);
        }
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0); // steps over empty parts at the front
        let mut pos = pos;
        while !rest.is_empty() {
            let offset = i64::try_from(pos).map_err(|_| io::ErrorKind::InvalidInput)?;
            match pwritev(&self.file, &rest[..rest.len().min(SLICES_MAX)], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    IoSlice::advance_slices(&mut rest, count);
                    pos += count as u64;
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    #[expect(unsafe_code, reason = "nobody wraps sync_file_range(2)")]
    fn write_back(&self) {
        // SAFETY: the descriptor is that of an open file, and no memory is handed over. The rest of the file from its beginning on.
        let begun =
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        // What a filesystem does not do now, the next sync does.
        let _ = begun;
    }

    fn len(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        if metadata.file_type().is_block_device() {
            // Metadata has no length of it; where its end is, it says. Positions of `pread` and `pwrite` are their own.
            return (&self.file).seek(SeekFrom::End(0));
        }
        Ok(metadata.len())
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * STAT_BLOCK_BYTES)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        match nix::fcntl::fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, len) {
            // A filesystem that cannot set space aside works as well, only less fast.
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
