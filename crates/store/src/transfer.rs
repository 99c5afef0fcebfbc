//! A whole state as a stream of bytes: what a new copy is started from. The layout is in `docs/formats/store.md`.

use std::io::{self, Read, Write};

use crate::Revision;
use crate::error::TransferError;

/// The version of the snapshot stream that this program reads and writes.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// The longest full key (machine, table and key) that an import takes, in bytes.
pub const ROW_KEY_BYTES_MAX: usize = 64 << 10;

/// The longest value that an import takes, in bytes.
pub const ROW_VALUE_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"KILNSNAP";

/// Stands where a key's length would: no more rows.
const END: u32 = u32::MAX;

/// A stream under way.
pub(crate) struct Export<'o> {
    out: &'o mut dyn Write,
    crc: u32,
    rows: u64,
}

impl<'o> Export<'o> {
    pub(crate) fn start(out: &'o mut dyn Write, revision: Revision) -> io::Result<Export<'o>> {
        let mut export = Export { out, crc: 0, rows: 0 };
        export.write(&MAGIC)?;
        export.write(&SNAPSHOT_FORMAT.to_le_bytes())?;
        export.write(&revision.0.to_le_bytes())?;
        Ok(export)
    }

    /// One row; rows come in the order of their keys.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), TransferError> {
        if key.len() > ROW_KEY_BYTES_MAX || value.len() > ROW_VALUE_BYTES_MAX {
            return Err(TransferError::State(format!("row {} is too long to export", key.escape_ascii())));
        }
        self.write(&(key.len() as u32).to_le_bytes())?;
        self.write(&(value.len() as u32).to_le_bytes())?;
        self.write(key)?;
        self.write(value)?;
        self.rows += 1;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.write(&END.to_le_bytes())?;
        let rows = self.rows;
        self.write(&rows.to_le_bytes())?;
        let crc = self.crc;
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.flush()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.out.write_all(bytes)
    }
}

/// Reads a stream, giving each row to `row`. Only when this returns `Ok` was the stream whole: the checksum is
/// at its end.
pub(crate) fn import(
    stream: &mut dyn Read,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<(), TransferError>,
) -> Result<Revision, TransferError> {
    let mut stream = Summed { stream, crc: 0 };
    if stream.array::<8>()? != MAGIC {
        return Err(TransferError::Magic);
    }
    let found = u32::from_le_bytes(stream.array()?);
    if found > SNAPSHOT_FORMAT {
        return Err(TransferError::Newer { found, known: SNAPSHOT_FORMAT });
    }
    let revision = Revision(u64::from_le_bytes(stream.array()?));
    let mut rows = 0_u64;
    let mut last = Vec::new();
    while let Some((key, value)) = stream.row()? {
        if key <= last {
            return Err(TransferError::Damaged("its rows are out of order"));
        }
        row(&key, &value)?;
        rows += 1;
        last = key;
    }
    if u64::from_le_bytes(stream.array()?) != rows {
        return Err(TransferError::Damaged("its count of rows is wrong"));
    }
    let computed = stream.crc;
    if u32::from_le_bytes(stream.array()?) != computed {
        return Err(TransferError::Damaged("its checksum is wrong"));
    }
    Ok(revision)
}

/// Full key and value.
type Row = (Vec<u8>, Vec<u8>);

/// A stream, and the checksum of what was read from it.
struct Summed<'s> {
    stream: &'s mut dyn Read,
    crc: u32,
}

impl Summed<'_> {
    /// The next row, or `None` at the end mark.
    fn row(&mut self) -> Result<Option<Row>, TransferError> {
        let key_bytes = u32::from_le_bytes(self.array()?);
        if key_bytes == END {
            return Ok(None);
        }
        let value_bytes = u32::from_le_bytes(self.array()?) as usize;
        let key_bytes = key_bytes as usize;
        if key_bytes > ROW_KEY_BYTES_MAX || value_bytes > ROW_VALUE_BYTES_MAX {
            return Err(TransferError::Damaged("a row is longer than rows can be"));
        }
        Ok(Some((self.bytes(key_bytes)?, self.bytes(value_bytes)?)))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TransferError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, TransferError> {
        let mut out = vec![0; count];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), TransferError> {
        match self.stream.read_exact(out) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(TransferError::Damaged("it ends too soon"));
            }
            Err(error) => return Err(error.into()),
        }
        self.crc = crc32c::crc32c_append(self.crc, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let mut export = Export::start(&mut out, Revision(3)).unwrap();
        export.row(b"a\0t\0k", b"v").unwrap();
        export.row(b"a\0t\0l", b"").unwrap();
        export.finish().unwrap();
        out
    }

    fn read(mut bytes: &[u8]) -> Result<(Revision, usize), TransferError> {
        let mut rows = 0;
        let revision = import(&mut bytes, |_, _| {
            rows += 1;
            Ok(())
        })?;
        Ok((revision, rows))
    }

    /// Golden bytes: this layout is in backups.
    #[test]
    fn layout_is_as_documented() {
        let mut expected = b"KILNSNAP\x01\0\0\0\x03\0\0\0\0\0\0\0".to_vec();
        expected.extend_from_slice(b"\x05\0\0\0\x01\0\0\0a\0t\0kv");
        expected.extend_from_slice(b"\x05\0\0\0\0\0\0\0a\0t\0l");
        expected.extend_from_slice(b"\xFF\xFF\xFF\xFF\x02\0\0\0\0\0\0\0");
        let crc = crc32c::crc32c(&expected);
        expected.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(sample(), expected);
        assert_eq!(read(&sample()).unwrap(), (Revision(3), 2));
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let good = sample();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(read(&bad).is_err(), "flip at {at}");
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_advice() {
        let mut newer = sample();
        newer[8] = 2;
        let error = read(&newer).unwrap_err();
        assert!(matches!(error, TransferError::Newer { found: 2, known: 1 }));
        assert!(matches!(read(b"not a snapshot at all"), Err(TransferError::Magic)));
    }
}
