//! What one session may keep, and what another's request takes from it.

use super::world::*;
use crate::core::{Errno, Ino, SetAttr, Time};
use crate::wire::mds::{Act, Answer, Ask, DataLease, Leases, Make, Op, Rename, Take, XattrHow};
use crate::wire::mgs::FsId;

fn name(name: &str) -> Take {
    Take::Name(name.into())
}

#[test]
fn a_client_does_the_common_things_end_to_end() {
    let world = World::new(PATIENT, 0);
    let mut client = world.client(1);
    let made = client.change(make("a", file(true)));
    let ino = attr(&made).ino;
    assert!(is_regular(attr(&made)));
    assert_eq!(granted(&made, ino), Leases { data: DataLease::Write, ..META });
    assert!(granted(&made, Ino::ROOT).names);
    let found = client.lookup("a");
    assert_eq!(attr(&found).ino, ino);
    assert!(granted(&found, Ino::ROOT).names && granted(&found, ino).meta);
    let missing = client.lookup("b");
    assert_eq!(done(&missing), Err(Errno::ENOENT));
    assert!(granted(&missing, Ino::ROOT).names, "that it is not there may be kept");
    let chmod = Act::Setattr { ino, set: SetAttr { mode: Some(0o600), ..SetAttr::default() } };
    assert_eq!(attr(&client.change(chmod)).mode, 0o600);
    let listed = client.ask(Ask::Readdir { ino: Ino::ROOT, after: 0, bytes_max: 4096, plus: true });
    let Ok(Answer::Names { names, end: true, .. }) = &listed.outcome else { panic!("{listed:?}") };
    assert_eq!((names.len(), names[0].name.as_slice()), (1, b"a".as_slice()));
    assert_eq!(names[0].attr.as_ref().map(|attr| attr.mode), Some(0o600));
    assert!(granted(&listed, ino).meta && granted(&listed, Ino::ROOT).names);
    assert_eq!(done(&client.ask(Ask::Sync)), Ok(()));
    assert_eq!(done(&client.ask(Ask::Close { inos: vec![ino] })), Ok(()));
    assert!(matches!(client.ask(Ask::Statfs).outcome, Ok(Answer::Space { mdt, .. }) if mdt.total_bytes > 0));
    assert_eq!(done(&client.call(Op::Bye)), Ok(()));
    assert_eq!(done(&client.lookup("a")), Err(Errno::ESTALE));
}

#[test]
fn a_filesystem_that_is_not_served_here_is_told() {
    let world = World::new(PATIENT, 0);
    let mut client = world.client(1);
    let another_of_this_name = FsId(FS_ID.0 + 1);
    for (fs, id) in [("other", FS_ID), ("scratch", another_of_this_name)] {
        let (fs, session, op) = (fs.into(), client.session, Op::Ping);
        let request = crate::wire::Request::Mds(crate::wire::mds::Request { fs, id, session, op });
        let (reply, _): (crate::wire::mds::Reply, _) = client.connection().call(&request, &[]).unwrap();
        assert_eq!(done(&reply), Err(Errno::ENODEV));
    }
}

#[test]
fn a_change_waits_until_others_have_forgotten_what_it_changes() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    let mut callbacks = b.callbacks();
    let seen = b.lookup("f");
    assert!(granted(&seen, ino).meta);
    let chmod =
        a.change_later(Act::Setattr { ino, set: SetAttr { mode: Some(0o600), ..SetAttr::default() } });
    let callback = callbacks.next();
    assert_eq!((callback.ino, &callback.take), (ino, &Take::Meta));
    assert!(callback.seq > seen.seq);
    assert!(chmod.waits());
    let meanwhile = b.ask(Ask::Getattr { ino });
    assert_eq!((attr(&meanwhile).mode, granted(&meanwhile, ino).meta), (0o644, false));
    callbacks.ack(&callback, false);
    assert_eq!(attr(&chmod.reply()).mode, 0o600);
    let after = b.ask(Ask::Getattr { ino });
    assert_eq!((attr(&after).mode, granted(&after, ino).meta), (0o600, true));
    assert!(after.seq >= callback.seq);
}

#[test]
fn each_change_takes_what_it_touches_and_no_more() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let mut callbacks = b.callbacks();
    let (root, parent) = (Ino::ROOT, Ino::ROOT);
    let (f, g) = (a.file("f"), a.file("g"));
    let look = |b: &mut Client, names: &[&str]| {
        for name in names {
            b.lookup(name);
        }
        assert!(granted(&b.ask(Ask::Getattr { ino: root }), root).meta);
    };
    let of_root = |name: &str| [(root, Take::Name(name.into())), (root, Take::Meta)];

    look(&mut b, &["f", "g", "new"]);
    let made = a.change_later(make("new", Make::Directory));
    callbacks.give_all(&of_root("new"));
    let dir = attr(&made.reply()).ino;

    look(&mut b, &["f", "g", "new", "h"]);
    let link = a.change_later(Act::Link { ino: f, parent, name: "h".into() });
    callbacks.give_all(&[of_root("h").as_slice(), &[(f, Take::Meta)]].concat());
    assert_eq!(attr(&link.reply()).nlink, 2);

    look(&mut b, &["f", "g", "new", "h"]);
    let rename = Act::Rename {
        from: root,
        from_name: "f".into(),
        to: root,
        to_name: "g".into(),
        how: Rename::Replace,
    };
    let renamed = a.change_later(rename);
    callbacks.give_all(&[
        (root, name("f")),
        (root, name("g")),
        (root, Take::Meta),
        (f, Take::Meta),
        (g, Take::Meta),
    ]);
    assert_eq!(done(&renamed.reply()), Ok(()));

    look(&mut b, &["f", "g", "new", "h"]);
    let set = Act::SetXattr { ino: f, name: "user.x".into(), value: vec![1], how: XattrHow::Set };
    let set = a.change_later(set);
    callbacks.give(f, &Take::Meta);
    assert_eq!(done(&set.reply()), Ok(()));

    look(&mut b, &["f", "g", "new", "h"]);
    let removed = a.change_later(Act::Rmdir { parent: root, name: "new".into() });
    callbacks.give_all(&[of_root("new").as_slice(), &[(dir, Take::Meta)]].concat());
    assert_eq!(done(&removed.reply()), Ok(()));

    look(&mut b, &["g", "h"]);
    let removed = a.change_later(unlink("h"));
    callbacks.give_all(&[of_root("h").as_slice(), &[(f, Take::Meta)]].concat());
    assert_eq!(done(&removed.reply()), Ok(()));
    assert_eq!(attr(&b.lookup("g")).nlink, 1);
    assert_eq!(done(&b.lookup("h")), Err(Errno::ENOENT));
}

#[test]
fn what_a_writer_holds_back_is_written_before_others_are_told_size_or_data() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let mut callbacks = a.callbacks();
    let ino = a.file("f");
    let questions = [
        Op::Ask(Ask::Getattr { ino }),
        Op::Ask(Ask::Lookup { parent: Ino::ROOT, name: "f".into() }),
        Op::Ask(Ask::Open { ino, write: false, data_max: 100 }),
        Op::Ask(Ask::Lease { ino, want: DataLease::Read }),
    ];
    for (round, question) in questions.into_iter().enumerate() {
        let lease = a.lease(ino, DataLease::Write);
        assert_eq!(granted(&lease, ino).data, DataLease::Write);
        let asked = b.later(question);
        let callback = callbacks.next();
        assert_eq!(callback.take, Take::Data(DataLease::Read));
        assert!(asked.waits());
        let bytes = [7; 10];
        let act = Act::WriteInline {
            ino,
            offset: round as u64 * 10,
            crc: crc32c::crc32c(&bytes),
            mtime: Time { secs: 99, nanos: 0 },
        };
        let change = a.change_of(act);
        let (written, _) = a.try_call(Op::Change(change), &bytes).unwrap();
        assert_eq!(done(&written), Ok(()), "to write back needs nobody");
        callbacks.ack(&callback, false);
        let told = asked.reply();
        assert_eq!((attr(&told).size, attr(&told).mtime.secs), (10 * (round as u64 + 1), 99));
        b.ask(Ask::Close { inos: vec![ino] });
        b.drop_leases(ino);
    }
}

#[test]
fn a_listing_does_not_wait_for_writers() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let (f, g) = (a.file("f"), a.file("g"));
    a.lease(f, DataLease::Write);
    let listed = b.ask(Ask::Readdir { ino: Ino::ROOT, after: 0, bytes_max: 4096, plus: true });
    let Ok(Answer::Names { names, .. }) = &listed.outcome else { panic!("{listed:?}") };
    let told = |ino| names.iter().any(|name| name.ino == ino && name.attr.is_some());
    assert_eq!((told(f), told(g)), (false, true));
    assert_eq!((granted(&listed, f).meta, granted(&listed, g).meta), (false, true));
}

#[test]
fn a_cut_takes_all_data_and_a_write_takes_what_is_kept() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let mut callbacks = b.callbacks();
    let ino = a.file("f");
    for (mode, taken) in
        [(DataLease::Direct, Take::Data(DataLease::None)), (DataLease::Read, Take::Data(DataLease::None))]
    {
        b.lease(ino, mode);
        b.ask(Ask::Release { leases: vec![(ino, META)] });
        let cut = a.change_later(Act::Setattr { ino, set: SetAttr { size: Some(5), ..SetAttr::default() } });
        callbacks.give(ino, &taken);
        assert_eq!(attr(&cut.reply()).size, 5);
    }
    a.drop_leases(ino);
    assert_eq!(granted(&b.lease(ino, DataLease::Direct), ino).data, DataLease::Direct);
    b.ask(Ask::Release { leases: vec![(ino, META)] });
    assert_eq!(
        granted(&a.lease(ino, DataLease::Direct), ino).data,
        DataLease::Direct,
        "both go to the targets"
    );
}

#[test]
fn a_file_that_is_written_while_others_have_it_open_is_shared() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let mut callbacks = a.callbacks();
    let ino = a.file("f");
    let alone = a.open(ino, false);
    assert_eq!((is_shared(&alone), granted(&alone, ino).data), (false, DataLease::Read));
    let reader = b.open(ino, false);
    assert_eq!((is_shared(&reader), granted(&reader, ino).data), (false, DataLease::Read));
    b.ask(Ask::Close { inos: vec![ino] });
    b.drop_leases(ino);
    let writer = b.later(Op::Ask(Ask::Open { ino, write: true, data_max: 0 }));
    callbacks.give(ino, &Take::Data(DataLease::None));
    let writer = writer.reply();
    assert_eq!((is_shared(&writer), granted(&writer, ino).data), (true, DataLease::Direct));
    let again = a.open(ino, false);
    assert_eq!((is_shared(&again), granted(&again, ino).data), (true, DataLease::Direct));
    let made = b.change(make("f", file(true)));
    assert!(is_shared(&made), "to make what is there is to open it");
    b.ask(Ask::Close { inos: vec![ino] });
    b.drop_leases(ino);
    assert!(!is_shared(&a.open(ino, true)));
}

#[test]
fn what_was_opened_without_asking_is_known_when_a_lease_is_taken() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let mut callbacks = b.callbacks();
    let ino = a.file("f");
    b.lookup("f");
    b.lease(ino, DataLease::Read);
    let opened = a.later(Op::Ask(Ask::Open { ino, write: true, data_max: 0 }));
    let mut shared = 0;
    for _ in 0..2 {
        let callback = callbacks.next();
        shared += u32::from(callback.take == Take::Data(DataLease::None));
        callbacks.ack(&callback, true);
    }
    assert_eq!(shared, 1);
    assert!(is_shared(&opened.reply()), "B said that it has it open");
}

#[test]
fn an_unlinked_file_stays_until_the_last_close() {
    let world = World::new(PATIENT, 0);
    let (mut a, mut b) = (world.client(1), world.client(2));
    let ino = a.file("f");
    b.open(ino, false);
    b.drop_leases(ino);
    assert_eq!(done(&a.change(unlink("f"))), Ok(()));
    assert_eq!(done(&b.lookup("f")), Err(Errno::ENOENT));
    assert_eq!(attr(&b.ask(Ask::Getattr { ino })).nlink, 0);
    b.ask(Ask::Close { inos: vec![ino] });
    assert_eq!(done(&b.ask(Ask::Getattr { ino })), Err(Errno::ESTALE));
}

#[test]
fn who_unlinks_is_asked_whether_he_has_the_file_open() {
    let world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let mut callbacks = a.callbacks();
    for open in [false, true] {
        let made = a.change(make("f", file(true)));
        let ino = attr(&made).ino;
        a.ask(Ask::Close { inos: vec![ino] });
        assert_eq!(done(&a.change(unlink("f"))), Ok(()));
        let callback = callbacks.next();
        assert_eq!((callback.ino, &callback.take), (ino, &Take::Unlinked));
        assert_eq!(attr(&a.ask(Ask::Getattr { ino })).nlink, 0, "it may be open");
        callbacks.ack(&callback, open);
        assert_eq!(done(&a.ask(Ask::Getattr { ino })).is_ok(), open);
        a.ask(Ask::Close { inos: vec![ino] });
        assert_eq!(done(&a.ask(Ask::Getattr { ino })), Err(Errno::ESTALE));
    }
}

#[test]
fn a_file_without_a_name_goes_when_it_is_closed_unless_it_got_one() {
    let world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let unnamed = |a: &mut Client| {
        let made = a.change(Act::MakeUnnamed { parent: Ino::ROOT, mode: 0o600, umask: 0 });
        attr(&made).ino
    };
    let lost = unnamed(&mut a);
    let kept = unnamed(&mut a);
    a.change(Act::Link { ino: kept, parent: Ino::ROOT, name: "kept".into() });
    a.ask(Ask::Close { inos: vec![lost, kept] });
    assert_eq!(done(&a.ask(Ask::Getattr { ino: lost })), Err(Errno::ESTALE));
    assert_eq!(attr(&a.lookup("kept")).ino, kept);
}

#[test]
fn leases_of_the_same_file_are_given_in_turn() {
    let world = World::new(PATIENT, 0);
    let mut a = world.client(1);
    let ino = a.file("f");
    let mut writers: Vec<Client> = (2..6).map(|n| world.client(n)).collect();
    // Each holds Write once, and gives it back when it is called for by the next.
    let threads: Vec<_> = writers
        .drain(..)
        .map(|mut writer| {
            std::thread::spawn(move || {
                let mut callbacks = writer.callbacks();
                let giver = std::thread::spawn(move || {
                    while let Ok(Some(callback)) = callbacks.try_next() {
                        callbacks.try_ack(&callback);
                    }
                });
                for _ in 0..50 {
                    let lease = writer.lease(ino, DataLease::Write);
                    assert_eq!(granted(&lease, ino).data, DataLease::Write);
                }
                writer.call(Op::Bye);
                giver.join().unwrap();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
