//! The label of an MDT: which one it is.
//!
//! ```text
//! magic: 8 bytes   version: u32   length of the body: u32   body: postcard of Label   CRC-32C of all before: u32
//! ```
//!
//! Numbers are little endian.

use std::path::Path;

use kiln_world::{Disk, Open};
use serde::{Deserialize, Serialize};

use super::error::OpenError;

const FILE: &str = "label";
/// The label until it is whole.
const FILE_UNFINISHED: &str = "label.new";
const MAGIC: [u8; 8] = *b"KILN-MDT";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// The largest label, in bytes.
const LABEL_BYTES_MAX: usize = 4096;

/// Which MDT it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Unlike any other target's.
    pub uuid: [u8; 16],
    /// The filesystem's name.
    pub fs: String,
    /// Its index among the filesystem's MDTs.
    pub mdt: u16,
}

/// Reads the label in `dir`, or makes it where there is none.
pub(super) fn open(disk: &dyn Disk, dir: &Path, wanted: &Label) -> Result<Label, OpenError> {
    disk.create_dir_all(dir)?;
    dir.ancestors().skip(1).try_for_each(|parent| disk.sync_dir(parent))?;
    let is_there = disk.list(dir)?.iter().any(|entry| entry.name == FILE);
    if !is_there {
        write(disk, dir, wanted)?;
    }
    let found = read(disk, &dir.join(FILE))?;
    if (&found.fs, found.mdt) != (&wanted.fs, wanted.mdt) {
        return Err(OpenError::Foreign { found, wanted: wanted.clone() });
    }
    Ok(found)
}

/// Writes the label. It gets its name only when it is whole, so a crash leaves none or a good one.
fn write(disk: &dyn Disk, dir: &Path, label: &Label) -> Result<(), OpenError> {
    let unfinished = dir.join(FILE_UNFINISHED);
    let file = disk.open(&unfinished, Open::OrCreate)?;
    file.set_len(0)?;
    file.write_all_at(&[&label.encode()], 0)?;
    file.sync()?;
    disk.rename(&unfinished, &dir.join(FILE))?;
    Ok(disk.sync_dir(dir)?)
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Label, OpenError> {
    let file = disk.open(path, Open::Existing)?;
    let mut bytes = vec![0; LABEL_BYTES_MAX];
    let len = file.read_at(&mut bytes, 0)?;
    bytes.truncate(len);
    Label::decode(&bytes)
}

impl Label {
    fn encode(&self) -> Vec<u8> {
        let body =
            postcard::to_stdvec(self).expect("a label's lengths are known beforehand, which is all it asks");
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Label, OpenError> {
        const DAMAGED: OpenError = OpenError::Damaged { what: "the MDT's label" };
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(DAMAGED)?;
        let [magic @ .., v0, v1, v2, v3, l0, l1, l2, l3] = *head;
        if magic != MAGIC {
            return Err(DAMAGED);
        }
        // Its place is the same in every version.
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version > VERSION {
            return Err(OpenError::Newer { what: "the MDT's label", found: version, known: VERSION });
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let (body, crc) = rest.split_at_checked(len).ok_or(DAMAGED)?;
        let computed = crc32c::crc32c(&bytes[..HEAD_BYTES + len]).to_le_bytes();
        if crc.get(..CRC_BYTES) != Some(&computed) {
            return Err(DAMAGED);
        }
        postcard::from_bytes(body).map_err(|_| DAMAGED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label { uuid: *b"0123456789abcdef", fs: "scratch".into(), mdt: 0 }
    }

    #[test]
    fn golden_bytes() {
        let bytes = label().encode();
        let head = b"KILN-MDT\x01\0\0\0\x19\x00\x00\x00\x30123456789abcdef\x07scratch\0";
        assert_eq!(bytes[..head.len()], *head);
        assert_eq!(bytes[head.len()..], crc32c::crc32c(head).to_le_bytes());
        assert_eq!(Label::decode(&bytes).unwrap(), label());
    }

    #[test]
    fn damage_and_newer_versions_are_told_apart() {
        let bytes = label().encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let error = Label::decode(&bad).unwrap_err();
            let is_version = (8..12).contains(&at);
            assert_eq!(matches!(error, OpenError::Newer { .. }), is_version, "byte {at}: {error}");
            assert!(Label::decode(&bytes[..at]).is_err());
        }
    }
}
