//! What a record is recognised by.

/// How a checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChecksumKind {
    /// XXH3 of 128 bits: as fast as memory; finds what disks and cables do.
    Xxh3 = 1,
    /// BLAKE3: also finds what somebody did on purpose.
    Blake3 = 2,
}

impl ChecksumKind {
    pub(super) fn from_byte(byte: u8) -> Option<ChecksumKind> {
        Some(match byte {
            1 => ChecksumKind::Xxh3,
            2 => ChecksumKind::Blake3,
            _ => return None,
        })
    }

    /// How many bytes of a checksum count.
    pub(super) fn significant(self) -> usize {
        match self {
            ChecksumKind::Xxh3 => 16,
            ChecksumKind::Blake3 => Checksum::BYTES,
        }
    }
}

/// The checksum of a record's bytes as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    kind: ChecksumKind,
    /// **Invariant:** of XXH3 the first 16 bytes count, and the others are 0.
    bytes: [u8; Checksum::BYTES],
}

impl Checksum {
    /// Length of any checksum on the disk.
    pub const BYTES: usize = 32;

    /// The checksum of these bytes.
    pub fn of(kind: ChecksumKind, stored: &[u8]) -> Checksum {
        let mut bytes = [0; Checksum::BYTES];
        match kind {
            ChecksumKind::Xxh3 => {
                bytes[..kind.significant()]
                    .copy_from_slice(&twox_hash::XxHash3_128::oneshot(stored).to_be_bytes());
            }
            ChecksumKind::Blake3 => bytes.copy_from_slice(blake3::hash(stored).as_bytes()),
        }
        Checksum { kind, bytes }
    }

    /// Whether these are the bytes.
    pub fn matches(&self, stored: &[u8]) -> bool {
        Checksum::of(self.kind, stored) == *self
    }

    /// How it was computed.
    pub fn kind(&self) -> ChecksumKind {
        self.kind
    }

    /// Its bytes; what a shorter one lacks is zeros.
    pub fn bytes(&self) -> &[u8; Checksum::BYTES] {
        &self.bytes
    }

    /// `None` when a checksum of this kind cannot be these bytes.
    pub(super) fn from_bytes(kind: ChecksumKind, bytes: [u8; Checksum::BYTES]) -> Option<Checksum> {
        let fits = bytes[kind.significant()..].iter().all(|byte| *byte == 0);
        fits.then_some(Checksum { kind, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that both algorithms' authors give for no bytes at all.
    #[test]
    fn of_nothing() {
        let xxh3 = Checksum::of(ChecksumKind::Xxh3, b"");
        assert_eq!(xxh3.bytes[..16], 0x99aa_06d3_0147_98d8_6001_c324_468d_497f_u128.to_be_bytes());
        assert_eq!(xxh3.bytes[16..], [0; 16]);
        let blake3 = Checksum::of(ChecksumKind::Blake3, b"");
        assert_eq!(blake3.bytes[..16], 0xaf13_49b9_f5f9_a1a6_a040_4dea_36dc_c949_u128.to_be_bytes());
        assert_eq!(blake3.bytes[16..], 0x9bcb_25c9_adc1_12b7_cc9a_93ca_e41f_3262_u128.to_be_bytes());
    }

    #[test]
    fn a_bit_makes_a_difference() {
        let mut record = vec![7; 4096];
        for kind in [ChecksumKind::Xxh3, ChecksumKind::Blake3] {
            let checksum = Checksum::of(kind, &record);
            assert!(checksum.matches(&record));
            record[4000] ^= 1;
            assert!(!checksum.matches(&record));
            record[4000] ^= 1;
        }
    }
}
