use proptest::prelude::*;

use super::*;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const FILE: Ino = Ino(5);
const OTHER: Ino = Ino(6);

fn lock(kind: LockKind, owner: u64, start: u64, last: u64) -> RecordLock {
    RecordLock { start, last, kind, owner, pid: 1000 + owner as u32 }
}

fn exclusive(owner: u64, start: u64, last: u64) -> RecordLock {
    lock(LockKind::Exclusive, owner, start, last)
}

fn shared(owner: u64, start: u64, last: u64) -> RecordLock {
    lock(LockKind::Shared, owner, start, last)
}

fn unlock(owner: u64, start: u64, last: u64) -> RecordLock {
    lock(LockKind::None, owner, start, last)
}

#[test]
fn the_blocker_is_told_with_its_process() {
    let mut table = LockTable::default();
    assert_eq!(table.set(A, FILE, false, exclusive(7, 10, 19)), Ok(()));
    assert_eq!(table.set(B, FILE, false, shared(7, 0, 10)), Err(Errno::EAGAIN), "owners are a session's own");
    assert_eq!(table.test(B, FILE, shared(7, 0, u64::MAX)), Ok(Some(exclusive(7, 10, 19))));
    assert_eq!(table.test(A, FILE, exclusive(7, 0, u64::MAX)), Ok(None));
    assert_eq!(table.set(B, FILE, true, exclusive(7, 0, 0)), Ok(()), "flock(2) does not see fcntl(2)");
    assert_eq!(table.set(B, FILE, false, shared(7, 9, 8)), Err(Errno::EINVAL));
}

#[test]
fn the_end_of_the_file_is_no_overflow() {
    let mut table = LockTable::default();
    let all = exclusive(1, 0, u64::MAX);
    assert_eq!(table.set(A, FILE, false, all), Ok(()));
    assert_eq!(table.set(A, FILE, false, unlock(1, 5, u64::MAX)), Ok(()));
    assert_eq!(table.test(B, FILE, exclusive(1, 0, u64::MAX)), Ok(Some(exclusive(1, 0, 4))));
    assert_eq!(table.set(A, FILE, false, exclusive(1, 5, u64::MAX)), Ok(()));
    assert_eq!(table.test(B, FILE, exclusive(1, 9, 9)), Ok(Some(all)), "adjacent locks are one");
}

#[test]
fn who_waits_gets_the_lock_in_turn() {
    let mut table = LockTable::default();
    table.set(A, FILE, false, exclusive(1, 0, 9)).expect("free");
    let first = table.wait(B, FILE, false, exclusive(1, 0, 4)).expect("waits").expect("not free");
    let second = table.wait(B, FILE, false, exclusive(2, 0, 9)).expect("waits").expect("not free");
    let beside = table.wait(B, FILE, false, exclusive(3, 5, 9)).expect("waits").expect("not free");
    assert_eq!(table.retry(first), Ok(false));
    table.set(A, FILE, false, unlock(1, 0, 9)).expect("unlocks");
    assert_eq!(table.retry(second), Ok(false), "the first has not taken it yet");
    assert_eq!(table.retry(first), Ok(true));
    assert_eq!(table.retry(second), Ok(false));
    assert_eq!(table.retry(beside), Ok(true), "nobody before it can have it now");
    table.drop_owner(B, FILE, false, 1);
    table.drop_owner(B, FILE, false, 3);
    assert_eq!(table.retry(second), Ok(true));
    assert!(!table.is_awaited());
}

#[test]
fn who_leaves_is_in_nobodys_way() {
    let mut table = LockTable::default();
    table.set(A, FILE, true, exclusive(1, 0, 0)).expect("free");
    let first = table.wait(B, FILE, true, exclusive(1, 0, 0)).expect("waits").expect("not free");
    let second = table.wait(B, FILE, true, exclusive(2, 0, 0)).expect("waits").expect("not free");
    table.drop_session(A);
    table.leave(first);
    assert_eq!(table.retry(second), Ok(true));
    assert_eq!(table.retry(first), Err(Errno::ESTALE));
}

#[test]
fn a_circle_of_waits_is_refused() {
    let mut table = LockTable::default();
    table.set(A, FILE, false, exclusive(1, 0, 0)).expect("free");
    table.set(B, OTHER, false, exclusive(1, 0, 0)).expect("free");
    table.set(B, FILE, false, exclusive(2, 1, 1)).expect("free");
    let waits = table.wait(A, OTHER, false, exclusive(1, 0, 0));
    assert!(matches!(waits, Ok(Some(_))));
    let waits = table.wait(B, FILE, false, exclusive(2, 0, 0));
    assert!(matches!(waits, Ok(Some(_))), "no circle yet");
    assert_eq!(table.wait(B, FILE, false, shared(1, 0, 1)), Err(Errno::EDEADLK));
    assert!(matches!(table.wait(B, FILE, false, shared(3, 0, 1)), Ok(Some(_))), "nobody waits for this one");
}

#[test]
fn two_who_share_a_flock_can_both_ask_for_all_of_it() {
    let mut table = LockTable::default();
    table.set(A, FILE, true, shared(1, 0, 0)).expect("free");
    table.set(B, FILE, true, shared(1, 0, 0)).expect("free");
    let a = table.wait(A, FILE, true, exclusive(1, 0, 0)).expect("waits").expect("B has it");
    assert_eq!(table.wait(B, FILE, true, exclusive(1, 0, 0)), Ok(None), "A let go of its share to wait");
    assert_eq!(table.retry(a), Ok(false));
    table.drop_session(B);
    assert_eq!(table.retry(a), Ok(true));
}

#[test]
fn locks_of_a_session_are_bounded() {
    let mut table = LockTable::default();
    for n in 0..LOCKS_PER_SESSION_MAX as u64 {
        table.set(A, Ino(n), true, shared(1, 0, 0)).expect("room");
    }
    assert_eq!(table.set(A, FILE, false, shared(1, 0, 0)), Err(Errno::ENOLCK));
    assert_eq!(table.set(B, FILE, false, shared(1, 0, 0)), Ok(()));
    table.drop_owner(A, Ino(0), true, 1);
    assert_eq!(table.set(A, FILE, false, shared(1, 0, 9)), Ok(()));
    assert_eq!(table.set(A, FILE, false, unlock(1, 3, 3)), Err(Errno::ENOLCK), "two pieces are one more");
}

/// Locks byte by byte.
#[derive(Default)]
struct Model([BTreeMap<(SessionId, u64), LockKind>; BYTES]);

const BYTES: usize = 12;

impl Model {
    fn blocker(&self, session: SessionId, lock: &RecordLock) -> Option<(usize, SessionId, u64)> {
        let bytes = (lock.start as usize)..=(lock.last as usize);
        let against = |other: LockKind| lock.kind == LockKind::Exclusive || other == LockKind::Exclusive;
        bytes.into_iter().find_map(|byte| {
            let mut held = self.0[byte].iter();
            let found = held.find(|(owner, kind)| **owner != (session, lock.owner) && against(**kind));
            found.map(|((session, owner), _)| (byte, *session, *owner))
        })
    }

    fn set(&mut self, session: SessionId, lock: &RecordLock) -> Result<(), Errno> {
        if lock.kind != LockKind::None && self.blocker(session, lock).is_some() {
            return Err(Errno::EAGAIN);
        }
        for byte in lock.start as usize..=lock.last as usize {
            self.0[byte].remove(&(session, lock.owner));
            if lock.kind != LockKind::None {
                self.0[byte].insert((session, lock.owner), lock.kind);
            }
        }
        Ok(())
    }
}

fn check_against(model: &Model, table: &LockTable) {
    let held = |table: &LockTable| table.files.values().flatten().copied().collect::<Vec<_>>();
    let locks = held(table);
    for (byte, owners) in model.0.iter().enumerate() {
        let found = locks.iter().filter(|held| (held.lock.start..=held.lock.last).contains(&(byte as u64)));
        let mut found: Vec<_> = found.map(|held| ((held.session, held.lock.owner), held.lock.kind)).collect();
        found.sort_by_key(|(owner, _)| *owner);
        assert_eq!(
            found,
            owners.iter().map(|(owner, kind)| (*owner, *kind)).collect::<Vec<_>>(),
            "byte {byte}"
        );
    }
    for one in &locks {
        assert!(!locks.iter().any(|next| one.continues_in(next)), "{one:?} is in two pieces");
        assert_eq!(
            table.counts[&one.session],
            locks.iter().filter(|held| held.session == one.session).count()
        );
    }
}

proptest! {
    #[test]
    fn ranges_split_and_merge_as_bytes_do(
        steps in proptest::collection::vec((0..3_u8, 0..2_u64, 0..BYTES, 0..BYTES, 0..4_u8), 1..60),
    ) {
        let (mut table, mut model) = (LockTable::default(), Model::default());
        for (session, owner, one, other, what) in steps {
            let session = SessionId(session.into());
            let kind = [LockKind::None, LockKind::Shared, LockKind::Exclusive][usize::from(what) % 3];
            let asked = lock(kind, owner, one.min(other) as u64, one.max(other) as u64);
            if what == 3 {
                table.drop_owner(session, FILE, false, owner);
                model.set(session, &unlock(owner, 0, BYTES as u64 - 1)).expect("unlocks");
            } else {
                if kind != LockKind::None {
                    let blocked = table.test(session, FILE, asked).expect("a range").is_some();
                    prop_assert_eq!(blocked, model.blocker(session, &asked).is_some());
                }
                prop_assert_eq!(table.set(session, FILE, false, asked), model.set(session, &asked));
            }
            check_against(&model, &table);
        }
    }
}
