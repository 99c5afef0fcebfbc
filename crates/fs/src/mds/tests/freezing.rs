//! Everything stands still for a snapshot, and snapshots are served.

use std::time::Duration;

use super::world::*;
use crate::core::{Errno, Ino, SessionId};
use crate::mds::FreezeError;
use crate::wire::mds::{Ask, DataLease, Held, Op, Take};

#[test]
fn what_is_held_back_is_written_and_then_changes_wait() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let made = a.change(make("a", file(true)));
    let ino = attr(&made).ino;
    assert_eq!(granted(&made, ino).data, DataLease::Write);
    let mut callbacks = a.callbacks();
    std::thread::scope(|scope| {
        let freezing = scope.spawn(|| world.mds().freeze(LONG));
        // It may go on reading what it has written.
        callbacks.give(ino, &Take::Data(DataLease::Read));
        assert_eq!(freezing.join().expect("no panic"), Ok(()));
    });
    assert!(world.is_synced());
    assert_eq!(world.mds().freeze(LONG), Err(FreezeError::Frozen));
    let change = b.change_later(make("b", file(false)));
    let look = a.later(Op::Ask(Ask::Getattr { ino }));
    // Sessions live on.
    assert_eq!(done(&a.call(Op::Ping)), Ok(()));
    assert!(change.waits() && look.waits());
    assert!(world.mds().thaw());
    callbacks.give(Ino::ROOT, &Take::Name("b".into()));
    assert_eq!(done(&change.reply()), Ok(()));
    assert_eq!(done(&look.reply()), Ok(()));
    assert!(!world.mds().thaw(), "nothing stood still");
}

#[test]
fn it_does_not_stand_still_longer_than_it_should() {
    let world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let made = a.change(make("a", file(true)));
    assert_eq!(granted(&made, attr(&made).ino).data, DataLease::Write);
    // Nobody gives that back.
    let short = Duration::from_millis(300);
    assert_eq!(world.mds().freeze(short), Err(FreezeError::TooLong(short)));
    assert_eq!(done(&a.change(make("b", file(false)))), Ok(()));
    a.drop_leases(attr(&made).ino);
    assert_eq!(world.mds().freeze(short), Ok(()));
    // Who should end it has died.
    assert_eq!(done(&a.change(make("c", file(false)))), Ok(()));
    assert!(!world.mds().thaw(), "it did not last");
}

#[test]
fn after_a_start_those_who_hold_something_back_are_waited_for() {
    let mut world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let made = a.change(make("a", file(true)));
    let (ino, held) = (attr(&made).ino, granted(&made, attr(&made).ino));
    world.kill();
    world.start(PATIENT);
    std::thread::scope(|scope| {
        let freezing = scope.spawn(|| world.mds().freeze(LONG));
        a.disconnect();
        assert!(a.hello(&[Held { ino, leases: held, open: true }], &[]).resumed);
        a.callbacks().give(ino, &Take::Data(DataLease::Read));
        assert_eq!(freezing.join().expect("no panic"), Ok(()));
    });
    assert!(world.mds().thaw());
}

#[test]
fn a_snapshot_is_looked_at_and_not_changed() {
    let mut world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let ino = a.file("a");
    world.kill();
    world.start_snapshot(PATIENT, "scratch@noon", true);
    assert_eq!(world.mds().fs(), "scratch@noon");
    // Who had it mounted is neither waited for, nor known.
    let mut late = world.silent_client(1);
    late.fs = "scratch@noon".into();
    assert!(!late.hello(&[], &[]).resumed);
    let found = late.lookup("a");
    assert_eq!(attr(&found).ino, ino);
    assert_eq!(granted(&late.open(ino, false), ino).data, DataLease::Read);
    assert_eq!(done(&late.change(unlink("a"))), Err(Errno::EROFS));
    assert_eq!(done(&late.change(make("b", file(false)))), Err(Errno::EROFS));
    // Who has the snapshot mounted is waited for.
    world.kill();
    world.start_snapshot(PATIENT, "scratch@noon", false);
    late.disconnect();
    assert!(late.hello(&[], &[]).resumed);
    assert_eq!(attr(&late.lookup("a")).ino, ino);
    assert_eq!(world.mds().sessions(), [(SessionId(1), "node1".to_owned())]);
}
