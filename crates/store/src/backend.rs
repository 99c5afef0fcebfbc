//! redb's storage on [`kiln_world::File`], so that the tables meet the same crashes in tests as the log does.

use std::fmt;
use std::io;
use std::sync::Arc;

use kiln_world::File;

/// One file that redb keeps its pages in.
///
/// It takes no lock: a data directory belongs to one process, which is seen to where the directory is opened.
pub struct DiskBackend {
    file: Arc<dyn File>,
}

impl DiskBackend {
    /// Keeps the pages in `file`.
    pub fn new(file: Arc<dyn File>) -> DiskBackend {
        DiskBackend { file }
    }
}

impl fmt::Debug for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskBackend")
    }
}

impl redb::StorageBackend for DiskBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.file.read_at(out, offset)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(&[data], offset)
    }
}
