//! What each disk says of the pool that it belongs to: all of it, so that any disk tells which others there must be.

use super::bytes::{Reader, put_text};
use super::{Checksum, ChecksumKind, Txg, UBERBLOCK_BYTES, UBERBLOCK_SLOTS, VdevId};
use crate::core::ranges::Ranges;

/// Length of a label; a disk has two at its beginning and two at its end.
pub const LABEL_BYTES: usize = 256 << 10;
/// Where the configuration begins in a label; what is before is left to partition tables and boot loaders.
pub const CONFIG_AT: usize = 8 << 10;
/// Where the uberblocks begin in a label.
pub const UBERBLOCKS_AT: usize = LABEL_BYTES - UBERBLOCK_BYTES * UBERBLOCK_SLOTS as usize;
/// Room for the configuration.
pub const CONFIG_BYTES: usize = UBERBLOCKS_AT - CONFIG_AT;

const MAGIC: [u8; 8] = *b"KILNPOL\0";
const VERSION: u32 = 2;
/// Its vdevs do not say since when they are there.
const VERSION_1: u32 = 1;
/// Magic, version, length of the body.
const HEAD_BYTES: usize = 16;
/// Length of a pool's name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Length of a path or a host's name, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// A pool, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u128);

/// A disk of any pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId(pub u128);

/// Whether a pool is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PoolState {
    /// By the host that is named, unless that died.
    Active = 1,
    /// By nobody; any host may import it.
    Exported = 2,
    /// It was destroyed; its disks may be used for something else.
    Destroyed = 3,
}

/// Whether a disk is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LeafState {
    /// It is.
    Online = 1,
    /// An administrator said no.
    Offline = 2,
    /// It failed too often.
    Faulted = 3,
    /// It was taken out.
    Removed = 4,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafConfig {
    /// Which one.
    pub id: LeafId,
    /// Where it was last. It is found by its label, wherever that is.
    pub path: String,
    /// Whether it is used.
    pub state: LeafState,
    /// Transaction groups that it has missed.
    pub missed: Ranges,
}

/// How a top-level vdev keeps records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VdevKind {
    /// On each disk; a single disk too.
    Mirror,
    /// With so much parity.
    Raidz(u8),
}

/// A top-level vdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdevConfig {
    /// Which one; never used again in this pool.
    pub id: VdevId,
    /// How it keeps records.
    pub kind: VdevKind,
    /// Sectors of each disk that are for records.
    pub leaf_sectors: u64,
    /// The transaction group that added it: before that nothing is on it.
    pub since: Txg,
    /// Its disks. **Invariant:** at least one.
    pub leaves: Vec<LeafConfig>,
}

/// What a label says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The pool.
    pub pool: PoolId,
    /// Its name. **Invariant:** at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// The disk that this label is on.
    pub leaf: LeafId,
    /// As of which transaction group.
    pub txg: Txg,
    /// Whether it is in use.
    pub state: PoolState,
    /// By which host.
    pub host: String,
    /// The vdevs.
    pub vdevs: Vec<VdevConfig>,
    /// Disks that step in.
    pub spares: Vec<LeafConfig>,
}

/// Why there is no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Nothing of Kiln's.
    #[error("no label of a pool")]
    Magic,
    /// Written by a newer Kiln.
    #[error("a label of version {0}; this Kiln knows up to {VERSION}")]
    Version(u32),
    /// Torn, or rotten.
    #[error("a label whose checksum does not match")]
    Checksum,
    /// The checksum matches, and yet it cannot be one.
    #[error("a label that cannot be read")]
    Malformed,
}

/// A label that could not be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The configuration is too long.
    #[error("the pool's configuration takes {0} bytes; a label has room for {CONFIG_BYTES}")]
    TooLarge(usize),
    /// A name or a path is too long.
    #[error("a text of {bytes} bytes; it may have {max}")]
    Text {
        /// Its length.
        bytes: usize,
        /// What it may have.
        max: usize,
    },
    /// A vdev without disks, or with more parity than there is.
    #[error("a vdev that cannot be")]
    Vdev,
}

impl Label {
    /// Whether a disk is one of its vdevs', or a spare.
    pub fn has(&self, disk: LeafId) -> bool {
        self.vdevs.iter().flat_map(|vdev| &vdev.leaves).chain(&self.spares).any(|leaf| leaf.id == disk)
    }

    /// The bytes of the configuration, [`CONFIG_BYTES`] of them.
    pub fn encode(&self) -> Result<Vec<u8>, Unfit> {
        self.check()?;
        let mut out = vec![0; HEAD_BYTES];
        out.extend(self.pool.0.to_be_bytes());
        put_text(&mut out, &self.name);
        out.extend(self.leaf.0.to_be_bytes());
        out.extend(self.txg.0.to_be_bytes());
        out.push(self.state as u8);
        put_text(&mut out, &self.host);
        out.extend((self.vdevs.len() as u32).to_be_bytes());
        for vdev in &self.vdevs {
            put_vdev(&mut out, vdev);
        }
        put_leaves(&mut out, &self.spares);
        let needed = out.len() + Checksum::BYTES;
        if needed > CONFIG_BYTES {
            return Err(Unfit::TooLarge(needed));
        }
        let body_bytes = (out.len() - HEAD_BYTES) as u32;
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_be_bytes());
        out[12..16].copy_from_slice(&body_bytes.to_be_bytes());
        let checksum = Checksum::of(ChecksumKind::Blake3, &out);
        out.extend(checksum.bytes());
        out.resize(CONFIG_BYTES, 0);
        Ok(out)
    }

    /// Whether it could be read again.
    fn check(&self) -> Result<(), Unfit> {
        let fits = |text: &str, max: usize| {
            if text.len() <= max { Ok(()) } else { Err(Unfit::Text { bytes: text.len(), max }) }
        };
        fits(&self.name, NAME_BYTES_MAX)?;
        fits(&self.host, TEXT_BYTES_MAX)?;
        let mut leaves = self.vdevs.iter().flat_map(|vdev| &vdev.leaves).chain(&self.spares);
        leaves.try_for_each(|leaf| fits(&leaf.path, TEXT_BYTES_MAX))?;
        let can_be = |vdev: &VdevConfig| {
            let parity_fits = !matches!(vdev.kind, VdevKind::Raidz(parity) if !(1..=3).contains(&parity));
            !vdev.leaves.is_empty() && parity_fits
        };
        if self.vdevs.iter().all(can_be) { Ok(()) } else { Err(Unfit::Vdev) }
    }

    /// The label whose configuration these bytes begin with.
    pub fn decode(bytes: &[u8]) -> Result<Label, LabelError> {
        let mut reader = Reader::new(bytes);
        if reader.take(8) != Some(&MAGIC) {
            return Err(LabelError::Magic);
        }
        let version = reader.u32().ok_or(LabelError::Magic)?;
        if !(VERSION_1..=VERSION).contains(&version) {
            return Err(LabelError::Version(version));
        }
        let body_bytes = reader.u32().ok_or(LabelError::Checksum)? as usize;
        let body = reader.take(body_bytes).ok_or(LabelError::Checksum)?;
        let checksum = Checksum::of(ChecksumKind::Blake3, &bytes[..HEAD_BYTES + body_bytes]);
        if reader.take(Checksum::BYTES) != Some(checksum.bytes()) {
            return Err(LabelError::Checksum);
        }
        let mut body = Reader::new(body);
        let label = read_label(&mut body, version).ok_or(LabelError::Malformed)?;
        if body.is_empty() { Ok(label) } else { Err(LabelError::Malformed) }
    }
}

fn put_vdev(out: &mut Vec<u8>, vdev: &VdevConfig) {
    out.extend(vdev.id.0.to_be_bytes());
    out.push(match vdev.kind {
        VdevKind::Mirror => 0,
        VdevKind::Raidz(parity) => parity,
    });
    out.extend(vdev.leaf_sectors.to_be_bytes());
    out.extend(vdev.since.0.to_be_bytes());
    put_leaves(out, &vdev.leaves);
}

fn put_leaves(out: &mut Vec<u8>, leaves: &[LeafConfig]) {
    out.extend((leaves.len() as u32).to_be_bytes());
    for leaf in leaves {
        out.extend(leaf.id.0.to_be_bytes());
        put_text(out, &leaf.path);
        out.push(leaf.state as u8);
        out.extend((leaf.missed.iter().len() as u32).to_be_bytes());
        for (first, last) in leaf.missed.iter() {
            out.extend(first.to_be_bytes());
            out.extend(last.to_be_bytes());
        }
    }
}

fn read_label(body: &mut Reader<'_>, version: u32) -> Option<Label> {
    Some(Label {
        pool: PoolId(body.u128()?),
        name: body.text().filter(|name| name.len() <= NAME_BYTES_MAX)?,
        leaf: LeafId(body.u128()?),
        txg: Txg(body.u64()?),
        state: match body.u8()? {
            1 => PoolState::Active,
            2 => PoolState::Exported,
            3 => PoolState::Destroyed,
            _ => return None,
        },
        host: body.text().filter(|host| host.len() <= TEXT_BYTES_MAX)?,
        vdevs: read_list(body, |body| read_vdev(body, version))?,
        spares: read_list(body, read_leaf)?,
    })
}

fn read_vdev(body: &mut Reader<'_>, version: u32) -> Option<VdevConfig> {
    let id = VdevId(body.u32()?);
    let kind = match body.u8()? {
        0 => VdevKind::Mirror,
        parity @ 1..=3 => VdevKind::Raidz(parity),
        _ => return None,
    };
    let leaf_sectors = body.u64()?;
    let since = if version == VERSION_1 { Txg(0) } else { Txg(body.u64()?) };
    let leaves = read_list(body, read_leaf)?;
    (!leaves.is_empty()).then_some(VdevConfig { id, kind, leaf_sectors, since, leaves })
}

fn read_leaf(body: &mut Reader<'_>) -> Option<LeafConfig> {
    let id = LeafId(body.u128()?);
    let path = body.text().filter(|path| path.len() <= TEXT_BYTES_MAX)?;
    let state = match body.u8()? {
        1 => LeafState::Online,
        2 => LeafState::Offline,
        3 => LeafState::Faulted,
        4 => LeafState::Removed,
        _ => return None,
    };
    let mut missed = Ranges::default();
    for (first, last) in read_list(body, |body| Some((body.u64()?, body.u64()?)))? {
        // Ascending, and none touches the one before: there is one way only to write a set.
        let fits = missed.span().is_none_or(|(_, end)| end < u64::MAX && first > end + 1);
        if last < first || !fits {
            return None;
        }
        missed.insert(first, last);
    }
    Some(LeafConfig { id, path, state, missed })
}

/// A list behind its length; memory follows what is there, and not what is claimed.
fn read_list<T>(body: &mut Reader<'_>, read: impl Fn(&mut Reader<'_>) -> Option<T>) -> Option<Vec<T>> {
    let count = body.u32()?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(read(body)?);
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(id: u128) -> LeafConfig {
        let mut missed = Ranges::default();
        missed.insert(5, 9);
        missed.insert(20, 20);
        LeafConfig { id: LeafId(id), path: format!("/dev/sd{id}"), state: LeafState::Online, missed }
    }

    fn label() -> Label {
        Label {
            pool: PoolId(0xabcd),
            name: "tank".to_owned(),
            leaf: LeafId(2),
            txg: Txg(300),
            state: PoolState::Active,
            host: "silicon1".to_owned(),
            vdevs: vec![
                VdevConfig {
                    id: VdevId(0),
                    kind: VdevKind::Raidz(2),
                    leaf_sectors: 1 << 20,
                    since: Txg(0),
                    leaves: (1..5).map(leaf).collect(),
                },
                VdevConfig {
                    id: VdevId(1),
                    kind: VdevKind::Mirror,
                    leaf_sectors: 77,
                    since: Txg(300),
                    leaves: vec![leaf(9)],
                },
            ],
            spares: vec![LeafConfig { state: LeafState::Removed, missed: Ranges::default(), ..leaf(8) }],
        }
    }

    /// The checksum of a changed configuration made right again.
    fn forged(mut bytes: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
        let end = HEAD_BYTES + u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        bytes[at] = byte;
        let checksum = Checksum::of(ChecksumKind::Blake3, &bytes[..end]);
        bytes[end..end + Checksum::BYTES].copy_from_slice(checksum.bytes());
        bytes
    }

    #[test]
    fn golden_bytes() {
        let small = Label {
            vdevs: vec![VdevConfig {
                id: VdevId(1),
                kind: VdevKind::Mirror,
                leaf_sectors: 0x55,
                since: Txg(0x44),
                leaves: vec![LeafConfig { path: "d".to_owned(), ..leaf(2) }],
            }],
            spares: Vec::new(),
            ..label()
        };
        let bytes = small.encode().expect("it is small");
        let mut golden = b"KILNPOL\0".to_vec();
        golden.extend([0, 0, 0, 2, 0, 0, 0, 152]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0xcd]);
        golden.extend(b"\0\x04tank");
        golden.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        golden.extend([0, 0, 0, 0, 0, 0, 1, 44, 1]);
        golden.extend(b"\0\x08silicon1");
        golden.extend([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x55]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 0x44]);
        golden.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        golden.extend([0, 1, b'd', 1, 0, 0, 0, 2]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 20]);
        golden.extend([0, 0, 0, 0]);
        golden[15] = (golden.len() - HEAD_BYTES) as u8;
        assert_eq!(bytes[..golden.len()], golden);
        assert_eq!(bytes.len(), CONFIG_BYTES);
        assert_eq!(Label::decode(&bytes), Ok(small));
    }

    #[test]
    fn what_is_torn_or_rotten_is_found() {
        let bytes = label().encode().expect("it is small");
        assert_eq!(Label::decode(&bytes), Ok(label()));
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("it has bytes") + 1;
        for at in 0..end {
            let mut rotten = bytes.clone();
            rotten[at] ^= 0x20;
            assert!(Label::decode(&rotten).is_err(), "byte {at}");
            let mut torn = bytes.clone();
            torn[at..].fill(0);
            assert!(Label::decode(&torn).is_err() || torn == bytes, "torn at {at}");
            assert!(Label::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(Label::decode(&vec![0; CONFIG_BYTES]), Err(LabelError::Magic));
        assert_eq!(Label::decode(&forged(bytes, 11, 9)), Err(LabelError::Version(9)));
    }

    #[test]
    fn a_pool_that_is_too_large_for_a_label_is_told_so() {
        let spares = (0..4000).map(leaf).collect();
        assert!(
            matches!(Label { spares, ..label() }.encode(), Err(Unfit::TooLarge(bytes)) if bytes > CONFIG_BYTES)
        );
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let unfit = Label { name: long, ..label() }.encode();
        assert_eq!(unfit, Err(Unfit::Text { bytes: NAME_BYTES_MAX + 1, max: NAME_BYTES_MAX }));
        let path = "x".repeat(70_000);
        let unfit = Label { spares: vec![LeafConfig { path, ..leaf(1) }], ..label() }.encode();
        assert_eq!(unfit, Err(Unfit::Text { bytes: 70_000, max: TEXT_BYTES_MAX }));
        let mut without = label();
        without.vdevs[0].leaves.clear();
        assert_eq!(without.encode(), Err(Unfit::Vdev));
        let mut more = label();
        more.vdevs[0].kind = VdevKind::Raidz(4);
        assert_eq!(more.encode(), Err(Unfit::Vdev));
    }

    proptest! {
        /// Whoever can compute the checksum can write anything: it is refused, or has one form.
        #[test]
        fn whatever_is_forged_is_no_danger(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let bytes = label().encode().expect("it is small");
            let body = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
            let bytes = forged(bytes, HEAD_BYTES + at.index(body), byte);
            if let Ok(label) = Label::decode(&bytes) {
                prop_assert_eq!(label.encode().expect("it fitted"), bytes);
            }
        }
    }
}
