//! What changed reaches its readers, each record at least once, in order, and under the same index every time.

use super::world::*;
use crate::core::Ino;
use crate::core::changelog::{Entry, Kind};
use crate::mds::changelog::BACKLOG_RECORDS_MAX;
use crate::wire::mds::{Act, Ask, Make, Rename};

fn kinds(entries: &[Entry]) -> Vec<(u64, String)> {
    entries.iter().map(|entry| (entry.index, entry.record.kind.to_string())).collect()
}

fn directories(client: &mut Client, names: std::ops::Range<u64>) {
    for n in names {
        client.change(make(&format!("d{n}"), Make::Directory));
    }
}

/// The indices of what was read, without repeats.
fn indices(entries: &[Entry]) -> Vec<u64> {
    let all: std::collections::BTreeSet<u64> = entries.iter().map(|entry| entry.index).collect();
    all.into_iter().collect()
}

#[test]
fn changes_are_recorded_in_their_order() {
    let world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let ino = attr(&a.change(make("f", file(true)))).ino;
    let rename = Act::Rename {
        from: Ino::ROOT,
        from_name: "f".into(),
        to: Ino::ROOT,
        to_name: "g".into(),
        how: Rename::NoReplace,
    };
    a.change(rename);
    assert!(done(&a.change(unlink("missing"))).is_err());
    a.ask(Ask::Close { inos: vec![ino] });
    a.change(unlink("g"));
    let read = world.readers.wait_until(|read| read.entries.len() >= 4);
    let expected = [(1, "01CREAT"), (2, "08RENME"), (3, "11CLOSE"), (4, "06UNLNK")];
    assert_eq!(kinds(&read.entries), expected.map(|(index, kind)| (index, kind.to_owned())));
    assert!(read.entries.iter().all(|entry| entry.record.target == ino && entry.client == "node1"));
    assert_eq!(read.entries[3].record.unlinked, Some(ino));
}

#[test]
fn what_was_not_written_before_a_kill_is_written_after() {
    let mut world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    world.readers.read().away = true;
    directories(&mut a, 0..20);
    a.disconnect();
    world.kill();
    world.readers.read().away = false;
    world.start(PATIENT);
    assert!(a.hello(&[], &[]).resumed);
    directories(&mut a, 20..25);
    let read = world.readers.wait_until(|read| read.entries.len() >= 25);
    assert!(read.entries.iter().all(|entry| entry.record.kind == Kind::Mkdir));
    assert_eq!(indices(&read.entries), (1..=25).collect::<Vec<_>>());
}

#[test]
fn what_is_written_again_has_the_same_index() {
    let mut world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    world.readers.read().mute = true;
    directories(&mut a, 0..3);
    drop(world.readers.wait_until(|read| indices(&read.entries) == [1, 2, 3]));
    a.disconnect();
    world.kill();
    world.readers.read().mute = false;
    world.start(PATIENT);
    assert!(a.hello(&[], &[]).resumed);
    directories(&mut a, 3..4);
    let read = world.readers.wait_until(|read| indices(&read.entries).len() == 4);
    for entry in &read.entries {
        let place = entry.record.place.as_ref().expect("a name");
        assert_eq!(place.name, format!("d{}", entry.index - 1).into_bytes());
    }
    assert!(read.entries.len() > 4, "the first three came again");
}

#[test]
fn when_readers_are_away_too_long_the_oldest_records_are_given_up() {
    let world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    world.readers.read().away = true;
    let all = BACKLOG_RECORDS_MAX + 20;
    directories(&mut a, 0..all);
    let asked = world.readers.read().asked;
    drop(world.readers.wait_until(|read| read.asked > asked + 1));
    world.readers.read().away = false;
    let read = world.readers.wait_until(|read| read.entries.last().is_some_and(|last| last.index == all));
    assert_eq!(indices(&read.entries), (21..=all).collect::<Vec<_>>());
}
