//! What the MDS does at the OSTs.

use super::world::*;
use crate::core::{Errno, Ino, ObjectId, OstIndex};
use crate::wire::mds::{Act, Answer, Ask, DataLease, Leases, Op, Take};
use crate::wire::oss;

/// Behind what is on the MDT.
const STRIPED: u64 = 1 << 20;

fn place(client: &mut Client, ino: Ino) -> (OstIndex, ObjectId) {
    let placed = client.change(Act::Place { ino, offset: STRIPED });
    let objects: Vec<_> = layout(&placed).objects().collect();
    assert_eq!(objects.len(), 1);
    objects[0]
}

/// A file that reaches into its object.
fn big_file(client: &mut Client, name: &str) -> (Ino, (OstIndex, ObjectId)) {
    let ino = client.file(name);
    let object = place(client, ino);
    let written = Act::Written { ino, size: 2 * STRIPED, mtime: None, blocks: None, kill_suid_sgid: false };
    assert_eq!(attr(&client.change(written)).size, 2 * STRIPED);
    client.drop_leases(ino);
    (ino, object)
}

/// Asks, and keeps nothing.
fn size_of(client: &mut Client, ino: Ino) -> u64 {
    let size = attr(&client.ask(Ask::Getattr { ino })).size;
    client.drop_leases(ino);
    size
}

/// Waits until the MDS knows that an OST is full.
fn see_full(client: &mut Client, ost: usize) {
    eventually("the full one is seen", || match client.ask(Ask::Statfs).outcome {
        Ok(Answer::Space { osts, .. }) => osts[ost].1.is_some_and(|space| space.available_bytes == 0),
        other => panic!("{other:?}"),
    });
}

#[test]
fn objects_go_where_there_is_room_and_come_when_an_ost_does() {
    let world = World::new(PATIENT, 2);
    let mut a = world.client(1);
    let ino = a.file("f");
    let placed = a.change_later(Act::Place { ino, offset: STRIPED });
    assert!(placed.waits(), "no OST answers yet");
    let first = world.oss(1);
    assert_eq!(layout(&placed.reply()).objects().map(|(ost, _)| ost).collect::<Vec<_>>(), [OstIndex(1)]);
    let _second = world.oss(0);
    eventually("both are there", || {
        let space = a.ask(Ask::Statfs).outcome;
        matches!(space, Ok(Answer::Space { osts, .. }) if osts.iter().all(|(_, space)| space.is_some()))
    });
    let osts: Vec<OstIndex> = (0..4)
        .map(|n| {
            let ino = a.file(&format!("f{n}"));
            place(&mut a, ino).0
        })
        .collect();
    assert_eq!(osts.iter().filter(|ost| **ost == OstIndex(0)).count(), 2, "{osts:?}");
    first.fill();
    see_full(&mut a, 1);
    for n in 4..8 {
        let ino = a.file(&format!("f{n}"));
        assert_eq!(place(&mut a, ino).0, OstIndex(0));
    }
}

#[test]
fn when_all_are_full_there_is_no_space() {
    let world = World::new(PATIENT, 1);
    let oss = world.oss(0);
    oss.fill();
    let mut a = world.client(1);
    see_full(&mut a, 0);
    let ino = a.file("f");
    assert_eq!(done(&a.change(Act::Place { ino, offset: STRIPED })), Err(Errno::ENOSPC));
}

#[test]
fn an_ost_that_drains_gets_nothing_new() {
    let mut world = World::new(PATIENT, 2);
    let _oss = [world.oss(0), world.oss(1)];
    world.osts[0].draining = true;
    world.mds().set_osts(&world.osts);
    let mut a = world.client(1);
    for n in 0..3 {
        let ino = a.file(&format!("f{n}"));
        assert_eq!(place(&mut a, ino).0, OstIndex(1));
    }
}

#[test]
fn objects_go_when_their_file_does() {
    let world = World::new(PATIENT, 1);
    let oss = world.oss(0);
    let mut a = world.client(1);
    let (_, (_, object)) = big_file(&mut a, "f");
    assert_eq!(done(&a.change(unlink("f"))), Ok(()));
    eventually("the object was destroyed", || oss.ops() == [oss::Op::Destroy { objects: vec![object] }]);
}

#[test]
fn a_cut_is_answered_when_the_ost_has_cut_also_if_it_was_away() {
    let world = World::new(PATIENT, 1);
    let oss = world.oss(0);
    let mut a = world.client(1);
    let mut b = world.client(2);
    let mut callbacks = a.callbacks();
    let (ino, (_, object)) = big_file(&mut a, "f");
    drop(oss);
    let cut = a.change_later(Act::Setattr {
        ino,
        set: crate::core::SetAttr { size: Some(STRIPED), ..crate::core::SetAttr::default() },
    });
    eventually("the MDT has cut", || size_of(&mut b, ino) == STRIPED);
    assert!(cut.waits());
    let opened = b.later(Op::Ask(Ask::Open { ino, write: true, data_max: 0 }));
    callbacks.give(ino, &Take::Meta);
    let opened = opened.reply();
    b.drop_leases(ino);
    assert_eq!(granted(&opened, ino).data, DataLease::None, "what is written now could be cut off");
    let lease = b.later(Op::Ask(Ask::Lease { ino, want: DataLease::Write }));
    assert!(lease.waits());
    let oss = world.oss(0);
    assert_eq!(attr(&cut.reply()).size, STRIPED);
    assert!(matches!(oss.ops()[0], oss::Op::Truncate { object: cut, .. } if cut == object));
    assert_eq!(granted(&lease.reply(), ino).data, DataLease::Write);
}

#[test]
fn a_cut_that_the_server_did_not_live_to_see_is_done_by_the_next() {
    let mut world = World::new(PATIENT, 1);
    let oss = world.oss(0);
    let mut a = world.client(1);
    let (ino, (_, object)) = big_file(&mut a, "f");
    drop(oss);
    let set = crate::core::SetAttr { size: Some(STRIPED), ..crate::core::SetAttr::default() };
    let change = a.change_of(Act::Setattr { ino, set });
    let cut = a.later(Op::Change(change.clone()));
    let mut b = world.client(2);
    eventually("the MDT has cut", || size_of(&mut b, ino) == STRIPED);
    b.call(Op::Bye);
    a.disconnect();
    world.kill();
    assert!(cut.outcome().is_err());
    world.start(PATIENT);
    assert!(a.hello(&[], &[]).resumed);
    let again = a.later(Op::Change(change));
    let lease = a.later(Op::Ask(Ask::Lease { ino, want: DataLease::Write }));
    assert!(again.waits() && lease.waits());
    let oss = world.oss(0);
    assert_eq!(attr(&again.reply()).size, STRIPED);
    assert!(
        matches!(oss.ops()[..], [oss::Op::Truncate { object: cut, .. }] if cut == object),
        "{:?}",
        oss.ops()
    );
    assert_eq!(granted(&lease.reply(), ino).data, DataLease::Write);
}

#[test]
fn an_evicted_writer_is_fenced_before_his_data_is_given_to_others() {
    let world = World::new(PATIENT, 1);
    let oss = world.oss(0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let (ino, (_, object)) = big_file(&mut a, "f");
    assert_eq!(granted(&a.open(ino, true), ino), Leases { data: DataLease::Write, ..META });
    drop(oss);
    assert!(world.mds().evict(a.session));
    assert_eq!(attr(&b.ask(Ask::Getattr { ino })).size, 2 * STRIPED, "what is on the MDT is free");
    let lease = b.later(Op::Ask(Ask::Lease { ino, want: DataLease::Read }));
    assert!(lease.waits());
    let oss = world.oss(0);
    assert_eq!(granted(&lease.reply(), ino).data, DataLease::Read);
    assert!(oss.has_fenced(a.session));
    let fence = oss::Op::Fence { session: a.session };
    let cut = |op: &oss::Op| matches!(op, oss::Op::Truncate { object: cut, .. } if *cut == object);
    let ops = oss.ops();
    assert!(ops.len() == 2 && ops[0] == fence && cut(&ops[1]), "{ops:?}");
}

#[test]
fn a_fence_that_the_server_did_not_live_to_see_is_put_up_by_the_next() {
    let mut world = World::new(PATIENT, 1);
    let oss = world.oss(0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let (ino, _) = big_file(&mut a, "f");
    let plain = a.file("plain");
    drop(oss);
    assert!(world.mds().evict(a.session));
    a.disconnect();
    b.disconnect();
    world.kill();
    world.start(PATIENT);
    assert!(b.hello(&[], &[]).resumed, "A is not waited for");
    assert_eq!(granted(&b.lease(plain, DataLease::Write), plain).data, DataLease::Write, "it has no objects");
    let lease = b.later(Op::Ask(Ask::Lease { ino, want: DataLease::Read }));
    assert!(lease.waits());
    assert!(!a.hello(&[], &[]).resumed);
    let oss = world.oss(0);
    assert_eq!(granted(&lease.reply(), ino).data, DataLease::Read);
    assert!(oss.has_fenced(a.session));
}

#[test]
fn a_long_list_is_worked_off_after_a_restart() {
    const FILES: usize = 300;
    let mut world = World::new(PATIENT, 2);
    let oss = [world.oss(0), world.oss(1)];
    let mut a = world.client(1);
    for n in 0..FILES {
        big_file(&mut a, &format!("f{n}"));
    }
    a.has_answers();
    drop(oss);
    for n in 0..FILES {
        assert_eq!(done(&a.change(unlink(&format!("f{n}")))), Ok(()));
    }
    a.disconnect();
    world.kill();
    world.start(PATIENT);
    let oss = [world.oss(0), world.oss(1)];
    let destroyed = || -> usize {
        let ops = oss.iter().flat_map(FakeOss::ops);
        ops.map(|op| if let oss::Op::Destroy { objects } = op { objects.len() } else { 0 }).sum()
    };
    eventually("all objects were destroyed", || destroyed() >= FILES);
    assert_eq!(destroyed(), FILES, "each once");
    eventually("the list is empty", || {
        world.mds().server.lock().mdt.todo(crate::core::namespace::TodoId(0), 1) == Ok(Vec::new())
    });
}
