//! Where rows are: a letter for the kind, then numbers in big endian, so that what belongs together lies together.

use super::inode::Link;
use super::todo::TodoId;
use crate::core::quota::QuotaKind;
use crate::core::{Ino, SessionId};

/// Row of [`super::filesystem::Counters`].
pub(super) const COUNTERS: &[u8] = b"C";
/// Row of [`super::filesystem::Filesystem`].
pub(super) const FILESYSTEM: &[u8] = b"F";
/// Row of [`super::log::Head`].
pub(super) const LOG_HEAD: &[u8] = b"G";

/// Row of [`super::accounts::Quotas`].
pub(super) const QUOTAS: &[u8] = b"Q";

const ACCOUNT: u8 = b'U';
const INODE: u8 = b'I';
const NAME: u8 = b'N';
const ENTRY: u8 = b'E';
const LINK: u8 = b'L';
const ORPHAN: u8 = b'O';
const PAGE: u8 = b'D';
const XATTR: u8 = b'X';
const SESSION: u8 = b'S';
const TODO: u8 = b'T';
const RECORD: u8 = b'R';

/// From the first key of a stretch to the first behind it.
pub(super) type Range = (Vec<u8>, Vec<u8>);

pub(super) fn inode(ino: Ino) -> [u8; 9] {
    numbered(INODE, ino.0)
}

/// The entry of a directory, by its name.
pub(super) fn name(parent: Ino, name: &[u8]) -> Vec<u8> {
    [&numbered(NAME, parent.0), name].concat()
}

/// The entry of a directory, by its cursor.
pub(super) fn entry(link: Link) -> [u8; 17] {
    let mut key = [ENTRY; 17];
    key[1..9].copy_from_slice(&link.parent.0.to_be_bytes());
    key[9..].copy_from_slice(&link.cursor.to_be_bytes());
    key
}

/// The entries of a directory behind a cursor.
pub(super) fn entries(parent: Ino, after: u64) -> Range {
    let from = entry(Link { parent, cursor: after.saturating_add(1) });
    (from.to_vec(), entry(Link { parent: Ino(parent.0.saturating_add(1)), cursor: 0 }).to_vec())
}

/// The link that a key of [`entries`] is for.
pub(super) fn link_of_entry(key: &[u8]) -> Option<Link> {
    let (parent, cursor) = key.get(1..)?.split_at_checked(8)?;
    Some(Link { parent: Ino(number(parent)?), cursor: number(cursor)? })
}

/// Another name of an inode than its home.
pub(super) fn link(ino: Ino, link: Link) -> [u8; 25] {
    let mut key = [LINK; 25];
    key[1..9].copy_from_slice(&ino.0.to_be_bytes());
    key[9..17].copy_from_slice(&link.parent.0.to_be_bytes());
    key[17..].copy_from_slice(&link.cursor.to_be_bytes());
    key
}

pub(super) fn links(ino: Ino) -> Range {
    all_of(LINK, ino)
}

/// The link that a key of [`links`] is for.
pub(super) fn link_of(key: &[u8]) -> Option<Link> {
    let (_, rest) = key.split_at_checked(9)?;
    let (parent, cursor) = rest.split_at_checked(8)?;
    Some(Link { parent: Ino(number(parent)?), cursor: number(cursor)? })
}

pub(super) fn orphan(ino: Ino) -> [u8; 9] {
    numbered(ORPHAN, ino.0)
}

pub(super) fn orphans() -> Range {
    (vec![ORPHAN], vec![ORPHAN + 1])
}

/// A page of a file's data.
pub(super) fn page(ino: Ino, page: u32) -> [u8; 13] {
    let mut key = [PAGE; 13];
    key[1..9].copy_from_slice(&ino.0.to_be_bytes());
    key[9..].copy_from_slice(&page.to_be_bytes());
    key
}

/// Pages of a file from one on.
pub(super) fn pages(ino: Ino, from: u32) -> Range {
    (page(ino, from).to_vec(), page(Ino(ino.0.saturating_add(1)), 0).to_vec())
}

/// The number of the page that a key of [`pages`] is for.
pub(super) fn page_of(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(9..)?.try_into().ok()?))
}

pub(super) fn xattr(ino: Ino, name: &[u8]) -> Vec<u8> {
    [&numbered(XATTR, ino.0), name].concat()
}

pub(super) fn xattrs(ino: Ino) -> Range {
    all_of(XATTR, ino)
}

/// The name in a key of [`xattrs`].
pub(super) fn xattr_of(key: &[u8]) -> &[u8] {
    key.get(9..).unwrap_or_default()
}

pub(super) fn session(session: SessionId) -> [u8; 17] {
    let mut key = [SESSION; 17];
    key[1..].copy_from_slice(&session.0.to_be_bytes());
    key
}

pub(super) fn sessions() -> Range {
    (vec![SESSION], vec![SESSION + 1])
}

/// The session that a key of [`sessions`] is for.
pub(super) fn session_of(key: &[u8]) -> Option<SessionId> {
    Some(SessionId(u128::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

pub(super) fn todo(id: TodoId) -> [u8; 9] {
    numbered(TODO, id.0)
}

/// What is to be done, from one entry on.
pub(super) fn todos(from: TodoId) -> Range {
    (todo(from).to_vec(), vec![TODO + 1])
}

/// What a user, a group or a project uses and may use.
pub(super) fn account(kind: QuotaKind, id: u32) -> [u8; 6] {
    let mut key = [ACCOUNT; 6];
    key[1] = match kind {
        QuotaKind::User => 0,
        QuotaKind::Group => 1,
        QuotaKind::Project => 2,
    };
    key[2..].copy_from_slice(&id.to_be_bytes());
    key
}

pub(super) fn all_inodes() -> Range {
    (vec![INODE], vec![INODE + 1])
}

/// A record of the changelog.
pub(super) fn record(index: u64) -> [u8; 9] {
    numbered(RECORD, index)
}

/// Records of the changelog from one on.
pub(super) fn records(from: u64) -> Range {
    (record(from).to_vec(), vec![RECORD + 1])
}

pub(super) fn is_record(key: &[u8]) -> bool {
    key.first() == Some(&RECORD)
}

/// The number behind the letter of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    number(key.get(1..)?)
}

fn numbered(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn all_of(kind: u8, ino: Ino) -> Range {
    (numbered(kind, ino.0).to_vec(), numbered(kind, ino.0.saturating_add(1)).to_vec())
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
