//! Names of files, where a dataset is a disk of files: a table of slots, of which each file has the one of its object's number.
//!
//! A slot never crosses the boundary of a record, so it is written whole or not at all.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use super::RecordError;
use super::bytes::Reader;

/// Length of a slot.
pub const NAME_SLOT_BYTES: usize = 1024;
/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = NAME_SLOT_BYTES - HEAD_BYTES;

const HEAD_BYTES: usize = 11;
const MAGIC: [u8; 8] = *b"KILNNAM\0";
const VERSION: u32 = 1;

/// What an object is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameSlot {
    /// Relative to the root. **Invariant:** 1 to [`PATH_BYTES_MAX`] bytes.
    pub path: PathBuf,
    /// It is a directory, and has no content.
    pub is_dir: bool,
    /// Names that were given later have greater numbers: of two slots with one path that one holds which has the greater.
    pub order: u64,
}

impl NameSlot {
    /// Its bytes.
    ///
    /// # Panics
    ///
    /// When the path is empty or too long.
    pub fn encode(&self) -> Vec<u8> {
        let path = self.path.as_os_str().as_bytes();
        assert!((1..=PATH_BYTES_MAX).contains(&path.len()), "a path of {} bytes", path.len());
        let mut out = vec![if self.is_dir { 2 } else { 1 }];
        out.extend((path.len() as u16).to_be_bytes());
        out.extend(self.order.to_be_bytes());
        out.extend(path);
        out.resize(NAME_SLOT_BYTES, 0);
        out
    }

    /// What these bytes name; `None` for a free slot.
    pub fn decode(bytes: &[u8]) -> Result<Option<NameSlot>, RecordError> {
        let mut reader = Reader::new(bytes);
        let is_dir = match reader.u8() {
            Some(0) => return Ok(None),
            Some(1) => false,
            Some(2) => true,
            _ => return Err(RecordError::Malformed),
        };
        let read = |reader: &mut Reader<'_>| {
            let len = reader.u16().filter(|len| *len > 0)?;
            let order = reader.u64()?;
            let path = PathBuf::from(OsString::from_vec(reader.take(len.into())?.to_vec()));
            let stays_within = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            stays_within.then_some(NameSlot { path, is_dir, order })
        };
        read(&mut reader).map(Some).ok_or(RecordError::Malformed)
    }
}

/// The first slot, which says what the others are.
pub fn encode_names_head() -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_be_bytes());
    out.resize(NAME_SLOT_BYTES, 0);
    out
}

/// Whether this is the first slot of a table that can be read.
pub fn check_names_head(bytes: &[u8]) -> Result<(), RecordError> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len()) != Some(&MAGIC) {
        return Err(RecordError::Magic);
    }
    match reader.u32() {
        Some(VERSION) => Ok(()),
        Some(version) => Err(RecordError::Version(version)),
        None => Err(RecordError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let slot = NameSlot { path: "a/b".into(), is_dir: false, order: 0x0102 };
        let bytes = slot.encode();
        assert_eq!(bytes[..14], [1, 0, 3, 0, 0, 0, 0, 0, 0, 1, 2, b'a', b'/', b'b']);
        assert_eq!((bytes.len(), bytes[14..].iter().any(|byte| *byte != 0)), (NAME_SLOT_BYTES, false));
        assert_eq!(NameSlot::decode(&bytes), Ok(Some(slot)));
        assert_eq!(NameSlot::decode(&[0; NAME_SLOT_BYTES]), Ok(None));
        let dir = NameSlot { path: "x".repeat(PATH_BYTES_MAX).into(), is_dir: true, order: u64::MAX };
        assert_eq!(NameSlot::decode(&dir.encode()), Ok(Some(dir)));
        assert_eq!(encode_names_head()[..12], *b"KILNNAM\0\0\0\0\x01");
    }

    #[test]
    fn what_is_no_name_is_told() {
        let with = |at: usize, byte: u8| {
            let mut bytes = NameSlot { path: "a/b".into(), is_dir: false, order: 1 }.encode();
            bytes[at] = byte;
            NameSlot::decode(&bytes)
        };
        assert_eq!(with(0, 3), Err(RecordError::Malformed));
        assert_eq!(with(2, 0), Err(RecordError::Malformed), "no path");
        assert_eq!(with(1, 0xff), Err(RecordError::Malformed), "a path that is longer than the slot");
        assert_eq!(with(11, b'/'), Err(RecordError::Malformed), "a path from the root");
        assert_eq!(NameSlot::decode(&[1, 0]), Err(RecordError::Malformed));
        assert_eq!(check_names_head(&encode_names_head()), Ok(()));
        assert_eq!(check_names_head(b"KILNNAM\0\0\0\0\x02"), Err(RecordError::Version(2)));
        assert_eq!(check_names_head(&[0; 20]), Err(RecordError::Magic));
    }
}
