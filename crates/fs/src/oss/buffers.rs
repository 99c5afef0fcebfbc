//! Memory for what is read, used again. It begins at a page, as a disk that is read past the page cache wants it.

use std::sync::Arc;

use kiln_types::Kept;

use crate::wire::DATA_BYTES_MAX;

/// Buffers that are kept while nobody reads; each is as long as the longest read that it had.
const KEPT_MAX: usize = 8;

/// What the address of a buffer is a multiple of, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;

/// The kept buffers.
#[derive(Debug)]
pub(super) struct Buffers(Kept);

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers(Kept::new(KEPT_MAX, DATA_BYTES_MAX as usize + PAGE_BYTES))
    }
}

/// A buffer; goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    /// **Invariant:** at least as long as `begin` and `len` together.
    bytes: Vec<u8>,
    begin: usize,
    len: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// A buffer of `len` bytes, whatever they are.
    pub(super) fn take(self: &Arc<Buffers>, len: usize) -> Buffer {
        let mut bytes = self.0.take();
        if bytes.len() < len + PAGE_BYTES {
            bytes.reserve_exact(len + PAGE_BYTES - bytes.len());
            bytes.resize(len + PAGE_BYTES, 0);
        }
        let begin = bytes.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Buffer { bytes, begin, len, home: Arc::clone(self) }
    }
}

impl Buffer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.begin..self.begin + self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begin..self.begin + self.len]
    }

    /// Keeps the front only.
    pub(super) fn cut(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.0.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_page_and_has_what_was_asked_for() {
        let home = Arc::new(Buffers::default());
        for len in [1, 5000, 1 << 20, 0, 4096] {
            let mut buffer = home.take(len);
            assert_eq!((buffer.bytes().len(), buffer.bytes_mut().len()), (len, len));
            assert_eq!(buffer.bytes().as_ptr().align_offset(PAGE_BYTES), 0);
            buffer.cut(len / 2);
            assert_eq!(buffer.bytes().len(), len / 2);
        }
    }
}
