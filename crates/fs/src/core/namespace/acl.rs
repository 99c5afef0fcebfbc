//! POSIX ACLs, as Linux keeps them in extended attributes, and how they and the mode follow each other (acl(5); the rules
//! are those of `fs/posix_acl.c` of Linux).

use crate::core::Errno;

/// The name of the ACL that decides about access.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The name of the ACL that new entries of a directory begin with.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The version of the encoding (`POSIX_ACL_XATTR_VERSION`).
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// What the id is where an entry has none (`ACL_UNDEFINED_ID`).
const NO_ID: u32 = u32::MAX;
const PERMISSIONS: u16 = 0o7;

/// Whom an entry is for. The numbers, and their order in an ACL, are those of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    UserObject = 0x01,
    User = 0x02,
    GroupObject = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    /// **Invariant:** within [`PERMISSIONS`].
    perm: u16,
    id: u32,
}

/// An ACL. **Invariant:** entries are in the order of their tags; owner, owning group and others are there once, the mask
/// at most once, and always where a user or group is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// Reads the value of the extended attribute. An ACL without entries means that there shall be none.
    pub(super) fn parse(value: &[u8]) -> Result<Option<Acl>, Errno> {
        let (version, rest) = value.split_first_chunk().ok_or(Errno::EINVAL)?;
        let _: &[u8; HEADER_BYTES] = version;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let (chunks, []) = rest.as_chunks::<ENTRY_BYTES>() else { return Err(Errno::EINVAL) };
        let entries: Vec<Entry> = chunks.iter().copied().map(Entry::parse).collect::<Result<_, _>>()?;
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Acl { entries };
        acl.check()?;
        Ok(Some(acl))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let entries = self.entries.iter().flat_map(|entry| entry.to_bytes());
        VERSION.to_le_bytes().into_iter().chain(entries).collect()
    }

    fn check(&self) -> Result<(), Errno> {
        let is_ordered = self.entries.is_sorted_by_key(|entry| entry.tag);
        let once = [Tag::UserObject, Tag::GroupObject, Tag::Other].iter().all(|tag| self.count(*tag) == 1);
        let masks = self.count(Tag::Mask);
        let names_somebody = self.count(Tag::User) + self.count(Tag::Group) > 0;
        let is_valid = is_ordered && once && masks <= 1 && (masks == 1 || !names_somebody);
        if is_valid { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn count(&self, tag: Tag) -> usize {
        self.entries.iter().filter(|entry| entry.tag == tag).count()
    }

    /// Whether the mode says all that it says.
    pub(super) fn is_minimal(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.tag, Tag::UserObject | Tag::GroupObject | Tag::Other))
    }

    /// `mode` with the permissions that this ACL stands for.
    pub(super) fn mode(&self, mode: u16) -> u16 {
        let perm = |tag| self.entries.iter().find(|entry| entry.tag == tag).map_or(0, |entry| entry.perm);
        mode & !0o777 | perm(Tag::UserObject) << 6 | perm(self.group_tag()) << 3 | perm(Tag::Other)
    }

    /// Takes over the permissions of a mode, as chmod(2) does.
    pub(super) fn chmod(&mut self, mode: u16) {
        self.set_by_mode(|_, bits| bits, mode);
    }

    /// Makes the default ACL of a directory the ACL of what is made in it with `mode`, and returns the mode then: each
    /// permits what both permit.
    pub(super) fn create(&mut self, mode: u16) -> u16 {
        self.set_by_mode(|perm, bits| perm & bits, mode);
        self.mode(mode)
    }

    /// The entry whose permissions the group bits of the mode stand for.
    fn group_tag(&self) -> Tag {
        if self.count(Tag::Mask) > 0 { Tag::Mask } else { Tag::GroupObject }
    }

    fn set_by_mode(&mut self, with: impl Fn(u16, u16) -> u16, mode: u16) {
        let group = self.group_tag();
        for entry in &mut self.entries {
            let shift = match entry.tag {
                Tag::UserObject => 6,
                tag if tag == group => 3,
                Tag::Other => 0,
                _ => continue,
            };
            entry.perm = with(entry.perm, mode >> shift & PERMISSIONS);
        }
    }
}

impl Entry {
    fn parse(bytes: [u8; ENTRY_BYTES]) -> Result<Entry, Errno> {
        let [tag_low, tag_high, perm_low, perm_high, id @ ..] = bytes;
        let tag = match u16::from_le_bytes([tag_low, tag_high]) {
            0x01 => Tag::UserObject,
            0x02 => Tag::User,
            0x04 => Tag::GroupObject,
            0x08 => Tag::Group,
            0x10 => Tag::Mask,
            0x20 => Tag::Other,
            _ => return Err(Errno::EINVAL),
        };
        let perm = u16::from_le_bytes([perm_low, perm_high]);
        let is_named = matches!(tag, Tag::User | Tag::Group);
        let id = if is_named { u32::from_le_bytes(id) } else { NO_ID };
        if perm & !PERMISSIONS != 0 || is_named && id == NO_ID {
            return Err(Errno::EINVAL);
        }
        Ok(Entry { tag, perm, id })
    }

    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&(self.tag as u16).to_le_bytes());
        bytes[2..4].copy_from_slice(&self.perm.to_le_bytes());
        bytes[4..].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The value of an ACL of entries of tag, permissions and id.
    pub(in super::super) fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&perm.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    /// As getfacl(1) writes it: `u::rwx,u:7:rw,g::r-x,m::rwx,o::r--`
    fn named() -> Acl {
        let entries = [(1, 7, NO_ID), (2, 6, 7), (4, 5, NO_ID), (0x10, 7, NO_ID), (0x20, 4, NO_ID)];
        Acl::parse(&value(&entries)).unwrap().unwrap()
    }

    #[test]
    fn values_are_those_of_linux() {
        // `setfacl -m u:7:rw` on a file with mode 0754, as getfattr -e hex shows it.
        let bytes = [
            2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 7, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255,
            255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
        ];
        assert_eq!(Acl::parse(&bytes).unwrap().unwrap(), named());
        assert_eq!(named().to_bytes(), bytes);
        assert_eq!(named().mode(0o1000), 0o1774);
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        let none = NO_ID;
        assert_eq!(Acl::parse(&value(&[])), Ok(None));
        assert_eq!(Acl::parse(&[3, 0, 0, 0]), Err(Errno::EOPNOTSUPP));
        let minimal = [(1, 7, none), (4, 5, none), (0x20, 4, none)];
        assert!(Acl::parse(&value(&minimal)).unwrap().unwrap().is_minimal());
        let bad: [&[(u16, u16, u32)]; 8] = [
            &minimal[..2],
            &[minimal[1], minimal[0], minimal[2]],
            &[minimal[0], (2, 7, 5), minimal[1], minimal[2]],
            &[minimal[0], (2, 7, none), minimal[1], (0x10, 7, none), minimal[2]],
            &[minimal[0], minimal[0], minimal[1], minimal[2]],
            &[minimal[0], minimal[1], (0x10, 7, none), (0x10, 7, none), minimal[2]],
            &[(1, 8, none), minimal[1], minimal[2]],
            &[minimal[0], minimal[1], (0x40, 4, none)],
        ];
        for entries in bad {
            assert_eq!(Acl::parse(&value(entries)), Err(Errno::EINVAL), "{entries:?}");
        }
        for cut in [&[][..], &[2, 0, 0], &value(&minimal)[..27]] {
            assert_eq!(Acl::parse(cut), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn chmod_changes_the_mask_and_leaves_the_names_alone() {
        let mut acl = named();
        acl.chmod(0o640);
        assert_eq!(acl.mode(0), 0o640);
        let perms: Vec<_> = acl.entries.iter().map(|entry| entry.perm).collect();
        assert_eq!(perms, [6, 6, 5, 4, 0]);
    }

    #[test]
    fn what_is_made_permits_what_both_permit() {
        let mut acl = named();
        assert_eq!(acl.create(0o4666), 0o4664);
        let perms: Vec<_> = acl.entries.iter().map(|entry| entry.perm).collect();
        assert_eq!(perms, [6, 6, 5, 6, 4]);
    }
}
