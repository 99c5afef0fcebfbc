//! Names of filesystems and of the targets that they are made of, as Lustre writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::OstIndex;

/// The longest name of a filesystem, in bytes (Lustre's `LUSTRE_MAXFSNAME`).
pub const FS_NAME_BYTES_MAX: usize = 8;

/// Whether a filesystem may have this name: 1 to 8 letters, digits, `-` and `_`.
pub fn is_fs_name(name: &str) -> bool {
    let fits = (1..=FS_NAME_BYTES_MAX).contains(&name.len());
    fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What is between the name of a filesystem and that of its snapshot.
pub const SNAPSHOT_MARK: char = '@';
/// The longest name of a snapshot, in bytes.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 64;

/// Whether a snapshot may have this name: 1 to 64 letters, digits, `-`, `_`, `.` and `:`, of which the first is no `.`.
pub fn is_snapshot_name(name: &str) -> bool {
    let fits = (1..=SNAPSHOT_NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.');
    fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

/// `scratch@noon`: what a snapshot is called as a filesystem of its own.
pub fn snapshot_fs(fs: &str, snapshot: &str) -> String {
    format!("{fs}{SNAPSHOT_MARK}{snapshot}")
}

/// The filesystem and the snapshot, where a name is that of a snapshot.
pub fn split_snapshot(name: &str) -> Option<(&str, &str)> {
    name.split_once(SNAPSHOT_MARK)
}

/// The filesystem, also of the name of a snapshot.
pub fn base_fs(name: &str) -> &str {
    split_snapshot(name).map_or(name, |(fs, _)| fs)
}

/// What a target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Names and attributes: the MDT of this index.
    Mdt(u16),
    /// Data: the OST of this index.
    Ost(OstIndex),
}

impl fmt::Display for Role {
    /// `MDT0000`, `OST000a`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Mdt(index) => write!(f, "MDT{index:04x}"),
            Role::Ost(OstIndex(index)) => write!(f, "OST{index:04x}"),
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    /// As it is displayed.
    fn from_str(text: &str) -> Result<Role, UnknownRole> {
        let index = |digits: &str| u16::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 4);
        let mdt = text.strip_prefix("MDT").and_then(index).map(Role::Mdt);
        let ost = || text.strip_prefix("OST").and_then(index).map(|index| Role::Ost(OstIndex(index)));
        mdt.or_else(ost).ok_or(UnknownRole)
    }
}

/// What is no target's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither MDT nor OST with an index of four hexadecimal digits")]
pub struct UnknownRole;

/// `scratch-OST000a`
pub fn label(fs: &str, role: Role) -> String {
    format!("{fs}-{role}")
}

/// `scratch-OST000a_UUID`, as `lfs df` lists it.
pub fn uuid(fs: &str, role: Role) -> String {
    format!("{fs}-{role}_UUID")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_snapshots() {
        for good in ["x", "2026-11-26T12:00", "before_upgrade.2"] {
            assert!(is_snapshot_name(good), "{good}");
            assert_eq!(split_snapshot(&snapshot_fs("scratch", good)), Some(("scratch", good)));
        }
        for bad in ["", ".", "..", ".x", "a b", "a/b", "a@b", "é", &"x".repeat(65)] {
            assert!(!is_snapshot_name(bad), "{bad}");
        }
        assert_eq!(split_snapshot("scratch"), None);
        assert_eq!((base_fs("scratch"), base_fs("scratch@x")), ("scratch", "scratch"));
    }

    #[test]
    fn names_and_labels_are_lustres() {
        for good in ["a", "scratch", "my_fs-01"] {
            assert!(is_fs_name(good), "{good}");
        }
        for bad in ["", "ninechars", "a b", "a/b", "a.b", "é"] {
            assert!(!is_fs_name(bad), "{bad}");
        }
        assert_eq!(label("scratch", Role::Mdt(0)), "scratch-MDT0000");
        assert_eq!(uuid("scratch", Role::Ost(OstIndex(10))), "scratch-OST000a_UUID");
        for role in [Role::Mdt(3), Role::Ost(OstIndex(0x1f))] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        for bad in ["OST01", "OST0000g", "MGS", "ost0001"] {
            assert_eq!(bad.parse::<Role>(), Err(UnknownRole), "{bad}");
        }
    }
}
