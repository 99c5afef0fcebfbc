//! `log.meta`: the log's format version, its start, and what is known to be durable.
//!
//! Two slots, each in a sector of its own, are written in turn, so a torn write spoils at most the older one. A
//! claim is written only after it became true, so a slot that is old is still true. See docs/formats/log.md.

use std::io;
use std::path::{Path, PathBuf};

use kiln_types::Offset;
use kiln_world::{Disk, Open};

use crate::error::OpenError;

pub(crate) const META_NAME: &str = "log.meta";
const MAGIC: &[u8; 8] = b"KILNLOG\0";
/// The version of the whole directory's format.
pub(crate) const VERSION: u32 = 1;
/// Distance of the slots: a sector, what a disk writes whole or not at all.
const SLOT_STRIDE_BYTES: usize = 512;
const SLOT_BYTES: usize = 40;
const CRC_AT: usize = 36;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Counts writes; the slot with the higher number holds.
    pub(crate) sequence: u64,
    /// The log's first offset, as set by its user.
    pub(crate) start: Offset,
    /// Every record below was durable when this was written, and so were the names of its files.
    pub(crate) durable: Offset,
}

impl Meta {
    pub(crate) const NEW: Meta = Meta { sequence: 0, start: Offset(0), durable: Offset(0) };

    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut out = [0; SLOT_BYTES];
        out[0..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_be_bytes());
        out[12..20].copy_from_slice(&self.sequence.to_be_bytes());
        out[20..28].copy_from_slice(&self.start.0.to_be_bytes());
        out[28..36].copy_from_slice(&self.durable.0.to_be_bytes());
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Writes the slot whose turn it is. The caller syncs where the claim must last.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path, sync: bool) -> io::Result<()> {
        let file = disk.open(&dir.join(META_NAME), Open::OrCreate)?;
        let slot = self.sequence % 2;
        file.write_all_at(&[&self.encode()], slot * SLOT_STRIDE_BYTES as u64)?;
        if sync {
            file.sync()?;
            disk.sync_dir(dir)?;
        }
        Ok(())
    }

    /// Reads the newest sound slot. `None` when nothing was ever written: the log is new, or young and crashed.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Meta>, OpenError> {
        let path = dir.join(META_NAME);
        let bytes = match read_file(disk, &path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        let mut newest: Option<Meta> = None;
        let mut damaged = false;
        for slot in bytes.chunks(SLOT_STRIDE_BYTES) {
            match decode(slot, &path)? {
                Slot::Blank => {}
                Slot::Damaged => damaged = true,
                Slot::Sound(meta) => {
                    if newest.is_none_or(|other| other.sequence < meta.sequence) {
                        newest = Some(meta);
                    }
                }
            }
        }
        if newest.is_none() && damaged {
            return Err(OpenError::Corrupt { file: path, position: 0, reason: "no sound slot".to_owned() });
        }
        Ok(newest)
    }
}

enum Slot {
    Blank,
    Damaged,
    Sound(Meta),
}

fn decode(slot: &[u8], path: &Path) -> Result<Slot, OpenError> {
    if slot.iter().all(|byte| *byte == 0) {
        return Ok(Slot::Blank);
    }
    let Some(slot) = slot.first_chunk::<SLOT_BYTES>() else { return Ok(Slot::Damaged) };
    // Magic and version come first in every version, so that a newer layout is told from damage.
    let version = u32::from_be_bytes(field(slot, 8));
    if slot.starts_with(MAGIC) && version > VERSION {
        return Err(OpenError::NewerFormat { path: PathBuf::from(path), found: version, known: VERSION });
    }
    let sound = slot.starts_with(MAGIC)
        && version == VERSION
        && crc32c::crc32c(&slot[..CRC_AT]) == u32::from_be_bytes(field(slot, CRC_AT));
    if !sound {
        return Ok(Slot::Damaged);
    }
    Ok(Slot::Sound(Meta {
        sequence: u64::from_be_bytes(field(slot, 12)),
        start: Offset(i64::from_be_bytes(field(slot, 20))),
        durable: Offset(i64::from_be_bytes(field(slot, 28))),
    }))
}

/// Copies the `N` bytes at `at`, a constant of the layout.
fn field<const N: usize>(slot: &[u8; SLOT_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&slot[at..at + N]);
    out
}

fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Existing)?;
    let mut bytes = vec![0; SLOT_STRIDE_BYTES * 2];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}
