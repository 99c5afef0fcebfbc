//! Vdevs on simulated disks that rot, fail and are not there.

use std::path::PathBuf;

use kiln_world::{Disk, Open, SimDisk};
use proptest::prelude::*;

use super::*;

/// Where records begin on the disks of the tests.
const DATA_START: u64 = 8192;

/// Disks, each a file of one simulated disk.
struct Bench {
    disk: SimDisk,
    redundancy: Redundancy,
    width: usize,
    vdev: Vdev,
}

fn path(place: usize) -> PathBuf {
    PathBuf::from(format!("disk{place}"))
}

impl Bench {
    fn new(redundancy: Redundancy, width: usize) -> Bench {
        let disk = SimDisk::new(1);
        let vdev = vdev_without(&disk, redundancy, width, &[]);
        Bench { disk, redundancy, width, vdev }
    }

    /// Everything is opened again, but for some disks.
    fn lose(&mut self, places: &[usize]) {
        self.vdev = vdev_without(&self.disk, self.redundancy, self.width, places);
    }

    /// Flips a bit of each sector that a disk has of a record, as `verify` would read them.
    fn rot(&self, place: usize, rows: std::ops::Range<u64>) {
        for row in rows {
            let at = DATA_START + row * SECTOR_BYTES as u64 + row % SECTOR_BYTES as u64;
            self.disk.rot(&path(place), at, 0x10).expect("there is a byte");
        }
    }

    /// What all disks hold.
    fn image(&self) -> Vec<Vec<u8>> {
        (0..self.width).map(|place| self.disk.contents(&path(place)).expect("there is a disk")).collect()
    }
}

fn vdev_without(disk: &SimDisk, redundancy: Redundancy, width: usize, lost: &[usize]) -> Vdev {
    let leaf = |place: usize| {
        let file = disk.open(&path(place), Open::OrCreate).expect("the disk is on");
        if lost.contains(&place) { Leaf::absent(DATA_START) } else { Leaf::new(file, DATA_START) }
    };
    Vdev::new(redundancy, (0..width).map(leaf).map(Arc::new).collect()).expect("as many as it is wide")
}

fn raidz(width: usize, parity: usize) -> Redundancy {
    Redundancy::Raidz(Layout::new(width, parity).expect("it can be"))
}

fn record(sectors: u32, seed: u64) -> Vec<u8> {
    let bytes =
        (0..u64::from(sectors) * SECTOR_BYTES as u64).map(|at| (at * (seed * 2 + 1) + (at >> 9)) as u8);
    bytes.collect()
}

/// The layouts that the tests go through.
fn layouts() -> Vec<(Redundancy, usize)> {
    let mut layouts: Vec<(Redundancy, usize)> = (1..=4).map(|width| (Redundancy::Mirror, width)).collect();
    for parity in 1..=3 {
        layouts.extend((parity + 1..=7).map(|width| (raidz(width, parity), width)));
    }
    layouts
}

/// All sets of so many disks.
fn sets(width: usize, count: usize) -> impl Iterator<Item = Vec<usize>> {
    let members = move |set: u32| (0..width).filter(|place| set & (1 << place) != 0).collect::<Vec<_>>();
    (0..1_u32 << width).filter(move |set| set.count_ones() as usize == count).map(members)
}

/// The disks that have something of a record at sector 9.
fn holders(redundancy: Redundancy, width: usize, sectors: u32) -> Vec<usize> {
    match redundancy {
        Redundancy::Mirror => (0..width).collect(),
        Redundancy::Raidz(layout) => {
            let stripe = layout.stripe(9, sectors);
            stripe.parity().iter().chain(stripe.data()).map(|column| column.disk).collect()
        }
    }
}

#[test]
fn any_disks_that_the_vdev_tolerates_may_be_lost() {
    for (redundancy, width) in layouts() {
        for sectors in [1, 2, 3, 5, 8, 13] {
            let mut bench = Bench::new(redundancy, width);
            let written = record(sectors, 3);
            assert_eq!(bench.vdev.write(7, &written), Ok(Vec::new()));
            for lost in sets(width, bench.vdev.tolerates()) {
                bench.lose(&lost);
                let read = bench.vdev.read(7, sectors, &|bytes| bytes == written);
                assert_eq!(
                    read,
                    Ok(Read { bytes: written.clone(), mended: Vec::new() }),
                    "{redundancy:?} {lost:?}"
                );
            }
        }
    }
}

#[test]
fn rot_on_any_disks_that_the_vdev_tolerates_is_mended() {
    for (redundancy, width) in layouts() {
        for sectors in [1, 4, 11] {
            let written = record(sectors, 5);
            let matches = |bytes: &[u8]| bytes == written;
            for rotten in sets(width, 1).chain(sets(width, 2)).chain(sets(width, 3)) {
                let bench = Bench::new(redundancy, width);
                if rotten.len() > bench.vdev.tolerates() {
                    continue;
                }
                bench.vdev.write(9, &written).expect("all disks are there");
                let image = bench.image();
                for place in &rotten {
                    let end = (image[*place].len() as u64).saturating_sub(DATA_START) / SECTOR_BYTES as u64;
                    bench.rot(*place, 9 / width as u64..end);
                }
                let holders = holders(redundancy, width, sectors);
                let mended: Vec<usize> =
                    rotten.iter().copied().filter(|place| holders.contains(place)).collect();
                let read = bench.vdev.verify(9, sectors, &matches);
                assert_eq!(read, Ok(Read { bytes: written.clone(), mended: mended.clone() }));
                for (place, leaf) in bench.vdev.leaves().iter().enumerate() {
                    assert_eq!(leaf.counts().checksum, u64::from(mended.contains(&place)), "disk {place}");
                }
                let again = bench.vdev.verify(9, sectors, &matches).expect("it is whole");
                assert_eq!(again.mended, [], "{redundancy:?} {rotten:?}: one pass mends all");
            }
        }
    }
}

#[test]
fn a_plain_read_mends_what_it_meets() {
    let bench = Bench::new(raidz(5, 2), 5);
    let written = record(9, 2);
    bench.vdev.write(0, &written).expect("all disks are there");
    // 9 sectors in 3 columns from disk 2 on; parity is on disks 0 and 1.
    bench.rot(3, 1..2);
    let read = bench.vdev.read(0, 9, &|bytes| bytes == written);
    assert_eq!(read, Ok(Read { bytes: written.clone(), mended: vec![3] }));
    assert_eq!(bench.vdev.leaves()[3].counts(), Counts { checksum: 1, mended: 1, ..Counts::default() });
    bench.rot(0, 0..1);
    let read = bench.vdev.read(0, 9, &|bytes| bytes == written).expect("data is whole");
    assert_eq!(read.mended, [], "parity is read when it is needed, or verified");
    assert_eq!(bench.vdev.verify(0, 9, &|bytes| bytes == written).expect("data is whole").mended, [0]);
}

#[test]
fn what_is_hit_beyond_the_parity_is_damaged_and_its_neighbours_are_not() {
    let mut bench = Bench::new(raidz(4, 1), 4);
    let records: Vec<(u64, Vec<u8>)> = (0..4).map(|n| (n * 12, record(9, n))).collect();
    for (first, bytes) in &records {
        bench.vdev.write(*first, bytes).expect("all disks are there");
    }
    // One disk removed, another rotten where the second record lies.
    bench.lose(&[2]);
    bench.rot(1, 4..5);
    for (index, (first, written)) in records.iter().enumerate() {
        let read = bench.vdev.read(*first, 9, &|bytes| bytes == written);
        if index == 1 {
            assert_eq!(read, Err(Damaged { first: 12 }));
        } else {
            assert_eq!(read.map(|read| read.bytes), Ok(written.clone()));
        }
    }
}

#[test]
fn a_disk_that_fails_to_write_is_told_and_too_many_are_refused() {
    let mut bench = Bench::new(raidz(4, 1), 4);
    bench.lose(&[2]);
    assert_eq!(bench.vdev.write(0, &record(6, 1)), Ok(vec![2]));
    bench.lose(&[1, 2]);
    assert_eq!(bench.vdev.write(0, &record(6, 1)), Err(NotWritten { first: 0, missed: vec![1, 2] }));
    assert_eq!(bench.vdev.sync(), [], "a place without a disk has nothing to lose");
}

proptest! {
    /// Random bytes written over any of the disks of some records: each answers what was written, or that it is damaged.
    #[test]
    fn never_wrong_bytes(
        layout in 0..layouts().len(),
        records in prop::collection::vec(1_u32..20, 1..6),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_u8..), 0..12),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..2),
    ) {
        let (redundancy, width) = layouts()[layout];
        let mut bench = Bench::new(redundancy, width);
        let mut first = 0;
        let mut places = Vec::new();
        for (n, sectors) in records.iter().enumerate() {
            let bytes = record(*sectors, n as u64);
            bench.vdev.write(first, &bytes).expect("all disks are there");
            places.push((first, *sectors, bytes));
            first += bench.vdev.redundancy().allocated(*sectors);
        }
        let mut lost: Vec<usize> = lost.iter().map(|index| index.index(width)).collect();
        lost.sort_unstable();
        lost.dedup();
        bench.lose(&lost);
        let mut hit: Vec<usize> = Vec::new();
        for (place, at, mask) in hits {
            let place = place.index(width);
            let len = bench.disk.contents(&path(place)).expect("there is a disk").len() as u64;
            if len > DATA_START {
                let at = DATA_START + at.index((len - DATA_START) as usize) as u64;
                bench.disk.rot(&path(place), at, mask).expect("there is a byte");
                hit.push(place);
            }
        }
        hit.retain(|place| !lost.contains(place));
        hit.sort_unstable();
        hit.dedup();
        for (first, sectors, written) in &places {
            let matches = |bytes: &[u8]| bytes == written;
            match bench.vdev.read(*first, *sectors, &matches) {
                Ok(read) => prop_assert_eq!(&read.bytes, written),
                Err(damaged) => {
                    prop_assert_eq!(damaged, Damaged { first: *first });
                    prop_assert!(hit.len() + lost.len() > bench.vdev.tolerates(), "it could be mended");
                }
            }
        }
    }
}
