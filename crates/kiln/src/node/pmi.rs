//! `libpmi.so`, carried inside the binary and put where MPI programs can load it.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::paths::DataDir;

/// The library as `build.rs` made it.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libpmi.so"));

/// Writes the library into the instance's run directory, whole or not at all, and says where.
pub(super) fn unpack(data: &DataDir) -> anyhow::Result<PathBuf> {
    let path = data.run().join("libpmi.so");
    if std::fs::read(&path).is_ok_and(|there| there == LIBRARY) {
        return Ok(path);
    }
    crate::supervisor::write_whole(&path, LIBRARY)
        .with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}
