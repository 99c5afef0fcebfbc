#!/usr/bin/env python3
"""Measures the directory it is given: `measure.py DIR [--cold COMMAND]`. bench/fs/run uses it for each filesystem in turn.

"Cold" is what COMMAND makes so: it should mount DIR again and drop the kernel's caches. Without it the figures that say cold are warm.
"""

import argparse
import ctypes
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
SMALL = 4096
# Calls between two looks at the clock.
LOOK_EVERY = 32
LIBC = ctypes.CDLL(None, use_errno=True)

TREE_SEED = 2400
TREE_FILES = 2400
TREE_BYTES = 18_000_000
TREE_DIRECTORIES = 120


@dataclass(frozen=True)
class Effort:
    """How much is done for one figure: whichever bound is met first."""

    stream_mib: int = 256
    random_seconds: int = 3
    files: int = 10_000
    seconds: float = 4.0


@dataclass(frozen=True)
class Row:
    """One figure of the table."""

    key: str
    title: str
    unit: str
    bigger_is_better: bool = True


ROWS = [
    Row("stream_write", "write 1 MiB blocks, fsync at the end", "MB/s"),
    Row("stream_read", "cold read of the same file", "MB/s"),
    Row("random_read", "random 4 KiB cold read", "IOPS"),
    Row("random_write", "random 4 KiB write, fsync after each", "IOPS"),
    Row("random_datasync", "random 4 KiB write, fdatasync after each", "IOPS"),
    Row("create", "create (empty)", "per s"),
    Row("stat", "warm stat", "per s"),
    Row("list_cold", "readdir + stat, cold", "entries/s"),
    Row("list_warm", "readdir + stat, again", "entries/s"),
    Row("unlink", "unlink", "per s"),
    Row("create_small", "create with 4 KiB", "per s"),
    Row("read_small", "open and read 4 KiB", "per s"),
    Row("untar", "untar of 2,400 small files (18 MB) + sync", "s", bigger_is_better=False),
]


def measure(directory, cold, settle, scratch, effort=Effort()):
    """Each figure once, by the keys of ROWS. `cold` empties caches, `settle` waits until the disk has everything."""
    figures = {}
    place = Path(directory) / "bench"
    place.mkdir()
    figures |= stream_and_random(place, cold, effort)
    figures |= metadata(place, cold, effort)
    figures |= small_files(place, effort)
    figures["untar"] = untar(place, settle, small_tree(scratch))
    shutil.rmtree(place)
    settle()
    return figures


def stream_and_random(place, cold, effort):
    """What fio measures. The file is laid out by the first job and read by the others."""
    file = place / "stream"
    size = f"--size={effort.stream_mib}M"
    write = fio(file, size, "--rw=write", "--bs=1M", "--end_fsync=1")["write"]
    cold()
    read = fio(file, size, "--rw=read", "--bs=1M")["read"]
    cold()
    runtime = f"--runtime={effort.random_seconds}"
    random_read = fio(file, size, "--rw=randread", "--bs=4k", runtime)["read"]
    random_write = fio(file, size, "--rw=randwrite", "--bs=4k", "--fsync=1", runtime)["write"]
    random_datasync = fio(file, size, "--rw=randwrite", "--bs=4k", "--fdatasync=1", runtime)["write"]
    file.unlink()
    return {
        "stream_write": write["bw_bytes"] / 1e6,
        "stream_read": read["bw_bytes"] / 1e6,
        "random_read": random_read["iops"],
        "random_write": random_write["iops"],
        "random_datasync": random_datasync["iops"],
    }


def fio(file, *options):
    """Runs one job of fio, with one thread and one request in flight, and returns its part of the report."""
    command = ["fio", "--name=job", f"--filename={file}", "--ioengine=psync", "--output-format=json", *options]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout[ran.stdout.index("{") :])["jobs"][0]


def metadata(place, cold, effort):
    """Empty files in one directory. They are looked at from within, so that a path has one component."""
    directory = place / "files"
    directory.mkdir()
    names = [f"file-{n:06}" for n in range(effort.files)]
    with inside(directory):
        create = rate(names, create_empty, effort.seconds)
        made = names[: create.done]
        for name in made:
            os.stat(name)
        # Again and again, so that caches with a time limit are met as a long job meets them.
        stat = rate(itertools.cycle(made), os.stat, effort.seconds / 2)
    cold()
    list_cold = list_rate(directory, len(made))
    list_warm = list_rate(directory, len(made))
    with inside(directory):
        unlink = rate(made, os.unlink, effort.seconds)
    shutil.rmtree(directory)
    return {
        "create": create.per_second,
        "stat": stat.per_second,
        "list_cold": list_cold,
        "list_warm": list_warm,
        "unlink": unlink.per_second,
    }


def small_files(place, effort):
    directory = place / "small"
    directory.mkdir()
    names = [f"file-{n:06}" for n in range(effort.files)]
    content = random.Random(SMALL).randbytes(SMALL)

    def write(name):
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(descriptor, content)
        os.close(descriptor)

    def read(name):
        descriptor = os.open(name, os.O_RDONLY)
        if os.read(descriptor, SMALL) != content:
            sys.exit(f"{directory}/{name} does not hold what was written")
        os.close(descriptor)

    with inside(directory):
        written = rate(names, write, effort.seconds)
        reading = rate(names[: written.done], read, effort.seconds)
    shutil.rmtree(directory)
    return {"create_small": written.per_second, "read_small": reading.per_second}


@dataclass(frozen=True)
class Rate:
    done: int
    per_second: float


def rate(names, act, seconds):
    """Calls `act` on each name until the time is over. The clock is read once in a while only, since a stat takes microseconds."""
    started = time.perf_counter()
    done = 0
    for done, name in enumerate(names, start=1):
        act(name)
        if done % LOOK_EVERY == 0 and time.perf_counter() - started > seconds:
            break
    return Rate(done, done / (time.perf_counter() - started))


def create_empty(name):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def list_rate(directory, expected):
    """What `ls -l` does: all names, and the attributes of each."""
    started = time.perf_counter()
    with os.scandir(directory) as entries:
        seen = sum(1 for entry in entries if entry.stat(follow_symlinks=False).st_mode)
    elapsed = time.perf_counter() - started
    if seen != expected:
        sys.exit(f"{directory} lists {seen} entries of {expected}")
    return seen / elapsed


class inside:
    """The working directory for a block: a path with one component costs one lookup."""

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        self.before = os.getcwd()
        os.chdir(self.directory)

    def __exit__(self, *_):
        os.chdir(self.before)


def small_tree(scratch):
    """A tar of small files, the same bytes each time: sizes as a source tree has them, many small and few large."""
    path = Path(scratch) / "tree.tar"
    if path.exists():
        return path
    chance = random.Random(TREE_SEED)
    weights = [chance.lognormvariate(0, 1.2) for _ in range(TREE_FILES)]
    scale = TREE_BYTES / sum(weights)
    with tarfile.open(path, "w") as tar:
        for n, weight in enumerate(weights):
            entry = tarfile.TarInfo(f"tree/d{n % TREE_DIRECTORIES:03}/f{n:04}.c")
            entry.size = int(weight * scale)
            entry.mtime = 1_700_000_000
            tar.addfile(entry, io.BytesIO(chance.randbytes(entry.size)))
    return path


def untar(place, settle, archive):
    archive.read_bytes()
    started = time.perf_counter()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(place)], check=True)
    settle()
    elapsed = time.perf_counter() - started
    shutil.rmtree(place / "tree")
    return elapsed


def sync_filesystem(directory):
    """syncfs(2): what `sync` does, for one filesystem, so that others' dirty pages on this machine are not waited for."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if LIBC.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", str(directory))
    finally:
        os.close(descriptor)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cold", metavar="COMMAND", help="run by the shell before each figure that says cold")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"), help="where the tar for untar is made, not on the filesystem measured")
    arguments = parser.parse_args()

    def cold():
        sync_filesystem(arguments.directory)
        if arguments.cold:
            subprocess.run(arguments.cold, shell=True, check=True)

    figures = measure(arguments.directory, cold, lambda: sync_filesystem(arguments.directory), arguments.scratch)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
