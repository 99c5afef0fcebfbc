//! Where records may go: the maps of all vdevs together.
//!
//! **What is freed** by a transaction group is free in the maps that this group writes, and is given out again only when it is committed
//! ([`Allocator::committed`]): until then the tree before it still leads there. **Slots of the intent log** are taken here and free in
//! the maps: the root leads to the log, and what is claimed for it is known again when the pool is opened. **What is allocated early**, for
//! the group that is open while another one is written, is free in the maps of that one.
//!
//! The end of each vdev is kept for nodes, so that there is always room to delete something.

use std::collections::BTreeMap;

use super::space::{Map, NotTaken, SECTORS};
use crate::format::{Place, VdevId};
use crate::vdev::Redundancy;

/// So much of a vdev is for nodes only.
const RESERVE_PART: u64 = 32;
/// Records that follow one another go to the same vdev, up to so many sectors.
const TURN_SECTORS: u64 = 256;
/// Fixed places of a map.
const MAP_PLACES: u64 = 2;

/// What space is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Bytes of objects, and the intent log.
    Data,
    /// What is needed to commit: it may also go where data may not.
    Node,
}

#[derive(Clone, Debug)]
struct Stretch {
    map: Map,
    /// What the transaction group that is being written frees: first and length of runs, in the order in which they came.
    freed: Vec<(u32, u32)>,
    /// Something is otherwise than in the newest map on the disks.
    changed: bool,
    /// In which of the two places the newest committed map is.
    newest: usize,
    /// There is no run of so many sectors.
    longest_below: u32,
}

/// The maps of a vdev.
#[derive(Clone, Debug)]
pub struct VdevSpace {
    id: VdevId,
    redundancy: Redundancy,
    sectors: u64,
    stretches: Vec<Stretch>,
    /// Where the next record is looked for.
    cursor: u64,
}

/// A map that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedMap {
    /// Of which vdev.
    pub vdev: VdevId,
    /// Of which of its stretches.
    pub stretch: u64,
    /// Where it is to be written: not where the newest one is.
    pub sector: u64,
    /// What it says.
    pub map: Map,
}

/// Space of a pool, in sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceCounts {
    /// What records and nodes may take.
    pub total: u64,
    /// What of it nothing has.
    pub free: u64,
    /// What of that is kept for nodes.
    pub reserved: u64,
}

impl VdevSpace {
    /// A vdev in which nothing is yet.
    pub fn new(id: VdevId, redundancy: Redundancy, sectors: u64) -> VdevSpace {
        let count = sectors.div_ceil(SECTORS.into());
        let maps = (0..count).map(|stretch| {
            let mut map = Map::new(stretch_sectors(sectors, stretch));
            let claimed = map.claim(0, map_sectors(redundancy).min(map.free_sectors()));
            debug_assert!(claimed, "a new map is free");
            (map, 1)
        });
        VdevSpace::with(id, redundancy, sectors, maps.collect(), true)
    }

    /// A vdev whose maps were read, each with the place where it was.
    pub fn read(id: VdevId, redundancy: Redundancy, sectors: u64, maps: Vec<(Map, usize)>) -> VdevSpace {
        VdevSpace::with(id, redundancy, sectors, maps, false)
    }

    fn with(
        id: VdevId,
        redundancy: Redundancy,
        sectors: u64,
        maps: Vec<(Map, usize)>,
        changed: bool,
    ) -> VdevSpace {
        let stretch =
            |(map, newest)| Stretch { map, freed: Vec::new(), changed, newest, longest_below: u32::MAX };
        VdevSpace { id, redundancy, sectors, stretches: maps.into_iter().map(stretch).collect(), cursor: 0 }
    }

    /// How many maps a vdev has.
    pub fn stretches(sectors: u64) -> u64 {
        sectors.div_ceil(SECTORS.into())
    }

    /// Where a map lies, in sectors of the vdev.
    pub fn map_sector(redundancy: Redundancy, stretch: u64, place: usize) -> u64 {
        stretch * u64::from(SECTORS) + place as u64 * redundancy.allocated(1)
    }

    /// The first sector that is for nodes only.
    fn reserve_from(&self) -> u64 {
        self.sectors - self.sectors / RESERVE_PART
    }

    fn allocate(&mut self, purpose: Purpose, sectors: u32) -> Option<Place> {
        let count = self.stretches.len() as u64;
        let first_stretch = self.cursor / u64::from(SECTORS);
        let found = (0..=count).find_map(|turn| {
            let stretch = (first_stretch + turn) % count;
            let from = if turn == 0 { (self.cursor % u64::from(SECTORS)) as u32 } else { 0 };
            self.allocate_in(purpose, stretch, sectors, from)
        })?;
        if found < self.reserve_from() {
            self.cursor = found + u64::from(sectors);
        }
        Some(Place { vdev: self.id, sector: found })
    }

    fn allocate_in(&mut self, purpose: Purpose, index: u64, sectors: u32, from: u32) -> Option<u64> {
        let begin = index * u64::from(SECTORS);
        let reserve_from = self.reserve_from();
        let stretch = &mut self.stretches[index as usize];
        if sectors >= stretch.longest_below || (purpose == Purpose::Data && begin >= reserve_from) {
            return None;
        }
        let Some(mut first) = stretch.map.allocate(sectors, from) else {
            stretch.longest_below = stretch.longest_below.min(sectors);
            return None;
        };
        let reaches = |first: u32| begin + u64::from(first) + u64::from(sectors) > reserve_from;
        if purpose == Purpose::Data && reaches(first) {
            let given_back = stretch.map.free(first, sectors);
            debug_assert_eq!(given_back, Ok(()), "it was just taken");
            first = stretch.map.allocate(sectors, 0)?;
            if reaches(first) {
                let given_back = stretch.map.free(first, sectors);
                debug_assert_eq!(given_back, Ok(()), "it was just taken");
                return None;
            }
        }
        stretch.changed = true;
        Some(begin + u64::from(first))
    }

    fn stretch_at(&mut self, sector: u64, sectors: u64) -> Option<(&mut Stretch, u32, u32)> {
        let (index, first) = (sector / u64::from(SECTORS), (sector % u64::from(SECTORS)) as u32);
        let stretch = self.stretches.get_mut(usize::try_from(index).ok()?)?;
        Some((stretch, first, u32::try_from(sectors).ok()?))
    }
}

/// Sectors at the beginning of a stretch that its maps take.
fn map_sectors(redundancy: Redundancy) -> u32 {
    (MAP_PLACES * redundancy.allocated(1)) as u32
}

fn stretch_sectors(sectors: u64, stretch: u64) -> u32 {
    (sectors - stretch * u64::from(SECTORS)).min(SECTORS.into()) as u32
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    vdevs: Vec<VdevSpace>,
    /// Whose turn it is, and for how many sectors more.
    turn: (usize, u64),
    /// Slots of the intent log, with the sectors they take.
    slots: Vec<(Place, u64)>,
    /// What was allocated for the group that is open, with the sectors that it takes.
    early: BTreeMap<Place, u64>,
}

impl Allocator {
    /// The maps of these vdevs.
    pub fn new(vdevs: Vec<VdevSpace>) -> Allocator {
        Allocator { vdevs, turn: (0, TURN_SECTORS), slots: Vec::new(), early: BTreeMap::new() }
    }

    /// One more vdev, in which nothing is yet.
    pub fn add(&mut self, vdev: VdevSpace) {
        self.vdevs.push(vdev);
    }

    /// Room for a record of so many sectors; `None` when no vdev has a run that is long enough.
    pub fn allocate(&mut self, purpose: Purpose, sectors: u32) -> Option<Place> {
        self.allocate_besides(purpose, sectors, &[])
    }

    /// The same, on a vdev that has none of `others` if there is one with room.
    pub fn allocate_besides(&mut self, purpose: Purpose, sectors: u32, others: &[Place]) -> Option<Place> {
        let count = self.vdevs.len();
        let is_other = |vdev: &VdevSpace| others.iter().any(|place| place.vdev == vdev.id);
        let mut order: Vec<usize> = (0..count).map(|n| (self.turn.0 + n) % count).collect();
        order.sort_by_key(|index| is_other(&self.vdevs[*index]));
        let purposes: &[Purpose] = match purpose {
            Purpose::Data => &[Purpose::Data],
            Purpose::Node => &[Purpose::Data, Purpose::Node],
        };
        for purpose in purposes {
            for index in &order {
                let vdev = &mut self.vdevs[*index];
                let taken = vdev.redundancy.allocated(sectors);
                if let Some(place) = vdev.allocate(*purpose, u32::try_from(taken).ok()?) {
                    self.took(*index, taken);
                    return Some(place);
                }
            }
        }
        None
    }

    fn took(&mut self, index: usize, sectors: u64) {
        let left = if index == self.turn.0 { self.turn.1 } else { TURN_SECTORS };
        self.turn = match left.checked_sub(sectors) {
            Some(left) if left > 0 => (index, left),
            _ => ((index + 1) % self.vdevs.len(), TURN_SECTORS),
        };
    }

    /// Room for a record of the group that is open; and what it takes, in sectors of its vdev.
    pub fn allocate_early(&mut self, sectors: u32) -> Option<(Place, u64)> {
        let place = self.allocate(Purpose::Data, sectors)?;
        let taken = self.allocated(place.vdev, sectors);
        self.early.insert(place, taken);
        Some((place, taken))
    }

    /// Takes what a record of the group that is open is known to lie in; what it takes, if it was free.
    pub fn claim_early(&mut self, place: Place, sectors: u32) -> Option<u64> {
        let taken = self.claim(place, sectors)?;
        self.early.insert(place, taken);
        let (stretch, ..) = self.vdev(place.vdev)?.stretch_at(place.sector, taken)?;
        // The map on the disks does not have it, whatever else is written there.
        stretch.changed = true;
        Some(taken)
    }

    /// Gives back at once what was allocated early, and nothing leads to.
    pub fn unallocate_early(&mut self, place: Place) {
        if let Some(taken) = self.early.remove(&place) {
            let given_back = self.give_back(place, taken);
            debug_assert_eq!(given_back, Ok(()), "it was taken");
        }
    }

    /// The group that was open is to be written: what was allocated for it is in the maps from now on.
    pub fn close_early(&mut self) {
        self.early.clear();
    }

    /// What is allocated early, in sectors.
    pub fn early_sectors(&self) -> u64 {
        self.early.values().sum()
    }

    /// What is allocated early.
    pub fn early(&self) -> &BTreeMap<Place, u64> {
        &self.early
    }

    /// Room for a slot of the intent log; the sectors of its vdev are given back with [`Allocator::free_slot`].
    pub fn allocate_slot(&mut self, sectors: u32) -> Option<Place> {
        let place = self.allocate(Purpose::Data, sectors)?;
        self.slots.push((place, self.allocated(place.vdev, sectors)));
        Some(place)
    }

    /// Takes a slot that the log is known to lie in; whether it was free.
    pub fn claim_slot(&mut self, place: Place, sectors: u32) -> bool {
        let claimed = self.claim(place, sectors);
        self.slots.extend(claimed.map(|taken| (place, taken)));
        claimed.is_some()
    }

    fn claim(&mut self, place: Place, sectors: u32) -> Option<u64> {
        let taken = self.allocated(place.vdev, sectors);
        let (stretch, first, sectors) = self.vdev(place.vdev)?.stretch_at(place.sector, taken)?;
        stretch.longest_below = u32::MAX;
        stretch.map.claim(first, sectors).then_some(taken)
    }

    /// Gives a slot back at once: nothing leads there any more.
    pub fn free_slot(&mut self, place: Place) -> Result<(), NotTaken> {
        let Some(index) = self.slots.iter().position(|(slot, _)| *slot == place) else { return Ok(()) };
        let (_, taken) = self.slots.swap_remove(index);
        self.give_back(place, taken)
    }

    fn give_back(&mut self, place: Place, taken: u64) -> Result<(), NotTaken> {
        let Some((stretch, first, sectors)) =
            self.vdev(place.vdev).and_then(|vdev| vdev.stretch_at(place.sector, taken))
        else {
            return Ok(());
        };
        stretch.longest_below = u32::MAX;
        stretch.map.free(first, sectors)
    }

    /// The group that is being written does not need this any more.
    pub fn free(&mut self, place: Place, sectors: u32) -> Result<(), NotTaken> {
        let taken = self.allocated(place.vdev, sectors);
        let not_taken = NotTaken { first: (place.sector % u64::from(SECTORS)) as u32, sectors };
        let (stretch, first, sectors) =
            self.vdev(place.vdev).and_then(|vdev| vdev.stretch_at(place.sector, taken)).ok_or(not_taken)?;
        match stretch.freed.last_mut() {
            // Much is freed in the order in which it lies.
            Some((begin, length)) if *begin + *length == first => *length += sectors,
            _ => stretch.freed.push((first, sectors)),
        }
        stretch.changed = true;
        Ok(())
    }

    /// The maps to be written: as they are when the group is committed.
    pub fn changed_maps(&self) -> Result<Vec<ChangedMap>, NotTaken> {
        let mut maps = Vec::new();
        for vdev in &self.vdevs {
            for (index, stretch) in vdev.stretches.iter().enumerate().filter(|(_, stretch)| stretch.changed) {
                let mut map = stretch.map.clone();
                let begin = index as u64 * u64::from(SECTORS);
                let (first, end) = (
                    Place { vdev: vdev.id, sector: begin },
                    Place { vdev: vdev.id, sector: begin + u64::from(SECTORS) },
                );
                let slots = self.slots.iter().filter(|(slot, _)| (first..end).contains(slot));
                let slots = slots.map(|(slot, taken)| (*slot, *taken));
                let early = self.early.range(first..end).map(|(place, taken)| (*place, *taken));
                let others =
                    slots.chain(early).map(|(place, taken)| ((place.sector - begin) as u32, taken as u32));
                for (first, sectors) in stretch.freed.iter().copied().chain(others) {
                    map.free(first, sectors)?;
                }
                let sector = VdevSpace::map_sector(vdev.redundancy, index as u64, 1 - stretch.newest);
                maps.push(ChangedMap { vdev: vdev.id, stretch: index as u64, sector, map });
            }
        }
        Ok(maps)
    }

    /// All maps are written with the next group.
    pub fn change_all_maps(&mut self) {
        for stretch in self.vdevs.iter_mut().flat_map(|vdev| &mut vdev.stretches) {
            stretch.changed = true;
        }
    }

    /// The maps of [`Allocator::changed_maps`] are the newest now, and what was freed may be given out. **Must hold:** nothing
    /// was allocated or freed in between except slots, and early.
    pub fn committed(&mut self, maps: &[ChangedMap]) -> Result<(), NotTaken> {
        for map in maps {
            let Some(vdev) = self.vdev(map.vdev) else { continue };
            let stretch = &mut vdev.stretches[map.stretch as usize];
            stretch.changed = false;
            stretch.newest = 1 - stretch.newest;
            stretch.longest_below = u32::MAX;
            for (first, sectors) in std::mem::take(&mut stretch.freed) {
                stretch.map.free(first, sectors)?;
            }
        }
        // The maps do not have it yet.
        let early: Vec<(Place, u64)> = self.early.iter().map(|(place, taken)| (*place, *taken)).collect();
        for (place, taken) in early {
            if let Some((stretch, ..)) =
                self.vdev(place.vdev).and_then(|vdev| vdev.stretch_at(place.sector, taken))
            {
                stretch.changed = true;
            }
        }
        Ok(())
    }

    /// What there is, and what of it is free, without what the group that is being written frees.
    pub fn counts(&self) -> SpaceCounts {
        let mut counts = SpaceCounts::default();
        for vdev in &self.vdevs {
            let maps = vdev.stretches.len() as u64 * u64::from(map_sectors(vdev.redundancy));
            counts.total += vdev.sectors.saturating_sub(maps);
            counts.free +=
                vdev.stretches.iter().map(|stretch| u64::from(stretch.map.free_sectors())).sum::<u64>();
            counts.reserved += vdev.sectors / RESERVE_PART;
        }
        counts
    }

    /// The most that a record of so many sectors takes on any vdev.
    pub fn allocated_most(&self, sectors: u32) -> u64 {
        self.vdevs.iter().map(|vdev| vdev.redundancy.allocated(sectors)).max().unwrap_or(0)
    }

    /// What a record of so many sectors takes on a vdev.
    pub fn allocated(&self, vdev: VdevId, sectors: u32) -> u64 {
        let vdev = self.vdevs.iter().find(|space| space.id == vdev);
        vdev.map_or(0, |space| space.redundancy.allocated(sectors))
    }

    /// What is taken, without the maps and the log: first sector and length of each run.
    pub fn taken(&self) -> Vec<(Place, u64)> {
        let mut runs = Vec::new();
        for vdev in &self.vdevs {
            for (index, stretch) in vdev.stretches.iter().enumerate() {
                let begin = index as u64 * u64::from(SECTORS);
                let own = map_sectors(vdev.redundancy);
                let end = stretch_sectors(vdev.sectors, index as u64);
                let inside = stretch.map.taken().filter_map(move |(first, sectors)| {
                    let (from, to) = (first.max(own), (first + sectors).min(end));
                    (from < to).then(|| (begin + u64::from(from), u64::from(to - from)))
                });
                runs.extend(inside.map(|(sector, len)| (Place { vdev: vdev.id, sector }, len)));
            }
        }
        runs
    }

    /// What the slots of the log take, in sectors.
    pub fn slot_sectors(&self) -> u64 {
        self.slots.iter().map(|(_, taken)| taken).sum()
    }

    /// The slots of the log.
    pub fn slots(&self) -> &[(Place, u64)] {
        &self.slots
    }

    fn vdev(&mut self, id: VdevId) -> Option<&mut VdevSpace> {
        self.vdevs.iter_mut().find(|vdev| vdev.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u64 = 3200;

    fn one() -> Allocator {
        Allocator::new(vec![VdevSpace::new(VdevId(0), Redundancy::Mirror, SMALL)])
    }

    fn commit(allocator: &mut Allocator) -> Vec<ChangedMap> {
        let maps = allocator.changed_maps().expect("what is freed was taken");
        allocator.committed(&maps).expect("what is freed was taken");
        maps
    }

    #[test]
    fn what_is_freed_is_given_out_after_the_commit() {
        let mut allocator = one();
        let mut taken = Vec::new();
        while let Some(place) = allocator.allocate(Purpose::Data, 32) {
            taken.push(place);
        }
        assert_eq!(taken.len() as u64, (SMALL - SMALL / RESERVE_PART - 2) / 32);
        allocator.free(taken[5], 32).expect("it is taken");
        assert_eq!(allocator.allocate(Purpose::Data, 32), None);
        let maps = commit(&mut allocator);
        assert_eq!(maps[0].sector, 0, "new maps are written to the first place");
        assert_eq!(u64::from(maps[0].map.free_sectors()), SMALL - 2 - 32 * (taken.len() as u64 - 1));
        assert_eq!(allocator.allocate(Purpose::Data, 32), Some(taken[5]));
        assert_eq!(commit(&mut allocator)[0].sector, 1, "and then to the other");
        for place in [taken[7], taken[8], taken[6]] {
            allocator.free(place, 32).expect("it is taken");
        }
        assert_eq!(allocator.vdevs[0].stretches[0].freed.len(), 2, "what follows one another is one run");
        commit(&mut allocator);
        assert_eq!(allocator.allocate(Purpose::Data, 96), Some(taken[6]), "all three are free");
        commit(&mut allocator);
        assert!(allocator.changed_maps().expect("nothing is freed").is_empty());
    }

    #[test]
    fn nodes_have_room_when_data_has_not() {
        let mut allocator = one();
        while allocator.allocate(Purpose::Data, 1).is_some() {}
        let place = allocator.allocate(Purpose::Node, 8).expect("that is what the reserve is for");
        assert!(place.sector >= SMALL - SMALL / RESERVE_PART);
    }

    #[test]
    fn a_slot_is_not_in_the_maps() {
        let mut allocator = one();
        let slot = allocator.allocate_slot(64).expect("there is room");
        let other = allocator.allocate(Purpose::Data, 1).expect("there is room");
        let maps = commit(&mut allocator);
        let own = maps[0].map.taken().map(|(_, sectors)| sectors).sum::<u32>();
        assert_eq!(
            u64::from(own),
            3 + u64::from(SECTORS) - SMALL,
            "two maps, one sector, and what is not there"
        );
        assert_ne!(slot, other);
        // The pool is opened again.
        let space = VdevSpace::read(VdevId(0), Redundancy::Mirror, SMALL, vec![(maps[0].map.clone(), 0)]);
        let mut again = Allocator::new(vec![space]);
        assert!(again.claim_slot(slot, 64));
        assert!(!again.claim_slot(slot, 64), "it is taken now");
        assert_eq!(again.free_slot(slot), Ok(()));
    }

    #[test]
    fn records_go_round_the_vdevs_and_copies_to_different_ones() {
        let space = |id| VdevSpace::new(VdevId(id), Redundancy::Mirror, SMALL);
        let mut allocator = Allocator::new(vec![space(0), space(1)]);
        let vdevs: Vec<u32> =
            (0..32).map(|_| allocator.allocate(Purpose::Data, 32).expect("there is room").vdev.0).collect();
        assert_eq!(vdevs[..8], [0; 8]);
        assert_eq!(vdevs[8..16], [1; 8]);
        let first = allocator.allocate(Purpose::Node, 1).expect("there is room");
        let second = allocator.allocate_besides(Purpose::Node, 1, &[first]).expect("there is room");
        assert_ne!(first.vdev, second.vdev);
    }

    /// What was allocated for the open group is not in the maps of the one before, and in its own wherever it lies.
    #[test]
    fn what_is_allocated_or_claimed_early_is_in_the_maps_of_its_own_group() {
        let sectors = 2 * u64::from(SECTORS) + 1000;
        let mut space = Allocator::new(vec![VdevSpace::new(VdevId(0), Redundancy::Mirror, sectors)]);
        let maps = space.changed_maps().expect("all is free");
        space.committed(&maps).expect("nothing came in between");
        assert_eq!(space.changed_maps().map(|maps| maps.len()), Ok(0), "nothing has changed since");
        let second = Place { vdev: VdevId(0), sector: u64::from(SECTORS) + 500 };
        assert_eq!(space.claim_early(second, 8), Some(8));
        assert_eq!(space.claim_early(second, 8), None, "it is taken");
        let taken = |maps: &[ChangedMap]| {
            maps.iter().find(|map| map.stretch == 1).map(|map| map.map.taken().any(|(first, _)| first == 500))
        };
        let maps = space.changed_maps().expect("it is taken");
        assert_eq!(taken(&maps), Some(false), "the group before does not have it");
        space.committed(&maps).expect("nothing came in between");
        space.close_early();
        let maps = space.changed_maps().expect("it is taken");
        assert_eq!(taken(&maps), Some(true), "its own has it");
        let (early, _) = space.allocate_early(8).expect("there is room");
        space.unallocate_early(early);
        assert_eq!(space.early_sectors(), 0);
    }
}
