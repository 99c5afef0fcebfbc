//! Records made smaller.

use crate::format::Compression;
use crate::vdev::SECTOR_BYTES;

/// The level of Zstandard: the one that its authors have chosen for everyday use.
const ZSTD_LEVEL: i32 = 3;

/// A record's bytes, smaller by one sector at least; `None` where that is not so.
pub(super) fn compress(with: Compression, bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() <= SECTOR_BYTES {
        return None;
    }
    let packed = match with {
        Compression::None => return None,
        Compression::Lz4 => lz4_flex::block::compress(bytes),
        Compression::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).ok()?,
    };
    (packed.len().div_ceil(SECTOR_BYTES) < bytes.len().div_ceil(SECTOR_BYTES)).then_some(packed)
}

/// The bytes of a record, of which there are to be so many; `None` when the stored ones are not what they were made into.
pub(super) fn decompress(with: Compression, stored: Vec<u8>, bytes: usize) -> Option<Vec<u8>> {
    let unpacked = match with {
        Compression::None => stored,
        Compression::Lz4 => lz4_flex::block::decompress(&stored, bytes).ok()?,
        Compression::Zstd => zstd::bulk::decompress(&stored, bytes).ok()?,
    };
    (unpacked.len() == bytes).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back() {
        let text = b"one line is much like the next\n".repeat(4096);
        for with in [Compression::Lz4, Compression::Zstd] {
            let packed = compress(with, &text).expect("it is smaller");
            assert!(packed.len() * 10 < text.len(), "{with:?}: {} bytes", packed.len());
            assert_eq!(decompress(with, packed.clone(), text.len()).as_ref(), Some(&text[..].to_vec()));
            assert_eq!(decompress(with, packed.clone(), text.len() - 1), None, "{with:?}: too long");
            assert_eq!(decompress(with, packed, text.len() + 1), None, "{with:?}: too short");
            assert_eq!(decompress(with, b"no such thing".to_vec(), 100), None, "{with:?}");
        }
    }

    #[test]
    fn what_saves_no_sector_stays_as_it_is() {
        assert_eq!(compress(Compression::Lz4, &[0; SECTOR_BYTES]), None);
        let mut noise = vec![0; 3 * SECTOR_BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(compress(Compression::Zstd, &noise), None);
        assert_eq!(compress(Compression::None, &vec![0; 1 << 17]), None);
    }
}
