//! Small files that are replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Makes `name` in `dir` hold `bytes`, durably: at every moment, after a crash too, it has the old content or the new one.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Makes a directory and those above it that are missing, durably.
pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && above != dir => {
            create_dir(above)?;
            fs::create_dir(dir)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
        made => made?,
    }
    File::open(above)?.sync_all()
}

/// The bytes of a file before its checksum, which is that of the last four; `None` when it does not fit.
pub(super) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_be_bytes(*sum)).then_some(content)
}

/// `bytes` with their checksum behind.
pub(super) fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes
}
