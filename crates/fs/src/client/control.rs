//! How `lfs` talks to a mount: virtual extended attributes, which the client answers itself. Only their names and values are
//! here.
//!
//! | attribute | of | get | set |
//! |---|---|---|---|
//! | [`FID`] | anything | the inode as text, `[0x200000400:0x1:0x0]` | |
//! | [`LAYOUT`] | a file | [`Layout`](crate::core::Layout): where its bytes are | |
//! | [`SPREAD`] | a directory | [`DefaultSpread`]: what its new files get | `Option<Spread>`: its default, or none of its own |
//! | [`SPREAD`] | a file | | `Option<Spread>`, which must be there: the layout of a file that has no data yet |
//! | [`SPACE`] | anything | [`FsSpace`]: the filesystem and the space of its targets | |
//! | [`PATHS`] and a FID | anything | the paths from the root that lead to the FID, each with a NUL behind it | |
//! | [`QUOTA`] and whose, `user.1000` | anything | [`Quota`]: what is used and may be; of others for root alone | |
//! | [`QUOTA`] | anything | | `(QuotaKind, SetQuota)`: limits and grace, for root alone |
//! | [`PROJECT`] | anything | [`Project`]: whose project it is | [`SetProject`], for root alone |
//! | [`SWAP`] | a file | | [`Swap`]: exchanges data with another file (`lfs migrate`) |
//!
//! Values that are no text are postcard. The attributes are in no list (listxattr), so that nobody copies them with a file.
//! The kernel asks for read permission before it gets one, and for write permission before it sets one. A client answers
//! `ENODATA` where an attribute is of something else, `EPERM` or `EOPNOTSUPP` where it cannot be set, and `EINVAL` for a value
//! that cannot be read.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::core::quota::{Account, Grace, QuotaKind};
use crate::core::{Fid, Ino, OstIndex, Spread};
use crate::wire::oss::Space;

/// What the names of all virtual attributes begin with.
pub const PREFIX: &str = "kiln.";
/// The inode, as text.
pub const FID: &str = "kiln.fid";
/// A file's layout.
pub const LAYOUT: &str = "kiln.layout";
/// The layout that is asked for: a directory's default, or that of an empty file.
pub const SPREAD: &str = "kiln.spread";
/// The filesystem, and the space of its targets.
pub const SPACE: &str = "kiln.space";
/// Followed by a FID without brackets: the paths that lead there.
pub const PATHS: &str = "kiln.paths.";
/// Limits and grace; with `.` and whose behind it, what is used.
pub const QUOTA: &str = "kiln.quota";
/// The project that pays for an inode.
pub const PROJECT: &str = "kiln.project";
/// Exchanges the data of two files.
pub const SWAP: &str = "kiln.swap";

/// The most paths that [`PATHS`] answers with.
pub const PATHS_MAX: u32 = 64;

/// The value of [`SPREAD`] of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultSpread {
    /// What its new files get.
    pub spread: Spread,
    /// It is the directory's own; otherwise that of the filesystem.
    pub own: bool,
}

/// The value of [`SPACE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsSpace {
    /// The filesystem's name.
    pub fs: String,
    /// Of each MDT by index; `None` of one that does not answer.
    pub mdts: Vec<Option<Space>>,
    /// Of each OST.
    pub osts: Vec<OstSpace>,
}

/// The space of one OST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OstSpace {
    /// Its index.
    pub index: OstIndex,
    /// It gets no new objects.
    pub draining: bool,
    /// Its space; `None` when it does not answer.
    pub space: Option<Space>,
}

/// The value of [`SWAP`], set on one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The layout generation that this file has.
    pub generation: u32,
    /// The other file.
    pub other: Ino,
    /// The layout generation that the other has.
    pub other_generation: u32,
}

/// The value of [`QUOTA`] of somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The filesystem's name.
    pub fs: String,
    /// What is used and may be.
    pub account: Account,
    /// How long more than the soft limits.
    pub grace: Grace,
}

/// The value of [`PROJECT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its number; 0 is none.
    pub id: u32,
    /// New entries of the directory take it.
    pub inherit: bool,
}

/// What [`PROJECT`] is set to; `None` stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetProject {
    /// Its number.
    pub id: Option<u32>,
    /// Whether new entries of the directory take it.
    pub inherit: Option<bool>,
}

/// A virtual attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// [`FID`]
    Fid,
    /// [`LAYOUT`]
    Layout,
    /// [`SPREAD`]
    Spread,
    /// [`SPACE`]
    Space,
    /// [`PATHS`] to this inode.
    Paths(Ino),
    /// [`QUOTA`]
    Quotas,
    /// [`QUOTA`] of somebody.
    Quota(QuotaKind, u32),
    /// [`PROJECT`]
    Project,
    /// [`SWAP`]
    Swap,
}

impl Attribute {
    /// What a name means; `None` when it begins with [`PREFIX`] and is none of these, or does not begin so.
    pub fn of(name: &[u8]) -> Option<Attribute> {
        let name = std::str::from_utf8(name).ok()?;
        match name {
            FID => Some(Attribute::Fid),
            LAYOUT => Some(Attribute::Layout),
            SPREAD => Some(Attribute::Spread),
            SPACE => Some(Attribute::Space),
            SWAP => Some(Attribute::Swap),
            QUOTA => Some(Attribute::Quotas),
            PROJECT => Some(Attribute::Project),
            _ if name.starts_with(QUOTA) => account_of(name),
            _ => name.strip_prefix(PATHS)?.parse().ok().map(|Fid(ino)| Attribute::Paths(ino)),
        }
    }
}

const KINDS: [(QuotaKind, &str); 3] =
    [(QuotaKind::User, "user"), (QuotaKind::Group, "group"), (QuotaKind::Project, "project")];

/// The name of [`QUOTA`] for somebody.
pub fn quota_of(kind: QuotaKind, id: u32) -> String {
    let (_, word) = KINDS[kind as usize];
    format!("{QUOTA}.{word}.{id}")
}

/// What [`quota_of`] has made.
fn account_of(name: &str) -> Option<Attribute> {
    let (word, id) = name.strip_prefix(QUOTA)?.strip_prefix('.')?.split_once('.')?;
    let (kind, _) = KINDS.into_iter().find(|(_, kind)| *kind == word)?;
    Some(Attribute::Quota(kind, id.parse().ok()?))
}

/// The name of [`PATHS`] for an inode.
pub fn paths_of(ino: Ino) -> String {
    format!("{PATHS}{}", Fid(ino).to_string().trim_matches(['[', ']']))
}

/// A value as an attribute carries it.
///
/// # Panics
///
/// When the value has a length that is not known beforehand, which none of these has.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data encodes")
}

/// A value that an attribute carries; `None` when it is none.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

/// The value of [`PATHS`].
pub fn encode_paths(paths: &[Vec<u8>]) -> Vec<u8> {
    paths.iter().flat_map(|path| path.iter().copied().chain([0])).collect()
}

/// What [`encode_paths`] has made.
pub fn decode_paths(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.strip_suffix(&[0]).map(|paths| paths.split(|byte| *byte == 0).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::layout::Stripes;

    #[test]
    fn names_mean_what_they_say() {
        assert_eq!(Attribute::of(b"kiln.layout"), Some(Attribute::Layout));
        for ino in [Ino::ROOT, Ino(77)] {
            assert_eq!(Attribute::of(paths_of(ino).as_bytes()), Some(Attribute::Paths(ino)));
        }
        assert_eq!(paths_of(Ino(77)), "kiln.paths.0x200000400:0x4d:0x0");
        for kind in QuotaKind::ALL {
            let name = quota_of(kind, 1000);
            assert_eq!(Attribute::of(name.as_bytes()), Some(Attribute::Quota(kind, 1000)), "{name}");
        }
        assert_eq!(Attribute::of(b"kiln.quota"), Some(Attribute::Quotas));
        for other in [&b"kiln.quota.user.x"[..], b"kiln.quota.all.1", b"kiln.quotauser.1"] {
            assert_eq!(Attribute::of(other), None);
        }
        for other in [&b"kiln.paths.x"[..], b"kiln.", b"user.kiln.fid", b"kiln.fid2", b"\xff"] {
            assert_eq!(Attribute::of(other), None);
        }
    }

    #[test]
    fn values_come_back_and_garbage_does_not() {
        let stripes = Stripes { count: Some(2), first: None };
        let spread = Spread::plain(65_536, 1 << 20, stripes);
        let value = DefaultSpread { spread, own: true };
        let bytes = encode(&value);
        assert_eq!(decode(&bytes), Some(value));
        assert_eq!(decode::<DefaultSpread>(&bytes[1..]), None);
        assert_eq!(decode::<DefaultSpread>(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn paths_come_back() {
        for paths in [vec![], vec![b"a/b".to_vec()], vec![b"a".to_vec(), Vec::new(), b"c".to_vec()]] {
            assert_eq!(decode_paths(&encode_paths(&paths)), paths);
        }
    }
}
