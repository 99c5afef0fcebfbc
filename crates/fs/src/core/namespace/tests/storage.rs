//! Data, objects, orphans, replies: what is behind the names.

use super::super::replies;
use super::*;
use crate::core::layout::{Layout, Pattern};
use crate::core::{FileKind, ObjectId};

fn layout(fs: &Fs, ino: Ino) -> Layout {
    match fs.ask(&Ask::Layout { ino }).unwrap() {
        Answer::Layout(layout) => layout,
        other => panic!("unexpected: {other:?}"),
    }
}

fn osts(layout: &Layout) -> Vec<u16> {
    layout.objects().map(|(ost, _)| ost.0).collect()
}

fn make_with(fs: &mut Fs, name: &str, spread: Spread) -> Ino {
    let what = Make::File { spread: Some(spread), open: false, exclusive: true };
    fs.make(Ino::ROOT, name, 0o644, what).unwrap().ino
}

fn place(fs: &mut Fs, ino: Ino, offset: u64) -> Result<Answer, Errno> {
    fs.act(Act::Place { ino, offset })
}

fn resize(size: u64) -> SetAttr {
    SetAttr { size: Some(size), ..SetAttr::default() }
}

#[test]
fn objects_go_where_they_are_wanted() {
    let mut fs = Fs::new();
    let cases: [(Option<u16>, Option<u16>, &[u16]); 5] = [
        (Some(1), None, &[2]),
        (Some(2), None, &[2, 0]),
        (None, None, &[2, 0, 1]),
        (Some(2), Some(1), &[1, 2]),
        (Some(9), Some(0), &[0, 2, 1]),
    ];
    for (nth, (count, first, wanted)) in cases.into_iter().enumerate() {
        let ino = make_with(&mut fs, &format!("f{nth}"), striped(count, first));
        place(&mut fs, ino, 77).unwrap();
        assert_eq!(osts(&layout(&fs, ino)), wanted);
    }
    let ino = make_with(&mut fs, "nowhere", striped(Some(1), Some(8)));
    assert_eq!(place(&mut fs, ino, 0), Err(Errno::ENOSPC));
    fs.osts.clear();
    let ino = make_with(&mut fs, "none", striped(Some(1), None));
    assert_eq!(place(&mut fs, ino, 0), Err(Errno::ENOSPC));
    invariants::check(&fs.rows);
}

#[test]
fn a_component_gets_objects_once_and_the_part_on_the_mdt_none() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    assert_eq!(place(&mut fs, file, 0), Err(Errno::EINVAL));
    let Ok(Answer::Layout(first)) = place(&mut fs, file, INLINE_BYTES) else { panic!() };
    assert_eq!((first.generation, osts(&first).len()), (2, 2));
    let rows = fs.rows.clone();
    assert_eq!(place(&mut fs, file, 1 << 30), Ok(Answer::Layout(first)));
    assert_eq!(fs.rows, rows);
}

#[test]
fn what_is_cut_or_destroyed_is_to_be_done_at_the_osts() {
    let mut fs = Fs::new();
    let file = make_with(&mut fs, "file", striped(Some(2), None));
    place(&mut fs, file, 0).unwrap();
    fs.act(Act::Written { ino: file, size: 300_000, mtime: None, blocks: Some(600), kill_suid_sgid: false })
        .unwrap();
    let outcome = fs.outcome(Act::Setattr { ino: file, set: resize(70_000) }, &[]);
    let cut = |ost, object, len| Todo::Cut { ost: OstIndex(ost), object: ObjectId(object), len };
    let cuts = vec![(TodoId(1), cut(2, 1, 65536)), (TodoId(2), cut(0, 2, 70_000 - 65536))];
    assert_eq!(outcome.todo, cuts);
    assert_eq!(todo(&fs.rows, TodoId(0), 10), Ok(cuts.clone()));
    assert_eq!(todo(&fs.rows, TodoId(2), 10), Ok(cuts[1..].to_vec()));
    assert_eq!(todo(&fs.rows, TodoId(0), 1), Ok(cuts[..1].to_vec()));
    fs.command(What::Done { todo: vec![TodoId(1), TodoId(2), TodoId(2)] }, &[]).answer.unwrap();
    assert!(fs.outcome(Act::Setattr { ino: file, set: resize(90_000) }, &[]).todo.is_empty());
    let outcome = fs.command(What::Trim { inos: vec![file, Ino(99), Ino::ROOT] }, &[]);
    assert_eq!(outcome.todo[0].1, cut(2, 1, 65536));
    fs.command(What::Done { todo: vec![TodoId(3), TodoId(4)] }, &[]).answer.unwrap();
    assert_eq!(fs.set(file, resize(0)).unwrap().blocks, 0);
    let outcome = fs.unlink(Ino::ROOT, "file");
    assert_eq!(outcome.unlinked, Some(file));
    let destroyed: Vec<_> = outcome.todo.iter().map(|(_, todo)| (*todo, todo.ost().0)).collect();
    let destroy = |ost, object| Todo::Destroy { ost: OstIndex(ost), object: ObjectId(object) };
    assert_eq!(destroyed, [(destroy(2, 1), 2), (destroy(0, 2), 0)]);
    assert_eq!(fs.attr(file), Err(Errno::ESTALE));
}

#[test]
fn an_open_file_without_a_name_stays_until_it_is_forgotten() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    fs.write(file, 0, b"bytes").unwrap();
    fs.set_xattr(file, b"user.a", b"1").unwrap();
    fs.link(file, Ino::ROOT, "other").unwrap();
    fs.victim_open = true;
    assert_eq!(fs.unlink(Ino::ROOT, "file").unlinked, None);
    assert_eq!(fs.paths(file), Ok(vec![b"other".to_vec()]));
    assert_eq!(fs.unlink(Ino::ROOT, "other").unlinked, Some(file));
    assert_eq!(orphans(&fs.rows, 10), Ok(vec![file]));
    assert_eq!(orphans(&fs.rows, 0), Ok(vec![]));
    assert_eq!(fs.read(file, 0, 10), Ok(b"bytes".to_vec()));
    assert_eq!(fs.link(file, Ino::ROOT, "again"), Err(Errno::ENOENT));
    assert_eq!(fs.paths(file), Ok(vec![]));
    let inodes = usage(&fs.rows).unwrap().inodes;
    fs.command(What::Forget { inos: vec![Ino::ROOT, Ino(99), file] }, &[]).answer.unwrap();
    assert_eq!(fs.attr(file), Err(Errno::ESTALE));
    assert_eq!((orphans(&fs.rows, 10), usage(&fs.rows).unwrap().inodes), (Ok(vec![]), inodes - 1));
    invariants::check(&fs.rows);
}

#[test]
fn a_file_made_without_a_name_may_get_one() {
    let mut fs = Fs::new();
    let make = |fs: &mut Fs| {
        let act = Act::MakeUnnamed { parent: Ino::ROOT, mode: 0o666, umask: 0o022 };
        let Ok(Answer::Opened { attr, made: true, .. }) = fs.act(act) else { panic!() };
        assert_eq!((attr.nlink, attr.mode, attr.kind), (0, 0o644, FileKind::Regular));
        attr.ino
    };
    let (kept, dropped) = (make(&mut fs), make(&mut fs));
    assert_eq!(orphans(&fs.rows, 10), Ok(vec![kept, dropped]));
    fs.link(kept, Ino::ROOT, "kept").unwrap();
    fs.command(What::Forget { inos: vec![kept, dropped] }, &[]).answer.unwrap();
    assert_eq!((fs.attr(kept).unwrap().nlink, fs.attr(dropped)), (1, Err(Errno::ESTALE)));
    invariants::check(&fs.rows);
}

#[test]
fn bytes_that_arrive_damaged_are_not_written() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let act = Act::WriteInline { ino: file, offset: 0, crc: 1, mtime: fs.now };
    assert_eq!(fs.outcome(act, b"bytes").answer, Err(Errno::EIO));
    assert_eq!(fs.attr(file).unwrap().size, 0);
    assert_eq!(fs.write(file, INLINE_BYTES - 1, b"xy"), Err(Errno::EINVAL));
    assert_eq!(fs.write(file, u64::MAX, b"xy"), Err(Errno::EFBIG));
    assert_eq!(fs.write(Ino::ROOT, 0, b"xy"), Err(Errno::EISDIR));
}

#[test]
fn an_open_sends_the_first_bytes_along() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    fs.write(file, 4000, &[7; 200]).unwrap();
    let open = |fs: &Fs, ino, data_max| {
        let asked = ask(&fs.rows, &Ask::Open { ino, write: false, data_max }).unwrap();
        let Answer::Opened { data, made: false, .. } = asked.answer else { panic!() };
        (data, asked.bulk)
    };
    let whole = [vec![0; 4000], vec![7; 200]].concat();
    assert_eq!(open(&fs, file, 1 << 20), (Some(4200), whole.clone()));
    assert_eq!(open(&fs, file, 4001), (Some(4001), whole[..4001].to_vec()));
    assert_eq!(open(&fs, file, 0), (None, Vec::new()));
    let far = make_with(&mut fs, "far", striped(Some(1), None));
    assert_eq!(open(&fs, far, 4096), (None, Vec::new()));
    assert_eq!(ask(&fs.rows, &Ask::Open { ino: Ino::ROOT, write: false, data_max: 0 }), Err(Errno::EISDIR));
}

#[test]
fn default_layouts_are_passed_on() {
    let mut fs = Fs::new();
    let dir = fs.dir(Ino::ROOT, "dir");
    let default = |fs: &Fs, ino| fs.ask(&Ask::Default { ino }).unwrap();
    assert!(matches!(default(&fs, dir), Answer::Spread(_, false)));
    let spread = striped(Some(1), Some(1));
    fs.act(Act::SetDefault { ino: dir, spread: Some(spread.clone()) }).unwrap();
    let below = fs.dir(dir, "below");
    assert_eq!(default(&fs, below), Answer::Spread(spread.clone(), true));
    let file = fs.file(below, "file");
    assert_eq!(layout(&fs, file), spread.to_layout());
    fs.act(Act::SetDefault { ino: below, spread: None }).unwrap();
    let file = fs.file(below, "other");
    assert_eq!(layout(&fs, file).inline_bytes(), INLINE_BYTES);
    let bad = Spread { parts: Vec::new() };
    assert_eq!(fs.act(Act::SetDefault { ino: dir, spread: Some(bad.clone()) }), Err(Errno::EINVAL));
    let what = Make::File { spread: Some(bad), open: false, exclusive: true };
    assert_eq!(fs.make(dir, "bad", 0, what), Err(Errno::EINVAL));
}

#[test]
fn a_layout_is_set_while_there_is_no_data() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let set = |spread| Act::SetLayout { ino: file, spread };
    let Ok(Answer::Layout(now)) = fs.act(set(striped(Some(1), None))) else { panic!() };
    assert_eq!((now.generation, now.inline_bytes()), (2, 0));
    place(&mut fs, file, 0).unwrap();
    assert_eq!(fs.act(set(striped(Some(2), None))), Err(Errno::EEXIST));
}

#[test]
fn two_files_exchange_their_data() {
    let mut fs = Fs::new();
    let small = fs.file(Ino::ROOT, "small");
    fs.write(small, 0, &[1; 5000]).unwrap();
    let large = make_with(&mut fs, "large", striped(Some(2), None));
    place(&mut fs, large, 0).unwrap();
    fs.act(Act::Written { ino: large, size: 9000, mtime: None, blocks: Some(18), kill_suid_sgid: false })
        .unwrap();
    let before = layout(&fs, large);
    assert_eq!(fs.act(Act::SwapLayouts { one: (small, 1), other: (large, 1) }), Err(Errno::EAGAIN));
    assert_eq!(fs.act(Act::SwapLayouts { one: (small, 1), other: (small, 1) }), Err(Errno::EINVAL));
    let mtime = fs.attr(small).unwrap().mtime;
    fs.act(Act::SwapLayouts { one: (small, 1), other: (large, 2) }).unwrap();
    assert_eq!(fs.read(large, 0, 9000), Ok(vec![1; 5000]));
    let attr = fs.attr(small).unwrap();
    assert_eq!((attr.size, attr.blocks, attr.mtime), (9000, 18, mtime));
    let after = layout(&fs, small);
    assert_eq!((after.generation, after.components), (3, before.components));
    assert!(matches!(layout(&fs, large).components[0].pattern, Pattern::Inline));
    invariants::check(&fs.rows);
}

#[test]
fn a_session_is_answered_again_until_it_says_that_it_knows() {
    let mut fs = Fs::new();
    let act = |name: &str| Act::Make {
        parent: Ino::ROOT,
        name: name.into(),
        mode: 0,
        umask: 0,
        what: Make::Directory,
    };
    let ask = |fs: &mut Fs, xid, done_below, name: &str| {
        let change =
            Change { xid: Xid(xid), done_below: Xid(done_below), cred: Cred::default(), act: act(name) };
        let what = What::Change { session: SESSION, change, osts: Vec::new(), victim_open: false };
        fs.command(what, &[])
    };
    let first = ask(&mut fs, 1, 0, "a");
    assert!(first.answer.is_ok() && !first.repeated);
    let second = ask(&mut fs, 2, 1, "b");
    let again = ask(&mut fs, 1, 1, "a");
    assert_eq!((again.answer, again.repeated), (first.answer.clone(), true));
    assert_eq!(ask(&mut fs, 3, 1, "a").answer, Err(Errno::EEXIST));
    let fixed = ask(&mut fs, 3, 1, "c");
    assert!(fixed.answer.is_ok() && !fixed.repeated, "a refusal is not remembered");
    ask(&mut fs, 4, 3, "d").answer.unwrap();
    assert_eq!(ask(&mut fs, 2, 3, "b").answer, Err(Errno::EINVAL), "it said that it knows");
    assert_eq!(reply_to(&fs.rows, SESSION, Xid(3)).unwrap(), fixed.answer.ok());
    assert_eq!(reply_to(&fs.rows, SESSION, Xid(2)), Ok(None));
    assert_ne!(Ok(None), second.answer.map(Some));
    assert_eq!(fs.names(Ino::ROOT), ["a", "b", "c", "d"]);
}

#[test]
fn a_session_that_never_says_that_it_knows_is_told_to_wait() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let mut ask = |xid: u64, done_below| {
        let act = Act::Setattr { ino: file, set: SetAttr::default() };
        let change = Change { xid: Xid(xid), done_below: Xid(done_below), cred: Cred::default(), act };
        fs.command(What::Change { session: SESSION, change, osts: Vec::new(), victim_open: false }, &[])
            .answer
    };
    let refused = (2..5000).find(|xid| ask(*xid, 2).is_err()).unwrap();
    assert_eq!(refused as usize, 2 + replies::REPLIES_MAX);
    assert_eq!(ask(refused, 2), Err(Errno::EAGAIN));
    assert!(ask(refused, 3).is_ok());
}

#[test]
fn a_session_that_is_over_changes_nothing() {
    let mut fs = Fs::new();
    assert_eq!(sessions(&fs.rows).unwrap(), [(SESSION, "host".to_owned())]);
    fs.command(What::Begin { session: SESSION, host: "other".into() }, &[]).answer.unwrap();
    assert_eq!(sessions(&fs.rows).unwrap(), [(SESSION, "host".to_owned())], "it is there already");
    fs.command(What::End { session: SESSION }, &[]).answer.unwrap();
    let what = Make::Directory;
    assert_eq!(fs.make(Ino::ROOT, "dir", 0, what), Err(Errno::ESTALE));
    assert!(sessions(&fs.rows).unwrap().is_empty());
}

#[test]
fn what_a_change_touches_is_known_before() {
    let mut fs = Fs::new();
    let dir = fs.dir(Ino::ROOT, "dir");
    let (file, victim) = (fs.file(Ino::ROOT, "file"), fs.file(dir, "victim"));
    let name = |parent, name: &str| Touch::Name(parent, name.into());
    let touches = |fs: &Fs, act: &Act| touches(&fs.rows, act).unwrap();
    let unlink = Act::Unlink { parent: dir, name: b"victim".to_vec() };
    let last = vec![name(dir, "victim"), Touch::Meta(dir), Touch::Meta(victim), Touch::Unlinked(victim)];
    assert_eq!(touches(&fs, &unlink), last);
    let rename = |how| Act::Rename {
        from: Ino::ROOT,
        from_name: b"file".to_vec(),
        to: dir,
        to_name: b"victim".to_vec(),
        how,
    };
    let both = [
        name(Ino::ROOT, "file"),
        Touch::Meta(Ino::ROOT),
        name(dir, "victim"),
        Touch::Meta(dir),
        Touch::Meta(file),
    ];
    let over = [&both[..], &[Touch::Meta(victim), Touch::Unlinked(victim)]].concat();
    assert_eq!(touches(&fs, &rename(Rename::Replace)), over);
    assert_eq!(touches(&fs, &rename(Rename::Exchange)), [&both[..], &[Touch::Meta(victim)]].concat());
    fs.link(victim, Ino::ROOT, "second").unwrap();
    assert_eq!(touches(&fs, &unlink), last[..3]);
    let open = |name: &str, exclusive| {
        let what = Make::File { spread: None, open: true, exclusive };
        Act::Make { parent: Ino::ROOT, name: name.into(), mode: 0, umask: 0, what }
    };
    assert_eq!(touches(&fs, &open("file", false)), []);
    assert_eq!(touches(&fs, &open("new", false)), [name(Ino::ROOT, "new"), Touch::Meta(Ino::ROOT)]);
    let cut = Act::Setattr { ino: file, set: resize(0) };
    assert_eq!(touches(&fs, &cut), [Touch::Meta(file), Touch::Data(file)]);
}
