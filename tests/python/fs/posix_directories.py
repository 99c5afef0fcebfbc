"""Directories: 100,000 files in one, positions that stay valid, and listings while names come and go. `--count N` takes fewer."""

import os
import random
import stat
import time

from common import check, digest, main, parser, same
from syscalls import DirectoryStream

SEED = 100
POSITIONS = 2000
DT_DIR, DT_REG = 4, 8


def run_all(places, arguments):
    first, last = places[0], places[-1]
    parts = [many_files(first, last, arguments.count), positions(first / "positions"), changing(first / "changing"), types(first / "types")]
    return "; ".join(part for part in parts if part)


def many_files(first, last, count):
    """Created by one mount, listed and looked at by another, removed by the first."""
    directory = first / "many"
    directory.mkdir()
    names = [f"{digest(str(n).encode())[:12]}-{n}" for n in range(count)]
    seconds = {"create": timed(create_all, directory, names)}
    seen = []
    seconds["list"] = timed(lambda: seen.extend(os.listdir(last / "many")))
    check(sorted(seen) == sorted(names), f"{len(seen)} names listed, {len(set(seen))} of them different, {count} made")
    seconds["stat"] = timed(stat_all, last / "many", names)
    for name in random.Random(SEED).sample(names, min(count, 1000)):
        check(not os.path.exists(last / "many" / f"{name}-not"), "a name that was never made")
    half = names[::2]
    seconds["unlink"] = timed(unlink_all, directory, half)
    check(sorted(os.listdir(last / "many")) == sorted(names[1::2]), "what is listed after every second was removed")
    unlink_all(directory, names[1::2])
    same(os.listdir(last / "many"), [], "what is listed after all were removed")
    directory.rmdir()
    rates = ", ".join(f"{what} {len(half if what == 'unlink' else names) / elapsed:.0f}/s" for what, elapsed in seconds.items())
    return f"{count} files ({rates})"


def timed(act, *arguments):
    started = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - started


def create_all(directory, names):
    for name in names:
        os.close(os.open(directory / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def stat_all(directory, names):
    for name in names:
        check(stat.S_ISREG(os.stat(directory / name).st_mode), f"{name} is a file")


def unlink_all(directory, names):
    for name in names:
        os.unlink(directory / name)


def positions(directory):
    """telldir and seekdir: a position leads to the entry it was taken before, in any order, also after other entries went."""
    directory.mkdir()
    create_all(directory, [f"p{n}" for n in range(POSITIONS)])
    chance = random.Random(SEED)
    with DirectoryStream(directory) as stream:
        taken = []
        while True:
            position = stream.tell()
            entry = stream.read()
            if entry is None:
                break
            taken.append((position, entry[0]))
        same(len({position for position, _ in taken}), len(taken), "different positions")
        for position, name in chance.sample(taken, 500):
            stream.seek(position)
            same(stream.read()[0], name, "the entry at a position")
        middle = len(taken) // 2
        gone = {name for _, name in taken[:middle:2] if name not in (b".", b"..")}
        for name in gone:
            os.unlink(directory / os.fsdecode(name))
        for position, name in chance.sample([each for each in taken if each[1] not in gone], 500):
            stream.seek(position)
            same(stream.read()[0], name, "the entry at a position after others went")
        stream.seek(taken[middle][0])
        left = [name for _, name in taken[middle:] if name not in (b".", b"..")]
        same(stream.names(), left, "the rest from the middle on")
        (directory / "new").touch()
        stream.rewind()
        same(sorted(stream.names()), sorted(set(map(os.fsencode, os.listdir(directory)))), "all from the start, the new one too")
    return f"{POSITIONS} positions"


def changing(directory):
    """What is there the whole time is listed exactly once, whatever else comes and goes meanwhile (readdir, POSIX)."""
    directory.mkdir()
    stay = {f"stay{n}".encode() for n in range(1500)}
    create_all(directory, [os.fsdecode(name) for name in stay] + [f"go{n}" for n in range(1500)])
    seen = []
    with DirectoryStream(directory) as stream:
        for n in range(1500):
            entry = stream.read()
            seen += [entry[0]] if entry else []
            os.unlink(directory / f"go{n}")
            (directory / f"come{n}").touch()
        seen += stream.names()
    seen = [name for name in seen if name in stay]
    check(len(seen) == len(set(seen)), "a name listed twice")
    same(set(seen), stay, "the names that stayed")
    remove_while_listing(directory)
    return "listing while names change"


def remove_while_listing(directory):
    """As `rm -r` does it."""
    with DirectoryStream(directory) as stream:
        while (entry := stream.read()) is not None:
            if entry[0] not in (b".", b".."):
                os.unlink(directory / os.fsdecode(entry[0]))
    same(os.listdir(directory), [], "what one pass over the directory left")
    directory.rmdir()


def types(directory):
    directory.mkdir()
    (directory / "dir").mkdir()
    (directory / "file").touch()
    with DirectoryStream(directory) as stream:
        entries = {}
        while (entry := stream.read()) is not None:
            entries[entry[0]] = entry[1:]
    inode = {name: os.stat(directory / name).st_ino for name in (".", "..", "dir", "file")}
    expected = {b".": (inode["."], DT_DIR), b"..": (inode[".."], DT_DIR), b"dir": (inode["dir"], DT_DIR), b"file": (inode["file"], DT_REG)}
    same(entries, expected, "inodes and types of entries")
    return ""


made = parser(__doc__)
made.add_argument("--count", type=int, default=100_000)
main(__doc__, run_all, made.parse_args())
