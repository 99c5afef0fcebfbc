//! Locks of programs on different clients.

use super::world::*;
use crate::core::{Errno, Ino};
use crate::wire::mds::{Answer, HeldLock, Lock, LockKind, Op, RecordLock};

fn record(owner: u64, kind: LockKind, start: u64, last: u64) -> RecordLock {
    RecordLock { start, last, kind, owner, pid: 77 }
}

fn set(ino: Ino, lock: RecordLock, wait: bool) -> Lock {
    Lock::Set { ino, flock: false, lock, wait }
}

#[test]
fn a_lock_is_waited_for_across_clients() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    let exclusive = record(1, LockKind::Exclusive, 0, 9);
    assert_eq!(a.lock(set(ino, exclusive, false)), Ok(Answer::Done));
    assert_eq!(b.lock(set(ino, exclusive, false)), Err(Errno::EAGAIN));
    assert_eq!(b.lock(Lock::Test { ino, lock: exclusive }), Ok(Answer::Blocker(Some(exclusive))));
    let waiting = b.later(Op::Lock(set(ino, exclusive, true)));
    let unlock = record(1, LockKind::None, 0, 9);
    assert!(waiting.waits());
    assert_eq!(a.lock(set(ino, unlock, false)), Ok(Answer::Done));
    assert_eq!(done(&waiting.reply()), Ok(()));
    assert_eq!(a.lock(set(ino, exclusive, false)), Err(Errno::EAGAIN));
    assert_eq!(b.lock(Lock::Drop { ino, flock: false, owner: 1 }), Ok(Answer::Done));
    assert_eq!(a.lock(set(ino, exclusive, true)), Ok(Answer::Done));
}

#[test]
fn a_wait_ends_with_its_connection_and_leaves_no_lock() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    let exclusive = record(1, LockKind::Exclusive, 0, 9);
    assert_eq!(a.lock(set(ino, exclusive, false)), Ok(Answer::Done));
    let mut waiting = b.again();
    let request = waiting.request(Op::Lock(set(ino, exclusive, true)));
    waiting.connection().send(&request, &[]).unwrap();
    let other = record(2, LockKind::Shared, 0, 0);
    let behind = b.later(Op::Lock(set(ino, other, true)));
    waiting.disconnect();
    assert_eq!(a.lock(set(ino, record(1, LockKind::None, 0, 9), false)), Ok(Answer::Done));
    assert_eq!(done(&behind.reply()), Ok(()));
    let everything = record(3, LockKind::Exclusive, 1, 9);
    assert_eq!(a.lock(set(ino, everything, false)), Ok(Answer::Done), "nobody has what nobody waits for");
}

#[test]
fn a_circle_is_refused_and_the_locks_of_who_leaves_are_free() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let (f, g) = (a.file("f"), a.file("g"));
    let exclusive = record(1, LockKind::Exclusive, 0, 0);
    assert_eq!(a.lock(set(f, exclusive, true)), Ok(Answer::Done));
    assert_eq!(b.lock(set(g, exclusive, true)), Ok(Answer::Done));
    let waiting = a.later(Op::Lock(set(g, exclusive, true)));
    eventually("A waits", || world.mds().server.lock().locks.is_awaited());
    assert_eq!(b.lock(set(f, exclusive, true)), Err(Errno::EDEADLK));
    b.call(Op::Bye);
    assert_eq!(done(&waiting.reply()), Ok(()));
}

#[test]
fn locks_outlive_the_server() {
    let mut world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let mut b = world.client(2);
    let ino = a.file("f");
    let exclusive = record(1, LockKind::Exclusive, 0, 9);
    assert_eq!(a.lock(set(ino, exclusive, false)), Ok(Answer::Done));
    a.disconnect();
    b.disconnect();
    world.kill();
    world.start(PATIENT);
    assert!(b.hello(&[], &[]).resumed);
    let early = b.later(Op::Lock(set(ino, exclusive, false)));
    assert!(early.waits());
    assert!(a.hello(&[], &[HeldLock { ino, flock: false, lock: exclusive }]).resumed);
    assert_eq!(done(&early.reply()), Err(Errno::EAGAIN));
}
