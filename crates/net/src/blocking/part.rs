//! Memory for the parts of frames. That of long ones is used again; and they begin at a page, so that they can be written to a disk past the page
//! cache. It is appended to as bytes come, and so never zeroed.

use bytes::Bytes;
use kiln_types::Kept;

/// What the address of a long part is a multiple of, in bytes.
const ALIGN_BYTES: usize = 4096;
/// Parts of this length are long, in bytes.
const LONG_BYTES_MIN: usize = 256 << 10;
/// Memory of so many long parts is kept while nobody uses it,
const KEPT_MAX: usize = 16;
/// if it has not more than this, in bytes.
const KEPT_BYTES_MAX: usize = (1 << 20) + ALIGN_BYTES;

static KEPT: Kept = Kept::new(KEPT_MAX, KEPT_BYTES_MAX);

/// A part that is being received.
#[derive(Debug)]
pub(super) struct Part {
    /// The part, from `begin` on.
    bytes: Vec<u8>,
    begin: usize,
}

impl Part {
    /// An empty one, with room for at least so many bytes.
    pub(super) fn with_room(room: usize) -> Part {
        if room < LONG_BYTES_MIN {
            return Part { bytes: Vec::with_capacity(room), begin: 0 };
        }
        let mut bytes = KEPT.take();
        bytes.clear();
        bytes.reserve_exact(room + ALIGN_BYTES);
        let begin = bytes.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
        bytes.resize(begin, 0);
        Part { bytes, begin }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.begin
    }

    /// To append to.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn finish(mut self) -> Bytes {
        if self.is_long() { Bytes::from_owner(self) } else { Bytes::from(std::mem::take(&mut self.bytes)) }
    }

    fn is_long(&self) -> bool {
        self.bytes.capacity() >= LONG_BYTES_MIN
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_long() {
            KEPT.give(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_was_received_and_long_ones_begin_at_a_page() {
        for _ in 0..3 {
            for len in [0, 1, LONG_BYTES_MIN - 1, LONG_BYTES_MIN, 1 << 20] {
                let wanted: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                let mut part = Part::with_room(len);
                assert!(part.bytes_mut().spare_capacity_mut().len() >= len);
                part.bytes_mut().extend_from_slice(&wanted);
                assert_eq!(part.len(), len);
                let bytes = part.finish();
                assert!(bytes == wanted, "{len} bytes");
                assert!(len < LONG_BYTES_MIN || bytes.as_ptr().align_offset(ALIGN_BYTES) == 0);
            }
        }
    }

    #[test]
    fn a_part_that_grew_beyond_its_room_is_whole() {
        let mut part = Part::with_room(LONG_BYTES_MIN);
        part.bytes_mut().extend(std::iter::repeat_n(7, 3 * KEPT_BYTES_MAX));
        assert_eq!(part.len(), 3 * KEPT_BYTES_MAX);
        assert!(part.finish().iter().all(|byte| *byte == 7));
    }
}
