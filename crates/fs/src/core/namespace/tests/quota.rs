//! Accounts and limits.

use super::super::{keys, recount, room};
use super::*;
use crate::core::quota::{Account, Grace, Limits, Owner, QuotaKind, SetLimits, SetQuota};

const USER: u32 = 10;

fn limits(soft: u64, hard: u64) -> SetLimits {
    SetLimits { soft: Some(soft), hard: Some(hard) }
}

fn by_root(fs: &mut Fs, act: Act) -> Result<Answer, Errno> {
    let cred = std::mem::take(&mut fs.cred);
    let answer = fs.act(act);
    fs.cred = cred;
    answer
}

/// Limits a user, and leaves out what is `None`.
fn limit(fs: &mut Fs, id: u32, space: Option<SetLimits>, inodes: Option<SetLimits>) {
    let (space, inodes) = (space.unwrap_or_default(), inodes.unwrap_or_default());
    let set = SetQuota::Limits { id, space, inodes };
    assert_eq!(by_root(fs, Act::SetQuota { kind: QuotaKind::User, set }), Ok(Answer::Done));
}

fn account(fs: &Fs, kind: QuotaKind, id: u32) -> Account {
    match fs.ask(&Ask::Quota { kind, id }) {
        Ok(Answer::Quota(account, _)) => account,
        other => panic!("unexpected: {other:?}"),
    }
}

fn try_file(fs: &mut Fs, name: &str) -> Result<Ino, Errno> {
    let what = Make::File { spread: None, open: true, exclusive: true };
    fs.make(Ino::ROOT, name, 0o644, what).map(|attr| attr.ino)
}

fn chown(uid: u32) -> SetAttr {
    SetAttr { uid: Some(uid), ..SetAttr::default() }
}

#[test]
fn limits_and_grace_are_for_root_to_set() {
    let mut fs = Fs::new();
    let set = SetQuota::Limits { id: USER, space: limits(1, 2), inodes: limits(3, 4) };
    let act = Act::SetQuota { kind: QuotaKind::Group, set };
    assert_eq!(fs.act(act.clone()), Err(Errno::EPERM));
    assert_eq!(by_root(&mut fs, act), Ok(Answer::Done));
    let inodes = SetLimits { soft: None, hard: Some(9) };
    let set = SetQuota::Limits { id: USER, space: SetLimits::default(), inodes };
    by_root(&mut fs, Act::SetQuota { kind: QuotaKind::Group, set }).unwrap();
    let said = account(&fs, QuotaKind::Group, USER);
    assert_eq!(said.space.limits, Limits { soft: 1, hard: 2 });
    assert_eq!(said.inodes.limits, Limits { soft: 3, hard: 9 }, "what is not said stays");
    assert_eq!(account(&fs, QuotaKind::User, USER), Account::default());
    let set = SetQuota::Grace { space_secs: Some(60), inode_secs: None };
    by_root(&mut fs, Act::SetQuota { kind: QuotaKind::Group, set }).unwrap();
    let grace = |kind| match fs.ask(&Ask::Quota { kind, id: 0 }) {
        Ok(Answer::Quota(_, grace)) => grace,
        other => panic!("unexpected: {other:?}"),
    };
    assert_eq!(grace(QuotaKind::Group), Grace { space_secs: 60, ..Grace::default() });
    assert_eq!(grace(QuotaKind::User), Grace::default());
}

#[test]
fn no_inode_is_made_beyond_the_limit_but_by_root() {
    let mut fs = Fs::new();
    limit(&mut fs, USER, None, Some(limits(0, 2)));
    try_file(&mut fs, "a").unwrap();
    fs.dir(Ino::ROOT, "b");
    assert_eq!(try_file(&mut fs, "c"), Err(Errno::EDQUOT));
    assert_eq!(fs.lookup(Ino::ROOT, "c"), Err(Errno::ENOENT));
    assert_eq!(fs.make(Ino::ROOT, "c", 0o755, Make::Directory), Err(Errno::EDQUOT));
    let unnamed = Act::MakeUnnamed { parent: Ino::ROOT, mode: 0o600, umask: 0 };
    assert_eq!(fs.act(unnamed), Err(Errno::EDQUOT));
    fs.cred.uid = 0;
    let of_root = try_file(&mut fs, "c").unwrap();
    fs.set(of_root, chown(USER)).expect("root gives beyond the limit");
    fs.cred.uid = USER;
    assert_eq!(account(&fs, QuotaKind::User, USER).inodes.used, 3);
    fs.victim_open = true;
    fs.unlink(Ino::ROOT, "c");
    fs.unlink(Ino::ROOT, "a");
    assert_eq!(try_file(&mut fs, "d"), Err(Errno::EDQUOT), "what is open without a name counts");
    fs.command(What::Forget { inos: vec![of_root] }, &[]).answer.unwrap();
    fs.command(What::Forget { inos: orphans(&fs.rows, 9).unwrap() }, &[]).answer.unwrap();
    try_file(&mut fs, "d").expect("there is room again");
    invariants::check(&fs.rows);
}

#[test]
fn space_is_given_up_to_the_limit_and_what_is_stored_is_counted() {
    let mut fs = Fs::new();
    limit(&mut fs, USER, Some(limits(0, 16)), None);
    let file = try_file(&mut fs, "f").unwrap();
    fs.write(file, 0, &[1; 8192]).unwrap();
    assert_eq!(fs.write(file, 8192, &[1]), Err(Errno::EDQUOT));
    fs.write(file, 100, &[2; 100]).expect("it takes no more space");
    let stored =
        Act::Written { ino: file, size: 90_000, mtime: None, blocks: Some(100), kill_suid_sgid: false };
    assert!(fs.act(stored).is_ok(), "it is at the OSTs already");
    assert_eq!(account(&fs, QuotaKind::User, USER).space.used, 116);
    let now = Time { secs: 0, nanos: 0 };
    assert_eq!(room(&fs.rows, Owner { uid: USER, ..Owner::default() }, now), Ok(Some(0)));
    fs.set(file, SetAttr { size: Some(4096), ..SetAttr::default() }).unwrap();
    let (used, left) =
        (account(&fs, QuotaKind::User, USER).space.used, Owner { uid: USER, gid: 20, project: 0 });
    assert_eq!((used, room(&fs.rows, left, now)), (8, Ok(Some(8 * 512))));
    fs.write(file, 4096, &[3; 10]).expect("there is room again");
    invariants::check(&fs.rows);
}

#[test]
fn the_least_room_counts_and_without_limits_there_is_no_end() {
    let mut fs = Fs::new();
    let owner = Owner { uid: USER, gid: 20, project: 0 };
    let now = Time { secs: 0, nanos: 0 };
    assert_eq!(room(&fs.rows, owner, now), Ok(None));
    limit(&mut fs, USER, Some(limits(0, 100)), None);
    let set = SetQuota::Limits { id: 20, space: limits(0, 40), inodes: SetLimits::default() };
    by_root(&mut fs, Act::SetQuota { kind: QuotaKind::Group, set }).unwrap();
    assert_eq!(room(&fs.rows, owner, now), Ok(Some(40 * 512)));
    assert_eq!(room(&fs.rows, Owner { gid: 5, ..owner }, now), Ok(Some(100 * 512)));
    for kind in [QuotaKind::User, QuotaKind::Group] {
        for id in [USER, 20] {
            let set = SetQuota::Limits { id, space: limits(0, 0), inodes: SetLimits::default() };
            by_root(&mut fs, Act::SetQuota { kind, set }).unwrap();
        }
    }
    assert_eq!(room(&fs.rows, owner, now), Ok(None));
}

#[test]
fn the_soft_limit_holds_when_its_grace_is_over() {
    let mut fs = Fs::new();
    let set = SetQuota::Grace { space_secs: None, inode_secs: Some(50) };
    by_root(&mut fs, Act::SetQuota { kind: QuotaKind::User, set }).unwrap();
    limit(&mut fs, USER, None, Some(limits(1, 9)));
    try_file(&mut fs, "a").unwrap();
    try_file(&mut fs, "b").unwrap();
    let ends = account(&fs, QuotaKind::User, USER).inodes.grace_ends;
    assert_eq!(ends, Some(fs.now.secs + 50));
    try_file(&mut fs, "c").unwrap();
    assert_eq!(account(&fs, QuotaKind::User, USER).inodes.grace_ends, ends);
    fs.now.secs += 50;
    assert_eq!(try_file(&mut fs, "d"), Err(Errno::EDQUOT));
    fs.unlink(Ino::ROOT, "a");
    fs.unlink(Ino::ROOT, "b");
    assert_eq!(account(&fs, QuotaKind::User, USER).inodes.grace_ends, None);
    try_file(&mut fs, "d").expect("it begins anew");
}

#[test]
fn nobody_but_root_gives_to_who_has_no_room() {
    let mut fs = Fs::new();
    let file = try_file(&mut fs, "f").unwrap();
    fs.write(file, 0, &[1; 4096]).unwrap();
    limit(&mut fs, 77, Some(limits(0, 7)), None);
    assert_eq!(fs.set(file, chown(77)), Err(Errno::EDQUOT));
    assert_eq!(fs.attr(file).unwrap().uid, USER);
    limit(&mut fs, 77, Some(limits(0, 8)), None);
    fs.set(file, chown(77)).unwrap();
    assert_eq!(account(&fs, QuotaKind::User, 77).space.used, 8);
    assert_eq!(account(&fs, QuotaKind::User, USER), Account::default());
    invariants::check(&fs.rows);
}

#[test]
fn an_mdt_without_accounts_is_counted() {
    let mut fs = Fs::new();
    let file = try_file(&mut fs, "f").unwrap();
    fs.write(file, 0, &[1; 9000]).unwrap();
    fs.dir(Ino::ROOT, "d");
    assert_eq!(recount(&fs.rows), Ok(None), "it has accounts");
    let mut old = fs.rows.clone();
    old.0.retain(|key, _| !matches!(key[0], b'U' | b'Q'));
    assert!(old.get(keys::QUOTAS).unwrap().is_none());
    let counted = recount(&old).unwrap().expect("it has none");
    old.merge(counted);
    assert_eq!(old, fs.rows);
}
