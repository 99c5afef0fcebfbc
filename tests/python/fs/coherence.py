"""Coherence of two mounts: what one did and completed, the other sees at once, though it had cached what was there before.

`coherence.py DIR DIR [--rounds N]`. Each round makes a file, lets the observer look at everything (so that names, attributes and contents are cached, and a
descriptor and a map are open), changes something through the other mount, and looks again. Sides change from round to round. Stale looks are counted, with
how long they stayed stale; there must be none.
"""

import mmap
import os
import shutil
import time
from collections import defaultdict

from common import Failed, content, main, parser

SIZE = 5000
STALE_WATCHED_S = 3.0
SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


class Round:
    """One change by `writer`, one look by `reader`: each has its own path to the same directory."""

    def __init__(self, writer, reader, number, stale):
        self.w, self.r, self.number, self.stale = writer, reader, number, stale
        self.old, self.new = content(("old", number), SIZE), content(("new", number), SIZE)

    def expect(self, what, look, expected):
        """Looks once; when it is stale, watches how long it stays so."""
        if look_at(look) == expected:
            return
        started = time.monotonic()
        while time.monotonic() - started < STALE_WATCHED_S:
            if look_at(look) == expected:
                break
            time.sleep(0.005)
        self.stale[what].append(time.monotonic() - started)

    def make(self, name="file", data=None):
        with open(self.w / name, "wb") as file:
            file.write(self.old if data is None else data)

    def warm(self, name="file"):
        """What a reader may have cached: names, attributes, content."""
        os.listdir(self.r)
        os.stat(self.r / name)
        os.path.exists(self.r / "absent")
        return read(self.r / name)


def look_at(look):
    """What there is to see; an error is something to see too."""
    try:
        return look()
    except OSError as error:
        return type(error).__name__


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data, flags=os.O_WRONLY):
    descriptor = os.open(path, flags, 0o644)
    os.write(descriptor, data)
    os.close(descriptor)


@scenario
def create(r):
    os.listdir(r.r)
    r.make("new")
    r.expect("create: stat", lambda: os.stat(r.r / "new").st_size, SIZE)
    r.expect("create: content", lambda: read(r.r / "new"), r.old)
    r.expect("create: readdir", lambda: os.listdir(r.r), ["new"])


@scenario
def negative_lookup_then_create(r):
    for _ in range(2):
        if os.path.exists(r.r / "new"):
            raise Failed("a name is there before it was made")
    os.mkdir(r.w / "new")
    r.expect("negative lookup, then create: stat", lambda: os.path.isdir(r.r / "new"), True)
    r.expect("negative lookup, then create: use", lambda: os.listdir(r.r / "new"), [])


@scenario
def append(r):
    r.make()
    r.warm()
    write(r.w / "file", b"more", os.O_WRONLY | os.O_APPEND)
    r.expect("append: size", lambda: os.stat(r.r / "file").st_size, SIZE + 4)
    r.expect("append: content", lambda: read(r.r / "file"), r.old + b"more")


@scenario
def append_in_turn(r):
    r.make(data=b"")
    expected = b""
    for n in range(4):
        place = (r.w, r.r)[n % 2]
        write(place / "file", b"%d." % n, os.O_WRONLY | os.O_APPEND)
        expected += b"%d." % n
    r.expect("append in turn", lambda: read(r.r / "file"), expected)


@scenario
def overwrite(r):
    r.make()
    r.warm()
    write(r.w / "file", r.new)
    r.expect("overwrite: open and read", lambda: read(r.r / "file"), r.new)


@scenario
def overwrite_under_an_open_descriptor(r):
    r.make()
    descriptor = os.open(r.r / "file", os.O_RDONLY)
    os.pread(descriptor, SIZE, 0)
    write(r.w / "file", r.new)
    r.expect("overwrite: read by an open descriptor", lambda: os.pread(descriptor, SIZE, 0), r.new)
    os.close(descriptor)


@scenario
def write_without_close(r):
    r.make()
    reader, writer = os.open(r.r / "file", os.O_RDONLY), os.open(r.w / "file", os.O_RDWR)
    os.pread(reader, SIZE, 0)
    os.pwrite(writer, b"still open", 100)
    r.expect("write, not closed: pread", lambda: os.pread(reader, 10, 100), b"still open")
    os.pwrite(writer, b"end", 2 * SIZE)
    r.expect("write, not closed: size", lambda: os.stat(r.r / "file").st_size, 2 * SIZE + 3)
    r.expect("write, not closed: fstat", lambda: os.fstat(reader).st_size, 2 * SIZE + 3)
    r.expect("write, not closed: the end", lambda: os.pread(reader, 3, 2 * SIZE), b"end")
    os.close(reader)
    os.close(writer)


@scenario
def both_write_their_half(r):
    r.make(data=bytes(2 * SIZE))
    one, two = os.open(r.w / "file", os.O_RDWR), os.open(r.r / "file", os.O_RDWR)
    os.pwrite(one, r.old, 0)
    os.pwrite(two, r.new, SIZE)
    r.expect("both write: the first sees", lambda: os.pread(one, 2 * SIZE, 0), r.old + r.new)
    r.expect("both write: the second sees", lambda: os.pread(two, 2 * SIZE, 0), r.old + r.new)
    os.close(one)
    os.close(two)


@scenario
def truncate(r):
    r.make()
    r.warm()
    os.truncate(r.w / "file", 10)
    r.expect("truncate: size", lambda: os.stat(r.r / "file").st_size, 10)
    r.expect("truncate: content", lambda: read(r.r / "file"), r.old[:10])
    os.truncate(r.w / "file", 20)
    r.expect("truncate, longer: content", lambda: read(r.r / "file"), r.old[:10] + bytes(10))


@scenario
def rename_over(r):
    r.make()
    r.make("other", r.new)
    r.warm()
    inode = os.stat(r.w / "other").st_ino
    os.rename(r.w / "other", r.w / "file")
    r.expect("rename over: content", lambda: read(r.r / "file"), r.new)
    r.expect("rename over: inode", lambda: os.stat(r.r / "file").st_ino, inode)
    r.expect("rename over: the old name", lambda: os.path.exists(r.r / "other"), False)
    r.expect("rename over: readdir", lambda: os.listdir(r.r), ["file"])


@scenario
def rename_of_a_directory(r):
    os.makedirs(r.w / "dir/sub")
    r.make("dir/sub/file")
    r.warm("dir/sub/file")
    os.rename(r.w / "dir", r.w / "moved")
    r.expect("rename of a directory: old path", lambda: os.path.exists(r.r / "dir/sub/file"), False)
    r.expect("rename of a directory: new path", lambda: read(r.r / "moved/sub/file"), r.old)


@scenario
def unlink(r):
    r.make()
    r.make("link-to-be")
    r.warm()
    held = os.open(r.r / "file", os.O_RDONLY)
    os.unlink(r.w / "file")
    r.expect("unlink: stat", lambda: os.path.exists(r.r / "file"), False)
    r.expect("unlink: open", lambda: read(r.r / "file"), "FileNotFoundError")
    r.expect("unlink: readdir", lambda: os.listdir(r.r), ["link-to-be"])
    r.expect("unlink: links of the open file", lambda: os.fstat(held).st_nlink, 0)
    r.expect("unlink: content of the open file", lambda: os.pread(held, SIZE, 0), r.old)
    os.close(held)


@scenario
def unlink_and_make_again(r):
    r.make()
    r.warm()
    os.unlink(r.w / "file")
    r.make(data=r.new)
    r.expect("unlink and make again: content", lambda: read(r.r / "file"), r.new)


@scenario
def remove_and_make_a_directory(r):
    os.mkdir(r.w / "dir")
    os.listdir(r.r / "dir")
    os.rmdir(r.w / "dir")
    r.expect("rmdir: stat", lambda: os.path.exists(r.r / "dir"), False)
    os.mkdir(r.w / "dir")
    r.make("dir/new")
    r.expect("rmdir and mkdir: readdir", lambda: os.listdir(r.r / "dir"), ["new"])


@scenario
def chmod(r):
    r.make()
    r.warm()
    os.chmod(r.w / "file", 0o4711)
    r.expect("chmod", lambda: os.stat(r.r / "file").st_mode & 0o7777, 0o4711)


@scenario
def times(r):
    r.make()
    r.warm()
    os.utime(r.w / "file", ns=(1000, 2_000_000_003))
    r.expect("utime", lambda: os.stat(r.r / "file").st_mtime_ns, 2_000_000_003)


@scenario
def links(r):
    r.make()
    r.warm()
    os.link(r.w / "file", r.w / "second")
    r.expect("link: links by the first name", lambda: os.stat(r.r / "file").st_nlink, 2)
    write(r.w / "second", r.new)
    r.expect("link: content by the first name", lambda: read(r.r / "file"), r.new)
    os.unlink(r.w / "second")
    r.expect("link: links after unlink", lambda: os.stat(r.r / "file").st_nlink, 1)


@scenario
def symlinks(r):
    os.symlink("one", r.w / "link")
    os.readlink(r.r / "link")
    os.symlink("two", r.w / "next")
    os.rename(r.w / "next", r.w / "link")
    r.expect("symlink replaced", lambda: os.readlink(r.r / "link"), "two")


@scenario
def xattrs(r):
    r.make()
    os.setxattr(r.w / "file", "user.k", b"one")
    os.getxattr(r.r / "file", "user.k")
    os.setxattr(r.w / "file", "user.k", b"two")
    r.expect("setxattr", lambda: os.getxattr(r.r / "file", "user.k"), b"two")
    os.removexattr(r.w / "file", "user.k")
    r.expect("removexattr", lambda: os.listxattr(r.r / "file"), [])


@scenario
def directory_attributes(r):
    os.mkdir(r.w / "dir")
    before = os.stat(r.r / "dir").st_mtime_ns
    os.utime(r.w / "dir", ns=(1, 1))
    r.expect("mtime of a directory", lambda: os.stat(r.r / "dir").st_mtime_ns, 1)
    r.make("dir/file")
    r.expect("mtime of a directory after create", lambda: os.stat(r.r / "dir").st_mtime_ns >= before, True)


@scenario
def map_after_a_write(r):
    r.make()
    descriptor = os.open(r.r / "file", os.O_RDONLY)
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapped:
        mapped[:]
        write(r.w / "file", r.new)
        r.expect("mmap read after a write", lambda: mapped[:], r.new)
    os.close(descriptor)


@scenario
def write_through_a_map(r):
    r.make()
    r.warm()
    descriptor = os.open(r.w / "file", os.O_RDWR)
    with mmap.mmap(descriptor, 0) as mapped:
        mapped[: len(r.new)] = r.new
        mapped.flush()
        r.expect("read after a write through a map", lambda: read(r.r / "file"), r.new)
    os.close(descriptor)


@scenario
def read_one_write_another(r):
    """The order that programs rely on: data first, then the file that says it is there."""
    r.make("data")
    r.warm("data")
    write(r.w / "data", r.new)
    r.make("ready", b"")
    r.expect("flag file: is there", lambda: os.path.exists(r.r / "ready"), True)
    r.expect("flag file: data", lambda: read(r.r / "data"), r.new)


def run_rounds(places, arguments):
    stale = defaultdict(list)
    for number in range(arguments.rounds):
        writer, reader = places if number % 2 == 0 else reversed(places)
        for function in SCENARIOS:
            name = f"{function.__name__}-{number}"
            os.mkdir(writer / name)
            try:
                function(Round(writer / name, reader / name, number, stale))
                shutil.rmtree(writer / name)
            except OSError as error:
                # A look outside of `expect` that met what should not be, or no more.
                stale[f"{function.__name__}: {error}"].append(0.0)
    if stale:
        lines = [f"{what}: in {len(times)} of {arguments.rounds} rounds, the longest {longest(times)}" for what, times in stale.items()]
        raise Failed(f"{sum(map(len, stale.values()))} stale looks\n    " + "\n    ".join(lines))
    return f"{arguments.rounds} rounds of {len(SCENARIOS)} scenarios, 0 stale"


def longest(seconds):
    most = max(seconds)
    return f"over {STALE_WATCHED_S:.0f} s" if most >= STALE_WATCHED_S else f"{most:.2f} s"


made = parser(__doc__, mounts=2)
made.add_argument("--rounds", type=int, default=1000)
main(__doc__, run_rounds, made.parse_args())
