//! Operations at random.

use proptest::prelude::*;

use crate::core::FileKind;
use crate::core::namespace::tests::INLINE_BYTES;
use crate::wire::mds::{Rename, XattrHow};

/// Which of the inodes made so far.
pub(super) type Pick = usize;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Make { parent: Pick, name: &'static str, mode: u16, what: FileKind, open: bool },
    Unnamed { parent: Pick },
    Link { ino: Pick, parent: Pick, name: &'static str },
    Unlink { parent: Pick, name: &'static str, open: bool },
    Rmdir { parent: Pick, name: &'static str, open: bool },
    Rename { from: (Pick, &'static str), to: (Pick, &'static str), how: Rename, open: bool },
    Chmod { ino: Pick, mode: u16 },
    Chown { ino: Pick, uid: u32, gid: u32 },
    Truncate { ino: Pick, size: u64 },
    Write { ino: Pick, offset: u64, len: usize, byte: u8 },
    Zero { ino: Pick, offset: u64, len: u64 },
    SetXattr { ino: Pick, name: &'static str, byte: u8, how: XattrHow },
    RemoveXattr { ino: Pick, name: &'static str },
    Forget { ino: Pick },
    Project { ino: Pick, project: u32, inherit: bool },
    Written { ino: Pick, size: u64, blocks: u64 },
}

fn names() -> impl Strategy<Value = &'static str> {
    const LONG: &str = concat!(
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
        "01234567890123456789012345678901234567890123456789012345678901234567890123456789"
    );
    prop_oneof![
        40 => prop::sample::select(vec!["a", "b", "c", "d"]),
        1 => prop::sample::select(vec!["", ".", "..", "a/b", "a\0", LONG]),
    ]
}

fn picks() -> impl Strategy<Value = Pick> {
    // The first are directories more often than not.
    prop_oneof![2 => 0..5_usize, 1 => 0..40_usize]
}

pub(super) fn steps() -> impl Strategy<Value = Step> {
    let kinds = prop::sample::select(vec![
        FileKind::Regular,
        FileKind::Regular,
        FileKind::Directory,
        FileKind::Directory,
        FileKind::Symlink,
        FileKind::Fifo,
    ]);
    let how =
        prop::sample::select(vec![Rename::Replace, Rename::Replace, Rename::NoReplace, Rename::Exchange]);
    let xattr_how = prop::sample::select(vec![XattrHow::Set, XattrHow::Create, XattrHow::Replace]);
    let xattrs = || prop::sample::select(vec!["user.a", "user.b", "trusted.c"]);
    let offsets = || prop_oneof![0..INLINE_BYTES + 50, Just(0), Just(4096), Just(8192)];
    prop_oneof![
        8 => (picks(), names(), 0..0o10000_u16, kinds, any::<bool>())
            .prop_map(|(parent, name, mode, what, open)| Step::Make { parent, name, mode, what, open }),
        1 => picks().prop_map(|parent| Step::Unnamed { parent }),
        3 => (picks(), picks(), names()).prop_map(|(ino, parent, name)| Step::Link { ino, parent, name }),
        4 => (picks(), names(), any::<bool>())
            .prop_map(|(parent, name, open)| Step::Unlink { parent, name, open }),
        2 => (picks(), names(), any::<bool>()).prop_map(|(parent, name, open)| Step::Rmdir { parent, name, open }),
        6 => ((picks(), names()), (picks(), names()), how, any::<bool>())
            .prop_map(|(from, to, how, open)| Step::Rename { from, to, how, open }),
        1 => (picks(), 0..0o10000_u16).prop_map(|(ino, mode)| Step::Chmod { ino, mode }),
        1 => (picks(), 0..3_u32, 0..3_u32).prop_map(|(ino, uid, gid)| Step::Chown { ino, uid, gid }),
        2 => (picks(), offsets().prop_map(|at| at * 2)).prop_map(|(ino, size)| Step::Truncate { ino, size }),
        4 => (picks(), offsets(), 0..9000_usize, 1..=255_u8)
            .prop_map(|(ino, offset, len, byte)| Step::Write { ino, offset, len, byte }),
        2 => (picks(), offsets(), 0..9000_u64).prop_map(|(ino, offset, len)| Step::Zero { ino, offset, len }),
        2 => (picks(), xattrs(), any::<u8>(), xattr_how)
            .prop_map(|(ino, name, byte, how)| Step::SetXattr { ino, name, byte, how }),
        1 => (picks(), xattrs()).prop_map(|(ino, name)| Step::RemoveXattr { ino, name }),
        1 => picks().prop_map(|ino| Step::Forget { ino }),
        1 => (picks(), 0..3_u32, any::<bool>())
            .prop_map(|(ino, project, inherit)| Step::Project { ino, project, inherit }),
        2 => (picks(), offsets().prop_map(|at| at * 2), 0..60_u64)
            .prop_map(|(ino, size, blocks)| Step::Written { ino, size, blocks }),
    ]
}
