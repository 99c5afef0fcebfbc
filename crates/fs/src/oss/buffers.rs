//! Memory for what is read, used again: fresh memory costs a page fault for every 4 KiB. It begins at a page, as a disk that is read past the
//! page cache wants it.

use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that are kept while nobody reads; each is as long as the longest read that it had, at most
/// [`DATA_BYTES_MAX`](crate::wire::DATA_BYTES_MAX).
const KEPT_MAX: usize = 8;

/// What the address of a buffer is a multiple of, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;

/// The kept buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

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
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = kept.unwrap_or_default();
        if bytes.len() < len + PAGE_BYTES {
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
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(std::mem::take(&mut self.bytes));
        }
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
