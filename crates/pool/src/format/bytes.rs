//! Reading fields of bytes that may be anything, and writing them.

use super::{Place, VDEV_SECTORS_MAX, VdevId};

/// A field at a fixed place. **Must hold:** `at + N` is within, as it is in a block whose length is in its type.
pub(super) fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// What is left to be read.
pub(super) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Reader<'b> {
        Reader(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes that is.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (now, later) = self.0.split_at_checked(len)?;
        self.0 = later;
        Some(now)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (now, later) = self.0.split_first_chunk()?;
        self.0 = later;
        Some(*now)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }

    /// A place, of 12 bytes; `None` also for one that no vdev has.
    pub(super) fn place(&mut self) -> Option<Place> {
        let place = Place { vdev: VdevId(self.u32()?), sector: self.u64()? };
        (place.sector < VDEV_SECTORS_MAX).then_some(place)
    }

    /// A text behind its length of two bytes.
    pub(super) fn text(&mut self) -> Option<String> {
        let len = self.u16()?;
        let text = self.take(len.into())?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// **Must hold:** it has at most 65,535 bytes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("the caller has looked at the length");
    out.extend(len.to_be_bytes());
    out.extend(text.as_bytes());
}

pub(super) fn put_place(out: &mut Vec<u8>, place: Place) {
    out.extend(place.vdev.0.to_be_bytes());
    out.extend(place.sector.to_be_bytes());
}
