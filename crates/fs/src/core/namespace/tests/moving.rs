//! Objects that leave an OST.

use super::*;
use crate::core::layout::Layout;
use crate::core::{FileKind, ObjectId};

const FROM: OstIndex = OstIndex(0);

fn layout(fs: &Fs, ino: Ino) -> Layout {
    match fs.ask(&Ask::Layout { ino }).unwrap() {
        Answer::Layout(layout) => layout,
        other => panic!("unexpected: {other:?}"),
    }
}

/// A file with objects on the OSTs 2, 0 and 1 of a length of their own.
fn spread_file(fs: &mut Fs) -> Ino {
    let stripes = Stripes { count: None, first: None };
    let what = Make::File { spread: Some(Spread::plain(0, 64 << 10, stripes)), open: false, exclusive: true };
    let ino = fs.make(Ino::ROOT, "f", 0o640, what).unwrap().ino;
    fs.act(Act::Place { ino, offset: 0 }).unwrap();
    let size = (4 << 16) + 10;
    fs.act(Act::Written { ino, size, mtime: None, blocks: Some(600), kill_suid_sgid: false }).unwrap();
    ino
}

fn spare(fs: &mut Fs, ino: Ino, to: &[u16]) -> Result<(Ino, Vec<(OstIndex, ObjectId)>), Errno> {
    let to = to.iter().copied().map(OstIndex).collect();
    match fs.command(What::Spare { ino, from: FROM, to }, &[]).answer? {
        Answer::Opened { attr, layout, .. } => {
            assert_eq!((attr.nlink, attr.kind), (0, FileKind::Regular));
            Ok((attr.ino, layout.objects().collect()))
        }
        other => panic!("unexpected: {other:?}"),
    }
}

fn exchange(fs: &mut Fs, seen: (&Attr, u32), spare: Ino) -> Result<Answer, Errno> {
    let (ino, version, generation) = (seen.0.ino, seen.0.version, seen.1);
    fs.command(What::Exchange { ino, generation, version, from: FROM, spare }, &[]).answer
}

#[test]
fn what_is_on_an_ost_is_found_with_its_length() {
    let mut fs = Fs::new();
    let ino = spread_file(&mut fs);
    fs.file(Ino::ROOT, "without objects");
    let all = [FROM, OstIndex(2), OstIndex(9)];
    let found = located(&fs.rows, Ino(0), &all, 10).unwrap();
    let one = |ost, bytes| Located { ino, ost: OstIndex(ost), bytes };
    // Stripes 0 and 3 are on the first OST, 1 and the ten bytes of 4 on the second.
    assert_eq!(found, (vec![one(0, (1 << 16) + 10), one(2, 2 << 16)], None));
    let (none, next) = located(&fs.rows, Ino(0), &all, 1).unwrap();
    assert_eq!((none, next), (vec![], Some(ino)), "the root comes first");
    assert_eq!(located(&fs.rows, Ino(ino.0 + 1), &all, 10).unwrap().0, []);
}

#[test]
fn objects_are_exchanged_and_the_old_ones_destroyed_with_the_spare() {
    let mut fs = Fs::new();
    let ino = spread_file(&mut fs);
    let (before, old) = (fs.attr(ino).unwrap(), layout(&fs, ino));
    let inodes = usage(&fs.rows).unwrap().inodes;
    let (spare_ino, new) = spare(&mut fs, ino, &[5, 1]).unwrap();
    assert_eq!(new.iter().map(|(ost, _)| ost.0).collect::<Vec<_>>(), [5], "one that the file does not use");
    invariants::check(&fs.rows);
    exchange(&mut fs, (&before, old.generation), spare_ino).unwrap();
    invariants::check(&fs.rows);
    let (after, now) = (fs.attr(ino).unwrap(), layout(&fs, ino));
    assert_eq!(Attr { version: before.version, ..after.clone() }, before, "users see no change");
    assert!(after.version > before.version && now.generation > old.generation);
    let objects: Vec<_> = old.objects().collect();
    assert_eq!(now.objects().collect::<Vec<_>>(), [objects[0], new[0], objects[2]]);
    let outcome = fs.command(What::Forget { inos: vec![spare_ino] }, &[]);
    let destroyed: Vec<_> = outcome.todo.into_iter().map(|(_, todo)| todo).collect();
    assert_eq!(destroyed, [Todo::Destroy { ost: FROM, object: objects[1].1 }]);
    assert_eq!(usage(&fs.rows).unwrap().inodes, inodes);
    assert_eq!(located(&fs.rows, Ino(0), &[FROM], 10).unwrap().0, []);
    assert_eq!(spare(&mut fs, ino, &[1]), Err(Errno::ENODATA), "it has nothing there");
}

#[test]
fn a_file_that_changed_keeps_its_objects_and_the_new_ones_go() {
    let mut fs = Fs::new();
    let ino = spread_file(&mut fs);
    let (seen, generation) = (fs.attr(ino).unwrap(), layout(&fs, ino).generation);
    let (spare_ino, new) = spare(&mut fs, ino, &[1]).unwrap();
    assert_eq!(new[0].0, OstIndex(1), "where nothing else is, twice on one OST");
    let written = Act::Written { ino, size: 0, mtime: Some(fs.now), blocks: None, kill_suid_sgid: false };
    fs.act(written).unwrap();
    let rows = fs.rows.clone();
    assert_eq!(exchange(&mut fs, (&seen, generation), spare_ino), Err(Errno::EAGAIN));
    let seen = fs.attr(ino).unwrap();
    assert_eq!(exchange(&mut fs, (&seen, generation + 1), spare_ino), Err(Errno::EAGAIN));
    assert_eq!(exchange(&mut fs, (&seen, generation), ino), Err(Errno::EINVAL), "it is no spare");
    assert_eq!(fs.rows, rows);
    let outcome = fs.command(What::Forget { inos: vec![spare_ino] }, &[]);
    assert_eq!(outcome.todo[0].1, Todo::Destroy { ost: OstIndex(1), object: new[0].1 });
    for nowhere in [&[][..], &[0]] {
        assert_eq!(spare(&mut fs, ino, nowhere), Err(Errno::ENOSPC));
    }
    invariants::check(&fs.rows);
}
