//! Leases of one inode: who may go on, who waits, and what giving back waits for.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{Begin, Inode, Inodes, Known, Names, Need, Use};
use crate::client::data::Mode;
use crate::client::session::Stamp;
use crate::core::{Attr, Ino};
use crate::wire::mds::{DataLease, Grant, Leases};

const FILE: Ino = Ino(9);
const PAGES: Need = Need::Pages { offset: 4096, len: 100 };

fn stamp(seq: u64) -> Stamp {
    Stamp { seq, epoch: 1, ticket: 1 }
}

fn leased(inodes: &Inodes, data: DataLease, seq: u64) -> bool {
    let leases = Leases { meta: true, names: false, data };
    inodes.keep(&Grant { ino: FILE, leases }, stamp(seq), 1)
}

fn write_grant() -> Grant {
    Grant { ino: FILE, leases: Leases { data: DataLease::Write, ..Leases::default() } }
}

fn used(inode: &Arc<Inode>, need: Need) -> Use {
    match inode.begin(need) {
        Begin::Use(used) => used,
        Begin::Ask(_, want) => panic!("{need:?} asks for {want:?}"),
    }
}

fn asked(inode: &Arc<Inode>, need: Need) -> DataLease {
    match inode.begin(need) {
        Begin::Use(used) => panic!("{need:?} goes on with {used:?}"),
        Begin::Ask(_, want) => want,
    }
}

#[test]
fn a_lease_is_asked_for_when_it_does_not_suffice() {
    let inodes = Inodes::new();
    let inode = inodes.get(FILE);
    assert_eq!(asked(&inode, PAGES), DataLease::Read);
    assert_eq!(asked(&inode, Need::Write), DataLease::Write);
    assert!(leased(&inodes, DataLease::Read, 1));
    assert_eq!(used(&inode, PAGES).mode, Mode::Cached);
    assert_eq!(asked(&inode, Need::Write), DataLease::Write);
    assert!(leased(&inodes, DataLease::Direct, 1));
    assert_eq!(used(&inode, Need::Write).mode, Mode::Direct);
    assert_eq!(asked(&inode, Need::Append), DataLease::Write);
    assert_eq!(asked(&inode, PAGES), DataLease::Read, "pages are kept, and Direct keeps nothing");
    assert!(leased(&inodes, DataLease::Write, 1));
    assert_eq!(used(&inode, Need::Append).mode, Mode::Cached);
}

#[test]
fn who_shares_a_file_asks_for_what_can_be_shared() {
    let inode = Inodes::new().get(FILE);
    inode.state().shared = true;
    assert_eq!(asked(&inode, Need::Write), DataLease::Direct);
    assert_eq!(asked(&inode, Need::Append), DataLease::Write);
}

/// A mount that asked again at once, a thousand times while a release was on its way, told programs `EIO`.
#[test]
fn who_asks_while_a_lease_is_being_released_waits_for_that() {
    const PLENTY: Duration = Duration::from_secs(30);
    const MOMENT: Duration = Duration::from_millis(1);
    let inodes = Inodes::new();
    assert!(inodes.wait_released(FILE, Duration::ZERO), "nothing is being released");
    inodes.releasing(FILE);
    inodes.releasing(FILE);
    assert!(!inodes.wait_released(FILE, MOMENT));
    inodes.released(FILE, 7);
    assert!(!inodes.wait_released(FILE, MOMENT), "there were two");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            while !inodes.wait_released(FILE, PLENTY) {}
            inodes.keep(&write_grant(), Stamp { seq: 1, epoch: 1, ticket: 8 }, 1)
        });
        inodes.released(FILE, 8);
        assert!(waiting.join().expect("it does not panic"), "what is asked for from then on is kept");
    });
}

#[test]
fn a_grant_from_before_a_callback_is_not_kept() {
    let inodes = Inodes::new();
    inodes.revoked(FILE, 5);
    assert!(!leased(&inodes, DataLease::Write, 4));
    assert_eq!(asked(&inodes.get(FILE), Need::Write), DataLease::Write);
    assert!(leased(&inodes, DataLease::Write, 5));
    inodes.releasing(FILE);
    assert!(!leased(&inodes, DataLease::Write, 6), "it might be released by what is on its way");
    inodes.released(FILE, 7);
    assert!(!leased(&inodes, DataLease::Write, 6), "it was asked for before");
}

#[test]
fn giving_back_waits_for_who_writes() {
    let inodes = Inodes::new();
    let inode = inodes.get(FILE);
    leased(&inodes, DataLease::Write, 1);
    let writing = used(&inode, Need::Write);
    assert_eq!(inode.give(DataLease::Read), DataLease::Write);
    assert_eq!(inode.state().held().data, DataLease::Write, "it is claimed until nothing is left to write");
    let giver = {
        let inode = Arc::clone(&inode);
        thread::spawn(move || {
            inode.unused();
            inode.given()
        })
    };
    // Reading goes on under what is kept.
    assert_eq!(used(&inode, PAGES).mode, Mode::Cached);
    drop(writing);
    assert_eq!(giver.join().unwrap(), Ok(()));
    assert_eq!(inode.state().held().data, DataLease::Read);
}

#[test]
fn a_read_of_pages_never_waits_while_the_lease_is_given_back() {
    let inodes = Inodes::new();
    let inode = inodes.get(FILE);
    leased(&inodes, DataLease::Read, 1);
    drop(used(&inode, PAGES));
    assert!(inode.has_pages());
    inode.give(DataLease::None);
    inode.unused();
    inode.no_pages();
    // The kernel waits for the pages that this read has locked; giving back waits for the kernel.
    let late = used(&inode, PAGES);
    assert_eq!(late.mode, Mode::Direct, "nothing is kept of it");
    drop(late);
    assert_eq!(inode.given(), Err(vec![(4096, 100)]), "its pages are forgotten again");
    assert_eq!(inode.given(), Ok(()));
    assert_eq!(asked(&inode, PAGES), DataLease::Read);
}

#[test]
fn only_one_asks_at_a_time() {
    let inodes = Arc::new(Inodes::new());
    let inode = inodes.get(FILE);
    let Begin::Ask(asking, _) = inode.begin(PAGES) else { panic!("nothing is held") };
    let other = {
        let inode = Arc::clone(&inode);
        thread::spawn(move || used(&inode, PAGES).mode)
    };
    leased(&inodes, DataLease::Read, 1);
    drop(asking);
    assert_eq!(other.join().unwrap(), Mode::Cached, "it goes on with what the first was granted");
}

#[test]
fn what_a_mapping_changed_waits_for_no_lease() {
    let inodes = Inodes::new();
    let inode = inodes.get(FILE);
    assert!(inode.begin_mapped().is_none());
    leased(&inodes, DataLease::Write, 1);
    assert!(inode.begin_mapped().is_some());
    inode.give(DataLease::None);
    assert!(inode.begin_mapped().is_some(), "it is written before the lease is given back");
    assert_eq!(inode.given(), Ok(()));
    assert!(inode.begin_mapped().is_none());
}

#[test]
fn an_inode_goes_when_nobody_refers_to_it_and_nothing_is_held() {
    let inodes = Inodes::new();
    inodes.looked_up(FILE);
    inodes.looked_up(FILE);
    leased(&inodes, DataLease::Write, 1);
    assert!(inodes.forget(FILE, 1).is_none());
    let inode = inodes.forget(FILE, 1).expect("that were all");
    inodes.tidy(&inode);
    assert!(inodes.find(FILE).is_some(), "a lease is held");
    assert_eq!(inodes.held().len(), 1);
    assert_eq!(inode.state().give_up().data, DataLease::Write);
    inodes.tidy(&inode);
    assert!(inodes.find(FILE).is_none() && inodes.held().is_empty());
}

#[test]
fn the_data_lease_of_a_closed_file_is_given_back_unless_pages_are_kept() {
    let inodes = Inodes::new();
    let inode = inodes.get(FILE);
    leased(&inodes, DataLease::Write, 1);
    inode.state().opens = 1;
    assert_eq!(inode.state().give_up_data(), Leases::default(), "it is open");
    inode.state().opens = 0;
    assert_eq!(inode.state().give_up_data().data, DataLease::Write);
    leased(&inodes, DataLease::Read, 1);
    drop(used(&inode, PAGES));
    assert_eq!(inode.state().give_up_data(), Leases::default(), "the kernel has pages");
}

#[test]
fn a_file_that_was_opened_without_asking_is_told_with_an_acknowledgement() {
    let inode = Inodes::new().get(FILE);
    let mut state = inode.state();
    assert!(!state.tell_open());
    state.opens = 1;
    assert!(state.tell_open());
    assert_eq!(state.told, Some(false), "from now on the MDS has to hear that it is closed");
}

#[test]
fn names_are_known_only_under_the_lease() {
    let inode = Inodes::new().get(Ino(2));
    let mut state = inode.state();
    state.known = Some(Names::default());
    assert_eq!(state.find_name(b"a"), Known::Unknown);
    state.names = true;
    assert_eq!(state.find_name(b"a"), Known::Absent);
    state.add_name(b"a", Some(FILE));
    assert_eq!(state.find_name(b"a"), Known::There(FILE));
    state.add_name(b"a", None);
    assert_eq!(state.find_name(b"a"), Known::Unknown, "another mount has changed it");
}

#[test]
fn attributes_stay_uncertain_when_the_lease_comes_again_without_them() {
    let inodes = Inodes::new();
    let inode = inodes.get(FILE);
    leased(&inodes, DataLease::None, 1);
    inode.state().note_attr(&Attr::of_empty_file(FILE, 1), Some(0));
    assert!(inode.state().attr(0).is_some());
    inode.state().lose_meta();
    leased(&inodes, DataLease::None, 1);
    assert!(inode.state().attr(0).is_none());
    inode.state().note_attr(&Attr::of_empty_file(FILE, 2), Some(0));
    assert!(inode.state().attr(0).is_some());
}
