//! The label of a target: which one a directory is.

use std::path::Path;
use std::{fmt, fs, io};

use bytes::{Buf, BufMut};

use super::durable;
use super::error::TargetError;
use crate::core::OstIndex;

/// The format of everything in a target's directory.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Its file.
const LABEL: &str = "label";
const MAGIC: [u8; 8] = *b"KILNOST\0";
/// The longest label: its fixed part, the longest name and the checksum. More is not read of the file.
const LABEL_BYTES_MAX: usize = 31 + 255 + 4;
const REMEDY: &str = "take it from a backup of the directory, or make the target anew";

/// Which target a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The filesystem, whatever its name: another one when a name is used again.
    pub id: u128,
    /// The name of the filesystem. **Must hold:** 1 to 255 bytes.
    pub fs: String,
    /// The OST's index in it.
    pub index: OstIndex,
}

impl fmt::Display for Label {
    /// `scratch-OST000a of 0123456789abcdef0123456789abcdef`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-OST{:04x} of {:032x}", self.fs, self.index.0, self.id)
    }
}

impl Label {
    fn encode(&self) -> Option<Vec<u8>> {
        let name_len = u8::try_from(self.fs.len()).ok().filter(|len| *len > 0)?;
        let mut bytes = Vec::with_capacity(LABEL_BYTES_MAX);
        bytes.put_slice(&MAGIC);
        bytes.put_u32(FORMAT_VERSION);
        bytes.put_u128(self.id);
        bytes.put_u16(self.index.0);
        bytes.put_u8(name_len);
        bytes.put_slice(self.fs.as_bytes());
        Some(durable::with_checksum(bytes))
    }

    /// **Must hold:** magic, version and checksum are right.
    fn decode(content: &[u8]) -> Option<Label> {
        let mut rest = &content[MAGIC.len() + 4..];
        let id = rest.try_get_u128().ok()?;
        let index = OstIndex(rest.try_get_u16().ok()?);
        let name_len = rest.try_get_u8().ok()?;
        let fs = std::str::from_utf8(rest).ok()?.to_owned();
        (fs.len() == usize::from(name_len) && name_len > 0).then_some(Label { id, fs, index })
    }

    /// Whether the directory that has this label is the target that is wanted.
    pub(super) fn check(self, dir: &Path, wanted: &Label) -> Result<(), TargetError> {
        if self == *wanted {
            return Ok(());
        }
        Err(TargetError::Other { dir: dir.to_owned(), found: self, wanted: wanted.clone() })
    }

    /// Writes the label of a target that is complete but for it.
    pub(super) fn write(&self, dir: &Path) -> Result<(), TargetError> {
        let bytes = self.encode().ok_or_else(|| TargetError::Name(self.fs.clone()))?;
        durable::replace(dir, LABEL, &bytes).map_err(TargetError::io(&dir.join(LABEL)))
    }

    /// The label of a directory; `None` when it has none.
    pub(super) fn read(dir: &Path) -> Result<Option<Label>, TargetError> {
        let path = dir.join(LABEL);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TargetError::Io { path, source }),
        };
        check_format(&path, &bytes, MAGIC, REMEDY)?;
        let label = durable::checked(&bytes).and_then(Label::decode);
        label.map(Some).ok_or(TargetError::Damaged { path, what: "its checksum is wrong", remedy: REMEDY })
    }
}

/// Checks magic and version of one of a target's small files. They keep their places in every later format.
pub(super) fn check_format(
    path: &Path,
    bytes: &[u8],
    magic: [u8; 8],
    remedy: &'static str,
) -> Result<(), TargetError> {
    let damaged = |what| TargetError::Damaged { path: path.to_owned(), what, remedy };
    let mut rest = bytes.strip_prefix(&magic).ok_or_else(|| damaged("it does not begin as it should"))?;
    match rest.try_get_u32() {
        Err(_) => Err(damaged("it is too short")),
        Ok(version) if version > FORMAT_VERSION => Err(TargetError::Newer { path: path.to_owned(), version }),
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(_) => Err(damaged("it has a format that never was")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let label = Label { id: 0x0102, fs: "scratch".to_owned(), index: OstIndex(10) };
        let bytes = label.encode().expect("the name fits");
        let content = b"KILNOST\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\0\x0a\x07scratch";
        assert_eq!(bytes[..38], content[..]);
        assert_eq!(bytes[38..], crc32c::crc32c(content).to_be_bytes());
        assert_eq!(Label::decode(durable::checked(&bytes).expect("sound")), Some(label.clone()));
        assert_eq!(label.to_string(), "scratch-OST000a of 00000000000000000000000000000102");
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for fs in [String::new(), "x".repeat(256)] {
            assert_eq!(Label { id: 0, fs, index: OstIndex(0) }.encode(), None);
        }
    }
}
