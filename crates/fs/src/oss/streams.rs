//! Long reads and writes, which on a disk without heads do not go through the page cache.
//!
//! The page cache of an OST's node pays for itself where a seek costs milliseconds. On flash a stream gains nothing by it: it
//! drives out what others use, its pages are made for one use, and the client keeps what it reads anyway. So long pieces of whole pages go
//! past it (`O_DIRECT`), which saves a copy too. Other long pieces go with `RWF_DONTCACHE` (Linux 6.14 and later): through the page cache
//! as ever, of which they give back what they brought in, and written bytes begin their way to the disk at once. Lustre's OSTs do
//! without a cache on flash for the same reason.

use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::stat::{major, minor};
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};

use super::buffers::PAGE_BYTES;
use super::shelf::ObjectFile;

/// Shorter pieces stay in the page cache: small files, and what is read or written here and there.
pub(super) const STREAM_BYTES_MIN: usize = 512 << 10;
/// `RWF_DONTCACHE` of `linux/fs.h`.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// How the files of one filesystem are read and written.
#[derive(Debug)]
pub(super) struct Streams {
    /// Long pieces leave nothing behind. Set back for good when the kernel or the filesystem does not know how.
    uncached: AtomicBool,
}

impl Streams {
    /// For the filesystem that `root` is on. What is not known to be without heads is cached.
    pub(super) fn of(root: &File) -> Streams {
        let device = root.metadata().map(|stat| stat.dev());
        Streams { uncached: AtomicBool::new(device.is_ok_and(is_without_heads)) }
    }

    #[cfg(test)]
    pub(super) fn uncached(uncached: bool) -> Streams {
        Streams { uncached: AtomicBool::new(uncached) }
    }

    /// Reads what is there, up to all of `into`; 0 at the end of the file.
    pub(super) fn read_at(&self, file: &ObjectFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.applies_to(into.len()) {
            if let Some(read) = read_direct(file, into, offset) {
                return read;
            }
            let read = preadv2(&**file, &mut [IoSliceMut::new(into)], offset, DONTCACHE);
            if let Some(read) = self.unless_unknown(read) {
                return read;
            }
        }
        file.read_at(into, offset)
    }

    /// Writes all of `bytes`.
    pub(super) fn write_all_at(
        &self,
        file: &ObjectFile,
        mut bytes: &[u8],
        mut offset: u64,
    ) -> io::Result<()> {
        if self.applies_to(bytes.len())
            && is_whole_pages(bytes, offset)
            && let Some(written) =
                file.direct().and_then(|direct| unless_unfit(direct.write_all_at(bytes, offset)))
        {
            return written;
        }
        while self.applies_to(bytes.len()) {
            match self.unless_unknown(pwritev2(&**file, &[IoSlice::new(bytes)], offset, DONTCACHE)) {
                Some(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Some(Ok(written)) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        file.write_all_at(bytes, offset)
    }

    fn applies_to(&self, len: usize) -> bool {
        len >= STREAM_BYTES_MIN && self.uncached.load(Ordering::Relaxed)
    }

    /// An outcome; `None` when it says that there is no such flag here, of which there is no use any more then.
    fn unless_unknown(&self, outcome: rustix::io::Result<usize>) -> Option<io::Result<usize>> {
        let outcome = outcome.map_err(io::Error::from);
        let code = outcome.as_ref().err().and_then(io::Error::raw_os_error);
        if code == Some(Errno::EOPNOTSUPP as i32) || code == Some(Errno::ENOSYS as i32) {
            self.uncached.store(false, Ordering::Relaxed);
            return None;
        }
        Some(outcome)
    }
}

/// Reads the whole pages of it past the page cache; `None` where that is not possible.
fn read_direct(file: &ObjectFile, into: &mut [u8], offset: u64) -> Option<io::Result<usize>> {
    let whole = into.len() - into.len() % PAGE_BYTES;
    let into = Some(&mut into[..whole]).filter(|into| is_whole_pages(into, offset))?;
    unless_unfit(file.direct()?.read_at(into, offset))
}

/// Whether a piece can go past the page cache.
fn is_whole_pages(piece: &[u8], offset: u64) -> bool {
    let numbers = [offset, piece.len() as u64].iter().all(|number| number.is_multiple_of(PAGE_BYTES as u64));
    numbers && piece.as_ptr().align_offset(PAGE_BYTES) == 0
}

/// An outcome; `None` when it says that the filesystem wants more of what goes past the page cache.
fn unless_unfit<T>(outcome: io::Result<T>) -> Option<io::Result<T>> {
    Some(outcome).filter(|outcome| {
        outcome.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::InvalidInput)
    })
}

/// Whether the kernel says of a disk, or of the disk that a partition is on, that it does not rotate.
fn is_without_heads(device: u64) -> bool {
    let disk = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    let rotational = |of: &str| fs::read_to_string(disk.join(of).join("queue/rotational")).ok();
    rotational("").or_else(|| rotational("..")).is_some_and(|text| text.trim() == "0")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::buffers::Buffers;
    use super::*;

    /// Whatever the kernel and the filesystem of the test know of the flag.
    #[test]
    fn long_and_short_pieces_are_what_was_written() {
        for uncached in [false, true] {
            let streams = Streams::uncached(uncached);
            let file = ObjectFile::from(tempfile::tempfile().expect("a scratch file"));
            let long: Vec<u8> = (0..STREAM_BYTES_MIN * 3 + 5).map(|n| (n % 251) as u8).collect();
            streams.write_all_at(&file, &long, 4097).expect("there is room");
            streams.write_all_at(&file, b"short", 7).expect("there is room");
            let mut read = vec![1; long.len() + 1];
            assert_eq!(streams.read_at(&file, &mut read, 4097).expect("it is there"), long.len());
            assert_eq!(read[..long.len()], long);
            // Whole pages of a buffer that begins at a page, and what is behind them.
            let mut buffer = Arc::new(Buffers::default()).take(long.len());
            let read = streams.read_at(&file, buffer.bytes_mut(), 4096).expect("it is there");
            assert!(read >= STREAM_BYTES_MIN, "{read} bytes");
            assert_eq!(buffer.bytes()[1..read], long[..read - 1]);
            let rest = streams.read_at(&file, &mut buffer.bytes_mut()[read..], 4096 + read as u64);
            assert_eq!(read + rest.expect("it is there"), long.len());
            assert_eq!(buffer.bytes()[1..], long[..long.len() - 1]);
            // The same that was read, all but the first page of it, written where it lies and behind.
            let pages = &buffer.bytes()[PAGE_BYTES..long.len() - long.len() % PAGE_BYTES];
            for at in [8192, 16 << 20] {
                streams.write_all_at(&file, pages, at).expect("there is room");
                let mut again = vec![0; pages.len()];
                file.read_exact_at(&mut again, at).expect("it is there");
                assert_eq!(again, pages);
            }
            let mut read = [1; 5];
            assert_eq!(streams.read_at(&file, &mut read, 7).expect("it is there"), 5);
            assert_eq!(&read, b"short");
        }
    }

    #[test]
    fn a_kernel_without_the_flag_is_asked_once() {
        let streams = Streams::uncached(true);
        assert!(streams.unless_unknown(Ok(3)).is_some() && streams.applies_to(STREAM_BYTES_MIN));
        assert!(
            streams.unless_unknown(Err(rustix::io::Errno::NOSPC)).is_some_and(|outcome| outcome.is_err())
        );
        assert!(streams.unless_unknown(Err(rustix::io::Errno::OPNOTSUPP)).is_none());
        assert!(!streams.applies_to(STREAM_BYTES_MIN), "it is not asked again");
    }

    #[test]
    fn what_is_no_disk_is_cached() {
        assert!(!is_without_heads(0), "an anonymous device, as tmpfs and btrfs have");
    }
}
