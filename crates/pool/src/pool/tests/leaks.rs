//! What takes space is exactly what something leads to.

use super::super::snapshots::Shared;
use super::*;
use crate::core::tree::Load;
use crate::format::{Extent, Kind, Pointer, is_record};

/// What is taken is exactly what the root leads to, and the log.
pub(super) fn nothing_leaks(pool: &Pool) {
    let shared = &pool.shared;
    let mut reached: BTreeSet<(Place, u64)> = BTreeSet::new();
    let space = shared.store.space().clone();
    let mut note = |place: Place, sectors: u32| {
        for sector in 0..space.allocated(place.vdev, sectors) {
            let fresh = reached.insert((Place { sector: place.sector + sector, ..place }, 1));
            assert!(fresh, "{place:?} is used twice");
        }
    };
    for place in locked(&shared.root_places).iter() {
        note(*place, 1);
    }
    let roots = shared.roots();
    let tree = |root: Option<&Root>, objects: bool| {
        let mut pointers = Vec::new();
        if let Some(root) = root {
            gather(&shared.store, root, objects, &mut pointers);
        }
        pointers.iter().flat_map(Extent::of).collect::<Vec<Extent>>()
    };
    let mut extents: BTreeSet<Extent> = tree(roots.tree.as_ref(), false).into_iter().collect();
    for (id, dataset) in &roots.datasets {
        // What lists of what is dead are made of is nobody else's.
        let dead_nodes = tree(dataset.dead.as_ref(), false);
        assert!(dead_nodes.into_iter().all(|extent| extents.insert(extent)));
        let own: BTreeSet<Extent> = tree(dataset.root.as_ref(), true).into_iter().collect();
        let before = dataset.before.map(|before| &roots.datasets[&before]);
        let before: BTreeSet<Extent> =
            before.map_or_else(Vec::new, |before| tree(before.root.as_ref(), true)).into_iter().collect();
        let Shared { until, origin } = roots.shared_by(*id);
        let dead: BTreeSet<Extent> =
            before.difference(&own).copied().filter(|extent| extent.birth > origin).collect();
        assert_eq!(extents_of(&shared.store, dataset.dead.as_ref()), dead, "{}", dataset.name);
        assert!(own.difference(&before).all(|extent| extent.birth > until), "{}", dataset.name);
        extents.extend(own);
    }
    for extent in extents {
        note(extent.place, extent.sectors);
    }
    let early = space.early().iter().map(|(place, sectors)| (*place, *sectors));
    for (slot, sectors) in space.slots().iter().copied().chain(early) {
        for sector in 0..sectors {
            assert!(
                reached.insert((Place { sector: slot.sector + sector, ..slot }, 1)),
                "{slot:?} is used twice"
            );
        }
    }
    let taken = space.taken().into_iter().flat_map(|(place, len)| {
        (0..len).map(move |sector| (Place { sector: place.sector + sector, ..place }, 1))
    });
    assert_eq!(taken.collect::<BTreeSet<_>>(), reached);
}

/// What a list of what is dead has.
fn extents_of(store: &Store, dead: Option<&Root>) -> BTreeSet<Extent> {
    let (first, last) = Extent::keys();
    let mut reading = Reading(store);
    let entries = Tree::new(&mut reading, NODE_BYTES).scan(dead, first, last, usize::MAX);
    let entries = entries.expect("it can be read");
    entries.iter().map(|(key, value)| Extent::decode(key, value).expect("an extent")).collect()
}

fn gather(store: &Store, root: &Root, objects: bool, into: &mut Vec<Pointer>) {
    into.push(pointer_of(&root.place).expect("a pointer"));
    let node = Reading(store).load(&root.place).expect("it is whole");
    for (key, value) in node.entries.iter() {
        match root.level.checked_sub(1) {
            Some(level) => gather(store, &Root { level, place: value.to_vec() }, objects, into),
            None if objects && is_record(key) => {
                let pointer = pointer_of(value).expect("a pointer");
                assert_eq!(pointer.kind, Kind::Data);
                into.push(pointer);
            }
            None => {}
        }
    }
}
