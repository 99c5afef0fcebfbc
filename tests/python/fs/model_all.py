"""Random operations against a model in memory: each call must give what the model gives, or fail with the same errno.

`model.py DIR [DIR ...] [--seed N] [--steps N]`. With several mounts each call goes through a random one of them, and the model stays the same: what one call
did, the next sees, wherever it is made. Every so often the whole tree is compared through every mount.
"""

import errno
import mmap
import os
import random
import stat
from dataclasses import dataclass

from common import Failed, check, content, main, parser, repeat_command
from syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, RENAME_EXCHANGE, RENAME_NOREPLACE, fallocate, renameat2
from tree_model import Model, Node, Refused

NAMES = ["a", "b", "c", "d", "e"]
DEPTH_MAX = 3
HANDLES_MAX = 12
SHOWN_STEPS = 4000
# Mostly small, now and then over the borders of what is stored inline and of a stripe.
SIZES = [1, 10, 100, 4096, 5000, 65536, 70000, 1 << 20, (1 << 20) + 7]
SIZE_WEIGHTS = [10, 10, 10, 10, 10, 3, 3, 1, 1]
FILE_BYTES_MAX = 3 << 20


@dataclass
class Handle:
    descriptor: int
    node: Node
    append: bool


class Run:
    """The same operations on the model and on the mounts."""

    def __init__(self, places, seed):
        self.places, self.chance = places, random.Random(seed)
        self.model, self.handles, self.history = Model(), [], []
        self.operations = [getattr(self, name) for name in dir(self) if name.startswith("op_")]

    def step(self, number):
        self.number = number
        self.place = self.chance.choice(self.places)
        self.mount = self.places.index(self.place)
        self.chance.choice(self.operations)()

    # choices

    def path(self):
        """A path of names that may or may not be there, and leads through no link."""
        while True:
            path = [self.chance.choice(NAMES) for _ in range(self.chance.randint(1, DEPTH_MAX))]
            if not self.model.leads_through_a_link(path):
                return path

    def path_of(self, *kinds):
        """A path to something of these kinds where a few attempts find one; any otherwise."""
        for _ in range(20):
            path = self.path()
            try:
                if self.model.find(path).kind in kinds:
                    break
            except Refused:
                pass
        return path

    def path_followed(self, *kinds):
        """The same, for calls that would follow a link: none where there is one."""
        path = self.path_of(*kinds)
        try:
            return None if self.model.find(path).kind == "link" else path
        except Refused:
            return path

    def real(self, path):
        return self.place.joinpath(*path)

    def size(self):
        return self.chance.choices(SIZES, SIZE_WEIGHTS)[0]

    def bytes(self):
        return content((self.number, self.chance.random()), self.chance.randint(0, self.size()))

    def offset(self, node):
        limit = FILE_BYTES_MAX - max(SIZES)
        return min(limit, self.chance.choice([0, len(node.data), self.chance.randint(0, len(node.data) + 10), self.chance.randint(0, self.size())]))

    def handle(self):
        return self.chance.choice(self.handles) if self.handles else None

    # comparing

    def both(self, what, expected, actual):
        """Runs the model's part and the real one, and checks that they end alike. Returns both values; None when both failed."""
        self.history.append(f"{self.number} mount {self.mount}: {what}")
        try:
            wanted = (expected(), 0)
        except Refused as refused:
            wanted = (None, refused.number)
        try:
            got = (actual(), 0)
        except OSError as error:
            got = (None, error.errno)
        if wanted[1] != got[1]:
            self.fail(f"{what}: {name_of(got[1])} instead of {name_of(wanted[1])}")
        return None if wanted[1] else (wanted[0], got[0])

    def both_same(self, what, expected, actual):
        values = self.both(what, expected, actual)
        if values and values[0] != values[1]:
            self.fail(f"{what}: {difference(values[0], values[1])}")

    def fail(self, message):
        steps = "\n    ".join(self.history[-SHOWN_STEPS:])
        raise Failed(f"{message}\nafter\n    {steps}")

    # operations on names

    def op_mkdir(self):
        path = self.path()
        self.both(f"mkdir {path}", lambda: self.model.add(path, Node("dir", 0o755)), lambda: os.mkdir(self.real(path), 0o755))

    def op_symlink(self):
        path, target = self.path(), "/".join(self.path())
        self.both(
            f"symlink {path} -> {target}",
            lambda: self.model.add(path, Node("link", 0o777, target=target)),
            lambda: os.symlink(target, self.real(path)),
        )

    def op_unlink(self):
        path = self.path_of("file", "link")
        self.both(f"unlink {path}", lambda: self.model.unlink(path), lambda: os.unlink(self.real(path)))

    def op_rmdir(self):
        path = self.path_of("dir")
        self.both(f"rmdir {path}", lambda: self.model.rmdir(path), lambda: os.rmdir(self.real(path)))

    def op_link(self):
        source, target = self.path_of("file", "link"), self.path()
        act = lambda: os.link(self.real(source), self.real(target), follow_symlinks=False)
        self.both(f"link {source} {target}", lambda: self.model.link(source, target), act)

    def op_rename(self):
        source, target = self.path_of("file", "dir", "link"), self.path()
        flags = self.chance.choice([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE])
        act = lambda: self.rename(self.real(source), self.real(target), flags)
        self.both(f"rename {source} {target} flags {flags}", lambda: self.model.rename(source, target, flags), act)

    def rename(self, source, target, flags):
        """Linux refuses to rename a directory that another mount has moved, and that is in use here under its old name, until it
        is looked at under the new one: docs/filesystem.md."""
        try:
            renameat2(source, target, flags)
        except OSError as error:
            if error.errno != errno.ESTALE or len(self.places) < 2:
                raise
            for path in (source, target):
                os.path.lexists(path)
            renameat2(source, target, flags)

    def op_list(self):
        path = self.path_followed("dir")
        if path is None:
            return

        def expected():
            node = self.model.find(path)
            if node.kind != "dir":
                raise Refused(errno.ENOTDIR)
            return sorted(node.children)

        self.both_same(f"list {path}", expected, lambda: sorted(os.listdir(self.real(path))))

    def op_readlink(self):
        path = self.path_of("link")

        def expected():
            node = self.model.find(path)
            if node.kind != "link":
                raise Refused(errno.EINVAL)
            return node.target

        self.both_same(f"readlink {path}", expected, lambda: os.readlink(self.real(path)))

    # operations on attributes

    def op_stat(self):
        path = self.path()
        self.both_same(f"stat {path}", lambda: attributes_of(self.model.find(path)), lambda: attributes(os.lstat(self.real(path))))

    def op_chmod(self):
        path, mode = self.path_followed("file", "dir"), self.chance.choice([0o600, 0o644, 0o755, 0o700, 0o1777])
        if path is not None:
            self.both(f"chmod {path} {mode:o}", lambda: setattr(self.model.find(path), "mode", mode), lambda: os.chmod(self.real(path), mode))

    def op_set_xattr(self):
        path, name, value = self.path_followed("file", "dir"), f"user.{self.chance.choice(NAMES)}", self.bytes()[:200]
        if path is not None:
            self.both(
                f"setxattr {path} {name}",
                lambda: self.model.find(path).xattrs.update({name: value}),
                lambda: os.setxattr(self.real(path), name, value),
            )

    def op_remove_xattr(self):
        path, name = self.path_followed("file", "dir"), f"user.{self.chance.choice(NAMES)}"
        if path is None:
            return

        def expected():
            if self.model.find(path).xattrs.pop(name, None) is None:
                raise Refused(errno.ENODATA)

        self.both(f"removexattr {path} {name}", expected, lambda: os.removexattr(self.real(path), name))

    # operations on files by path

    def op_create(self):
        self.write_by_path(os.O_CREAT | os.O_EXCL, self.path())

    def op_overwrite(self):
        self.write_by_path(os.O_CREAT | os.O_TRUNC, self.path_of("file"))

    def op_append(self):
        self.write_by_path(os.O_APPEND, self.path_of("file"))

    def op_write_inside(self):
        self.write_by_path(0, self.path_of("file"))

    def write_by_path(self, flags, path):
        data = self.bytes()

        def expected():
            node = self.model.file(path, flags)
            if flags & os.O_TRUNC:
                node.resize(0)
            offset = len(node.data) if flags & os.O_APPEND else min(offsets[0], len(node.data) + 100)
            if len(node.data) + len(data) > FILE_BYTES_MAX:
                node.resize(0)
                return True, 0
            node.write(offset, data)
            return False, offset

        def actual():
            descriptor = os.open(self.real(path), os.O_WRONLY | os.O_NOFOLLOW | flags, 0o644)
            try:
                if answer[0]:
                    os.ftruncate(descriptor, 0)
                else:
                    write_all(descriptor, data, answer[1])
            finally:
                os.close(descriptor)

        # The model is asked first, and says where the bytes go.
        offsets, answer = [self.chance.choice([0, self.chance.randint(0, self.size())])], []
        self.both(f"write {path} flags {flags:o} {len(data)} bytes near {offsets[0]}", lambda: answer.extend(expected()), actual)

    def op_read(self):
        path = self.path_of("file")

        def actual():
            descriptor = os.open(self.real(path), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                # O_NOFOLLOW opens a directory too, which a read tells.
                return read_all(descriptor)
            finally:
                os.close(descriptor)

        self.both_same(f"read {path}", lambda: bytes(self.model.file(path).data), actual)

    def op_truncate(self):
        path = self.path_followed("file")
        if path is None:
            return
        size = self.chance.choice([0, self.size(), self.chance.randint(0, 100)])
        self.both(f"truncate {path} {size}", lambda: self.model.file(path).resize(size), lambda: os.truncate(self.real(path), size))

    # operations on files that stay open

    def op_open(self):
        if len(self.handles) >= HANDLES_MAX:
            return
        path, append = self.path_of("file"), self.chance.random() < 0.2
        flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_APPEND if append else 0)
        opened = self.both(f"open {path} append {append}", lambda: self.model.file(path), lambda: os.open(self.real(path), flags))
        if opened:
            self.handles.append(Handle(opened[1], opened[0], append))

    def op_tmpfile(self):
        if len(self.handles) < HANDLES_MAX:
            self.history.append(f"{self.number} mount {self.mount}: tmpfile")
            descriptor = os.open(self.place, os.O_TMPFILE | os.O_RDWR, 0o644)
            self.handles.append(Handle(descriptor, Node("file", 0o644, links=0), False))

    def op_close(self):
        if handle := self.handle():
            self.history.append(f"{self.number}: close {handle.descriptor}")
            self.handles.remove(handle)
            os.close(handle.descriptor)

    def op_pwrite(self):
        if handle := self.handle():
            data, offset = self.bytes(), self.offset(handle.node)
            if handle.append:
                offset = len(handle.node.data)
            if offset + len(data) > FILE_BYTES_MAX:
                return
            self.both(
                f"pwrite {handle.descriptor} {len(data)} bytes at {offset}",
                lambda: handle.node.write(offset, data),
                lambda: write_all(handle.descriptor, data, offset),
            )

    def op_pread(self):
        if handle := self.handle():
            offset, size = self.offset(handle.node), self.size()
            expected = lambda: bytes(handle.node.data[offset : offset + size])
            self.both_same(f"pread {handle.descriptor} {size} bytes at {offset}", expected, lambda: pread_all(handle.descriptor, size, offset))

    def op_ftruncate(self):
        if handle := self.handle():
            size = self.chance.choice([0, len(handle.node.data) // 2, self.size()])
            self.both(f"ftruncate {handle.descriptor} {size}", lambda: handle.node.resize(size), lambda: os.ftruncate(handle.descriptor, size))

    def op_punch(self):
        if handle := self.handle():
            offset, size = self.offset(handle.node), self.size()
            end = min(len(handle.node.data), offset + size)
            expected = lambda: handle.node.write(offset, bytes(end - offset)) if end > offset else None
            self.both(
                f"punch {handle.descriptor} {size} bytes at {offset}",
                expected,
                lambda: fallocate(handle.descriptor, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, size),
            )

    def op_allocate(self):
        if handle := self.handle():
            offset, size = self.offset(handle.node), self.size()
            expected = lambda: handle.node.resize(max(len(handle.node.data), offset + size))
            self.both(f"fallocate {handle.descriptor} {size} bytes at {offset}", expected, lambda: fallocate(handle.descriptor, 0, offset, size))

    def op_copy(self):
        source, target = self.handle(), self.handle()
        if source is None or source.node is target.node or target.append:
            return
        start, offset, size = self.offset(source.node), self.offset(target.node), self.size()
        data = bytes(source.node.data[start : start + size])
        if offset + len(data) > FILE_BYTES_MAX:
            return
        expected = lambda: target.node.write(offset, data)
        self.both(
            f"copy {source.descriptor} at {start} to {target.descriptor} at {offset}, {len(data)} bytes",
            expected,
            lambda: copy_all(source.descriptor, target.descriptor, start, offset, len(data)),
        )

    def op_map(self):
        if (handle := self.handle()) and handle.node.data:
            offset = self.chance.randrange(len(handle.node.data))
            data = self.bytes()[: len(handle.node.data) - offset]

            def actual():
                with mmap.mmap(handle.descriptor, len(handle.node.data)) as mapped:
                    mapped[offset : offset + len(data)] = data
                    mapped.flush()

            self.both(f"write {len(data)} bytes at {offset} to a map of {handle.descriptor}", lambda: handle.node.write(offset, data), actual)

    def op_fstat(self):
        if handle := self.handle():
            self.both_same(f"fstat {handle.descriptor}", lambda: attributes_of(handle.node), lambda: attributes(os.fstat(handle.descriptor)))

    def op_fsync(self):
        if handle := self.handle():
            self.both(f"fsync {handle.descriptor}", lambda: None, lambda: os.fsync(handle.descriptor))

    # the whole

    def compare_all(self):
        """The tree as each mount shows it is the model's, and times and inodes are the same through all of them."""
        self.history.append(f"{self.number}: compare the tree")
        seen = []
        for place in self.places:
            stamps = {}
            self.compare(place, self.model.root, "", stamps)
            seen.append(stamps)
        for stamps in seen[1:]:
            if stamps != seen[0]:
                self.fail(f"inodes and times through two mounts: {difference(seen[0], stamps)}")

    def compare(self, path, node, shown, stamps):
        found = os.lstat(path)
        stamps[shown] = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        self.alike(f"attributes of /{shown}", attributes_of(node) if shown else attributes(found), attributes(found))
        if node.kind == "link":
            self.alike(f"target of /{shown}", node.target, os.readlink(path))
            return
        if shown:
            xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}
            self.alike(f"xattrs of /{shown}", node.xattrs, xattrs)
        if node.kind == "file":
            with open(path, "rb") as file:
                self.alike(f"content of /{shown}", bytes(node.data), file.read())
            return
        self.alike(f"names in /{shown}", sorted(node.children), sorted(os.listdir(path)))
        for name, child in node.children.items():
            self.compare(path / name, child, f"{shown}/{name}".lstrip("/"), stamps)

    def alike(self, what, expected, actual):
        if expected != actual:
            self.fail(f"{what}: {difference(expected, actual)}")

    def close_all(self):
        while self.handles:
            self.op_close()


def attributes_of(node):
    if node.kind == "dir":
        return "dir", node.mode
    size = len(node.target) if node.kind == "link" else len(node.data)
    return node.kind, node.mode, size, node.links


def attributes(found):
    kind = {stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}.get(stat.S_IFMT(found.st_mode), "file")
    mode = stat.S_IMODE(found.st_mode)
    return (kind, mode) if kind == "dir" else (kind, mode, found.st_size, found.st_nlink)


def write_all(descriptor, data, offset):
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


def pread_all(descriptor, size, offset):
    parts = bytearray()
    while len(parts) < size and (part := os.pread(descriptor, size - len(parts), offset + len(parts))):
        parts += part
    return bytes(parts)


def read_all(descriptor):
    return pread_all(descriptor, FILE_BYTES_MAX * 2, 0)


def copy_all(source, target, start, offset, size):
    copied = 0
    # The kernel takes its own idea of the length without asking, which another mount may have outdated: docs/filesystem.md. A
    # program that looks at the file first, as cp does, has it right.
    os.fstat(source)
    while copied < size:
        count = os.copy_file_range(source, target, size - copied, start + copied, offset + copied)
        if count == 0:
            raise OSError(errno.EIO, "copy_file_range ended early")
        copied += count


def name_of(number):
    return errno.errorcode.get(number, str(number)) if number else "success"


def difference(expected, actual):
    """What to show of two values that differ: for long bytes where they begin to."""
    if not isinstance(expected, bytes) or not isinstance(actual, bytes) or len(expected) + len(actual) < 200:
        return f"{str(actual)[:600]} instead of {str(expected)[:600]}"
    at = next((n for n, (one, other) in enumerate(zip(expected, actual)) if one != other), min(len(expected), len(actual)))
    there, wanted = actual[at : at + 16].hex(), expected[at : at + 16].hex()
    return f"{len(actual)} bytes instead of {len(expected)}, different from byte {at} on: {there} instead of {wanted}"


def run_model(places, arguments):
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    os.umask(0o022)
    run = Run(places, seed)
    number = 0
    try:
        for number in range(1, arguments.steps + 1):
            run.step(number)
            if number % arguments.compare_every == 0:
                run.compare_all()
        run.close_all()
        run.compare_all()
    except (Failed, OSError) as error:
        again = "" if arguments.seed is not None else f"\nwith the same choices: {repeat_command('--seed', str(seed))}"
        raise Failed(f"seed {seed}, step {number}: {error}{again}") from error
    check(number == arguments.steps, "all steps were made")
    return f"{number} steps through {len(places)} mounts, seed {seed}"


made = parser(__doc__)
made.add_argument("--seed", type=int)
made.add_argument("--steps", type=int, default=5000)
made.add_argument("--compare-every", type=int, default=500, metavar="STEPS")
main(__doc__, run_model, made.parse_args())
