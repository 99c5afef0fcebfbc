//! Memory for what is read, used again: fresh memory costs a page fault for every 4 KiB.

use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that are kept while nobody reads; each is as long as the longest read that it had, at most
/// [`DATA_BYTES_MAX`](crate::wire::DATA_BYTES_MAX).
const KEPT_MAX: usize = 8;

/// The kept buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// A buffer; goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    /// At least as long as was asked for; the rest is of older reads.
    bytes: Vec<u8>,
    len: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// A buffer of `len` bytes, whatever they are.
    pub(super) fn take(self: &Arc<Buffers>, len: usize) -> Buffer {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = kept.unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Buffer { bytes, len, home: Arc::clone(self) }
    }
}

impl Buffer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
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
