//! What is true of the rows after any command.

use std::collections::{BTreeMap, BTreeSet};

use super::super::directory::{Entry, Named};
use super::super::filesystem::Counters;
use super::super::inode::{Body, Home, Inode, Link};
use super::super::rows::Row;
use super::super::{PAGE_BYTES, keys};
use super::Memory;
use crate::core::quota::Account;
use crate::core::{Attr, FileKind, Ino};

/// All rows, sorted by what they are.
#[derive(Default)]
struct All {
    inodes: BTreeMap<Ino, Inode>,
    /// By directory and name.
    names: BTreeMap<(Ino, Vec<u8>), Entry>,
    /// By directory and cursor.
    entries: BTreeMap<(Ino, u64), Named>,
    /// By inode: directory and cursor.
    links: BTreeSet<(Ino, Ino, u64)>,
    orphans: BTreeSet<Ino>,
    pages: BTreeMap<Ino, Vec<(u32, usize)>>,
    xattrs: BTreeSet<Ino>,
    accounts: BTreeMap<Vec<u8>, Account>,
}

pub(in super::super) fn check(rows: &Memory) {
    let all = sort(rows);
    let counters = Counters::decode(&rows.0[keys::COUNTERS]).unwrap();
    assert_eq!(counters.inodes, all.inodes.len() as u64, "inodes are counted");
    check_entries(&all);
    for (ino, inode) in &all.inodes {
        assert!(ino.counter() < counters.ino_next, "numbers of inodes are not used again");
        check_names(&all, inode);
        match &inode.body {
            Body::Directory(_) => check_directory(&all, inode),
            Body::File(_) => check_file(&all, inode),
            Body::Symlink(_) | Body::Node => {}
        }
        let is_marked = inode.attr.flags & Attr::NO_XATTR == 0;
        assert_eq!(is_marked, all.xattrs.contains(ino), "{ino:?} says whether it has attributes");
    }
    let owners = all.xattrs.iter().chain(&all.orphans).chain(all.pages.keys());
    let owners = owners.chain(all.links.iter().map(|(ino, ..)| ino));
    for owner in owners {
        assert!(all.inodes.contains_key(owner), "a row of {owner:?} is left, which is gone");
    }
    check_objects(&all, counters.object_next);
    check_accounts(&all);
}

/// What an account says is used is the sum over all inodes of its owner.
fn check_accounts(all: &All) {
    let mut sums = BTreeMap::<Vec<u8>, (u64, u64)>::new();
    for inode in all.inodes.values() {
        let attr = &inode.attr;
        for (kind, id) in [(0, attr.uid), (1, attr.gid), (2, attr.project)] {
            let key = [&[b'U', kind][..], &id.to_be_bytes()].concat();
            let sum = sums.entry(key).or_default();
            *sum = (sum.0 + attr.blocks, sum.1 + 1);
        }
    }
    let counted = |account: &Account| (account.space.used, account.inodes.used);
    let is_used = |account: &&Account| counted(account) != (0, 0);
    let used = all.accounts.iter().filter(|(_, account)| is_used(account));
    let used: BTreeMap<_, _> = used.map(|(key, account)| (key.clone(), counted(account))).collect();
    assert_eq!(used, sums, "accounts are the sums over inodes");
    assert!(
        all.accounts.values().all(|account| *account != Account::default()),
        "an empty account is no row"
    );
}

fn sort(rows: &Memory) -> All {
    let mut all = All::default();
    for (key, value) in &rows.0 {
        let ino = || Ino(u64::from_be_bytes(key[1..9].try_into().unwrap()));
        match key[0] {
            b'I' => drop(all.inodes.insert(ino(), Inode::decode(value).unwrap())),
            b'N' => drop(all.names.insert((ino(), key[9..].to_vec()), Entry::decode(value).unwrap())),
            b'E' => {
                let link = keys::link_of_entry(key).unwrap();
                all.entries.insert((link.parent, link.cursor), Named::decode(value).unwrap());
            }
            b'L' => {
                let link = keys::link_of(key).unwrap();
                all.links.insert((ino(), link.parent, link.cursor));
            }
            b'O' => drop(all.orphans.insert(ino())),
            b'D' => all.pages.entry(ino()).or_default().push((keys::page_of(key).unwrap(), value.len())),
            b'X' => drop(all.xattrs.insert(ino())),
            b'U' => drop(all.accounts.insert(key.clone(), Account::decode(value).unwrap())),
            b'C' | b'F' | b'Q' | b'S' | b'T' => {}
            other => panic!("a row of kind {other}"),
        }
    }
    all
}

/// Both rows of an entry say the same, and lead to an inode of that kind.
fn check_entries(all: &All) {
    assert_eq!(all.names.len(), all.entries.len());
    for ((parent, name), entry) in &all.names {
        let named = &all.entries[&(*parent, entry.cursor)];
        assert_eq!((&named.name, named.ino, named.kind), (name, entry.ino, entry.kind));
        assert_eq!(all.inodes[&entry.ino].attr.kind, entry.kind);
        let directory = all.inodes[parent].directory().unwrap();
        assert!((1..directory.cursor_next).contains(&entry.cursor));
    }
}

/// The inode is found under its home and its links, and nowhere else; and it counts them.
fn check_names(all: &All, inode: &Inode) {
    let ino = inode.attr.ino;
    let of_inode = |(key, named): (&(Ino, u64), &Named)| (named.ino == ino).then_some(*key);
    let found: BTreeSet<_> = all.entries.iter().filter_map(of_inode).collect();
    let links = all.links.iter().filter(|(of, ..)| *of == ino);
    let mut said: BTreeSet<_> = links.map(|(_, parent, cursor)| (*parent, *cursor)).collect();
    if let Home::Name(Link { parent, cursor }) = inode.home {
        assert!(said.insert((parent, cursor)), "the home is no link besides");
    }
    assert_eq!(found, said, "names of {ino:?}");
    let is_orphan = matches!(inode.home, Home::Gone | Home::Unnamed);
    assert_eq!(is_orphan, all.orphans.contains(&ino));
    let is_directory = inode.attr.kind == FileKind::Directory;
    match inode.home {
        Home::Root => assert_eq!(ino, Ino::ROOT),
        Home::Name(_) if is_directory => assert_eq!(found.len(), 1),
        Home::Name(_) => assert_eq!(inode.attr.nlink as usize, found.len(), "names of {ino:?} are counted"),
        Home::Gone | Home::Unnamed => assert_eq!((inode.attr.nlink, found.len()), (0, 0)),
    }
}

fn check_directory(all: &All, inode: &Inode) {
    let attr = &inode.attr;
    let entries: Vec<_> =
        all.entries.range((attr.ino, 0)..=(attr.ino, u64::MAX)).map(|(_, named)| named).collect();
    assert_eq!(inode.directory().unwrap().entries, entries.len() as u64);
    assert_eq!(attr.size, entries.iter().map(|named| named.name.len() as u64).sum::<u64>());
    let directories = entries.iter().filter(|named| named.kind == FileKind::Directory).count();
    if attr.nlink > 0 {
        assert_eq!(attr.nlink as usize, 2 + directories);
    } else {
        assert!(entries.is_empty());
    }
}

fn check_file(all: &All, inode: &Inode) {
    let pages = all.pages.get(&inode.attr.ino).map_or(&[][..], Vec::as_slice);
    let file = inode.file().unwrap();
    assert_eq!(file.pages as usize, pages.len());
    assert!(inode.attr.blocks >= u64::from(file.pages) * 8);
    for (number, len) in pages {
        assert!(*len > 0 && *len <= PAGE_BYTES);
        let end = *number as usize * PAGE_BYTES + len;
        assert!(end as u64 <= inode.attr.size, "a page of {:?} ends behind the file", inode.attr.ino);
    }
}

/// No object is in two files.
fn check_objects(all: &All, object_next: u64) {
    let mut seen = BTreeSet::new();
    for inode in all.inodes.values() {
        let Body::File(file) = &inode.body else { continue };
        for (_, object) in file.layout.objects() {
            assert!(object.0 < object_next && seen.insert(object), "{object:?} is in two files");
        }
    }
}
