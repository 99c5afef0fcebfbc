//! Bytes of a file that follow one another and are not with the servers yet.

use std::ops::{Deref, DerefMut};

use kiln_types::Kept;

use super::dirty::CHUNK_BYTES;

/// A segment that reaches this length is expected to grow as long as it may, and gets the memory for that.
const GROWING_BYTES: usize = 64 << 10;
/// Memory of so many segments is kept, about what a stream has on its way to the servers,
const KEPT_MAX: usize = 32;
/// of those that have so much.
const KEPT_BYTES_MIN: usize = CHUNK_BYTES as usize / 2;

static KEPT: Kept = Kept::new(KEPT_MAX, CHUNK_BYTES as usize);

/// See the module. Memory of long ones is used again.
#[derive(Debug, Default)]
pub(super) struct Segment(Vec<u8>);

impl Segment {
    /// Appends bytes to a segment that may become `len_max` long.
    pub(super) fn append(&mut self, bytes: &[u8], len_max: usize) {
        let len = self.0.len() + bytes.len();
        if len > self.0.capacity() && len >= GROWING_BYTES {
            let mut longer = KEPT.take();
            longer.clear();
            longer.reserve_exact(len_max);
            longer.extend_from_slice(&self.0);
            *self = Segment(longer);
        }
        self.0.extend_from_slice(bytes);
    }

    /// Keeps what is below `at`, answers the rest.
    pub(super) fn split_off(&mut self, at: usize) -> Segment {
        let rest = Segment(self.0[at..].to_vec());
        self.0.truncate(at);
        rest
    }
}

/// Frees memory that is kept for segments to come.
pub fn free_kept() {
    KEPT.clear();
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.0.capacity() >= KEPT_BYTES_MIN {
            KEPT.give(std::mem::take(&mut self.0));
        }
    }
}

impl Deref for Segment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Segment {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
