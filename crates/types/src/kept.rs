//! Memory that is used again.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory of long buffers, kept while nobody uses it, and used again.
///
/// Fresh memory costs a page fault for every 4 KiB, and on virtual machines that give free memory back to their host much more than that: to fill a
/// new buffer can take several times as long as to fill an old one.
#[derive(Debug)]
pub struct Kept {
    /// **Invariant:** at most `count_max`, none with more than `bytes_max`.
    buffers: Mutex<Vec<Vec<u8>>>,
    count_max: usize,
    bytes_max: usize,
}

impl Kept {
    /// Keeps so many buffers at most, of so many bytes at most.
    pub const fn new(count_max: usize, bytes_max: usize) -> Kept {
        Kept { buffers: Mutex::new(Vec::new()), count_max, bytes_max }
    }

    /// A buffer that was given back last, as it was then; an empty one where there is none.
    pub fn take(&self) -> Vec<u8> {
        self.buffers().pop().unwrap_or_default()
    }

    /// Keeps a buffer, or frees it where it is too long or there are enough.
    pub fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() > self.bytes_max {
            return;
        }
        let mut buffers = self.buffers();
        if buffers.len() < self.count_max {
            buffers.push(buffer);
        }
    }

    /// Frees what is kept.
    pub fn clear(&self) {
        self.buffers().clear();
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Nothing under this lock can panic halfway.
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_was_said() {
        let kept = Kept::new(2, 100);
        for len in [10, 101, 20, 30] {
            kept.give(vec![len as u8; len]);
        }
        let taken: Vec<Vec<u8>> = (0..3).map(|_| kept.take()).collect();
        assert_eq!(taken, [vec![20; 20], vec![10; 10], Vec::new()], "101 is too long, and two are enough");
        kept.give(vec![1]);
        kept.clear();
        assert!(kept.take().is_empty());
    }
}
