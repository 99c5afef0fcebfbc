"""Attributes: modes and owners, sticky and setgid rules, supplementary groups, xattrs, ACLs, statfs. Children that are other users show who may do what."""

import errno
import os
import stat
import struct
import time

from cases import as_user, case, cases_main, check, fails, root_only
from common import content, program, run, same
from syscalls import getxattr_into, listxattr_into

ALICE, BOB = 12345, 12346
GROUP, OTHER_GROUP = 23456, 23457
TOLD_WITHIN_S = 30


def write(path, data=b"x"):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def owner(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid


def as_alice(act, groups=()):
    return as_user(ALICE, ALICE, list(groups), act)


def as_bob(act, groups=()):
    return as_user(BOB, BOB, list(groups), act)


def directory_of(path, uid, gid, bits):
    os.mkdir(path)
    os.chown(path, uid, gid)
    os.chmod(path, bits)
    return path


# modes and owners


@case
def chmod_keeps_all_twelve_bits(d):
    write(d / "a")
    for bits in (0, 0o777, 0o4755, 0o2755, 0o1644, 0o7777):
        os.chmod(d / "a", bits)
        same(mode(d / "a"), bits, "mode")
    fails(errno.ENOENT, os.chmod, d / "none", 0o600)


@case
def chown_and_who_may(d):
    root_only()
    write(d / "a")
    os.chown(d / "a", ALICE, GROUP)
    same(owner(d / "a"), (ALICE, GROUP), "owner")
    os.chown(d / "a", -1, OTHER_GROUP)
    same(owner(d / "a"), (ALICE, OTHER_GROUP), "owner")
    os.symlink("a", d / "link")
    os.chown(d / "link", BOB, BOB, follow_symlinks=False)
    same((owner(d / "link"), owner(d / "a")), ((BOB, BOB), (ALICE, OTHER_GROUP)), "owners of link and target")
    os.chown(d / "a", 4_000_000_000, 4_000_000_001)
    same(owner(d / "a"), (4_000_000_000, 4_000_000_001), "large ids")


@case
def strangers_change_nothing(d):
    root_only()
    write(d / "a")
    os.chown(d / "a", ALICE, ALICE)
    as_bob(lambda: fails(errno.EPERM, os.chmod, d / "a", 0o777))
    as_bob(lambda: fails(errno.EPERM, os.chown, d / "a", BOB, -1))
    as_alice(lambda: fails(errno.EPERM, os.chown, d / "a", BOB, -1))
    as_alice(lambda: fails(errno.EPERM, os.chown, d / "a", -1, GROUP))
    as_alice(lambda: os.chown(d / "a", -1, GROUP), groups=[GROUP])
    same(owner(d / "a"), (ALICE, GROUP), "a group of one's own may be given")


@case
def permission_bits_are_enforced(d):
    root_only()
    write(d / "secret")
    os.chmod(d / "secret", 0o600)
    write(d / "public")
    os.chmod(d / "public", 0o644)
    as_alice(lambda: fails(errno.EACCES, os.open, d / "secret", os.O_RDONLY))
    as_alice(lambda: fails(errno.EACCES, os.open, d / "public", os.O_WRONLY))
    as_alice(lambda: fails(errno.EACCES, os.truncate, d / "public", 0))
    same(as_alice(lambda: read(d / "public")), b"x", "a public file")
    same(as_alice(lambda: (os.access(d / "secret", os.R_OK), os.access(d / "public", os.R_OK))), (False, True), "access(2)")
    for act in (
        lambda: write(d / "new"),
        lambda: os.mkdir(d / "new"),
        lambda: os.unlink(d / "public"),
        lambda: os.symlink("a", d / "new"),
        lambda: os.rename(d / "public", d / "new"),
    ):
        as_alice(lambda: fails(errno.EACCES, act))
    write(d / "run", b"#!/bin/sh\nexit 0\n")
    as_alice(lambda: fails(errno.EACCES, os.execv, d / "run", ["run"]))


@case
def directories_need_search_permission(d):
    root_only()
    directory_of(d / "no-search", ALICE, ALICE, 0o644)
    directory_of(d / "no-read", ALICE, ALICE, 0o311)
    write(d / "no-search/a")
    write(d / "no-read/a")
    as_bob(lambda: fails(errno.EACCES, os.stat, d / "no-search/a"))
    same(as_bob(lambda: os.listdir(d / "no-search")), ["a"], "names that may be read")
    as_bob(lambda: fails(errno.EACCES, os.listdir, d / "no-read"))
    as_bob(lambda: os.stat(d / "no-read/a"))


@case
def a_file_belongs_to_who_made_it(d):
    root_only()
    os.chmod(d, 0o777)

    def make():
        os.umask(0o022)
        write(d / "file")
        os.mkdir(d / "dir")
        os.symlink("file", d / "link")
        os.mkfifo(d / "fifo")

    as_user(ALICE, GROUP, [OTHER_GROUP], make)
    for name in ("file", "dir", "link", "fifo"):
        same(owner(d / name), (ALICE, GROUP), f"owner of {name}")


@case
def supplementary_groups_count(d):
    root_only()
    directory_of(d / "shared", 0, GROUP, 0o770)
    write(d / "shared/a")
    os.chown(d / "shared/a", 0, GROUP)
    os.chmod(d / "shared/a", 0o060)
    as_alice(lambda: fails(errno.EACCES, read, d / "shared/a"))
    same(as_alice(lambda: read(d / "shared/a"), groups=[OTHER_GROUP, GROUP]), b"x", "read by a supplementary group")
    as_alice(lambda: write(d / "shared/new"), groups=[GROUP])
    same(owner(d / "shared/new"), (ALICE, ALICE), "owner of what was made there")
    many = [50_000 + n for n in range(300)] + [GROUP]
    same(as_alice(lambda: read(d / "shared/a"), groups=many), b"x", "read by the last of 301 groups")


@case
def the_class_that_fits_first_decides(d):
    root_only()
    write(d / "a")
    os.chown(d / "a", ALICE, GROUP)
    os.chmod(d / "a", 0o047)
    as_alice(lambda: fails(errno.EACCES, read, d / "a"), groups=[GROUP])
    as_bob(lambda: fails(errno.EACCES, os.open, d / "a", os.O_WRONLY), groups=[GROUP])
    same(as_bob(lambda: read(d / "a")), b"x", "read by others")


# sticky, setgid, setuid


@case
def sticky_directories_protect_names(d):
    root_only()
    place = directory_of(d / "tmp", 0, 0, 0o1777)
    as_alice(lambda: write(place / "alice"))
    os.chmod(place / "alice", 0o666)
    as_bob(lambda: write(place / "bob"))
    as_bob(lambda: fails(errno.EPERM, os.unlink, place / "alice"))
    as_bob(lambda: fails(errno.EPERM, os.rename, place / "alice", place / "mine"))
    as_bob(lambda: fails(errno.EPERM, os.rename, place / "bob", place / "alice"))
    as_bob(lambda: os.rename(place / "bob", place / "bob2"))
    as_alice(lambda: os.unlink(place / "alice"))
    own = directory_of(d / "alices", ALICE, ALICE, 0o1777)
    as_bob(lambda: write(own / "bob"))
    as_alice(lambda: os.unlink(own / "bob"))


@case
def setgid_directories_hand_their_group_on(d):
    root_only()
    place = directory_of(d / "shared", 0, GROUP, 0o2777)

    def make():
        os.umask(0)
        write(place / "file")
        os.mkdir(place / "dir", 0o755)
        os.symlink("file", place / "link")

    as_alice(make)
    for name in ("file", "dir", "link"):
        same(owner(place / name), (ALICE, GROUP), f"owner of {name}")
    same((mode(place / "dir"), mode(place / "file") & 0o2000), (0o2755, 0), "setgid of a directory and a file in it")


@case
def setgid_goes_when_the_group_is_not_ones_own(d):
    root_only()
    write(d / "a")
    os.chown(d / "a", ALICE, GROUP)
    as_alice(lambda: os.chmod(d / "a", 0o2755))
    same(mode(d / "a"), 0o755, "set by somebody who is not in the group")
    as_alice(lambda: os.chmod(d / "a", 0o2755), groups=[GROUP])
    same(mode(d / "a"), 0o2755, "set by a member")
    place = directory_of(d / "shared", 0, GROUP, 0o2777)
    as_alice(lambda: os.close(os.open(place / "made", os.O_CREAT | os.O_WRONLY, 0o2755)))
    same(mode(place / "made") & 0o2000, 0, "setgid of a new file of a group that is not ones own")


@case
def setuid_goes_with_a_change_of_owner_or_content(d):
    root_only()
    write(d / "a")
    os.chmod(d / "a", 0o6755)
    os.chown(d / "a", ALICE, GROUP)
    same(mode(d / "a"), 0o755, "after chown")
    os.chmod(d / "a", 0o6777)

    def change(act):
        os.chmod(d / "a", 0o6777)
        as_bob(act)
        same(mode(d / "a"), 0o777, "after a change of content by another")

    change(lambda: append(d / "a"))
    change(lambda: os.truncate(d / "a", 0))
    directory_of(d / "dir", 0, 0, 0o2755)
    os.chown(d / "dir", ALICE, GROUP)
    same(mode(d / "dir"), 0o2755, "a directory keeps setgid")


def append(path):
    with open(path, "ab") as file:
        file.write(b"more")


# xattrs


@case
def xattrs_are_made_and_replaced(d):
    write(d / "a")
    fails(errno.ENODATA, os.getxattr, d / "a", "user.k")
    fails(errno.ENODATA, os.setxattr, d / "a", "user.k", b"v", os.XATTR_REPLACE)
    os.setxattr(d / "a", "user.k", b"one", os.XATTR_CREATE)
    fails(errno.EEXIST, os.setxattr, d / "a", "user.k", b"two", os.XATTR_CREATE)
    os.setxattr(d / "a", "user.k", b"two", os.XATTR_REPLACE)
    os.setxattr(d / "a", "user.empty", b"")
    os.setxattr(d / "a", "user.zeros", bytes(range(256)))
    same(sorted(os.listxattr(d / "a")), ["user.empty", "user.k", "user.zeros"], "the list")
    values = [os.getxattr(d / "a", f"user.{name}") for name in ("k", "empty", "zeros")]
    same(values, [b"two", b"", bytes(range(256))], "values")
    os.removexattr(d / "a", "user.k")
    fails(errno.ENODATA, os.removexattr, d / "a", "user.k")
    fails(errno.ENOENT, os.getxattr, d / "none", "user.k")


@case
def xattr_buffers_that_are_too_small(d):
    write(d / "a")
    os.setxattr(d / "a", "user.k", b"0123456789")
    same((getxattr_into(d / "a", "user.k", 0), getxattr_into(d / "a", "user.k", 10)), (10, 10), "sizes")
    fails(errno.ERANGE, getxattr_into, d / "a", "user.k", 9)
    same(listxattr_into(d / "a", 0), len("user.k") + 1, "size of the list")
    fails(errno.ERANGE, listxattr_into, d / "a", 3)


@case
def xattr_limits(d):
    write(d / "a")
    os.setxattr(d / "a", "user." + "n" * 250, b"v")
    fails(errno.ERANGE, os.setxattr, d / "a", "user." + "n" * 251, b"v")
    fails(errno.E2BIG, os.setxattr, d / "a", "user.k", bytes(65537))
    fails((errno.EINVAL, errno.EOPNOTSUPP), os.setxattr, d / "a", "user.", b"v")
    fails(errno.EOPNOTSUPP, os.setxattr, d / "a", "nonsense.k", b"v")
    os.setxattr(d / "a", "user.large", content("xattr", 2000))
    same(os.getxattr(d / "a", "user.large"), content("xattr", 2000), "a large value")


@case
def xattrs_belong_to_the_inode(d):
    write(d / "a")
    os.setxattr(d / "a", "user.k", b"v")
    os.rename(d / "a", d / "b")
    os.link(d / "b", d / "c")
    os.setxattr(d / "c", "user.k", b"changed")
    same(os.getxattr(d / "b", "user.k"), b"changed", "the value by the other name")
    os.mkdir(d / "dir")
    os.setxattr(d / "dir", "user.k", b"of a directory")
    same(os.getxattr(d / "dir", "user.k"), b"of a directory", "the value of a directory")
    write(d / "new")
    os.rename(d / "new", d / "b")
    same(os.listxattr(d / "b"), [], "xattrs of the file that replaced it")


@case
def xattrs_where_there_are_none(d):
    os.symlink("nowhere", d / "link")
    fails(errno.EPERM, os.setxattr, d / "link", "user.k", b"v", follow_symlinks=False)
    os.mkfifo(d / "fifo")
    fails(errno.EPERM, os.setxattr, d / "fifo", "user.k", b"v")


@case
def trusted_xattrs_are_roots(d):
    root_only()
    write(d / "a")
    os.setxattr(d / "a", "trusted.k", b"v")
    same(os.getxattr(d / "a", "trusted.k"), b"v", "the value")
    os.chmod(d / "a", 0o666)
    as_alice(lambda: fails((errno.EPERM, errno.ENODATA), os.getxattr, d / "a", "trusted.k"))
    as_alice(lambda: fails(errno.EPERM, os.setxattr, d / "a", "trusted.k", b"v"))
    same(as_alice(lambda: os.listxattr(d / "a")), [], "the list a plain user sees")
    os.chmod(d / "a", 0o644)
    as_alice(lambda: fails(errno.EACCES, os.setxattr, d / "a", "user.k", b"v"))


# ACLs


def acl(path, *options):
    """The entries that getfacl prints, without comments."""
    lines = run(program("getfacl"), "--omit-header", "--absolute-names", "--numeric", *options, path).split("\n")
    return [line.split("\t")[0] for line in lines if line]


def set_acl(path, entries, *options):
    run(program("setfacl"), *options, "-m", entries, path)


@case
def acls_let_somebody_in(d):
    root_only()
    write(d / "a")
    os.chmod(d / "a", 0o640)
    as_alice(lambda: fails(errno.EACCES, read, d / "a"))
    set_acl(d / "a", f"u:{ALICE}:r,g:{GROUP}:rw")
    same(acl(d / "a"), ["user::rw-", f"user:{ALICE}:r--", "group::r--", f"group:{GROUP}:rw-", "mask::rw-", "other::---"], "the ACL")
    same(mode(d / "a"), 0o660, "the mode's group bits are the mask")
    same(as_alice(lambda: read(d / "a")), b"x", "read by who was let in")
    as_alice(lambda: fails(errno.EACCES, os.open, d / "a", os.O_WRONLY))
    as_bob(lambda: fails(errno.EACCES, read, d / "a"))
    as_bob(lambda: append(d / "a"), groups=[GROUP])


@case
def chmod_changes_the_mask(d):
    root_only()
    write(d / "a")
    set_acl(d / "a", f"u:{ALICE}:rw")
    os.chmod(d / "a", 0o640)
    check("mask::r--" in acl(d / "a"), f"the mask after chmod: {acl(d / 'a')}")
    as_alice(lambda: fails(errno.EACCES, os.open, d / "a", os.O_WRONLY))
    same(as_alice(lambda: read(d / "a")), b"x", "what the mask leaves")
    run(program("setfacl"), "-b", d / "a")
    same(acl(d / "a"), ["user::rw-", "group::r--", "other::---"], "the ACL after -b")
    as_alice(lambda: fails(errno.EACCES, read, d / "a"))


@case
def default_acls_are_inherited(d):
    root_only()
    os.mkdir(d / "dir", 0o755)
    set_acl(d / "dir", f"u:{ALICE}:rwx,g:{GROUP}:rx", "-d")
    os.umask(0o077)
    write(d / "dir/file")
    os.mkdir(d / "dir/sub")
    entries = ["user::rw-", f"user:{ALICE}:rwx", "group::r-x", f"group:{GROUP}:r-x", "mask::rw-", "other::r--"]
    same(acl(d / "dir/file"), entries, "a file's ACL, not cut by the umask")
    same(mode(d / "dir/file"), 0o664, "its mode")
    defaults = [f"default:{entry}" for entry in ("user::rwx", f"user:{ALICE}:rwx", "group::r-x", f"group:{GROUP}:r-x", "mask::rwx", "other::r-x")]
    same([entry for entry in acl(d / "dir/sub") if entry.startswith("default")], defaults, "a directory's default ACL")
    same(as_alice(lambda: write(d / "dir/sub/by-alice") or owner(d / "dir/sub/by-alice")), (ALICE, ALICE), "made by who was let in")
    with os.fdopen(os.open(d / "dir/narrow", os.O_CREAT | os.O_WRONLY, 0o600)):
        pass
    check("mask::---" in acl(d / "dir/narrow"), f"the mask of a file made with 0600: {acl(d / 'dir/narrow')}")


@case
def acls_as_xattrs(d):
    root_only()
    write(d / "a")
    USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 1, 2, 4, 16, 32
    entries = [(USER_OBJ, 6, 0xFFFFFFFF), (USER, 4, ALICE), (GROUP_OBJ, 4, 0xFFFFFFFF), (MASK, 4, 0xFFFFFFFF), (OTHER, 0, 0xFFFFFFFF)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(d / "a", "system.posix_acl_access", value)
    same(os.getxattr(d / "a", "system.posix_acl_access"), value, "the ACL's bytes")
    same((mode(d / "a"), "system.posix_acl_access" in os.listxattr(d / "a")), (0o640, True), "mode and list")
    fails(errno.EINVAL, os.setxattr, d / "a", "system.posix_acl_access", value[:-8])
    fails(errno.EACCES, os.setxattr, d / "a", "system.posix_acl_default", value)
    os.removexattr(d / "a", "system.posix_acl_access")
    fails(errno.ENODATA, os.getxattr, d / "a", "system.posix_acl_access")


# statfs


@case
def statfs_is_plausible(d):
    found = os.statvfs(d)
    check(found.f_blocks >= found.f_bfree >= found.f_bavail > 0, f"blocks {found}")
    check(found.f_files >= found.f_ffree > 0, f"inodes {found}")
    same(found.f_namemax, 255, "the longest name")
    check(found.f_bsize >= 512 and found.f_frsize >= 512, f"block sizes {found}")


@case
def statfs_counts_what_is_written(d):
    SIZE = 64 << 20

    def free():
        found = os.statvfs(d)
        return found.f_bfree * found.f_frsize

    before = free()
    write(d / "a", content("statfs", SIZE))
    descriptor = os.open(d / "a", os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)
    # Others may write to the filesystem too, so that only the direction is sure; and targets may tell their space every few seconds.
    deadline = time.monotonic() + TOLD_WITHIN_S
    while free() > before - SIZE // 2:
        check(time.monotonic() < deadline, f"{before} bytes free before {SIZE} were written, {free()} {TOLD_WITHIN_S} s after")
        time.sleep(0.1)
    found = os.stat(d / "a")
    check(SIZE <= found.st_blocks * 512 <= SIZE * 1.1, f"{found.st_blocks} blocks of {SIZE} bytes")
    check(found.st_blksize >= 512, f"block size {found.st_blksize}")


cases_main(__doc__)
