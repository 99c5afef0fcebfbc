//! Names of things in a filesystem.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bits of an [`Ino`] that count within one MDT; the bits above name the MDT.
const COUNTER_BITS: u32 = 48;
/// Lustre's first sequence for files; an MDT has the ones from here that its index and the counter's upper half give.
const FID_SEQUENCE_FIRST: u64 = 0x2_0000_0400;
/// Lustre's sequence of the root directory.
const FID_SEQUENCE_ROOT: u64 = 0x2_0000_0007;

/// An inode, unique in its filesystem for ever: the MDT's index in the upper 16 bits, a counter below. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory, as FUSE numbers it.
    pub const ROOT: Ino = Ino(1);

    /// The `counter`th inode of an MDT.
    pub fn new(mdt: u16, counter: u64) -> Ino {
        Ino(u64::from(mdt) << COUNTER_BITS | counter & ((1 << COUNTER_BITS) - 1))
    }

    /// The MDT that holds it.
    pub fn mdt(self) -> u16 {
        (self.0 >> COUNTER_BITS) as u16
    }

    /// Its number within the MDT.
    pub fn counter(self) -> u64 {
        self.0 & ((1 << COUNTER_BITS) - 1)
    }
}

/// An inode as Lustre's tools write it: `[0x200000403:0x11f:0x0]`, that is sequence, object id, version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fid(pub Ino);

impl fmt::Display for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Ino::ROOT {
            return write!(f, "[{FID_SEQUENCE_ROOT:#x}:0x1:0x0]");
        }
        let sequence = FID_SEQUENCE_FIRST + (self.0.0 >> 32);
        write!(f, "[{sequence:#x}:{:#x}:0x0]", self.0.0 as u32)
    }
}

/// Text that is no FID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a FID: it is written [0x200000400:0x1:0x0], with or without the brackets")]
pub struct BadFid;

impl FromStr for Fid {
    type Err = BadFid;

    fn from_str(text: &str) -> Result<Fid, BadFid> {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let parts: Vec<u64> = inner
            .split(':')
            .map(|part| u64::from_str_radix(part.strip_prefix("0x").unwrap_or(part), 16).map_err(|_| BadFid))
            .collect::<Result<_, _>>()?;
        let &[sequence, object, 0] = parts.as_slice() else { return Err(BadFid) };
        if (sequence, object) == (FID_SEQUENCE_ROOT, 1) {
            return Ok(Fid(Ino::ROOT));
        }
        let upper = sequence.checked_sub(FID_SEQUENCE_FIRST).map(u32::try_from);
        match (upper, u32::try_from(object)) {
            (Some(Ok(upper)), Ok(lower)) => Ok(Fid(Ino(u64::from(upper) << 32 | u64::from(lower)))),
            _ => Err(BadFid),
        }
    }
}

/// An object on an OST. The MDT gives the number when a stripe gets its place; the OST makes the object when it is first
/// written, and an object that was never written reads as a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub u64);

/// The index of an OST within its filesystem, as `lfs df` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OstIndex(pub u16);

/// A mount, from its start to its end; also over reconnections. Chosen at random by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u128);

/// A request of a session that changes something; a repeat has the same. Counted by the client from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Xid(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fids_are_written_and_read_as_lustre_does() {
        for ino in [Ino::ROOT, Ino(2), Ino(0xffff_ffff), Ino(0x1_0000_0000), Ino::new(3, 77)] {
            assert_eq!(Fid(ino).to_string().parse(), Ok(Fid(ino)), "{}", Fid(ino));
        }
        assert_eq!(Fid(Ino::ROOT).to_string(), "[0x200000007:0x1:0x0]");
        assert_eq!(Fid(Ino(0x11f)).to_string(), "[0x200000400:0x11f:0x0]");
        assert_eq!("0x200000400:0x11f:0x0".parse(), Ok(Fid(Ino(0x11f))));
        for bad in ["", "[]", "[1:2]", "[0x200000400:0x11f:0x1]", "[0x1:0x1:0x0]", "[zz:0:0]"] {
            assert_eq!(bad.parse::<Fid>(), Err(BadFid), "{bad}");
        }
    }
}
