"""Names: rename in all its cases, hard and symbolic links, special nodes, limits; the right errno each time."""

import errno
import os
import socket
import stat
import threading

from cases import as_user, case, cases_main, check, fails, root_only
from common import same
from syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

NAME_MAX = 255
PATH_MAX = 4096
SYMLINK_DEPTH_MAX = 40


def write(path, data=b"x"):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def inode(path):
    return os.lstat(path).st_ino


# rename


@case
def rename_moves_and_keeps_the_inode(d):
    write(d / "a", b"content")
    before = inode(d / "a")
    os.rename(d / "a", d / "b")
    fails(errno.ENOENT, os.stat, d / "a")
    same((inode(d / "b"), read(d / "b")), (before, b"content"), "the file under its new name")


@case
def rename_replaces_a_file_at_once(d):
    write(d / "old", b"old")
    write(d / "new", b"new")
    held = os.open(d / "old", os.O_RDONLY)
    os.rename(d / "new", d / "old")
    same(read(d / "old"), b"new", "what the name says now")
    same((os.read(held, 9), os.fstat(held).st_nlink), (b"old", 0), "the open file that was replaced")
    os.close(held)
    same(os.listdir(d), ["old"], "the directory")


@case
def rename_to_itself_does_nothing(d):
    write(d / "a")
    os.rename(d / "a", d / "a")
    os.link(d / "a", d / "b")
    os.rename(d / "a", d / "b")
    same(sorted(os.listdir(d)), ["a", "b"], "two names of one file stay (POSIX)")


@case
def rename_noreplace(d):
    write(d / "a", b"a")
    write(d / "b", b"b")
    fails(errno.EEXIST, renameat2, d / "a", d / "b", RENAME_NOREPLACE)
    same(read(d / "b"), b"b", "what was there")
    renameat2(d / "a", d / "c", RENAME_NOREPLACE)
    same(sorted(os.listdir(d)), ["b", "c"], "the directory")


@case
def rename_exchange(d):
    write(d / "a", b"a")
    write(d / "b", b"b")
    inodes = inode(d / "a"), inode(d / "b")
    renameat2(d / "a", d / "b", RENAME_EXCHANGE)
    same((read(d / "a"), read(d / "b")), (b"b", b"a"), "contents")
    same((inode(d / "b"), inode(d / "a")), inodes, "inodes")
    fails(errno.ENOENT, renameat2, d / "a", d / "none", RENAME_EXCHANGE)
    fails(errno.EINVAL, renameat2, d / "a", d / "b", RENAME_EXCHANGE | RENAME_NOREPLACE)


@case
def rename_exchange_of_a_file_and_a_directory(d):
    (d / "one/dir").mkdir(parents=True)
    (d / "two").mkdir()
    write(d / "one/dir/inside", b"inside")
    write(d / "two/file", b"file")
    renameat2(d / "one/dir", d / "two/file", RENAME_EXCHANGE)
    same((read(d / "one/dir"), read(d / "two/file/inside")), (b"file", b"inside"), "contents")
    same(inode(d / "two/file/.."), inode(d / "two"), "the parent of the moved directory")
    fails(errno.EINVAL, renameat2, d / "two", d / "two/file", RENAME_EXCHANGE)


@case
def rename_into_own_subdirectory(d):
    (d / "a/b/c").mkdir(parents=True)
    fails(errno.EINVAL, os.rename, d / "a", d / "a/x")
    fails(errno.EINVAL, os.rename, d / "a", d / "a/b/c/x")
    fails(errno.ENOTEMPTY, os.rename, d / "a/b/c", d / "a")


@case
def rename_of_directories(d):
    (d / "empty").mkdir()
    (d / "full/inside").mkdir(parents=True)
    (d / "moving/kept").mkdir(parents=True)
    write(d / "file")
    fails((errno.ENOTEMPTY, errno.EEXIST), os.rename, d / "moving", d / "full")
    fails(errno.ENOTDIR, os.rename, d / "moving", d / "file")
    fails(errno.EISDIR, os.rename, d / "file", d / "empty")
    fails(errno.EISDIR, os.rename, d / "file", d / "full")
    os.rename(d / "moving", d / "empty")
    same(os.listdir(d / "empty"), ["kept"], "what replaced the empty directory")


@case
def rename_of_a_directory_changes_its_parent(d):
    (d / "from/moving").mkdir(parents=True)
    (d / "to").mkdir()
    before = os.stat(d / "from").st_nlink, os.stat(d / "to").st_nlink
    os.rename(d / "from/moving", d / "to/moved")
    same(inode(d / "to/moved/.."), inode(d / "to"), "the parent of the moved directory")
    after = os.stat(d / "from").st_nlink, os.stat(d / "to").st_nlink
    # A filesystem that does not count subdirectories says 1 always.
    check(after == (before[0] - 1, before[1] + 1) or before == after == (1, 1), f"links of the parents: {before}, {after}")


@case
def rename_errors(d):
    write(d / "file")
    fails(errno.ENOENT, os.rename, d / "none", d / "a")
    fails(errno.ENOENT, os.rename, d / "file", d / "none/a")
    fails(errno.ENOTDIR, os.rename, d / "file/a", d / "b")
    fails(errno.ENOTDIR, os.rename, d / "file", d / "file/a")
    fails((errno.EBUSY, errno.EINVAL), os.rename, f"{d}/.", d / "a")
    fails(errno.ENAMETOOLONG, os.rename, d / "file", d / ("n" * (NAME_MAX + 1)))
    same(os.listdir(d), ["file"], "the directory")


@case
def rename_changes_the_times_of_both_directories(d):
    for name in ("from", "to"):
        (d / name).mkdir()
    write(d / "from/a")
    for name in ("from", "to"):
        os.utime(d / name, (1, 1))
    os.rename(d / "from/a", d / "to/a")
    check(all(os.stat(d / name).st_mtime > 1 for name in ("from", "to")), "the mtimes of both")


@case
def rename_of_special_nodes_and_symlinks(d):
    os.mkfifo(d / "fifo")
    os.symlink("nowhere", d / "link")
    os.rename(d / "fifo", d / "fifo2")
    os.rename(d / "link", d / "fifo2")
    same((os.listdir(d), os.readlink(d / "fifo2")), (["fifo2"], "nowhere"), "the link replaced the fifo")


# hard links


@case
def hard_links_are_one_file(d):
    write(d / "a", b"one")
    os.link(d / "a", d / "b")
    same((inode(d / "b"), os.stat(d / "a").st_nlink), (inode(d / "a"), 2), "inode and links")
    write(d / "b", b"changed")
    os.chmod(d / "a", 0o600)
    same((read(d / "a"), stat.S_IMODE(os.stat(d / "b").st_mode)), (b"changed", 0o600), "content and mode by the other name")
    os.unlink(d / "a")
    same((os.stat(d / "b").st_nlink, read(d / "b")), (1, b"changed"), "what is left")


@case
def hard_links_change_ctime(d):
    write(d / "a")
    before = os.stat(d / "a")
    os.link(d / "a", d / "b")
    linked = os.stat(d / "a")
    os.unlink(d / "b")
    after = os.stat(d / "a")
    check(before.st_ctime_ns <= linked.st_ctime_ns <= after.st_ctime_ns, "ctime goes on")
    same(after.st_mtime_ns, before.st_mtime_ns, "mtime")
    same(after.st_nlink, 1, "links")


@case
def hard_link_errors(d):
    write(d / "a")
    (d / "dir").mkdir()
    fails(errno.EPERM, os.link, d / "dir", d / "b")
    fails(errno.EEXIST, os.link, d / "a", d / "dir")
    fails(errno.EEXIST, os.link, d / "a", d / "a")
    fails(errno.ENOENT, os.link, d / "none", d / "b")
    fails(errno.ENOENT, os.link, d / "a", d / "none/b")
    fails(errno.ENOTDIR, os.link, d / "a", d / "a/b")
    fails(errno.ENAMETOOLONG, os.link, d / "a", d / ("n" * (NAME_MAX + 1)))


@case
def hard_link_of_a_symlink_is_the_symlink(d):
    os.symlink("nowhere", d / "link")
    os.link(d / "link", d / "second", follow_symlinks=False)
    same((os.readlink(d / "second"), inode(d / "second")), ("nowhere", inode(d / "link")), "the second name")


@case
def many_hard_links(d):
    COUNT = 500
    write(d / "a")
    for n in range(COUNT):
        os.link(d / "a", d / f"l{n}")
    same(os.stat(d / "l7").st_nlink, COUNT + 1, "links")
    for n in range(COUNT):
        os.unlink(d / f"l{n}")
    same(os.stat(d / "a").st_nlink, 1, "links")


# symbolic links


@case
def symlinks_say_what_they_were_told(d):
    for n, target in enumerate(["a", "../x/./y//z", "nowhere/at all", "ü" * 50, "t" * (PATH_MAX - 1)]):
        os.symlink(target, d / f"l{n}")
        same(os.readlink(d / f"l{n}"), target, "readlink")
        same(os.lstat(d / f"l{n}").st_size, len(target.encode()), "the size of a link")
    fails(errno.ENAMETOOLONG, os.symlink, "t" * PATH_MAX, d / "long")
    fails(errno.ENOENT, os.symlink, "", d / "empty")
    fails(errno.EEXIST, os.symlink, "a", d / "l0")
    fails(errno.ENOENT, os.stat, d / "l0")


@case
def symlinks_are_followed(d):
    (d / "dir").mkdir()
    os.symlink("dir", d / "link")
    write(d / "link/a", b"through")
    same(read(d / "dir/a"), b"through", "what was written through the link")
    same(stat.S_ISLNK(os.lstat(d / "link").st_mode), True, "lstat")
    fails(errno.ENOTDIR, os.rmdir, d / "link")
    fails(errno.ENOTDIR, os.open, d / "link", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    os.symlink("a", d / "dir/to-a")
    fails(errno.ELOOP, os.open, d / "dir/to-a", os.O_RDONLY | os.O_NOFOLLOW)
    os.unlink(d / "link")
    same(os.listdir(d), ["dir"], "only the link went")
    fails(errno.EINVAL, os.readlink, d / "dir/a")


@case
def symlink_loops_end(d):
    os.symlink("b", d / "a")
    os.symlink("a", d / "b")
    fails(errno.ELOOP, os.stat, d / "a")
    write(d / "chain0")
    for n in range(1, SYMLINK_DEPTH_MAX + 2):
        os.symlink(f"chain{n - 1}", d / f"chain{n}")
    os.stat(d / f"chain{SYMLINK_DEPTH_MAX}")
    fails(errno.ELOOP, os.stat, d / f"chain{SYMLINK_DEPTH_MAX + 1}")


# fifos, sockets, devices


@case
def fifos_carry_data(d):
    os.mkfifo(d / "fifo", 0o640)
    check(stat.S_ISFIFO(os.stat(d / "fifo").st_mode), "a fifo")
    writer = threading.Thread(target=write, args=(d / "fifo", b"through the fifo"))
    writer.start()
    same(read(d / "fifo"), b"through the fifo", "what came out")
    writer.join()
    fails(errno.ENXIO, os.open, d / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    same(os.stat(d / "fifo").st_size, 0, "its size")


@case
def sockets_are_bound_and_connected(d):
    # A socket's path is short (108 bytes), so it is bound from within.
    os.chdir(d)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        check(stat.S_ISSOCK(os.stat("socket").st_mode), "a socket")
        server.listen()
        client.connect("socket")
        client.sendall(b"hello")
        connection, _ = server.accept()
        same(connection.recv(9), b"hello", "what was sent")
        connection.close()
        fails(errno.ENXIO, os.open, "socket", os.O_RDONLY)


@case
def devices_keep_their_numbers(d):
    root_only()
    for kind, number in ((stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(259, 70000))):
        name = d / f"device-{kind:o}"
        os.mknod(name, kind | 0o600, number)
        found = os.stat(name)
        same((stat.S_IFMT(found.st_mode), found.st_rdev), (kind, number), "type and number")
    as_plain = lambda: fails(errno.EPERM, os.mknod, d / "no", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chmod(d, 0o777)
    as_user(12345, 12345, [], as_plain)


@case
def mknod_makes_regular_files_too(d):
    os.mknod(d / "a", stat.S_IFREG | 0o640)
    same((os.stat(d / "a").st_size, stat.filemode(os.stat(d / "a").st_mode)), (0, "-rw-r-----"), "the file")
    fails(errno.EEXIST, os.mknod, d / "a", stat.S_IFREG | 0o640)


# names and directories


@case
def names_have_255_bytes(d):
    longest, longer = "n" * NAME_MAX, "n" * (NAME_MAX + 1)
    utf8 = "ü" * (NAME_MAX // 2)
    for name in (longest, utf8):
        write(d / name, name.encode())
        same(read(d / name), name.encode(), "the content of a long name")
    same(sorted(os.listdir(d)), sorted([longest, utf8]), "the directory")
    for act in (os.stat, os.unlink, os.mkdir, os.rmdir, os.readlink, os.mkfifo):
        fails(errno.ENAMETOOLONG, act, d / longer)
    fails(errno.ENAMETOOLONG, os.open, d / longer, os.O_CREAT | os.O_WRONLY)
    fails(errno.ENAMETOOLONG, os.symlink, "a", d / longer)
    fails(errno.ENAMETOOLONG, os.stat, "/".join([str(d)] + ["."] * PATH_MAX))


@case
def names_are_bytes(d):
    place = os.fsencode(d)
    names = [bytes([byte]) + b"name" for byte in range(1, 256) if byte != ord("/")] + [b"...", b" ", b"-rf", b"a\nb"]
    for name in names:
        write(os.path.join(place, name), name)
    same(sorted(os.listdir(place)), sorted(names), "the directory")
    for name in names:
        same(read(os.path.join(place, name)), name, "the content")
    write(d / "Case")
    fails(errno.ENOENT, os.stat, d / "case")


@case
def directory_errors(d):
    write(d / "file")
    (d / "dir/inside").mkdir(parents=True)
    fails(errno.EEXIST, os.mkdir, d / "dir")
    fails(errno.EEXIST, os.mkdir, d / "file")
    fails(errno.ENOENT, os.mkdir, d / "none/dir")
    fails(errno.ENOTDIR, os.mkdir, d / "file/dir")
    fails((errno.ENOTEMPTY, errno.EEXIST), os.rmdir, d / "dir")
    fails(errno.ENOTDIR, os.rmdir, d / "file")
    fails(errno.EINVAL, os.rmdir, f"{d}/dir/.")
    fails((errno.ENOTEMPTY, errno.EINVAL), os.rmdir, f"{d}/dir/inside/..")
    fails(errno.ENOENT, os.rmdir, d / "none")
    fails(errno.EISDIR, os.unlink, d / "dir")
    fails(errno.ENOENT, os.unlink, d / "none")
    fails(errno.EISDIR, os.open, d / "dir", os.O_WRONLY)
    fails(errno.EISDIR, os.open, d / "dir", os.O_CREAT | os.O_RDONLY)
    fails(errno.ENOTDIR, os.open, d / "file", os.O_RDONLY | os.O_DIRECTORY)
    fails(errno.ENOTDIR, os.stat, d / "file/x")
    fails(errno.ENOTDIR, os.stat, f"{d}/file/")
    fails(errno.EISDIR, read, d / "dir")


@case
def directories_count_their_subdirectories(d):
    for n in range(3):
        (d / f"sub{n}").mkdir()
    write(d / "file")
    check(os.stat(d).st_nlink in (1, 5), f"links of a directory with three directories: {os.stat(d).st_nlink}")
    os.rmdir(d / "sub0")
    check(os.stat(d).st_nlink in (1, 4), f"links after one went: {os.stat(d).st_nlink}")


@case
def a_removed_directory_takes_nothing_in(d):
    (d / "gone").mkdir()
    held = os.open(d / "gone", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(d / "gone")
    fails(errno.ENOENT, os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=held)
    fails(errno.ENOENT, os.mkdir, "new", dir_fd=held)
    same((os.fstat(held).st_nlink, os.listdir(held)), (0, []), "the removed directory")
    os.close(held)


@case
def a_removed_working_directory_has_no_path(d):
    (d / "gone").mkdir()
    os.chdir(d / "gone")
    os.rmdir(d / "gone")
    fails(errno.ENOENT, os.getcwd)
    fails(errno.ENOENT, open, "new", "w")


@case
def deep_trees(d):
    DEPTH = 200
    os.chdir(d)
    for n in range(DEPTH):
        os.mkdir(f"level{n}")
        os.chdir(f"level{n}")
    write("bottom", b"deep")
    os.chdir(d)
    same(read("/".join(f"level{n}" for n in range(DEPTH)) + "/bottom"), b"deep", "what lies deep down")
    same(sum(len(directories) for _, directories, _ in os.walk(d)), DEPTH, "directories found")


@case
def names_change_the_times_of_their_directory(d):
    for act in (
        lambda: write(d / "a"),
        lambda: os.link(d / "a", d / "b"),
        lambda: os.symlink("a", d / "c"),
        lambda: os.mkdir(d / "e"),
        lambda: os.rmdir(d / "e"),
        lambda: os.unlink(d / "a"),
    ):
        os.utime(d, (1, 1))
        act()
        found = os.stat(d)
        check(found.st_mtime > 1 and found.st_ctime > 1, "mtime and ctime of the directory")


@case
def inodes_differ_and_types_are_told(d):
    write(d / "file")
    (d / "dir").mkdir()
    os.symlink("file", d / "link")
    os.mkfifo(d / "fifo")
    with os.scandir(d) as entries:
        seen = {entry.name: (entry.inode(), entry.is_file(follow_symlinks=False), entry.is_dir(), entry.is_symlink()) for entry in entries}
    same(len({found[0] for found in seen.values()}), 4, "different inodes")
    same({name: found[0] for name, found in seen.items()}, {name: inode(d / name) for name in seen}, "inodes as stat says")
    kinds = {"file": (True, False, False), "dir": (False, True, False), "link": (False, False, True), "fifo": (False, False, False)}
    same({name: found[1:] for name, found in seen.items()}, kinds, "types")


cases_main(__doc__)
