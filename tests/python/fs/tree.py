"""A tree with everything an archive must keep, and what is to be compared of a tree."""

import os
import stat

from common import content, digest, program, run

HOLE = 32 << 20
OWNERS = [(0, 0), (12345, 23456), (4_000_000_000, 7)]


def make_tree(root):
    """Files of many sizes and modes, links, a fifo, holes, xattrs, ACLs, times with nanoseconds, names of all kinds; owners where root may give them."""
    root.mkdir()
    for n, size in enumerate([0, 1, 511, 4096, 65536, 70_001, 1 << 20, 3_000_001]):
        make_file(root / f"d{n % 3}" / f"file{n}", content(n, size), n)
    deep = root.joinpath(*[f"level{n}" for n in range(30)])
    make_file(deep / "bottom", b"deep", 1)
    for n, name in enumerate(["with space", "ünïcode", "-dash", "new\nline", "n" * 255, "quote'\"", "back\\slash", ".hidden"]):
        make_file(root / "names" / name, name.encode(), n)
    os.link(root / "d0/file0", root / "d1/second-name")
    os.link(root / "d0/file3", root / "names/third-name")
    os.symlink("../d1/file1", root / "d0/link")
    os.symlink("nowhere", root / "dangling")
    os.mkfifo(root / "fifo", 0o640)
    make_sparse(root / "sparse")
    (root / "empty").mkdir(0o2750)
    os.setxattr(root / "d0/file3", "user.colour", b"blue\0green")
    os.setxattr(root / "d1", "user.of-a-directory", b"yes")
    run(program("setfacl"), "-m", "u:12345:rw,g:23456:r", root / "d1/file4")
    run(program("setfacl"), "-d", "-m", "u:12345:rwx", root / "d2")
    set_times(root)
    return root


def make_file(path, data, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if os.geteuid() == 0:
        os.chown(path, *OWNERS[number % len(OWNERS)])
    os.chmod(path, [0o644, 0o600, 0o755, 0o4755, 0o440][number % 5])


def make_sparse(path):
    with open(path, "wb") as file:
        file.write(b"start")
        file.seek(HOLE)
        file.write(b"middle")
        file.truncate(2 * HOLE)


def set_times(root):
    """From the bottom up, since what is made in a directory changes its time."""
    for n, (directory, _, files) in enumerate(os.walk(root, topdown=False)):
        for name in [*files, "."]:
            at = 1_500_000_000_000_000_000 + n * 1_000_000_007 + len(name)
            os.utime(os.path.join(directory, name), ns=(at, at), follow_symlinks=False)


def snapshot(root):
    """What has to be the same of two trees: attributes, contents, and which names are one file."""
    entries, names = {}, {}
    for directory, directories, files in os.walk(root):
        for name in [".", *files, *[each for each in directories if os.path.islink(os.path.join(directory, each))]]:
            path = os.path.join(directory, name)
            shown = os.path.relpath(path, root)
            entries[shown] = describe(path)
            found = os.lstat(path)
            if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                names.setdefault(found.st_ino, set()).add(shown)
    return entries, sorted(sorted(group) for group in names.values())


def describe(path):
    found = os.lstat(path)
    kind = stat.S_IFMT(found.st_mode)
    entry = {"mode": oct(found.st_mode), "owner": (found.st_uid, found.st_gid), "mtime": found.st_mtime_ns}
    if kind == stat.S_IFLNK:
        return entry | {"target": os.readlink(path)}
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        entry["xattrs"] = {name: os.getxattr(path, name) for name in sorted(os.listxattr(path)) if name.startswith(("user.", "system.posix_acl"))}
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            entry |= {"size": found.st_size, "content": digest(file.read())}
    return entry


def differences(expected, actual):
    """What differs between two snapshots, as text; nothing when they are the same."""
    lines = [f"{name}: is missing" for name in expected[0].keys() - actual[0].keys()]
    lines += [f"{name}: is too much" for name in actual[0].keys() - expected[0].keys()]
    for name in expected[0].keys() & actual[0].keys():
        one, other = expected[0][name], actual[0][name]
        lines += [f"{name}: {key} is {other.get(key)} instead of {one[key]}" for key in one if one[key] != other.get(key)]
    if expected[1] != actual[1]:
        lines.append(f"hard links: {actual[1]} instead of {expected[1]}")
    return "\n".join(sorted(lines))
