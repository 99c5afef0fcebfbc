"""A filesystem that fills up: `full.py DIR --mib N`, where N MiB are more than there is room for.

ENOSPC comes to who writes, what was written before is whole, files that are there stay usable, and what is removed can be written again.
With `--files` it is filled with empty files, names and small files instead, as a full MDT is.
"""

import errno
import os
import time

from common import check, content, main, parser, same

MIB = 1 << 20
ROOM_WITHIN_S = 30
# Less than what is stored inline.
OVER_BYTES = 50_000


def fill(places, arguments):
    first, last = places[0], places[-1]
    (first / "before").write_bytes(content("before", MIB))
    how = fill_with_files if arguments.files else fill_with_data
    free = free_bytes(last)
    made = how(first, arguments.mib)
    check((last / "before").read_bytes() == content("before", MIB), "a file from before")
    with open(first / "before", "r+b") as file:
        file.write(content("over", OVER_BYTES))
    over = content("over", OVER_BYTES) + content("before", MIB)[OVER_BYTES:]
    check((last / "before").read_bytes() == over, "what was written over in a full filesystem, and only closed")
    for name, data in list(made.items())[:50]:
        check((last / name).read_bytes() == data(), f"{name}, written while there was room")
    for name in made:
        os.unlink(first / name)
    for name in os.listdir(first):
        if name.startswith("part"):
            os.unlink(first / name)
    wait_for_room(last, free)
    again = how(last, arguments.mib)
    check(len(again) >= len(made) * 0.7, f"{len(made)} files before it was full, {len(again)} after they were removed")
    return f"full with {len(made)} files, and with {len(again)} after all were removed"


def free_bytes(place):
    space = os.statvfs(place)
    return space.f_bavail * space.f_frsize


def wait_for_room(place, free):
    """Space may be given back a moment after the last name is gone, by one target later than by another."""
    deadline = time.monotonic() + ROOM_WITHIN_S
    while True:
        try:
            if free_bytes(place) < 0.9 * free:
                raise OSError(errno.ENOSPC, "no room")
            write_synced(place / "probe", content("probe", MIB))
            return
        except OSError as error:
            check(time.monotonic() < deadline, f"{error.strerror} still {ROOM_WITHIN_S} s after everything was removed")
            (place / "probe").unlink(missing_ok=True)
            time.sleep(0.1)


def fill_with_data(place, mib):
    """Files of 1 MiB until one is refused, with what each that was accepted holds."""
    made = {}
    for n in range(mib):
        name = f"data{n}"
        try:
            write_synced(place / name, content(n, MIB))
        except OSError as error:
            same(errno.errorcode[error.errno], "ENOSPC", "the error of a full filesystem")
            if (place / name).exists():
                os.rename(place / name, place / f"part{n}")
            return made
        made[name] = lambda n=n: content(n, MIB)
    check(False, f"{mib} MiB found room; give more")


def fill_with_files(place, thousands):
    made = {}
    for n in range(thousands * 1000):
        name = f"data{n}-{'n' * 200}"
        try:
            write_synced(place / name, b"small %d" % n)
        except OSError as error:
            same(errno.errorcode[error.errno], "ENOSPC", "the error of a full filesystem")
            if (place / name).exists():
                os.unlink(place / name)
            return made
        made[name] = lambda n=n: b"small %d" % n
    check(False, f"{thousands} thousand files found room; give more")


def write_synced(path, data):
    """Whole on disk, or an error: a full disk may be told by write, fsync or close."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


made_parser = parser(__doc__)
made_parser.add_argument("--mib", type=int, default=200, help="more than there is room for; with --files, thousands of files")
made_parser.add_argument("--files", action="store_true")
main(__doc__, fill, made_parser.parse_args())
