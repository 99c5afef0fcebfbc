//! Lines appended to a file.

use crate::core::Records;
use crate::ports::PortError;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// One file; opened for each batch, so that it may be rotated by renaming.
pub(super) struct FileSink {
    path: Arc<PathBuf>,
}

impl FileSink {
    pub(super) fn new(path: PathBuf) -> FileSink {
        FileSink { path: Arc::new(path) }
    }

    /// Appends one line for each record and syncs. A crash in between may leave a part; the repeat then follows it.
    pub(super) async fn append(&self, records: &Records) -> Result<(), PortError> {
        let mut lines = Vec::with_capacity(records.bytes() + records.len());
        for record in records.iter() {
            lines.extend(record.value.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
            lines.push(b'\n');
        }
        let path = Arc::clone(&self.path);
        let written = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&*path)?;
            file.write_all(&lines)?;
            file.sync_data()
        });
        let path = self.path.display();
        let failed =
            |error: &dyn std::fmt::Display| PortError::Unavailable(format!("append to {path}: {error}"));
        written.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}
