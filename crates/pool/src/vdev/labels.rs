//! Labels and uberblocks on a disk.
//!
//! ```text
//! label 0 | label 1 | records ... | label 2 | label 3
//! ```
//!
//! A configuration is written to two labels, one at each end, and made durable before the other two are touched, of which one is the newest
//! that there was: however often the power fails, one label at least is whole. Each configuration has a later transaction group than the one before. An
//! uberblock goes to all four, to a slot that none of the last 31 has.

use std::io;

use kiln_world::File;

use super::SECTOR_BYTES;
use super::leaf::read_exactly;
use crate::format::{
    CONFIG_AT, CONFIG_BYTES, LABEL_BYTES, Label, LabelError, UBERBLOCK_BYTES, UBERBLOCK_SLOTS, UBERBLOCKS_AT,
    Uberblock, Unfit,
};

const LABELS: usize = 4;
/// Which labels are written together.
const PAIRS: [[usize; 2]; 2] = [[0, 2], [1, 3]];
/// The smallest disk: its labels, and as much again.
pub const DISK_BYTES_MIN: u64 = 2 * (LABELS * LABEL_BYTES) as u64;

/// Where the parts of a disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Areas {
    /// Of the disk, a multiple of the labels' length.
    bytes: u64,
}

/// Why a disk has no label to go by.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is too small for one.
    #[error("a disk of {0} bytes; the smallest has {DISK_BYTES_MIN}")]
    TooSmall(u64),
    /// None of them is one.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a configuration was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk is too small.
    #[error("a disk of {0} bytes; the smallest has {DISK_BYTES_MIN}")]
    TooSmall(u64),
    /// It could not be read again.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It cannot be written. One label at least is as it was, or as it is to be.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Areas {
    /// Of a disk of so many bytes; `None` when it is too small.
    pub fn of(bytes: u64) -> Option<Areas> {
        (bytes >= DISK_BYTES_MIN).then_some(Areas { bytes: bytes / LABEL_BYTES as u64 * LABEL_BYTES as u64 })
    }

    /// Where records begin, in bytes.
    pub fn data_start(self) -> u64 {
        2 * LABEL_BYTES as u64
    }

    /// Sectors for records.
    pub fn data_sectors(self) -> u64 {
        (self.bytes - (LABELS * LABEL_BYTES) as u64) / SECTOR_BYTES as u64
    }

    fn label(self, index: usize) -> u64 {
        let at = index as u64 * LABEL_BYTES as u64;
        if index < 2 { at } else { self.bytes - LABELS as u64 * LABEL_BYTES as u64 + at }
    }

    fn config(self, index: usize) -> u64 {
        self.label(index) + CONFIG_AT as u64
    }

    fn uberblock(self, index: usize, slot: u64) -> u64 {
        self.label(index) + UBERBLOCKS_AT as u64 + slot * UBERBLOCK_BYTES as u64
    }
}

/// Writes a configuration to all labels of a disk, durably.
pub fn write_label(file: &dyn File, label: &Label) -> Result<(), WriteError> {
    let bytes = file.len()?;
    let areas = Areas::of(bytes).ok_or(WriteError::TooSmall(bytes))?;
    let config = label.encode()?;
    let mut steps = PAIRS;
    if labels(file, areas).newest.is_some_and(|(index, _)| PAIRS[0].contains(&index)) {
        steps.reverse();
    }
    for pair in steps {
        for index in pair {
            file.write_all_at(&[&config], areas.config(index))?;
        }
        file.sync()?;
    }
    Ok(())
}

/// Takes the labels of a disk that is of no pool any more, durably.
pub fn wipe_label(file: &dyn File) -> Result<(), WriteError> {
    let bytes = file.len()?;
    let areas = Areas::of(bytes).ok_or(WriteError::TooSmall(bytes))?;
    for index in 0..LABELS {
        file.write_all_at(&[&vec![0; LABEL_BYTES - CONFIG_AT]], areas.config(index))?;
    }
    Ok(file.sync()?)
}

/// The newest configuration that a disk has. When none of its labels is one, what is wrong with the one that says most.
pub fn read_label(file: &dyn File) -> Result<Label, ReadError> {
    let bytes = file.len()?;
    let areas = Areas::of(bytes).ok_or(ReadError::TooSmall(bytes))?;
    let Labels { newest, wrong } = labels(file, areas);
    newest.map(|(_, label)| label).ok_or(wrong)
}

/// What the labels of a disk say.
struct Labels {
    /// The newest that is whole, and which one it is.
    newest: Option<(usize, Label)>,
    /// What is wrong with the one that says most.
    wrong: ReadError,
}

fn labels(file: &dyn File, areas: Areas) -> Labels {
    let mut newest: Option<(usize, Label)> = None;
    let mut wrong = ReadError::Label(LabelError::Magic);
    for index in 0..LABELS {
        let mut config = vec![0; CONFIG_BYTES];
        let decoded = read_exactly(file, &mut config, areas.config(index))
            .map_err(ReadError::Io)
            .and_then(|()| Ok(Label::decode(&config)?));
        match decoded {
            Ok(label) if newest.as_ref().is_none_or(|(_, newest)| newest.txg < label.txg) => {
                newest = Some((index, label));
            }
            Ok(_) | Err(ReadError::Label(LabelError::Magic)) => {}
            Err(error) => wrong = error,
        }
    }
    Labels { newest, wrong }
}

/// Writes an uberblock to all labels of a disk. It counts when [`File::sync`] has returned.
pub fn write_uberblock(file: &dyn File, uberblock: &Uberblock) -> Result<(), WriteError> {
    let bytes = file.len()?;
    let areas = Areas::of(bytes).ok_or(WriteError::TooSmall(bytes))?;
    let encoded = uberblock.encode();
    for index in 0..LABELS {
        file.write_all_at(&[&encoded], areas.uberblock(index, uberblock.slot()))?;
    }
    Ok(())
}

/// The uberblocks of a disk that are whole, each once, the newest first. What cannot be read counts as not whole.
pub fn read_uberblocks(file: &dyn File) -> Result<Vec<Uberblock>, ReadError> {
    let bytes = file.len()?;
    let areas = Areas::of(bytes).ok_or(ReadError::TooSmall(bytes))?;
    let mut found: Vec<Uberblock> = Vec::new();
    for index in 0..LABELS {
        for slot in 0..UBERBLOCK_SLOTS {
            let mut bytes = [0; UBERBLOCK_BYTES];
            if read_exactly(file, &mut bytes, areas.uberblock(index, slot)).is_ok()
                && let Ok(uberblock) = Uberblock::decode(&bytes)
                && !found.contains(&uberblock)
            {
                found.push(uberblock);
            }
        }
    }
    found.sort_by_key(|uberblock| std::cmp::Reverse(uberblock.txg));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use kiln_world::{Disk, Open, SimDisk};

    use super::*;
    use crate::core::ranges::Ranges;
    use crate::format::{
        Checksum, ChecksumKind, Compression, Kind, LeafConfig, LeafId, LeafState, Place, Pointer, PoolId,
        PoolState, Txg, VdevId,
    };

    const DISK: &str = "disk";
    const BYTES: u64 = DISK_BYTES_MIN + 12_345;

    fn open(disk: &SimDisk) -> Arc<dyn File> {
        disk.open(Path::new(DISK), Open::OrCreate).expect("the disk is on")
    }

    /// A disk of that size, whose name and length are durable.
    fn made(seed: u64) -> (SimDisk, Arc<dyn File>) {
        let disk = SimDisk::new(seed);
        let file = open(&disk);
        file.set_len(BYTES).expect("there is room");
        disk.sync_all().expect("the disk is on");
        (disk, file)
    }

    /// Different in many sectors, so that it can be torn.
    fn label(txg: u64) -> Label {
        let spare = |n: u128| LeafConfig {
            id: LeafId(n),
            path: format!("/dev/disk{n} as of {txg}"),
            state: LeafState::Online,
            missed: Ranges::default(),
        };
        Label {
            pool: PoolId(1),
            name: format!("as of {txg}"),
            leaf: LeafId(2),
            txg: Txg(txg),
            state: PoolState::Active,
            host: "silicon1".to_owned(),
            vdevs: Vec::new(),
            spares: (0..60).map(spare).collect(),
        }
    }

    fn uberblock(txg: u64) -> Uberblock {
        let root = Pointer {
            kind: Kind::Root,
            places: vec![Place { vdev: VdevId(0), sector: txg }],
            compression: Compression::None,
            stored_bytes: 4096,
            bytes: 4096,
            birth: Txg(txg),
            checksum: Checksum::of(ChecksumKind::Xxh3, &txg.to_be_bytes()),
        };
        Uberblock { pool: PoolId(1), txg: Txg(txg), time: 0, root }
    }

    #[test]
    fn the_parts_of_a_disk_do_not_overlap() {
        let areas = Areas::of(BYTES).expect("it is large enough");
        let ends = areas.data_start() + areas.data_sectors() * SECTOR_BYTES as u64;
        let labels: Vec<u64> = (0..LABELS).map(|index| areas.label(index)).collect();
        let step = LABEL_BYTES as u64;
        assert_eq!(labels, [0, step, ends, ends + step]);
        assert!(ends + 2 * step <= BYTES);
        assert_eq!(Areas::of(DISK_BYTES_MIN - 1), None);
    }

    #[test]
    fn a_disk_without_a_label_says_so() {
        let (disk, file) = made(1);
        assert!(matches!(read_label(&*file), Err(ReadError::Label(LabelError::Magic))));
        assert!(read_uberblocks(&*file).expect("it can be read").is_empty());
        file.set_len(1000).expect("it can be cut");
        assert!(matches!(read_label(&*file), Err(ReadError::TooSmall(1000))));
        assert!(matches!(write_label(&*file, &label(1)), Err(WriteError::TooSmall(1000))));
        drop(disk);
    }

    #[test]
    fn any_three_labels_may_be_lost() {
        for kept in 0..LABELS {
            let (disk, file) = made(2);
            write_label(&*file, &label(7)).expect("there is room");
            write_uberblock(&*file, &uberblock(7)).expect("there is room");
            let areas = Areas::of(BYTES).expect("it is large enough");
            for lost in (0..LABELS).filter(|index| *index != kept) {
                file.write_all_at(&[&vec![0xaa; LABEL_BYTES]], areas.label(lost)).expect("there is room");
            }
            assert_eq!(read_label(&*file).expect("one is left"), label(7));
            assert_eq!(read_uberblocks(&*file).expect("one is left"), [uberblock(7)]);
            drop(disk);
        }
    }

    #[test]
    fn what_is_rotten_everywhere_is_told() {
        let (disk, file) = made(3);
        write_label(&*file, &label(7)).expect("there is room");
        let areas = Areas::of(BYTES).expect("it is large enough");
        for index in 0..LABELS {
            disk.rot(Path::new(DISK), areas.config(index) + 30, 1).expect("there is a byte");
        }
        assert!(matches!(read_label(&*file), Err(ReadError::Label(LabelError::Checksum))));
    }

    #[test]
    fn a_label_is_the_old_or_the_new_one_wherever_the_power_fails() {
        for seed in 0..20 {
            for syncs in 0..=2 {
                let (disk, file) = made(seed);
                write_label(&*file, &label(1)).expect("there is room");
                disk.crash_after_syncs(syncs);
                let outcome = write_label(&*file, &label(2));
                disk.crash();
                let found = read_label(&*open(&disk)).expect("two labels are whole");
                assert!(
                    found == label(2) || (found == label(1) && outcome.is_err()),
                    "seed {seed}, {syncs} syncs"
                );
                assert_eq!(outcome.is_ok(), syncs == 2);
                if syncs > 0 {
                    assert_eq!(found, label(2), "seed {seed}: the first step was durable");
                }
            }
        }
    }

    #[test]
    fn a_label_is_left_however_often_the_power_fails() {
        for seed in 0..60 {
            let (disk, file) = made(seed);
            write_label(&*file, &label(1)).expect("there is room");
            let mut written = 1;
            for txg in 2..9 {
                disk.crash_after_syncs((seed + txg) % 2);
                let outcome = write_label(&*open(&disk), &label(txg));
                disk.crash();
                let found = read_label(&*open(&disk)).expect("one label is whole").txg.0;
                assert!(
                    outcome.is_err() && (written..=txg).contains(&found),
                    "seed {seed}: {found} after {txg}"
                );
                written = found;
            }
        }
    }

    #[test]
    fn the_last_uberblock_is_the_one_before_or_the_new_one_wherever_the_power_fails() {
        for seed in 0..8 {
            for last in [40, 64, 71] {
                let (disk, file) = made(seed);
                for txg in 1..last {
                    write_uberblock(&*file, &uberblock(txg)).expect("there is room");
                }
                file.sync().expect("the disk is on");
                write_uberblock(&*file, &uberblock(last)).expect("there is room");
                disk.crash();
                let found = read_uberblocks(&*open(&disk)).expect("it can be read");
                let newest = if found[0].txg == Txg(last) { last } else { last - 1 };
                // The slot of the oldest may be torn.
                let expected: Vec<Uberblock> =
                    (last - UBERBLOCK_SLOTS + 1..=newest).rev().map(uberblock).collect();
                assert_eq!(found[..expected.len()], expected, "seed {seed}");
            }
        }
    }
}
