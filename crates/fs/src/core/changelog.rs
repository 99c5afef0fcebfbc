//! Records of what changed in the namespace, as Lustre's changelog has them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Ino, SessionId, Time};
use crate::wire::mds::{Act, Answer, Cred, Make};

/// What happened; the numbers are Lustre's (`enum changelog_rec_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A file was made.
    Create = 1,
    /// A directory was made.
    Mkdir = 2,
    /// An inode got another name.
    Hardlink = 3,
    /// A symbolic link was made.
    Softlink = 4,
    /// A pipe, a socket or a device was made.
    Mknod = 5,
    /// A name was taken away.
    Unlink = 6,
    /// A directory was taken away.
    Rmdir = 7,
    /// A name became another one.
    Rename = 8,
    /// A session that could write a file closed it.
    Close = 11,
    /// The layout changed.
    Layout = 12,
    /// The length was set.
    Truncate = 13,
    /// Attributes were set.
    Setattr = 14,
    /// An extended attribute was set or taken away.
    Xattr = 15,
}

impl Kind {
    /// The name that `lfs changelog` writes behind the number.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Create => "CREAT",
            Kind::Mkdir => "MKDIR",
            Kind::Hardlink => "HLINK",
            Kind::Softlink => "SLINK",
            Kind::Mknod => "MKNOD",
            Kind::Unlink => "UNLNK",
            Kind::Rmdir => "RMDIR",
            Kind::Rename => "RENME",
            Kind::Close => "CLOSE",
            Kind::Layout => "LYOUT",
            Kind::Truncate => "TRUNC",
            Kind::Setattr => "SATTR",
            Kind::Xattr => "XATTR",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}{}", *self as u8, self.name())
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The directory.
    pub parent: Ino,
    /// The name.
    pub name: Vec<u8>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What happened.
    pub kind: Kind,
    /// When.
    pub time: Time,
    /// To which inode.
    pub target: Ino,
    /// The name that it concerns; of a rename, the new one.
    pub place: Option<Place>,
    /// Of a rename, the old name.
    pub source: Option<Place>,
    /// This lost its last name by it: the target, or what was replaced by a rename.
    pub unlinked: Option<Ino>,
    /// Who did it.
    pub session: SessionId,
    /// On whose behalf; nobody is known when a file is closed.
    pub cred: Option<Cred>,
}

/// A record in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place: the records of an MDT are counted from 1, without a gap, for as long as there is the MDT.
    pub index: u64,
    /// The host of the client that did it, as far as the MDT knows.
    pub client: String,
    /// What happened.
    pub record: Record,
}

/// Who did something, and when.
#[derive(Clone, Debug)]
pub struct Doer {
    /// When it was done.
    pub time: Time,
    /// By which session.
    pub session: SessionId,
    /// On whose behalf.
    pub cred: Option<Cred>,
}

impl Record {
    /// The record of a change that was answered so. `named` had the name that the change takes away or moves, `unlinked` lost
    /// its last name by it. `None` for what is not recorded: data, which is recorded when it is closed, and opens.
    pub fn of(
        act: &Act,
        answer: &Answer,
        named: Option<Ino>,
        unlinked: Option<Ino>,
        doer: Doer,
    ) -> Option<Record> {
        let (kind, target, place) = subject(act, answer, named)?;
        let source = match act {
            Act::Rename { from, from_name, .. } => Some(Place { parent: *from, name: from_name.clone() }),
            _ => None,
        };
        let Doer { time, session, cred } = doer;
        Some(Record { kind, time, target, place, source, unlinked, session, cred })
    }

    /// The record of a file that a session closed, which could write it.
    pub fn of_close(target: Ino, doer: Doer) -> Record {
        let Doer { time, session, cred } = doer;
        let kind = Kind::Close;
        Record { kind, time, target, place: None, source: None, unlinked: None, session, cred }
    }
}

fn subject(act: &Act, answer: &Answer, named: Option<Ino>) -> Option<(Kind, Ino, Option<Place>)> {
    let place = |parent: &Ino, name: &[u8]| Some(Place { parent: *parent, name: name.to_vec() });
    let made = match answer {
        Answer::Entry(attr) | Answer::Opened { attr, made: true, .. } => Some(attr.ino),
        _ => None,
    };
    Some(match act {
        Act::Make { parent, name, what, .. } => {
            let kind = match what {
                Make::File { .. } => Kind::Create,
                Make::Directory => Kind::Mkdir,
                Make::Symlink { .. } => Kind::Softlink,
                Make::Node { .. } => Kind::Mknod,
            };
            (kind, made?, place(parent, name))
        }
        Act::MakeUnnamed { parent, .. } => (Kind::Create, made?, place(parent, b"")),
        Act::Link { ino, parent, name } => (Kind::Hardlink, *ino, place(parent, name)),
        Act::Unlink { parent, name } => (Kind::Unlink, named?, place(parent, name)),
        Act::Rmdir { parent, name } => (Kind::Rmdir, named?, place(parent, name)),
        Act::Rename { to, to_name, .. } => (Kind::Rename, named?, place(to, to_name)),
        Act::Setattr { ino, set } if set.size.is_some() => (Kind::Truncate, *ino, None),
        Act::Setattr { ino, .. } => (Kind::Setattr, *ino, None),
        Act::SetXattr { ino, .. } | Act::RemoveXattr { ino, .. } => (Kind::Xattr, *ino, None),
        Act::SetLayout { ino, .. } | Act::SetDefault { ino, .. } | Act::SwapLayouts { one: (ino, _), .. } => {
            (Kind::Layout, *ino, None)
        }
        Act::WriteInline { .. }
        | Act::ZeroInline { .. }
        | Act::Written { .. }
        | Act::Place { .. }
        | Act::SetQuota { .. } => return None,
    })
}

/// The name that a change takes away or moves.
pub fn name_taken(act: &Act) -> Option<(Ino, &[u8])> {
    match act {
        Act::Unlink { parent, name } | Act::Rmdir { parent, name } => Some((*parent, name)),
        Act::Rename { from, from_name, .. } => Some((*from, from_name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::SetAttr;
    use crate::wire::mds::Rename;

    fn doer() -> Doer {
        Doer {
            time: Time::default(),
            session: SessionId(1),
            cred: Some(Cred { uid: 5, gid: 6, job: String::new() }),
        }
    }

    #[test]
    fn types_are_written_as_lustre_does() {
        let written = [Kind::Create, Kind::Rename, Kind::Close, Kind::Setattr].map(|kind| kind.to_string());
        assert_eq!(written, ["01CREAT", "08RENME", "11CLOSE", "14SATTR"]);
    }

    #[test]
    fn a_rename_says_from_where_to_where() {
        let act = Act::Rename {
            from: Ino(1),
            from_name: b"a".to_vec(),
            to: Ino(2),
            to_name: b"b".to_vec(),
            how: Rename::Replace,
        };
        assert_eq!(name_taken(&act), Some((Ino(1), b"a".as_slice())));
        let record = Record::of(&act, &Answer::Done, Some(Ino(9)), Some(Ino(8)), doer()).expect("recorded");
        assert_eq!((record.kind, record.target, record.unlinked), (Kind::Rename, Ino(9), Some(Ino(8))));
        assert_eq!(record.place, Some(Place { parent: Ino(2), name: b"b".to_vec() }));
        assert_eq!(record.source, Some(Place { parent: Ino(1), name: b"a".to_vec() }));
    }

    #[test]
    fn a_length_that_is_set_is_told_from_other_attributes() {
        let kind = |set: SetAttr| {
            let act = Act::Setattr { ino: Ino(3), set };
            Record::of(&act, &Answer::Done, None, None, doer()).map(|record| record.kind)
        };
        assert_eq!(kind(SetAttr { size: Some(0), ..SetAttr::default() }), Some(Kind::Truncate));
        assert_eq!(kind(SetAttr { mode: Some(0), ..SetAttr::default() }), Some(Kind::Setattr));
    }
}
