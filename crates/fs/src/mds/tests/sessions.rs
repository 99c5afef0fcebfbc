//! Sessions that end, are cut off, or outlive the server.

use super::world::*;
use crate::core::changelog::Kind;
use crate::core::{Errno, Ino, SetAttr};
use crate::wire::mds::{Act, Ask, DataLease, Held, Leases, Make, Op, Take};

fn chmod(ino: Ino, mode: u16) -> Act {
    Act::Setattr { ino, set: SetAttr { mode: Some(mode), ..SetAttr::default() } }
}

#[test]
fn a_mute_session_is_evicted_and_nobody_waits_longer() {
    let world = World::new(STRICT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    let mut callbacks = b.callbacks();
    b.lookup("f");
    let changed = a.change_later(chmod(ino, 0o600));
    assert_eq!(callbacks.next().take, Take::Meta);
    // It lives, but does not answer; A pings while it waits.
    let mut changed = Some(changed);
    eventually("the change was made", || {
        a.call(Op::Ping);
        b.call(Op::Ping);
        let waits = changed.as_ref().is_some_and(Later::waits);
        waits || changed.take().is_some()
    });
    eventually("B was evicted", || {
        a.call(Op::Ping);
        done(&b.call(Op::Ping)) == Err(Errno::ESTALE)
    });
    assert_eq!(done(&b.lookup("f")), Err(Errno::ESTALE));
    assert_eq!(done(&b.change(chmod(ino, 0o777))), Err(Errno::ESTALE));
    assert!(callbacks.try_next().is_ok_and(|next| next.is_none()), "its stream has ended");
    assert!(!b.hello(&[], &[]).resumed);
    assert_eq!(done(&b.lookup("f")), Err(Errno::ESTALE), "the OSTs do not serve it: it comes as another one");
    let mut c = world.client(3);
    assert_eq!(attr(&c.lookup("f")).mode, 0o600);
}

#[test]
fn a_silent_session_is_evicted_with_its_open_files() {
    let world = World::new(STRICT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    b.open(ino, false);
    b.drop_leases(ino);
    a.change(unlink("f"));
    assert_eq!(attr(&a.ask(Ask::Getattr { ino })).nlink, 0);
    a.drop_leases(ino);
    eventually("the file went with its opener", || done(&a.ask(Ask::Getattr { ino })) == Err(Errno::ESTALE));
}

#[test]
fn a_new_stream_begins_with_what_is_outstanding() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    b.lookup("f");
    let mut first = b.callbacks();
    let changed = a.change_later(chmod(ino, 0o600));
    let callback = first.next();
    let mut second = b.callbacks();
    assert_eq!(second.next(), callback, "it may have been lost");
    assert!(first.try_next().is_ok_and(|next| next.is_none()), "a session has one stream");
    second.ack(&callback, false);
    assert_eq!(done(&changed.reply()), Ok(()));
}

#[test]
fn a_change_that_comes_again_is_done_once() {
    let mut world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let change = a.change_of(make("f", file(true)));
    let request = a.request(Op::Change(change.clone()));
    a.connection().send(&request, &[]).unwrap();
    // Nobody reads the answer.
    a.disconnect();
    assert!(a.hello(&[], &[]).resumed);
    let again = a.call(Op::Change(change.clone()));
    let ino = attr(&again).ino;
    assert_eq!(attr(&a.lookup("f")).ino, ino);
    let remove = a.change_of(unlink("f"));
    assert_eq!(done(&a.call(Op::Change(remove.clone()))), Ok(()));
    assert_eq!(done(&a.call(Op::Change(remove.clone()))), Ok(()), "and not ENOENT");
    a.disconnect();
    world.kill();
    world.start(PATIENT);
    assert!(a.hello(&[], &[]).resumed);
    assert_eq!(done(&a.call(Op::Change(remove))), Ok(()), "also after a restart");
    assert_eq!(attr(&a.call(Op::Change(change))).ino, ino);
    a.change(make("last", Make::Directory));
    let read = world.readers.wait_until(|read| read.entries.iter().any(|e| e.record.kind == Kind::Mkdir));
    let highest = read.entries.iter().map(|entry| entry.index).max();
    assert_eq!(highest, Some(3), "each is recorded once: {:?}", read.entries);
}

#[test]
fn a_durable_change_is_on_the_disk_when_it_is_answered() {
    let world = World::new(PATIENT, 0);
    // What the MDT notes of what they have read is not durable at once.
    world.readers.read().away = true;
    let mut a = world.client(1);
    for n in 0..20 {
        let change = a.change_of(make(&format!("f{n}"), file(true)));
        let first = a.call(Op::DurableChange(change.clone()));
        assert!(world.is_synced(), "{n}");
        assert_eq!(attr(&a.call(Op::DurableChange(change))).ino, attr(&first).ino, "it is done once");
    }
}

#[test]
fn sessions_go_on_after_a_kill_with_what_they_held() {
    let mut world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    let write = Leases { data: DataLease::Write, ..META };
    assert_eq!(granted(&a.open(ino, true), ino), write);
    a.disconnect();
    b.disconnect();
    world.kill();
    world.start(PATIENT);
    assert!(b.hello(&[], &[]).resumed);
    let early = b.later(Op::Ask(Ask::Getattr { ino }));
    assert!(early.waits(), "A may hold back what it wrote");
    assert!(a.hello(&[Held { ino, leases: write, open: true }], &[]).resumed);
    let mut callbacks = a.callbacks();
    callbacks.give(ino, &Take::Data(DataLease::Read));
    assert_eq!(attr(&early.reply()).ino, ino);
    let opened = b.later(Op::Ask(Ask::Open { ino, write: true, data_max: 0 }));
    callbacks.give(ino, &Take::Data(DataLease::None));
    assert!(is_shared(&opened.reply()), "that A has it open is known");
}

#[test]
fn who_does_not_come_back_after_a_kill_is_given_up() {
    let mut world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    b.open(ino, false);
    b.drop_leases(ino);
    a.change(unlink("f"));
    a.disconnect();
    b.disconnect();
    world.kill();
    world.start(STRICT);
    assert!(a.hello(&[], &[]).resumed);
    // Answered when B is given up.
    assert_eq!(done(&a.lookup("f")), Err(Errno::ENOENT));
    assert!(!b.hello(&[Held { ino, leases: META, open: true }], &[]).resumed);
    eventually("the orphan went", || done(&a.ask(Ask::Getattr { ino })) == Err(Errno::ESTALE));
}

#[test]
fn an_unlinked_file_that_is_open_outlives_the_server() {
    let mut world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let ino = attr(&a.change(make("f", file(true)))).ino;
    a.drop_leases(ino);
    a.change(unlink("f"));
    a.disconnect();
    world.kill();
    world.start(PATIENT);
    assert!(a.hello(&[Held { ino, leases: Leases::default(), open: true }], &[]).resumed);
    assert_eq!(attr(&a.ask(Ask::Getattr { ino })).nlink, 0);
    assert_eq!(world.mds().sessions().len(), 1);
}

#[test]
fn what_cannot_be_held_ends_the_session_that_claims_it() {
    let mut world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    a.disconnect();
    b.disconnect();
    world.kill();
    world.start(PATIENT);
    let write = Held { ino, leases: Leases { data: DataLease::Write, ..META }, open: false };
    assert!(a.hello(&[write], &[]).resumed);
    assert!(!b.hello(&[write], &[]).resumed);
    assert_eq!(done(&b.lookup("f")), Err(Errno::ESTALE));
    assert_eq!(attr(&a.lookup("f")).ino, ino);
}

#[test]
fn a_server_that_stops_ends_whoever_waits() {
    let mut world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    b.lookup("f");
    let mut callbacks = b.callbacks();
    let changed = a.change_later(chmod(ino, 0o600));
    callbacks.next();
    world.kill();
    assert!(changed.outcome().is_err(), "it is not known whether it was done, and it was not");
    world.start(PATIENT);
    b.disconnect();
    a.disconnect();
    assert!(a.hello(&[], &[]).resumed && b.hello(&[], &[]).resumed);
    assert_eq!(attr(&a.lookup("f")).mode, 0o644);
}
